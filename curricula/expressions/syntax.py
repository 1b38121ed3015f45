r"""The syntax of the expression language, in which users write perturbations, models and schedules.

    union  := chain ("|" chain)*
    chain  := link ("+" link)*                   "+" binds tighter than "|"
    link   := name | name ":" NUMBER | name "(" [arg ("," arg)*] ")" | "(" union ")"
    name   := [NAME "/"] NAME                    with the plugin that provides it, or without
    arg    := [NAME "="] value
    value  := union | NUMBER | NUMBER ":" NUMBER | QUOTED
    NUMBER := ["-" | "+"] DECIMAL ["/" DECIMAL]
    QUOTED := '"' CHARACTER* '"' | "'" CHARACTER* "'"

``name:NUMBER`` and ``name(NUMBER)`` mean the same and print as the former. Spaces, digits and
letters are those of ASCII, and what prints parses again to the same. Quotes hold any characters
except control characters; ``\"``, ``\'`` and ``\\`` stand for a quote and a backslash. This module
knows only the syntax; `factories` knows the meaning of names. Text is never evaluated.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NoReturn, TypeAlias, TypeVar

import attrs

from curricula.errors import UserError, amount, shortened, shown
from curricula.plugins.names import NAME_PATTERN

MAX_DEPTH = 50  # nested parentheses, far below Python's recursion limit
MAX_LENGTH = 100_000  # characters, as written and as printed; parsing takes linear time
MAX_NAME = 100  # characters
MAX_QUOTED = 4096  # characters between quotes, as many as a path of Linux may have
_SPACES = " \t\n\r\f\v"  # Python's own notion of space has more, which float() refuses


class ExpressionError(UserError):
    """An error for a text that is not a valid expression; its message quotes the text at the wrong
    character."""


@attrs.frozen
class Number:
    """A decimal or a fraction that prints as it was written, such as ``8/255``."""

    numerator: float
    denominator: float = 1.0

    @property
    def value(self) -> float:
        return self.numerator / self.denominator

    @classmethod
    def of(cls, value: float) -> "Number":
        """Return a float as a number of exactly the same value, written as a decimal or as a
        shorter fraction such as ``8/255``."""
        fraction = Fraction(value).limit_denominator(255)
        if value != round(value, 6) and fraction.numerator / fraction.denominator == value:
            return cls(float(fraction.numerator), float(fraction.denominator))
        return cls(float(value))

    def __str__(self) -> str:
        numerator = _decimal(self.numerator)
        return numerator if self.denominator == 1 else f"{numerator}/{_decimal(self.denominator)}"


@attrs.frozen
class Pair:
    """Two numbers ``NUMBER:NUMBER``, such as the stage ``0.62:5/6`` of a step schedule."""

    left: Number
    right: Number

    def __str__(self) -> str:
        return f"{self.left}:{self.right}"


@attrs.frozen
class Quoted:
    """A text in quotes, such as a path.

    >>> print(parse("file('my net.py', Net)"))
    file("my net.py", Net)
    """

    text: str

    def __str__(self) -> str:
        return '"' + re.sub(r'(["\\])', r"\\\1", self.text) + '"'


@attrs.frozen
class Argument:
    """A value in the parentheses of a call, with its keyword or without one."""

    value: "Value"
    key: str | None = None

    def __str__(self) -> str:
        return str(self.value) if self.key is None else f"{self.key}={self.value}"


@attrs.frozen
class Call:
    """A name with its arguments: ``name``, ``name:NUMBER`` or ``name(arguments)``.

    Attributes:
        name: the registered name, or ``PROVIDER/NAME``.
        arguments: its arguments.
    """

    name: str
    arguments: tuple[Argument, ...] = ()

    @property
    def short_name(self) -> str:
        """The name without its provider."""
        return self.name.rpartition("/")[2]

    def __str__(self) -> str:
        match self.arguments:
            case ():
                return self.name
            case (Argument(value=Number() as budget, key=None),):
                return f"{self.name}:{budget}"
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@attrs.frozen
class Chain:
    """Two or more links ``a+b``, each applied to the output of the one before it."""

    links: tuple["Call | Union", ...]

    def __str__(self) -> str:
        return "+".join(
            f"({part})" if isinstance(part, Union) else str(part) for part in self.links
        )


@attrs.frozen
class Union:
    """Two or more branches ``a|b``, of which each image takes one."""

    branches: tuple[Call | Chain, ...]

    def __str__(self) -> str:
        return "|".join(map(str, self.branches))


Expression: TypeAlias = Call | Chain | Union
Value: TypeAlias = Expression | Number | Pair | Quoted


def chain(*expressions: Expression) -> Expression:
    """Return expressions joined by ``+``, with inner chains flattened."""
    links = tuple(
        link
        for expression in expressions
        for link in (expression.links if isinstance(expression, Chain) else (expression,))
    )
    return links[0] if len(links) == 1 else Chain(links)


def union(*expressions: Expression) -> Expression:
    """Return expressions joined by ``|``, with inner unions flattened."""
    branches = tuple(
        branch
        for expression in expressions
        for branch in (expression.branches if isinstance(expression, Union) else (expression,))
    )
    return branches[0] if len(branches) == 1 else Union(branches)


def calls(expression: Expression) -> Iterator[Call]:
    """Yield every call in an expression, left to right, each before the calls in its arguments."""
    match expression:
        case Call():
            yield expression
            for argument in expression.arguments:
                if isinstance(argument.value, (Call, Chain, Union)):
                    yield from calls(argument.value)
        case Chain(parts) | Union(parts):
            for part in parts:
                yield from calls(part)


def parse(text: str) -> Expression:
    """Return the parsed form of an expression such as ``rot:30+pgd(8/255, steps=10)``.

    Raises:
        ExpressionError: the text is not an expression; one line gives the text, the character and
            what was expected there.

    Example:
        >>> from curricula.expressions import parse
        >>> print(parse("rot(30) + pgd( 8/255 )"))
        rot:30+pgd:8/255
        >>> parse("rot|pgd").branches
        (Call(name='rot', arguments=()), Call(name='pgd', arguments=()))
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an expression is a text, such as 'rot:30+pgd', not {shown(text)}")
    return _printable(_Parser(text).whole())


def parse_call(text: str) -> Call:
    """Return the parsed form of a single call, such as ``wrn(depth=28, width=10)``.

    Raises:
        ExpressionError: as in `parse`; the text is a chain or a union.

    Example:
        >>> parse_call("wrn(depth=28, width=10)").name
        'wrn'
    """
    expression = parse(text)
    if not isinstance(expression, Call):
        raise ExpressionError(
            f"in {shortened(text)!r}: expected a single name or call, not a combination"
        )
    return expression


def parse_value(text: str) -> Value:
    """Return the parsed form of an argument's text: a number, a pair, a quoted text or an
    expression.

    Raises:
        UserError: the text is not one value.
    """
    if not isinstance(text, str):
        raise UserError(f"expected a value as text, such as '8/255', not {shown(text)}")
    parser = _Parser(text, number_allowed=True)
    if parser.kind == "end" or parser.at(","):
        raise UserError(f"expected a single value, not {shown(text)}")
    value = parser.value()
    parser.finish()
    return _printable(value)


def parse_number(text: str) -> Number:
    """Return the number in a text: a decimal, or a fraction such as ``8/255``.

    Raises:
        UserError: the text is not one number.

    Example:
        >>> parse_number("3/4").value
        0.75
    """
    value = parse_value(text)
    if not isinstance(value, Number):
        raise UserError(f"expected a number, not {shown(text)}")
    return value


def error_in(part: Value, problem: str) -> UserError:
    """Return a UserError whose message is a part of an expression, followed by what is wrong with
    it."""
    return UserError(f"{shortened(part)}: {problem}")


def check_length(text: str) -> None:
    """Check that the text of an expression, as written or as printed, has at most MAX_LENGTH
    characters.

    Raises:
        ExpressionError: it is.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"in {shortened(text)!r}: an expression of {amount(len(text))} characters; at most "
            f"{MAX_LENGTH:,} are allowed"
        )


V = TypeVar("V", bound=Value)


def _printable(value: V) -> V:
    """Return a parsed value unchanged, after checking that its printed form can be parsed again."""
    check_length(str(value))
    return value


def quotable(text: str) -> bool:
    """Return whether a text can be written in quotes: it is short enough, and no character of it
    controls a terminal, ends a line, or is half of one (a surrogate).

    Example:
        >>> quotable("réseau 1.py"), quotable("two\\nlines")
        (True, False)
    """
    return len(text) <= MAX_QUOTED and _bad_character(text) is None


def _bad_character(text: str) -> str | None:
    """Return the first character of a text that quotes cannot hold, or None."""
    if text.isprintable():
        return None
    return next((c for c in text if unicodedata.category(c) in _UNQUOTABLE), None)


def _decimal(value: float) -> str:
    text = repr(float(value))
    return text.removesuffix(".0")


_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)?)
      | (?P<name>{NAME_PATTERN})
      | (?P<quoted>"(?:[^"\\]|\\(?s:.))*"|'(?:[^'\\]|\\(?s:.))*')
      | (?P<sign>[-+|:=,()/])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.ASCII,
)
_UNQUOTABLE = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode
_ESCAPE = re.compile(r"\\(.)")
_OTHER_PAIR = re.compile(r"[=(,] ?[(\[]? ?(\d{1,4}) ?[xX*,] ?(\d{1,4})[)\]]?")  # 48x64, (48, 64)
_EQUALS = re.compile(r"\s*=", re.ASCII)


class _Parser:
    """A recursive-descent parser of an expression, with one method for each rule of the grammar
    above."""

    def __init__(self, text: str, *, number_allowed: bool = False) -> None:
        check_length(text)
        self.text = text
        self.position = 0
        self.depth = 0
        self.advance(number_allowed=number_allowed)

    def advance(self, *, number_allowed: bool) -> None:
        """Read the next token. A number may begin with a sign only if ``number_allowed``."""
        match = _TOKEN.match(self.text, self.position)
        if match is not None and match.lastgroup == "number" and not number_allowed:
            sign = match.group("number")[0]
            if sign in "+-":
                self.kind, self.token, self.start = "sign", sign, match.start("number")
                self.position = self.start + 1
                return
        if match is None or match.lastgroup is None:
            self.start = len(self.text) - len(self.text[self.position :].lstrip(_SPACES))
            character = self.text[self.start]
            if character in "\"'":
                self.fail("this quote is not closed")
            self.fail(f"unexpected {character!r}")
        self.kind, self.token = match.lastgroup, match.group(match.lastgroup)
        self.start, self.position = match.start(match.lastgroup), match.end()
        if self.kind == "name" and len(self.token) > MAX_NAME:
            self.fail(f"a name of {len(self.token):,} characters; at most {MAX_NAME} are allowed")

    def fail(self, problem: str) -> NoReturn:
        """Raise an ExpressionError that quotes the text at the current token."""
        if self.start >= len(self.text.rstrip(_SPACES)):
            where = "at the end"
        else:
            where = f"at character {self.start + 1} ({shortened(self.text[self.start :])!r})"
        for pair in _OTHER_PAIR.finditer(self.text):
            if pair.start() <= self.start < pair.end():
                problem += f"; a pair of numbers is written {pair[1]}:{pair[2]}"
        raise ExpressionError(f"in {shortened(self.text)!r}, {where}: {problem}")

    def at(self, sign: str) -> bool:
        """Return whether the current token is the given sign, such as ``+``."""
        return self.kind == "sign" and self.token == sign

    def whole(self) -> Expression:
        if not self.text.strip(_SPACES):
            raise ExpressionError(
                "the expression is empty: write a name, such as rot:30 or smallcnn"
            )
        expression = self.union()
        self.finish()
        return expression

    def finish(self) -> None:
        """Check that no token follows."""
        if self.at(","):
            self.fail("commas are allowed only inside parentheses: write name(budget, key=value)")
        if self.at(")"):
            self.fail("this closing parenthesis was never opened")
        if self.kind != "end":
            self.fail("expected '+', '|' or the end")

    def union(self) -> Expression:
        branches = [self.chain()]
        while self.at("|"):
            self.advance(number_allowed=False)
            branches.append(self.chain())
        return union(*branches)

    def chain(self) -> Expression:
        links = [self.link()]
        while self.at("+"):
            self.advance(number_allowed=False)
            links.append(self.link())
        return chain(*links)

    def link(self) -> Expression:
        if self.at("("):
            return self.parenthesised()
        if self.kind == "quoted":
            self.fail("expected a name without quotes; only values are quoted")
        if self.kind != "name":
            self.fail("expected a name")
        name = self.token
        self.advance(number_allowed=False)
        if self.at("/"):
            self.advance(number_allowed=False)
            if self.kind != "name":
                self.fail(f"expected a name after '{name}/'")
            name = f"{name}/{self.token}"
            self.advance(number_allowed=False)
        if self.at(":"):
            self.advance(number_allowed=True)
            return Call(name, (Argument(self.number(f"a number after '{name}:'")),))
        if self.at("("):
            return Call(name, self.arguments(name))
        return Call(name)

    def parenthesised(self) -> Expression:
        opened = self.open(number_allowed=False)
        expression = self.union()
        self.close(opened)
        return expression

    def open(self, *, number_allowed: bool) -> int:
        """Read an opening parenthesis and return its position in the text."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"parentheses nest deeper than {MAX_DEPTH}, the most that are allowed")
        opened = self.start
        self.advance(number_allowed=number_allowed)
        return opened

    def close(self, opened: int) -> None:
        """Read the closing parenthesis that belongs to the one at position ``opened``."""
        if not self.at(")"):
            if self.kind == "end":
                self.fail(f"the parenthesis opened at character {opened + 1} is not closed")
            self.fail("expected ',' or ')'")
        self.depth -= 1
        self.advance(number_allowed=False)

    def arguments(self, name: str) -> tuple[Argument, ...]:
        opened = self.open(number_allowed=True)
        arguments: list[Argument] = []
        keys: set[str] = set()
        if not self.at(")"):
            arguments.append(self.argument(name, keys))
            while self.at(","):
                self.advance(number_allowed=True)
                arguments.append(self.argument(name, keys))
        self.close(opened)
        return tuple(arguments)

    def argument(self, name: str, keys: set[str]) -> Argument:
        """Read and return one argument of a call, and add its keyword to ``keys``."""
        if self.kind == "name" and _EQUALS.match(self.text, self.position):
            key = self.token
            if key in keys:
                self.fail(f"{name}: {key} is given twice")
            keys.add(key)
            self.advance(number_allowed=False)
            self.advance(number_allowed=True)
            return Argument(self.value(), key)
        if keys:
            self.fail(f"{name}: a positional argument after a keyword")
        return Argument(self.value())

    def value(self) -> Value:
        if self.kind == "number" or self.at("-") or self.at("+"):
            left = self.number("a number")
            if not self.at(":"):
                return left
            self.advance(number_allowed=True)
            return Pair(left, self.number("a number after ':'"))
        if self.kind == "quoted":
            return self.quoted()
        if self.kind == "end":
            self.fail("expected a value")
        return self.union()

    def number(self, expected: str) -> Number:
        if self.kind != "number":
            self.fail(f"expected {expected}")
        numerator_text, _, denominator_text = self.token.partition("/")
        numerator, denominator = float(numerator_text), float(denominator_text or 1)
        if denominator == 0:
            self.fail("division by zero")
        if not math.isfinite(numerator) or not math.isfinite(denominator):
            self.fail("this number is too large")
        if not math.isfinite(numerator / denominator) or denominator < 0:
            self.fail("a fraction needs a positive denominator of a reasonable size")
        self.advance(number_allowed=False)
        return Number(numerator, denominator)

    def quoted(self) -> Quoted:
        text = self.token[1:-1]
        character = _bad_character(text)
        if character is not None:
            self.fail(f"quotes cannot hold the character {character!r}")
        for escape in _ESCAPE.finditer(text):
            if escape[1] not in "\"'\\":
                self.fail(rf"write \\ for a backslash in quotes, not \ before {escape[1]!r}")
        text = _ESCAPE.sub(r"\1", text)
        if len(text) > MAX_QUOTED:
            self.fail(
                f"a quoted text of {len(text):,} characters; at most {MAX_QUOTED:,} are allowed"
            )
        self.advance(number_allowed=False)
        return Quoted(text)
