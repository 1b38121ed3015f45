"""End the training of a trial that two intermediate validation accuracies show to be poor.

Optuna's pruners know a single accuracy. The rule here is theirs of the median, applied to both.
"""

from collections.abc import Mapping, Sequence
from statistics import median

import attrs
from attrs.validators import ge
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import first
from curricula.evaluation.accuracy import BATCH_SIZE, evaluate_threats
from curricula.evaluation.pareto import Point
from curricula.runtime.random_state import seeded
from curricula.runtime.records import to_json
from curricula.training.callbacks import NoCallback
from curricula.training.config import EVALUATION_SEED
from curricula.training.metrics import EpochMetrics, share
from curricula.training.plan import Plan
from curricula.training.run import LAST, Run
from curricula.training.step import Update

INTERMEDIATE = "intermediate.json"  # file of a run with the accuracies after its epochs
MIN_FINISHED = 5  # finished trials before one is ended
WARM_UP = 1 / 3  # share of a training's epochs before it is ended


@attrs.frozen(kw_only=True)
class Intermediate:
    """A trial's validation accuracies under both objectives after an epoch, in [0, 1].

    Attributes:
        epoch: number of the epoch, from 1.
        first: accuracy under the first objective.
        second: accuracy under the second.
    """

    epoch: int = attrs.field(validator=ge(1))
    first: float = attrs.field(validator=share)
    second: float = attrs.field(validator=share)

    @property
    def point(self) -> Point:
        """Both accuracies."""
        return self.first, self.second


def is_poor(point: Point, finished: Sequence[Point]) -> bool:
    """Return whether a trial's two accuracies are both below the median of the finished trials'
    after the same epoch; never with fewer than five of these.

    >>> finished = [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.4), (0.5, 0.5)]
    >>> is_poor((0.6, 0.2), finished), is_poor((0.6, 0.4), finished)
    (True, False)
    """
    if len(finished) < MIN_FINISHED:
        return False
    return all(own < median(of) for own, of in zip(point, zip(*finished, strict=True), strict=True))


class PrunedError(Exception):
    """The training of a trial was ended, because its accuracies are poor.

    Attributes:
        epoch: number of its last epoch.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")
        self.epoch = epoch


@attrs.define(kw_only=True, eq=False)
class Pruner(NoCallback):
    """Measure a training under both objectives after each epoch but the last, once a third of its
    epochs is done, and end it if it is poor (see `is_poor`).

    An epoch is measured at the first update after it: its checkpoint is written by then.

    Attributes:
        threats: the two threats of the objectives, in order.
        finished: intermediate accuracies of each finished trial.
        limit: measure the first ``limit`` validation images; None for all.
    """

    threats: Mapping[str, Threat]
    finished: Sequence[Sequence[Intermediate]]
    limit: int | None
    _run: Run = attrs.field(init=False)
    _plan: Plan = attrs.field(init=False)
    _model: nn.Module = attrs.field(init=False)
    _found: list[Intermediate] = attrs.field(init=False, factory=list)
    _due: int | None = attrs.field(init=False, default=None)

    def on_train_start(self, run: Run, plan: Plan, steps: int) -> None:
        """Build the model that is measured."""
        self._run, self._plan = run, plan
        with seeded(plan.config.seed, plan.device):  # the training's random states stay as they are
            self._model = plan.build_model()

    def on_resume(self, step: int) -> None:
        """Keep what was measured of the epochs that are done, and judge the last one again."""
        self._due = len(self._run.metrics)
        self._found = [line for line in intermediate(self._run) if line.epoch <= self._due]

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Note that an epoch is to be measured."""
        self._due = metrics.epoch

    def on_step_end(self, update: Update) -> None:
        """Measure the last epoch, if that is still to do.

        Raises:
            PrunedError: the training is poor.
        """
        epoch, self._due = self._due, None
        epochs = self._plan.config.epochs
        if epoch is None or not WARM_UP * epochs <= epoch < epochs:
            return
        if not self._found or self._found[-1].epoch < epoch:
            one, other = self._accuracies()
            self._found.append(Intermediate(epoch=epoch, first=one, second=other))
            self._run.write_json(INTERMEDIATE, to_json(self._found))
        others = [line.point for lines in self.finished for line in lines if line.epoch == epoch]
        if is_poor(self._found[-1].point, others):
            raise PrunedError(epoch)

    def _accuracies(self) -> list[float]:
        """Return the accuracy of the last checkpoint under each objective."""
        self._run.load_weights(LAST, self._model)
        with seeded(EVALUATION_SEED, self._plan.device):
            results = evaluate_threats(
                self._model,
                self._plan.data,
                first(self._plan.validation, self.limit),
                self.threats,
                seed=EVALUATION_SEED,
                batch_size=BATCH_SIZE,
            )
        return [result.accuracy for result in results]


def intermediate(run: Run) -> list[Intermediate]:
    """Return the intermediate accuracies that a run holds, one per measured epoch.

    Raises:
        UserError: the file is damaged.
    """
    return run.read(INTERMEDIATE, list[Intermediate]) or []
