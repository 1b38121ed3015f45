"""Open what a command measures: a run, a run on other data, or a model from elsewhere."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from curricula.cli.options import Option, combined, model_option
from curricula.cli.paths import PATH
from curricula.errors import UserError
from curricula.expressions.given import is_given
from curricula.models.normalisation import CHOICES
from curricula.runtime.processes import from_first
from curricula.runtime.records import to_json
from curricula.training.run import CONFIG, Run, check_free, check_page, holds

if TYPE_CHECKING:
    from curricula.api.networks import Network


@attrs.frozen(kw_only=True)
class Subject:
    """A run, or a model with its weights and data, as the flags of a command name them.

    Attributes:
        run: folder of a run.
        model: expression of a model in place of a run, or of the network of a run whose model was
            given in Python.
        weights: file of its weights.
        data: expression of its data set, or of other data for the run.
        normalise: normalisation of its images.
    """

    run: Path | None
    model: str | None
    weights: Path | None
    data: str | None
    normalise: str | None

    @property
    def kept(self) -> Path | None:
        """The run's folder if results belong into it; None for a model and for other data."""
        return self.run if self.data is None else None

    @property
    def other_data(self) -> str | None:
        """Data set that replaces the run's; None to measure the run on its data."""
        return None if self.run is None else self.data

    def check(self, *, output: Path | None = None, checkpoint: str | None = None) -> None:
        """Check that the flags name a run, or a model with its data.

        Args:
            output: folder to make.
            checkpoint: checkpoint of the run.

        Raises:
            UserError: they name neither, or both.
        """
        of_model = {"weights": self.weights, "normalise": self.normalise, "output": output}
        stated = [name for name, value in of_model.items() if value is not None]
        if self.run is not None:
            if self.model is not None and not _lacks_model(self.run):
                stated = ["model", *stated]
            if stated:
                raise UserError(
                    f"run {self.run} has its model and its folder: leave out --{stated[0]}, or "
                    "leave out the run"
                )
            return
        if self.model is None:
            begin = "there is nothing to measure: name a run folder, or "
            if stated:
                begin = f"--{stated[0]} belongs to a model: "
            raise UserError(f"{begin}add --model, such as --model resnet18")
        if self.data is None:
            raise UserError(
                f"model {self.model} is measured on data: add --data, such as --data cifar10"
            )
        if checkpoint is not None:
            raise UserError("--checkpoint is for a run: leave it out")

    def open(self, data_root: str | None) -> "Run | Network":
        """Return the run, or the network with its weights, and print what was recognised in
        these."""
        if self.run is not None:
            return Run.open(self.run, model=self.model)
        assert self.model is not None
        assert self.data is not None
        from curricula.api.networks import open_network

        network = open_network(
            self.model,
            self.data,
            weights=self.weights,
            normalise=self.normalise,
            data_root=data_root or "data",
        )
        if network.notes:
            click.echo(f"weights {self.weights}: recognised {', '.join(network.notes)}", err=True)
        return network

    def open_to_keep(
        self, output: Path | None, data_root: str | None
    ) -> "tuple[Run | Network, Path | None]":
        """Return what is to be measured, and the folder that will keep the result, if one does.

        Args:
            output: folder to make for a model, if the user names one.
            data_root: as for `open`.

        Raises:
            UserError: as `open` does; the folder or its page cannot be written to.
        """
        kept = self.kept if output is None else output
        if output is not None:
            from_first(lambda: check_free(output))
        if kept is not None:
            from_first(lambda: check_page(kept))
        return self.open(data_root), kept

    def title(self, opened: "Run | Network") -> str:
        """Return the line that names what was measured."""
        return f"run: {opened.path}" if isinstance(opened, Run) else f"model: {opened.name}"

    def show(
        self,
        opened: "Run | Network",
        kept: Path | None,
        form: str,
        data_root: str | None,
        *,
        found: object,
        file: str,
        as_text: Callable[[], None],
    ) -> None:
        """Write the page of the folder that keeps a result, and print the result.

        Args:
            opened: what was measured.
            kept: the folder that keeps the result, if one does.
            form: ``json`` or ``table``.
            data_root: folder of the data set's files.
            found: the result.
            file: file of the folder that keeps it; ``json`` prints this file, which also names the
                weights, or the result if no folder keeps it.
            as_text: prints the result for ``table``.
        """
        page: Path | None = None
        if kept is not None:
            from curricula.reporting.report import report  # matplotlib: only now is it needed

            page = report(opened if isinstance(opened, Run) else kept, data_root=data_root)
        if form == "json":
            result = to_json(found) if kept is None else Run.open(kept).read_json(file)
            click.echo(json.dumps(result, indent=2))
            return
        click.echo(self.title(opened))
        as_text()
        if page is not None:
            click.echo(f"report: {page}")


def _lacks_model(run: Path) -> bool:
    """Return whether the model of a run was given in Python."""
    return holds(run, CONFIG) and is_given(Run(run).model_config.model)


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument RUN and the options that name a model instead to a command, which receives
    them as one `Subject`."""

    @functools.wraps(command)
    def with_subject(
        run: Path | None,
        model: str | None,
        weights: Path | None,
        data: str | None,
        normalise: str | None,
        **flags: Any,
    ) -> Any:
        subject = Subject(run=run, model=model, weights=weights, data=data, normalise=normalise)
        return command(subject, **flags)

    options: Option = combined(
        click.argument("run", type=PATH, required=False),
        model_option(
            "Measure this network instead of a run, such as resnet18 or FILE.py:NAME; or the "
            "network of a run whose model was given in Python."
        ),
        click.option(
            "--weights",
            type=PATH,
            metavar="FILE",
            help="Weights of --model: .safetensors, .pt, .pth, or a run folder.",
        ),
        click.option(
            "--data",
            metavar="DATA",
            help="Data set of --model, or other data for a run.  [default: the run's]",
        ),
        click.option(
            "--normalise",
            metavar="NORMALISATION",
            help=f"Normalisation that --model was trained with: {CHOICES}.  "
            "[default: own, that of the weights or the model]",
        ),
    )
    return options(with_subject)
