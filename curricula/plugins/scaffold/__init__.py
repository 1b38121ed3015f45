"""Write a new plugin package from templates. Imports no torch."""

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from curricula.errors import UserError
from curricula.plugins import registry
from curricula.plugins.names import RESERVED
from curricula.runtime.files import check_folder

PLUGIN_NAME = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
"""Names that are valid in an expression, for a distribution and, with ``_`` for ``-``, for a
package."""
MAX_NAME_LENGTH = 30  # characters; keeps the lines of the templates within 100
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "__init__.py": "$package/__init__.py",
    "plugin.py": "$package/plugin.py",
    "perturbation.py": "$package/perturbation.py",
    "test_it.py": "tests/test_$name.py",
}
"""Path inside the package of the file written from each template, by the template's name."""


def write_plugin(name: str, output: Path) -> Path:
    """Write a package with a perturbation and tests of its contract, and return its folder.

    Args:
        name: name of the perturbation: lower-case letters and digits, with ``-`` or ``_`` between
            them, at most 30 characters.
        output: the folder in which ``curricula-NAME`` is created.

    Raises:
        UserError: if the name is invalid or taken, or the folder already exists.
    """
    package = _package_of(name)
    check_folder(output)
    folder = output / f"curricula-{name}"
    words = {"name": name, "package": package, "class_name": _class_name(name)}
    try:
        folder.mkdir(parents=True)
        for template, place in FILES.items():
            path = folder / Template(place).substitute(words)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_template(template).substitute(words), encoding="utf-8")
    except FileExistsError as error:
        raise UserError(
            f"{error.filename} already exists: choose another output (--output)"
        ) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error})") from error
    return folder


def _package_of(name: str) -> str:
    """Check a plugin's name, and return the name of its Python package."""
    if not re.fullmatch(PLUGIN_NAME, name) or len(name) > MAX_NAME_LENGTH:
        raise UserError(
            f"plugin name {name!r}: write at most {MAX_NAME_LENGTH} lower-case letters and digits, "
            "a letter first, with - or _ between them, for example haze"
        )
    if name in RESERVED or keyword.iskeyword(_class_name(name)):
        raise UserError(f"plugin name {name!r} is a reserved word: choose another")
    known = registry.current().records("perturbation").values()
    taken = [each.provider for each in known if each.record.name == name]
    if taken:
        raise UserError(
            f"plugin name {name!r}: {taken[0]} already has a perturbation of that name; "
            "choose another"
        )
    package = f"curricula_{name.replace('-', '_')}"
    if importlib.util.find_spec(package):
        raise UserError(
            f"plugin name {name!r}: the package {package} is already installed; choose another"
        )
    return package


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[-_]", name))


def _template(name: str) -> Template:
    path = files("curricula.plugins.scaffold") / "template" / f"{name}.template"
    return Template(path.read_text(encoding="utf-8"))
