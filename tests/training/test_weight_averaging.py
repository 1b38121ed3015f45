"""Averages of the weights follow their formulas, and are saved and evaluated."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.training.run import LAST, METRICS
from curricula.training.weight_averaging import averaged, parse_averaging


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def test_an_exponential_average_follows_its_recurrence():
    model = network()
    average = averaged(model, parse_averaging("ema(decay=0.5)").value)
    expected = None
    for n in range(12):
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_()
        average.update_parameters(model)
        weight = model[0].weight.detach()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = weight.clone() if n == 0 else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average.module[0].weight.detach(), expected)


def test_a_stochastic_average_is_the_mean_with_its_buffers():
    model = network().train()
    average = averaged(model, parse_averaging("swa").value)
    weights, means = [], []
    for _ in range(5):
        with torch.no_grad():
            model[4].weight.normal_()
        model(torch.rand(6, 1, 4, 4))
        average.update_parameters(model)
        weights.append(model[4].weight.detach().clone())
        means.append(model[1].running_mean.clone())
    torch.testing.assert_close(average.module[4].weight.detach(), torch.stack(weights).mean(0))
    torch.testing.assert_close(average.module[1].running_mean, torch.stack(means).mean(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ewma", "unknown average 'ewma'; known: none, ema, swa"),
        ("none(1)", "unknown average"),
        ("ema(decay=1)", "decay must be below 1"),
        ("swa(start=-1)", "start must be 0 or more"),
        ("ema(rate=0.5)", "rate"),
    ],
)
def test_wrong_averages_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_averaging(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("average", ["ema(decay=0.9)", "swa(start=0)"])
def test_the_average_is_saved_and_evaluated(tiny, tmp_path, average):
    trained = curricula.train(data="tiny", average=average, epochs=3, output=tmp_path / "run")
    last = curricula.load_model(trained.run, checkpoint="last")
    tensors = load_file(trained.run.path / LAST)
    names = [name for name, _ in last.named_parameters()]
    for name, weight in last.named_parameters():
        assert torch.equal(weight, tensors[f"average.module.{name}"])
    assert any(
        not torch.equal(tensors[f"model.{name}"], tensors[f"average.module.{name}"])
        for name in names
    )
    kept = curricula.load_model(trained.run, checkpoint="best")
    metrics = trained.run.lines(METRICS)
    assert metrics[-1]["best"] == all(
        torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True)
    )
    again = curricula.evaluate(trained.run)
    assert [result.correct for result in again] == [r.correct for r in trained.results]
    assert trained.run.config.average == average
