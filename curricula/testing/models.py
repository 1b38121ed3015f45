"""The contract of a model: one function for each clause, which raises AssertionError.

A clause takes the factory, and keywords for the images to try it on. Under pytest::

    @pytest.mark.parametrize("clause", MODEL_CLAUSES)
    def test_patches_keeps_the_contract(clause):
        clause(patches, image_size=16)
"""

import io
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypedDict, Unpack

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.interfaces import HasPlainEquivalent
from curricula.runtime.precision import autocast
from curricula.testing.contract import broken_clauses
from curricula.testing.fixtures import assert_unchanged, state_of
from curricula.victim.model_checks import check_classifier
from curricula.victim.model_victim import ModelVictim

NUM_IMAGES = 3  # images
TOLERANCE = 1e-4  # share of the largest logit; the order of sums depends on the batch
EQUIVALENT_TOLERANCE = 1e-5  # share of the largest logit
LEARNING_RATE = 1e-3  # change of each weight in an update by the gradient's sign
SMALL_SIZES = (1, 2)  # pixels


class Factory(Protocol):
    """A callable that builds a model from ``num_classes``, ``in_channels`` and ``image_size``."""

    def __call__(self, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module: ...


class Images(TypedDict, total=False):
    """Size, channels and number of classes of the images to try a model on.

    Keys:
        image_size: height and width in pixels; 32 by default.
        channels: numbers of channels that the model takes; 1 and 3 by default.
        num_classes: number of classes; 5 by default.
    """

    image_size: int
    channels: Collection[int]
    num_classes: int


@attrs.frozen(kw_only=True, eq=False)
class Trial:
    """A model's factory, with a batch of images and labels for its models."""

    factory: Factory
    x_NCHW: Tensor
    y_N: Tensor
    num_classes: int

    def build(self, seed: int = 0) -> nn.Module:
        """Return a new model, whose initial weights depend on the seed."""
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            return self.factory(
                num_classes=self.num_classes,
                in_channels=self.x_NCHW.shape[1],
                image_size=self.x_NCHW.shape[-1],
            )

    def backward(self, model: nn.Module) -> None:
        """Compute the gradients of the cross-entropy on the batch, in training mode."""
        model.train().zero_grad()
        with torch.random.fork_rng([]):  # dropout uses it
            loss = F.cross_entropy(model(self.x_NCHW.clone()), self.y_N)
        loss.backward()  # type: ignore[no-untyped-call]

    def train(self, model: nn.Module) -> nn.Module:
        """Run two updates in training mode, which change weights and buffers, and return the
        model."""
        for _ in range(2):
            self.backward(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(LEARNING_RATE * parameter.grad.sign())
        return model


def _trials(
    factory: Factory,
    *,
    image_size: int = 32,
    channels: Collection[int] = (1, 3),
    num_classes: int = 5,
) -> list[Trial]:
    """Return a trial for each number of channels, most channels first."""
    trials = []
    for count in sorted(channels, reverse=True):
        generator = torch.Generator().manual_seed(count)
        x = torch.rand((NUM_IMAGES, count, image_size, image_size), generator=generator)
        x[0] = (x[0] > 0.5).float()  # include both ends of [0, 1]
        y = torch.arange(NUM_IMAGES) % num_classes
        trials.append(Trial(factory=factory, x_NCHW=x, y_N=y, num_classes=num_classes))
    return trials


def _eval_logits(model: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Return the model's logits (N, K) on the images in eval mode."""
    with torch.no_grad():
        logits: Tensor = model.eval()(x_NCHW.clone())
    return logits


def _assert_close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    difference = float((a - b).abs().max())
    scale = float(b.abs().max())
    assert difference <= tolerance * scale, (
        f"{what}: the logits differ by {difference:.2e}, and the largest is {scale:.2e}"
    )


def model_is_a_classifier(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that the model is a classifier as `curricula.train` requires; see
    curricula.victim.model_checks.check_classifier."""
    for trial in _trials(factory, **images):
        try:
            check_classifier(trial.build(), trial.x_NCHW, trial.num_classes)
        except UserError as error:
            raise AssertionError(str(error)) from error


def logits_are_finite_in_each_mode_and_precision(
    factory: Factory, **images: Unpack[Images]
) -> None:
    """Check that logits are finite and (N, num_classes), in each mode, in float32 and bf16."""
    trial = _trials(factory, **images)[0]
    model = trial.build()
    for training in (False, True):
        for precision in ("float32", "bf16"):
            with (
                torch.random.fork_rng([]),
                autocast(trial.x_NCHW.device, precision),
            ):
                logits = model.train(training)(trial.x_NCHW.clone())
            where = f"{precision}, {_mode(training)}"
            shape = (NUM_IMAGES, trial.num_classes)
            assert logits.shape == shape, f"{where}: shape {tuple(logits.shape)}, not {shape}"
            assert logits.is_floating_point(), f"{where}: logits of {logits.dtype}"
            assert logits.isfinite().all(), f"{where}: logits are not finite"


def eval_logits_do_not_depend_on_the_batch(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that in eval mode the logits of an image do not depend on the rest of the batch, and
    that the global random state does not change."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    before = torch.get_rng_state()
    logits = _eval_logits(model, trial.x_NCHW)
    assert torch.equal(before, torch.get_rng_state()), "the global random state changed"
    _assert_close(_eval_logits(model, trial.x_NCHW), logits, TOLERANCE, "in a second pass")
    alone = torch.cat([_eval_logits(model, x[None]) for x in trial.x_NCHW])
    _assert_close(alone, logits, TOLERANCE, "each image alone")


def seed_determines_the_weights(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that initial weights depend only on torch's global random state."""
    trial = _trials(factory, **images)[0]
    first, second = (trial.build(seed=1).state_dict() for _ in range(2))
    for name, value in first.items():
        if isinstance(value, Tensor):
            same = torch.equal(value, second[name])
            assert same, f"{name} differs between two models of the same seed"


def checkpoint_loads_in_any_mode(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that a new model with a loaded checkpoint has the same logits, for each mode of saving
    and of loading, and keeps its mode."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    expected = _eval_logits(model, trial.x_NCHW)
    for saving in (False, True):
        stream = io.BytesIO()
        torch.save(model.train(saving).state_dict(), stream)
        stream.seek(0)
        state = torch.load(stream, weights_only=True)
        for loading in (False, True):
            other = trial.build(seed=1).train(loading)
            case = f"saved {_mode(saving)} and loaded {_mode(loading)}"
            try:
                other.load_state_dict(state)
            except RuntimeError as error:
                raise AssertionError(f"{case}: {' '.join(str(error).split())}") from error
            assert other.training == loading, f"{case}: the mode changed"
            _assert_close(_eval_logits(other, trial.x_NCHW), expected, TOLERANCE, case)


def _mode(training: bool) -> str:
    return "in training mode" if training else "in eval mode"


def every_weight_is_trained(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that each trainable parameter gets a finite gradient, and some are not zero."""
    trial = _trials(factory, **images)[0]
    model = trial.build()
    trial.backward(model)
    moved = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            moved = moved or bool(parameter.grad.any())
    assert moved, "the model cannot learn: every gradient is zero"


def input_is_not_changed(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that the images are not written to, in eval or training mode."""
    trial = _trials(factory, **images)[0]
    model, x = trial.build(), trial.x_NCHW.clone()
    for training in (False, True):
        with torch.random.fork_rng([]), torch.no_grad():
            model.train(training)(x)
        assert torch.equal(x, trial.x_NCHW), f"it writes to its images {_mode(training)}"


def victim_matches_the_model(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that the frozen copy for attacks gives the model's logits, also after a training step,
    and does not change the model."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    before = state_of(model)
    victim = ModelVictim(model)
    victim.gradient(trial.x_NCHW, trial.y_N)
    assert_unchanged(model, before)
    for when in ("at first", "after an update"):
        with torch.no_grad():
            seen = victim.logits(trial.x_NCHW)
        _assert_close(seen, _eval_logits(model, trial.x_NCHW), TOLERANCE, when)
        trial.train(model)


def plain_equivalent_matches_the_model(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that a plain equivalent, if there is one, has equal logits in eval mode, also after a
    training step, and that making it does not change the model."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    if not isinstance(model, HasPlainEquivalent):
        return
    for when in ("at first", "after an update"):
        before = state_of(model.train())
        plain = model.plain_equivalent()
        assert_unchanged(model, before)
        ours, theirs = _eval_logits(plain, trial.x_NCHW), _eval_logits(model, trial.x_NCHW)
        _assert_close(ours, theirs, EQUIVALENT_TOLERANCE, when)
        trial.train(model)


def unsupported_size_is_refused(factory: Factory, **images: Unpack[Images]) -> None:
    """Check that images of 1x1 and 2x2 pixels work, or that the factory raises a ValueError that
    says which sizes work."""
    for side in SMALL_SIZES:
        smaller: Images = {**images, "image_size": side}
        for trial in _trials(factory, **smaller):
            try:
                shape = _eval_logits(trial.build(), trial.x_NCHW).shape
            except ValueError:  # a UserError is one
                continue
            except Exception as error:
                raise AssertionError(
                    f"{side}x{side}: {type(error).__name__} ({error}); let the factory raise a "
                    "ValueError that says which sizes it takes"
                ) from error
            assert shape == (NUM_IMAGES, trial.num_classes), f"{side}x{side}: shape {tuple(shape)}"


ModelClause = Callable[..., None]

MODEL_CLAUSES: tuple[ModelClause, ...] = (
    model_is_a_classifier,
    logits_are_finite_in_each_mode_and_precision,
    eval_logits_do_not_depend_on_the_batch,
    seed_determines_the_weights,
    checkpoint_loads_in_any_mode,
    every_weight_is_trained,
    input_is_not_changed,
    victim_matches_the_model,
    plain_equivalent_matches_the_model,
    unsupported_size_is_refused,
)


def check_model(factory: Callable[..., Any], **images: Unpack[Images]) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold.

    Args:
        factory: takes ``num_classes``, ``in_channels`` and ``image_size``; functools.partial binds
            further arguments.
        **images: the images to try it on; see `Images`.
    """
    return broken_clauses(MODEL_CLAUSES, factory, **images)
