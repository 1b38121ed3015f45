"""The source of a transfer attack: a copy of a network, trained plainly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.data.dataset import DataSet
from curricula.errors import UserError, message_of
from curricula.runtime.random_state import seeded
from curricula.victim.copies import copied
from curricula.victim.outputs import logits_of

TRAINING_IMAGES, EPOCHS, BATCH = 1000, 10, 50  # images, passes over them, images per update
LR = 2e-3  # largest learning rate of Adam


def plain_copy(model: nn.Module, data: DataSet, *, seed: int, device: torch.device) -> nn.Module:
    """Return a copy of a network with fresh weights, trained on clean images, in eval mode.

    It costs ``TRAINING_IMAGES`` times ``EPOCHS`` training passes. Weights of modules without
    ``reset_parameters`` start from the network's.

    Args:
        model: the network; it is not changed.
        data: the data set, whose training images are used.
        seed: seed of the weights, the images and their order.
        device: the device of the network.

    Raises:
        UserError: there are no training images, or the copy cannot be trained on them.
    """
    if not len(data.train):
        raise UserError(f"{data.name} has no training images")
    with seeded(seed, device):
        try:
            copy = copied(model).requires_grad_(True).train()
            for module in copy.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            _train(copy, data, device)
        except Exception as error:  # third-party code, in a mode that it may not have
            raise UserError(
                f"a copy of the model cannot be trained: {message_of(error)}"
            ) from error
    return copy.eval()


def _train(network: nn.Module, data: DataSet, device: torch.device) -> None:
    """Train a network on some of a data set's training images, by Adam with a learning rate that
    falls to zero."""
    train = data.train.to(device)
    chosen = torch.randperm(len(train))[:TRAINING_IMAGES]
    steps = EPOCHS * -(-len(chosen) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = chosen[torch.randperm(len(chosen))]
            for _, batch in train.batches(order, BATCH):
                logits: Tensor = logits_of(network(data.images(batch.pixels)))
                optimizer.zero_grad()
                loss: Tensor = F.cross_entropy(logits, batch.labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
