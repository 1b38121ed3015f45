"""Measure a run or a model: `evaluate`, `robustness_profile` and `audit`.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from curricula.errors import UserError, shown
from curricula.expressions.checks import check_call, check_perturbation
from curricula.plugins.names import CLEAN
from curricula.runtime.files import check_output, inside
from curricula.runtime.processes import place
from curricula.runtime.records import to_json
from curricula.runtime.values import (
    as_path,
    check_choice,
    check_flag,
    check_number,
    check_whole,
    known_keywords,
)
from curricula.training.checks import check_device_name
from curricula.training.config import (
    EVALUATION_SEED,
    MAX_BATCH_SIZE,
    MAX_LIMIT,
    MAX_SEED,
    SplitName,
)
from curricula.training.loading import (
    CHECKPOINTS,
    Checkpoint,
    check_checkpoint,
    load_model,
    open_data,
)
from curricula.training.run import AUDIT, PROFILE, Run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from curricula.data.dataset import DataSet, SplitLike
    from curricula.evaluation.audit import Audit
    from curricula.evaluation.results import Evaluation
    from curricula.evaluation.robustness_profile import RobustnessProfile
    from curricula.interfaces import Norm

PROFILE_IMAGES = 1000  # images of a profile by default
AUDIT_IMAGES = 200  # images of an audit by default: a few minutes for a small network on two cores

Measurable: TypeAlias = "Run | str | Path | nn.Module"
"""A run, its folder, or a model: the subject of `evaluate`, `robustness_profile` and `audit`."""


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
) -> "Evaluation":
    """Return the accuracy of a run or a model under each threat, in float32, and the class
    predicted for each image.

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
        check_checkpoint(run, checkpoint)
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
