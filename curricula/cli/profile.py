"""``curricula profile``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, kept_option, measurement_options
from curricula.cli.subject import Subject, subject_options


@click.command()
@subject_options
@click.option(
    "--grid", is_flag=True, help="Also measure the worst of 775 rotations and translations."
)
@measurement_options("1000")
@kept_option()
@format_option()
def command(
    subject: Subject,
    grid: bool,
    output: Path | None,
    form: str,
    **flags: Any,
) -> None:
    """Measure the robustness profile of a run, or of a model that you have: accuracy and fooling
    rate over growing ranges.

    Rotations, translations and PGD are measured alone and jointly on the test images. The result of
    a run goes into its folder, as profile.json, and into its report; not that on other data. That
    of a model is printed, and kept by -o.

    RUN is a folder that `curricula train -o RUN` or `curricula evaluate -o RUN` has written.

    Example: curricula profile runs/first
    """
    from curricula.api.measuring import robustness_profile
    from curricula.cli.tables import show_profile
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import PROFILE

    settings = given(flags)
    subject.check(output=output, checkpoint=settings.get("checkpoint"))
    keep_freed_memory()
    with joined() as place, ProgressBar("profile") as bar:
        opened, kept = subject.open_to_keep(output, settings.get("data_root"))
        profile = robustness_profile(
            opened,
            subject.other_data,
            grid=grid,
            output=output,
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
        found=profile,
        file=PROFILE,
        as_text=lambda: show_profile(profile),
    )
