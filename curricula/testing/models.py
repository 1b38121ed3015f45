"""The contract of a model, one function a clause; each raises AssertionError when broken.

A clause takes the factory, and says on which images it is tried. Under pytest::

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
from curricula.testing.fixtures import assert_as_before, state_of
from curricula.victim.model_checks import check_classifier
from curricula.victim.model_victim import ModelVictim

IMAGES = 3
TOLERANCE = 1e-4  # of logits, relative to the largest: another batch is summed in another order
EQUIVALENT = 1e-5  # of logits, relative to the largest
RATE = 1e-3  # of an update by the gradient's sign
SMALLEST = (1, 2)


class Factory(Protocol):
    """What a record of a model names, its other arguments left out."""

    def __call__(self, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module: ...


class Images(TypedDict, total=False):
    """On which images a model is tried.

    Keys:
        image_size: height and width; 32 by default.
        channels: the channel counts that it takes; 1 and 3 by default.
        num_classes: 5 by default.
    """

    image_size: int
    channels: Collection[int]
    num_classes: int


@attrs.frozen(kw_only=True, eq=False)
class Trial:
    """A factory, and a batch for its models."""

    factory: Factory
    x_NCHW: Tensor
    y_N: Tensor
    num_classes: int

    def build(self, seed: int = 0) -> nn.Module:
        """A model with the fresh weights of a seed."""
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            return self.factory(
                num_classes=self.num_classes,
                in_channels=self.x_NCHW.shape[1],
                image_size=self.x_NCHW.shape[-1],
            )

    def backward(self, model: nn.Module) -> None:
        """The gradients of a training step, in training mode."""
        model.train().zero_grad()
        with torch.random.fork_rng([]):  # dropout draws from it
            loss = F.cross_entropy(model(self.x_NCHW.clone()), self.y_N)
        loss.backward()  # type: ignore[no-untyped-call]

    def train(self, model: nn.Module) -> nn.Module:
        """The same model after two updates, in training mode: nothing of it is as it was."""
        for _ in range(2):
            self.backward(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(RATE * parameter.grad.sign())
        return model


def _trials(
    factory: Factory,
    *,
    image_size: int = 32,
    channels: Collection[int] = (1, 3),
    num_classes: int = 5,
) -> list[Trial]:
    """A trial for each channel count, the largest first."""
    trials = []
    for count in sorted(channels, reverse=True):
        generator = torch.Generator().manual_seed(count)
        x = torch.rand((IMAGES, count, image_size, image_size), generator=generator)
        x[0] = (x[0] > 0.5).float()  # the ends of [0, 1] too
        y = torch.arange(IMAGES) % num_classes
        trials.append(Trial(factory=factory, x_NCHW=x, y_N=y, num_classes=num_classes))
    return trials


def _rest(model: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Logits in evaluation mode."""
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
    """What `train` demands: see curricula.victim.model_checks.check_classifier."""
    for trial in _trials(factory, **images):
        try:
            check_classifier(trial.build(), trial.x_NCHW, trial.num_classes)
        except UserError as error:
            raise AssertionError(str(error)) from error


def logits_are_finite_in_each_mode_and_precision(
    factory: Factory, **images: Unpack[Images]
) -> None:
    """(N, num_classes), finite, at rest and in training, in float32 and under bf16 autocast."""
    trial = _trials(factory, **images)[0]
    model = trial.build()
    for training in (False, True):
        for precision in ("float32", "bf16"):
            with (
                torch.random.fork_rng([]),
                autocast(trial.x_NCHW.device, precision),
            ):
                logits = model.train(training)(trial.x_NCHW.clone())
            where = f"{precision}, {'in training' if training else 'at rest'}"
            shape = (IMAGES, trial.num_classes)
            assert logits.shape == shape, f"{where}: shape {tuple(logits.shape)}, not {shape}"
            assert logits.is_floating_point(), f"{where}: logits of {logits.dtype}"
            assert logits.isfinite().all(), f"{where}: logits that are not finite"


def eval_logits_do_not_depend_on_the_batch(factory: Factory, **images: Unpack[Images]) -> None:
    """In evaluation mode: same image, same logits, whatever is beside it in the batch; global
    random state not moved."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    before = torch.get_rng_state()
    logits = _rest(model, trial.x_NCHW)
    assert torch.equal(before, torch.get_rng_state()), "the global random state moved"
    _assert_close(_rest(model, trial.x_NCHW), logits, TOLERANCE, "asked again")
    alone = torch.cat([_rest(model, x[None]) for x in trial.x_NCHW])
    _assert_close(alone, logits, TOLERANCE, "each image alone")


def seed_determines_the_weights(factory: Factory, **images: Unpack[Images]) -> None:
    """Fresh weights are drawn from torch's global random state alone."""
    trial = _trials(factory, **images)[0]
    first, second = (trial.build(seed=1).state_dict() for _ in range(2))
    for name, value in first.items():
        if isinstance(value, Tensor):
            same = torch.equal(value, second[name])
            assert same, f"{name} differs between two models of the same seed"


def checkpoint_loads_in_any_mode(factory: Factory, **images: Unpack[Images]) -> None:
    """Into a fresh model, whatever mode it is saved in and loaded in: the same logits, and the
    mode is kept."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    expected = _rest(model, trial.x_NCHW)
    for saving in (False, True):
        stream = io.BytesIO()
        torch.save(model.train(saving).state_dict(), stream)
        for loading in (False, True):
            stream.seek(0)
            other = trial.build(seed=1).train(loading)
            case = f"saved {_mode(saving)} and loaded {_mode(loading)}"
            try:
                other.load_state_dict(torch.load(stream, weights_only=True))
            except RuntimeError as error:
                raise AssertionError(f"{case}: {' '.join(str(error).split())}") from error
            assert other.training == loading, f"{case}: the mode is another then"
            _assert_close(_rest(other, trial.x_NCHW), expected, TOLERANCE, case)


def _mode(training: bool) -> str:
    return "in training" if training else "at rest"


def every_weight_is_trained(factory: Factory, **images: Unpack[Images]) -> None:
    """Each parameter that requires a gradient gets a finite one; some are not zero."""
    trial = _trials(factory, **images)[0]
    model = trial.build()
    trial.backward(model)
    moved = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            moved = moved or bool(parameter.grad.any())
    assert moved, "nothing can be learnt: every gradient is zero"


def input_is_not_changed(factory: Factory, **images: Unpack[Images]) -> None:
    """The images are not written to, at rest or in training."""
    trial = _trials(factory, **images)[0]
    model, x = trial.build(), trial.x_NCHW.clone()
    for training in (False, True):
        with torch.random.fork_rng([]), torch.no_grad():
            model.train(training)(x)
        assert torch.equal(x, trial.x_NCHW), f"it writes to its images {_mode(training)}"


def victim_matches_the_model(factory: Factory, **images: Unpack[Images]) -> None:
    """The frozen copy that attacks see gives the model's logits, also after a training step, and
    leaves the model as it was."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    before = state_of(model)
    victim = ModelVictim(model)
    victim.gradient(trial.x_NCHW, trial.y_N)
    assert_as_before(model, before)
    for when in ("at first", "after an update"):
        with torch.no_grad():
            seen = victim.logits(trial.x_NCHW)
        _assert_close(seen, _rest(model, trial.x_NCHW), TOLERANCE, when)
        trial.train(model)


def plain_equivalent_matches_the_model(factory: Factory, **images: Unpack[Images]) -> None:
    """Where it offers one: equal logits at rest, also after a training step; asking for it leaves
    the model as it was."""
    trial = _trials(factory, **images)[0]
    model = trial.train(trial.build())
    if not isinstance(model, HasPlainEquivalent):
        return
    for when in ("at first", "after an update"):
        before = state_of(model.train())
        plain = model.plain_equivalent()
        assert_as_before(model, before)
        ours, theirs = _rest(plain, trial.x_NCHW), _rest(model, trial.x_NCHW)
        _assert_close(ours, theirs, EQUIVALENT, when)
        trial.train(model)


def unsupported_size_is_refused(factory: Factory, **images: Unpack[Images]) -> None:
    """Images of one or two pixels a side: it works on them, or the factory says in a ValueError
    which it takes."""
    for side in SMALLEST:
        smaller: Images = {**images, "image_size": side}
        for trial in _trials(factory, **smaller):
            try:
                shape = _rest(trial.build(), trial.x_NCHW).shape
            except ValueError:  # a UserError is one
                continue
            except Exception as error:
                raise AssertionError(
                    f"{side}x{side}: {type(error).__name__} ({error}); let the factory raise a "
                    "ValueError that says which sizes it takes"
                ) from error
            assert shape == (IMAGES, trial.num_classes), f"{side}x{side}: shape {tuple(shape)}"


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
    """Every clause at once: what is broken, by the clause's name; empty if all is well.

    Args:
        factory: takes ``num_classes``, ``in_channels`` and ``image_size``; functools.partial binds
            what else it needs.
        **images: on which it is tried, see `Images`.
    """
    return broken_clauses(MODEL_CLAUSES, factory, **images)
