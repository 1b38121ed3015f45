"""A batch in parts is the same update; gradients are clipped; a training ends early."""

import pytest
import torch

import curricula
from curricula.data.dataset import batches
from curricula.errors import UserError
from curricula.interfaces import Progress
from curricula.training.plan import make_plan
from curricula.training.run import METRICS
from curricula.training.step import Networks, start, update

VALUES = {
    "data": "random(size=12, channels=1, images=120)",
    "model": "lenet",
    "epochs": 1,
    "batch_size": 25,
    "lr": 0.05,
    "optimizer": "sgd",
    "precision": "float32",
    "compile": "off",
    "augmentation": "clean",
}


def trained(updates=3, **values):
    """Return the weights after some updates, each update's figures, and the norms of its step."""
    plan = make_plan(VALUES | values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = start(plan)
    networks = Networks.of(plan, state.model)
    done = []
    progress = Progress(step=0, total_steps=10, epoch=0, total_epochs=1)
    drawn = batches(plan.data.train, 25, generator=torch.Generator().manual_seed(1))
    for _, (indices, batch) in zip(range(updates), drawn, strict=False):
        done.append(update(plan, state, networks, indices, batch, progress))
    weights = torch.cat([weight.detach().flatten() for weight in state.model.parameters()])
    return weights, done, state


@pytest.mark.parametrize("objective", ["at", "trades"])
@pytest.mark.parametrize("awp", [0.0, 0.01])
def test_a_batch_in_parts_is_the_same_update(objective, awp):
    values = {"objective": objective, "awp": awp}
    whole, expected, _ = trained(**values)
    parts, found, _ = trained(**values, accumulate=4)  # 7, 7, 7 and 4 images
    assert torch.allclose(parts, whole, rtol=0, atol=1e-6)
    for of_parts, of_whole in zip(found, expected, strict=True):
        assert torch.allclose(of_parts.loss, of_whole.loss, atol=1e-5)
        assert torch.equal(of_parts.correct_N, of_whole.correct_N)


def test_images_keep_their_own_strength_in_parts(tiny):
    values = VALUES | {"perturb": "pgd(0.1, steps=1)", "schedule": ["per-image"], "accumulate": 3}
    plan = make_plan(values)
    state = start(plan)
    networks = Networks.of(plan, state.model)
    indices, batch = next(batches(plan.data.train, 25, generator=None))
    progress = Progress(step=0, total_steps=10, epoch=0, total_epochs=1)
    done = update(plan, state, networks, indices, batch, progress)
    assert done.correct_N.shape == (25,)
    assert done.strengths["pgd"].shape == (25,)


def test_gradients_are_scaled_to_the_largest_norm():
    _, _, free = trained(updates=1)
    _, _, clipped = trained(updates=1, clip_norm=1e-3)
    unclipped = torch.cat([p.grad.flatten() for p in free.model.parameters()])
    found = torch.cat([p.grad.flatten() for p in clipped.model.parameters()])
    assert unclipped.norm() > 1e-2
    assert torch.allclose(found.norm(), torch.tensor(1e-3), rtol=1e-3)
    assert torch.allclose(found / found.norm(), unclipped / unclipped.norm(), atol=1e-5)


def test_a_training_ends_after_epochs_without_a_better_one(tiny, tmp_path, monkeypatch):
    joint = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.4, 0.9])
    monkeypatch.setattr(
        "curricula.training.loop._Training._validate",
        lambda self, threats: {"clean": 0.5, "joint": next(joint)},
    )
    values = {"data": "tiny", "model": "tinycnn(width=2)", "perturb": "rot", "compile": "off"}
    trained = curricula.train(
        **values, schedule=["step(0:0.5, 0.2:1)"], epochs=10, stop_after=2, output=tmp_path / "run"
    )
    # Epochs 1 and 2 are not at full strength. The fourth equals the second; two follow.
    assert [line["epoch"] for line in trained.run.lines(METRICS)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="is finished"):
        curricula.resume(trained.run)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accumulate": 0}, "accumulate must be 1 or more, not 0"),
        ({"accumulate": 26}, r"accumulate \(--accumulate\) must be at most batch_size, 25, not 26"),
        ({"clip_norm": -1.0}, "clip_norm must be 0 or more, not -1"),
        ({"clip_norm": float("nan")}, "clip_norm must be"),
        ({"stop_after": -1}, "stop_after must be 0 or more, not -1"),
        ({"validation_limit": -1}, "validation_limit must be 0 or more, not -1"),
    ],
)
def test_a_wrong_value_is_one_line(values, message):
    with pytest.raises(UserError, match=message):
        make_plan(VALUES | values)
