"""Draw how the self-pacing schedule raised the strength on each task of examples/studies/README.md,
beside the accuracy that it followed.

    python tests/tools/pacing_figure.py -o runs/pacing --data-root data --cifar10 data/cifar10.npz

It trains a network on each task and stores the course of each: started again, it goes on with the
next task. It takes about 10 minutes of one core, and writes pacing.png.
"""

import json
import shutil
from pathlib import Path

import attrs
import click
import torch
from matplotlib.figure import Figure
from script import Script

import curricula
from curricula.recipes import find_sweep
from curricula.reporting.figures import PALETTE, style_axes, write_figure
from curricula.schedules.adaptive import SelfPaced
from curricula.training.callbacks import NoCallback
from curricula.training.plan import Plan
from curricula.training.run import Run
from curricula.training.step import Update

TASKS = {
    "mnist-60": "MNIST, 60 degrees",
    "mnist-180": "MNIST, all angles",
    "digits": "digits, 30 degrees",
    "cifar10": "CIFAR-10, 30 degrees",
}
STUDIES = Path("examples/studies")
SHOWN = 0.3  # fraction of training that is drawn


class Recorder(NoCallback):
    """The accuracy of chance, and at each update the strength of the attack and the accuracy on the
    perturbed images."""

    def __init__(self) -> None:
        self.chance = 0.0
        self.course: list[tuple[float, float]] = []

    def on_train_start(self, run: Run, plan: Plan, steps: int) -> None:
        self.chance = plan.chance

    def on_step_end(self, update: Update) -> None:
        strength = update.mean_strengths()["pgd"]
        self.course.append((strength, float(update.correct_N.float().mean())))


def course(task: str, folder: Path, root: str) -> tuple[float, list[tuple[float, float]]]:
    """Return the accuracy of chance, and (strength, accuracy) of each update of a task's training,
    from its file if there is one."""
    file = folder / f"{task}.json"
    if not file.exists():
        values = dict(find_sweep(str(STUDIES / f"pacing-self-paced-{task}.toml")).cells[0].values)
        data = curricula.load_data(values.pop("data"), root=root)
        shutil.rmtree(folder / task, ignore_errors=True)  # of an interrupted training
        recorder = Recorder()
        curricula.train(
            **values,
            data=attrs.evolve(data, test=data.test[:100]),  # the final evaluation is not used
            callbacks=[recorder],
            output=folder / task,
        )
        file.write_text(json.dumps([recorder.chance, recorder.course]))
    chance, updates = json.loads(file.read_text())
    return chance, [(strength, accuracy) for strength, accuracy in updates]


def averaged(values: list[float], window: float) -> list[float]:
    """Return the exponential means that the schedule sees."""
    newest = min(1.0, 1 / len(values) / window)
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total += newest * (value - total)
        weight += newest * (1 - weight)
        found.append(total / weight)
    return found


@click.command(cls=Script)
@click.option("-o", "--output", "folder", type=Path, required=True, help="Folder of the results.")
@click.option("--data-root", default="data", help="Folder of MNIST.", show_default=True)
@click.option("--cifar10", default="data/cifar10.npz", help="CIFAR-10, an npz.", show_default=True)
@click.option("--task", "tasks", multiple=True, type=click.Choice([*TASKS]), help="Only this one.")
def main(folder: Path, data_root: str, cifar10: str, tasks: tuple[str, ...]) -> None:
    """Train on each task and draw the figure."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    schedule, chosen = SelfPaced(), tasks or tuple(TASKS)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for axes, task in zip(all_axes, chosen, strict=True):
        chance, updates = course(task, folder, cifar10 if task == "cifar10" else data_root)
        strengths, accuracies = zip(*updates, strict=True)
        count = int(SHOWN * len(strengths))
        percent = [100 * step / len(strengths) for step in range(count)]
        accuracy = averaged(list(accuracies), schedule.window)[:count]
        axes.plot(percent, strengths[:count], color=PALETTE[0], label="strength")
        axes.plot(percent, accuracy, color=PALETTE[1], label="accuracy, averaged")
        least = chance ** (1 - schedule.level)
        axes.axhline(least, color=PALETTE[1], linestyle=":", label="least accuracy to go on")
        axes.set(title=TASKS[task], xlabel="% of training", ylim=(0, 1.02))
        style_axes(axes, small=True)
    lines = all_axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    write_figure(figure, folder / "pacing.png")


if __name__ == "__main__":
    main()
