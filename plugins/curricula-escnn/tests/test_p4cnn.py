"""p4cnn: invariant to quarter turns, whatever is done to its weights and its mode."""

import pytest
import torch
import torch.nn.functional as F
from curricula_escnn.models import p4cnn

from curricula.victim import ModelVictim

X = torch.rand((4, 1, 28, 28), generator=torch.Generator().manual_seed(0))


def trained(width=4):
    """Two steps away from its initial weights and batch-norm statistics."""
    torch.manual_seed(0)
    model = p4cnn(10, 1, 28, width=width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        F.cross_entropy(model(X), torch.arange(4)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_logits_are_invariant_to_quarter_turns(quarters):
    model = trained().eval()
    assert (model(X) - model(X.rot90(quarters, (2, 3)))).abs().max() < 1e-4
    assert (model(X) - model(X.roll(5, 3))).abs().max() > 1e-3  # it does look at the image


@pytest.mark.parametrize("saved_training", [True, False])
@pytest.mark.parametrize("loaded_training", [True, False])
def test_a_checkpoint_loads_whatever_mode_it_was_saved_in(saved_training, loaded_training):
    model = trained()
    state = model.train(saved_training).state_dict()
    assert not [name for name in state if name.endswith((".filter", ".expanded_bias"))]
    other = p4cnn(10, 1, 28, width=4).train(loaded_training)
    other.load_state_dict(state)
    assert other.training == loaded_training
    torch.testing.assert_close(other.eval()(X), model.eval()(X))


def test_its_plain_equivalent_is_the_same_function_and_leaves_it_as_it_was():
    model = trained().train()
    model.equivariant[1].eval()  # a frozen layer, as fine-tuning has it
    flags = [module.training for module in model.modules()]
    plain = model.plain_equivalent()
    assert flags == [module.training for module in model.modules()]
    assert (plain(X) - model.eval()(X)).abs().max() < 1e-5


def test_the_victim_follows_its_weights():
    model = trained()
    victim = ModelVictim(model)
    before = victim.logits(X)
    with torch.no_grad():
        model.equivariant[0].weights.mul_(1.5)
    after = victim.logits(X)
    assert not torch.allclose(before, after)
    assert (after - model.eval()(X)).abs().max() < 1e-5
