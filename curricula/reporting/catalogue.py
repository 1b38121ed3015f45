"""The catalogue: a page of everything registered, made from records, signatures and docstrings.

This writes docs/catalogue.md, and a strip of pictures for each perturbation:

python -m curricula.reporting.catalogue
"""

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import Argument, Call, Number
from curricula.interfaces import Perturbation
from curricula.plugins.hookspecs import KINDS, Kind
from curricula.plugins.registry import Registered, Registry, build_registry
from curricula.reporting.strips import expression_of, write_strips
from curricula.runtime.files import write_output

PROVIDERS = (
    "curricula",
    "curricula-torchattacks",
    "curricula-corruptions",
    "curricula-escnn",
    "curricula-timm",
)
"""The distributions on our page, whatever else is installed."""

WITH_PICTURES = ("curricula", "curricula-torchattacks", "curricula-corruptions")
"""The providers whose perturbations have a strip of pictures."""

SUPPLIED: Mapping[Kind, tuple[str, ...]] = {
    "model": ("num_classes", "in_channels", "image_size", "fetch"),
    "dataset": ("root", "download"),
    "optimizer": ("params", "lr", "momentum", "weight_decay"),
    "suite": ("curriculum", "budgets", "in_channels"),
}
"""Parameters that the core fills in, and users cannot."""

BUDGETS = (1.0, 0.5, 0.1, 2.0, 10.0, 100.0)
"""Budgets with which a perturbation is built to read its attributes. It refuses some of them: a
share cannot be 2, a number of pixels cannot be 0.5."""

PICTURES = "catalogue"
"""Folder of the pictures, beside the page."""

TITLES: Mapping[Kind, str] = {
    "perturbation": "Perturbations",
    "schedule": "Schedules",
    "objective": "Objectives",
    "optimizer": "Optimisers",
    "lr_schedule": "Learning-rate schedules",
    "model": "Models",
    "dataset": "Data sets",
    "callback": "Callbacks",
    "suite": "Suites",
}


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter of a perturbation, model, schedule, optimiser, data set or the like, in words.

    Attributes:
        name: its keyword; with a star in front if it takes any number of values.
        type: its type in words, or its choices.
        default: its default as a user would write it, or what replaces it.
        sentence: its sentence in the docstring's Args; empty if there is none.
    """

    name: str
    type: str
    default: str
    sentence: str


@attrs.frozen(kw_only=True)
class Entry:
    """The texts that the catalogue shows for one registered name.

    Attributes:
        kind: kind of the record.
        name: the name that users write.
        provider: the distribution or file that offers it.
        summary: its line in listings.
        description: the docstring before its first section, in Markdown.
        example: the docstring's Example section; empty if there is none.
        parameters: all parameters for users, in order.
        facts: kind, unit, norm bound and limits of a perturbation, by heading.
        strip: the expression that its strip of pictures shows; empty if it has none.
    """

    kind: Kind
    name: str
    provider: str
    summary: str
    description: str
    example: str
    parameters: tuple[Parameter, ...]
    facts: Mapping[str, str]
    strip: str


def entry(registered: Registered) -> Entry:
    """Return the catalogue's entry for one registered record.

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
        example=parse_example(factory.__doc__ or ""),
        parameters=tuple(
            _parameter(kind, parameter, sentences.get(parameter.name, ""))
            for parameter in inspect.signature(factory, eval_str=True).parameters.values()
            if parameter.name not in SUPPLIED.get(kind, ())
            and parameter.kind is not parameter.VAR_KEYWORD
        ),
        facts=_facts(factory) if kind == "perturbation" else {},
        strip=expression_of(record.name, _probes(factory)[0])
        if kind == "perturbation" and registered.provider.name in WITH_PICTURES
        else "",
    )


def entries(registry: Registry, providers: Iterable[str] | None = None) -> list[Entry]:
    """Return the catalogue's entry for each record of a registry except its commands, grouped by
    kind.

    Args:
        registry: the registry.
        providers: distributions whose records to include; by default all.
    """
    wanted = None if providers is None else set(providers)
    return [
        entry(registered)
        for kind in TITLES
        for registered in registry.records(kind).values()
        if wanted is None or registered.provider.name in wanted
    ]


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section of a docstring in Google's style, and each
    argument's sentence by name.

    Each paragraph and each sentence becomes one line.
    """
    before, sections = _split(text)
    description = "\n\n".join(_unfolded(part) for part in before.strip().split("\n\n"))
    sentences: dict[str, str] = {}
    for heading, body in sections:
        if heading == "Args":
            for name, sentence in re.findall(
                r"^ {4}\*{0,2}(\w+)(?: \([^)\n]*\))?:(.*(?:\n(?: {5}.*)?)*)",
                body,
                flags=re.MULTILINE,
            ):
                sentences[name] = " ".join(sentence.split())
    return description, sentences


def parse_example(text: str) -> str:
    """Return the Example section of a docstring in Google's style, dedented; empty if none."""
    bodies = (body for heading, body in _split(text)[1] if heading in ("Example", "Examples"))
    return textwrap.dedent(next(bodies, "")).strip()


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first section, and (heading, body) of each section."""
    before, *sections = re.split(
        r"^(Args|Attributes|Example|Examples|Note|Raises|Returns|Yields):\n",
        inspect.cleandoc(text),
        flags=re.MULTILINE,
    )
    return before, list(zip(sections[::2], sections[1::2], strict=True))


def _unfolded(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if any(line.startswith((" ", "- ", "* ")) for line in lines):
        return paragraph  # keep the lines of a list or a block
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
    """Return a parameter's type, or its choices, in words; the default says whether it may be
    ``none``."""
    words: dict[Any, str] = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "name or text in quotes",
        Path: "path in quotes",
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
    """Return a parameter's default as a user would write it."""
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
    """Return a perturbation's kind, unit, norm bound and limits in words, by heading."""
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
        facts["norm bound"] = (
            f"no image changes by more than {radius} times the strength, "
            f"in {'that norm' if norm == unit else norm}"
        )
    if built.channels is not None:
        facts["channels"] = " or ".join(map(str, sorted(built.channels)))
    if built.training_only:
        facts["use"] = "for training only, not as a threat"
    return facts


def _probes(factory: Callable[..., Any], *others: Argument) -> list[Perturbation]:
    """Return a perturbation for each of the numbers in `BUDGETS` that its factory accepts as a
    budget."""
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
    """Return an attribute of a factory's perturbation in words, with its values for other
    arguments."""
    usual = read(_probes(factory)[0])
    found = [f"`{usual}`"]
    for argument in _choices(factory):
        try:
            other = read(_probes(factory, argument)[0])
        except UserError:
            continue  # a choice that needs a further argument
        if other != usual:
            found.append(f"`{other}` with `{argument}`")
    return ", ".join(found)


def _choices(factory: Callable[..., Any]) -> Iterator[Argument]:
    """Yield an argument for each choice of each parameter that has choices."""
    for parameter in inspect.signature(factory, eval_str=True).parameters.values():
        if typing.get_origin(parameter.annotation) is Literal:
            for choice in typing.get_args(parameter.annotation):
                if isinstance(choice, str):
                    yield Argument(Call(choice), parameter.name)


def render(known: Iterable[Entry]) -> str:
    """Return the page in Markdown: for each kind a table of its names, then each entry in full."""
    known = list(known)
    blocks = [
        "<!-- Made by `python -m curricula.reporting.catalogue`: change the docstrings, not this "
        "file. -->",
        "# Catalogue",
        "Every perturbation, schedule, objective, model, data set and callback, with every "
        "parameter. Names and parameters are written as in "
        "[the expression language](expressions.md); "
        "`curricula plugins` lists all names that are installed, with those of third-party "
        "[plugins](plugins.md). Strips of pictures show one image at strengths 0 (the original), "
        "0.25, 0.5, 0.75 and 1; attacks are aimed at a network trained on the digits for five "
        "epochs, so those that need colours have no strip.",
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
    """Return an entry's heading, facts, parameters and example as blocks of Markdown."""
    blocks = [f"### {each.name}"]
    if each.description:
        blocks.append(_escaped(each.description))
    if each.strip:
        blocks.append(f"![{each.strip} at growing strengths]({PICTURES}/{each.name}.png)")
    if each.facts:
        blocks.append("\n".join(f"- {heading}: {fact}" for heading, fact in each.facts.items()))
    if each.parameters:
        rows = [
            (f"`{one.name}`", _cell(one.type), one.default, _cell(one.sentence))
            for one in each.parameters
        ]
        blocks.append(_table(("parameter", "type", "default", "meaning"), rows))
    else:
        blocks.append("It takes no parameters.")
    return [*blocks, *_example(each.example)]


def _example(text: str) -> Iterator[str]:
    """Yield the blocks of an example: its paragraphs, and its sessions as code."""
    for block in re.split(r"\n\n+", text) if text else ():
        yield f"```pycon\n{block}\n```" if block.startswith(">>>") else _escaped(_unfolded(block))


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    """Return a text escaped for a cell of a Markdown table."""
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Return a docstring's text as Markdown, with stars and angles outside code escaped."""
    parts = re.split(r"(``.+?``|`.+?`)", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def page() -> str:
    """Return the catalogue of everything that this project's distributions register, in Markdown.

    Raises:
        UserError: one of them is not installed.
    """
    return render(_ours())


def write(folder: Path) -> None:
    """Write the catalogue into a folder, and its pictures into ``catalogue/`` beside it."""
    known = _ours()
    write_output(folder / "catalogue.md", render(known).encode())
    write_strips({each.name: each.strip for each in known if each.strip}, folder / PICTURES)


def _ours() -> list[Entry]:
    """Return the catalogue's entries for what this project's distributions register.

    Raises:
        UserError: one of them is not installed.
    """
    registry = build_registry(entry_points=True)
    there = {each.provider.name for kind in KINDS for each in registry.records(kind).values()}
    missing = [name for name in PROVIDERS if name not in there]
    if missing:
        raise UserError(f"the catalogue needs {', '.join(missing)}: install it first")
    return entries(registry, PROVIDERS)


if __name__ == "__main__":
    write(Path("docs"))
