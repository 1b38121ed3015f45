"""Measure the speed of training, and the limit that the network's own passes set."""

import contextlib
import math
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.benchmark import MAX_ROUNDS
from curricula.benchmark.baselines import BASELINES, BaselineLoop
from curricula.errors import UserError
from curricula.runtime.precision import autocast
from curricula.runtime.random_state import seed_torch
from curricula.runtime.records import register_json
from curricula.runtime.timing import seconds
from curricula.runtime.values import check_whole
from curricula.training.compile_choice import TrialUpdates
from curricula.training.config import FIELDS
from curricula.training.environment import processor_name
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan, make_plan
from curricula.victim.frozen import FrozenModel

ROUND_SECONDS = 2.0  # minimum seconds of a round; one call may take longer
DEFAULTS = {"data": "random", "perturb": "rot+pgd"}  # fields of the configuration


@attrs.frozen(kw_only=True)
class Samples:
    """Repeated measurements of one quantity, one per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the measurements."""
        return median(self.values)


register_json(
    Samples,
    lambda samples: {
        "median": samples.median,
        "min": min(samples.values),
        "max": max(samples.values),
        "n": len(samples.values),
    },
)


@attrs.frozen(kw_only=True)
class Speed:
    """The measured speed of training under one configuration, the time of the network's passes
    alone, and the speed of other libraries.

    Attributes:
        setting: configuration of the training, and hardware and versions, by name.
        images_per_second: training images per second, at full strength.
        update: seconds of one update.
        gradient_pass, forward_pass, training_pass: seconds of one pass of a batch through the
            network alone, run as in training: forward and backward to the image; forward; forward,
            full backward and optimiser step.
        gradient_passes, forward_passes, training_passes: number of these passes in an update, in
            batches.
        share: share of the limit: the time of these passes over that of the update, round by round.
        compile_seconds: extra seconds of the first compiled update; None if nothing was compiled.
        peak_memory: bytes that the device's allocator has reserved, or, on a CPU, of the whole
            process with its libraries; None if the system does not report it.
        baselines: images per second of other libraries' loops, by name.
        ratios: our images per second over theirs, round by round.
    """

    setting: Mapping[str, str | int]
    images_per_second: Samples
    update: Samples
    gradient_pass: Samples
    forward_pass: Samples
    training_pass: Samples
    gradient_passes: float
    forward_passes: float
    training_passes: float
    share: Samples
    compile_seconds: float | None
    peak_memory: int | None
    baselines: Mapping[str, Samples]
    ratios: Mapping[str, Samples]


def bench(
    *,
    rounds: int = 5,
    against: str | Sequence[str] = (),
    noted: Callable[[str], None] = lambda line: None,
    baseline_model: nn.Module | None = None,
    **values: Any,
) -> Speed:
    """Return the speed of training at full strength, in images per second, and the share of its
    time that the network's own passes need.

    Whole updates take turns with the passes they consist of and with other libraries' loops, so
    that a machine whose speed drifts treats all alike.

    Args:
        rounds: number of measurements of each quantity, 1 to 1,000.
        against: other libraries to measure, keys of `curricula.benchmark.baselines.BASELINES`.
        noted: called with a line of text when a stage begins.
        baseline_model: the model that the other loops train; by default the same, in float32.
        **values: any fields of `curricula.training.TrainConfig`; by default random pixels of
            3x32x32 and ``rot+pgd``. ``compile=auto`` tries both and keeps the faster one.

    Raises:
        UserError: a wrong value; an unknown or missing baseline, or one that cannot train under
            this configuration.
    """
    check_whole("rounds", rounds, 1, MAX_ROUNDS)
    against = [against] if isinstance(against, str) else against
    for name in against:
        if name not in BASELINES:
            raise UserError(f"against: {name!r} is unknown; known: {', '.join(BASELINES)}")
    plan = make_plan(DEFAULTS | values)
    baselines = {name: BaselineLoop(name, plan, baseline_model) for name in against}
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_torch(plan.config.seed)
        return _bench(plan, rounds, baselines, noted)


def _bench(
    plan: Plan, rounds: int, baselines: Mapping[str, BaselineLoop], noted: Callable[[str], None]
) -> Speed:
    """Return the measured speed of training under a plan and of the baselines' loops."""
    trial, compile_seconds = _fastest(plan, noted)
    isolated = IsolatedPasses(trial)
    gradients, forwards, trainings = isolated.count()
    reset_peak_memory(plan.device)
    trial.update()
    memory = peak_memory(plan.device)
    batch_size = plan.config.batch_size

    def repeated(run: Callable[[], object]) -> float:
        """Return the mean seconds of one call of ``run``, over about `ROUND_SECONDS`."""
        once = seconds(run, plan.device)
        times = max(1, math.ceil(ROUND_SECONDS / once))
        return seconds(lambda: [run() for _ in range(times)], plan.device) / times

    measured: dict[str, list[float]] = {}
    for number in range(rounds):
        noted(f"round {number + 1} of {rounds}")
        for name, run in {
            "update": trial.update,
            "gradient": isolated.gradient,
            "forward": isolated.forward,
            "training": isolated.training,
            **{name: baseline.update for name, baseline in baselines.items()},
        }.items():
            measured.setdefault(name, []).append(repeated(run))
    for baseline in baselines.values():
        baseline.close()

    def sample(function: Callable[..., float], *names: str) -> Samples:
        rows = zip(*(measured[name] for name in names), strict=True)
        return Samples(values=tuple(function(*row) for row in rows))

    return Speed(
        setting=_setting(trial.plan),
        images_per_second=sample(lambda t: batch_size / t, "update"),
        update=sample(lambda t: t, "update"),
        gradient_pass=sample(lambda t: t, "gradient"),
        forward_pass=sample(lambda t: t, "forward"),
        training_pass=sample(lambda t: t, "training"),
        gradient_passes=gradients,
        forward_passes=forwards,
        training_passes=trainings,
        share=sample(
            lambda t, g, f, b: (gradients * g + forwards * f + trainings * b) / t,
            "update",
            "gradient",
            "forward",
            "training",
        ),
        compile_seconds=compile_seconds,
        peak_memory=memory,
        baselines={name: sample(lambda t: batch_size / t, name) for name in baselines},
        ratios={name: sample(lambda t, o: t / o, name, "update") for name in baselines},
    )


def _fastest(plan: Plan, noted: Callable[[str], None]) -> tuple[TrialUpdates, float | None]:
    """Return warmed-up updates of a plan, compiled if requested or faster, and the extra seconds of
    compiling (None if not tried)."""

    def warm(chosen: Literal["on", "off"]) -> tuple[TrialUpdates, float, float]:
        noted(f"compile {chosen}")
        trial = TrialUpdates(attrs.evolve(plan, config=attrs.evolve(plan.config, compile=chosen)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch")  # warnings of the compiler
            first = trial.seconds()
            usual = median(trial.seconds() for _ in range(3))
        return trial, first, usual

    if plan.config.compile == "off":
        return warm("off")[0], None
    trial, first, usual = warm("on")
    compile_seconds = max(0.0, first - usual)
    if plan.config.compile == "auto":
        plainly, _, plain_usual = warm("off")
        if plain_usual <= usual:
            return plainly, compile_seconds
    return trial, compile_seconds


class IsolatedPasses:
    """The three kinds of network passes in a training update, each run alone on one batch so that
    it can be timed.

    Args:
        trial: the updates whose passes to run.
    """

    def __init__(self, trial: TrialUpdates) -> None:
        self.trial = trial
        _, batch = next(trial.batches)
        images = trial.plan.data.images(batch.pixels)
        self.y_N = batch.labels
        frozen = trial.networks.victim.as_module()
        assert isinstance(frozen, FrozenModel)
        self.frozen = frozen
        self.x_NCHW = images.contiguous(memory_format=frozen.memory_format)

    def _logits(self, x_NCHW: Tensor) -> Tensor:
        with autocast(x_NCHW.device, self.trial.plan.precision):
            logits: Tensor = self.frozen.runner(x_NCHW)(x_NCHW)
        return logits.float()

    def gradient(self) -> None:
        """Run one forward pass, and the backward pass to the images."""
        x = self.x_NCHW.detach().requires_grad_()
        loss = F.cross_entropy(self._logits(x), self.y_N, reduction="sum")
        torch.autograd.grad(loss, x)

    def forward(self) -> None:
        """Run one forward pass, without gradients."""
        with torch.no_grad():
            self._logits(self.x_NCHW)

    def training(self) -> None:
        """Run one forward pass, the backward pass to the weights, and the optimiser's step."""
        running = self.trial.networks.running.train()
        loss = F.cross_entropy(running(self.x_NCHW), self.y_N)
        self.trial.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.trial.state.optimizer.step()

    def count(self) -> tuple[float, float, float]:
        """Return the numbers of (gradient, forward, training) passes in one update, as multiples of
        a batch."""
        passes = PassCounter.attach(self.trial.networks)
        self.trial.update()
        passes.stop()
        batch_size = self.trial.plan.config.batch_size
        totals = passes.totals
        gradients, forwards, trainings = (
            totals[kind] / batch_size for kind in ("gradient", "forward", "training")
        )
        return gradients, forwards, trainings


def _setting(plan: Plan) -> dict[str, str | int]:
    """Return the parts of the configuration, the hardware and the versions that a speed depends on,
    by name."""
    config = plan.config
    names = ("model", "perturb", "objective", "batch_size", "optimizer", "precision", "compile")
    cuda = plan.device.type == "cuda"
    return {
        **{name: getattr(config, name) for name in FIELDS if name in names},
        "image": "x".join(map(str, plan.data.image_shape)),
        "device": torch.cuda.get_device_name(plan.device) if cuda else processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak memory use, for `peak_memory` to return."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # A container may forbid it; the peak is then counted from the start of the process.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int | None:
    """Return the peak memory use in bytes since the last `reset_peak_memory`, or None if the system
    does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # what graphs use is not allocated
    if device.type == "cpu" and sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
