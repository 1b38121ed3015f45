"""``curricula certify``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, kept_option, measurement_options
from curricula.cli.subject import Subject, subject_options
from curricula.expressions.checks import check_perturbation
from curricula.plugins.registry import command_line
from curricula.runtime.signals import Interrupted
from curricula.runtime.values import check_number


@click.command()
@subject_options
@click.option(
    "--noise",
    metavar="EXPR",
    help="Noise, gaussian:SIGMA, by which the network was trained too.  [default: gaussian:0.25]",
)
@click.option(
    "--n0",
    type=int,
    help="Draws of the noise by which the class of an image is selected, 1 to 100,000,000.  "
    "[default: 100]",
)
@click.option(
    "--draws",
    type=int,
    help="Further draws by which the probability of the class is bounded, 1 to 100,000,000.  "
    "[default: 100,000]",
)
@click.option(
    "--alpha",
    type=float,
    help="Largest probability that a certificate is wrong, from 1e-12 to 0.5.  [default: 0.001]",
)
@click.option(
    "--group",
    metavar="GROUP",
    help="Rotations and reflections under which the network is invariant exactly: c2, c4, d1, d2 "
    "or d4. The certificates then hold around each of them.  [default: none]",
)
@click.option(
    "--radius",
    "radii",
    type=float,
    multiple=True,
    metavar="R",
    help="Print the certified accuracy at this l-2 radius, 0 or more; repeatable.  "
    "[default: multiples of SIGMA/2]",
)
@measurement_options("500")
@kept_option()
@format_option()
def command(
    subject: Subject,
    radii: tuple[float, ...],
    output: Path | None,
    form: str,
    **flags: Any,
) -> None:
    """Certify the test images of a run, or of a model that you have, in l-2: by randomised
    smoothing, no change within the radius of an image changes the class that the network predicts
    most often under Gaussian noise.

    The result of a run goes into its folder, as certificates.json, and into its report; not that on
    other data. That of a model is printed, and kept by -o. After an interruption, certify the
    folder again: it continues with the images that are missing.

    RUN is a folder that `curricula train -o RUN` or `curricula evaluate -o RUN` has written.

    Example: curricula certify runs/first --noise gaussian:0.25 --draws 10000
    """
    from curricula.api.measuring import certify
    from curricula.cli.tables import show_certificates
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import CERTIFICATES

    settings = given(flags)
    subject.check(output=output, checkpoint=settings.get("checkpoint"))
    for radius in radii:
        check_number("radius", radius, 0)
    if "noise" in settings:
        check_perturbation(settings["noise"])
    keep_freed_memory()
    with joined() as place, ProgressBar("certify") as bar:
        opened, kept = subject.open_to_keep(output, settings.get("data_root"))
        try:
            found = certify(
                opened, subject.other_data, output=output, progress=bar.progress, **settings
            )
        except KeyboardInterrupt as error:
            if kept is None or not kept.is_dir():
                raise
            what, again = str(error) or "interrupted", command_line("certify", kept)
            message = f"{what}; continue with: {again}, with the same options"
            raise Interrupted(message, getattr(error, "status", 130) - 128) from error
    if not place.is_first:
        return

    subject.show(
        opened,
        kept,
        form,
        settings.get("data_root"),
        found=found,
        file=CERTIFICATES,
        as_text=lambda: show_certificates(found, radii or None),
    )
