"""The page of everything that is registered, read from the records and from their docstrings.

python -m curricula.reporting.catalogue > docs/catalogue.md
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import Argument, Call, Number
from curricula.interfaces import Perturbation
from curricula.plugins.hookspecs import KINDS, Kind
from curricula.plugins.registry import Registered, Registry, build_registry

PROVIDERS = ("curricula", "curricula-torchattacks", "curricula-escnn")
"""The distributions of our page: what else happens to be installed must not change it."""

SUPPLIED: Mapping[Kind, tuple[str, ...]] = {
    "model": ("num_classes", "in_channels", "image_size"),
    "dataset": ("root", "download"),
}
"""Parameters that the core fills in, and a user cannot."""

BUDGETS = (1.0, 0.5, 0.1, 2.0, 10.0, 100.0)
"""What a perturbation is built with to be asked what it declares: a share cannot be 2, a count of
pixels cannot be a half."""

TITLES: Mapping[Kind, str] = {
    "perturbation": "Perturbations",
    "schedule": "Schedules",
    "objective": "Objectives",
    "model": "Models",
    "dataset": "Data sets",
}


@attrs.frozen(kw_only=True)
class Parameter:
    """What a user may write in the parentheses after a name.

    Attributes:
        name: its keyword; of many in a row, with a star in front.
        type: in words, or its choices.
        default: as one would write it; what stands in for it where there is none.
        sentence: what the docstring's Args say of it; empty where they are silent.
    """

    name: str
    type: str
    default: str
    sentence: str


@attrs.frozen(kw_only=True)
class Entry:
    """What the page says of one record.

    Attributes:
        kind: of the record.
        name: what a user writes.
        provider: the distribution or file that offers it.
        summary: its line in listings.
        description: the docstring before its first section, in Markdown.
        parameters: all that a user may give, in their order.
        facts: of a perturbation, by heading: its kind, unit, norm_bound and limits.
    """

    kind: Kind
    name: str
    provider: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    facts: Mapping[str, str]


def entry(registered: Registered) -> Entry:
    """What the page says of a record.

    Raises:
        UserError: a factory that cannot be imported, a perturbation that cannot be built.
    """
    factory, kind, record = registered.load(), registered.kind, registered.record
    description, sentences = parse_docstring(factory.__doc__ or "")
    return Entry(
        kind=kind,
        name=record.name,
        provider=registered.provider.name,
        summary=record.summary,
        description=description,
        parameters=tuple(
            _parameter(kind, parameter, sentences.get(parameter.name, ""))
            for parameter in inspect.signature(factory, eval_str=True).parameters.values()
            if parameter.name not in SUPPLIED.get(kind, ())
            and parameter.kind is not parameter.VAR_KEYWORD
        ),
        facts=_facts(factory) if kind == "perturbation" else {},
    )


def entries(registry: Registry, providers: Iterable[str] | None = None) -> list[Entry]:
    """An entry for each record of a registry but its commands, by kind, in their order.

    Args:
        registry: whose records.
        providers: the distributions whose records are wanted; by default all.
    """
    wanted = None if providers is None else set(providers)
    return [
        entry(registered)
        for kind in TITLES
        for registered in registry.records(kind).values()
        if wanted is None or registered.provider.name in wanted
    ]


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """(what stands before the first section, the sentence of each of the Args), of a docstring in
    Google's style. Paragraphs and sentences are unfolded, each to one line."""
    before, *sections = re.split(
        r"^(Args|Attributes|Example|Examples|Note|Raises|Returns|Yields):\n",
        inspect.cleandoc(text),
        flags=re.MULTILINE,
    )
    description = "\n\n".join(_unfolded(part) for part in before.strip().split("\n\n"))
    sentences: dict[str, str] = {}
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        if heading == "Args":
            for name, sentence in re.findall(
                r"^ {4}\*{0,2}(\w+)(?: \([^)\n]*\))?:(.*(?:\n(?: {5}.*)?)*)",
                body,
                flags=re.MULTILINE,
            ):
                sentences[name] = " ".join(sentence.split())
    return description, sentences


def _unfolded(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if any(line.startswith((" ", "- ", "* ")) for line in lines):
        return paragraph  # a list or a block: its lines are its own
    return " ".join(lines)


def _parameter(kind: Kind, parameter: inspect.Parameter, sentence: str) -> Parameter:
    many = parameter.kind is parameter.VAR_POSITIONAL
    default = _default(kind, parameter)
    return Parameter(
        name=f"*{parameter.name}" if many else parameter.name,
        type=_type(parameter.annotation) + (", any number of them" if many else ""),
        default="none" if many else default,
        sentence=sentence,
    )


def _type(annotation: Any) -> str:
    """A type in words; of choices the choices. ``none`` is left to the default."""
    words: dict[Any, str] = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "name",
        tuple: "`NUMBER:NUMBER`",
    }
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [each for each in typing.get_args(annotation) if each is not types.NoneType]
        return " or ".join(dict.fromkeys(map(_type, options)))
    if typing.get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    bare = typing.get_origin(annotation) or annotation
    return words.get(bare, "anything")


def _default(kind: Kind, parameter: inspect.Parameter) -> str:
    """How a default would be written."""
    value = parameter.default
    if value is parameter.empty:
        return (
            "the data set's" if (kind, parameter.name) == ("perturbation", "budget") else "required"
        )
    if value is attrs.NOTHING:
        return "from the others"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"`{Number.of(float(value))}`"
    return "none" if value is None else f"`{value}`"


def _facts(factory: Callable[..., Any]) -> dict[str, str]:
    """What a perturbation declares, in words."""
    probes = _probes(factory)
    built = probes[0]
    unit = _varying(factory, lambda one: one.unit)
    facts = {"kind": f"`{built.kind}`", "unit": unit}
    if built.norm_bound is not None:
        norm = _varying(
            factory, lambda one: None if one.norm_bound is None else one.norm_bound.norm
        )
        is_ball = all(one.norm_bound and one.norm_bound.radius == one.budget for one in probes)
        radius = "the budget" if is_ball else "a radius that follows from the budget"
        facts["norm_bound"] = (
            f"no image changes by more than {radius} times the strength, "
            f"in {'that norm' if norm == unit else norm}"
        )
    if built.channels is not None:
        facts["channels"] = " or ".join(map(str, sorted(built.channels)))
    if built.training_only:
        facts["use"] = "for training alone, not as a threat"
    return facts


def _probes(factory: Callable[..., Any], *others: Argument) -> list[Perturbation]:
    """The perturbation at some budgets, those among them that it takes."""
    found: list[Perturbation] = []
    problem: UserError | None = None
    for budget in BUDGETS:
        call = Call(
            getattr(factory, "__name__", "perturbation"), (Argument(Number(budget)), *others)
        )
        try:
            found.append(factories.call_factory(factory, "perturbation", call).value)
        except UserError as error:
            problem = problem or error
    if not found and problem is not None:
        raise problem
    return found


def _varying(factory: Callable[..., Any], read: Callable[[Perturbation], str | None]) -> str:
    """Something that a perturbation declares, and how it varies with the choices one has."""
    usual = read(_probes(factory)[0])
    found = [f"`{usual}`"]
    for argument in _choices(factory):
        try:
            other = read(_probes(factory, argument)[0])
        except UserError:
            continue  # a choice that asks for another argument as well
        if other != usual:
            found.append(f"`{other}` with `{argument}`")
    return ", ".join(found)


def _choices(factory: Callable[..., Any]) -> Iterator[Argument]:
    for parameter in inspect.signature(factory, eval_str=True).parameters.values():
        if typing.get_origin(parameter.annotation) is Literal:
            for choice in typing.get_args(parameter.annotation):
                if isinstance(choice, str):
                    yield Argument(Call(choice), parameter.name)


def render(known: Iterable[Entry]) -> str:
    """The page, in Markdown: a section a kind, a table of its names, and each of them in full."""
    known = list(known)
    blocks = [
        "<!-- Made by `python -m curricula.reporting.catalogue > docs/catalogue.md`: change the "
        "docstrings, not this file. -->",
        "# Catalogue",
        "Every perturbation, schedule, objective, model and data set, with every parameter. Names "
        "and parameters are written as in [the expression language](expressions.md); "
        "`curricula plugins` lists what is installed where you are, [plugins](plugins.md) of "
        "others included.",
    ]
    anchors: dict[str, int] = {title.lower().replace(" ", "-"): 1 for title in TITLES.values()}
    for kind, title in TITLES.items():
        of_kind = [each for each in known if each.kind == kind]
        if not of_kind:
            continue
        rows, sections = [], []
        for each in of_kind:
            slug = each.name.lower()
            count = anchors.get(slug, 0)
            anchors[slug] = count + 1
            link = f"[`{each.name}`](#{slug}{f'-{count}' if count else ''})"
            rows.append((link, _cell(each.summary), each.provider))
            sections.extend(_section(each))
        blocks += [f"## {title}", _table(("name", "what it is", "from"), rows), *sections]
    return "\n\n".join(blocks) + "\n"


def _section(each: Entry) -> list[str]:
    """The blocks of one entry."""
    blocks = [f"### {each.name}"]
    if each.description:
        blocks.append(_escaped(each.description))
    if each.facts:
        blocks.append("\n".join(f"- {heading}: {fact}" for heading, fact in each.facts.items()))
    if not each.parameters:
        return [*blocks, "It takes no parameters."]
    rows = [
        (f"`{one.name}`", _cell(one.type), one.default, _cell(one.sentence))
        for one in each.parameters
    ]
    return [*blocks, _table(("parameter", "type", "default", "meaning"), rows)]


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    """A text that does not break a table."""
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """A docstring's text as Markdown: outside code, stars and angles mean themselves."""
    parts = re.split(r"(``.+?``|`.+?`)", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def page() -> str:
    """Our page, of the distributions of this project alone.

    Raises:
        UserError: one of them is not installed.
    """
    registry = build_registry(entry_points=True)
    there = {each.provider.name for kind in KINDS for each in registry.records(kind).values()}
    missing = [name for name in PROVIDERS if name not in there]
    if missing:
        raise UserError(f"the catalogue needs {', '.join(missing)}: install it first")
    return render(entries(registry, PROVIDERS))


if __name__ == "__main__":
    print(page(), end="")
