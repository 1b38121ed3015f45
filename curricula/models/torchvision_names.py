"""The names of torchvision's classifiers. Imports neither torch nor torchvision."""

from curricula.plugins.sources import registered_models


def names() -> frozenset[str]:
    """Return the names that ``torchvision(NAME)`` takes.

    >>> "squeezenet1_1" in names()
    True
    """
    return registered_models("torchvision")
