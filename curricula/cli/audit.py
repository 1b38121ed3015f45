"""``curricula audit``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, kept_option, measurement_options
from curricula.cli.paths import PATH
from curricula.cli.subject import Subject, subject_options


@click.command()
@subject_options
@measurement_options("200")
@kept_option()
@click.option(
    "--transfer",
    type=PATH,
    metavar="RUN",
    help="Run from which adversarial images are transferred.  [default: a copy of the network, "
    "trained on 1,000 clean training images]",
)
@format_option()
def command(
    subject: Subject,
    output: Path | None,
    form: str,
    transfer: Path | None,
    **flags: Any,
) -> None:
    """Check a run, or a model that you have, for gradient masking, which makes attacks fail without
    making a model robust.

    The result of a run goes into its folder, as audit.json, and into its report; not that on other
    data. That of a model is printed, and kept by -o. The exit status is 1 if a check fails.

    RUN is a folder that `curricula train -o RUN` or `curricula evaluate -o RUN` has written.

    Example: curricula audit runs/first
    """
    from curricula.api.measuring import audit
    from curricula.cli.tables import show_audit
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import AUDIT, Run

    settings = given(flags)
    subject.check(output=output, checkpoint=settings.get("checkpoint"))
    keep_freed_memory()
    transfer_from = None if transfer is None else Run.open(transfer)
    with joined() as place, ProgressBar("audit") as bar:
        opened, kept = subject.open_to_keep(output, settings.get("data_root"))
        found = audit(
            opened,
            subject.other_data,
            output=output,
            transfer_from=transfer_from,
            progress=bar.progress,
            **settings,
        )
    if not place.is_first:
        return

    subject.show(
        opened,
        kept,
        form,
        settings.get("data_root"),
        found=found,
        file=AUDIT,
        as_text=lambda: show_audit(found),
    )
    if not found.passed:
        raise click.exceptions.Exit(1)
