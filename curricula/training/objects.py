"""Objects that a caller hands over in Python in place of texts of a configuration.

Nothing here imports torch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from curricula.errors import UserError, shown
from curricula.expressions.given import GIVEN, given, is_given, split_schedules
from curricula.expressions.syntax import parse_call

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from curricula.interfaces import Objective, Schedule

SINGLE = ("model", "data", "objective", "optimizer", "lr_schedule")
"""Fields of a configuration that take one object each."""


@attrs.frozen(kw_only=True, eq=False)
class Objects:
    """Objects in place of texts of a configuration, where they are ``given(NAME)``.

    Attributes:
        model: the network, whose weights the training starts from; it is copied.
        data: a data set, or what `curricula.data.as_dataset` takes.
        schedule: schedules by label; under None, for all labels without one.
        objective: the training loss.
        optimizer: class or function that returns the optimiser of groups of parameters.
        lr_schedule: learning-rate schedule.
    """

    model: "nn.Module | None" = None
    data: Any = None
    schedule: "Mapping[str | None, Schedule]" = attrs.field(factory=dict)
    objective: "Objective | None" = None
    optimizer: "Callable[..., Optimizer] | None" = None
    lr_schedule: Any = None

    def of_baseline(self) -> "Objects":
        """Return the objects that a baseline has too, which is trained without perturbations."""
        return attrs.evolve(self, schedule={}, objective=None)

    def check_like(self, config: Any, run: Path) -> None:
        """Check that there is an object for each ``given(NAME)`` of a configuration, of the same
        name, and none for anything else.

        Args:
            config: a `curricula.training.TrainConfig`.
            run: its run folder.

        Raises:
            UserError: an object is missing, of a different name, or not expected.
        """
        expected = {name: getattr(config, name) for name in SINGLE}
        expected = {name: text for name, text in expected.items() if is_given(text)}
        found = {name: getattr(self, name) for name in SINGLE if getattr(self, name) is not None}
        labels = {
            label: text
            for label, _, text in (each.partition("=") for each in config.schedule)
            if is_given(text)
        }
        missing = [f"{name}={name_of(text)}" for name, text in expected.items()
                   if name not in found]  # fmt: skip
        if any(self.schedule_of(label) is None for label in labels):
            missing.append("schedule={" + ", ".join(f"{label!r}: ..." for label in labels) + "}")
        if missing:
            raise UserError(
                f"run {run} was trained with objects that were given in Python: give them again, "
                f"resume(RUN, {', '.join(missing)})"
            )
        more = [name for name in found if name not in expected]
        if self.schedule and not labels:
            more.append("schedule")
        if more:
            raise UserError(
                f"run {run} states its {more[0]} itself: leave out {more[0]}, or start a new run"
            )
        texts = {**expected, **labels}
        objects = {**found, **{label: self.schedule_of(label) for label in labels}}
        for name, text in texts.items():
            if given(objects[name]) != text:
                raise UserError(
                    f"run {run} was trained with {name} {text}, not {given(objects[name])}: give "
                    "the same again, or start a new run"
                )

    def schedule_of(self, label: str) -> "Schedule | None":
        """Return the schedule object of a label; None if there is none."""
        return self.schedule.get(label, self.schedule.get(None))


def split_objects(values: Mapping[str, Any]) -> tuple[dict[str, Any], Objects]:
    """Return the values of a configuration as texts and numbers, and the objects among them, which
    are ``given(NAME)`` there.

    Raises:
        UserError: an object that no field takes.
    """
    texts = {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }
    objects: dict[str, Any] = {}
    _take_curriculum(texts)
    if "schedule" in texts:
        texts["schedule"], objects["schedule"] = split_schedules(texts["schedule"])
    checks = {
        "model": (_is_module, "a torch.nn.Module"),
        "data": (lambda value: not isinstance(value, (int, float, type(None))), "data"),
        "objective": (_is_objective, "an objective: a callable with an attack_loss"),
        "optimizer": (callable, "a class or function of the parameters"),
        "lr_schedule": (callable, "a function of the progress"),
    }
    for name, (is_object, what) in checks.items():
        value = texts.get(name, "")
        if isinstance(value, str):
            continue
        if (isinstance(value, type) and name != "optimizer") or not is_object(value):
            fix = f"; write {value.__name__}(...)" if isinstance(value, type) else ""
            raise UserError(f"{name} must be text or {what}, not {shown(value)}{fix}")
        if name == "model":
            value = _uncompiled(value)
            _check_trainable(value)
        objects[name], texts[name] = value, given(value)
    return texts, Objects(**objects)


def _take_curriculum(values: dict[str, Any]) -> None:
    """Replace a curriculum or a bound expression in ``perturb`` by its text, and by its schedules
    in ``schedule``.

    Raises:
        UserError: a schedule is stated beside a curriculum, which has its own.
    """
    value = values.get("perturb")
    if value is None or isinstance(value, str):
        return
    from curricula.curriculum import Curriculum
    from curricula.expressions import factories
    from curricula.expressions.nodes import Node

    if isinstance(value, Node):
        values["perturb"] = str(value)
    elif isinstance(value, Curriculum):
        if "schedule" in values:
            raise UserError("schedule is stated twice: a Curriculum as perturb has its own")
        schedules = {}
        for label, call in value.schedule_calls.items():
            schedule = value.schedules[label]
            built = call.name != GIVEN and factories.build("schedule", call).value
            schedules[label] = str(call) if _is_alike(built, schedule) else schedule
        values["perturb"], values["schedule"] = str(value), schedules
    else:
        raise UserError(
            "perturb must be text, an expression from curricula.expressions.bind or a Curriculum, "
            f"not {shown(value)}"
        )


def _is_alike(first: Any, second: Any) -> bool:
    """Return whether two schedules are equal; functions among the fields of an attrs class, which
    a factory defines again at each call, are compared by their code."""
    if not attrs.has(type(first)) or type(first) is not type(second):
        return bool(first == second)
    names = [field.name for field in attrs.fields(type(first))]
    pairs = [(getattr(first, name), getattr(second, name)) for name in names]
    return all(
        one == other or getattr(one, "__code__", one) == getattr(other, "__code__", other)
        for one, other in pairs
    )


def _is_module(value: Any) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


def _uncompiled(model: "nn.Module") -> "nn.Module":
    from curricula.victim.copies import uncompiled

    return uncompiled(model)


def _check_trainable(model: "nn.Module") -> None:
    """Check that copies of a network can be trained.

    Raises:
        UserError: its parameters have no shapes or values yet, or are of half precision.
    """
    import torch

    from curricula.victim.model_checks import weight_problem

    name = f"model {given(model)}"
    if problem := weight_problem(model):
        raise UserError(f"{name} {problem}")
    for key, parameter in model.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise UserError(
                f"{name}: {key} is of {parameter.dtype}, too coarse for updates: give "
                "model.float(); precision (--precision) bf16 trains fast"
            )


def _is_objective(value: Any) -> bool:
    loss = getattr(value, "attack_loss", None)
    return callable(value) and (isinstance(loss, str) or callable(loss))


def name_of(text: str) -> str:
    """Return the name in an expression, that of the object for ``given(NAME)``."""
    call = parse_call(text)
    return str(call.arguments[0].value) if call.name == GIVEN and call.arguments else call.name
