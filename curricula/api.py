"""The library's main functions: train, resume, evaluate, robustness_profile, audit, load_model.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, get_args

import attrs

from curricula.errors import UserError, shown
from curricula.expressions.checks import check_call, check_perturbation
from curricula.expressions.syntax import parse_call
from curricula.plugins.names import CLEAN
from curricula.plugins.registry import command_line
from curricula.runtime.files import check_folder, check_output, inside
from curricula.runtime.locks import exclusive
from curricula.runtime.processes import from_first, place
from curricula.runtime.records import to_json
from curricula.runtime.values import (
    as_path,
    check_choice,
    check_flag,
    check_number,
    check_whole,
    known_keywords,
)
from curricula.sweeps.folder import CELLS
from curricula.training.callbacks import Callback, Callbacks, check_callbacks
from curricula.training.checks import check_device_name, check_values
from curricula.training.config import (
    EVALUATION_SEED,
    FIELDS,
    MAX_BATCH_SIZE,
    MAX_LIMIT,
    MAX_SEED,
    SplitName,
    baseline_values,
)
from curricula.training.run import (
    AUDIT,
    BASELINE,
    BEST,
    CONFIG,
    LAST,
    PROFILE,
    RESULTS,
    RUNS,
    SWEEP,
    Run,
    check_free,
    holds,
)
from curricula.training.saver import parse_interval

if TYPE_CHECKING:
    import torch
    from torch import nn

    from curricula.data.dataset import DataSet, SplitLike
    from curricula.evaluation.audit import Audit
    from curricula.evaluation.results import ThreatResult
    from curricula.evaluation.robustness_profile import RobustnessProfile
    from curricula.interfaces import Norm
    from curricula.training.config import (
        CollapseAction,
        CompileChoice,
        Optimizer,
        PrecisionChoice,
    )
    from curricula.training.plan import Plan
    from curricula.training.saver import Interval

TESTED = RESULTS["test"]  # file of a finished training
MAX_RUNS_PER_SECOND = 1000  # run folders named by the same second
PROFILE_IMAGES = 1000  # images of a profile by default
AUDIT_IMAGES = 200  # images of an audit by default: a few minutes for a small network on two cores

Checkpoint = Literal["best", "last"]
CHECKPOINTS: Mapping[str, str] = {"best": BEST, "last": LAST}
"""The file of each checkpoint."""

Measurable: TypeAlias = "Run | str | Path | nn.Module"
"""A run, its folder, or a model: the subject of `evaluate`, `robustness_profile` and `audit`."""


class TrainValues(TypedDict, total=False):
    """The keyword arguments of `train` that set fields of `curricula.TrainConfig`."""

    data: str
    data_root: str | Path
    model: str
    perturb: str
    schedule: str | Sequence[str]
    objective: str
    epochs: int
    batch_size: int
    optimizer: "Optimizer"
    lr: float
    momentum: float
    weight_decay: float
    lr_schedule: str
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


@attrs.frozen(kw_only=True)
class Trained:
    """A trained run: its folder, its accuracies on the test images, and its baseline if it has one.

    Attributes:
        run: its run folder.
        results: accuracies under the standard threats, on the test images.
        baseline: the same training without perturbations, if it was requested.
    """

    run: Run
    results: "list[ThreatResult]"
    baseline: "Trained | None" = None


@known_keywords(*FIELDS)
def train(
    *,
    output: str | Path | None = None,
    baseline: bool = False,
    callbacks: Sequence[Callback | str] = (),
    download: bool = False,
    checkpoint_every: str | int | None = None,
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
        **values: fields of `curricula.TrainConfig`; the data set supplies those left out.

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
    if isinstance(values.get("data_root"), Path):
        values["data_root"] = str(values["data_root"])
    check_values(values)
    callbacks = check_callbacks(callbacks)
    every = None if checkpoint_every is None else parse_interval(checkpoint_every)

    from curricula.training.plan import make_plan

    callback = Callbacks.build(callbacks)
    plan = make_plan(values, download=download)

    def made() -> str:
        folder = new_folder(plan) if path is None else path
        if baseline:  # an interrupted run shows by this folder that its baseline is to be trained
            with exclusive(inside(folder, BASELINE)):
                pass
        return str(folder)

    return _train(plan, Path(from_first(made)), callback, every, resume=False)


@known_keywords()
def resume(
    run: Run | str | Path,
    *,
    callbacks: Sequence[Callback | str] = (),
    data_root: str | Path | None = None,
    checkpoint_every: str | int | None = None,
) -> Trained:
    """Continue an interrupted training from its last checkpoint, evaluate it on the test images,
    and return the finished run with these results.

    On the same machine with the same versions, weights and metrics are equal, bit for bit, to those
    of a training that was never interrupted.

    Args:
        run: a run or its folder.
        callbacks: as for `train`; a run does not store those it was started with.
        data_root: folder of the data set's files, if they have moved since.
        checkpoint_every: as for `train`.

    Raises:
        UserError: there is nothing to continue; the configuration, the data or a plugin has changed
            since the training began; its checkpoints are damaged.
        KeyboardInterrupt: a signal ended the training.
    """
    found = run if isinstance(run, Run) else Run.open(run)
    found.check_plugins()
    values: dict[str, Any] = {name: getattr(found.config, name) for name in FIELDS}
    if data_root is not None:
        values["data_root"] = str(data_root)
    check_values(values)
    callbacks = check_callbacks(callbacks)
    every = None if checkpoint_every is None else parse_interval(checkpoint_every)
    sweep = found.path.absolute().parent.parent
    if found.path.absolute().parent.name == CELLS and holds(sweep, SWEEP):
        raise UserError(
            f"run {found.path} is a cell of a sweep: start the sweep again, which continues it"
        )
    if found.is_finished:
        page = command_line("report", found.path)
        raise UserError(
            f"run {found.path} is finished: there is nothing to continue; {page} writes its page"
        )

    from curricula.training.plan import make_plan

    callback = Callbacks.build(callbacks)
    return _train(make_plan(values), found.path, callback, every, resume=True)


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

    threats = standard_threats(plan.curriculum.tree, plan.data.budgets)

    def finished(plan: "Plan", path: Path) -> Trained:
        if resume and from_first(lambda: holds(path, TESTED)):
            return Trained(run=Run(path), results=Run(path).results("test"))
        results = train_plan(
            plan,
            path,
            threats=threats,
            callback=callback,
            resume=resume and from_first(lambda: holds(path, CONFIG)),
            checkpoint_every=every,
        )
        return Trained(run=Run(path), results=results)

    trained = finished(plan, path)
    baseline = path / BASELINE
    if not from_first(lambda: inside(path, BASELINE).is_dir()):
        return trained
    plain = make_plan(baseline_values(plan.config))
    return attrs.evolve(trained, baseline=finished(plain, baseline))


def new_folder(plan: "Plan") -> Path:
    """Make a new run folder and return its path: ``runs/DATA-MODEL-DATE-TIME``.

    Raises:
        UserError: it cannot be made.
    """
    model = parse_call(plan.config.model).name
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


def open_data(run: Run, *, root: str | Path | None = None) -> "DataSet":
    """Return the data set that a run was trained on.

    Args:
        run: the run.
        root: folder of its files, if they have moved since.

    Raises:
        UserError: the data are missing, or have changed since.
    """
    from curricula.data.dataset import load_data

    run.check_plugins()
    config = run.config
    data = load_data(config.data, root=root or config.data_root)
    run.check_data(data)
    return data


@known_keywords()
def load_model(
    run: Run | str | Path, *, checkpoint: Checkpoint = "best", data: "DataSet | None" = None
) -> "nn.Module":
    """Return the trained network of a run, on the CPU, in eval mode.

    Args:
        run: a run or its folder.
        checkpoint: ``best`` on validation, or the ``last`` epoch's.
        data: its data set, if it is loaded already.

    Raises:
        UserError: no such run, a damaged checkpoint, a model that no plugin provides.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    _check_checkpoint(run, checkpoint)

    import torch

    from curricula.models.build import build_model

    run.check_plugins()
    data = open_data(run) if data is None else data
    with torch.random.fork_rng(devices=[]):
        model = build_model(run.config.model, data)
    run.load_weights(CHECKPOINTS[checkpoint], model)
    return model.eval()


@known_keywords()
def evaluate(
    model: Measurable,
    *,
    data: "DataSet | str | None" = None,
    threats: Mapping[str, str] | Iterable[str] | None = None,
    split: "SplitName | SplitLike" = "test",
    limit: int | None = None,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    progress: Callable[[float], None] = lambda share: None,
) -> "list[ThreatResult]":
    """Return the accuracy of a run or a model under each threat, in float32.

    Args:
        model: a run, its folder, or a classifier of images in [0, 1], which is not changed.
        data: data set to measure a model on, or its expression; leave it out for a run.
        threats: expressions, in a list or by name; by default the standard ones: clean, spatial,
            adversarial (PGD-40) and joint, at the budgets of the run's curriculum or else of the
            data set.
        split: ``test``; ``validation``, the training images that are held out; or images.
        limit: number of images, the first ones, 1 to 1,000,000,000; by default all.
        seed: seed of the random draws, from 0 to 2**62.
        batch_size: images per batch, 1 to 1,000,000; the results do not depend on it. By default
            250 on a CPU, and elsewhere the fastest.
        device: as in `TrainConfig`; ``auto`` leaves a model on its own device.
        data_root: folder of the data set's files; by default the run's, or ``data``.
        checkpoint: weights of a run: ``best`` on validation, or the ``last`` epoch's.
        progress: called after each batch with the share of the work that is done, in [0, 1].

    Raises:
        UserError: no such run, a damaged checkpoint, a wrong threat, limit or device; labelled
            images that are not the data set's, or a model that cannot classify them.

    Example:
        >>> data = curricula.load_data("digits")
        >>> model = curricula.build_model("stdcnn(width=1)", data)
        >>> threats = {"spatial": "rot:30", "joint": "rot:30+pgd(0.1, steps=3)"}
        >>> for result in curricula.evaluate(model, data=data, threats=threats, limit=20):
        ...     print(result.name, result.n, 0 <= result.accuracy <= 1)
        spatial 20 True
        joint 20 True
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    named = None if threats is None else _named(threats)

    from curricula.curriculum import Threat, check_channels
    from curricula.evaluation.accuracy import evaluate_threats
    from curricula.evaluation.progress import EvaluationProgress
    from curricula.evaluation.threats import standard_threats
    from curricula.expressions.binding import bind

    where = _device(model, device)
    dataset = _data(run, data, data_root)
    images = _images(dataset, split, limit)
    if named is not None:
        chosen = {name: Threat.parse(text, budgets=dataset.budgets) for name, text in named.items()}
    else:
        perturb = run.config.perturb if run is not None else CLEAN
        chosen = standard_threats(bind(perturb), dataset.budgets)
    for threat in chosen.values():
        check_channels(threat.tree, dataset.in_channels, data=dataset.name)
    network = _network(model, run, checkpoint, dataset, images, where)
    work = EvaluationProgress(chosen.values(), progress)
    return evaluate_threats(
        network,
        dataset,
        images.to(where),
        chosen,
        seed=seed,
        batch_size=batch_size,
        began=work.began,
        after_batch=work.after_batch,
    )


@known_keywords()
def robustness_profile(
    model: Measurable,
    *,
    data: "DataSet | str | None" = None,
    split: "SplitName | SplitLike" = "test",
    budgets: Mapping[str, str] | None = None,
    grid: bool = False,
    limit: int | None = PROFILE_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    name: str = "",
    progress: Callable[[float], None] = lambda share: None,
) -> "RobustnessProfile":
    """Return the robustness profile of a run or a model: accuracy and fooling rate over growing
    ranges of rotation, translation and PGD, alone and jointly (Kamath et al. 2021).

    A run's profile is measured on its test images and written into its folder as
    ``profile.json``; an older one is replaced.

    Args:
        model, data, seed, batch_size, device, data_root, checkpoint, progress: as for `evaluate`.
        split: as for `evaluate`; only for a model.
        budgets: largest changes, by unit (``degrees``, ``pixels``, ``linf``), as text such as
            ``8/255``; by default those of the run's curriculum, or else the data set's.
        grid: also measure the worst of 775 rotations and translations (Engstrom et al. 2019).
        limit: number of images, the first ones, 1 to 1,000,000,000; None for all.
        name: name of a model, for captions.

    Raises:
        UserError: as `evaluate` does; a missing budget; a folder that cannot be written to.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> profile = curricula.robustness_profile(model, data="digits", limit=1)
        >>> [(series.name, series.unit) for series in profile.series][-1]
        ('PGD-40', 'linf')
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    _check_test_split(run, split, "profile")
    check_flag("grid", grid)
    if run is not None:
        check_output(inside(run.path, PROFILE))

    from curricula.evaluation.robustness_profile import (
        check_units,
        measure_profile,
        profile_budgets,
    )
    from curricula.expressions.binding import bind

    check_units(budgets or {})
    where = _device(model, device)
    dataset = _data(run, data, data_root)
    known = profile_budgets(bind(run.config.perturb), dataset.budgets) if run else {}
    images = _images(dataset, split, limit)
    network = _network(model, run, checkpoint, dataset, images, where)
    found = measure_profile(
        network,
        dataset,
        images.to(where),
        budgets={**known, **(budgets or {})},
        grid=grid,
        seed=seed,
        batch_size=batch_size,
        name=f"{run.config.model}, {checkpoint} checkpoint of {run.path}" if run else name,
        progress=progress,
    )
    if run is not None and place().is_first:
        run.write_json(PROFILE, to_json(found))
    return found


@known_keywords()
def audit(
    model: Measurable,
    *,
    data: "DataSet | str | None" = None,
    split: "SplitName | SplitLike" = "test",
    eps: float | None = None,
    norm: "Norm | None" = None,
    limit: int | None = AUDIT_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    progress: Callable[[float], None] = lambda share: None,
) -> "Audit":
    """Return the audit of a run or a model: sanity checks for gradient masking, which makes attacks
    fail without making a model robust (Carlini et al. 2019; Croce and Hein 2020).

    A run's audit is made on its test images and written into its folder as ``audit.json``; an
    older one is replaced.

    Args:
        model, data, seed, batch_size, device, data_root, checkpoint, progress: as for `evaluate`.
        split: as for `evaluate`; only for a model.
        eps: radius of the ball, in [0, 1] pixel units; by default that of the first pixel attack
            of the run's curriculum, or else the data set's budget.
        norm: norm of the ball, ``linf``, ``l2`` or ``l1``; by default that attack's, or ``linf``.
        limit: number of images, the first ones, 1 to 1,000,000,000; None for all.

    Raises:
        UserError: as `evaluate` does; an eps out of range; a folder that cannot be written to.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> checks = curricula.audit(model, data="digits", limit=1).checks
        >>> checks[0].name, checks[0].passed
        ('deterministic forward', True)
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    _check_test_split(run, split, "audit")
    if eps is not None:
        check_number("eps", eps, 0)
    if run is not None:
        check_output(inside(run.path, AUDIT))

    from curricula.evaluation import audit as auditing
    from curricula.evaluation.threats import pixel_budget
    from curricula.expressions.binding import bind
    from curricula.interfaces import Norm

    if norm is not None:
        check_choice("norm", norm, get_args(Norm))
    where = _device(model, device)
    dataset = _data(run, data, data_root)
    if run is not None and eps is None and norm is None:
        budget, norm = pixel_budget(bind(run.config.perturb), dataset.budgets)
        eps = budget.value
    images = _images(dataset, split, limit)
    network = _network(model, run, checkpoint, dataset, images, where)
    found = auditing.audit(
        network,
        dataset,
        images.to(where),
        eps=eps,
        norm=norm or "linf",
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    if run is not None and place().is_first:
        run.write_json(AUDIT, {"checkpoint": checkpoint, **to_json(found)})
    return found


def _checked(
    model: Any,
    data: Any,
    split: Any,
    limit: Any,
    seed: Any,
    batch_size: Any,
    device: Any,
    data_root: Any,
    checkpoint: Any,
    progress: Any,
) -> Run | None:
    """Check the arguments that `evaluate`, `robustness_profile` and `audit` share, and return the
    run to measure, or None if ``model`` is a network.

    Only a model, a data set and a split that are objects import torch, which they have imported.

    Raises:
        UserError: no such run or checkpoint, a value of the wrong type or out of range, a model
            without data.
    """
    check_whole("seed", seed, 0, MAX_SEED)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1, MAX_BATCH_SIZE)
    if limit is not None:
        check_whole("limit", limit, 1, MAX_LIMIT)
    check_device_name(device)
    if data_root is not None:
        as_path("data_root", data_root)
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    if not callable(progress):
        raise UserError(
            f"progress must be a function of the share that is done, not {shown(progress)}"
        )
    if isinstance(split, str):
        check_choice("split", split, get_args(SplitName))
    else:
        from curricula.data.dataset import Split, SplitLike

        if not isinstance(split, (Split, SplitLike)):  # a wrong Split has its own message
            raise UserError(
                f"split must be test, validation or labelled images, not {shown(split)}"
            )
    if isinstance(model, (Run, str, Path)):
        if data is not None:
            raise UserError("data is for a model: a run is measured on the data set it names")
        run = model if isinstance(model, Run) else Run.open(model)
        _check_checkpoint(run, checkpoint)
        return run
    if data is None and callable(model):
        raise UserError("a model is measured on data: give data=, such as data='digits'")

    from torch import nn

    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a run, its folder or a torch.nn.Module, not {shown(model)}")
    if isinstance(data, str):
        check_call("dataset", data)
    return None


def _named(threats: Any) -> Mapping[str, str]:
    """Return the expression of each threat by name; in a list, each expression is its own name.

    Raises:
        UserError: none at all, or one that is not an expression.
    """
    texts = [threats] if isinstance(threats, str) else threats
    if not isinstance(texts, Iterable):
        raise UserError(f"threats must be a list of expressions, not {shown(threats)}")
    named = dict(texts) if isinstance(texts, Mapping) else None
    texts = list(texts) if named is None else list(named.values())
    if not texts:
        raise UserError("threats is empty: name one or more, or leave it out for the standard ones")
    for text in texts:
        check_perturbation(text)
    for name in named or ():
        if not isinstance(name, str) or not name.isprintable():
            raise UserError(f"the name of a threat must be text on one line, not {shown(name)}")
    return named or {text: text for text in texts}


def _check_checkpoint(run: Run, checkpoint: str) -> None:
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    _ = run.config  # raises if it is damaged
    if not holds(run.path, CHECKPOINTS[checkpoint]):
        raise run.missing(CHECKPOINTS[checkpoint])


def _check_test_split(run: Run | None, split: "SplitName | SplitLike", what: str) -> None:
    if run is not None and split != "test":
        raise UserError(f"the {what} of a run is measured on its test images: leave out split")


def _data(run: Run | None, data: "DataSet | str | None", root: str | Path | None) -> "DataSet":
    """Return the data set to measure on: the given one, or the one that the run was trained on."""
    if run is not None:
        return open_data(run, root=root)

    from curricula.data.dataset import as_dataset

    return as_dataset(data, root=root or "data")


def _images(data: "DataSet", split: "SplitName | SplitLike", limit: int | None) -> "SplitLike":
    """Return the first test or validation images of a data set, or of the labelled images that were
    given.

    Raises:
        UserError: the images that were given are not those of the data set, or none.
    """
    from curricula.data.dataset import check_split, first

    if not isinstance(split, str):
        check_split(split, data)
        return first(split, limit)
    return first(data.test if split == "test" else data.with_validation()[1], limit)


def _device(model: Measurable, name: str) -> "torch.device":
    """Return the torch device to measure on; ``auto`` is the device of a model's parameters, or the
    best one for a run."""
    import torch

    from curricula.runtime.devices import resolve_device

    if name == "auto" and not isinstance(model, (Run, str, Path)):
        tensors = (*model.parameters(), *model.buffers())
        return tensors[0].device if tensors else torch.device("cpu")
    return resolve_device(name)


def _network(
    model: Measurable,
    run: Run | None,
    checkpoint: Checkpoint,
    data: "DataSet",
    images: "SplitLike",
    where: "torch.device",
) -> "nn.Module":
    """Return the network to measure, on the device ``where``: a run's checkpoint, or the given
    model, which is copied if it is on a different device.

    Raises:
        UserError: the given model is no classifier of the images.
    """
    if run is not None:
        from curricula.victim.equivalence import MAX_IMAGES, to_device

        network = load_model(run, checkpoint=checkpoint, data=data)
        return to_device(network, data.images(data.train[slice(MAX_IMAGES)].load().pixels), where)
    assert not isinstance(model, (Run, str, Path))

    from copy import deepcopy

    from curricula.victim.equivalence import MAX_IMAGES
    from curricula.victim.model_checks import check_measurable

    network = model if _device(model, "auto") == where else deepcopy(model).to(where)
    some = data.images(images[slice(MAX_IMAGES)].load().pixels)
    check_measurable(network, some.to(where), images.labels)
    return network
