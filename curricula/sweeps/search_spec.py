"""A search: a base configuration, ranges of values in it, and the two accuracies to trade off.

In TOML::

    [base]
    data = "digits"
    perturb = "rot:{angle}+pgd:0.1"
    schedule = ["rot=constant", "pgd=linear(until={end})"]

    [ranges]
    lr = { low = 0.0003, high = 0.01, log = true }
    angle = { low = 10, high = 30 }
    end = { low = 0.05, high = 0.95 }
    objective = ["at", "trades(beta=6)"]

    [search]
    trials = 30

    [evaluation.threats]
    spatial = "rot:30"
    adversarial = "pgd(0.1, steps=40, rel_step=1/10)"

A range named after a field of the configuration gives the field's value. Any other range gives the
value of ``{NAME}`` in the texts of the base. Needs no torch.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import attrs
import tomli_w

from curricula.errors import UserError, did_you_mean, prefixed_errors, shown
from curricula.evaluation.names import STANDARD
from curricula.runtime.values import check_choice, check_flag, check_number, check_whole
from curricula.sweeps.spec import (
    MAX_LABEL,
    Sweep,
    check_known,
    check_name,
    check_threats,
    frontier_of,
    label_of,
    read_definition,
    read_evaluation,
    sections_of,
    toml_of,
)
from curricula.training.checks import check_values
from curricula.training.config import FIELDS, MAX_SEED, check_keys

SECTIONS = ("base", "ranges", "search", "evaluation")
SEARCH_KEYS = ("trials", "sampler", "seed", "objectives", "prune")
RANGE_KEYS = ("low", "high", "log", "step")
NOT_SEARCHED: Mapping[str, str] = {
    "data": "all trials are measured on the same images",
    "data_root": "all trials are measured on the same images",
    "seed": "the best of several seeds is the luckiest one",
}
"""Fields without a range, and why."""
AXIS = "trial"  # axis of the sweep that a search writes
DEFAULT_TRIALS = 30
MAX_TRIALS = 1000  # trials of a search; proposing one takes seconds by then
MAX_RANGES = 50  # ranges of a search
MAX_CHOICES = 100  # choices of a range
MAX_NUMBER = 1e35  # largest limit of a range
MAX_STEPS = 1_000_000  # steps of a range
DIGITS = 4  # significant digits of a number that is not whole
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)

SamplerName = Literal["tpe", "nsga2"]
Value: TypeAlias = int | float | str
"""A trial's value in a range: a number, or the label of a choice."""
Trial: TypeAlias = Mapping[str, Value]
"""A trial's value in each range, by the range's name."""


@attrs.frozen(kw_only=True)
class NumberRange:
    """A range of numbers; of whole numbers if both limits are whole.

    Attributes:
        low: the smallest number.
        high: the largest number.
        log: propose equal ratios with equal chance, not equal differences.
        step: difference between neighbouring numbers; None for any number, or for 1 if they are
            whole.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """True if the range has whole numbers only."""
        return isinstance(self.low, int)

    @property
    def ends(self) -> list[Value]:
        """The smallest and the largest number of the range."""
        return [self.low, self.high]

    def rounded(self, number: float) -> float:
        """Return a number of the range with few digits."""
        if self.is_whole:
            return int(number)
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    def has(self, value: Any) -> bool:
        """Return whether a value that was read lies in the range."""
        return type(value) is type(self.low) and self.low <= value <= self.high

    def value(self, value: Value) -> Any:
        """Return the configuration's value for a trial's number, which is the number itself."""
        return value

    def as_toml(self) -> Any:
        """Return the range as the value of a TOML file."""
        kept = {name: getattr(self, name) for name in RANGE_KEYS}
        return {
            name: value for name, value in kept.items() if value is not None and value is not False
        }


@attrs.frozen(kw_only=True)
class Choices:
    """A range of listed values.

    Attributes:
        values: the values, by label.
    """

    values: Mapping[str, Any]

    @property
    def ends(self) -> list[Value]:
        """Labels of all choices."""
        return list(self.values)

    def has(self, value: Any) -> bool:
        """Return whether a value that was read is a label."""
        return isinstance(value, str) and value in self.values

    def value(self, value: Value) -> Any:
        """Return the configuration's value for the label that a trial has chosen."""
        return self.values[str(value)]

    def as_toml(self) -> Any:
        """Return the range as the value of a TOML file."""
        return list(self.values.values())


Range: TypeAlias = NumberRange | Choices


@attrs.frozen(kw_only=True)
class Search:
    """A base configuration, ranges of values in it, and how its trials are chosen and measured.

    All trials are measured on the validation images.

    Attributes:
        base: fields of a configuration that all trials share; their texts may have ``{NAME}`` of a
            range.
        ranges: ranges by name: of a field, or of a placeholder.
        objectives: names of the two threats whose accuracies are traded off.
        threats: expressions by name, under which all trials are measured; if empty, the standard
            threats, which must then be the same for all trials.
        limit: measure the first ``limit`` images; None for all.
        trials: number of trials, 1 to 1,000.
        sampler: algorithm that proposes trials: ``tpe`` or ``nsga2``.
        seed: seed of the proposals, from 0 to 2**62.
        prune: end the training of a trial that is worse than the median in both accuracies.
    """

    base: Mapping[str, Any]
    ranges: Mapping[str, Range]
    objectives: tuple[str, str]
    threats: Mapping[str, str] = attrs.field(factory=dict)
    limit: int | None = None
    trials: int = DEFAULT_TRIALS
    sampler: SamplerName = "tpe"
    seed: int = 0
    prune: bool = False

    def configuration(self, trial: Trial) -> dict[str, Any]:
        """Return the fields of a trial's configuration."""
        chosen = {name: self.ranges[name].value(value) for name, value in trial.items()}
        fields = {name: value for name, value in chosen.items() if name in FIELDS}
        base = {field: _filled(field, value, chosen) for field, value in self.base.items()}
        return base | fields

    def sweep(self, trials: Sequence[Trial]) -> Sweep:
        """Return the sweep whose cells are the given trials."""
        base = {field: value for field, value in self.base.items() if not _names(field, value)}
        changes = {}
        for number, trial in enumerate(trials, start=1):
            fields = self.configuration(trial)
            label = f"{number} {self.label(trial)}"
            changes[label] = {name: fields[name] for name in fields if name not in base}
        return Sweep(
            base=base,
            axes={AXIS: changes},
            threats=self.threats,
            split="validation",
            limit=self.limit,
            frontier_of=self.objectives,
        )

    def label(self, trial: Trial) -> str:
        """Return a trial's values as text, such as ``lr=0.01, end=0.4``."""
        return ", ".join(f"{name}={trial[name]}" for name in self.ranges)

    @property
    def extremes(self) -> list[Trial]:
        """Trials with each end of each number range and each choice, while the others have their
        first values."""
        first = {name: one.ends[0] for name, one in self.ranges.items()}
        others = (
            {**first, name: value} for name, one in self.ranges.items() for value in one.ends[1:]
        )
        return [first, *others]

    def with_base(self, **values: Any) -> "Search":
        """Return the search with the given fields of its base replaced.

        Raises:
            UserError: an unknown field or a wrong type.
        """
        check_keys(values)
        return attrs.evolve(self, base={**self.base, **values})

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections of this search's file, by name."""
        evaluation: dict[str, Any] = {"threats": dict(self.threats)}
        if self.limit is not None:
            evaluation["limit"] = self.limit
        settings = {name: getattr(self, name) for name in SEARCH_KEYS}
        return {
            "base": dict(self.base),
            "ranges": {name: one.as_toml() for name, one in self.ranges.items()},
            "search": {**settings, "objectives": list(self.objectives)},
            "evaluation": evaluation,
        }

    def as_toml(self) -> str:
        """Return this search as TOML, the text of a search file."""
        return tomli_w.dumps(self.sections)


def read_search(path: str | Path) -> Search:
    """Return the search that a file describes, checked as far as possible without its data.

    Raises:
        UserError: no such file, not TOML, an unknown section or field, a range that is empty or not
            used, a placeholder without a range, objectives that are not two threats.
    """
    return read_definition("search", path, parse_search)


def parse_search(text: str) -> Search:
    r"""Return the search that the text of a search file describes.

    >>> search = parse_search('''
    ... [base]
    ... perturb = "rot"
    ... schedule = ["linear(until={end})"]
    ... [ranges]
    ... end = { low = 0.1, high = 0.9 }
    ... ''')
    >>> search.configuration({"end": 0.25})
    {'perturb': 'rot', 'schedule': ['linear(until=0.25)']}

    Raises:
        UserError: as `read_search` does.
    """
    values = toml_of(text)
    if "axes" in values and "ranges" not in values:
        raise UserError("it has [axes], so it is a sweep: use curricula sweep, or state [ranges]")
    sections = sections_of(values, SECTIONS)
    base = sections["base"]
    check_keys(base)
    ranges = _ranges(sections["ranges"])
    _check_placeholders(base, ranges)
    search = Search(
        base=base, ranges=ranges, **_settings(sections["search"], sections["evaluation"])
    )
    longest = max(len(search.label(trial)) for trial in search.extremes)
    if longest > MAX_LABEL // 2:  # numbers between the ends are longer, and a number comes first
        raise UserError(
            f"the values of a trial take {longest:,} characters, at most {MAX_LABEL // 2:,} are "
            "allowed; shorten the choices, or make fewer ranges"
        )
    return search


def check_search(search: Search) -> None:
    """Check the values at the ends of a search's ranges, and its threats, without importing torch.

    Raises:
        UserError: as `curricula.training.checks.check_values` does, after the values.
    """
    for trial in search.extremes:
        with prefixed_errors(f"with {search.label(trial)}"):
            check_values(search.configuration(trial))
    check_threats(search.threats)


def check_trials(search: Search, found: Any) -> list[Trial]:
    """Return the trials of a search that a JSON file holds.

    Raises:
        TypeError, ValueError: it is not a list of values in the ranges.
    """
    if not isinstance(found, list) or len(found) > MAX_TRIALS:
        raise TypeError(f"must be a list of at most {MAX_TRIALS:,} trials, not {shown(found)}")
    for number, trial in enumerate(found, start=1):
        if not isinstance(trial, dict) or trial.keys() != search.ranges.keys():
            raise TypeError(f"trial {number} must have {', '.join(search.ranges)}")
        for name, value in trial.items():
            if not search.ranges[name].has(value):
                raise ValueError(f"trial {number}: {name} is not in its range: {shown(value)}")
    return found


def _ranges(found: Mapping[str, Any]) -> dict[str, Range]:
    """Return the ranges that a section of a search file states, by name."""
    if not found:
        raise UserError(
            "[ranges] is empty: name a field or a placeholder and its values, such as "
            "lr = { low = 0.001, high = 0.1, log = true }"
        )
    if len(found) > MAX_RANGES:
        raise UserError(f"[ranges] has {len(found)} ranges; at most {MAX_RANGES} are allowed")
    for name in found:
        check_name("range", name)
        if name in NOT_SEARCHED:
            raise UserError(f"range {name!r}: {name} cannot be searched: {NOT_SEARCHED[name]}")
    return {
        name: _choices(name, value) if isinstance(value, list) else _numbers(name, value)
        for name, value in found.items()
    }


def _numbers(name: str, found: Any) -> NumberRange:
    """Return the range of numbers that a table with ``low`` and ``high`` describes."""
    what = f"range {name!r}"
    if not isinstance(found, dict):
        raise UserError(
            f"{what} must be a table such as {{ low = 0.1, high = 0.9 }} or a list of choices, not "
            f"{shown(found)}"
        )
    for key in found:
        if key not in RANGE_KEYS:
            raise UserError(f"{what}: unknown key {shown(key)}; {did_you_mean(key, RANGE_KEYS)}")
    for key in ("low", "high"):
        if key not in found:
            raise UserError(f"{what} has no {key}; write {{ low = ..., high = ... }}")
    numbers = {key: found[key] for key in ("low", "high", "step") if key in found}
    for key, number in numbers.items():
        check_number(f"{what}: {key}", number, -MAX_NUMBER, MAX_NUMBER)
    if not all(isinstance(number, int) for number in numbers.values()):
        numbers = {key: float(number) for key, number in numbers.items()}
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    log = found.get("log", False)
    check_flag(f"{what}: log", log)
    if low >= high:
        raise UserError(f"{what}: low must be below high, {high:g}, not {low:g}")
    if log and low <= 0:
        raise UserError(f"{what}: low must be above 0 with log, not {low:g}")
    if step is not None:
        if log:
            raise UserError(f"{what}: log and step exclude each other; leave one out")
        steps = (high - low) / step if step > 0 else math.inf
        if steps > MAX_STEPS or not math.isclose(steps, round(steps), rel_tol=1e-9):
            raise UserError(
                f"{what}: step must be above 0 and divide high - low, {high - low:g}, into at most "
                f"{MAX_STEPS:,} parts, not {step:g}"
            )
    return NumberRange(low=low, high=high, log=log, step=step)


def _choices(name: str, found: list[Any]) -> Choices:
    """Return the range that a list of values describes."""
    what = f"range {name!r}"
    if not 2 <= len(found) <= MAX_CHOICES:
        raise UserError(f"{what} must have 2 to {MAX_CHOICES} choices, not {len(found)}")
    if name not in FIELDS and not all(type(value) in (str, int, float) for value in found):
        raise UserError(f"{what}: the choices of a placeholder must be texts or numbers")
    values = {label_of(value): value for value in found}
    if len(values) < len(found):
        raise UserError(f"{what} has a value twice: {shown(found)}")
    for label in values:
        check_name(f"{what}: choice", label)
    return Choices(values=values)


def _check_placeholders(base: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Check that each placeholder in the base has a range, and that each range is used."""
    used = set()
    for field, value in base.items():
        if field in ranges:
            raise UserError(f"{field} is in [base] and in [ranges]; leave it out of one")
        for text in _texts(field, value):
            rest = _PLACEHOLDER.sub("", text)
            if "{" in rest or "}" in rest:
                raise UserError(
                    f"[base] {field}: a placeholder is a name in braces, such as {{end}}, not "
                    f"{shown(text)}"
                )
        for name in _names(field, value):
            if name in FIELDS:
                raise UserError(
                    f"[base] {field}: {{{name}}} has the name of a field; give the placeholder "
                    "another name"
                )
            if name not in ranges:
                fix = did_you_mean(name, ranges)
                raise UserError(f"[base] {field}: {{{name}}} has no range in [ranges]; {fix}")
            if field in NOT_SEARCHED:
                raise UserError(f"[base] {field} cannot be searched: {NOT_SEARCHED[field]}")
            used.add(name)
    for name in ranges:
        if name not in FIELDS and name not in used:
            fix = did_you_mean(name, FIELDS, otherwise=f"write {{{name}}} where it belongs")
            raise UserError(
                f"range {name!r} is not used: it is no field, and no text in [base] has "
                f"{{{name}}}; {fix}"
            )


def _texts(field: str, value: Any) -> list[str]:
    """Return the texts of a field of the base that may have placeholders; a folder's name has
    none."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and field != "data_root"]


def _names(field: str, value: Any) -> list[str]:
    """Return the names of the placeholders in a field of the base."""
    return [name for text in _texts(field, value) for name in _PLACEHOLDER.findall(text)]


def _filled(field: str, value: Any, chosen: Mapping[str, Any]) -> Any:
    """Return a field of the base with the chosen values in the place of its placeholders."""
    if not _names(field, value):
        return value
    texts = [
        _PLACEHOLDER.sub(lambda match: str(chosen[match[1]]), text) for text in _texts(field, value)
    ]
    return texts if isinstance(value, list) else texts[0]


def _settings(found: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Search` that the sections ``search`` and ``evaluation`` state, by
    name."""
    check_known("search key", found, SEARCH_KEYS)
    if "split" in evaluation:
        raise UserError(
            "evaluation: a search has no split: it is measured on the validation images, because "
            "the best of many trials on the test images would be chosen by them; measure its "
            "frontier on the test images with curricula evaluate"
        )
    check_known("evaluation key", evaluation, ("limit", "threats"))
    read = read_evaluation({**evaluation, "split": "validation"})
    names = list(read["threats"] or STANDARD)
    objectives = frontier_of("search: objectives", found.get("objectives"), names)
    settings = {name: found[name] for name in SEARCH_KEYS if name in found}
    if "trials" in settings:
        check_whole("search: trials", settings["trials"], 1, MAX_TRIALS)
    if "sampler" in settings:
        check_choice("search: sampler", settings["sampler"], get_args(SamplerName))
    if "seed" in settings:
        check_whole("search: seed", settings["seed"], 0, MAX_SEED)
    if "prune" in settings:
        check_flag("search: prune", settings["prune"])
    return {
        **settings,
        "objectives": objectives,
        "threats": read["threats"],
        "limit": read["limit"],
    }
