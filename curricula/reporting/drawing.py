"""Draw a result or a curriculum as a figure of matplotlib, by one call."""

from typing import Any

from matplotlib.figure import Figure

from curricula.curriculum import Curriculum
from curricula.errors import UserError, shown
from curricula.evaluation.results import Evaluation
from curricula.evaluation.robustness_profile import RobustnessProfile
from curricula.reporting.confusion import confusion_figure
from curricula.reporting.curves import schedules_figure
from curricula.reporting.pareto_figure import draw_frontier
from curricula.reporting.profiles import profile_figure
from curricula.reporting.training import training_figure
from curricula.sweeps.comparison import Comparison
from curricula.training.run import Run


def draw(subject: Any) -> Figure:
    """Return a figure of a result or a curriculum, which a notebook shows inline.

    - `RobustnessProfile`: accuracy and fooling rate over the ranges
    - `Comparison`: the Pareto frontier
    - `Evaluation`: the confusion of classes under each threat
    - `Curriculum`: the schedule of each perturbation
    - `Run`: accuracies, loss and strengths over the epochs

    >>> figure = draw(Curriculum.parse("rot:30+pgd:0.1", ["rot=linear(until=0.5)"]))
    >>> figure.axes[0].get_ylabel()
    'strength'

    Raises:
        UserError: anything else; a run without epochs, a comparison without rows, a schedule that
            has no curve by itself.
    """
    if isinstance(subject, RobustnessProfile):
        return profile_figure(subject)
    if isinstance(subject, Comparison):
        if not subject.rows:
            raise UserError("the comparison has no rows: there is no frontier to draw")
        return draw_frontier(subject)
    if isinstance(subject, Evaluation):
        return confusion_figure(subject)
    if isinstance(subject, Curriculum):
        if not subject.schedules:
            raise UserError(f"the curriculum {subject} has no perturbation: nothing is scheduled")
        return schedules_figure(
            {
                f"{label}: {subject.schedule_calls.get(label, type(schedule).__name__)}": schedule
                for label, schedule in subject.schedules.items()
            }
        )
    if isinstance(subject, Run):
        metrics = subject.metrics
        if not metrics:
            raise UserError(f"run {subject.path} has no epochs yet: there is no training to draw")
        return training_figure(metrics)
    raise UserError(
        "draw takes a run, a curriculum, or what evaluate, robustness_profile and compare return, "
        f"not {shown(subject)}"
    )
