"""Figures, the page of a run or a sweep, and the catalogue. Nothing here changes results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

MAX_IMAGES, MAX_STRENGTHS = 50, 20  # rows and columns of a preview
