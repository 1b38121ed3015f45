"""Figures, the page of a run or a sweep, and the catalogue. Nothing here changes results."""

MAX_IMAGES, MAX_STRENGTHS = 50, 20  # rows and columns of a preview
