"""Audit networks that mislead attacks, and honest ones, and print which checks fail as a table.

    PYTHONPATH=tests nice python tests/tools/audit_table.py -o runs/audits --data-root data

Each audit has its full length. Each result is stored: started again, it continues. Networks on
MNIST are left out without --data-root.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click
import torch
import torch.nn.functional as F
from fixtures import planted
from fixtures.training import train_under
from script import Script
from torch import nn

from curricula import load_data
from curricula.evaluation.audit import audit
from curricula.models import Normalise
from curricula.runtime.records import to_json

DIGITS = load_data("digits")
LINF = {"eps": 0.1}
MNIST_IMAGES = 6000  # training images


class Network(nn.Module):
    """Two convolutions and a linear layer, with anything before, between and after them."""

    def __init__(self, before=None, between=F.relu, after=None, pooled=False):
        super().__init__()
        self.normalise = Normalise()
        self.first = nn.Conv2d(1, 16, 5, stride=1 if pooled else 2, padding=2)
        self.second = nn.Conv2d(16, 32, 5, stride=1 if pooled else 2, padding=2)
        self.last = nn.Linear(32 * 49, 10)
        self.before, self.between, self.after = before, between, after
        self.pooled = pooled

    def forward(self, x):
        x = x if self.before is None else self.before(x)
        x = self.normalise(x)
        for layer in (self.first, self.second):
            x = self.between(layer(x))
            x = F.max_pool2d(x, 2) if self.pooled else x
        x = self.last(x.flatten(1))
        return x if self.after is None else self.after(x)


class KLargest(nn.Module):
    """Keep the largest tenth of an image's values."""

    def __init__(self, scattered=False):
        super().__init__()
        self.scattered = scattered

    def forward(self, x):
        flat = x.flatten(1)
        top = flat.topk(flat.shape[1] // 10, 1)
        if self.scattered:
            kept = torch.zeros_like(flat).scatter(1, top.indices, top.values)
            return kept.reshape(x.shape)
        return x * (x >= top.values[:, -1].reshape(-1, 1, 1, 1)).float()


def with_backward(backward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the identity with another backward pass."""

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return backward(gradient)

    return Identity.apply


def trained(network, perturb="clean", epochs=8, data=DIGITS):
    """Return a network trained on a data set, by default the digits; seed 0."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    train_under(network, data, perturb, optimizer=optimizer, epochs=epochs)
    return network


def planted_in(**parts):
    """Return the plainly trained network with something planted."""
    network = Network(**parts)
    network.load_state_dict(trained(Network()).state_dict())
    return network.eval()


Row = tuple[bool, Callable[[], nn.Module], dict[str, Any]]
NETWORKS: dict[str, Row] = {
    # title: (planted, network, arguments of the audit)
    "rounded activations": (True, lambda: planted_in(between=lambda x: (x.relu()).round()), LINF),
    "images of two levels": (True, lambda: planted_in(before=torch.round), LINF),
    "logits times 1,000": (True, lambda: planted_in(after=lambda x: 1000 * x), LINF),
    "softmax at temperature 0.01": (
        True,
        lambda: planted_in(after=lambda x: (100 * x).softmax(1)),
        LINF,
    ),
    "sigmoid outputs": (True, lambda: planted_in(after=torch.sigmoid), LINF),
    "depends on the batch": (True, lambda: planted_in(before=lambda x: x - x.mean(0)), LINF),
    "gradient zero": (True, lambda: planted_in(before=with_backward(torch.zeros_like)), LINF),
    "gradient reversed": (True, lambda: planted_in(before=with_backward(torch.neg)), LINF),
    "gradient of random signs": (
        True,
        lambda: planted_in(before=with_backward(lambda g: g * (torch.rand_like(g) - 0.5).sign())),
        LINF,
    ),
    "ripples on the images": (
        True,
        lambda: planted_in(before=lambda x: x + 0.02 * (300 * x).sin()),
        LINF,
    ),
    "k largest, by a mask": (True, lambda: trained(Network(between=KLargest())), LINF),
    "k largest, by scatter": (True, lambda: trained(Network(between=KLargest(True))), LINF),
    "k largest, trained on PGD": (
        True,
        lambda: trained(Network(between=KLargest()), "pgd(0.1, steps=2)"),
        LINF,
    ),
    "k largest, l-2": (
        True,
        lambda: trained(Network(between=KLargest())),
        {"eps": 1.5, "norm": "l2"},
    ),
    "gradient ten times too large": (True, planted.WrongGradient, LINF),
    "hidden step": (True, planted.HiddenStep, LINF),
    "buried step, transfer from a given network": (
        True,
        planted.BuriedStep,
        {**LINF, "transfer_from": planted.Source()},
    ),
    "shell, l-2": (True, lambda: planted.Shell(side=5), {"eps": 1.3, "norm": "l2"}),
    "few weights kept in each draw": (True, planted.Dropped, LINF),
    "plain": (False, lambda: trained(Network()), LINF),
    "undertrained": (False, lambda: trained(Network(), epochs=1), LINF),
    "robust": (False, lambda: trained(Network(), "pgd(0.1, steps=2)"), LINF),
    "max pooling": (False, lambda: trained(Network(pooled=True), epochs=3), LINF),
    "GELU": (False, lambda: trained(Network(between=F.gelu)), LINF),
    "two classes": (False, lambda: planted.Honest(2), LINF),
    "a hundred classes": (False, lambda: planted.Honest(100), {"eps": 0.03}),
    "random noise": (False, planted.Noisy, LINF),
    "plain, l-2": (False, lambda: trained(Network()), {"eps": 1.5, "norm": "l2"}),
    "plain, l-1": (False, lambda: trained(Network()), {"eps": 10.0, "norm": "l1"}),
    "steep, l-1": (False, lambda: planted.Steep(side=8), {"eps": 4.0, "norm": "l1"}),
}


def networks_on_mnist(root: Path) -> dict[str, Row]:
    """Return the networks that are trained on MNIST, whose files are in a folder."""
    data = load_data("mnist", root=root)
    data = attrs.evolve(data, train=data.train[:MNIST_IMAGES])
    return {
        "k largest, MNIST": (
            True,
            lambda: trained(Network(between=KLargest()), "pgd(0.2, steps=4)", 3, data),
            {"eps": 0.15, "data": data},
        )
    }


def found_in(title: str, row: Row, images: int, folder: Path) -> dict[str, Any]:
    """Return an audit as JSON, from its file if there is one; otherwise audit and store it."""
    file = folder / f"{title.replace(' ', '-').replace(',', '')}.json"
    if not file.exists():
        _, network, arguments = row
        model = network().eval()
        default = DIGITS if isinstance(model, Network) else planted.data_set(model)
        arguments = {"data": default, **arguments}
        split = arguments["data"].test[:images]
        began = time.process_time()
        found = to_json(audit(model, split=split, seed=0, **arguments))
        found["seconds"] = round(time.process_time() - began, 1)
        folder.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps(found))
        file.with_suffix(".part").replace(file)
        click.echo(f"{title}: {found['seconds']} s", err=True)
    return json.loads(file.read_text())


@click.command(cls=Script)
@click.option("-o", "--output", "folder", type=Path, required=True, help="Folder of the results.")
@click.option("--images", default=60, help="Images of each audit.", show_default=True)
@click.option("--network", "titles", multiple=True, help="One of the networks; repeatable.")
@click.option("--data-root", type=Path, help="Folder of MNIST.")
def main(folder: Path, images: int, titles: tuple[str, ...], data_root: Path | None) -> None:
    """Print which checks of each network failed, as a table in Markdown."""
    torch.set_num_threads(1)
    click.echo("| network | robust to PGD-40, to the strongest attack | failed checks |")
    click.echo("|---|---|---|")
    networks = NETWORKS | (networks_on_mnist(data_root) if data_root else {})
    for title in titles or networks:
        found = found_in(title, networks[title], images, folder)
        correct = {attack["name"]: attack["correct"] for attack in found["attacks"]}
        ball = {
            name: count
            for name, count in correct.items()
            if name not in ("clean", "unbounded") and "within" not in name
        }
        strongest = min(ball, key=lambda name: (ball[name], name != "pgd-40"))
        failed = [check["name"] for check in found["checks"] if not check["passed"]]
        kind = "planted" if networks[title][0] else "honest"
        click.echo(
            f"| {kind}: {title} | {correct['pgd-40']}, {ball[strongest]} ({strongest}) of "
            f"{found['n']} | {', '.join(failed) or 'none'} |"
        )


if __name__ == "__main__":
    main()
