"""Networks with buffers that are not persistent and with extra state are continued and loaded."""

import pytest
import torch
from fixtures.outcomes import outcome
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.models.kept_state import kept
from curricula.models.weights import load_weights, read_weights
from curricula.training.callbacks import NoCallback
from curricula.training.objects import Objects
from curricula.training.plan import make_plan
from curricula.training.run import BEST

SETTINGS = {
    "data": "tiny", "perturb": "pgd(0.1, steps=1)", "epochs": 2, "lr": 0.05, "batch_size": 20,
    "device": "cpu", "precision": "float32", "compile": "off",
}  # fmt: skip


class Net(nn.Module):
    """Subtracts a mean that it follows in training, and scales logits by what it has counted."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        self.register_buffer("last", None, persistent=False)
        self.count = 0

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean() + 1
            self.last = x.detach()[:1, 0, 0]
            self.count += 1
        last = 0.0 if self.last is None else self.last.mean()
        return self.body(x - self.mean - last) * (1 + 0.5 * self.count)

    def get_extra_state(self):
        return {"count": self.count, "names": ["a", None]}

    def set_extra_state(self, state):
        self.count = state["count"]


class KillAt(NoCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, update):
        if update.progress.step == self.step:
            raise KeyboardInterrupt


def net():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("average", ["none", "ema(decay=0.5)"])
def test_a_training_continues_and_its_network_loads_exactly(tiny, tmp_path, average):
    settings = {**SETTINGS, "average": average}
    whole = curricula.train(model=net(), output=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        curricula.train(
            model=net(), output=tmp_path / "cut", checkpoint_every=1, callbacks=[KillAt(3)],
            **settings,
        )  # fmt: skip
    curricula.resume(tmp_path / "cut", model=net())
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    loaded = curricula.load_model(whole.run, model=net())
    assert loaded.mean > 1
    assert (loaded.last is not None) == (average == "none")  # an average has none to begin with
    values = {**SETTINGS, "model": "given(Net)", "init": str(whole.run.path)}
    started = make_plan(values, objects=Objects(model=net())).build_model()
    assert (started.mean, started.count) == (loaded.mean, loaded.count)
    found = curricula.evaluate(loaded, "tiny", [each.threat for each in whole.results])
    assert [each.correct for each in found] == [each.correct for each in whole.results]


def test_plain_torch_loads_the_rest_of_the_file(tiny, tmp_path):
    curricula.evaluate(net(), "tiny", ["clean"], output=tmp_path / "kept")
    other = net()
    with torch.no_grad():
        other.mean.add_(1)
    load_weights(other, read_weights(tmp_path / "kept" / BEST))
    assert other.mean == 0
    tensors = load_file(tmp_path / "kept" / BEST)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    begin = "model.body."
    plain.load_state_dict({n.removeprefix(begin): t for n, t in tensors.items() if begin in n})
    assert "aside.model.mean" in tensors


class Returns(nn.Linear):
    def __init__(self, state):
        super().__init__(784, 10)
        self.state = state

    def forward(self, x):
        return super().forward(x.flatten(1))

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


class NoWayBack(Returns):
    def set_extra_state(self, state):
        raise KeyError("count")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Returns({1, 2}), "has extra state _extra_state, a set, that a run cannot keep"),
        (Returns({"t": torch.zeros(2)}), "a dict, that a run cannot keep: let get_extra_state"),
        (Returns((1, 2)), "a tuple, that a run"),
        (Returns({1: "a"}), "a dict, that a run"),
        (NoWayBack({"a": 1}), "does not take its extra state back"),
    ],
    ids=["set", "tensors", "tuple", "whole keys", "no way back"],
)
def test_other_extra_state_is_refused_in_training_and_measured(tiny, tmp_path, model, message):
    with pytest.raises(UserError, match=message) as caught:
        curricula.train(model=model, output=tmp_path / "run", **SETTINGS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    found = curricula.evaluate(model, "tiny", ["clean"], output=tmp_path / "kept")
    if not isinstance(model, NoWayBack):
        again = curricula.load_model(tmp_path / "kept", model=model)
        assert [each.correct for each in curricula.evaluate(again, "tiny", ["clean"])] == [
            each.correct for each in found
        ]


@pytest.mark.parametrize("state", [torch.arange(3), {"a": [1.5, True]}, "text", None, 7])
def test_extra_state_that_is_kept(state):
    found = kept(Returns(state), "model")
    assert len(found) == 3
