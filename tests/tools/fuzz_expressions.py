"""Parse and bind random texts: each is an expression or one line of a user error, within a second.

    python tests/tools/fuzz_expressions.py [--count 200000] [--seed 0] [--only KIND]

Every input is made from the seed and its own number, so that one of them can be repeated by
`--first NUMBER --count 1`. A third are expressions drawn from the grammar over all registered
names, a third are mutations of the expressions in the repository's documentation, recipes and
tests, and the others are arbitrary characters, extreme numbers, and texts of extreme length or
depth. What is parsed must print as a text that parses to the same; what is bound or built must
print as a text that is bound or built to the same.

The exit status is 1 if an input raised anything except a user error of one line, if a property
failed, or if an input took more than a second of processor time.
"""

import argparse
import contextlib
import functools
import heapq
import inspect
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import torch

from curricula.data.dataset import resolve_data
from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.binding import MAX_PASSES, bind
from curricula.expressions.checks import MAX_LEAVES, check_call, check_perturbation, parse_schedule
from curricula.expressions.syntax import (
    MAX_LENGTH,
    ExpressionError,
    parse,
    parse_call,
    parse_number,
    parse_value,
)
from curricula.interfaces import AdaptiveSchedule, Progress
from curricula.plugins import registry
from curricula.plugins.names import RESERVED
from curricula.runtime import memory
from curricula.training.callbacks import Callbacks, check_callbacks
from curricula.training.checks import check_values
from curricula.training.config import COMMON_TRAINING, merge
from curricula.training.learning_rate import parse_learning_rate
from curricula.training.optimizers import resolve_optimizer
from curricula.training.saver import parse_interval
from curricula.training.weight_averaging import parse_averaging

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 1.0  # processor time of an input
MAX_MESSAGE = 2100  # characters
MEMORY = 2**26  # bytes of the machine on which models and data sets are built

BUDGETS = {"degrees": "30", "pixels": "3", "linf": "8/255", "l2": "1/2"}
SHAPE = {"num_classes": 10, "in_channels": 1, "image_size": 28}
# Models that are built in milliseconds; only the names of others are looked up.
QUICK_MODELS = ("lenet", "smallcnn", "stdcnn", "madry-mnist", "wrn", "p4cnn", "p4mcnn")
AVERAGES = ("none", "ema", "swa")
PREFIXES = ("curricula/", "curricula-torchattacks/", "Curricula / ", "absent/", "8/", "a/b/", "/")

NUMBERS = (
    "0", "-0", "+1", "1", "2", "3", "5", "10", "0.5", ".5", "1.", "1e-3", "8/255", "1/2", "2/3",
    "-1",
    "30", "100", "255", "1000", "10000", "1e6", "1e9", "1e15", "1e16", "1e18", "1e30", "1e300",
    "1.7976931348623157e308", "1e309", "1e999", "5e-324", "1e-400", "1e308/1e-308", "1/3e-320",
    "1/0",
    "1/-2", "0/0", "inf", "nan", "-inf", "1_000", "0x10", "1e", "1e+", "--1", "+-1", "1 / 2",
    "1/2/3",
    "9" * 400, "9" * 5000, "0." + "1" * 3000, "1" + "0" * 308, "0" * 4000 + "1",
    "\uff13\uff10", "\u0663", "\u00b2", "1\xa0", "\x1c1", "8\x1c/255", "8/\x1f255",
    "8\xa0/\u2003255", "1\u200b", "0.1.2", "1:2", "0:1/2",
    "1:2:3",
    "9007199254740993", "0.1234567890123456789", "123456.7654321/987654.321", "255/255", "4/85",
)  # fmt: skip
WORDS = (
    "true", "false", "none", "auto", "linf", "l2", "l1", "ce", "kl", "dlr", "default", "bilinear",
    "nearest", "zeros", "border", "epoch", "update", "joint", "clean", "rot", "x" * 100, "x" * 101,
    "\u0430pgd", "pgd-", "a--b", "-a", "_", "a_b-c",
)  # fmt: skip
QUOTES = (
    '""', "''", "'none'", '"true"', "'l2'", '"8/255"', "'my net.py'", '"it\'s"', r"'it\'s'",
    r'"a\\b"',
    r"'C:\nets'", '"a', "a'", "'\x1b'", "'\ud800'", "'\u202f'", "'\u2028'", r"'\'",
    f"'{'x' * 4096}'",
    f"'{'x' * 4097}'", "'\U0001f600'", "'a, b=(1|2)'",
)  # fmt: skip
SPACES = ("", "", "", "", "", "", "", "", " ", "  ", "\t", "\n", "\r\n", "\f", "\v")
ODD = (
    "\x00", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\x85", "\xa0", "\xad", "\u2003",
    "\u200b",
    "\u2028", "\u2029", "\u202e", "\ufeff", "\u3000", "\ud800", "\udfff", "\U0001f600", "\u0301",
    "\u2212", "\u2013", "\uff0b", "\uff08", "\uff5c", "\\", "'", '"', "`", "$", "{", "}", "[",
    "]", "<",
    ">", "#", "%", "&", ";", "~", "^", "@", "!", "?", "*",
)  # fmt: skip
SIGNS = ("+", "|", "(", ")", ",", ":", "=", "-", "/", ".", "e", "0", "1", " ", "(" * 51, ")" * 51,
         '"', "'", "\\")  # fmt: skip


@functools.cache
def names(kind: str) -> Sequence[str]:
    """Return the registered names of a kind."""
    return sorted(registry.current().records(kind))


@functools.cache
def parameters(kind: str, name: str) -> Mapping[str, Any]:
    """Return the defaults of a factory's parameters, by name."""
    try:
        signature = inspect.signature(registry.current().find(kind, name).load())
    except UserError:
        return {}
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if key not in (*SHAPE, "root", "download", "params", "lr", "momentum", "weight_decay")
    }


@functools.cache
def kinds() -> Mapping[str, str]:
    """Return the kind of each perturbation that is built from a budget alone, by name."""
    found = {}
    for name in names("perturbation"):
        with contextlib.suppress(UserError):
            (leaf,) = bind(name, budgets={**BUDGETS, "switch": "1"}).leaves.values()
            found[name] = leaf.perturbation.kind
    return found


class Grammar:
    """Draws expressions, most of them almost right, over the names of a kind."""

    def __init__(self, kind: str, draws: random.Random) -> None:
        self.kind, self.draws = kind, draws

    def text(self) -> str:
        """Return an expression."""
        if self.kind == "perturbation":
            return self.union(self.draws.choice((0, 1, 2, 3)))
        return self.call(self.kind, self.name())

    def name(self) -> str:
        """Return a name, rarely an unknown one or one of another kind."""
        if self.draws.random() < 0.03:
            return self.draws.choice(WORDS)
        if self.kind == "average":
            return self.draws.choice(AVERAGES)
        prefix = self.draws.choice(PREFIXES) if self.draws.random() < 0.05 else ""
        return prefix + self.draws.choice(names(self.kind))

    def union(self, depth: int) -> str:
        count = self.draws.choice((1, 1, 1, 2, 2, 3, 5))
        return "|".join(self.space() + self.chain(depth) for _ in range(count))

    def chain(self, depth: int) -> str:
        links = [self.link(depth) for _ in range(self.draws.choice((1, 1, 2, 2, 3, 4)))]
        if self.draws.random() < 0.8:  # attacks come last
            links.sort(key=lambda text: kinds().get(re.split(r"\W", text)[0]) == "pixel")
        return "+".join(link + self.space() for link in links)

    def link(self, depth: int) -> str:
        choice = self.draws.random()
        if depth and choice < 0.2:
            return f"({self.union(depth - 1)})"
        if depth and choice < 0.35:
            return f"worst({self.union(depth - 1)}{self.keyword('k')})"
        if depth and choice < 0.5:
            moved = self.draws.choice(("rot", "trans", "flip", "crop", "hue", self.name()))
            inner = f"{moved}:{self.number()}" if choice < 0.45 else self.union(depth - 1)
            return f"grid({inner}{self.keyword(moved)})"
        if choice < 0.55:
            return "clean" if self.draws.random() < 0.9 else self.draws.choice(RESERVED)
        return self.call("perturbation", self.name())

    def call(self, kind: str, name: str) -> str:
        choice = self.draws.random()
        if choice < 0.2:
            return name
        if choice < 0.45:
            return f"{name}{self.space()}:{self.space()}{self.number()}"
        arguments = []
        if self.draws.random() < 0.5:
            arguments.append(self.number())
        known = {} if kind == "average" else parameters(kind, name)
        known = known or {"start": 0.5, "decay": 0.5, "warmup": 0.5}
        if arguments and self.draws.random() < 0.95:  # the first parameter is given
            known = dict(list(known.items())[1:])
        for key in self.draws.sample(list(known), self.draws.randint(0, min(4, len(known)))):
            arguments.append(f"{key}{self.space()}={self.space()}{self.value(known[key])}")
        return f"{name}({', '.join(arguments)})"

    def keyword(self, key: str) -> str:
        return "" if self.draws.random() < 0.3 else f", {key}={self.number()}"

    def value(self, default: Any) -> str:
        """Return the value of an argument, most often of the type of its default."""
        choice = self.draws.random()
        if choice < 0.8:
            if isinstance(default, bool):
                return self.draws.choice(("true", "false"))
            if isinstance(default, str):
                return default if self.draws.random() < 0.9 else f"{default!r}"
            return self.number()
        if choice < 0.85:
            return f"{self.number()}:{self.number()}"
        if choice < 0.93:
            return self.draws.choice(WORDS)
        if choice < 0.97:
            return self.draws.choice(QUOTES)
        return self.call("perturbation", self.draws.choice(names("perturbation")))

    def number(self) -> str:
        choice = self.draws.random()
        if choice < 0.75:
            return self.draws.choice(("1", "2", "3", "5", "8", "10", "0.1", "0.25", "0.5", "8/255"))
        if choice < 0.85:
            return repr(self.draws.uniform(-1, 1) * 10.0 ** self.draws.randint(-20, 20))
        if choice < 0.9:
            return f"{self.draws.randint(0, 300)}/{self.draws.randint(0, 300)}"
        return self.draws.choice(NUMBERS)

    def space(self) -> str:
        return self.draws.choice(ODD if self.draws.random() < 0.005 else SPACES)


@functools.cache
def repository_texts() -> Sequence[str]:
    """Return the expressions in the documentation, the recipes and the tests."""
    found = set()
    places = [*ROOT.glob("docs/*.md"), *ROOT.glob("curricula/recipes/*.toml")]
    for path in [*places, *ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/*.py")]:
        for text in re.findall(r"[`\"']([^`\"'\n]{2,300})[`\"']", path.read_text(encoding="utf-8")):
            try:
                parse(text)
            except ExpressionError:
                continue
            if re.search(r"[:(|+]", text):
                found.add(text)
    return sorted(found)


def mutated(draws: random.Random) -> str:
    """Return an expression of the repository with one to five changes."""
    text = draws.choice(repository_texts())
    for _ in range(draws.randint(1, 5)):
        at = draws.randint(0, len(text))
        end = min(len(text), at + draws.randint(1, 12))
        match draws.randint(0, 7):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + draws.choice(SIGNS) + text[at:]
            case 2:
                text = text[:at] + draws.choice(ODD) + text[at:]
            case 3:
                text = text[:at] + text[at:end] * draws.choice((2, 3, 10)) + text[end:]
            case 4:
                other = draws.choice(repository_texts())
                text = text[:at] + other[draws.randint(0, len(other)) :] + text[end:]
            case 5:
                text = draws.choice("+|(,").join((text, draws.choice(repository_texts())))
            case 6:
                numbers = list(re.finditer(r"\d+(\.\d+)?", text))
                if numbers:
                    chosen = draws.choice(numbers)
                    text = text[: chosen.start()] + draws.choice(NUMBERS) + text[chosen.end() :]
            case 7:
                words = list(re.finditer(r"[A-Za-z]\w*", text))
                if words:
                    chosen = draws.choice(words)
                    other = draws.choice(draws.choice((WORDS, QUOTES)))
                    text = text[: chosen.start()] + other + text[chosen.end() :]
    return text


def arbitrary(draws: random.Random) -> str:
    """Return arbitrary characters, often among those of the grammar."""
    length = draws.choice((0, 1, 2, 3, 5, 10, 30, 200))
    sets: Sequence[Callable[[], str]] = (
        lambda: chr(draws.randrange(0x110000)),
        lambda: chr(draws.randrange(0x300)),
        lambda: draws.choice(ODD),
        lambda: draws.choice(SIGNS),
        lambda: draws.choice(NUMBERS[:30]),
        lambda: draws.choice(("rot", "pgd", "worst", "grid", "clean", "linear", "k", "steps")),
    )
    return "".join(draws.choice(sets)() for _ in range(length))


def extreme(draws: random.Random) -> str:
    """Return a text of extreme length or depth."""
    unit = draws.choice((
        "rot:30+", "rot:30|", "clean|", "pgd+", "(", "worst(", "grid(", "f(", "((rot|", "a,",
        "a=1,",
        "1:2,", "1,", "rot:30+(clean|", "+", "|", ":", "=", " ", "9", "x", "-", ".", "/", "1/",
        "1e15,", "'a',", "'", "\\", "'\"',",
        "\xa0", "\ud800", "rot+worst(", "worst(rot+", "grid(rot:1+",
    ))  # fmt: skip
    count = draws.choice((49, 50, 51, 199, 200, 201, 1000, 3000))
    if draws.random() < 0.1:
        count = draws.choice((MAX_LENGTH // len(unit), MAX_LENGTH // len(unit) + 1, 10**6))
    closing = draws.choice(("", ")", ", k=10000)", "|clean)"))
    begin = draws.choice(("", "f(", "step(", "worst(", "rot:", "rot("))
    middle = draws.choice(("", "rot:30", "1", "a"))
    return begin + unit * count + middle + closing * (count if draws.random() < 0.7 else 1)


def texts_of(draws: random.Random, kind: str) -> str:
    """Return an input for a kind of expression."""
    choice = draws.random()
    if choice < 0.5 and kind in ("number", "interval"):
        return Grammar("schedule", draws).number() + draws.choice(("", "", "min", " min"))
    if choice < 0.5:
        return Grammar(GRAMMARS.get(kind, "perturbation"), draws).text()
    if choice < 0.8:
        return mutated(draws)
    if choice < 0.995:
        return arbitrary(draws) if draws.random() < 0.7 else draws.choice(NUMBERS)
    return extreme(draws)


def check_syntax(text: str) -> None:
    """Check that what a text means prints as a text that means the same."""
    for read in (parse, parse_value):
        try:
            meant = read(text)
        except UserError:
            continue
        printed = str(meant)
        assert read(printed) == meant, "the printed text means something else"
        assert str(read(printed)) == printed


def check_bound(text: str) -> None:
    """Check an expression over perturbations, in training and as a threat."""
    check_syntax(text)
    labels, refusals = None, []
    try:
        labels = check_perturbation(text)
    except UserError as error:
        refusals.append(error)
    for keywords in ({"defaults": {"steps": "5"}}, {"threat": True}):
        try:
            tree = bind(text, budgets=BUDGETS, **keywords)
        except UserError as error:
            refusals.append(error)
            continue
        assert labels == tuple(tree.leaves), "checks and binding label leaves differently"
        assert len(labels) <= MAX_LEAVES
        assert 0 <= tree.max_passes <= MAX_PASSES
        printed = str(tree)
        assert str(bind(printed)) == printed, "the printed tree is bound to another"
        check_syntax(printed)
        tree.without_attacks()
    if refusals:
        raise refusals[0]


def check_built(build: Callable[[str], factories.Built], text: str) -> factories.Built:
    """Check that what a text builds prints as a text that builds the same; return it."""
    built = build(text)
    printed = str(built.call)
    assert parse_call(printed) == built.call
    assert build(printed).call == built.call, "the printed call builds another"
    return built


MOMENTS = [Progress(step=i, total_steps=4, epoch=i, total_epochs=4) for i in range(4)]


def check_schedule(text: str) -> None:
    """Check a schedule, with or without its label, and its strengths."""
    check_syntax(text)
    label, call = parse_schedule(text)
    assert label is None or text.startswith(label) or text.strip().startswith(label)
    built = check_built(lambda text: factories.build("schedule", parse_call(text)), str(call))
    state = built.value.start(3) if isinstance(built.value, AdaptiveSchedule) else {}
    for moment in MOMENTS:
        strength = torch.as_tensor(built.value(moment, state))
        assert 0 <= strength.min() <= strength.max() <= 1


def check_learning_rate(text: str) -> None:
    """Check a learning-rate schedule and its multiples."""
    check_syntax(text)
    built = check_built(parse_learning_rate, text)
    assert all(0 <= built.value(moment) <= 1 for moment in MOMENTS)


def check_optimizer(text: str) -> None:
    """Check an optimiser."""
    check_syntax(text)
    config = merge(COMMON_TRAINING, {"model": "smallcnn"}, {"optimizer": text})
    printed = resolve_optimizer(config)
    assert resolve_optimizer(attrs.evolve(config, optimizer=printed)) == printed


def check_average(text: str) -> None:
    """Check an average of weights and the share of a snapshot."""
    check_syntax(text)
    average = check_built(parse_averaging, text).value
    assert average is None or all(0 <= average.share(n) <= 1 for n in (1, 10, 10**6))


def check_objective(text: str) -> None:
    """Check an objective."""
    check_syntax(text)
    check_built(lambda text: factories.build("objective", parse_call(text)), text)


def check_model(text: str) -> None:
    """Check a model; build it if that is quick."""
    check_syntax(text)
    if check_call("model", text).name in QUICK_MODELS:
        check_built(lambda t: factories.build("model", parse_call(t), supplied=SHAPE), text)


def check_data(text: str) -> None:
    """Check a data set, in an empty folder."""
    check_syntax(text)
    if check_call("dataset", text).name != "digits" or "(" in text:
        check_built(lambda text: resolve_data(text, root="no folder", download=False), text)


def check_callback(text: str) -> None:
    """Check a callback."""
    check_syntax(text)
    (printed,) = Callbacks.build(check_callbacks([text])).texts
    assert Callbacks.build([printed]).texts == [printed], "the printed call builds another"


def check_configuration(text: str) -> None:
    """Check a text as the value of every field that takes an expression."""
    problems = []
    for values in (
        {"perturb": text, "schedule": text},
        {"data": text},
        {"model": text, "objective": text},
        {"lr_schedule": text, "average": text},
        {"optimizer": text},
        {"augmentation": text, "schedule": [text, "linear"]},
    ):
        try:
            check_values(values)
        except UserError as error:
            problems.append(error)
    if problems:
        raise problems[0]


CHECKS: Mapping[str, Callable[[str], object]] = {
    "perturbation": check_bound,
    "schedule": check_schedule,
    "learning rate": check_learning_rate,
    "optimizer": check_optimizer,
    "average": check_average,
    "objective": check_objective,
    "model": check_model,
    "data set": check_data,
    "callback": check_callback,
    "configuration": check_configuration,
    "number": parse_number,
    "interval": parse_interval,
}
WEIGHTS = (36, 12, 6, 2, 6, 6, 6, 4, 2, 8, 6, 6)  # share of each kind, in percent
GRAMMARS = {
    "schedule": "schedule",
    "learning rate": "lr_schedule",
    "optimizer": "optimizer",
    "average": "average",
    "objective": "objective",
    "model": "model",
    "data set": "dataset",
    "callback": "callback",
}


@attrs.frozen
class Failure:
    """An input that raised something else than a user error, or took too long."""

    number: int
    kind: str
    text: str
    reason: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) < 500 else f"{self.text[:400]}...{self.text[-90:]}"
        return f"input {self.number}, {self.kind}: {shown!r} ({len(self.text):,}): {self.reason}"


@attrs.define
class Result:
    """The outcome of many inputs."""

    counts: Counter[str] = attrs.field(factory=Counter)  # inputs of each kind
    accepted: Counter[str] = attrs.field(factory=Counter)  # of them, those without an error
    failures: list[Failure] = attrs.field(factory=list)
    slowest: list[tuple[float, int, str, str]] = attrs.field(factory=list)

    def add_time(self, seconds: float, number: int, kind: str, text: str) -> None:
        """Keep the ten slowest inputs."""
        heapq.heappush(self.slowest, (seconds, number, kind, text[:100]))
        if len(self.slowest) > 10:
            heapq.heappop(self.slowest)

    def __str__(self) -> str:
        total, accepted = self.counts.total(), self.accepted.total()
        lines = [f"{total:,} inputs, {accepted:,} accepted, {len(self.failures):,} failures"]
        lines += [f"  {kind}: {n:,}, {self.accepted[kind]:,} accepted" for kind, n in
                  sorted(self.counts.items())]  # fmt: skip
        lines += [
            f"  {seconds:.3f} s: input {number}, {kind}: {text!r}"
            for seconds, number, kind, text in sorted(self.slowest, reverse=True)
        ]
        return "\n".join([*lines, *map(str, self.failures[:50])])


def made(seed: int, number: int, only: str | None = None) -> tuple[str, str]:
    """Return the kind and the text of an input."""
    draws = random.Random(f"{seed} {number}")
    kind = only or draws.choices(list(CHECKS), WEIGHTS)[0]
    return kind, texts_of(draws, kind)


def problem_of(check: Callable[[str], object], text: str) -> str | None:
    """Return what is wrong with the answer to a text; None if it is accepted, or refused as it
    should be (an empty text)."""
    try:
        check(text)
    except UserError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > MAX_MESSAGE:
            return f"a message of {len(message.splitlines())} lines, {len(message)} characters"
        return ""
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    return None


@contextlib.contextmanager
def _small_machine() -> Iterator[None]:
    """Make models and data sets small: what takes more than 64 MiB is refused."""
    with mock.patch.object(memory, "total_bytes", return_value=MEMORY):
        yield


def warm_up() -> None:
    """Import every factory, so that no input is charged for it."""
    for kind in (
        "perturbation", "schedule", "objective", "optimizer", "lr_schedule", "model", "dataset",
        "callback",
    ):  # fmt: skip
        for name in names(kind):
            parameters(kind, name)
    kinds()
    repository_texts()
    bind("grid(rot:30)+fgsm:0.1")


def fuzz(
    count: int,
    *,
    seed: int = 0,
    first: int = 0,
    only: str | None = None,
    noted: Callable[[str], None] = lambda line: None,
) -> Result:
    """Return the outcome of ``count`` inputs."""
    warm_up()
    result = Result()
    with _small_machine():
        for number in range(first, first + count):
            kind, text = made(seed, number, only)
            began = time.process_time()
            problem = problem_of(CHECKS[kind], text)
            seconds = time.process_time() - began
            result.counts[kind] += 1
            result.accepted[kind] += problem is None
            result.add_time(seconds, number, kind, text)
            if not problem and seconds > MAX_SECONDS:
                problem = f"took {seconds:.1f} s"
            if problem:
                result.failures.append(Failure(number, kind, text, problem))
                noted(str(result.failures[-1]))
            if (number + 1) % 10_000 == 0:
                noted(f"{number + 1:,} inputs")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200_000, help="number of inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=CHECKS, help="kind of expression")
    chosen = parser.parse_args()
    result = fuzz(
        chosen.count,
        seed=chosen.seed,
        first=chosen.first,
        only=chosen.only,
        noted=lambda line: print(ascii(line), file=sys.stderr, flush=True),
    )
    print(str(result).encode("ascii", "backslashreplace").decode())
    sys.exit(1 if result.failures else 0)


if __name__ == "__main__":
    main()
