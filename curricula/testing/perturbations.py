"""The contract of a perturbation: one function for each clause, which raises AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", PERTURBATION_CLAUSES)
    def test_haze_keeps_the_contract(clause):
        clause(Haze(budget=0.5))
"""

from collections.abc import Callable, Mapping
from typing import cast, get_args

import torch
from torch import Tensor

from curricula.interfaces import (
    Norm,
    NormBound,
    ParametricPerturbation,
    Perturbation,
    declaration_problem,
)
from curricula.testing.contract import broken_clauses
from curricula.testing.fixtures import Fixture, assert_unchanged, make_fixture, state_of

TOLERANCE = 1e-6  # rounding of float32 values in [0, 1]


def _fixture(
    perturbation: Perturbation, *, n: int = 6, height: int = 12, width: int = 12
) -> Fixture:
    """Return a fixture with N images and a number of channels that the perturbation declares."""
    channels = max(perturbation.channels or {3})
    return make_fixture(n, channels, height, width)


def strength_zero_is_the_identity(perturbation: Perturbation) -> None:
    """Check that strength 0, of all images or of some images in a batch, changes no bit."""
    fixture = _fixture(perturbation)
    assert torch.equal(fixture.run(perturbation, 0.0), fixture.x_NCHW), (
        "strength 0.0 changed the images"
    )
    strength_N = torch.linspace(0, 1, len(fixture.y_N)).round()
    same = (fixture.run(perturbation, strength_N) == fixture.x_NCHW).flatten(1).all(1)
    assert same[strength_N == 0].all(), "an image of strength 0 changed among others of strength 1"


def output_is_an_image_like_the_input(perturbation: Perturbation) -> None:
    """Check that the output is finite, detached, in [0, 1], and like the input in shape, dtype and
    device."""
    fixture = _fixture(perturbation)
    for strength in (0.0, 0.3, 1.0):
        out = fixture.run(perturbation, strength)
        assert out.shape == fixture.x_NCHW.shape, f"shape {tuple(out.shape)}"
        assert out.dtype == fixture.x_NCHW.dtype, f"dtype {out.dtype}"
        assert out.device == fixture.x_NCHW.device, f"device {out.device}"
        assert out.isfinite().all(), "a value is not finite"
        assert out.min() >= 0, f"a pixel of {float(out.min())}, below 0"
        assert out.max() <= 1, f"a pixel of {float(out.max())}, above 1"
        assert not out.requires_grad, "the output is not detached"


def input_is_not_changed(perturbation: Perturbation) -> None:
    """Check that images and labels are not written to and get no gradient."""
    fixture = _fixture(perturbation)
    x, y = fixture.x_NCHW.clone(), fixture.y_N.clone()
    out = fixture.run(perturbation)
    out.fill_(0.5)  # a view of the input would show
    assert torch.equal(x, fixture.x_NCHW), "the input images changed"
    assert torch.equal(y, fixture.y_N), "the labels changed"
    assert fixture.x_NCHW.grad is None, "a gradient was left on the input"
    assert not fixture.x_NCHW.requires_grad, "the input now requires a gradient"


def norm_bound_holds_for_each_image(perturbation: Perturbation) -> None:
    """Check at mixed strengths that each image changes by at most its strength times the radius."""
    fixture = _fixture(perturbation)
    strength_N = torch.linspace(0, 1, len(fixture.y_N))
    _assert_norm_bound(
        perturbation, fixture.x_NCHW, fixture.run(perturbation, strength_N), strength_N
    )


def _assert_norm_bound(
    perturbation: Perturbation, x_NCHW: Tensor, out_NCHW: Tensor, strength_N: Tensor
) -> None:
    norm_bound = perturbation.norm_bound
    if norm_bound is None:
        return
    change = (out_NCHW - x_NCHW).flatten(1)
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm_bound.norm]
    norm_N = torch.linalg.vector_norm(change.double(), ord=order, dim=1)
    excess = float((norm_N - strength_N * norm_bound.radius).max())
    assert excess <= TOLERANCE * max(1.0, norm_bound.radius), (
        f"the {norm_bound.norm} norm bound is exceeded by {excess:.2e}"
    )


def model_is_not_changed(perturbation: Perturbation) -> None:
    """Check that parameters, gradients, buffers, training flags and requires_grad do not change."""
    fixture = _fixture(perturbation)
    fixture.model.train()
    fixture.model[2].eval()  # type: ignore[index]  # a frozen layer, as fine-tuning has it
    before = state_of(fixture.model)
    fixture.run(perturbation)
    assert_unchanged(fixture.model, before)


def generator_determines_the_result(perturbation: Perturbation) -> None:
    """Check that the result depends only on the generator, not on the global random state."""
    fixture = _fixture(perturbation)
    first = fixture.run(perturbation, seed=1)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(987)
        before = torch.get_rng_state()
        second = fixture.run(perturbation, seed=1)
        assert torch.equal(before, torch.get_rng_state()), "the global random state changed"
    assert torch.equal(first, second), "the result depends on more than the generator"


def any_batch_works(perturbation: Perturbation) -> None:
    """Check that a single image, each declared number of channels and non-square images work."""
    for channels in sorted(perturbation.channels or {1, 3}):
        for n, height, width in ((1, 12, 12), (3, 10, 14), (2, 15, 9)):
            fixture = make_fixture(n, channels, height, width)
            out = fixture.run(perturbation)
            assert out.shape == fixture.x_NCHW.shape, f"{n} x {channels} x {height} x {width}"
            assert out.isfinite().all(), f"not finite at {n} x {channels} x {height} x {width}"
            _assert_norm_bound(perturbation, fixture.x_NCHW, out, torch.ones(n))


def attributes_are_declared(perturbation: Perturbation) -> None:
    """Check that the declared attributes, such as kind, unit and norm_bound, are valid."""
    problem = declaration_problem(perturbation)
    assert problem is None, problem
    assert perturbation.unit, "no unit"
    assert perturbation.budget >= 0, f"budget {perturbation.budget}"
    assert perturbation.channels is None or perturbation.channels, "no number of channels works"
    assert isinstance(perturbation.training_only, bool)
    if perturbation.unit in get_args(Norm) and not perturbation.training_only:
        assert perturbation.norm_bound == NormBound(
            norm=cast(Norm, perturbation.unit), radius=perturbation.budget
        ), f"its budget is in {perturbation.unit}, so it must declare that ball as its norm_bound"


def parameters_can_be_searched(perturbation: Perturbation) -> None:
    """Check that `sample`, `grid` and `apply`, if they exist, use the same parameters, that a grid
    of strength 0 is the identity, and that every point of a grid gives an image."""
    if not isinstance(perturbation, ParametricPerturbation):
        return
    fixture = _fixture(perturbation)
    n = len(fixture.y_N)
    drawn = perturbation.sample(n, 1.0, torch.Generator().manual_seed(0))
    for strength in (0.0, 1.0, torch.linspace(0, 1, n)):
        grid = perturbation.grid(strength, 3)
        rows = grid if isinstance(strength, Tensor) else grid[:, None].expand(-1, n, -1)
        assert rows.shape[1:] == drawn.shape, f"sample is {drawn.shape[1:]}, grid {grid.shape[1:]}"
        points = torch.cat([perturbation.apply(fixture.x_NCHW, row).detach() for row in rows])
        assert points.min() >= 0, "a point of the grid leaves [0, 1]"
        assert points.max() <= 1, "a point of the grid leaves [0, 1]"
        same = (
            (points.reshape(len(rows), *fixture.x_NCHW.shape) == fixture.x_NCHW).flatten(2).all(2)
        )
        if not isinstance(strength, Tensor):
            assert same.all() or strength > 0, "the grid of strength 0 changes the images"
            assert same.any(), "the identity is not among an odd number of points"
        else:
            assert same[:, 0].all(), "the grid of an image of strength 0 changes it"


Clause = Callable[[Perturbation], None]

PERTURBATION_CLAUSES: tuple[Clause, ...] = (
    attributes_are_declared,
    strength_zero_is_the_identity,
    output_is_an_image_like_the_input,
    input_is_not_changed,
    norm_bound_holds_for_each_image,
    model_is_not_changed,
    generator_determines_the_result,
    any_batch_works,
    parameters_can_be_searched,
)


def check_perturbation(perturbation: Perturbation) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(PERTURBATION_CLAUSES, perturbation)
