"""The tables that ``curricula theory`` prints."""

import itertools
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from curricula_theory.closed_forms import best_ratio, critical_ratio, shifted_bound, shifted_limit
from curricula_theory.study import Study, Trained

MIN_WIDTH = 110  # characters; without a terminal rich assumes 80, too few for the first table


def show_theory(studies: Sequence[Study]) -> None:
    """Print the closed forms beside their simulation, then the bound and models of each setting."""
    console = Console(highlight=False)
    console.width = max(console.width, MIN_WIDTH)
    names = ("clean", "spatial", "adversarial")
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("c", "rho", *itertools.chain(*((name, "simulated") for name in names))):
        table.add_column(heading, justify="right", no_wrap=True)
    widest = 0.0
    for study in studies:
        for row in study.rows:
            values = [f"{study.setting.c:g}", f"{row.rho:.4g}"]
            for name in names:
                simulated = getattr(row.simulated, name)
                low, high = simulated.interval
                widest = max(widest, high - low)
                values += [f"{getattr(row, name):.4f}", f"{simulated.accuracy:.4f}"]
            table.add_row(*values)
    first = studies[0]
    n = first.rows[0].simulated.clean.n
    console.print(
        f"accuracy of sign(w . x), w = (rho, 1, ..., 1): closed forms beside {n:,} samples "
        f"(95 % intervals within {widest / 2:.4f})",
        soft_wrap=True,
    )
    console.print(table)
    for study in studies:
        for line in _bound(study):
            console.print(line, soft_wrap=True)
        if study.trained:
            _show_trained(console, study)


def _bound(study: Study) -> list[str]:
    """Return lines of text on a setting and its bound on the accuracy under shifts."""
    setting = study.setting
    lines = [
        f"d = {setting.d}, p = {setting.p:g}, c = {setting.c:g}, eta = {setting.eta:.4g}, "
        f"eps = {setting.eps:.4g}: clean accuracy is highest at rho = {best_ratio(setting):.4g}"
    ]
    if setting.eps <= setting.eta:
        lines.append("  eps <= eta: adversarial >= 1/2 excludes no rho here, so there is no bound")
    elif setting.eps < 1:
        bound = shifted_bound(setting)
        limit = shifted_limit(setting.c)
        at_critical = setting.eps == 2 * setting.eta
        lines.append(
            f"  adversarial >= 1/2 needs rho >= rho* = {critical_ratio(setting):.4g}; then, for "
            f"rho >= 1, accuracy on shifted inputs is at most {bound:.4f}"
            + (f" (limit for large d {limit:.4f})" if at_critical else "")
        )
    else:
        lines.append("  adversarial >= 1/2 is out of reach: eps >= 1 flips the strong feature too")
    return lines


def _show_trained(console: Console, study: Study) -> None:
    """Print a row for each classifier and method: the range over its seeds, in %."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("trained", no_wrap=True)
    table.add_column("strength", no_wrap=True)
    for heading in ("learned", "clean", "spatial", "adversarial", "above"):
        table.add_column(heading, justify="right", no_wrap=True)

    for (classifier, method), group in itertools.groupby(
        study.trained, key=lambda each: (each.classifier, each.method)
    ):
        models = list(group)
        learned = sum(not model.collapsed for model in models)
        table.add_row(
            classifier,
            method.name,
            "rising" if method.curriculum else "full",
            f"{learned} of {len(models)}",
            _range(models, lambda model: model.accuracies.clean.accuracy),
            _range(models, lambda model: model.accuracies.spatial.accuracy),
            _range(models, lambda model: model.accuracies.adversarial.accuracy),
            _range([model for model in models if not model.collapsed], lambda model: model.above),
        )
    console.print("trained models: accuracies in %, over seeds; 'above' the frontier in points")
    console.print(table)


def _range(models: Sequence[Trained], figure: Callable[[Trained], float]) -> str:
    values = [100 * figure(model) for model in models]
    if not values:
        return ""
    low, high = (f"{value:z.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
