"""Read names out of the source code of an installed package, without importing it."""

import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_TAGGED = re.compile(r"[\"']((\w+)\.\w+)[\"']")


@functools.cache
def registered_models(package: str) -> frozenset[str]:
    """Return the names of the functions in ``PACKAGE/models/*.py`` that are decorated with
    ``register_model``, as torchvision and timm mark their networks, and those of their weights,
    ``NAME.TAG``; none if the package is not installed.

    >>> "squeezenet1_1" in registered_models("torchvision")
    True
    """
    found = importlib.util.find_spec(package)
    folders = [] if found is None else found.submodule_search_locations or []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    names = {name for text in texts for name in _REGISTERED.findall(text)}
    tagged = {word for text in texts for word, name in _TAGGED.findall(text) if name in names}
    return frozenset(names | tagged)
