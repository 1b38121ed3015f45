"""Fixtures of the contracts: a small model with all state that must not change, and images."""

import functools

import attrs
import torch
from torch import Tensor, nn

from curricula.interfaces import Perturbation, Strength
from curricula.models.normalise import Normalise
from curricula.victim.model_victim import ModelVictim

NUM_CLASSES = 4  # classes


@attrs.frozen(kw_only=True, eq=False)
class Fixture:
    """A small model with all state that an attack must not change (batch norm, dropout, gradients),
    and a batch of images for it."""

    model: nn.Module
    x_NCHW: Tensor
    y_N: Tensor

    @functools.cached_property
    def victim(self) -> ModelVictim:
        """The model as a `ModelVictim`, the form that perturbations attack."""
        return ModelVictim(self.model)

    def run(self, perturbation: Perturbation, strength: Strength = 1.0, seed: int = 0) -> Tensor:
        """Return the batch's images, perturbed at a strength with a seed, NCHW."""
        victim = self.victim.with_reference(self.x_NCHW)
        generator = torch.Generator().manual_seed(seed)
        return perturbation(
            self.x_NCHW, self.y_N, strength=strength, victim=victim, generator=generator
        )


def make_fixture(n: int, channels: int, height: int, width: int) -> Fixture:
    """Return a fixture with N images of the given size, and a model whose parameters all have a
    gradient."""
    generator = torch.Generator().manual_seed(n + 10 * channels)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(
            Normalise(),
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, NUM_CLASSES),
        )
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    x = torch.rand((n, channels, height, width), generator=generator)
    x[0] = (x[0] > 0.5).float()  # include both ends of [0, 1]
    return Fixture(model=model, x_NCHW=x, y_N=torch.arange(n) % NUM_CLASSES)


def state_of(model: nn.Module) -> dict[str, object]:
    """Return a model's parameters, gradients, buffers, training flags and requires_grad, each by a
    name for messages."""
    found: dict[str, object] = {}
    for name, parameter in model.named_parameters():
        found[f"parameter {name}"] = parameter.detach().clone()
        found[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"requires_grad of {name}"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = buffer.clone()
    for name, module in model.named_modules():
        found[f"training flag of {name or 'the whole model'}"] = module.training
    return found


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    """Check that a model's parameters, gradients, buffers and flags equal those that `state_of`
    returned."""
    after = state_of(model)
    for name, value in before.items():
        other = after[name]
        same = (
            torch.equal(value, other)
            if isinstance(value, Tensor) and isinstance(other, Tensor)
            else value is other
        )
        assert same, f"the model's {name} changed"
