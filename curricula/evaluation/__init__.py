"""Evaluation: accuracy under threats, the robustness profile, the audit for gradient masking."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
