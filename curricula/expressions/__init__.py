"""Expressions: from the text of a curriculum or a threat to the tree that runs on a batch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
