"""Compare `autoattack` on two classes with brute force, and measure its memory at 1,000 classes.

    python tests/tools/autoattack_classes.py two --data-root data
    python tests/tools/autoattack_classes.py memory

The first trains small networks that tell two digits of MNIST apart. The brute force is PGD of 100
steps from 20 random starts, on the cross-entropy and on the difference of the two logits, and
Square; the exit status is 1 if it fools an image that `autoattack` leaves. Each takes a few minutes
of one core.
"""

import resource
import tempfile

import attrs
import click
import torch
from curricula_torchattacks.autoattack import AutoAttack
from torch import Tensor, nn

import curricula
from curricula.data.spec import ImageSpec
from curricula.losses import cross_entropy, towards
from curricula.models import Randomised
from curricula.models.build import resolve_model
from curricula.perturbations.attacks.norm_ball import random_start
from curricula.perturbations.attacks.pgd import ascend
from curricula.perturbations.attacks.square import Square
from curricula.victim.model_victim import ModelVictim

STARTS, STEPS = 20, 100
MEBIBYTE = 2**20


def two_digits(root: str, digits: tuple[int, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the training and the test images of two digits, labelled 0 and 1."""
    data, found = curricula.load_data("mnist", root=root), {}
    for part in ("train", "test"):
        split = getattr(data, part)
        index = torch.isin(split.labels, torch.tensor(digits)).nonzero()[:, 0]
        labels_N = (split.labels[index] == digits[1]).long()
        found[part] = data.images(split.pixels[index]), labels_N
    return found


def withstand_brute_force(
    network: nn.Module, x_NCHW: Tensor, y_N: Tensor, eps: float
) -> dict[str, Tensor]:
    """Return masks (N,) of the images that each attack of the brute force does not fool."""
    victim = ModelVictim(network)
    masks = {}
    for name, loss in (("cross-entropy", cross_entropy), ("difference", None)):
        active_N = victim.logits(x_NCHW).argmax(1) == y_N
        for seed in range(STARTS):
            index = active_N.nonzero()[:, 0]
            x, y = x_NCHW[index], y_N[index]
            eps_N111 = torch.full((len(x), 1, 1, 1), eps)
            start = random_start(x, eps_N111, "linf", torch.Generator().manual_seed(seed))
            found = ascend(
                x, y, start, eps_N111, victim=victim, norm="linf", steps=STEPS,
                loss=loss or towards(1 - y), step_N111=eps_N111 / 10,
            )  # fmt: skip
            active_N[index] = victim.logits(found).argmax(1) == y
        masks[name] = active_N
    generator = torch.Generator().manual_seed(0)
    square = Square(budget=eps, queries=5000)
    found = square(x_NCHW, y_N, strength=1.0, victim=victim, generator=generator)
    masks["Square"] = victim.logits(found).argmax(1) == y_N
    return masks


@click.group()
def main() -> None:
    """Measure AutoAttack at very few and at many classes."""
    torch.set_num_threads(1)


@main.command()
@click.option("--data-root", default="data", help="Folder of MNIST.", show_default=True)
@click.option("--images", default=60, help="Test images.", show_default=True)
@click.option("--eps", default=0.1, help="Radius of the l-inf ball.", show_default=True)
@click.option("--digits", type=(int, int), default=(4, 9), show_default=True)
@click.option("--seed", "seeds", multiple=True, default=(0, 1, 2), show_default=True)
@torch.no_grad()
def two(
    data_root: str, images: int, eps: float, digits: tuple[int, int], seeds: tuple[int, ...]
) -> None:
    """Print how many images each attack leaves correct."""
    data, missed = two_digits(data_root, digits), 0
    x_NCHW, y_N = (each[:images] for each in data["test"])
    for seed in seeds:
        with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
            curricula.train(
                model="lenet", data=data, perturb="clean", epochs=2, seed=seed, lr=0.002,
                optimizer="adamw", output=f"{folder}/run",
            )  # fmt: skip
            network = curricula.load_model(f"{folder}/run").eval()
        found = curricula.evaluate(network, (x_NCHW, y_N), ["clean", f"autoattack:{eps}"])
        clean_N, ours_N = (torch.as_tensor(each) == y_N for each in found.predictions.values())
        masks = withstand_brute_force(network, x_NCHW, y_N, eps)
        brute_N = torch.stack(list(masks.values())).all(0)
        missed += int((ours_N & ~brute_N).sum())
        click.echo(
            f"seed {seed}: of {images} images {int(clean_N.sum())} correct; robust: autoattack "
            f"{int(ours_N.sum())}, brute force {int(brute_N.sum())} ("
            + ", ".join(f"{name} {int(mask.sum())}" for name, mask in masks.items())
            + f"); fooled by brute force alone {int((ours_N & ~brute_N).sum())}, by autoattack "
            f"alone {int((brute_N & ~ours_N).sum())}"
        )
    raise SystemExit(int(missed > 0))


@main.command()
@click.option("--model", default="resnet18", show_default=True)
@click.option("--classes", default=1000, show_default=True)
@click.option("--version", default="standard", show_default=True)
@click.option("--batch", default=64, show_default=True)
def memory(model: str, classes: int, version: str, batch: int) -> None:
    """Print the largest resident memory of a gradient, and of AutoAttack with few steps, on one
    batch of images of 64x64 that no attack fools."""
    names = tuple(map(str, range(classes)))
    spec = ImageSpec(classes=names, channels=3, image_size=64)
    network = resolve_model(model, spec).value.eval()
    if version == "rand":
        network = Randomised(network, "gaussian:0.1").eval()
    x_NCHW = torch.rand((batch, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    victim = ModelVictim(network)
    with torch.no_grad():
        y_N = victim.logits(x_NCHW).argmax(1)
    victim.gradient(x_NCHW, y_N)
    alone = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE
    fewer = {"steps": 1, "max_steps": 1, "n_queries": 5, "queries": 5, "eot": 2}

    class Short(AutoAttack):
        @property
        def parts(self):  # type: ignore[no-untyped-def]
            return tuple(
                attrs.evolve(
                    part, **{k: v for k, v in fewer.items() if getattr(part, k, None) is not None}
                )
                for part in super().parts
            )

    attack = Short(budget=0.0001, version=version)
    attack(x_NCHW, y_N, strength=1.0, victim=victim, generator=torch.Generator())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE
    click.echo(
        f"{model}, {classes} classes, {batch} images, {version}: {alone:,.0f} MiB after a "
        f"gradient, {peak:,.0f} MiB after AutoAttack"
    )


if __name__ == "__main__":
    main()
