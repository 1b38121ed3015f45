"""Measure a run or a model: `evaluate`, `robustness_profile`, `audit` and `certify`.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import attrs

from curricula.api.networks import Network
from curricula.errors import UserError, prefixed_errors, shortened, shown
from curricula.evaluation.results import MAX_DRAWS
from curricula.expressions.checks import check_call, check_perturbation
from curricula.expressions.given import given
from curricula.models.normalisation import OWN, parse_normalisation
from curricula.plugins.names import CLEAN
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.files import check_output, inside
from curricula.runtime.locks import exclusive
from curricula.runtime.processes import from_first, place
from curricula.runtime.progress import ProgressChoice, check_progress, reported
from curricula.runtime.records import from_json, to_json
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
    MeasuredConfig,
    SplitName,
)
from curricula.training.loading import (
    CHECKPOINTS,
    Checkpoint,
    check_checkpoint,
    check_classes,
    image_spec,
    load_model,
    open_data,
)
from curricula.training.run import (
    AUDIT,
    BEST,
    CERTIFICATES,
    CERTIFYING,
    PROFILE,
    SUITES,
    MeasuredWeights,
    Run,
    check_free,
)
from curricula.training.stored_suites import read_suites, write_suites

if TYPE_CHECKING:
    import torch
    from torch import nn

    from curricula.data.arrays import Layout
    from curricula.data.dataset import DataSet, SplitLike
    from curricula.evaluation.audit import Audit
    from curricula.evaluation.certify import Certificates, ImageCertificate
    from curricula.evaluation.results import Evaluation
    from curricula.evaluation.robustness_profile import RobustnessProfile
    from curricula.interfaces import Norm

PROFILE_IMAGES = 1000  # images of a profile by default
CERTIFIED_IMAGES = 500  # images that are certified by default, as many as Cohen et al. 2019 do
AUDIT_IMAGES = 200  # images of an audit by default: a few minutes for a small network on two cores

Measurable: TypeAlias = "Run | str | Path | nn.Module | Network"
"""A run, its folder, or a model: the subject of `evaluate`, `robustness_profile`, `audit` and
`certify`."""


@known_keywords()
@cpu_by_default()
def evaluate(
    model: Measurable,
    data: Any = None,
    threats: Mapping[str, str] | Iterable[str] | None = None,
    *,
    suite: str | Sequence[str] = (),
    baseline: "Run | str | Path | None" = None,
    normalise: str | None = None,
    layout: "Layout | None" = None,
    split: "SplitName | SplitLike" = "test",
    limit: int | None = None,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    draws: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    report: str | Path | None = None,
    output: str | Path | None = None,
    progress: ProgressChoice = None,
) -> "Evaluation":
    """Return the accuracy of a run or a model under each threat, in float32, and the class
    predicted for each image.

    Args:
        model: a run, its folder, or a classifier of images in [0, 1], which is not changed.
        data: images to measure on: a data set or its expression, a pair (images, labels) of tensors
            or arrays, a torch data set or loader, or a Hugging Face data set; by default the data
            of the run. A run may be measured on other data of equal classes and image shapes.
        threats: expressions, in a list or by name; by default the standard ones: clean, spatial,
            adversarial (PGD-40) and joint, at the budgets of the run's curriculum or else of the
            data set.
        suite: suites whose threats are measured too, before the others: ``standard``, ``spatial``,
            ``corruptions`` or another that a plugin offers, or ``all``; one or more.
        baseline: run that is measured under the same threats, on the same images and with the same
            random draws; the errors of a suite are normalised by it.
        normalise: normalisation of a model's images: ``cifar10``, ``cifar100``, ``imagenet``,
            ``mnist``, ``none`` or ``MEAN/STD``; by default the model has it inside.
        layout: ``NCHW`` or ``NHWC``, the order of the axes of images in arrays; by default it is
            recognised where the shape leaves no doubt.
        split: ``test``; ``validation``, the training images that are held out; or images.
        limit: number of images, the first ones, 1 to 1,000,000,000; by default all.
        seed: seed of the random draws, from 0 to 2**62.
        batch_size: images per batch, 1 to 1,000,000; the results do not depend on it. By default
            250 on a CPU, and elsewhere the fastest.
        draws: passes by which a network that draws random numbers is measured under each threat, 1
            to 1,000,000: the accuracy is that of their majority vote, beside those of a single draw
            and of the mean probabilities. By default one pass.
        device: as in `TrainConfig`; ``auto`` leaves a model on its own device.
        data_root: folder of the data set's files; by default the run's, or ``data``.
        checkpoint: weights of a run: ``best`` on validation, or the ``last`` epoch's.
        report: file to write a page with the results to, such as ``page.html``.
        output: folder to keep a model's weights and results in, which `load_model`, `compare` and
            the commands take like a run.
        progress: True shows a bar on standard error or in the notebook, False shows nothing; by
            default it is shown on a terminal and in a notebook. A function is called after each
            batch with the share of the work that is done, in [0, 1].

    The results of a suite with a table are written into the folder of a run that is measured on its
    own test images, as ``suites.json``; older ones of the suite are replaced.

    Raises:
        UserError: no such run, a damaged checkpoint, a wrong threat, suite, limit, device or
            normalisation; images or labels that are not the run's or the model's; a file or folder
            that cannot be written.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> x, y = torch.rand(20, 28, 28), torch.arange(20) % 10
        >>> for result in curricula.evaluate(model, (x, y), ["clean", "rot:30+pgd:0.1"]):
        ...     print(result.threat.partition("(")[0], result.n, 0 <= result.accuracy <= 1)
        clean 20 True
        rot 20 True
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    _check_foreign(run, normalise, output, split)
    if draws is not None:
        check_whole("draws", draws, 1, MAX_DRAWS)
    suites = _suites(suite)
    named = None if threats is None and not suites else _named(threats or {}, needed=not suites)
    page = None if report is None else as_path("report", report)
    if page is not None:
        check_output(page)
    folder = _free_folder(output)
    if run is not None and (named is None or suites):
        run.check_plugins("perturb")
    beside = None if baseline is None else _baseline_run(baseline, checkpoint)

    from curricula.curriculum import Threat, check_channels
    from curricula.evaluation.accuracy import evaluate_threats
    from curricula.evaluation.progress import EvaluationProgress
    from curricula.evaluation.suites import position_of, suite_threats, with_threats
    from curricula.evaluation.threats import standard_threats
    from curricula.expressions.binding import bind
    from curricula.training.predictions import write_evaluation

    subject = _subject(
        model, run, data, split, limit, normalise, layout, device, data_root, checkpoint
    )
    data_set = subject.data
    if named is not None:
        chosen = {
            name: Threat.parse(text, budgets=data_set.budgets) for name, text in named.items()
        }
        of_suites = suite_threats(
            suites,
            curriculum=subject.perturb,
            budgets=data_set.budgets,
            in_channels=data_set.in_channels,
            data=data_set.name,
        )
        chosen = with_threats(of_suites, chosen)
    else:
        chosen = standard_threats(bind(subject.perturb), data_set.budgets)
    for threat in chosen.values():
        check_channels(threat.tree, data_set.in_channels, data=data_set.name)
    keeper = (
        run if data is None and split == "test" and any(map(position_of, chosen.values())) else None
    )
    if keeper is not None:
        check_output(inside(keeper.path, SUITES))
        read_suites(keeper)  # a damaged file is said before the work
    subjects = [subject]
    if beside is not None:
        with prefixed_errors("baseline"):
            subjects.append(
                _subject(
                    beside,
                    beside,
                    data_set,
                    split,
                    limit,
                    None,
                    None,
                    device,
                    data_root,
                    checkpoint,
                )
            )
    measured: list[Evaluation] = []
    with reported("evaluation", progress) as report_share:
        for each in subjects:
            share = _share(report_share, len(measured), len(subjects))
            work = EvaluationProgress(chosen.values(), share)
            measured.append(
                evaluate_threats(
                    each.network,
                    data_set,
                    each.images,
                    chosen,
                    seed=seed,
                    batch_size=batch_size,
                    draws=draws,
                    began=work.began,
                    after_batch=work.after_batch,
                )
            )
    found = attrs.evolve(measured[0], baseline=measured[1] if beside is not None else None)
    if not place().is_first:
        return found
    if folder is not None:
        assert isinstance(split, str)
        kept = _keep(folder, model, subject, normalise=normalise, root=data_root)
        write_evaluation(kept, split, found)
        keeper = kept if found.tables and split == "test" else None
    if page is not None:
        from curricula.reporting.report import report_results

        report_results(page, found, model=subject.name, data=subject.data.name)
    if keeper is not None:
        about = _measured_weights(keeper, subject, checkpoint)
        others = subjects[1].weights if beside is not None else ""
        write_suites(keeper, found, **about, seed=seed, beside=beside, baseline_weights=others)
    return found


def _share(
    report_share: Callable[[float], None], number: int, count: int
) -> Callable[[float], None]:
    """Return a function that reports the progress of one of several evaluations."""
    return lambda share: report_share((number + share) / count)


def _suites(suite: Any) -> list[str]:
    """Return the suites that the user names.

    Raises:
        UserError: one is not known, or no text.
    """
    texts = [suite] if isinstance(suite, str) else suite
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"suite must be a name, such as standard, or a list of them, not {shown(suite)}"
        )
    for text in texts:
        check_call("suite", text)
    return list(texts)


def _baseline_run(baseline: Any, checkpoint: Checkpoint) -> Run:
    """Return the run to compare with.

    Raises:
        UserError: no such run or checkpoint.
    """
    if not isinstance(baseline, (Run, str, Path)):
        raise UserError(f"baseline must be a run or its folder, not {shown(baseline)}")
    run = baseline if isinstance(baseline, Run) else Run.open(baseline)
    check_checkpoint(run, checkpoint)
    return run


@known_keywords()
@cpu_by_default()
def robustness_profile(
    model: Measurable,
    data: Any = None,
    *,
    normalise: str | None = None,
    layout: "Layout | None" = None,
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
    output: str | Path | None = None,
    progress: ProgressChoice = None,
) -> "RobustnessProfile":
    """Return the robustness profile of a run or a model: accuracy and fooling rate over growing
    ranges of rotation, translation and PGD, alone and jointly (Kamath et al. 2021).

    A run's profile is measured on its test images and, unless other data are given, written into
    its folder as ``profile.json``; an older one is replaced.

    Args:
        model, data, normalise, layout, seed: as for `evaluate`.
        batch_size, device, data_root, checkpoint, output, progress: as for `evaluate`.
        split: as for `evaluate`; only for a model, and without output.
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
    _check_foreign(run, normalise, output, split)
    _check_test_split(run, split, "profile", output=output)
    folder = _free_folder(output)
    check_flag("grid", grid)
    if run is not None:
        run.check_plugins("perturb")
        check_output(inside(run.path, PROFILE))

    from curricula.evaluation.robustness_profile import (
        check_units,
        measure_profile,
        profile_budgets,
    )
    from curricula.expressions.binding import bind

    check_units(budgets or {})
    subject = _subject(
        model, run, data, split, limit, normalise, layout, device, data_root, checkpoint
    )
    known = profile_budgets(bind(subject.perturb), subject.data.budgets) if run else {}
    with reported("profile", progress) as report_share:
        found = measure_profile(
            subject.network,
            subject.data,
            subject.images,
            budgets={**known, **(budgets or {})},
            grid=grid,
            seed=seed,
            batch_size=batch_size,
            name=name or subject.name,
            progress=report_share,
        )
    if place().is_first:
        if folder is not None:
            run = _keep(folder, model, subject, normalise=normalise, root=data_root)
        if run is not None and (data is None or folder is not None):
            about = _measured_weights(run, subject, checkpoint)
            run.write_json(PROFILE, {**about, **to_json(found)})
    return found


@known_keywords()
@cpu_by_default()
def audit(
    model: Measurable,
    data: Any = None,
    *,
    normalise: str | None = None,
    layout: "Layout | None" = None,
    split: "SplitName | SplitLike" = "test",
    eps: float | None = None,
    norm: "Norm | None" = None,
    limit: int | None = AUDIT_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    output: str | Path | None = None,
    transfer_from: "Measurable | None" = None,
    progress: ProgressChoice = None,
) -> "Audit":
    """Return the audit of a run or a model: sanity checks for gradient masking, which makes attacks
    fail without making a model robust (Carlini et al. 2019; Croce and Hein 2020).

    A run's audit is made on its test images and, unless other data are given, written into its
    folder as ``audit.json``; an older one is replaced.

    Args:
        model, data, normalise, layout, seed: as for `evaluate`.
        batch_size, device, data_root, checkpoint, output, progress: as for `evaluate`.
        split: as for `evaluate`; only for a model, and without output.
        eps: radius of the ball, in [0, 1] pixel units; by default that of the first pixel attack
            of the run's curriculum, or else the data set's budget.
        norm: norm of the ball, ``linf``, ``l2`` or ``l1``; by default that attack's, or ``linf``.
        limit: number of images, the first ones, 1 to 1,000,000,000; None for all.
        transfer_from: a run, its folder or a classifier of the same images, from which adversarial
            images are transferred; by default a copy of the model that is trained plainly on a
            thousand training images, ten times, if the data have any.

    Raises:
        UserError: as `evaluate` does; a transfer_from that does not classify the images; an eps
            out of range; a folder that cannot be written to.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> checks = curricula.audit(model, data="digits", limit=1).checks
        >>> checks[0].name, checks[0].passed
        ('deterministic forward', True)
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    _check_foreign(run, normalise, output, split)
    _check_test_split(run, split, "audit", output=output)
    folder = _free_folder(output)
    if eps is not None:
        check_number("eps", eps, 0)
    if run is not None:
        run.check_plugins("perturb")
        check_output(inside(run.path, AUDIT))

    from curricula.evaluation import audit as auditing
    from curricula.evaluation.threats import pixel_budget
    from curricula.expressions.binding import bind
    from curricula.interfaces import Norm

    if norm is not None:
        check_choice("norm", norm, get_args(Norm))
    subject = _subject(
        model, run, data, split, limit, normalise, layout, device, data_root, checkpoint
    )
    if run is not None and eps is None and norm is None:
        budget, norm = pixel_budget(bind(subject.perturb), subject.data.budgets)
        eps = budget.value
    source = None if transfer_from is None else _source(transfer_from, subject, data_root)
    with reported("audit", progress) as report_share:
        found = auditing.audit(
            subject.network,
            subject.data,
            subject.images,
            eps=eps,
            norm=norm or "linf",
            seed=seed,
            batch_size=batch_size,
            transfer_from=source,
            progress=report_share,
        )
    if place().is_first:
        if folder is not None:
            run = _keep(folder, model, subject, normalise=normalise, root=data_root)
        if run is not None and (data is None or folder is not None):
            about = _measured_weights(run, subject, checkpoint)
            run.write_json(AUDIT, {**about, **to_json(found)})
    return found


@known_keywords()
@cpu_by_default()
def certify(
    model: Measurable,
    data: Any = None,
    *,
    noise: str = "gaussian:0.25",
    n0: int = 100,
    draws: int = 100_000,
    alpha: float = 0.001,
    group: str | None = None,
    normalise: str | None = None,
    layout: "Layout | None" = None,
    split: "SplitName | SplitLike" = "test",
    limit: int | None = CERTIFIED_IMAGES,
    seed: int = EVALUATION_SEED,
    batch_size: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    checkpoint: Checkpoint = "best",
    output: str | Path | None = None,
    progress: ProgressChoice = None,
) -> "Certificates":
    """Return the certified l-2 radius of each image for the smoothed classifier of a run or a
    model, which predicts the class that the network predicts most often on the noisy image (Cohen,
    Rosenfeld and Kolter 2019).

    A run is certified on its test images and, unless other data are given, the result goes into its
    folder as ``certificates.json``; an older one is replaced. Until then each finished image is
    kept there, so that an interrupted call continues when it is made again.

    Args:
        model, data, normalise, layout, seed: as for `evaluate`.
        device, data_root, checkpoint, output, progress: as for `evaluate`.
        noise: the noise, ``gaussian:SIGMA``, by which the network was trained too.
        n0: draws of the noise by which the class is selected, 1 to 100,000,000.
        draws: draws by which its probability is bounded, 1 to 100,000,000.
        alpha: largest probability that a certificate is wrong, from 1e-12 to 0.5.
        group: rotations and reflections under which the network is invariant exactly, ``c2``,
            ``c4``, ``d1``, ``d2`` or ``d4``: the certificates then hold around each of them
            (Schuchardt and Guennemann 2022).
        split: as for `evaluate`; only for a model, and without output.
        limit: number of images, the first ones, 1 to 1,000,000,000; None for all.
        batch_size: draws at once, 1 to 1,000,000; the draws do not depend on it. By default 250 on
            a CPU, and elsewhere the fastest.

    Raises:
        UserError: as `evaluate` does; noise that is not Gaussian; a network that draws random
            numbers or is not invariant; a value out of range.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> found = curricula.certify(model, data="digits", limit=2, draws=100)
        >>> len(found.radii), 0 <= found.accuracy(0.1) <= 1
        (2, True)
    """
    run = _checked(
        model, data, split, limit, seed, batch_size, device, data_root, checkpoint, progress
    )
    _check_foreign(run, normalise, output, split)
    _check_test_split(run, split, "certificate", output=output)
    check_perturbation(noise)
    folder = _free_folder(output)
    if run is not None:
        check_output(inside(run.path, CERTIFICATES))

    from curricula.evaluation import certify as certifying

    certifying.check_draws(n0, draws, alpha)
    certifying.gaussian_threat(noise)
    if group is not None:
        certifying.check_group(group)
    subject = _subject(
        model, run, data, split, limit, normalise, layout, device, data_root, checkpoint
    )
    if folder is not None:
        keeping = partial(_keep, folder, model, subject, normalise=normalise, root=data_root)
        run = Run(from_first(lambda: str(keeping().path)))
    kept = run if data is None or folder is not None else None
    settings = {"noise": noise, "n0": n0, "draws": draws, "group": group, "seed": seed}
    done, finished = _finished_images(kept, subject, settings)
    with reported("certify", progress) as report_share:
        found = certifying.certify_images(
            subject.network,
            subject.data,
            subject.images,
            noise=noise,
            n0=n0,
            draws=draws,
            alpha=alpha,
            group=group,
            seed=seed,
            batch_size=batch_size,
            name=subject.name,
            done=done,
            keep=finished,
            progress=report_share,
        )
    if place().is_first and kept is not None:
        about = _measured_weights(kept, subject, checkpoint)
        kept.write_json(CERTIFICATES, {**about, **to_json(found)})
        kept.remove(_working_file(subject, settings))
    return found


def _working_file(subject: "_Subject", settings: Mapping[str, Any]) -> str:
    """Return the name of the file that keeps the finished images of a certification: equal for
    equal weights and settings, so that no others are mixed with them."""
    from curricula.models.kept_state import kept
    from curricula.models.weights import digest_of

    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in kept(subject.network, "model").items()
    }
    texts = {name: str(value) for name, value in settings.items()}
    return f"{CERTIFYING}{digest_of(tensors, texts)}.jsonl"


def _finished_images(
    run: Run | None, subject: "_Subject", settings: Mapping[str, Any]
) -> "tuple[dict[int, ImageCertificate], Callable[[int, ImageCertificate], None]]":
    """Return the images that an interrupted certification has finished, by index, and the function
    that keeps another one in the run's folder.

    Raises:
        UserError: the file is damaged.
    """
    from curricula.evaluation.certify import FinishedImage, ImageCertificate

    if run is None:
        return {}, lambda index, image: None
    file = _working_file(subject, settings)
    if place().is_first:
        run.end_lines(file)
    found = read_finished(run, file, settings["draws"])

    def keep(index: int, image: ImageCertificate) -> None:
        run.append(file, to_json(FinishedImage(index=index, image=image)))

    return found, keep


def read_finished(run: Run, file: str, draws: int) -> "dict[int, ImageCertificate]":
    """Return the images in a file of an unfinished certification, by index.

    Raises:
        UserError: the file is damaged.
    """
    from curricula.evaluation.certify import FinishedImage, check_votes

    with run.reading(file):
        lines = from_json(list[FinishedImage], from_first(lambda: run.lines(file)))
        check_votes((line.image for line in lines), draws)
    return {line.index: line.image for line in lines}


def _source(model: Measurable, subject: "_Subject", data_root: str | Path | None) -> "nn.Module":
    """Return the network from which adversarial images are transferred, on the subject's device.

    Raises:
        UserError: it is no classifier of the subject's images.
    """
    from torch import nn

    from curricula.victim.copies import uncompiled
    from curricula.victim.equivalence import MAX_IMAGES, to_device
    from curricula.victim.model_checks import check_measurable

    if isinstance(model, Network):
        network = model.module
    elif isinstance(model, nn.Module):
        network = uncompiled(model)
    elif isinstance(model, (Run, str, Path)):
        run = model if isinstance(model, Run) else Run.open(model)
        check_classes(run, subject.data, "name another transfer_from (--transfer)")
        network = load_model(run)
    else:
        raise UserError(
            f"transfer_from must be a run, its folder or a torch.nn.Module, not {shown(model)}"
        )
    some = subject.data.images(subject.images[slice(MAX_IMAGES)].load().pixels)
    try:
        check_measurable(
            network.to(some.device), some, subject.images.labels, subject.data.num_classes
        )
    except UserError as error:
        raise UserError(
            f"transfer_from (--transfer) must classify the images of {subject.data.name}: {error}"
        ) from error
    return to_device(network, some, some.device)


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
    """Check the arguments that the functions of this module share, and return the
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
    check_progress(progress)
    if isinstance(split, str):
        check_choice("split", split, get_args(SplitName))
    else:
        from curricula.data.dataset import Split, SplitLike

        if not isinstance(split, (Split, SplitLike)):  # a wrong Split has its own message
            raise UserError(
                f"split must be test, validation or labelled images, not {shown(split)}"
            )
    if isinstance(data, str):
        check_call("dataset", data)
    if isinstance(model, (Run, str, Path)):
        run = model if isinstance(model, Run) else Run.open(model)
        check_checkpoint(run, checkpoint)
        return run
    if isinstance(model, Network):
        return None
    if data is None and callable(model):
        raise UserError("a model is measured on data: give data=, such as data='digits'")

    from torch import nn

    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a run, its folder or a torch.nn.Module, not {shown(model)}")
    return None


def _check_foreign(
    run: Run | None, normalise: Any, output: Any = None, split: Any = "test"
) -> None:
    """Check the arguments that are for a model, not for a run.

    Raises:
        UserError: a run was given one of them, or it is wrong.
    """
    for name, value in (("normalise", normalise), ("output", output)):
        if run is not None and value is not None:
            raise UserError(f"{name} is for a model: run {run.path} has its own; leave it out")
    if normalise is not None:
        parse_normalisation(normalise)
    if output is not None and not isinstance(split, str):
        raise UserError(
            "output keeps results on a split of data: give the images as data, not as split"
        )


def _named(threats: Any, *, needed: bool = True) -> Mapping[str, str]:
    """Return the expression of each threat by name; in a list, each expression is its own name.

    Args:
        threats: what the user gave.
        needed: refuse none at all.

    Raises:
        UserError: none at all, or one that is not an expression.
    """
    texts = [threats] if isinstance(threats, str) else threats
    if not isinstance(texts, Iterable):
        raise UserError(f"threats must be a list of expressions, not {shown(threats)}")
    named = dict(texts) if isinstance(texts, Mapping) else None
    texts = list(texts) if named is None else list(named.values())
    if not texts and needed:
        raise UserError("threats is empty: name one or more, or leave it out for the standard ones")
    for text in texts:
        check_perturbation(text)
    for name in named or ():
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UserError(f"the name of a threat must be text on one line, not {shown(name)}")
    return named if named is not None else {text: text for text in texts}


def _check_test_split(
    run: Run | None, split: "SplitName | SplitLike", what: str, *, output: Any
) -> None:
    if (run is not None or output is not None) and split != "test":
        raise UserError(f"the {what} of a run is measured on its test images: leave out split")


def _free_folder(output: Any) -> Path | None:
    """Return the folder to keep a model in, after checking that it is free; None for none."""
    folder = None if output is None else as_path("output", output)
    if folder is not None:
        check_free(folder)
    return folder


def _images(data: "DataSet", split: "SplitName | SplitLike", limit: int | None) -> "SplitLike":
    """Return the first test or validation images of a data set, or of the labelled images that were
    given.

    Raises:
        UserError: the images that were given are not those of the data set, or none.
    """
    from curricula.data.dataset import as_split, first

    if not isinstance(split, str):
        return first(as_split(split, data), limit)
    return first(data.test if split == "test" else data.with_validation()[1], limit)


def _device(model: Measurable, name: str) -> "torch.device":
    """Return the torch device to measure on; ``auto`` is the device of a module's parameters, or
    the best one for a run."""
    import torch

    from curricula.runtime.devices import resolve_device

    if name == "auto" and not isinstance(model, (Run, str, Path, Network)):
        tensors = (*model.parameters(), *model.buffers())
        return tensors[0].device if tensors else torch.device("cpu")
    return resolve_device(name)


@attrs.frozen(kw_only=True, eq=False)
class _Subject:
    """A network with the images to measure it on.

    Attributes:
        network: the network, on the device.
        data: the data set of the images.
        data_text: its expression.
        images: the images, on the device.
        perturb: the curriculum that it was trained under.
        name: its name, for captions.
        weights: digest of the run's checkpoint; empty for a model.
    """

    network: "nn.Module"
    data: "DataSet"
    data_text: str
    images: "SplitLike"
    perturb: str
    name: str
    weights: str


def _subject(
    model: Measurable,
    run: Run | None,
    data: Any,
    split: "SplitName | SplitLike",
    limit: int | None,
    normalise: str | None,
    layout: "Layout | None",
    device: str,
    data_root: str | Path | None,
    checkpoint: Checkpoint,
) -> _Subject:
    """Return the network of a run, or a model, with the images to measure it on.

    Raises:
        UserError: the images are not those of the run, or the model is no classifier of them.
    """
    from curricula.data.dataset import DataSet
    from curricula.models.class_names import check_stated_classes, is_numbered
    from curricula.victim.copies import uncompiled
    from curricula.victim.equivalence import MAX_IMAGES, to_device
    from curricula.victim.model_checks import check_measurable

    where = _device(model, device)
    data_set, text = _data(model, run, data, data_root, layout)
    images = _images(data_set, split, limit)
    some = data_set.images(images[slice(MAX_IMAGES)].load().pixels)
    perturb, network, weights = CLEAN, model, ""
    if run is not None:
        config = run.model_config
        weights = run.digest(CHECKPOINTS[checkpoint])  # before: a training may replace the file
        name, perturb = f"{config.model}, {checkpoint} checkpoint of {run.path}", config.perturb
        network = to_device(load_model(run, checkpoint=checkpoint), some, where)
    elif isinstance(model, Network):
        name = model.name
        network = to_device(model.module, some, where)
        check_measurable(network, some.to(where), images.labels, data_set.num_classes)
    else:
        assert not isinstance(model, (Run, str, Path))
        model = uncompiled(model)
        name = type(model).__name__
        network = _prepared(model, normalise, data_set.in_channels, where)
        known = isinstance(data, DataSet) or (isinstance(data, str) and len(data_set.train) > 0)
        stated = known or not is_numbered(data_set.classes)
        classes = data_set.num_classes if stated else None
        outputs = check_measurable(network, some.to(where), images.labels, classes)
        if not stated:
            data_set = _with_outputs(data_set, outputs)
    if run is None:
        check_stated_classes(network, data_set.classes, data_set.name)
    return _Subject(
        network=network,
        data=data_set,
        data_text=text,
        images=images.to(where),
        perturb=perturb,
        name=name,
        weights=weights,
    )


def _measured_weights(run: Run, subject: _Subject, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a file of measurements in a run's folder says of the weights, for JSON."""
    weights = subject.weights or run.digest(CHECKPOINTS[checkpoint])
    return attrs.asdict(MeasuredWeights(checkpoint=checkpoint, weights=weights))


def _data(
    model: Measurable,
    run: Run | None,
    data: Any,
    root: str | Path | None,
    layout: "Layout | None",
) -> "tuple[DataSet, str]":
    """Return the data set to measure on, and its expression: the given one, or the one that the
    run was trained on, or that a network was built for."""
    from curricula.data.dataset import as_dataset, resolve_data

    if data is None and run is not None:
        return open_data(run, root=root), run.model_config.data
    if data is None and isinstance(model, Network):
        return model.data, model.config.data
    if isinstance(data, str):
        if layout is not None:
            raise UserError(f"layout is for arrays: {data} states its own; leave it out")
        loaded = resolve_data(data, root=root or "data", download=False)
        data_set, text = loaded.value, str(loaded.call)
    else:
        data_set, text = as_dataset(data, root=root or "data", layout=layout), given(data)
    if run is not None:
        data_set = _of_run(data_set, run)
    return data_set, text


def _of_run(data: "DataSet", run: Run) -> "DataSet":
    """Return data that a run was not trained on, after checking that they fit its network; data
    without class names have those of the run.

    Raises:
        UserError: other classes, channels or sizes.
    """
    from curricula.models.class_names import is_numbered

    spec = image_spec(run)
    fix = "name and order them alike, or train on these data"
    check_classes(run, data, fix)
    fits = is_numbered(data.classes) and data.num_classes <= spec.num_classes
    if not fits and data.classes != spec.classes:
        raise UserError(
            f"the classes of {data.name} are {_listed(data.classes)}; those of run {run.path} are "
            f"{_listed(spec.classes)}: {fix}"
        )
    data = attrs.evolve(data, classes=spec.classes)
    theirs, own = data.image_shape, spec.image_shape
    if theirs != own:
        raise UserError(
            f"the images of {data.name} are of {'x'.join(map(str, theirs))} (channels, height, "
            f"width), and run {run.path} takes {'x'.join(map(str, own))}: convert them first"
        )
    return data


def _listed(classes: Sequence[str]) -> str:
    return f"{len(classes):,} ({shortened(', '.join(classes))})"


def _with_outputs(data: "DataSet", outputs: int) -> "DataSet":
    """Return data without class names with a class for each output of a network."""
    count = max(outputs, data.num_classes)
    return attrs.evolve(data, classes=tuple(str(number) for number in range(count)))


def _prepared(
    model: "nn.Module", normalise: str | None, in_channels: int, where: "torch.device"
) -> "nn.Module":
    """Return a model on the device ``where`` with its stated normalisation: the model itself, or a
    copy of it where it has to change."""
    from curricula.models.normalise import with_normalisation
    from curricula.victim.copies import copied

    if _device(model, "auto") == where and normalise is None:
        return model
    return with_normalisation(copied(model), normalise or OWN, in_channels).to(where)


def _keep(
    folder: Path,
    model: Measurable,
    subject: _Subject,
    *,
    normalise: str | None,
    root: str | Path | None,
) -> Run:
    """Write a folder like a run's with a model from elsewhere and its weights, and return it."""
    from curricula.data.identity import identity_of
    from curricula.models.kept_state import kept
    from curricula.training.probe import probe_of
    from curricula.victim.copies import uncompiled

    if isinstance(model, Network):
        config = model.config
    else:
        assert not isinstance(model, (Run, str, Path))
        config = MeasuredConfig(
            data=subject.data_text,
            data_root=str(root or "data"),
            model=given(uncompiled(model)),
            normalise=normalise or OWN,
            weights="",
        )
    with exclusive(folder):
        run = Run.create(folder, config, identity_of(subject.data))
        probe = probe_of(subject.network, subject.data.image_shape)
        run.save(BEST, kept(subject.network, "model"), probe)
    return run
