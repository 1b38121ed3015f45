"""The optimisers of curricula are those of torch, number by number."""

import copy

import pytest
import torch
from torch import nn

from curricula.training.optimizers import SGD, AdamW


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (AdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ],
)
def test_updates_and_states_are_those_of_torch(ours, theirs, settings, generator):
    x = torch.rand((8, 3), generator=generator)
    model = nn.Linear(3, 2)
    found = []
    for optimizer_class in (ours, theirs):
        network = copy.deepcopy(model)
        optimizer = optimizer_class(network.parameters(), **settings)
        for factor in (1.0, 0.5, 0.25):
            optimizer.param_groups[0]["lr"] = settings["lr"] * factor
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
        found.append((network.state_dict(), optimizer.state_dict()))
    (weights, state), (expected_weights, expected_state) = found
    assert all(torch.equal(weights[name], expected_weights[name]) for name in expected_weights)
    assert state["param_groups"] == expected_state["param_groups"]
    for index, values in expected_state["state"].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(state["state"][index][name]), torch.as_tensor(value))


def test_step_hooks_are_called():
    network = nn.Linear(2, 1)
    called = []
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: called.append(True))
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert called == [True]
