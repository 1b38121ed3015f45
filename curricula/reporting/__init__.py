"""Figures, the page of a run or a sweep, and the catalogue. Nothing here changes results."""
