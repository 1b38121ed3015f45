"""The library's main functions, by what they do: train, load what a run holds, measure it, use
it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
