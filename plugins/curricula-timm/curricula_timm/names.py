"""The names of timm's networks. Imports neither torch nor timm."""

from curricula.plugins.sources import registered_models


def names() -> frozenset[str]:
    """Return the names of networks and of their weights that ``timm(NAME)`` takes.

    >>> "resnet10t" in names()
    True
    """
    return registered_models("timm")
