"""Compare our `autoattack` with the code of AutoAttack's authors (PyPI: pyautoattack), both in
full: 100 steps towards nine targets, and 5,000 queries of Square.

    python tests/tools/autoattack_parity.py [--images 200] [--eps 0.06 --eps 0.08]

A small residual network of torchvision is trained on digits with rot+pgd, so that its robust
accuracy is neither 0 nor 100 %. The exit status is 1 if the numbers of robust images differ by more
than 1 % of the images. It takes a few minutes of one core.
"""

import tempfile
import time

import click
import pyautoattack
import torch
from script import Script
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

import curricula

ALLOWED = 0.01  # largest difference of the robust images, as a share of the images
SIDE = 14  # pixels of an image's height and width
TRAINING = {
    "perturb": "rot:15+pgd(0.08, steps=3)", "epochs": 12, "batch_size": 32, "optimizer": "adamw",
    "lr": 0.002, "precision": "float32", "compile": "off",
}  # fmt: skip


def colour_images(data: curricula.DataSet, split: curricula.data.Split) -> tuple[Tensor, Tensor]:
    """Return the images of a split as colour images (N, 3, 14, 14) in [0, 1], with their labels."""
    x_NCHW = data.images(split.pixels).repeat(1, 3, 1, 1)
    return nn.functional.adaptive_avg_pool2d(x_NCHW, SIDE), split.labels


def trained(data: dict[str, tuple[Tensor, Tensor]], seed: int) -> nn.Module:
    """Return a residual network after a short training with rotations and PGD."""
    torch.manual_seed(seed)
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    with tempfile.TemporaryDirectory() as folder:
        run = curricula.train(
            model=network, data=data, seed=seed, output=f"{folder}/run", **TRAINING
        ).run
        return curricula.load_model(run, model=network).eval()


def robust_by_theirs(network: nn.Module, x_NCHW: Tensor, y_N: Tensor, eps: float) -> Tensor:
    """Return a mask (N,) of the images that the authors' standard AutoAttack does not fool."""
    adversary = pyautoattack.AutoAttack(network, norm="Linf", eps=eps, seed=0)
    x_adversarial, _ = adversary.run_standard_evaluation(x_NCHW, y_N)
    assert float((x_adversarial - x_NCHW).abs().max()) <= eps * 1.0001
    with torch.no_grad():
        return network(x_adversarial).argmax(1) == y_N


def robust_by_ours(network: nn.Module, x_NCHW: Tensor, y_N: Tensor, eps: float) -> Tensor:
    """Return a mask (N,) of the images that `autoattack` does not fool."""
    results = curricula.evaluate(network, (x_NCHW, y_N), [f"autoattack:{eps}"])
    (predicted_N,) = results.predictions.values()
    return torch.as_tensor(predicted_N) == y_N


@click.command(cls=Script)
@click.option("--images", default=200, help="Test images, 1 to 500.", show_default=True)
@click.option(
    "--eps", "budgets", type=float, multiple=True, default=(0.06, 0.08), show_default=True
)
@click.option("--seed", default=0, help="Seed of the training.", show_default=True)
def main(images: int, budgets: tuple[float, ...], seed: int) -> None:
    """Print the numbers of robust images under both AutoAttacks; exit with 1 if they differ by more
    than 1 % of the images."""
    digits = curricula.load_data("digits")
    data = {part: colour_images(digits, getattr(digits, part)) for part in ("train", "test")}
    network = trained(data, seed)
    x_NCHW, y_N = (tensor[:images] for tensor in data["test"])
    with torch.no_grad():
        clean = int((network(x_NCHW).argmax(1) == y_N).sum())
    click.echo(f"{len(y_N)} images, {clean} classified correctly")
    apart = False
    for eps in budgets:
        found, seconds = [], []
        for robust in (robust_by_theirs, robust_by_ours):
            begin = time.perf_counter()
            found.append(robust(network, x_NCHW, y_N, eps))
            seconds.append(time.perf_counter() - begin)
        theirs, ours = found
        apart |= abs(int(theirs.sum()) - int(ours.sum())) > ALLOWED * len(y_N)
        click.echo(
            f"eps {eps}: robust {int(theirs.sum())} of the authors' ({seconds[0]:.0f} s), "
            f"{int(ours.sum())} of ours ({seconds[1]:.0f} s); the two differ on "
            f"{int((theirs != ours).sum())} images"
        )
    raise SystemExit(int(apart))


if __name__ == "__main__":
    main()
