"""The built-in models, registered like those of a plugin, and the layer `Normalise`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
