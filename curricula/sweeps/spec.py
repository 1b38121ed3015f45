"""A sweep: a base configuration, axes along which it changes, and what measures all cells.

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
fields. There is a cell for each combination, the last axis changing fastest.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

import attrs
import tomli_w

from curricula.errors import UserError, did_you_mean
from curricula.training.config import FIELDS, SplitName, check_keys

SECTIONS = ("base", "axes", "evaluation")
EVALUATION_KEYS = ("split", "limit", "frontier", "threats")
STANDARD = ("clean", "spatial", "adversarial", "joint")  # threats, if none are named
FRONTIER = ("spatial", "adversarial")
COLUMNS = ("label", "seeds", "passes", "minutes", "frontier", "hypervolume")  # of a comparison
ENDINGS = ("_sd", "_low", "_high")  # of its columns of an accuracy's spread
LONGEST_NAME = 120  # of a folder; file systems take 255 bytes


@attrs.frozen(kw_only=True)
class Cell:
    """One training of a sweep.

    Attributes:
        labels: what it is called on each axis.
        values: its fields of a configuration.
    """

    labels: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folder: every label, with its axis. What a folder's name cannot say is there as
        six digits of a hash."""
        text = ",".join(f"{axis}={label}" for axis, label in self.labels.items()).replace(" ", "_")
        plain = re.sub(r"[^\w.,=+%-]", "_", text)[:LONGEST_NAME]
        if plain == text:
            return plain
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@attrs.frozen(kw_only=True)
class Sweep:
    """What a sweep runs.

    Attributes:
        base: fields of a configuration that all cells share unless an axis changes them.
        axes: by name; of each, its changes by label.
        threats: expressions by name, which all cells are measured under; if there are none, the
            standard threats, which must then be the same for all.
        split: of the data set that they are measured on.
        limit: the first so many images of it, or None for all.
        frontier: names of the two threats whose Pareto frontier is asked for; by default spatial
            and adversarial, or the first two where others are named.
    """

    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    threats: Mapping[str, str] = attrs.field(factory=dict)
    split: SplitName = "test"
    limit: int | None = None
    frontier: tuple[str, str] = FRONTIER

    @property
    def cells(self) -> list[Cell]:
        """Its cells, the last axis changing fastest."""
        cells = []
        for labels in product(*self.axes.values()):
            named = dict(zip(self.axes, labels, strict=True))
            changes = [self.axes[axis][label] for axis, label in named.items()]
            values: dict[str, Any] = dict(self.base)
            for change in changes:
                values |= change
            cells.append(Cell(labels=named, values=values))
        return cells

    def row(self, cell: Cell) -> str:
        """What a cell is called in a table, where those that differ in the seed are one row.

        A value of an axis that lists its values has the axis's name before it (``width=8``); one
        that the sweep has named stands alone.
        """
        parts = []
        for axis, label in cell.labels.items():
            if set(self.axes[axis][label]) == {"seed"}:
                continue
            listed = all(
                set(change) == {axis} and _label(change[axis]) == name
                for name, change in self.axes[axis].items()
            )
            parts.append(f"{axis}={label}" if listed else label)
        return ", ".join(parts)

    def with_base(self, **values: Any) -> "Sweep":
        """The same with other values of the base.

        Raises:
            UserError: an unknown field or a wrong type.
        """
        check_keys(values)
        return attrs.evolve(self, base={**self.base, **values})

    def as_toml(self) -> str:
        """As a file's text."""
        evaluation: dict[str, Any] = {
            "split": self.split,
            "frontier": list(self.frontier),
            "threats": dict(self.threats),
        }
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
    """The sweep of a file, checked as far as that goes without its data.

    Raises:
        UserError: no such file, not TOML, an unknown section or field, an empty axis, a wrong type.
    """
    try:
        return parse_sweep(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"sweep {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"sweep {path}: cannot be read ({error})") from error
    except UserError as error:
        raise UserError(f"sweep {path}: {error}") from error


def parse_sweep(text: str) -> Sweep:
    """The sweep of a file's text.

    Raises:
        UserError: as `read_sweep` does.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not TOML ({error})") from error
    _known("section", values, SECTIONS)
    sections = {name: _table(f"[{name}]", values.get(name, {})) for name in SECTIONS}
    if not sections["axes"]:
        raise UserError("[axes] is empty: name a field and its values, such as seed = [0, 1, 2]")
    check_keys(sections["base"])
    axes = {name: _axis(name, axis) for name, axis in sections["axes"].items()}
    sweep = Sweep(base=sections["base"], axes=axes, **_evaluation(sections))
    _check_names(sweep)
    return sweep


def _axis(name: str, axis: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(axis, (list, dict)):
        raise UserError(
            f"axis {name!r} must be a list of values or a table of changes, not {axis!r}"
        )
    if not axis:
        raise UserError(f"axis {name!r} is empty: give it a value or more, or leave it out")
    changes: dict[str, dict[str, Any]]
    if isinstance(axis, list):
        if name not in FIELDS:
            fix = did_you_mean(name, FIELDS, otherwise=f"fields: {', '.join(FIELDS)}")
            raise UserError(f"axis {name!r}: a list is of values of a field; {fix}")
        changes = {_label(value): {name: value} for value in axis}
        if len(changes) < len(axis):
            raise UserError(f"axis {name!r} has a value twice: {axis}")
    else:
        changes = {label: _table(f"axis {name!r}, {label}", axis[label]) for label in axis}
    for label, change in changes.items():
        try:
            check_keys(change)
        except UserError as error:
            raise UserError(f"axis {name!r}, {label}: {error}") from error
    return changes


def _label(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _evaluation(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = dict(sections["evaluation"])
    _known("evaluation key", found, EVALUATION_KEYS)
    split, limit = found.get("split", "test"), found.get("limit")
    if split not in get_args(SplitName):
        raise UserError(
            f"evaluation: split must be {' or '.join(get_args(SplitName))}, not {split!r}"
        )
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"evaluation: limit must be a whole number, 1 or more, not {limit!r}")
    threats = _table("[evaluation.threats]", found.get("threats", {}))
    for name, text in threats.items():
        if not isinstance(text, str):
            raise UserError(f"threat {name!r} must be text, such as 'rot:30+pgd', not {text!r}")
        if name in COLUMNS or name.endswith(ENDINGS):
            raise UserError(
                f"threat {name!r} would be called as a column of the comparison is "
                f"({', '.join(COLUMNS)}, or ending in {', '.join(ENDINGS)}); choose another name"
            )
    names = list(threats or STANDARD)
    if len(names) < 2:
        raise UserError(f"evaluation: a sweep compares two of its threats or more, not {names}")
    front = found.get("frontier")
    if front is None:
        front = list(FRONTIER) if set(FRONTIER) <= set(names) else names[:2]
    known = [name for name in front if name in names] if isinstance(front, list) else []
    if known != front or len(known) != 2 or known[0] == known[1]:
        raise UserError(
            "evaluation: frontier must be a list of two of the threats "
            f"({', '.join(names)}), not {front!r}"
        )
    return {
        "split": cast(SplitName, split),
        "limit": limit,
        "frontier": (known[0], known[1]),
        "threats": threats,
    }


def _check_names(sweep: Sweep) -> None:
    named: dict[str, Cell] = {}
    for cell in sweep.cells:
        other = named.setdefault(cell.name.casefold(), cell)
        if other is not cell:
            raise UserError(
                f"cells {other.labels} and {cell.labels} would share the folder {cell.name}; "
                "give one of them another name, in a table of changes"
            )


def _table(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a table, not {value!r}")
    return value


def _known(what: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise UserError(f"unknown {what} {key!r}; {did_you_mean(key, known)}")
