"""Compare the strength of our attacks with torchattacks and foolbox, at equal settings.

Prints the accuracy of a model under each attack: the lower, the stronger the attack. Without
arguments it first trains a small network on the embedded digits, which takes some seconds:

    python examples/attacks_against_others.py
    python examples/attacks_against_others.py RUN --images 1000 --linf 0.3

RUN is a folder that `curricula train -o RUN` has written. The script needs the packages
torchattacks and foolbox. A dash marks a library that has no counterpart, or one with a different
algorithm. PGD-like attacks of all three libraries take steps of 2.5 x eps / steps. Our query count
of the Square Attack includes the query of the clean image.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import foolbox
import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

import curricula

Attack = Callable[[Tensor, Tensor], Tensor]


class Row(NamedTuple):
    """One attack: our expression, and those of the others as functions of images and labels."""

    name: str
    ours: str
    torchattacks: Attack | None
    foolbox: Attack | None


def rows(
    model: nn.Module,
    *,
    linf: float,
    l2: float,
    l1: float,
    steps: int,
    apgd_steps: int,
    queries: int,
) -> Iterator[Row]:
    """Yield every attack of ours that one of the other libraries also has.

    Args:
        model: the victim, in eval mode.
        linf, l2, l1: the radius in each norm, in [0, 1] pixel units.
        steps: number of steps of every iterative attack except APGD.
        apgd_steps: number of steps of APGD, whose step lengths depend on it.
        queries: number of queries of the Square Attack.
    """
    rel = 2.5 / steps
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)

    def fool(attack: foolbox.Attack, eps: float) -> Attack:
        return lambda x, y: attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)[
            1
        ]

    yield Row(
        "pgd linf",
        f"pgd({linf}, steps={steps})",
        torchattacks.PGD(model, eps=linf, alpha=rel * linf, steps=steps),
        fool(foolbox.attacks.LinfPGD(rel_stepsize=rel, steps=steps), linf),
    )
    yield Row(
        "pgd l2",
        f"pgd({l2}, norm=l2, steps={steps})",
        torchattacks.PGDL2(model, eps=l2, alpha=rel * l2, steps=steps),
        fool(foolbox.attacks.L2PGD(rel_stepsize=rel, steps=steps), l2),
    )
    yield Row(
        "pgd l1",
        f"pgd({l1}, norm=l1, steps={steps})",
        None,
        fool(
            foolbox.attacks.SparseL1DescentAttack(rel_stepsize=rel, steps=steps, random_start=True),
            l1,
        ),
    )
    for norm, name, eps in (("linf", "Linf", linf), ("l2", "L2", l2)):
        for loss in ("ce", "dlr"):
            yield Row(
                f"apgd {norm} {loss}",
                f"apgd({eps}, norm={norm}, steps={apgd_steps}, loss={loss})",
                torchattacks.APGD(model, norm=name, eps=eps, steps=apgd_steps, loss=loss),
                None,
            )
    yield Row(
        "fgsm",
        f"fgsm({linf})",
        torchattacks.FGSM(model, eps=linf),
        fool(foolbox.attacks.LinfFastGradientAttack(random_start=False), linf),
    )
    yield Row(
        "rfgsm",
        f"rfgsm({linf})",
        torchattacks.FFGSM(model, eps=linf, alpha=1.25 * linf),
        fool(foolbox.attacks.LinfPGD(rel_stepsize=1.25, steps=1), linf),
    )
    yield Row(
        "mim",
        f"mim({linf}, steps={steps})",
        torchattacks.MIFGSM(model, eps=linf, alpha=linf / steps, steps=steps),
        None,
    )
    yield Row(
        "square",
        f"square({linf}, queries={queries})",
        torchattacks.Square(model, norm="Linf", eps=linf, n_queries=queries),
        None,
    )


def accuracy_under(
    attack: Attack, model: nn.Module, data: curricula.DataSet, split: curricula.data.Split
) -> float:
    """Return the accuracy under an attack of another library. These draw from torch's global random
    state, which is seeded here and restored."""
    correct = 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for start in range(0, len(split), 250):
            batch = split[start : start + 250]
            found = attack(data.images(batch.pixels), batch.labels).detach()
            with torch.no_grad():
                correct += int((model(found).argmax(1) == batch.labels).sum())
    return correct / len(split)


def compare(
    row: Row, model: nn.Module, data: curricula.DataSet, split: curricula.data.Split
) -> dict[str, float]:
    """Return the accuracies of a row by library, for the libraries that have the attack."""
    threat = {row.name: curricula.Threat.parse(row.ours)}
    (ours,) = curricula.evaluation.evaluate_threats(model, data, split, threat)
    found = {"curricula": ours.accuracy}
    for library in ("torchattacks", "foolbox"):
        attack = getattr(row, library)
        if attack is not None:
            found[library] = accuracy_under(attack, model, data, split)
    return found


def small_model(data: curricula.DataSet) -> nn.Module:
    """Return two convolutions, adversarially trained on digits for a few epochs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        curricula.models.Normalise(),
        nn.AvgPool2d(2),
        nn.Conv2d(1, 16, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, data.num_classes),
    )
    attack = curricula.Curriculum.parse("pgd(0.1, steps=2)", ["constant"])
    victim, draws = curricula.ModelVictim(model), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    for _ in range(2):
        for _, batch in curricula.batches(data.train, 64, generator=draws):
            x, y, strengths = data.images(batch.pixels), batch.labels, {"pgd": 1.0}
            views = attack(x, y, strengths=strengths, victim=victim, generator=draws)
            loss = F.cross_entropy(model(views.perturbed), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", help="run folder; by default a small network is trained")
    parser.add_argument("--images", type=int, default=50, help="number of test images")
    parser.add_argument("--linf", type=float, default=0.1)
    parser.add_argument("--l2", type=float, default=1.5)
    parser.add_argument("--l1", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--apgd-steps", type=int, default=10)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)  # a small network gains nothing from more than one

    if chosen.run:
        config = curricula.Run.open(Path(chosen.run)).config
        data = curricula.load_data(config.data, root=config.data_root)
        model = curricula.load_model(chosen.run)
    else:
        data = curricula.load_data("digits")
        model = small_model(data)
    split = data.test[: chosen.images]
    names = ("linf", "l2", "l1", "steps", "apgd_steps", "queries")
    settings = {name: getattr(chosen, name) for name in names}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    libraries = ("curricula", "torchattacks", "foolbox")
    print(f"{f'accuracy, {len(split)} images':<24}" + "".join(f"{name:>14}" for name in libraries))
    for row in rows(model, **settings):
        found = compare(row, model, data, split)
        cells = (f"{found[name]:.3f}" if name in found else "-" for name in libraries)
        print(f"{row.name:<24}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    try:
        main()
    except curricula.UserError as error:
        sys.exit(f"Error: {error}")
