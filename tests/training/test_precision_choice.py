"""The precision that a training gets: bf16 only where its gradients are right."""

import pytest
import torch
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.runtime import devices
from curricula.training.objects import Objects
from curricula.training.plan import make_plan
from curricula.training.precision_choice import choose_precision

CPU = torch.device("cpu")


class Strided(nn.Module):
    """A network whose convolution has a stride, as a function and not as a layer."""

    def __init__(self, stride, height, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3, 3, 3))
        self.head = nn.LazyLinear(2)
        self.stride = stride
        self(torch.rand(1, 3, height, width))

    def forward(self, x):
        x = nn.functional.conv2d(x, self.weight, stride=self.stride, padding=1)
        return self.head(x.flatten(1))


@pytest.fixture(autouse=True)
def native_bf16(monkeypatch):
    monkeypatch.setattr(devices, "_native_bf16", lambda device: True)


@pytest.mark.parametrize(
    ("stride", "height", "width"), [(2, 1, 1), (3, 2, 2), ((1, 2), 4, 1), (4, 9, 3)]
)
@pytest.mark.parametrize("form", ["module", "traced"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stride_wider_than_the_input_gets_float32(stride, height, width, form):
    network, x = Strided(stride, height, width), torch.rand(2, 3, height, width)
    network = torch.jit.trace(network.eval(), x) if form == "traced" else network
    precision, (line,) = choose_precision("auto", network, x, CPU)
    assert precision == "float32"
    assert f"on an input that is {width} wide" in line
    assert choose_precision("float32", network, x, CPU) == ("float32", ())
    with pytest.raises(UserError, match=r"precision bf16: a convolution has a stride of .*float32"):
        choose_precision("bf16", network, x, CPU)


@pytest.mark.parametrize(
    ("stride", "height", "width"), [(2, 2, 2), (1, 1, 1), ((2, 1), 1, 1), (4, 3, 4)]
)
@pytest.mark.parametrize("choice", ["auto", "bf16"])
def test_others_get_bf16(choice, stride, height, width):
    """The gradients are those of float64, also where freed memory is full of NaN."""
    network, x = Strided(stride, height, width), torch.rand(2, 3, height, width)
    assert choose_precision(choice, network, x, CPU) == ("bf16", ())
    logits = network.double()(x.double())
    (expected,) = torch.autograd.grad(logits.square().sum(), network.weight)
    network.float()
    for _ in range(5):
        dirty = [torch.full((size,), float("nan")) for size in (54, 64, 108, 256, 1024, 4096)]
        del dirty
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(x).float().square().sum()
        (found,) = torch.autograd.grad(loss, network.weight)
        torch.testing.assert_close(
            found.double(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max())
        )


def test_a_training_says_so(tmp_path):
    """The convolution that is frozen before it does not hide the second one."""
    network = nn.Sequential(
        nn.AvgPool2d(14), nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten(),
        nn.Linear(4, 10),
    )  # fmt: skip
    network[1].requires_grad_(False)
    with pytest.raises(UserError, match=r"a convolution has a stride of 2 .* 1 wide"):
        curricula.train(model=network, precision="bf16", epochs=1, output=tmp_path / "run")
    plan = make_plan({"model": "given(Net)", "precision": "auto"}, objects=Objects(model=network))
    assert (plan.precision, plan.config.precision) == ("float32", "float32")
    assert any(line.startswith("precision: float32, since") for line in plan.notes)
