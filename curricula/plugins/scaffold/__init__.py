"""A new plugin as a package of its own, from templates. Imports no torch."""

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from curricula.errors import UserError
from curricula.plugins import registry
from curricula.plugins.names import RESERVED

PLUGIN_NAME = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
"""Names that do for an expression, a distribution and, with ``_`` for ``-``, a Python package."""
LONGEST = 30  # characters: the lines of the templates stay within 100
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "__init__.py": "$package/__init__.py",
    "plugin.py": "$package/plugin.py",
    "perturbation.py": "$package/perturbation.py",
    "test_it.py": "tests/test_$name.py",
}
"""Where each template goes."""


def write_plugin(name: str, out: Path) -> Path:
    """Write a package that offers a perturbation, with the tests of its contract.

    Args:
        name: of the perturbation: lower-case letters and digits, ``-`` or ``_`` between them.
        out: the folder in which ``curricula-NAME`` is made.

    Returns:
        The package's folder.

    Raises:
        UserError: a name that cannot be, or is taken; a folder that is there.
    """
    package = _package_of(name)
    folder = out / f"curricula-{name}"
    words = {"name": name, "package": package, "class_name": _class_name(name)}
    try:
        folder.mkdir(parents=True)
        for template, place in FILES.items():
            path = folder / Template(place).substitute(words)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_template(template).substitute(words), encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{error.filename} is there already: choose another --out") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error})") from error
    return folder


def _package_of(name: str) -> str:
    """The Python package of a plugin's name, if that is free."""
    if not re.fullmatch(PLUGIN_NAME, name) or len(name) > LONGEST:
        raise UserError(
            f"plugin name {name!r}: write at most {LONGEST} lower-case letters and digits, a "
            "letter first, with - or _ between them, for example fog"
        )
    if name in RESERVED or keyword.iskeyword(_class_name(name)):
        raise UserError(f"plugin name {name!r} is a word of the language: choose another")
    taken = registry.current().records("perturbation").get(name)
    if taken:
        raise UserError(
            f"plugin name {name!r}: {taken.provider} offers a perturbation of that name; "
            "choose another"
        )
    package = f"curricula_{name.replace('-', '_')}"
    if importlib.util.find_spec(package):
        raise UserError(f"plugin name {name!r}: a package {package} is installed; choose another")
    return package


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[-_]", name))


def _template(name: str) -> Template:
    path = files("curricula.plugins.scaffold") / "template" / f"{name}.template"
    return Template(path.read_text(encoding="utf-8"))
