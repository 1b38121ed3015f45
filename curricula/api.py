"""The library's verbs: train, evaluate, profile, audit, load."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import attrs
import torch
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike, first, load_data
from curricula.errors import UserError
from curricula.evaluation.accuracy import evaluate_threats
from curricula.evaluation.audit import IMAGES as AUDIT_IMAGES
from curricula.evaluation.audit import Audit, audit
from curricula.evaluation.profile import Profile
from curricula.evaluation.profiling import profile, profile_budgets
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import pixel_budget, standard_threats
from curricula.expressions.binding import bind
from curricula.expressions.syntax import parse_call
from curricula.runtime.devices import resolve_device
from curricula.runtime.files import check_output
from curricula.training.config import LARGEST_SEED, SplitName
from curricula.training.loop import EVALUATION_SEED, Callback, train_plan
from curricula.training.plan import (
    Plan,
    baseline_values,
    build_model,
    check_channels,
    make_plan,
)
from curricula.training.run import AUDIT, BEST, PROFILE, Run, check_free
from curricula.victim.equivalence import MAX_IMAGES, to_device

BASELINE = "baseline"
PROFILE_IMAGES = 1000


@attrs.frozen(kw_only=True)
class Trained:
    """A finished training.

    Attributes:
        run: its folder.
        results: the standard threats' accuracies on the test images.
        baseline: its baseline under the same threats, if asked for.
    """

    run: Run
    results: list[ThreatResult]
    baseline: "Trained | None" = None


def train(
    *,
    out: str | Path | None = None,
    download: bool = False,
    baseline: bool = False,
    callback: Callback | None = None,
    **values: Any,
) -> Trained:
    """Train a classifier under a curriculum, into a run folder, and measure it.

    Args:
        out: the run folder; by default a new one under ``runs/``.
        download: fetch missing data.
        baseline: train a baseline as well (no perturbation, all else equal), into ``out/baseline``.
        callback: who follows the training; by default nobody.
        **values: any of the fields of `curricula.TrainConfig`; what is left out is the data set's
            default.

    Raises:
        UserError: whatever is wrong with a value, before anything is written; or the loss is no
            longer a number, and the folder stays.
    """
    if out is not None:
        check_free(Path(out))
        if baseline:
            check_free(Path(out) / BASELINE)
    if isinstance(values.get("data_root"), Path):
        values["data_root"] = str(values["data_root"])
    plan = make_plan(values, download=download)
    path = Path(out) if out is not None else free_folder(plan)
    threats = standard_threats(plan.curriculum.tree, plan.data.budgets)
    results = train_plan(plan, path, threats=threats, callback=callback)
    trained = Trained(run=Run.open(path), results=results)
    if not baseline:
        return trained
    plain = make_plan(baseline_values(plan.config))
    results = train_plan(plain, path / BASELINE, threats=threats, callback=callback)
    return attrs.evolve(trained, baseline=Trained(run=Run.open(path / BASELINE), results=results))


def free_folder(plan: Plan) -> Path:
    """A run folder that is not there yet: ``runs/DATA-MODEL-DATE-TIME``."""
    model = parse_call(plan.config.model).name
    name = f"{plan.data.name}-{model}-{datetime.now():%Y%m%d-%H%M%S}"
    path = Path("runs", name)
    number = 1
    while path.exists():
        number += 1
        path = Path("runs", f"{name}-{number}")
    return path


def open_data(run: Run, *, root: str | Path | None = None) -> DataSet:
    """The data set that a run was trained on.

    Args:
        run: the run.
        root: folder of its files, where they have moved since.
    """
    config = run.config
    return load_data(config.data, root=str(root or config.data_root))


def load_model(
    run: Run | str | Path, *, checkpoint: str = BEST, data: DataSet | None = None
) -> nn.Module:
    """The trained network of a run, on the CPU, in evaluation mode.

    Args:
        run: a run or its folder.
        checkpoint: ``best.safetensors`` or ``last.safetensors``.
        data: its data set, if at hand.

    Raises:
        UserError: no such run, a damaged checkpoint, a model that no plugin offers.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    data = data or open_data(run)
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = build_model(run.config.model, data)
    run.load_weights(checkpoint, model)
    return model.eval()


def evaluate(
    run: Run | str | Path,
    *,
    threats: Mapping[str, str] | Iterable[str] = (),
    split: SplitName = "test",
    limit: int | None = None,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: str = BEST,
    progress: Callable[[float], None] = lambda share: None,
) -> list[ThreatResult]:
    """Accuracy of a run under each threat, in float32, by default on the test images.

    Args:
        run: a run or its folder.
        threats: expressions such as ``rot:30+pgd(8/255, steps=40)``, by name or alone; by default
            the standard ones: clean, spatial, adversarial (PGD-40) and joint, at the budgets of
            the run's curriculum.
        split: ``test``, or ``validation``: the training images held out to pick the checkpoint.
        limit: the first so many images; by default all.
        seed: of the threats' random draws.
        batch_size: images at once; the figures do not depend on it. Default: as in
            `evaluate_threats`.
        device: as in `TrainConfig`.
        data_root: where the data lies now, if not where the run found it.
        checkpoint: ``best.safetensors`` or ``last.safetensors``.
        progress: told the share of the work that is done, in [0, 1], after each batch.

    Raises:
        UserError: no such run, a damaged checkpoint, a wrong threat, limit or device.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    where = resolve_device(device)
    if split not in get_args(SplitName):
        raise UserError(f"split must be {' or '.join(get_args(SplitName))}, not {split!r}")
    _check_numbers(seed, batch_size)
    data = open_data(run, root=data_root)
    images = first(data.test if split == "test" else data.with_validation()[1], limit)
    if not threats:
        chosen = standard_threats(bind(run.config.perturb), data.budgets)
    else:
        texts = [threats] if isinstance(threats, str) else threats
        named = texts if isinstance(texts, Mapping) else {text: text for text in texts}
        chosen = {name: Threat.parse(text, budgets=data.budgets) for name, text in named.items()}
    for threat in chosen.values():
        check_channels(threat.tree, data)
    model, images = _placed(run, checkpoint, data, images, where)
    work = EvaluationProgress(chosen.values(), progress)
    return evaluate_threats(
        model,
        data,
        images,
        chosen,
        seed=seed,
        batch_size=batch_size,
        began=work.began,
        after_batch=work.after_batch,
    )


def profile_run(
    run: Run | str | Path,
    *,
    grid: bool = False,
    limit: int | None = PROFILE_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: str = BEST,
    progress: Callable[[float], None] = lambda share: None,
) -> Profile:
    """The robustness profile of a run on the test images, written into its folder as
    ``profile.json``; an older one is replaced.

    The budgets are those of the run's curriculum where it has a rotation, a translation or an
    l-inf attack, else the data set's.

    Args:
        run, seed, batch_size, device, data_root, checkpoint, progress: as for `evaluate`.
        grid: as for `curricula.profile`.
        limit: the first so many images; None for all.

    Raises:
        UserError: as `evaluate` does; a budget that neither states; a folder that cannot be
            written to.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    where = resolve_device(device)
    _check_numbers(seed, batch_size)
    check_output(run.path / PROFILE)
    data = open_data(run, root=data_root)
    budgets = profile_budgets(bind(run.config.perturb), data.budgets)
    model, images = _placed(run, checkpoint, data, first(data.test, limit), where)
    found = profile(
        model,
        data,
        images,
        budgets=budgets,
        grid=grid,
        seed=seed,
        batch_size=batch_size,
        name=f"{run.config.model}, {checkpoint} of {run.path}",
        progress=progress,
    )
    run.write_json(PROFILE, found.as_json())
    return found


def audit_run(
    run: Run | str | Path,
    *,
    limit: int | None = AUDIT_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: str = BEST,
    progress: Callable[[float], None] = lambda share: None,
) -> Audit:
    """`curricula.audit` of a run on the test images, written into its folder as ``audit.json``; an
    older one is replaced. It is in the ball of the curriculum's first pixel attack, or where there
    is none, in l-inf within the data set's budget.

    Args:
        run, seed, batch_size, device, data_root, checkpoint, progress: as for `evaluate`.
        limit: the first so many images; None for all.

    Raises:
        UserError: as `evaluate` and `curricula.audit` do; a folder that cannot be written to.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    where = resolve_device(device)
    _check_numbers(seed, batch_size)
    check_output(run.path / AUDIT)
    data = open_data(run, root=data_root)
    eps, norm = pixel_budget(bind(run.config.perturb), data.budgets)
    model, images = _placed(run, checkpoint, data, first(data.test, limit), where)
    found = audit(
        model,
        data,
        images,
        eps=eps.value,
        norm=norm,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    run.write_json(AUDIT, {"checkpoint": checkpoint, **found.as_json()})
    return found


def _check_numbers(seed: int, batch_size: int | None) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed must lie from 0 to {LARGEST_SEED}, not {seed}")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be 1 or more, not {batch_size}")


def _placed(
    run: Run, checkpoint: str, data: DataSet, images: SplitLike, device: torch.device
) -> tuple[nn.Module, SplitLike]:
    """A run's network and images of its data, on a device."""
    model = load_model(run, checkpoint=checkpoint, data=data)
    first = data.images(data.train[slice(MAX_IMAGES)].load().pixels)
    return to_device(model, first, device), images.to(device)
