"""The plugin registry: load plugins, check their records, look names up."""

import ast
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import attrs
import pluggy

from curricula.errors import (
    UnknownNameError,
    UserError,
    did_you_mean,
    message_of,
    shown,
    similar_names,
)
from curricula.plugins import builtin, hookspecs
from curricula.plugins.hookspecs import KINDS, PROJECT, Kind, Record
from curricula.plugins.names import RESERVED
from curricula.runtime.files import similar_path

STRICT_VARIABLE = "CURRICULA_STRICT_PLUGINS"
NO_PLUGINS_VARIABLE = "CURRICULA_NO_PLUGINS"
DISABLE_VARIABLE = "CURRICULA_DISABLE"

MAX_LISTED_NAMES = 12  # names in one line of an error


class PluginWarning(UserWarning):
    """Warn that a plugin failed to load, or that it registers a name of the library; everything
    that does not need it keeps working."""


@attrs.frozen(kw_only=True)
class Provider:
    """The distribution, with its version, or the loose file that a record comes from."""

    name: str
    version: str = ""
    source: Literal["distribution", "file"]

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()

    @property
    def prefix(self) -> str:
        """The word before ``/`` in an expression: the distribution, or the file's name without
        ``.py``, in lower-case letters, digits and ``-``.

        >>> Provider(name="plugins/My haze.py", source="file").prefix
        'my-haze'
        """
        if self.source == "distribution":
            return _prefix(self.name)
        word = _prefix(Path(self.name).name)
        return f"plugin-{word}" if word == PROJECT else word


def _prefix(name: str) -> str:
    """Return the name of a distribution (normalised as in PEP 503) or of a file as an expression
    can hold it."""
    word = re.sub(r"[^a-z0-9]+", "-", name.removesuffix(".py").lower()).strip("-")
    return word if word[:1].isalpha() else f"plugin-{word}".strip("-")


@attrs.frozen(kw_only=True)
class Registered:
    """A record together with its kind and the distribution or file that it comes from."""

    kind: Kind
    record: Record
    provider: Provider

    @property
    def qualified(self) -> str:
        """``PROVIDER/NAME``, which names this record even if another plugin has the name too."""
        return f"{self.provider.prefix}/{self.record.name}"

    @property
    def is_builtin(self) -> bool:
        """True if the record comes with this library, rather than with a plugin."""
        return self.provider.name == PROJECT

    def load(self) -> Callable[..., Any]:
        """Import the record's factory if it is given as text, and return it.

        Raises:
            UserError: if the import fails; the message ends with the record's install hint.
        """
        factory = self.record.factory
        if not isinstance(factory, str):
            return factory
        try:
            return _imported(factory)
        except Exception as error:
            hint = f"; try: {self.record.install}" if self.record.install else ""
            raise UserError(
                f"{self.kind} {self.record.name!r} of {self.provider} cannot be imported "
                f"({error}){hint}"
            ) from error


def _imported(place: str) -> Callable[..., Any]:
    """Return what ``package.module:attribute`` names."""
    module_name, _, attribute = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    return found


@attrs.frozen(kw_only=True)
class Failure:
    """A plugin that failed to load, with the reason as text."""

    provider: Provider
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.provider} failed to load: {self.reason}"


class Registry:
    """All records of all loaded plugins, by kind and name.

    Attributes:
        failures: the plugins that failed to load.
        disabled: the plugins that ``CURRICULA_DISABLE`` leaves out.
        modules: the modules of the loose Python files that were loaded, of plugins and of models,
            by file.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.disabled: list[Provider] = []
        self.modules: dict[Path, ModuleType] = {}
        self._records: dict[Kind, dict[str, list[Registered]]] = {kind: {} for kind in KINDS}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @property
    def files(self) -> list[Path]:
        """The loose Python files that were loaded, in that order."""
        return [*self.modules]

    def add(self, plugin: object, provider: Provider) -> None:
        """Register a plugin object and all its records, or none of them if one is invalid.

        A name that another plugin has registered too can only be found with its provider. A name of
        the library stays the library's.

        Raises:
            TypeError: if it has no hook, an unknown one, or one that yields no records.
            ValueError: if a name is reserved, or registered twice by this plugin.
        """
        self._manager.register(plugin)
        try:
            self._check_hooks(plugin)
            found = [
                Registered(kind=kind, record=record, provider=provider)
                for kind, record in self._records_of(plugin)
            ]
            self._check_names(found)
        except Exception:
            self._manager.unregister(plugin)
            raise
        for registered in found:
            of_name = self._records[registered.kind].setdefault(registered.record.name, [])
            of_name.append(registered)
            if len(of_name) > 1 and of_name[0].is_builtin:
                warnings.warn(
                    f"plugin {provider} registers the {_described(registered)}, which is built in: "
                    f"{registered.record.name} is the built-in one, {registered.qualified} the "
                    f"plugin's; {DISABLE_VARIABLE}={provider.prefix} leaves the plugin out",
                    PluginWarning,
                    stacklevel=2,
                )

    def _check_hooks(self, plugin: object) -> None:
        """Check that a plugin has a hook, and none of an unknown name."""
        known = [f"{PROJECT}_{kind}s" for kind in KINDS]
        callers = self._manager.get_hookcallers(plugin)
        if not callers and plugin in self.modules.values() and _may_define_models(plugin):
            return
        if not callers:
            raise TypeError(f"it has no hook: mark one with @hookimpl; there is {', '.join(known)}")
        for caller in callers:
            if not caller.has_spec():
                raise TypeError(f"unknown hook {caller.name!r}; {did_you_mean(caller.name, known)}")

    def _records_of(self, plugin: object) -> Iterator[tuple[Kind, Record]]:
        """Yield the kind and the record of each name that a plugin registers."""
        for kind in KINDS:
            hook = getattr(self._manager.hook, f"{PROJECT}_{kind}s")
            for implementation in hook.get_hookimpls():
                if implementation.plugin is plugin:
                    records = implementation.function()
                    if not isinstance(records, Iterable):
                        raise TypeError(f"{hook.name} returned {records!r}: yield records instead")
                    for record in records:
                        if not isinstance(record, Record):
                            raise TypeError(f"{hook.name} yielded {record!r}, not a Record")
                        yield kind, record

    def _check_names(self, found: Iterable[Registered]) -> None:
        """Check that no record's name is reserved, or registered by the same provider already."""
        taken = {
            (kind, name, known.provider)
            for kind in KINDS
            for name, of_name in self._records[kind].items()
            for known in of_name
        }
        for registered in found:
            kind, name = registered.kind, registered.record.name
            if kind == "perturbation" and name in RESERVED:
                raise ValueError(f"{name!r} is a reserved word of the expression language")
            if (kind, name, registered.provider) in taken:
                raise ValueError(f"it registers the {_described(registered)} twice")
            taken.add((kind, name, registered.provider))

    def add_or_warn(self, load: Callable[[], object], provider: Provider, *, strict: bool) -> None:
        """Load and add one plugin; if it is broken, keep the failure and warn, or raise if
        ``strict``."""
        try:
            self.add(load(), provider)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a file may call exit()
            reason = f"{type(error).__name__}: {message_of(error)}"
            if isinstance(error, SystemExit):
                reason += "; put what it runs as a program under if __name__ == '__main__':"
            failure = Failure(provider=provider, reason=reason)
            if strict:
                raise UserError(str(failure)) from error
            self.failures.append(failure)
            warnings.warn(str(failure), PluginWarning, stacklevel=2)

    def add_file(self, file: Path) -> None:
        """Load a Python file that the user named, of a plugin or of models, unless it was loaded
        before.

        Raises:
            UserError: there is no such file, or it is broken.
        """
        if any(os.path.abspath(file) == os.path.abspath(known) for known in self.modules):
            return

        def load() -> ModuleType:
            self.modules[file] = load_file(file)
            return self.modules[file]

        try:
            self.add_or_warn(load, Provider(name=str(file), source="file"), strict=True)
        except UserError:
            self.modules.pop(file, None)
            raise

    def module_of(self, file: str) -> ModuleType:
        """Return the module of a Python file that the user named in this process, by its path or
        else by its name alone, since it may have moved.

        Raises:
            UserError: the user named no such file, or several of that name.
        """
        path = os.path.abspath(file)
        found = [each for name, each in self.modules.items() if os.path.abspath(name) == path]
        name = os.path.basename(file)
        found = found or [each for known, each in self.modules.items() if known.name == name]
        if len(found) == 1:
            return found[0]
        command = f"curricula --plugin {shlex.quote(file)} COMMAND"
        if found:
            raise UserError(f"{file} may be one of {len(found)} files; name one alone: {command}")
        raise UserError(
            f"{file} is Python code, which runs only if you name it: write {command}, or in Python "
            "load_model(RUN, model=MODEL)"
        )

    def records(self, kind: Kind) -> Mapping[str, Registered]:
        """Return all records of a kind, in order of registration, by what a user writes: the name,
        or ``PROVIDER/NAME`` where several plugins register it."""
        known: dict[str, Registered] = {}
        for name, found in self._records[kind].items():
            for each in found:
                is_short = len(found) == 1 or each.is_builtin
                known[name if is_short else each.qualified] = each
        return known

    def calls_for(self, kind: Kind, name: str) -> list[str]:
        """Return the calls of factories that take a name of another library, such as
        ``torchvision(squeezenet1_1)``, for ``NAME``, ``NAME.TAG`` or ``LIBRARY/NAME``."""
        library, _, inner = name.rpartition("/")
        argument = f'"{inner}"' if "." in inner else inner
        return [
            f"{word}({argument})"
            for word, registered in self.records(kind).items()
            if registered.record.choices
            and library in ("", registered.record.name)
            and inner in _imported(registered.record.choices)()
        ]

    def clashes(self) -> list[str]:
        """Return a line for each name that several plugins register."""
        return [
            _clash(found)
            for kind in KINDS
            for found in self._records[kind].values()
            if len(found) > 1
        ]

    def find(self, kind: Kind, name: str) -> Registered:
        """Return the record of this kind and name.

        Args:
            kind: the kind.
            name: the name, or ``PROVIDER/NAME``.

        Raises:
            UnknownNameError: if there is none; the message lists near matches and the plugins that
                failed to load.
            UserError: if several plugins register it; the message names them.
        """
        prefix, _, short = name.rpartition("/")
        found = self._records[kind].get(short, [])
        if prefix:
            found = [each for each in found if each.provider.prefix == _prefix(prefix)]
        elif found and found[0].is_builtin:
            return found[0]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(_clash(found))
        known = self.records(kind)
        names = self._records[kind]
        calls = self.calls_for(kind, name)
        near = [short] if short in names else similar_names(short, names)
        meant = [word for each in near for word in known if known[word].record.name == each]
        if prefix and not meant:
            of_plugin = _prefix(prefix)
            meant = [word for word in known if known[word].provider.prefix == of_plugin][:3]
        if calls or meant:
            fix = f"did you mean {' or '.join(calls or meant)}?"
        elif len(known) > MAX_LISTED_NAMES:
            fix = (
                f"curricula plugins lists all {len(known)}, and --plugin FILE adds those of a file"
            )
        else:
            fix = f"known: {', '.join(known)}"
        failed = "".join(f"; {failure}" for failure in self.failures)
        disabled = "".join(f"; {DISABLE_VARIABLE} leaves out {each}" for each in self.disabled)
        raise UnknownNameError(f"unknown {kind} {name!r}: {fix}{failed}{disabled}")


def _described(registered: Registered) -> str:
    """Return the kind and the name of a record in words."""
    return f"{registered.kind} {registered.record.name!r}"


def _clash(found: list[Registered]) -> str:
    """Return what is wrong with a name that several plugins register, and the fix."""
    first, *others = found
    if first.is_builtin:
        theirs = " and ".join(f"{each.qualified} is that of {each.provider}" for each in others)
        return f"{_described(first)} is built in; {theirs}"
    providers = " and by ".join(str(each.provider) for each in found)
    ways = dict.fromkeys(each.qualified for each in found)
    fix = (
        f"write {' or '.join(ways)}, or leave one out with "
        f"{DISABLE_VARIABLE}={found[-1].provider.prefix}"
        if len(ways) == len(found)
        else "rename one of the files"
    )
    return f"{_described(first)} is registered by {providers}: {fix}"


def _entry_points() -> list[tuple[importlib.metadata.EntryPoint, Provider]]:
    """Return each installed plugin's entry point with the distribution it comes from, sorted by
    name."""
    found = []
    for entry_point in importlib.metadata.entry_points(group=PROJECT):
        distribution = entry_point.dist
        provider = Provider(
            name=distribution.name if distribution else entry_point.name,
            version=distribution.version if distribution else "",
            source="distribution",
        )
        found.append((entry_point, provider))
    return sorted(found, key=lambda pair: (pair[1].name, pair[0].name))


def load_file(path: Path) -> ModuleType:
    """Import a loose plugin file as a module and return it.

    Its code runs as it would as a program without arguments: it can import the modules beside it,
    also relative to its folder. What it prints goes to standard error.

    Raises:
        UserError: if there is no such file, it is not a Python file, or a module beside it that it
            imports is hidden by another one.
    """
    if not path.is_file():
        fix = similar_path(path, path.parent.glob("*.py"))
        raise UserError(f"plugin file {path}: no such file{fix}")
    package, folder, imported = _surroundings(path.resolve())
    name = f"{PROJECT}_plugin_{path.stem}_{zlib.crc32(bytes(path.resolve())):08x}"
    name = f"{package}.{name}" if package else name  # relative imports need the package
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin file {path}: not a Python file (expected a name ending in .py)")
    module = importlib.util.module_from_spec(spec)
    if str(folder) not in sys.path:  # it stays, since functions of the file may import too
        sys.path.append(str(folder))
    for each in imported:
        _check_neighbour(path, folder, each)
    sys.modules[name] = module  # pickle and attrs look classes up there
    arguments = sys.argv
    sys.argv = [str(path)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    finally:
        sys.argv = arguments
    return module


def _surroundings(path: Path) -> tuple[str, Path, set[str]]:
    """Return the package of a Python file that has relative imports, empty for others; the folder
    in which its imports are looked up; and the first parts of their names."""
    try:
        nodes = [*ast.walk(ast.parse(path.read_bytes()))]
    except (SyntaxError, ValueError):  # reported when it is run
        nodes = []
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    level = max((node.level for node in froms), default=0)
    if level == 0:
        names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
        names += [node.module for node in froms if node.module]
        return "", path.parent, {name.partition(".")[0] for name in names}
    folder = path.parent
    while level > 0 or (folder / "__init__.py").is_file():
        folder, level = folder.parent, level - 1
    parts = path.parent.relative_to(folder).parts
    return ".".join(parts), folder, {parts[0]}


def _check_neighbour(path: Path, folder: Path, name: str) -> None:
    """Check that a module that a file imports is the one in its folder, if there is one.

    Raises:
        UserError: it would be a different one, which is installed or was imported before.
    """
    file, package = folder / f"{name}.py", folder / name
    is_package = (package / "__init__.py").is_file() or package in path.resolve().parents
    if name in (PROJECT, *sys.stdlib_module_names) or not (file.is_file() or is_package):
        return
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(name)
    found = [spec.origin] if spec is not None and spec.has_location else []
    found = found or [*(spec.submodule_search_locations or ())] if spec is not None else []
    places = [Path(each).resolve() for each in found if each]
    if not places or places[0] not in (file, package, package / "__init__.py"):
        raise UserError(
            f"plugin file {path} imports {name}, and that is {places[0] if places else 'another'} "
            f"here, not {package if is_package else file}: rename one of them"
        )


def _may_define_models(module: object) -> bool:
    """Return whether a module without hooks defines a class, a function or a network, and no
    function that is named as a hook."""
    values = vars(module)
    if any(name.startswith(f"{PROJECT}_") for name in values):
        return False
    own = values.get("__name__")
    return any(
        callable(value)
        and not name.startswith("_")
        and (getattr(value, "__module__", None) == own or hasattr(value, "state_dict"))
        for name, value in values.items()
    )


def _is_set(variable: str) -> bool:
    """Return whether an environment variable is set to anything but the empty text or ``0``."""
    return os.environ.get(variable, "") not in ("", "0")


def build_registry(
    files: Iterable[Path] = (),
    *,
    strict: bool | None = None,
    entry_points: bool | None = None,
) -> Registry:
    """Load the built-ins, then every installed plugin, then loose files; return the registry.

    The environment variable ``CURRICULA_DISABLE`` names plugins to leave out, by distribution or by
    the file's name without ``.py``, with commas between them.

    Args:
        files: plugin files and files of models, as given by ``--plugin``. A broken file is always
            an error.
        strict: whether a broken installed plugin is an error instead of a warning; by default the
            environment variable ``CURRICULA_STRICT_PLUGINS`` decides.
        entry_points: whether to load installed plugins; by default yes, unless the environment
            variable ``CURRICULA_NO_PLUGINS`` is set.

    Raises:
        UserError: if a file is missing or broken, `strict` is set and an installed plugin is
            broken, or there is no plugin that ``CURRICULA_DISABLE`` names.

    >>> registry = build_registry(entry_points=False)
    >>> registry.find("perturbation", "rot").record.summary
    'random rotation, budget in degrees'
    """
    strict = _is_set(STRICT_VARIABLE) if strict is None else strict
    entry_points = not _is_set(NO_PLUGINS_VARIABLE) if entry_points is None else entry_points
    registry = Registry()
    version = importlib.metadata.version(PROJECT)
    registry.add(builtin, Provider(name=PROJECT, version=version, source="distribution"))
    installed = _entry_points()
    loose = [(file, Provider(name=str(file), source="file")) for file in files]
    disabled = _disabled(provider for _, provider in (*installed, *loose))
    for entry_point, provider in installed if entry_points else ():
        if provider.prefix not in disabled:
            registry.add_or_warn(entry_point.load, provider, strict=strict)
        elif provider not in registry.disabled:
            registry.disabled.append(provider)
    for file, provider in loose:
        if provider.prefix not in disabled:
            registry.add_file(file)
        elif provider not in registry.disabled:
            registry.disabled.append(provider)
    return registry


def _disabled(known: Iterable[Provider]) -> set[str]:
    """Return the prefixes of the plugins that the user leaves out.

    Raises:
        UserError: one is not known.
    """
    prefixes = {provider.prefix for provider in known}
    words = [word.strip() for word in os.environ.get(DISABLE_VARIABLE, "").split(",")]
    for word in filter(None, words):
        if _prefix(word) not in prefixes:
            fix = did_you_mean(word, sorted(prefixes)) if prefixes else "no plugin is installed"
            raise UserError(f"{DISABLE_VARIABLE}: there is no plugin {shown(word)}; {fix}")
    return {_prefix(word) for word in words if word}


_current: Registry | None = None


def current() -> Registry:
    """Return the registry of this process; the first call builds it."""
    global _current
    if _current is None:
        _current = build_registry()
    return _current


def use(registry: Registry) -> None:
    """Make `registry` the registry of this process (as the command line does for ``--plugin``)."""
    global _current
    _current = registry


def command_line(*words: object, files: Iterable[Path] = ()) -> str:
    """Return the shell command for ``curricula`` with these words and the current plugin files, to
    which the given files of other names are added."""
    loaded = current().files
    names = {file.name for file in loaded}
    added = {file.name: file for file in files if file.name not in names}
    plugins = [word for file in (*loaded, *added.values()) for word in ("--plugin", str(file))]
    return shlex.join(["curricula", *plugins, *map(str, words)])
