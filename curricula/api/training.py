"""Train a network into a run folder, or continue a training: `train` and `resume`.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import attrs

from curricula.errors import UserError, shown
from curricula.evaluation.intervals import in_percent
from curricula.expressions.model_files import named_model, names_file
from curricula.plugins.registry import command_line
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.files import check_folder, inside
from curricula.runtime.locks import exclusive
from curricula.runtime.processes import from_first, place
from curricula.runtime.progress import ProgressChoice, check_progress
from curricula.runtime.tables import html_table
from curricula.runtime.values import as_path, check_flag, known_keywords
from curricula.sweeps.folder import CELLS
from curricula.training.callbacks import Callback, Callbacks, check_callbacks
from curricula.training.checks import check_values
from curricula.training.config import FIELDS, baseline_values
from curricula.training.objects import Objects, name_of, split_objects
from curricula.training.progress import progress_callbacks
from curricula.training.run import BASELINE, CONFIG, RESULTS, RUNS, SWEEP, Run, check_free, holds
from curricula.training.saver import parse_interval

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from curricula.curriculum import Curriculum
    from curricula.evaluation.results import ThreatResult
    from curricula.expressions.nodes import Node
    from curricula.interfaces import Objective, Schedule
    from curricula.training.config import (
        CollapseAction,
        CompileChoice,
        InitialHead,
        PrecisionChoice,
    )
    from curricula.training.learning_rate import LearningRate
    from curricula.training.plan import Plan
    from curricula.training.saver import Interval

TESTED = RESULTS["test"]  # file of a finished training
MAX_RUNS_PER_SECOND = 1000  # run folders named by the same second


class TrainValues(TypedDict, total=False):
    """The keyword arguments of `train` that set fields of `curricula.training.TrainConfig`."""

    data: Any
    data_root: str | Path
    model: "str | nn.Module"
    normalise: str
    perturb: "str | Curriculum | Node"
    init: str | Path
    init_head: "InitialHead"
    schedule: "str | Sequence[str] | Schedule | Mapping[str, str | Schedule]"
    objective: "str | Objective"
    epochs: int
    batch_size: int
    freeze: str | Sequence[str]
    optimizer: "str | Callable[..., Optimizer]"
    lr: float
    head_lr: float
    momentum: float
    weight_decay: float
    lr_schedule: "str | LearningRate"
    awp: float
    average: str
    shuffle: bool
    augmentation: str
    seed: int
    device: str
    precision: "PrecisionChoice"
    compile: "CompileChoice"
    on_collapse: "CollapseAction"
    accumulate: int
    sync_batchnorm: bool
    clip_norm: float
    stop_after: int
    validation_limit: int


class GivenObjects(TypedDict, total=False):
    """The keyword arguments of `resume` for objects that `train` was given."""

    data: Any
    model: "nn.Module"
    schedule: "Schedule | Mapping[str, Schedule]"
    objective: "Objective"
    optimizer: "Callable[..., Optimizer]"
    lr_schedule: "LearningRate"


@attrs.frozen(kw_only=True, repr=False)
class Trained:
    """A trained run: its folder, its accuracies on the test images, and its baseline if it has one.

    Attributes:
        run: its run folder.
        results: accuracies under the standard threats, on the test images: a
            `curricula.evaluation.Evaluation`, if the run's folder holds the predictions.
        baseline: the same training without perturbations, if it was requested.
    """

    run: Run
    results: "Sequence[ThreatResult]"
    baseline: "Trained | None" = None

    def __repr__(self) -> str:
        accuracies = ", ".join(
            f"{found.name} {100 * found.accuracy:.1f} %" for found in self.results
        )
        with_baseline = "" if self.baseline is None else "; with a baseline"
        return f"Trained({str(self.run.path)!r}: {accuracies}{with_baseline})"

    def _repr_html_(self) -> str:
        columns = {"accuracy": self.results}
        if self.baseline is not None:
            columns["baseline"] = self.baseline.results
        rows = [
            (found[0].name, *(in_percent(each.accuracy, each.interval) for each in found))
            for found in zip(*columns.values(), strict=True)
        ]
        caption = f"Run {self.run.path}, test accuracy in % (95 % interval)"
        return html_table(caption, ("threat", *columns), rows)


@known_keywords(*FIELDS)
@cpu_by_default()
def train(
    *,
    output: str | Path | None = None,
    baseline: bool = False,
    callbacks: Sequence[Callback | str] = (),
    download: bool = False,
    checkpoint_every: str | int | None = None,
    progress: ProgressChoice = None,
    **values: Unpack[TrainValues],
) -> Trained:
    """Train a classifier under a curriculum into a run folder, and evaluate it.

    SIGINT and SIGTERM end the training after the current update, once its checkpoint is saved;
    `resume` continues it.

    Args:
        output: run folder; by default a new one under ``runs/``.
        baseline: also train without perturbations, all else equal, into ``output/baseline``.
        callbacks: receive the events of the training: objects, or expressions such as
            ``tensorboard``.
        download: fetch missing data.
        checkpoint_every: interval between checkpoints within an epoch: updates, such as ``500``, or
            minutes, such as ``10min``; by default such that they take under 1 % of the time.
        progress: True shows a bar on standard error or in the notebook, False shows nothing; by
            default it is shown on a terminal and in a notebook. A function is called after each
            update with the share of the updates that are done, in [0, 1].
        **values: fields of `curricula.training.TrainConfig`; the data set supplies those left out.
            In place of texts, ``model`` takes a network (its weights are the start; it is copied,
            not changed), ``data`` a `curricula.data.DataSet` or what becomes one, ``perturb`` a
            `Curriculum` or what `curricula.expressions.bind` returns, ``schedule`` functions of
            progress and state, ``objective`` and ``lr_schedule`` their objects,
            ``optimizer`` a class of torch or a function of the parameters. The run names them
            ``given(NAME)``, and has to be given them again.

    Raises:
        UserError: a value is wrong, in which case nothing is written; or the loss is no longer
            finite, the disk is full or a callback failed, in which case the folder stays.
        KeyboardInterrupt: a signal ended the training.

    Example:
        >>> trained = curricula.train(
        ...     data="random(size=12, channels=1, images=20)", model="lenet",
        ...     perturb="rot", epochs=1, batch_size=9, output="runs/first",
        ... )
        >>> [result.name for result in trained.results]
        ['clean', 'spatial', 'adversarial', 'joint']
        >>> trained.run.config.schedule
        ('rot=linear(start=0, until=0.4)',)
    """
    check_flag("baseline", baseline)
    check_flag("download", download)
    path = None if output is None else as_path("output", output)
    if place().is_first:
        if path is None:
            check_folder(RUNS)
        else:
            check_free(path)
            if baseline:
                check_free(inside(path, BASELINE))
    texts, objects = split_objects(values)
    if names_file(texts.get("model", "")):
        texts["model"] = named_model(texts["model"])
    check_values(texts)
    check_progress(progress)
    callbacks = [*check_callbacks(callbacks), *progress_callbacks(progress)]
    every = None if checkpoint_every is None else parse_interval(checkpoint_every)

    from curricula.runtime.modes import training_mode
    from curricula.training.plan import make_plan

    callback = Callbacks.build(callbacks)
    with training_mode():
        plan = make_plan(texts, objects=objects, download=download)

    def made() -> str:
        folder = new_folder(plan) if path is None else path
        if baseline:  # an interrupted run shows by this folder that its baseline is to be trained
            with exclusive(inside(folder, BASELINE)):
                pass
        return str(folder)

    with training_mode():
        return _train(plan, Path(from_first(made)), callback, every, resume=False)


@known_keywords(*GivenObjects.__annotations__)
@cpu_by_default()
def resume(
    run: Run | str | Path,
    *,
    callbacks: Sequence[Callback | str] = (),
    data_root: str | Path | None = None,
    checkpoint_every: str | int | None = None,
    progress: ProgressChoice = None,
    **objects: Unpack[GivenObjects],
) -> Trained:
    """Continue an interrupted training from its last checkpoint, evaluate it on the test images,
    and return the finished run with these results.

    On the same machine with the same versions, weights and metrics are equal, bit for bit, to those
    of a training that was never interrupted.

    Args:
        run: a run or its folder.
        callbacks: as for `train`; a run does not store those it was started with.
        data_root: folder of the data set's files, if they have moved since.
        checkpoint_every, progress: as for `train`.
        **objects: the objects that `train` was given: ``model``, ``data``, ``schedule``,
            ``objective``, ``optimizer`` or ``lr_schedule``.

    Raises:
        UserError: there is nothing to continue; the configuration, the data or a plugin has changed
            since the training began; its checkpoints are damaged.
        KeyboardInterrupt: a signal ended the training.
    """
    found = run if isinstance(run, Run) else Run.open(run)
    found.check_plugins()
    config = found.config
    values: dict[str, Any] = {name: getattr(config, name) for name in FIELDS}
    handed = _again(objects)
    handed.check_like(config, found.path)
    if data_root is not None:
        values["data_root"] = str(data_root)
    check_values(values)
    check_progress(progress)
    callbacks = [*check_callbacks(callbacks), *progress_callbacks(progress)]
    every = None if checkpoint_every is None else parse_interval(checkpoint_every)
    sweep = found.path.absolute().parent.parent
    if found.path.absolute().parent.name == CELLS and holds(sweep, SWEEP):
        raise UserError(
            f"run {found.path} is a cell of a sweep: start the sweep again, which continues it"
        )
    if found.is_finished:
        found.results("test")  # says so if it is damaged, and so does reading the metrics
        epochs, page = len(found.metrics), command_line("report", found.path)
        raise UserError(
            f"run {found.path} is finished: there is nothing to continue after epoch {epochs}; "
            f"{page} writes its page"
        )

    from curricula.runtime.modes import training_mode
    from curricula.training.plan import make_plan

    callback = Callbacks.build(callbacks)
    with training_mode():
        plan = make_plan(values, objects=handed, read_init=not found.has_checkpoint)
        return _train(plan, found.path, callback, every, resume=True)


def _again(objects: "GivenObjects") -> Objects:
    """Return the objects that a training continues with.

    Raises:
        UserError: one is a text.
    """
    for name, value in objects.items():
        if isinstance(value, str):
            raise UserError(
                f"{name} must be the object that train was given, not {shown(value)}: the run "
                "itself states texts"
            )
    return split_objects(objects)[1]


def _train(
    plan: "Plan",
    path: Path,
    callback: Callbacks,
    every: "Interval | None",
    *,
    resume: bool,
) -> Trained:
    """Train a run, or resume it, then its baseline if it has a baseline folder, and return both
    with their test results."""
    from curricula.evaluation.threats import standard_threats
    from curricula.training.loop import train_plan
    from curricula.training.plan import make_plan
    from curricula.training.predictions import read_evaluation

    threats = standard_threats(plan.curriculum.tree, plan.data.budgets)

    def finished(plan: "Plan", path: Path) -> Trained:
        if resume and from_first(lambda: holds(path, TESTED)):
            run = Run(path, model=plan.objects.model)
            return Trained(run=run, results=read_evaluation(run, "test") or run.results("test"))
        results = train_plan(
            plan,
            path,
            threats=threats,
            callback=callback,
            resume=resume and from_first(lambda: holds(path, CONFIG)),
            checkpoint_every=every,
        )
        return Trained(run=Run(path, model=plan.objects.model), results=results)

    trained = finished(plan, path)
    baseline = path / BASELINE
    if not from_first(lambda: inside(path, BASELINE).is_dir()):
        return trained
    started = from_first(lambda: Run(baseline).has_checkpoint)
    plain = make_plan(
        baseline_values(plan.config), objects=plan.objects.of_baseline(), read_init=not started
    )
    return attrs.evolve(trained, baseline=finished(plain, baseline))


def new_folder(plan: "Plan") -> Path:
    """Make a new run folder and return its path: ``runs/DATA-MODEL-DATE-TIME``.

    Raises:
        UserError: it cannot be made.
    """
    model = name_of(plan.config.model)
    data = re.sub(r"[^\w.-]", "_", plan.data.name)  # of a plugin: perhaps with slashes
    name = f"{data[:50]}-{model[:50]}-{datetime.now():%Y%m%d-%H%M%S}"
    path = RUNS / name
    try:
        path.parent.mkdir(exist_ok=True)
        for number in range(2, MAX_RUNS_PER_SECOND):
            try:
                path.mkdir()  # fails if another process has just made it
                return path
            except FileExistsError:
                path = RUNS / f"{name}-{number}"
    except OSError as error:
        raise UserError(f"run folder {path}: cannot be made ({error})") from error
    raise UserError(f"run folder {path}: there are too many of that name; choose with --output")
