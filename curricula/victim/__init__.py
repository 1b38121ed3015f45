"""The model under attack: a frozen, fast copy that perturbations query."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
