"""Measure how far the standard threats are from AutoAttack, in each norm and on three networks: a
plain one and an adversarially trained one on MNIST, and one on CIFAR-10.

    python tests/tools/attacks_by_norm.py -o runs/by-norm --data-root data --cifar10 cifar10.npz

It trains the networks, then measures one threat after the other, and stores each result: started
again, it continues. The package pyautoattack is the code of AutoAttack's authors.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import click
import pyautoattack
import torch
from script import Script
from torch import nn

import curricula
from curricula.evaluation.threats import standard_attack
from curricula.expressions.syntax import Number

ROTATION = 30  # degrees, of the joint threats
TRAINING_IMAGES = 10_000
OFFICIAL = "official AutoAttack"


@attrs.frozen
class Subject:
    """A network to measure: how it is trained, and the radii that it is measured at."""

    title: str
    is_cifar10: bool
    training: dict[str, object]
    radii: dict[str, Number]


SUBJECTS = {
    "mnist-plain": Subject(
        "MNIST, plain",
        False,
        {"perturb": "clean", "epochs": 4},
        {"linf": Number(1, 10), "l2": Number(1.5), "l1": Number(9.0)},
    ),
    "mnist-linf": Subject(
        "MNIST, l-inf-trained",
        False,
        {"perturb": "pgd(0.2, steps=5)", "epochs": 8},
        {"linf": Number(2, 10), "l2": Number(1.5), "l1": Number(9.0)},
    ),
    "cifar10": Subject(
        "CIFAR-10",
        True,
        {"perturb": "pgd(2/255, steps=2, rel_step=1/2)", "epochs": 8},
        {"linf": Number(2, 255), "l2": Number(1, 4), "l1": Number(5.0)},
    ),
}


def data_of(subject: Subject, root: str, cifar10: str, images: int) -> curricula.DataSet:
    """Return a subject's data set: some of its training images, and the first N test images."""
    if subject.is_cifar10:
        data = curricula.load_data("npz", root=cifar10)
    else:
        data = curricula.load_data("mnist", root=root)
    return attrs.evolve(data, train=data.train[:TRAINING_IMAGES], test=data.test[:images])


def network_of(name: str, data: curricula.DataSet, folder: Path) -> nn.Module:
    """Return a subject's trained network; it is trained unless its run is complete."""
    run = folder / name
    if not (run / "evaluation.json").exists():
        common = {"model": "lenet", "batch_size": 64, "lr": 0.002, "optimizer": "adamw"}
        values = common | SUBJECTS[name].training
        curricula.train(data=data, schedule="linear", seed=0, output=run, **values)
    return curricula.load_model(run).eval()


def threats_of(norm: str, eps: Number) -> dict[str, str]:
    """Return the threats in a norm by name, as expressions."""
    alone = {
        "PGD-40": f"pgd({eps}, norm={norm}, steps=40, rel_step=1/10)",
        "APGD": f"apgd({eps}, norm={norm})",
        "targeted APGD": f"apgd({eps}, norm={norm}, targets=3)",
        "PGD-40 of 5 restarts": f"pgd({eps}, norm={norm}, steps=40, rel_step=1/10, restarts=5)",
        "standard": str(standard_attack(eps, norm=norm)),
        "AutoAttack": f"autoattack({eps}, norm={norm})",
    }
    joint = {f"joint {name}": f"rot:{ROTATION}+{text}" for name, text in alone.items()}
    return {"clean": "clean", **alone, f"rot:{ROTATION}": f"rot:{ROTATION}", **joint}


def measured(
    model: nn.Module, data: curricula.DataSet, norm: str, eps: Number, text: str
) -> list[bool]:
    """Return which test images are correct under a threat."""
    found = curricula.evaluate(model, data, {"it": text}, progress=False)
    return (found.predictions["it"] == data.test.labels).tolist()


def official(
    model: nn.Module, data: curricula.DataSet, norm: str, eps: Number, text: str
) -> list[bool]:
    """Return which test images the standard AutoAttack of its authors leaves correct."""
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    x_NCHW, y_N = data.images(data.test.pixels), data.test.labels
    adversary = pyautoattack.AutoAttack(model, norm=name, eps=eps.value, seed=0)
    found, _ = adversary.run_standard_evaluation(x_NCHW, y_N)
    with torch.no_grad():
        return (model(found).argmax(1) == y_N).tolist()


def stored(file: Path, compute: Callable[[], list[bool]]) -> list[bool]:
    """Return a result, from its file if there is one; otherwise compute and store it."""
    if not file.exists():
        began = time.process_time()
        result = {"correct": compute(), "seconds": round(time.process_time() - began, 1)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps(result))
        file.with_suffix(".part").replace(file)
        click.echo(f"{file}: {sum(result['correct'])} in {result['seconds']} s", err=True)
    return json.loads(file.read_text())["correct"]


@click.command(cls=Script)
@click.option("-o", "--output", "folder", type=Path, required=True, help="Folder of the results.")
@click.option("--data-root", default="data", help="Folder of MNIST.", show_default=True)
@click.option("--cifar10", default="cifar10.npz", help="CIFAR-10, as an npz.", show_default=True)
@click.option("--images", default=200, help="Test images.", show_default=True)
@click.option("--network", "networks", multiple=True, help="One of the networks; repeatable.")
@click.option("--norm", "norms", multiple=True, help="One of the norms; repeatable.")
@click.option("--only", multiple=True, help="One of the threats; repeatable.")
def main(
    folder: Path,
    data_root: str,
    cifar10: str,
    images: int,
    networks: tuple[str, ...],
    norms: tuple[str, ...],
    only: tuple[str, ...],
) -> None:
    """Print the accuracy under each threat, in %, as a table in Markdown."""
    torch.set_num_threads(1)
    rows = []
    for name in networks or SUBJECTS:
        subject = SUBJECTS[name]
        data = data_of(subject, data_root, cifar10, images)
        model = network_of(name, data, folder)

        for norm in norms or ("linf", "l2", "l1"):
            eps = subject.radii[norm]
            place = folder / f"{name}-{norm}-{images}"
            found = {}
            for threat, text in (threats_of(norm, eps) | {OFFICIAL: ""}).items():
                if only and threat not in only:
                    continue
                compute = official if threat == OFFICIAL else measured
                file = place / f"{threat.replace(' ', '-')}.json"
                correct = stored(file, lambda: compute(model, data, norm, eps, text))  # noqa: B023
                found[threat] = sum(correct) / images
            rows.append((f"{subject.title}, {norm} {eps}", found))
    titles = list(rows[0][1])
    click.echo("| network, norm and radius | " + " | ".join(titles) + " |")
    click.echo("|" + "---|" * (len(titles) + 1))
    for title, found in rows:
        cells = " | ".join(f"{100 * found[each]:.1f}" for each in titles)
        click.echo(f"| {title} | {cells} |")


if __name__ == "__main__":
    main()
