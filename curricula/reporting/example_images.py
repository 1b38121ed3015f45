"""Draw images as a run's curriculum showed them, and images that fool its network."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from curricula.curriculum import Curriculum
from curricula.data.dataset import DataSet, classes_in_turn
from curricula.errors import UserError
from curricula.evaluation.names import CLEAN, JOINT
from curricula.evaluation.threats import standard_threats
from curricula.expressions.binding import bind
from curricula.expressions.random_streams import Streams
from curricula.reporting.previews import preview_figure, uses_network
from curricula.training.config import EVALUATION_SEED
from curricula.training.metrics import EpochMetrics
from curricula.training.run import METRICS, Run
from curricula.victim.model_victim import ModelVictim

NUM_IMAGES = 4  # images in a figure
NUM_EPOCHS = 5  # epochs in a figure
NUM_SEARCHED = 100  # test images searched for fooled ones
SEED = 1  # seed of the draws for training images


def draw_training_images(
    run: Run, data: DataSet, model: nn.Module, metrics: Sequence[EpochMetrics]
) -> Figure | None:
    """Return a figure of training images, the classes in turn, at the strengths of some epochs,
    one column each; None if the run trained without perturbations.

    The random draws are the same in each column. Attacks are aimed at the checkpoint that was
    kept, since the networks of the other epochs are not stored.

    Args:
        run: a finished run.
        data: its data set.
        model: its network.
        metrics: lines of its ``metrics.jsonl``, one or more.

    Raises:
        UserError: the strengths are not those of the run's curriculum.
    """
    config = run.config
    curriculum = Curriculum.parse(config.perturb, config.schedule)
    if not curriculum.tree.leaves:
        return None
    if metrics[0].strength.keys() != curriculum.tree.leaves.keys():
        raise UserError(
            f"{run.path / METRICS} has strengths of {', '.join(metrics[0].strength) or 'nothing'}, "
            f"not of {', '.join(curriculum.tree.leaves)}; restore it, or train again"
        )
    last = len(metrics) - 1
    epochs = sorted({round(last * part / (NUM_EPOCHS - 1)) for part in range(NUM_EPOCHS)})
    split = data.train[classes_in_turn(data.train.labels, NUM_IMAGES)].load()
    x_NCHW = data.images(split.pixels)
    victim = ModelVictim(model)
    views = [
        curriculum(
            x_NCHW,
            split.labels,
            strengths=metrics[epoch].strength,
            victim=victim,
            generator=torch.Generator().manual_seed(SEED),
        ).perturbed
        for epoch in epochs
    ]
    headings = [
        f"epoch {metrics[epoch].epoch}\n"
        + "\n".join(f"{link} {value:.2f}" for link, value in metrics[epoch].strength.items())
        for epoch in epochs
    ]
    return preview_figure(
        x_NCHW,
        torch.stack(views),
        headings=headings,
        names=[data.classes[label] for label in split.labels.tolist()],
        title="What training showed",
        caption=f"Training images of {data.name}, the classes in turn, at the strengths of these "
        "epochs"
        + (
            "; attacks are aimed at the checkpoint that was kept."
            if uses_network(curriculum)
            else "."
        ),
    )


def draw_fooled_images(run: Run, data: DataSet, model: nn.Module) -> Figure | None:
    """Return a figure of test images that the standard joint threat fools, clean and under each
    standard threat; None if it fools none of 100, the classes in turn.

    Args:
        run: a finished run.
        data: its data set.
        model: its network.
    """
    victim = ModelVictim(model, early_stop=True)
    searched = classes_in_turn(data.test.labels, NUM_SEARCHED)
    split = data.test[searched].load()
    x_NCHW, y_N = data.images(split.pixels), split.labels
    threats = standard_threats(bind(run.model_config.perturb), data.budgets)

    def under(name: str, index: Tensor) -> Tensor:
        """Return the images at an index, NCHW, perturbed by a named threat as in the evaluation."""
        return threats[name](
            x_NCHW[index],
            y_N[index],
            victim=victim,
            generator=torch.Generator().manual_seed(EVALUATION_SEED),
            streams=Streams.of(EVALUATION_SEED, searched[index]),
        )

    joint_NCHW = under(JOINT, torch.arange(len(split)))
    with torch.no_grad():
        before_N = victim.logits(x_NCHW).argmax(1)
        after_N = victim.logits(joint_NCHW).argmax(1)
    found = ((before_N == y_N) & (after_N != y_N)).nonzero().flatten()[:NUM_IMAGES]
    if not len(found):
        return None
    views = {
        name: joint_NCHW[found] if name == JOINT else under(name, found)
        for name in threats
        if name != CLEAN
    }
    names = [
        f"{data.classes[before]} as {data.classes[after]}"
        for before, after in zip(before_N[found].tolist(), after_N[found].tolist(), strict=True)
    ]
    return preview_figure(
        x_NCHW[found],
        torch.stack(list(views.values())),
        headings=list(views),
        names=names,
        title="What fools the network",
        caption=f"Test images of {data.name} that are correct when clean and fooled by the joint "
        "threat, the classes in turn; at the left the true class and the predicted one.",
    )
