"""The contract between curricula and its plugins: six hooks, each yielding frozen records.

A plugin is a module (or any object) whose functions are marked with ``hookimpl``. It is found
through the entry-point group ``curricula``, or named on the command line by ``--plugin FILE``.
Nothing here imports torch: a record names its factory by a dotted string, imported on first use.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import attrs
import pluggy

from curricula.plugins.names import NAME_PATTERN

PROJECT = "curricula"

Kind = Literal["perturbation", "model", "schedule", "objective", "dataset", "command"]
KINDS: tuple[Kind, ...] = get_args(Kind)

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@attrs.frozen(kw_only=True)
class Record:
    """One thing that a plugin offers, of whatever kind its hook is for.

    Attributes:
        name: what a user writes, for example ``rot`` or ``wrn``; letters, digits, ``-`` and ``_``.
        factory: ``"package.module:attribute"``, imported on first use; a plugin in a loose file
            gives the callable itself.
        summary: one line for listings.
        install: what to run when importing the factory fails, for example
            ``"pip install curricula[escnn]"``.
    """

    name: str = attrs.field(validator=attrs.validators.matches_re(NAME_PATTERN, func=re.fullmatch))
    factory: str | Callable[..., Any]
    summary: str
    install: str = ""


@hookspec
def curricula_perturbations() -> Iterable[Record]:  # type: ignore[empty-body]
    """Perturbations: the factory takes the leaf's keywords, ``budget`` first.

    Example::

        @hookimpl
        def curricula_perturbations():
            yield Record(name="fog", factory="my_package.fog:Fog", summary="white veil")
    """


@hookspec
def curricula_models() -> Iterable[Record]:  # type: ignore[empty-body]
    """Models: the factory takes ``num_classes``, ``in_channels``, ``image_size`` and its keywords.

    Example::

        @hookimpl
        def curricula_models():
            yield Record(name="mlp", factory="my_package.models:mlp", summary="two layers")
    """


@hookspec
def curricula_schedules() -> Iterable[Record]:  # type: ignore[empty-body]
    """Schedules: the factory takes its keywords and returns a function of progress.

    Example::

        @hookimpl
        def curricula_schedules():
            yield Record(name="sawtooth", factory="my_package.pacing:sawtooth", summary="teeth")
    """


@hookspec
def curricula_objectives() -> Iterable[Record]:  # type: ignore[empty-body]
    """Objectives: the factory takes its keywords and returns the training loss.

    Example::

        @hookimpl
        def curricula_objectives():
            yield Record(name="mix", factory="my_package.losses:Mix", summary="clean and perturbed")
    """


@hookspec
def curricula_datasets() -> Iterable[Record]:  # type: ignore[empty-body]
    """Data sets: the factory takes ``root``, ``download`` and its keywords.

    Example::

        @hookimpl
        def curricula_datasets():
            yield Record(name="usps", factory="my_package.data:usps", summary="16x16 digits")
    """


@hookspec
def curricula_commands() -> Iterable[Record]:  # type: ignore[empty-body]
    """Commands of the ``curricula`` program: the factory is a ``click.Command``.

    Example::

        @hookimpl
        def curricula_commands():
            yield Record(name="hello", factory="my_package.cli:hello", summary="greets")
    """
