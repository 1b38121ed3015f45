"""Measure how the draws of a random defence and those of its attack trade places, on MNIST, and
draw the figure of docs/random-models.md.

    python tests/tools/random_models.py -o runs/random-models --data-root data

It trains a network, puts a random rotation and noise before it, and attacks it with PGD and EOT
(Gao et al. 2022, "On the limitations of stochastic pre-processing defenses"). Each result is
stored: started again, it continues. It takes about 3 minutes of one core.
"""

import json
import time
from pathlib import Path
from typing import Any

import attrs
import click
import torch
from matplotlib.figure import Figure
from script import Script

import curricula
from curricula.models import Randomised
from curricula.reporting.figures import DASHES, PALETTE, style_axes, write_figure

DEFENCE = "rot:30+gaussian:0.3"
EPS = 0.1
TRAINING_IMAGES = 10_000
MEASURED_DRAWS = 20  # passes that measure each image after an attack
STEPS = 20
MARKERS = "osD"
AVERAGED = ((1, (1, 4, 16, 64)), (4, (1, 4)), (16, (1,)))  # draws of the defence; eot
EQUAL = {
    20: ((20, 1), (5, 4)),
    80: ((80, 1), (20, 4), (5, 16)),
    320: ((320, 1), (80, 4), (20, 16), (5, 64)),
}
"""(steps, eot) of attacks by the number of passes that they take."""


@attrs.frozen
class Study:
    """The data, networks and results in one folder."""

    data: curricula.DataSet
    folder: Path
    seed: int

    def network(self) -> torch.nn.Module:
        """Return the trained network; it is trained unless its run is complete."""
        run = self.folder / "run"
        if not (run / "evaluation.json").exists():
            curricula.train(
                data=self.data, model="lenet", perturb="clean", epochs=3, batch_size=64,
                optimizer="adamw", lr=0.002, schedule="constant", seed=self.seed, output=run,
            )  # fmt: skip
        return curricula.load_model(run).eval()

    def measured(self, draws: int, steps: int, eot: int) -> dict[str, Any]:
        """Return the accuracies under an attack, in %, from their file if there is one.

        Args:
            draws: draws of the defence in each pass; 0 for the network without it.
            steps: steps of PGD; 0 for clean images.
            eot: draws in each gradient.
        """
        file = self.folder / f"{draws}-{steps}-{eot}-{len(self.data.test)}.json"
        if not file.exists():
            network = self.network()
            model = Randomised(network, DEFENCE, draws=draws).eval() if draws else network
            threat = f"pgd({EPS}, steps={steps}, eot={eot})" if steps else "clean"
            began = time.process_time()
            (found,) = curricula.evaluate(
                model, self.data, [threat], draws=MEASURED_DRAWS if draws else None,
                seed=self.seed, progress=False,
            )  # fmt: skip
            single = found.draws or found
            result = {
                "majority": 100 * found.accuracy, "majority interval": found.interval,
                "single": 100 * single.accuracy, "single interval": single.interval,
                "seconds": round(time.process_time() - began, 1),
            }  # fmt: skip
            file.with_suffix(".part").write_text(json.dumps(result))
            file.with_suffix(".part").replace(file)
            click.echo(f"{file.name}: {found} in {result['seconds']} s", err=True)
        return json.loads(file.read_text())

    def cell(self, draws: int, steps: int, eot: int) -> str:
        """Return the accuracy of the majority, and in brackets that of a single draw, as text."""
        found = self.measured(draws, steps, eot)
        return f"{found['majority']:.1f} ({found['single']:.1f})"


def figure_of(study: Study) -> Figure:
    """Return the figure: accuracy against the draws in a gradient, and against eot at equal
    passes."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for colour, marker, (draws, averaged) in zip(PALETTE, MARKERS, AVERAGED, strict=False):
        found = [study.measured(draws, STEPS, eot)["majority"] for eot in averaged]
        label = f"{draws} draw{'s' * (draws > 1)} of the defence"
        left.plot([draws * eot for eot in averaged], found, f"{marker}-", color=colour, label=label)
    for colour, (passes, attacks) in zip(PALETTE, EQUAL.items(), strict=False):
        for kind, dash in (("majority", DASHES[0]), ("single", DASHES[1])):
            found = [study.measured(1, *attack)[kind] for attack in attacks]
            eots = [eot for _, eot in attacks]
            label = f"{passes} passes, {'single draw' if kind == 'single' else kind}"
            right.plot(eots, found, dash, marker="o", color=colour, label=label)
    alone = study.measured(0, 320, 1)["majority"]
    for axes, title, words in (
        (left, f"PGD of {STEPS} steps", "draws in a gradient: the defence's times the attack's"),
        (right, "Attacks of equal cost, one draw of the defence", "draws of the attack (eot)"),
    ):
        axes.axhline(alone, color="#666666", linewidth=1, label="without the defence")
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        axes.set_xlabel(words)
        axes.set_title(title, fontsize=11)
        axes.legend(fontsize=8, frameon=False, ncols=2, handlelength=3, loc="upper center")
        style_axes(axes)
    left.set_ylim(top=left.get_ylim()[1] + 5)  # for the legends
    left.set_ylabel("accuracy (%)")
    return figure


def print_tables(study: Study) -> None:
    """Print the results as tables in Markdown: the majority, and in brackets a single draw."""
    click.echo("| draws of the defence | clean | PGD |\n|---|---|---|")
    for draws, attack in ((0, (320, 1)), (1, (80, 4))):
        click.echo(f"| {draws} | {study.cell(draws, 0, 1)} | {study.cell(draws, *attack)} |")
    click.echo("\n| passes | steps x eot |\n|---|---|")
    for passes, attacks in EQUAL.items():
        cells = (f"{steps} x {eot}: {study.cell(1, steps, eot)}" for steps, eot in attacks)
        click.echo(f"| {passes} | {', '.join(cells)} |")
    eots = AVERAGED[0][1]
    click.echo("\n| draws of the defence | " + " | ".join(f"eot {eot}" for eot in eots) + " |")
    click.echo("|" + "---|" * (1 + len(eots)))
    for draws, averaged in AVERAGED:
        cells = [study.cell(draws, STEPS, eot) for eot in averaged]
        click.echo(f"| {draws} | " + " | ".join(cells + [""] * (len(eots) - len(cells))) + " |")


@click.command(cls=Script)
@click.option("-o", "--output", "folder", type=Path, required=True, help="Folder of the results.")
@click.option("--data-root", default="data", help="Folder of MNIST.", show_default=True)
@click.option("--images", default=200, help="Test images.", show_default=True)
@click.option("--seed", default=0, help="Seed of trainings and draws.", show_default=True)
def main(folder: Path, data_root: str, images: int, seed: int) -> None:
    """Write the figure into the folder, and print the accuracies in %."""
    torch.set_num_threads(1)
    data = curricula.load_data("mnist", root=data_root)
    data = attrs.evolve(data, train=data.train[:TRAINING_IMAGES], test=data.test[:images])
    study = Study(data, folder, seed)
    print_tables(study)
    write_figure(figure_of(study), folder / "random-models-mnist.png")


if __name__ == "__main__":
    main()
