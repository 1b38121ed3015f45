"""The contract between curricula and its plugins: ten hooks, each yielding frozen records.

A plugin is a module (or any object) whose functions are marked with ``hookimpl``. curricula finds
it through the entry-point group ``curricula``, or in a file named by ``--plugin FILE``. A record
names its factory by a dotted string that is imported on first use, so a plugin module can stay
free of torch. A complete one::

    from curricula.plugins.hookspecs import Record, hookimpl


    @hookimpl
    def curricula_perturbations():
        yield Record(name="haze", factory="my_package.haze:Haze", summary="white veil")

The other hooks have the same form.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import attrs
import pluggy

from curricula.plugins.names import NAME_PATTERN

PROJECT = "curricula"

Kind = Literal[
    "perturbation",
    "model",
    "schedule",
    "objective",
    "optimizer",
    "lr_schedule",
    "dataset",
    "callback",
    "suite",
    "command",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@attrs.frozen(kw_only=True)
class Record:
    """One name that a plugin registers, with its factory; the hook that yields it determines its
    kind.

    Attributes:
        name: what a user writes, for example ``rot`` or ``wrn``; letters, digits, ``-`` and ``_``.
        factory: ``"package.module:attribute"``, imported on first use, or the callable itself
            (in a loose plugin file).
        summary: one line for listings.
        install: the command to suggest when the factory cannot be imported, for example
            ``"pip install my-package"``.
        choices: ``"package.module:function"``, which returns the names that the first argument of
            the factory takes, without importing a large library: an unknown name among them is
            suggested as ``NAME(CHOICE)``.

    Raises:
        ValueError: a name with other characters.

    >>> Record(name="haze", factory="my_package.haze:Haze", summary="white veil").name
    'haze'
    """

    name: str = attrs.field()
    factory: str | Callable[..., Any]
    summary: str
    install: str = ""
    choices: str = ""

    @name.validator
    def _check_name(self, attribute: object, name: str) -> None:
        if not re.fullmatch(NAME_PATTERN, str(name)):
            raise ValueError(
                f"name must be made of letters, digits, - and _, with a letter first, not {name!r}"
            )


@hookspec
def curricula_perturbations() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each perturbation, whose factory takes the arguments of the call,
    ``budget`` first.

    Example: ``Record(name="haze", factory="my_package.haze:Haze", summary="white veil")``.
    """


@hookspec
def curricula_models() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each model, whose factory takes ``num_classes``, ``in_channels``,
    ``image_size`` and the arguments of the call.

    Example: ``Record(name="mlp", factory="my_package.models:mlp", summary="two layers")``.
    """


@hookspec
def curricula_schedules() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each schedule, whose factory takes the arguments of the call and returns a
    function of ``(progress, state)``.

    Example: ``Record(name="saw", factory="my_package.schedules:saw", summary="saw teeth")``.
    """


@hookspec
def curricula_objectives() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each objective, whose factory takes the arguments of the call and returns
    the loss.

    Example: ``Record(name="mix", factory="my_package.losses:Mix", summary="clean and perturbed")``.
    """


@hookspec
def curricula_optimizers() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each optimiser, whose factory takes ``params`` and ``lr``, if it has them
    ``weight_decay`` and ``momentum``, and the arguments of the call.

    Example: ``Record(name="lion", factory="my_package.lion:Lion", summary="signed momentum")``.
    """


@hookspec
def curricula_lr_schedules() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each learning-rate schedule, whose factory takes the arguments of the call
    and returns a function of ``progress``.

    Example: ``Record(name="poly", factory="my_package.rates:poly", summary="a power")``.
    """


@hookspec
def curricula_datasets() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each data set, whose factory takes ``root``, ``download`` and the
    arguments of the call.

    Example: ``Record(name="usps", factory="my_package.data:usps", summary="16x16 digits")``.
    """


@hookspec
def curricula_callbacks() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each callback, whose factory takes the arguments of the call and returns
    an object that receives the events of a training.

    Example: ``Record(name="beep", factory="my_package.sound:Beep", summary="beeps at the end")``.
    """


@hookspec
def curricula_suites() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each suite of threats, whose factory takes ``budgets``, ``in_channels``
    and ``curriculum`` if it has them, and the arguments of the call, and returns expressions by
    name.

    Example: ``Record(name="mild", factory="my_package.suites:mild", summary="small changes")``.
    """


@hookspec
def curricula_commands() -> Iterable[Record]:  # type: ignore[empty-body]
    """Yield a record for each command of the ``curricula`` program, whose factory is a
    ``click.Command``.

    Example: ``Record(name="hello", factory="my_package.cli:hello", summary="greet")``.
    """
