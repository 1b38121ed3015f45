"""The plugin system: hook specifications, the registry, the built-in records, the scaffold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
