"""Curricula and threats: perturbations whose strengths come from schedules, or are fixed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from curricula.errors import UserError, message_of, shown
from curricula.expressions import factories
from curricula.expressions.batch_rows import BatchRows
from curricula.expressions.binding import bind
from curricula.expressions.checks import listed, parse_schedule, schedules_by_label
from curricula.expressions.given import GIVEN, split_schedules
from curricula.expressions.nodes import Context, Node
from curricula.expressions.random_streams import Streams
from curricula.expressions.syntax import Call
from curricula.interfaces import (
    AdaptiveSchedule,
    Feedback,
    Progress,
    Schedule,
    ScheduleState,
    Strength,
    Victim,
    Views,
)
from curricula.runtime.modes import as_ordinary, ordinary_mode
from curricula.runtime.tables import html_table, html_values
from curricula.runtime.values import check_number, check_whole, described, known_keywords

ROUNDING = 1e-3  # pixel value; interpolation may leave [0, 1] by rounding
VICTIM_METHODS = ("logits", "gradient", "with_reference", "subset", "active", "as_module")


@attrs.frozen(kw_only=True, repr=False)
class Threat:
    """Perturbations, in an expression such as ``rot:30+pgd``, at one fixed strength, to evaluate a
    model under.

    Attributes:
        tree: the bound expression.
        strength: strength of all leaves, in [0, 1].

    Raises:
        UserError: a strength outside [0, 1].
    """

    tree: Node = attrs.field()
    strength: float = attrs.field(default=1.0)
    _checked: set[str] = attrs.field(factory=set, init=False, eq=False, repr=False)

    @tree.validator
    def _check_tree(self, attribute: object, tree: Any) -> None:
        if not isinstance(tree, Node):
            raise UserError(
                f"tree must be a bound expression, as of Threat.parse, not {shown(tree)}"
            )

    @strength.validator
    def _check_strength(self, attribute: object, strength: float) -> None:
        check_number("strength", strength, 0, 1)

    @classmethod
    @known_keywords()
    def parse(
        cls, text: str, *, budgets: Mapping[str, str] | None = None, strength: float = 1.0
    ) -> "Threat":
        """Return the threat that an expression such as ``rot:30+pgd`` describes, with all its
        perturbations at one strength.

        Args:
            text: an expression such as ``rot:30+pgd(8/255, steps=40)``; ``clean`` changes nothing.
            budgets: as in `bind`.
            strength: strength of all leaves, in [0, 1].

        Raises:
            UserError: as in `bind`; a strength outside [0, 1].

        Example:
            >>> from curricula import Threat
            >>> print(Threat.parse("rot", budgets={"degrees": "30"}))
            rot(30, interpolation=bilinear, padding=zeros)
        """
        return cls(tree=bind(text, budgets=budgets, threat=True), strength=strength)

    def __str__(self) -> str:
        return str(self.tree)

    def __repr__(self) -> str:
        strength = "" if self.strength == 1 else f", strength={self.strength}"
        return f"Threat.parse({str(self.tree)!r}{strength})"

    def _repr_html_(self) -> str:
        values = {"expression": self.tree, "strength": self.strength}
        return html_values("Threat", values)

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
        streams: Streams | None = None,
    ) -> Tensor:
        """Return the perturbed images, NCHW in [0, 1], detached, in the images' dtype.

        Args:
            x_NCHW: the images, in [0, 1], of any floating-point type and memory format; the
                arithmetic is float32 whatever the caller's autocast or default dtype.
            y_N: their labels.
            victim: the model; with ``early_stop=True`` attacks stop on images that are fooled.
            generator: source of random draws, on the images' device.
            streams: random stream of each image; by default new ones, seeded by the generator.

        Raises:
            UserError: an argument of another type, shape or device; images outside [0, 1] or NaN,
                looked for in each batch on a CPU and in the first one elsewhere; on a CPU, a label
                beyond the model's classes.
        """
        _check_batch(x_NCHW, y_N, victim, generator)
        _check_values(x_NCHW, self._checked)
        context = Context(
            y_N=y_N,
            strengths=dict.fromkeys(self.tree.leaves, self.strength),
            victim=victim,
            generator=generator,
            threat=True,
            streams=streams or Streams.drawn(len(x_NCHW), generator),
        )
        return _run(self.tree, x_NCHW, context).perturbed


def _check_batch(x_NCHW: Any, y_N: Any, victim: Any, generator: Any) -> None:
    """Check the types, shapes and devices that the calls of a curriculum and of a threat share.

    Raises:
        UserError: one is of another type, shape or device.
    """
    if not isinstance(x_NCHW, Tensor) or x_NCHW.ndim != 4 or x_NCHW.layout is not torch.strided:
        raise UserError(
            "images must be a dense tensor NCHW, such as of shape (8, 3, 32, 32), not "
            f"{described(x_NCHW)}"
        )
    n = len(x_NCHW)
    if not x_NCHW.is_floating_point():
        raise UserError(
            f"images must be float32 in [0, 1], not {x_NCHW.dtype}; write x.float() / 255"
        )
    if not isinstance(y_N, Tensor) or y_N.shape != (n,) or y_N.dtype != torch.int64:
        raise UserError(
            f"labels must be an int64 tensor of shape ({n},), one for each image, not "
            f"{described(y_N)}"
        )
    if not isinstance(generator, torch.Generator):
        raise UserError(
            f"generator must be a torch.Generator, not {shown(generator)}; write "
            "torch.Generator(x.device).manual_seed(SEED)"
        )
    for name, device in (("labels", y_N.device), ("the generator", generator.device)):
        if device.type != x_NCHW.device.type:
            raise UserError(f"{name} must be on the images' device, {x_NCHW.device}, not {device}")
    if not all(callable(getattr(victim, name, None)) for name in VICTIM_METHODS):
        raise UserError(
            f"victim must be a curricula.ModelVictim, not {shown(victim)}; write "
            "curricula.ModelVictim(model)"
        )


def _check_values(x_NCHW: Tensor, checked: set[str]) -> None:
    """Check that images lie in [0, 1]: always on a CPU, and once on each kind of other device,
    where the host would wait for the device.

    Args:
        x_NCHW: the images.
        checked: kinds of devices on which images were checked before.

    Raises:
        UserError: a pixel is NaN or outside [0, 1]; the message has the likely fix.
    """
    if not x_NCHW.numel() or x_NCHW.device.type in checked:
        return
    if x_NCHW.device.type != "cpu":
        checked.add(x_NCHW.device.type)
    low, high = map(float, x_NCHW.detach().float().aminmax())
    if math.isnan(low):
        raise UserError("images must lie in [0, 1], and some pixels are NaN; look at their source")
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    layer = "attack nn.Sequential(curricula.models.Normalise(MEAN, STD), model)"
    if low >= -ROUNDING:
        whole = 255 if high <= 255 + ROUNDING else 65535
        fix = f"write x / {whole}" if high <= whole else "scale them"
    elif low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        layer = layer.replace("MEAN, STD", "0.5, 0.5")
        fix = f"write (x + 1) / 2, and {layer} if the model expects them from -1 to 1"
    else:
        fix = f"undo their normalisation (x * STD + MEAN), and {layer}"
    raise UserError(f"images must lie in [0, 1], not from {low:.3g} to {high:.3g}; {fix}")


def _check_strengths(strengths: Any, labels: Iterable[str], n: int) -> None:
    """Check that there is a strength for each label: one, or one for each of ``n`` images.

    Raises:
        UserError: a strength is missing, of another type or shape, or outside [0, 1].
    """
    if not isinstance(strengths, Mapping) or not set(strengths) >= set(labels):
        raise UserError(
            f"strengths must map each of {', '.join(labels)} to a number from 0 to 1 (as "
            f"curriculum.strengths(progress) does), not {shown(strengths)}"
        )
    for label, strength in strengths.items():
        if not isinstance(strength, Tensor):
            check_number(f"the strength of {label}", strength, 0, 1)
        elif strength.shape not in ((), (n,)):
            raise UserError(
                f"the strength of {label} must be a number or a tensor of shape ({n},), one for "
                f"each image, not {described(strength)}"
            )
        elif strength.device.type == "cpu" and strength.numel():
            for bound in strength.aminmax():
                check_number(f"the strength of {label}", float(bound), 0, 1)


def _run(tree: Node, x_NCHW: Tensor, context: Context) -> Views:
    """Return the clean, transformed and perturbed images of an expression, computed in float32 and
    returned in the images' dtype, whatever modes of torch the caller has set.

    Raises:
        UserError: on a CPU, if the victim does not take the images, or has no class of a label.
    """
    if not len(x_NCHW):
        x = x_NCHW.detach()
        return Views(clean=x, transformed=x.clone(), perturbed=x.clone())
    with ordinary_mode(x_NCHW.device):
        given = as_ordinary(x_NCHW.detach())
        x = given.float().contiguous()
        context = attrs.evolve(
            context,
            y_N=as_ordinary(context.y_N),
            strengths={label: as_ordinary(each) for label, each in context.strengths.items()},
        )
        try:
            # torch ignores labels of -100: their images would not be attacked.
            if x.device.type == "cpu" and int(context.y_N.min()) < 0:
                raise IndexError("a label is negative")
            found = tree.run(Views(clean=x, transformed=x, perturbed=x), context)
        except (IndexError, RuntimeError) as error:
            if x.device.type == "cpu":  # an accelerator does not work any more after such an error
                _explain(error, x, context)
            raise
        if x.dtype == given.dtype:
            return found
        return found.map(lambda view: _as_given(view, x, given))


def _as_given(view_NCHW: Tensor, x_NCHW: Tensor, given_NCHW: Tensor) -> Tensor:
    """Return perturbed float32 images in the dtype of the given images; pixels that did not change
    keep their exact values.

    Args:
        view_NCHW: the perturbed images.
        x_NCHW: the given images in float32.
        given_NCHW: the given images.
    """
    return torch.where(view_NCHW == x_NCHW, given_NCHW, view_NCHW.to(given_NCHW.dtype))


def _explain(error: Exception, x_NCHW: Tensor, context: Context) -> None:
    """Raise a user error if an expression failed for its images or labels, or for a model that has
    no gradient."""
    try:
        with torch.no_grad():
            classes = context.victim.logits(x_NCHW[:1]).shape[1]
    except (IndexError, RuntimeError) as cause:
        size = "x".join(map(str, x_NCHW.shape[1:]))
        raise UserError(
            f"the victim's model cannot take {x_NCHW.dtype} images of {size} "
            f"({message_of(cause)}); build it for them"
        ) from cause
    low, high = map(int, context.y_N.aminmax())
    if low < 0 or high >= classes:
        raise UserError(
            f"labels must lie from 0 to {classes - 1}, since the model has {classes} classes, not "
            f"from {low} to {high}"
        ) from error
    try:
        context.victim.gradient(x_NCHW[:1], context.y_N[:1])
    except RuntimeError as cause:
        raise UserError(
            f"the victim's model cannot be differentiated in its images ({message_of(cause)}): "
            "only threats without gradients, such as square, can measure it"
        ) from cause


def check_channels(tree: Node, in_channels: int, *, data: str) -> None:
    """Check that every perturbation of an expression works on images with ``in_channels`` channels.

    Args:
        tree: the perturbations.
        in_channels: channels of the images.
        data: name of the data set, for the message.

    Raises:
        UserError: one does not; the message says which numbers of channels it takes.
    """
    for leaf in tree.leaves.values():
        channels = leaf.perturbation.channels
        if channels is not None and in_channels not in channels:
            allowed = " or ".join(map(str, sorted(channels)))
            raise UserError(
                f"{leaf.call.name} works on images of {allowed} channels; those of {data} "
                f"have {in_channels}"
            )


def _check_strength(label: str, strength: float) -> None:
    """Check that a schedule's strength lies from 0 to 1.

    Raises:
        UserError: it does not.
    """
    if not 0 <= strength <= 1:
        raise UserError(
            f"the schedule of {label} gave a strength of {strength:g}; it must lie from 0 to 1"
        )


ScheduleStates: TypeAlias = Mapping[str, ScheduleState]


@attrs.frozen(kw_only=True, repr=False)
class Curriculum:
    """Perturbations, in an expression such as ``rot:30+pgd``, each with a schedule of its strength,
    to train a model under.

    Attributes:
        tree: the bound expression.
        schedules: schedule of each leaf, by label.
        schedule_calls: call of each schedule, by label, with all defaults explicit.
    """

    tree: Node
    schedules: Mapping[str, Schedule]
    schedule_calls: Mapping[str, Call]
    _checked: set[str] = attrs.field(factory=set, init=False, eq=False, repr=False)

    @classmethod
    @known_keywords()
    def parse(
        cls,
        perturb: str,
        schedules: str | Sequence[str] | Schedule | Mapping[str, str | Schedule] = (),
        *,
        budgets: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> "Curriculum":
        """Return the curriculum with the perturbations of an expression and the given schedules.

        Args:
            perturb: an expression such as ``rot:30+pgd:8/255``; ``clean`` changes nothing.
            schedules: each ``SCHEDULE`` for all leaves or ``LABEL=SCHEDULE`` for one, in a list or
                alone; or a schedule's object for all leaves; or texts and objects by label.
                Default: linear to full strength at 40 % of training.
            budgets: as in `bind`.
            defaults: as in `bind`.

        Raises:
            UserError: as in `bind`; an unknown label or schedule.

        Example:
            >>> from curricula import Curriculum, Progress
            >>> curriculum = Curriculum.parse("rot:30+pgd:8/255", ["pgd=linear(until=0.5)"])
            >>> progress = Progress(step=20, total_steps=100, epoch=2, total_epochs=10)
            >>> curriculum.strengths(progress)
            {'rot': 0.5, 'pgd': 0.4}
            >>> late = lambda progress, state: max(0.0, 2 * progress.fraction - 1)
            >>> Curriculum.parse("rot:30+pgd:8/255", {"pgd": late}).strengths(progress)
            {'rot': 0.5, 'pgd': 0.0}
        """
        tree = bind(perturb, budgets=budgets, defaults=defaults)
        texts, objects = split_schedules(schedules)
        calls = schedules_by_label(texts, tree.leaves)
        for label, call in map(parse_schedule, listed(texts)):
            if label is None and None not in objects:
                factories.build("schedule", call)  # an error is raised even if no leaf uses it
        built = {}
        for label, call in calls.items():
            found = objects.get(label, objects.get(None)) if call.name == GIVEN else None
            built[label] = (
                factories.build("schedule", call)
                if found is None
                else factories.Built(value=found, call=call)
            )
        return cls(
            tree=tree,
            schedules={label: schedule.value for label, schedule in built.items()},
            schedule_calls={label: schedule.call for label, schedule in built.items()},
        )

    def __str__(self) -> str:
        return str(self.tree)

    def __repr__(self) -> str:
        schedules = [f"{label}={call}" for label, call in self.schedule_calls.items()]
        return f"Curriculum.parse({str(self.tree)!r}, {schedules!r})"

    def _repr_html_(self) -> str:
        rows = [
            (label, leaf.call, self.schedule_calls.get(label, ""))
            for label, leaf in self.tree.leaves.items()
        ]
        note = str(self.tree)
        return html_table("Curriculum", ("label", "perturbation", "schedule"), rows, note=note)

    def start(self, num_train: int, device: torch.device | str = "cpu") -> dict[str, ScheduleState]:
        """Return the state of each schedule, by label, before training on ``num_train``
        images, 1 or more."""
        check_whole("num_train", num_train, 1)
        states: dict[str, ScheduleState] = {}
        for label, schedule in self.schedules.items():
            state = schedule.start(num_train) if isinstance(schedule, AdaptiveSchedule) else {}
            states[label] = {name: tensor.to(device) for name, tensor in state.items()}
        return states

    def check_schedules(self, num_train: int, begin: Progress) -> None:
        """Check that each schedule's first strength is one number, or one number per training
        image.

        Raises:
            UserError: a schedule fails, or gives strengths of another shape or outside [0, 1].
        """
        states = self.start(num_train)
        for label, schedule in self.schedules.items():
            try:
                strength = schedule(begin, states[label])
                if not isinstance(strength, Tensor):
                    strength = float(strength)
            except Exception as error:  # of third-party code
                raise UserError(
                    f"the schedule of {label}, {self.schedule_calls[label]}, failed "
                    f"({message_of(error)}): it must take (progress, state) and return a strength"
                ) from error
            if not isinstance(strength, Tensor):
                _check_strength(label, strength)
            elif tuple(strength.shape) not in ((), (num_train,)):
                raise UserError(
                    f"the schedule of {label} gave strengths of shape {tuple(strength.shape)}; it "
                    f"must give one number, or one for each of the {num_train} training images"
                )

    def after_batch(
        self,
        states: ScheduleStates,
        *,
        indices_N: Tensor,
        correct_N: Tensor,
        strengths: Mapping[str, Strength],
        progress: Progress,
        chance: float,
    ) -> dict[str, ScheduleState]:
        """Return the state of each schedule, by label, after a batch; only adaptive schedules
        change theirs.

        Args:
            states: the states before the batch.
            indices_N: the images' indices in the training set.
            correct_N: whether the model was correct on each perturbed image.
            strengths: the strengths of the batch, from `strengths`.
            progress: the progress of training that gave these strengths.
            chance: the most frequent class's share of the training images, above 0 to 1.
        """
        moved = dict(states)
        for label, schedule in self.schedules.items():
            if isinstance(schedule, AdaptiveSchedule):
                strength = torch.as_tensor(strengths[label], dtype=torch.float32)
                feedback = Feedback(
                    indices=indices_N,
                    correct=correct_N,
                    strength=strength.to(indices_N.device).expand(len(indices_N)),
                    progress=progress,
                    chance=chance,
                )
                moved[label] = schedule.after_batch(states[label], feedback)
        return moved

    def after_epoch(
        self, states: ScheduleStates, validation: Mapping[str, float]
    ) -> dict[str, ScheduleState]:
        """Return the state of each schedule, by label, after an epoch; only adaptive schedules
        change theirs.

        Args:
            states: the states before the end of the epoch.
            validation: validation accuracies, in [0, 1], by threat, for adaptive schedules.
        """
        return {
            label: schedule.after_epoch(states[label], validation)
            if isinstance(schedule, AdaptiveSchedule)
            else states[label]
            for label, schedule in self.schedules.items()
        }

    def strengths(
        self,
        progress: Progress,
        *,
        states: ScheduleStates | None = None,
        indices_N: Tensor | None = None,
    ) -> dict[str, Strength]:
        """Return the current strength of each perturbation, in [0, 1], by label: a float, or a
        tensor (N,) with one value per image.

        Args:
            progress: how far training is.
            states: the states of the schedules, from `start`; needed by adaptive schedules only.
            indices_N: the images' indices in the training set; needed by per-image schedules only.

        Raises:
            UserError: a schedule gave a number outside [0, 1] (values per image are clamped); a
                schedule is per image, and there are no indices.
        """
        if not isinstance(progress, Progress):
            raise UserError(
                f"progress must be a curricula.Progress, not {shown(progress)}; write "
                "Progress(step=5, total_steps=10, epoch=0, total_epochs=1)"
            )
        strengths: dict[str, Strength] = {}
        for label, schedule in self.schedules.items():
            if isinstance(schedule, AdaptiveSchedule) and label not in (states or {}):
                raise UserError(
                    f"the schedule of {label} adapts to the training: give states=, at first those "
                    "of curriculum.start(NUM_TRAIN)"
                )
            strength = schedule(progress, (states or {}).get(label, {}))
            if isinstance(strength, Tensor) and strength.ndim == 1:
                if indices_N is None:
                    raise UserError(f"the schedule of {label} is per image: give indices_N")
                try:
                    strengths[label] = strength[indices_N].float().clamp(0, 1)
                except IndexError as error:
                    raise UserError(
                        f"indices_N must lie below {len(strength)}, the number of training images "
                        f"given to curriculum.start ({error})"
                    ) from error
                continue
            strengths[label] = value = float(strength)
            _check_strength(label, value)
        return strengths

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strengths: Mapping[str, Strength],
        victim: Victim,
        generator: torch.Generator,
        rows: BatchRows | None = None,
        check_values: bool = True,
    ) -> Views:
        """Return a batch's images NCHW before all links (clean), after the spatial and intensity
        links (transformed) and after all links (perturbed), all detached, in the images' dtype.

        Args:
            x_NCHW: the images, in [0, 1], of any floating-point type and memory format; the
                arithmetic is float32 whatever the caller's autocast or default dtype.
            y_N: their labels.
            strengths: strength of each leaf, by label.
            victim: the model that attacks and searches query.
            generator: source of random draws, on the images' device.
            rows: rows of a larger batch that these images are, if other processes perturb the
                rest of it with a generator in the same state.
            check_values: whether to look for images outside [0, 1]. A training does not: its data
                set is checked, and it reports a perturbation that makes NaN by its name.

        Raises:
            UserError: an argument of another type, shape or device; a missing strength, or one
                outside [0, 1]; images outside [0, 1] or NaN, looked for in each batch on a CPU and
                in the first one elsewhere; on a CPU, a label beyond the model's classes.
        """
        _check_batch(x_NCHW, y_N, victim, generator)
        _check_strengths(strengths, self.tree.leaves, len(x_NCHW))
        if check_values:
            _check_values(x_NCHW, self._checked)
        context = Context(
            y_N=y_N,
            strengths=strengths,
            victim=victim,
            generator=generator,
            threat=False,
            rows=rows,
        )
        return _run(self.tree, x_NCHW, context)
