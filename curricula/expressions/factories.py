"""Build the object that a call such as ``wrn(depth=28)`` names, and write out every default of the
call."""

import contextlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from curricula.errors import UserError, did_you_mean, message_of, shortened
from curricula.expressions.given import GIVEN
from curricula.expressions.syntax import (
    MAX_NAME,
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Pair,
    Quoted,
    Union,
    Value,
    error_in,
    quotable,
)
from curricula.plugins import registry
from curricula.plugins.hookspecs import Kind
from curricula.plugins.names import NAME_PATTERN

EXPRESSIONS = typing.get_args(Expression)
"""Types of an argument that is itself an expression, such as the network of ``randomised``."""


@attrs.frozen(kw_only=True)
class Built:
    """An object built from a call such as ``wrn(depth=28)``, and the call with every default
    written out.

    Attributes:
        value: the object.
        call: the call with all defaults explicit; building it again gives the same.
    """

    value: Any
    call: Call


def build(
    kind: Kind,
    call: Call,
    *,
    supplied: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Value] | None = None,
) -> Built:
    """Return the object that the registered factory builds from a call, and the call with every
    default written out.

    Positional arguments fill the factory's parameters in order; ``NUMBER:NUMBER`` arguments go to
    its ``*parameters``.

    Args:
        kind: kind of the named object.
        call: the call as parsed.
        supplied: keywords that the core gives (such as a model's ``num_classes``); a user cannot.
        defaults: values of parameters that the call leaves out; names that the factory does not
            have are ignored.

    Raises:
        UnknownNameError: no plugin registered the name.
        UserError: an argument is unknown, missing, of the wrong type or out of range.

    Example:
        >>> from curricula.expressions.syntax import parse_call
        >>> built = build("schedule", parse_call("linear(until=0.5)"))
        >>> print(built.call)
        linear(start=0, until=0.5)
    """
    if call.name == GIVEN:
        raise UserError(
            f"{kind} {call} was given in Python, and a configuration cannot build it: give the "
            "object again, in Python"
        )
    factory = registry.current().find(kind, call.name).load()
    if from_call := getattr(factory, "from_call", None):  # it reads its arguments itself
        built: Built = from_call(call, supplied=supplied or {})
        return built
    return call_factory(factory, kind, call, supplied=supplied, defaults=defaults)


def call_factory(
    factory: Callable[..., Any],
    kind: str,
    call: Call,
    *,
    supplied: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Value] | None = None,
) -> Built:
    """Return the object that a given factory builds from a call, and the call with every default
    written out.

    Args:
        factory: the factory to call.
        kind: name of the kind of object, for messages.
        call: as in `build`.
        supplied: as in `build`.
        defaults: as in `build`.

    Raises:
        UserError: as in `build`.
    """
    supplied = supplied or {}
    parameters = {
        name: parameter
        for name, parameter in _parameters(factory, kind, call.name).items()
        if name not in supplied and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    given = _match(kind, call, parameters, takes_any=_takes_any(factory))
    for name, value in (defaults or {}).items():
        if name in parameters:
            given.setdefault(name, value)
    hints = _type_hints(factory)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, written in given.items():
        if isinstance(written, list):
            positional = [_convert(call, name, value, hints.get(name)) for value in written]
        else:
            keywords[name] = _convert(call, name, written, hints.get(name))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty
        if required and name not in keywords and parameter.kind is not parameter.VAR_POSITIONAL:
            raise error_in(call, f"{name} is missing; write {call.name}({name}=...)")
    try:
        value = factory(*positional, **keywords, **supplied)
    except UserError:
        raise
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise error_in(call, f"{message_of(error)}") from error
    return Built(value=value, call=_explicit(call, parameters, hints, given, value))


def requires(kind: Kind, name: str, parameter: str) -> bool:
    """Return whether the registered factory of a name has a parameter ``parameter`` without a
    default."""
    found = parameters_of(kind, name).get(parameter)
    return found is not None and found.default is found.empty


def parameters_of(kind: Kind, name: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of the registered factory of a name, by name.

    Raises:
        UserError: no plugin registered the name, or the parameters cannot be read.
    """
    return _parameters(registry.current().find(kind, name).load(), kind, name)


def _parameters(
    factory: Callable[..., Any], kind: str, name: str
) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a registered factory, by name.

    Raises:
        UserError: they cannot be read.
    """
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{kind} {name!r}: the parameters of its factory cannot be read ({message_of(error)}); "
            "its plugin must register a Python function or class"
        ) from error


def _takes_any(factory: Callable[..., Any]) -> bool:
    """Return whether a factory takes ``**keywords``."""
    parameters = inspect.signature(factory).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _match(
    kind: str, call: Call, parameters: Mapping[str, inspect.Parameter], *, takes_any: bool
) -> dict[str, Value | list[Value]]:
    """Return the call's arguments by the name of the factory's parameter; those of ``*parameters``
    are a list, those of ``**keywords`` have their own names."""
    allowed = f"{kind} {call.name!r} takes {', '.join(parameters) or 'no arguments'}"
    keywords = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL
    ]
    given: dict[str, Value | list[Value]] = {}
    order = iter(parameters.items())
    for argument in call.arguments:
        if argument.key is not None:
            if argument.key not in keywords and not takes_any:
                similar = did_you_mean(argument.key, keywords, otherwise="")
                fix = f"{allowed}; {similar}" if similar else allowed
                raise error_in(call, f"unknown argument {argument.key!r}; {fix}")
            if argument.key in given:
                raise error_in(call, f"{argument.key} is given twice")
            given[argument.key] = argument.value
            continue
        name, parameter = next(order, (None, None))
        if name is None or parameter is None:
            raise error_in(call, f"too many arguments; {allowed}")
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            many = given.setdefault(name, [])
            assert isinstance(many, list)
            many.append(argument.value)
            order = iter([(name, parameter)])
        else:
            given[name] = argument.value
    return given


def _type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the type annotations of a factory's parameters, by name, or an empty dict if they
    cannot be resolved."""
    target = factory if isinstance(factory, type) or inspect.isroutine(factory) else type(factory)
    hints: dict[str, Any] = {}
    if isinstance(target, type) and not attrs.has(target):
        target = target.__init__  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):
        return {}  # third-party factories need no annotations
    return hints


def _untyped(value: Value) -> Any:
    """Return a written value such as ``8/255`` as a Python value, without knowing the expected
    type."""
    match value:
        case Number():
            number = value.value
            return int(number) if value.denominator == 1 and number.is_integer() else number
        case Pair(left, right):
            return (left.value, right.value)
        case Call(name, ()):
            return {"true": True, "false": False, "none": None}.get(name, name)
        case Quoted(text):
            return text
    return value


def _convert(call: Call, name: str, written: Value, hint: Any) -> Any:
    """Return an argument as a Python value of the type in the factory's annotation, or raise a
    UserError if it does not fit."""
    value = _untyped(written)
    word = None
    if isinstance(written, Call) and not written.arguments and "/" not in written.name:
        word = written.name
    text = written.text if isinstance(written, Quoted) else word
    if hint is None or hint is Any:
        return value
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if value is None and types.NoneType in options:
        return None
    for option in options:
        if typing.get_origin(option) is Literal:
            if text in typing.get_args(option):
                return text
            if text is None and value in typing.get_args(option):
                return value
        elif option is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return float(value)
        elif option is tuple or typing.get_origin(option) is tuple:
            if isinstance(value, tuple):
                return value
        elif option in (str, Path):
            if text is not None:
                return option(text)
        elif option in EXPRESSIONS:
            if isinstance(written, option):
                return written
        elif isinstance(option, type):
            if type(value) is option:
                return value
        else:
            return value
    raise error_in(call, f"{name} must be {_described(options)}, not {shortened(written)}")


def _is_union(hint: Any) -> bool:
    """Return whether a type annotation is ``A | B`` or ``Optional[A]``."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _described(options: tuple[Any, ...]) -> str:
    """Return the types and choices that an annotation allows as words for an error message."""
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a name or a text in quotes",
        Path: "a path in quotes",
        tuple: "a pair NUMBER:NUMBER",
        types.NoneType: "none",
        **dict.fromkeys(EXPRESSIONS, "an expression"),
    }
    described: list[str] = []
    for option in options:
        if typing.get_origin(option) is Literal:
            described.extend(str(choice) for choice in typing.get_args(option))
        else:
            described.append(words.get(typing.get_origin(option) or option, str(option)))
    return " or ".join(dict.fromkeys(described))


def _explicit(
    call: Call,
    parameters: Mapping[str, inspect.Parameter],
    hints: Mapping[str, Any],
    given: Mapping[str, Value | list[Value]],
    built: Any,
) -> Call:
    """Return the call with a value for every parameter: the written one, the built object's
    attribute, or the signature's default. A default that cannot be written, such as None, is left
    out."""
    arguments: list[Argument] = []
    for name, parameter in parameters.items():
        written = given.get(name)
        if isinstance(written, list):
            arguments.extend(Argument(value) for value in written)
            continue
        if written is None:
            if parameter.kind is parameter.VAR_POSITIONAL:
                stages = getattr(built, name, ())
                if stages and all(isinstance(stage, tuple) for stage in stages):
                    # The object knows its stages even if they were given as a shorthand.
                    return Call(call.name, tuple(Argument(_pair(stage)) for stage in stages))
                continue
            written = _written(call, name, getattr(built, name, parameter.default), hints.get(name))
        elif isinstance(written, EXPRESSIONS) and isinstance(getattr(built, name, 0), EXPRESSIONS):
            written = getattr(built, name)  # with all its defaults explicit
        elif isinstance(written, Quoted):
            text = _convert(call, name, written, hints.get(name))
            written = _written(call, name, text, hints.get(name)) or written
        if written is None:
            continue
        arguments.append(Argument(written, None if name == "budget" and not arguments else name))
    more = [name for name in given if name not in parameters]
    arguments += [
        Argument(value, name) for name in more if not isinstance(value := given[name], list)
    ]
    return Call(call.name, tuple(arguments))


def _pair(stage: tuple[float, float]) -> Pair:
    return Pair(Number.of(float(stage[0])), Number.of(float(stage[1])))


def _written(call: Call, name: str, value: Any, hint: Any) -> Value | None:
    """Return a Python value as it is written in an expression for a parameter of this annotation,
    or None if it cannot be written there."""
    match value:
        case bool():
            return Call("true" if value else "false")
        case int() | float() if math.isfinite(value):
            return Number.of(float(value))
        case str() | Path():
            return _written_text(call, name, value, hint)
        case Call() | Chain() | Union():
            return value
    return None


def _written_text(call: Call, name: str, value: str | Path, hint: Any) -> Value | None:
    """Return a text as a bare name if that converts to this text again (``none`` may not), else in
    quotes if that does, else None."""
    text = str(value)
    forms: list[Value] = []
    if len(text) <= MAX_NAME and re.fullmatch(NAME_PATTERN, text):
        forms.append(Call(text))
    if quotable(text):
        forms.append(Quoted(text))
    for form in forms:
        with contextlib.suppress(UserError):
            if _convert(call, name, form, hint) == value:
                return form
    return None
