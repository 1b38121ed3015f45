"""A sweep: a base configuration, the axes along which it changes, and how its cells are measured.

In TOML::

    [base]
    data = "mnist(images=10000)"
    perturb = "rot:60+pgd:0.3"

    [axes]
    seed = [0, 1, 2]

    [axes.curriculum]
    constant = { schedule = ["constant"] }
    ramp = { schedule = ["linear(until=0.4)"] }

    [evaluation]
    limit = 2000

    [evaluation.threats]
    joint = "rot:60+pgd(0.3, steps=40, rel_step=1/10)"

An axis is a list of values of the field that it is named after, or a table of named changes to any
fields. There is one cell for each combination; the last axis changes fastest.
"""

import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import attrs
import tomli_w

from curricula.errors import UserError, amount, did_you_mean, prefixed_errors, shown
from curricula.evaluation.names import ADVERSARIAL, SPATIAL, STANDARD
from curricula.expressions.checks import check_call, check_perturbation, listed
from curricula.runtime.parsing import MAX_TOML, parse_toml, read_text
from curricula.runtime.values import check_whole
from curricula.training.checks import check_values
from curricula.training.config import FIELDS, MAX_LIMIT, SplitName, check_keys

T = TypeVar("T")

SECTIONS = ("base", "axes", "evaluation")
EVALUATION_KEYS = ("split", "limit", "frontier", "suite", "threats")
FRONTIER_OF = (SPATIAL, ADVERSARIAL)
# Columns of a comparison, and endings of the columns that it has for each threat.
COLUMNS = ("label", "seeds", "passes", "minutes", "frontier", "hypervolume")
SPREAD_ENDINGS = ("_sd", "_low", "_high")
# Characters and bytes of a cell's folder, without what is added; file systems allow 255 bytes.
MAX_NAME, MAX_NAME_BYTES = 120, 220
MAX_LABEL = 2000  # characters of the name of an axis, a change or a threat
MAX_CELLS = 10_000  # cells of a sweep


@attrs.frozen(kw_only=True)
class Cell:
    """One training of a sweep: a label on each axis, and the configuration's fields.

    Attributes:
        labels: label of the cell on each axis.
        values: fields of the configuration that the sweep states.
    """

    labels: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the cell's folder, made of every axis and label. If a folder's name cannot hold
        them, six digits of a hash keep it unique."""
        text = ",".join(f"{axis}={label}" for axis, label in self.labels.items()).replace(" ", "_")
        plain = re.sub(r"[^\w.,=+%-]", "_", text[:MAX_NAME])
        plain = plain.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
        if plain == text:
            return plain
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@attrs.frozen(kw_only=True)
class Sweep:
    """A base configuration, the axes along which it changes, and how the cells are measured.

    Attributes:
        base: fields of a configuration that all cells share unless an axis changes them.
        axes: changes to the base, by axis and label.
        threats: expressions by name, under which all cells are measured; if empty, the standard
            threats, which must then be the same for all cells.
        suites: suites whose threats come before these (``suite`` in a file).
        split: split of the data set that the cells are measured on.
        limit: measure the first ``limit`` images; None for all.
        frontier_of: names of the two threats of the Pareto frontier (``frontier`` in a file); by
            default spatial and adversarial, or the first two threats if others are named.
    """

    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]] = attrs.field()
    threats: Mapping[str, str] = attrs.field(factory=dict)
    suites: tuple[str, ...] = ()
    split: SplitName = "test"
    limit: int | None = None
    frontier_of: tuple[str, str] = FRONTIER_OF

    @axes.validator
    def _check_axes(self, attribute: object, axes: Mapping[str, Mapping[str, Any]]) -> None:
        count = math.prod(len(axis) for axis in axes.values())
        if count > MAX_CELLS:
            raise UserError(
                f"the axes have {amount(count)} combinations; at most {MAX_CELLS:,} are allowed: "
                "split the sweep into several"
            )

    @property
    def cells(self) -> list[Cell]:
        """All cells, one for each combination of the axes' values; the last axis changes
        fastest."""
        cells = []
        for labels in product(*self.axes.values()):
            by_axis = dict(zip(self.axes, labels, strict=True))
            values: dict[str, Any] = dict(self.base)
            for axis, label in by_axis.items():
                values |= self.axes[axis][label]
            cells.append(Cell(labels=by_axis, values=values))
        return cells

    def row(self, cell: Cell) -> str:
        """Return the label of a cell's row in a table; cells that differ only in the seed share it.

        The axis's name precedes the values of a list (``width=8``), but not named changes.
        """
        parts = []
        for axis, label in cell.labels.items():
            if set(self.axes[axis][label]) == {"seed"}:
                continue
            parts.append(f"{axis}={label}" if axis in self._lists else label)
        return ", ".join(parts)

    @functools.cached_property
    def _lists(self) -> frozenset[str]:
        """Names of the axes that a sweep file writes as lists of values."""
        return frozenset(
            axis
            for axis, changes in self.axes.items()
            if all(
                set(change) == {axis} and label_of(change[axis]) == name
                for name, change in changes.items()
            )
        )

    def with_base(self, **values: Any) -> "Sweep":
        """Return the sweep with the given fields of its base replaced.

        Raises:
            UserError: an unknown field or a wrong type.
        """
        check_keys(values)
        return attrs.evolve(self, base={**self.base, **values})

    def as_toml(self) -> str:
        """Return this sweep as TOML, the text of a sweep file."""
        evaluation: dict[str, Any] = {
            "split": self.split,
            "frontier": list(self.frontier_of),
            "threats": dict(self.threats),
        }
        if self.suites:
            evaluation["suite"] = list(self.suites)
        if self.limit is not None:
            evaluation["limit"] = self.limit
        return tomli_w.dumps(
            {
                "base": dict(self.base),
                "axes": {name: dict(axis) for name, axis in self.axes.items()},
                "evaluation": evaluation,
            }
        )


def read_sweep(path: str | Path) -> Sweep:
    """Return the sweep that a file describes, checked as far as possible without its data.

    Raises:
        UserError: no such file, not TOML, an unknown section or field, an empty axis, a wrong type.
    """
    return read_definition("sweep", path, parse_sweep)


def read_definition(kind: str, path: str | Path, parse: Callable[[str], T]) -> T:
    """Return what ``parse`` makes of the text of a file.

    Args:
        kind: ``sweep`` or ``search``, for messages.
        path: the file.
        parse: parses its text.

    Raises:
        UserError: no such file, or it cannot be read; as ``parse`` does, after the file's name.
    """
    try:
        return parse(read_text(Path(path), MAX_TOML))
    except FileNotFoundError as error:
        raise UserError(
            f"{kind} {path}: no such file; curricula.recipes.find_{kind} reads a recipe"
        ) from error
    except OSError as error:
        raise UserError(f"{kind} {path}: cannot be read ({error})") from error
    except UserError as error:
        raise UserError(f"{kind} {path}: {error}") from error
    except ValueError as error:  # not a path, or not UTF-8
        raise UserError(f"{kind} {path}: cannot be read ({error})") from error


def parse_sweep(text: str) -> Sweep:
    r"""Return the sweep that the text of a sweep file describes.

    >>> sweep = parse_sweep('[base]\nperturb = "rot"\n[axes]\nseed = [0, 1]\nlr = [0.1, 0.2]\n')
    >>> [cell.name for cell in sweep.cells]
    ['seed=0,lr=0.1', 'seed=0,lr=0.2', 'seed=1,lr=0.1', 'seed=1,lr=0.2']

    Raises:
        UserError: as `read_sweep` does.
    """
    values = toml_of(text)
    if "ranges" in values and "axes" not in values:
        raise UserError("it has [ranges], so it is a search: use curricula search")
    sections = sections_of(values, SECTIONS)
    if not sections["axes"]:
        raise UserError("[axes] is empty: name a field and its values, such as seed = [0, 1, 2]")
    check_keys(sections["base"])
    axes = {name: _axis(name, axis) for name, axis in sections["axes"].items()}
    sweep = Sweep(base=sections["base"], axes=axes, **read_evaluation(sections["evaluation"]))
    _check_folders(sweep)
    return sweep


def check_sweep(sweep: Sweep) -> None:
    """Check the values of a sweep's cells, and its threats, without importing torch.

    Raises:
        UserError: as `curricula.training.checks.check_values` does, after the cell's name.
    """
    for cell in sweep.cells:
        with prefixed_errors(f"cell {cell.name}"):
            check_values(cell.values)
    check_threats(sweep.threats)
    for suite in sweep.suites:
        with prefixed_errors("[evaluation]"):
            check_call("suite", suite)


def check_threats(threats: Mapping[str, str]) -> None:
    """Check the expressions of threats, by name, without importing torch.

    Raises:
        UserError: as `curricula.expressions.checks.check_perturbation` does, after the name.
    """
    for name, text in threats.items():
        with prefixed_errors(f"threat {name}"):
            check_perturbation(text)


def _axis(name: str, axis: Any) -> dict[str, dict[str, Any]]:
    """Return the fields that each label of an axis changes, by label."""
    check_name("axis", name)
    if not isinstance(axis, (list, dict)):
        raise UserError(
            f"axis {name!r} must be a list of values or a table of changes, not {shown(axis)}"
        )
    if not axis:
        raise UserError(f"axis {name!r} is empty: give it one or more values, or leave it out")
    changes: dict[str, dict[str, Any]]
    if isinstance(axis, list):
        if name not in FIELDS:
            fix = did_you_mean(name, FIELDS, otherwise=f"fields: {', '.join(FIELDS)}")
            raise UserError(f"axis {name!r}: a list must hold values of a field; {fix}")
        changes = {label_of(value): {name: value} for value in axis}
        if len(changes) < len(axis):
            raise UserError(f"axis {name!r} has a value twice: {shown(axis)}")
    else:
        changes = {label: table_of(f"axis {name!r}, {label}", axis[label]) for label in axis}
    for label, change in changes.items():
        check_name(f"axis {name!r}: label", label)
        try:
            check_keys(change)
        except UserError as error:
            raise UserError(f"axis {name!r}, {label}: {error}") from error
    return changes


def label_of(value: Any) -> str:
    """Return the label, as text, of one value of an axis that is a list."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_evaluation(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Sweep` that the evaluation section of a sweep file states, by name.

    Raises:
        UserError: an unknown key, a wrong type, a frontier of threats that it does not name.
    """
    check_known("evaluation key", found, EVALUATION_KEYS)
    split, limit = found.get("split", "test"), found.get("limit")
    if split not in get_args(SplitName):
        raise UserError(
            f"evaluation: split must be {' or '.join(get_args(SplitName))}, not {shown(split)}"
        )
    if limit is not None:
        check_whole("evaluation: limit", limit, 1, MAX_LIMIT)
    threats = table_of("[evaluation.threats]", found.get("threats", {}))
    for name, text in threats.items():
        check_name("threat", name)
        if not isinstance(text, str):
            raise UserError(
                f"threat {name!r} must be text, such as 'rot:30+pgd', not {shown(text)}"
            )
        check_column(name)
    suites = listed(found.get("suite", ()), "evaluation: suite", "corruptions")
    pair = found.get("frontier")
    names = list(threats or STANDARD)
    if suites:  # the names of its threats depend on the data
        if not isinstance(pair, list) or not all(isinstance(name, str) for name in pair):
            raise UserError(
                "evaluation: with a suite, frontier must be a list of two of its threats, such as "
                f'frontier = ["clean", "fog 3"], not {shown(pair)}'
            )
        names = pair
    elif len(names) < 2:
        raise UserError(f"evaluation: a sweep compares two of its threats or more, not {names}")
    return {
        "split": cast(SplitName, split),
        "limit": limit,
        "frontier_of": frontier_of("evaluation: frontier", pair, names),
        "threats": threats,
        "suites": tuple(suites),
    }


def check_column(name: str) -> None:
    """Check that the name of a threat is not that of a column of a comparison."""
    if name in COLUMNS or name.endswith(SPREAD_ENDINGS):
        raise UserError(
            f"threat {name!r} would have the name of a column of the comparison "
            f"({', '.join(COLUMNS)}, or ending in {', '.join(SPREAD_ENDINGS)}); "
            "choose another name"
        )


def frontier_of(what: str, pair: Any, names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the two threats of a frontier; by default spatial and adversarial, or the
    first two.

    Args:
        what: name of the pair in errors.
        pair: the value that was read; None for the default.
        names: names of all threats, two or more.

    Raises:
        UserError: it is not a list of two different threats.
    """
    if pair is None:
        pair = list(FRONTIER_OF) if set(FRONTIER_OF) <= set(names) else names[:2]
    known = [name for name in pair if name in names] if isinstance(pair, list) else []
    if known != pair or len(known) != 2 or known[0] == known[1]:
        raise UserError(
            f"{what} must be a list of two of the threats ({', '.join(names)}), not {shown(pair)}"
        )
    return known[0], known[1]


def check_name(what: str, name: str) -> None:
    """Check that a terminal and a table can show a name."""
    if len(name) > MAX_LABEL or not name.isprintable():
        raise UserError(
            f"{what} {shown(name)} must be at most {MAX_LABEL:,} characters that can be printed; "
            "choose another name, in a table of changes for values"
        )


def _check_folders(sweep: Sweep) -> None:
    """Check that no two cells have folders of the same name, ignoring case."""
    by_folder: dict[str, Cell] = {}
    for cell in sweep.cells:
        other = by_folder.setdefault(cell.name.casefold(), cell)
        if other is not cell:
            raise UserError(
                f"cells {other.labels} and {cell.labels} would share the folder {cell.name}; "
                "give one of them another name, in a table of changes"
            )


def toml_of(text: str) -> dict[str, Any]:
    """Return the values in a text of TOML."""
    try:
        return parse_toml(text)
    except ValueError as error:
        raise UserError(f"not TOML ({error})") from error


def sections_of(values: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return each known section of a file, by name; an empty one for what the file leaves out."""
    check_known("section", values, known)
    return {name: table_of(f"[{name}]", values.get(name, {})) for name in known}


def table_of(what: str, value: Any) -> dict[str, Any]:
    """Return a value after checking that it is a TOML table."""
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a table, not {shown(value)}")
    return value


def check_known(what: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Check that a table has only known keys."""
    for key in values:
        if key not in known:
            raise UserError(f"unknown {what} {shown(key)}; {did_you_mean(key, known)}")
