"""The last checkpoint of a training: everything that its continuation needs, bit for bit."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from curricula.errors import UserError
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.plugins.hookspecs import Kind
from curricula.runtime.random_state import random_tensors, set_random_tensors
from curricula.training.config import FIELDS
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan
from curricula.training.run import LAST, PREVIOUS, WRONG_SHAPE, Run, prefixed
from curricula.training.step import Networks, TrainingState
from curricula.victim.frozen import FrozenModel

MOVABLE = ("data_root",)  # fields that a continued training may change


@attrs.frozen(kw_only=True, eq=False)
class Checkpoint:
    """The contents of a checkpoint's file.

    Attributes:
        tensors: tensors by name, on the CPU.
        values: other values, as JSON holds them.
        file: name of the file.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    file: str


def save_last(
    run: Run, plan: Plan, state: TrainingState, networks: Networks, passes: PassCounter
) -> None:
    """Write the last checkpoint of a training between two updates; the one before it stays as
    ``previous.safetensors``.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    optimizer = state.optimizer.state_dict()
    average = {} if state.average is None else state.average.state_dict()
    generators = {name: generator.get_state() for name, generator in state.generators.items()}
    if state.order_began is not None:
        generators["order"] = state.order_began
    tensors = {
        **prefixed("model", state.model.state_dict()),
        **prefixed("average", average),
        **prefixed("optimizer", _optimizer_tensors(optimizer["state"])),
        **prefixed("random", generators | random_tensors(plan.device)),
        **prefixed("sums", {"loss": state.sums.loss, "correct": state.sums.correct}),
    }
    for label, of_label in state.schedules.items():
        tensors |= prefixed(f"schedule.{label}", of_label)
    frozen = networks.victim.as_module()
    values = {
        "step": state.step,
        "epoch": state.epoch,
        "best_joint": state.best_joint,
        "seconds": state.seconds,
        "total_passes": state.passes,
        "probe_passes": state.probe_passes,
        "rollbacks": state.rollbacks,
        "stopped": state.stopped,
        "strengths": state.sums.means(),
        "passes": passes.counts(),
        "schedules": {label: list(of_label) for label, of_label in state.schedules.items()},
        "optimizer": optimizer["param_groups"],
        "form": frozen.form if isinstance(frozen, FrozenModel) else None,
        "threads": torch.get_num_threads(),
        "config": attrs.asdict(plan.config),
        "providers": providers_of(plan),
        "torch": torch.__version__,
    }
    run.save(LAST, tensors, {"state": json.dumps(values)}, previous=PREVIOUS)


def _optimizer_tensors(state: Mapping[int, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return an optimiser's tensors by name: ``PARAMETER.NAME``."""
    tensors = {}
    for parameter, values in state.items():
        for name, value in values.items():
            assert isinstance(value, Tensor), f"optimiser state {name} is not a tensor"
            tensors[f"{parameter}.{name}"] = value
    return tensors


def providers_of(plan: Plan) -> list[str]:
    """Return the distributions, with their versions, whose code a training runs."""
    config = plan.config
    names: list[tuple[Kind, str]] = [
        ("dataset", parse_call(config.data).name),
        ("model", parse_call(config.model).name),
        ("objective", parse_call(config.objective).name),
    ]
    for curriculum in (plan.curriculum, plan.augmentation):
        names += [("perturbation", leaf.call.name) for leaf in curriculum.tree.leaves.values()]
        names += [("schedule", call.name) for call in curriculum.schedule_calls.values()]
    known = registry.current()
    return sorted({str(known.find(kind, name).provider) for kind, name in names})


def read_last(run: Run, on_message: Callable[[str], None]) -> Checkpoint | None:
    """Return the last checkpoint of a run that is whole; None if the training saved none yet.

    Args:
        run: the run.
        on_message: receives a line if the last one is damaged and the one before it is used.

    Raises:
        UserError: both are damaged.
    """
    damage: UserError | None = None
    for file in (LAST, PREVIOUS):
        if not (run.path / file).exists():
            continue
        try:
            found = read_checkpoint(run, file)
        except UserError as error:
            damage = damage or error
            continue
        if damage is not None:
            on_message(f"{damage}; continuing from {file}")
        return found
    if damage is not None:
        raise damage
    return None


def read_checkpoint(run: Run, file: str) -> Checkpoint:
    """Return the checkpoint in one of the run's files.

    Raises:
        UserError: it is missing, damaged, or of another version of curricula.
    """
    tensors, texts = run.load(file)
    try:
        values = json.loads(texts["state"])
        assert isinstance(values, dict)
    except (*WRONG_SHAPE, AssertionError) as error:
        raise UserError(
            f"checkpoint {run.path / file}: written by another version of curricula, which cannot "
            "be continued; train again"
        ) from error
    return Checkpoint(tensors=tensors, values=values, file=file)


def check_same_training(run: Run, plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuse to continue a training whose configuration or plugins have changed.

    Raises:
        UserError: the first difference.
    """
    before = checkpoint.values["config"]
    for name in FIELDS:
        now = json.loads(json.dumps(getattr(plan.config, name)))
        if name not in MOVABLE and now != before.get(name):
            raise UserError(
                f"{run.path / 'config.toml'} was edited after the training began ({name} was "
                f"{before.get(name)!r}, now {now!r}): restore it, or start a new run with --config"
            )
    known = checkpoint.values["providers"]
    for provider in providers_of(plan):
        if provider not in known:
            raise UserError(
                f"run {run.path} was trained with {', '.join(known)}, not with {provider}: install "
                "that version, or start a new run with --config"
            )


def restore(
    plan: Plan,
    state: TrainingState,
    networks: Networks,
    passes: PassCounter,
    checkpoint: Checkpoint,
    run: Run,
) -> None:
    """Change a state, just started from the same plan, into that of a checkpoint.

    Raises:
        UserError: the checkpoint does not fit the plan.
    """
    tensors, values = checkpoint.tensors, checkpoint.values

    def of(prefix: str) -> dict[str, Tensor]:
        begin = prefix + "."
        return {
            name.removeprefix(begin): tensor
            for name, tensor in tensors.items()
            if name.startswith(begin)
        }

    try:
        state.model.load_state_dict(of("model"))
        if state.average is not None:
            state.average.load_state_dict(of("average"))
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in of("optimizer").items():
            parameter, _, key = name.partition(".")
            optimizer.setdefault(int(parameter), {})[key] = tensor
        state.optimizer.load_state_dict({"state": optimizer, "param_groups": values["optimizer"]})
        random = of("random")
        for name, generator in state.generators.items():
            generator.set_state(random[name])
        state.schedules = {
            label: {name: tensors[f"schedule.{label}.{name}"].to(plan.device) for name in names}
            for label, names in values["schedules"].items()
        }
        sums = of("sums")
        state.sums.loss.copy_(sums["loss"])
        state.sums.correct.copy_(sums["correct"])
        state.sums.strengths = values["strengths"]
        state.step, state.epoch = values["step"], values["epoch"]
        state.best_joint, state.seconds = values["best_joint"], values["seconds"]
        state.passes, state.probe_passes = values["total_passes"], values["probe_passes"]
        state.rollbacks, state.stopped = values["rollbacks"], values["stopped"]
        state.order_began = None
        passes.set(values["passes"])
        frozen = networks.victim.as_module()
        if values["form"] is not None and isinstance(frozen, FrozenModel):
            frozen.use_form(tuple(values["form"]))
        torch.set_num_threads(values["threads"])
        set_random_tensors(random, plan.device)
    except (RuntimeError, *WRONG_SHAPE) as error:
        raise UserError(
            f"checkpoint {run.path / checkpoint.file}: not of this training "
            f"({type(error).__name__}: {' '.join(str(error).split())}); train again"
        ) from error
