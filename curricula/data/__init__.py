"""Data sets: labelled images in memory or read when needed, and the built-in data sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
