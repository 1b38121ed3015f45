"""curricula: train image classifiers that are robust to spatial changes and adversarial pixels.

`__init__.pyi` is the list of the public names: verbs and types at the top, and the submodules that
hold the rest. Importing this package imports no torch; a name is loaded when it is first used.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return version(__name__) if name == "__version__" else _load(name)
