"""Networks of other forms than ours train to the end, and like ours."""

import warnings

import pytest
import torch
from torch import nn

import curricula
from curricula.errors import UserError


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip


class InMapping(nn.Module):
    """Returns its logits in a mapping, as Hugging Face's networks do."""

    def __init__(self):
        super().__init__()
        self.body = plain()

    def forward(self, x):
        return {"logits": self.body(x), "loss": None}


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(plain())


def correct(model, path, **values):
    """Return the numbers of correctly classified images after a training."""
    trained = curricula.train(
        data="tiny", model=model, epochs=2, perturb="rot:20+pgd(0.1, steps=2)",
        precision="float32", output=path, **values,
    )  # fmt: skip
    return [result.correct for result in trained.results]


def test_logits_in_a_mapping_train_as_logits_do(tiny, tmp_path):
    expected = correct(plain(), tmp_path / "plain")
    assert correct(InMapping(), tmp_path / "mapping") == expected
    assert expected[0] > 20  # of 60, so it has learnt


@pytest.mark.parametrize("average", ["none", "ema"])
@pytest.mark.parametrize("make", [scripted, lambda: plain().double()], ids=["script", "float64"])
def test_torchscript_and_float64_train_to_the_end(tiny, make, average, tmp_path):
    assert correct(make(), tmp_path / "run", average=average)[0] > 20


def test_a_default_dtype_of_float64_trains(tiny, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        assert correct("tinycnn", tmp_path / "run")[0] > 20
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_replaced_forward_is_refused_before_anything_is_written(tiny, tmp_path):
    network = plain()
    forward = network.forward
    network.forward = lambda x: forward(2 * x)
    with pytest.raises(UserError, match=r"^model given\(.*\) runs modules .* do not belong to it"):
        correct(network, tmp_path / "run")
    assert not (tmp_path / "run").exists()
