"""Training: the loop, its configuration, its checkpoints and its run folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
