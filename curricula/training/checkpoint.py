"""The last checkpoint of a training: everything that its continuation needs, bit for bit."""

import json
import os
from collections.abc import Callable, Mapping

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, le, min_len
from torch import Tensor

from curricula.curriculum import ScheduleStates
from curricula.errors import UserError, message_of, shown
from curricula.models.kept_state import aside, is_extra_state, kept, load_kept, state_tensors
from curricula.runtime.parsing import parse_json
from curricula.runtime.random_state import random_tensors, set_generator, set_random_tensors
from curricula.runtime.records import from_json, to_json
from curricula.runtime.values import check_printable
from curricula.training import metrics
from curricula.training.config import FIELDS, TrainConfig
from curricula.training.environment import providers_by_name
from curricula.training.metrics import PassCounts
from curricula.training.optimizers import tried, with_defaults
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan
from curricula.training.probe import SAME_NETWORK, check_probe, probe_of
from curricula.training.run import LAST, PREVIOUS, WRONG_SHAPE, Run, prefixed
from curricula.training.step import Networks, TrainingState
from curricula.victim.frozen import FrozenModel

MAX_ROLLBACKS = 5  # times that a training goes back to its last good checkpoint
MOVABLE = ("data_root",)  # fields that a continued training may change


@attrs.frozen(kw_only=True)
class State:
    """The values in a checkpoint that are not tensors.

    Attributes:
        step, epoch, best_joint, seconds, zero_gradient, probe_passes, rollbacks, stopped: as in
            `TrainingState`.
        total_passes: its ``passes``.
        strengths: mean strength of each leaf at the last update of the current epoch, by label;
            empty before its first.
        passes: passes of the current epoch.
        lr: learning rate of the last update.
        form: form of the attacked network, as `FrozenModel.form`.
        threads: number of threads of torch.
        config: configuration of the training.
        providers: distributions, with their versions, whose code the training runs.
        torch: version of torch.
    """

    step: int = attrs.field(validator=ge(0))
    epoch: int = attrs.field(validator=ge(0))
    best_joint: float = attrs.field(validator=[ge(-1.0), le(1.0)])
    seconds: float = attrs.field(validator=metrics.seconds)
    total_passes: int = attrs.field(validator=ge(0))
    probe_passes: int = attrs.field(validator=ge(0))
    rollbacks: int = attrs.field(validator=ge(0))
    stopped: bool
    strengths: Mapping[str, float] = attrs.field(validator=metrics.shares)
    passes: PassCounts
    lr: float = attrs.field(validator=ge(0))
    form: tuple[bool, ...] | None
    threads: int = attrs.field(validator=ge(1))
    config: TrainConfig
    providers: tuple[str, ...] = attrs.field(
        validator=[min_len(1), deep_iterable(and_(min_len(1), check_printable))]
    )
    torch: str
    zero_gradient: bool = False


@attrs.frozen(kw_only=True, eq=False)
class Checkpoint:
    """The tensors and values in a checkpoint's file.

    Attributes:
        tensors: tensors by name, on the CPU.
        state: all else.
        texts: the texts of the file, by name.
        file: name of the file.
    """

    tensors: Mapping[str, Tensor]
    state: State
    texts: Mapping[str, str]
    file: str

    def like(self, prefix: str, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors ``PREFIX.NAME`` by name, after checking that they have the same names,
        shapes and types as ``others``.

        Raises:
            ValueError: they do not; the message names the first difference.
        """
        found = self.named(prefix)
        for name in {**others, **found}:
            if name not in found or name not in others:
                raise ValueError(
                    f"{prefix}.{name} is {'missing' if name in others else 'not expected'}"
                )
            now, expected = _form(found[name]), _form(others[name])
            if now != expected and not is_extra_state(name):
                raise ValueError(f"{prefix}.{name} is {now}, not {expected}")
        return found

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors ``PREFIX.NAME`` by name."""
        begin = prefix + "."
        return {
            name.removeprefix(begin): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(begin)
        }


def _form(tensor: Tensor) -> str:
    """Return a tensor's dtype and shape in words."""
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def save_last(
    run: Run, plan: Plan, state: TrainingState, networks: Networks, passes: PassCounter
) -> None:
    """Write a training's checkpoint between two updates, and keep the older one as
    ``previous.safetensors``.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    generators = {name: generator.get_state() for name, generator in state.generators.items()}
    if state.order_began is not None:
        generators["order"] = state.order_began
    tensors = {
        **kept(state.model, "model"),
        **({} if state.average is None else kept(state.average, "average")),
        **prefixed("optimizer", _optimizer_tensors(state.optimizer)),
        **prefixed("random", generators | random_tensors(plan.device)),
        **prefixed("sums", {"loss": state.sums.loss, "correct": state.sums.correct}),
        **prefixed("schedule", _schedule_tensors(state.schedules)),
    }
    frozen = networks.victim.as_module()
    values = State(
        step=state.step,
        epoch=state.epoch,
        best_joint=state.best_joint,
        seconds=state.seconds,
        zero_gradient=state.zero_gradient,
        total_passes=state.passes,
        probe_passes=state.probe_passes,
        rollbacks=state.rollbacks,
        stopped=state.stopped,
        strengths=state.sums.means(),
        passes=passes.counts(),
        lr=state.optimizer.param_groups[0]["lr"],
        form=frozen.form if isinstance(frozen, FrozenModel) else None,
        threads=torch.get_num_threads(),
        config=plan.config,
        providers=tuple(providers_of(plan)),
        torch=torch.__version__,
    )
    probe = probe_of(state.evaluated_model, plan.data.image_shape)
    run.save(LAST, tensors, {"state": json.dumps(to_json(values)), **probe}, previous=PREVIOUS)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state tensors by name: ``PARAMETER.NAME``."""
    tensors = {}
    for parameter, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise UserError(
                    f"optimizer state {name} is {shown(value)}, which no checkpoint can hold: its "
                    "plugin must keep tensors only"
                )
            tensors[f"{parameter}.{name}"] = value
    return tensors


def _schedule_tensors(states: ScheduleStates) -> dict[str, Tensor]:
    """Return the state tensors of schedules by name: ``LABEL.NAME``."""
    return {
        f"{label}.{name}": tensor
        for label, state in states.items()
        for name, tensor in state.items()
    }


def providers_of(plan: Plan) -> list[str]:
    """Return the distributions, with their versions, whose code a training runs."""
    found = providers_by_name(attrs.asdict(plan.config))
    return sorted({str(provider) for of_kind in found.values() for provider in of_kind.values()})


def read_last(run: Run, on_message: Callable[[str], None]) -> Checkpoint | None:
    """Return a run's newest undamaged checkpoint; None if the training has saved none yet.

    Args:
        run: the run.
        on_message: receives a line if the last one is damaged and the one before it is used.

    Raises:
        UserError: both are damaged.
    """
    damage: UserError | None = None
    for file in (LAST, PREVIOUS):
        if not run.holds(file):
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
    """Return the checkpoint in the run's file of this name.

    Raises:
        UserError: it is missing, damaged, or of another version of curricula.
    """
    tensors, texts = run.load(file)
    try:
        state = from_json(State, parse_json(texts["state"]))
    except WRONG_SHAPE as error:
        raise UserError(
            f"checkpoint {run.path / file}: damaged, or written by another version of curricula "
            f"(state: {message_of(error)}); train again"
        ) from error
    return Checkpoint(tensors=tensors, state=state, texts=texts, file=file)


def check_same_training(run: Run, plan: Plan, checkpoint: Checkpoint) -> None:
    """Check that a training's configuration and plugins are those of its checkpoint.

    Raises:
        UserError: the first difference.
    """
    trained = with_defaults(checkpoint.state.config)
    for name in FIELDS:
        before, now = getattr(trained, name), getattr(plan.config, name)
        if name not in MOVABLE and now != before:
            raise UserError(
                f"{run.path / 'config.toml'} was edited after the training began ({name} was "
                f"{shown(before)}, now {shown(now)}): restore it, or start a new run with --config"
            )
    known = checkpoint.state.providers
    for provider in providers_of(plan):
        if provider not in known:
            raise UserError(
                f"run {run.path} was trained with {', '.join(known)}, not with {provider}: install "
                "that version from its source, or start a new run with --config"
            )


def restore(
    plan: Plan,
    state: TrainingState,
    networks: Networks,
    passes: PassCounter,
    checkpoint: Checkpoint,
    run: Run,
) -> None:
    """Set a training's state, networks and pass counts to those in a checkpoint of the same plan.

    Raises:
        UserError: the checkpoint does not fit the plan.
    """
    try:
        _check_progress(plan, checkpoint.state)
        _restore_tensors(plan, state, checkpoint)
        stored = checkpoint.state
        state.sums.strengths = stored.strengths
        state.step, state.epoch = stored.step, stored.epoch
        state.best_joint, state.seconds = stored.best_joint, stored.seconds
        state.zero_gradient = stored.zero_gradient
        state.optimizer.param_groups[0]["lr"] = stored.lr  # reported; updates set all of them
        state.passes, state.probe_passes = stored.total_passes, stored.probe_passes
        state.rollbacks, state.stopped = stored.rollbacks, stored.stopped
        state.order_began = None
        passes.set(stored.passes)
        frozen = networks.victim.as_module()
        if stored.form is not None and isinstance(frozen, FrozenModel):
            earlier = (True,) if len(stored.form) == 2 else ()  # once all copies shared tensors
            frozen.use_form((*stored.form, *earlier))
        # More threads than this machine has processors could exhaust it.
        most = max(os.cpu_count() or 1, torch.get_num_threads())
        torch.set_num_threads(min(stored.threads, most))
    except (RuntimeError, *WRONG_SHAPE) as error:
        raise UserError(
            f"checkpoint {run.path / checkpoint.file}: not of this training "
            f"({message_of(error)}); train again"
        ) from error
    check_probe(
        checkpoint.texts,
        state.evaluated_model,
        plan.data.image_shape,
        source=f"checkpoint {run.path / checkpoint.file}",
        fix=SAME_NETWORK,
    )


def _check_progress(plan: Plan, stored: State) -> None:
    """Check that a checkpoint's update, epoch, stop and rollbacks are possible in a plan.

    Raises:
        ValueError: one is not.
    """
    config = plan.config
    if stored.stopped and not config.stop_after and config.on_collapse != "stop":
        raise ValueError("stopped, without stop_after and without on_collapse = stop")
    most = MAX_ROLLBACKS if config.on_collapse == "rollback" else 0
    if stored.rollbacks > most:
        raise ValueError(f"{stored.rollbacks:,} rollbacks, of at most {most}")
    in_epoch = stored.step - stored.epoch * plan.steps_per_epoch
    if not 0 <= in_epoch <= plan.steps_per_epoch or stored.step > plan.total_steps:
        raise ValueError(
            f"update {stored.step} of {plan.total_steps}, after {stored.epoch} epochs of "
            f"{plan.steps_per_epoch} updates"
        )
    labels = plan.curriculum.schedules.keys() if in_epoch else set()
    if stored.strengths.keys() != labels:
        raise ValueError(
            f"strengths of {', '.join(stored.strengths) or 'nothing'}, not of "
            f"{', '.join(labels) or 'nothing'}"
        )


def _restore_tensors(plan: Plan, state: TrainingState, checkpoint: Checkpoint) -> None:
    """Set a state's tensors, and all random states, to those in a checkpoint of the same plan.

    Raises:
        ValueError: the checkpoint's tensors do not fit.
    """
    like, stored = checkpoint.like, checkpoint.state
    model = like("model", state_tensors(state.model))
    load_kept(state.model, model, aside(checkpoint.tensors, "model"))
    average = {} if state.average is None else state_tensors(state.average)
    found = like("average", average)
    if state.average is not None:
        if not 0 <= int(found["n_averaged"]) <= plan.total_steps:
            raise ValueError("average.n_averaged is out of range")
        load_kept(state.average, found, aside(checkpoint.tensors, "average"))
    _restore_optimizer(plan, state.optimizer, checkpoint)
    schedules = like("schedule", _schedule_tensors(state.schedules))
    state.schedules = {
        label: {name: schedules[f"{label}.{name}"].to(plan.device) for name in of_label}
        for label, of_label in state.schedules.items()
    }
    sums = like("sums", {"loss": state.sums.loss, "correct": state.sums.correct})
    images = (stored.step - stored.epoch * plan.steps_per_epoch) * plan.config.batch_size
    if not 0 <= int(sums["correct"]) <= images:
        raise ValueError("sums.correct is out of range")
    state.sums.loss.copy_(sums["loss"])
    state.sums.correct.copy_(sums["correct"])
    random = checkpoint.named("random")
    for name, generator in state.generators.items():
        set_generator(generator, random[name])
    set_random_tensors(random, plan.device)


def _restore_optimizer(
    plan: Plan, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint
) -> None:
    """Set the state of an optimiser to the one in a checkpoint.

    The names, shapes and types of its tensors are those that the optimiser makes in its first
    updates; tensors that it may make later are single numbers or have the parameter's form.

    Raises:
        ValueError: the checkpoint's tensors do not fit.
    """
    stored = checkpoint.named("optimizer")
    like = (
        tried(plan.config, optimizer.param_groups, plan.objects.optimizer) if stored else optimizer
    )
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    made = [like.state[each] for group in like.param_groups for each in group["params"]]
    numbers = {int(key.partition(".")[0]) for key in stored}
    if not numbers <= set(range(len(parameters))):
        raise ValueError("optimizer has more parameters than the model")
    later = {
        key: parameters[int(key.partition(".")[0])] if tensor.ndim else tensor
        for key, tensor in stored.items()
    }
    first = {f"{number}.{name}": each for number in numbers for name, each in made[number].items()}
    expected = {**later, **first}
    found: dict[int, dict[str, Tensor]] = {number: {} for number in numbers}
    for key, tensor in checkpoint.like("optimizer", expected).items():
        number_text, _, name = key.partition(".")
        if name == "step" and not 1 <= float(tensor) <= checkpoint.state.step:
            raise ValueError(f"optimizer.{key} is out of range")
        found[int(number_text)][name] = tensor.to(expected[key].device)
    optimizer.state.clear()
    for number, of_number in found.items():
        optimizer.state[parameters[number]] = of_number
