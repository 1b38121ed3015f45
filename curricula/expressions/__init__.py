"""The expression language: its syntax, its binding and the nodes that run on a batch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
