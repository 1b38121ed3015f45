"""curricula: train image classifiers that are robust to spatial changes and adversarial pixels.

`__init__.pyi` is the list of the public names: verbs and types at the top, and the submodules that
hold the rest. Importing this package imports no torch; a name is loaded when it is first used.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(__name__)
    if name in __all__ or name.startswith("__"):
        return _load(name)

    from curricula.errors import did_you_mean

    fix = did_you_mean(name, __all__, otherwise=f"dir({__name__}) lists all")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {fix}")
