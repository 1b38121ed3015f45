"""Options that several commands share, each declared once."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import click

from curricula.cli.paths import PATH
from curricula.expressions.model_files import WEIGHTS, named_model
from curricula.models.normalisation import CHOICES

Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A decorator that adds options to a command's function."""


def named(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Return the expression of the model that a flag names, and load its file if it names one."""
    return None if text is None else named_model(text)


_TRAINING: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "data": ("Data set, such as mnist or folder(size=64).", "digits", {"metavar": "DATA"}),
    "data-root": ("Folder of the data set's files.", "data", {"metavar": "DIR"}),
    "model": (
        "Network, such as smallcnn, or FILE.py:NAME of your own.",
        "the data set's",
        {"metavar": "MODEL", "callback": named},
    ),
    "normalise": (
        f"Normalisation of the images, in place of the network's: {CHOICES}.",
        "own, the network's",
        {"metavar": "NORMALISATION"},
    ),
    "init": (
        "Weights to start from: a run, or a file (safetensors, .pt, .pth). A run also supplies "
        "the model and data that you leave out.",
        "random weights",
        {"metavar": "RUN|FILE"},
    ),
    "init-head": (
        "Last layer of --init: load it, or begin with a new one, for other classes.",
        "load",
        {"metavar": "[load|new]"},
    ),
    "perturb": (
        "Curriculum of perturbations, such as rot:30+pgd:8/255.",
        "clean",
        {"metavar": "EXPR"},
    ),
    "schedule": (
        "Strength over training, from 0 to 1, of all perturbations or of one; repeatable.",
        "linear",
        {"metavar": "[LABEL=]SCHEDULE", "multiple": True},
    ),
    "objective": ("Training loss, such as trades(beta=6).", "at", {"metavar": "OBJECTIVE"}),
    "epochs": ("Passes over the training images, 1 to 1,000,000.", "the data set's", {"type": int}),
    "batch-size": ("Images per update, 1 to 1,000,000.", "the data set's", {"type": int}),
    "freeze": (
        "Layers that are not trained, by name: a pattern such as 'layer1.*', or backbone for all "
        "but the last; repeatable.",
        "none",
        {"metavar": "PATTERN", "multiple": True},
    ),
    "optimizer": (
        "Optimiser, such as sgd(nesterov=true) or adamw(beta2=0.95).",
        "the data set's",
        {"metavar": "OPTIMIZER"},
    ),
    "lr": ("Learning rate, above 0 to 1e35.", "the data set's", {"type": float}),
    "head-lr": (
        "Learning rate of the last layer, above 0 to 1e35; 0 for that of --lr.",
        "0",
        {"type": float},
    ),
    "momentum": ("Momentum of optimisers that have it, from 0 to below 1.", "0.9", {"type": float}),
    "weight-decay": ("Weight decay, from 0 to 1e35.", "the data set's", {"type": float}),
    "lr-schedule": (
        "Learning rate over training, as a factor, such as one-cycle, cosine(warmup=0.05), "
        "cosine(cycles=3) or step(0:1, 0.5:0.1).",
        "the data set's",
        {"metavar": "SCHEDULE"},
    ),
    "awp": (
        "Adversarial weight perturbation, as a share of each weight tensor's norm, from 0 to "
        "1e35; 0 turns it off.",
        "0",
        {"type": float},
    ),
    "average": (
        "Average of the weights, which is validated and kept: none, ema(decay=0.999) or "
        "swa(start=0.5).",
        "none",
        {"metavar": "AVERAGE"},
    ),
    "shuffle/--no-shuffle": (
        "Visit the training images in a new random order each epoch.",
        "shuffle",
        {"default": None},
    ),
    "augmentation": (
        "Random transformations at full strength from the first epoch, such as crop+flip.",
        "the data set's",
        {"metavar": "EXPR"},
    ),
    "seed": ("Seed of every random draw, from 0 to 2**62.", "0", {"type": int}),
    "device": ("Device: auto, cpu, cuda, cuda:1, ...", "auto", {"metavar": "DEVICE"}),
    "precision": (
        "Precision of training and its attacks.",
        "auto",
        {"metavar": "[auto|float32|bf16]"},
    ),
    "compile": (
        "Compile the networks by torch.compile; auto tries it and keeps the faster way.",
        "auto",
        {"metavar": "[auto|on|off]"},
    ),
    "on-collapse": (
        "Action when the training collapses: warn; stop and evaluate the best checkpoint; or "
        "rollback to the last good one and continue with a milder attack.",
        "warn",
        {"metavar": "[warn|stop|rollback]"},
    ),
    "accumulate": (
        "Parts that a batch is processed in, one after another, to save memory, 1 or more.",
        "1",
        {"type": int},
    ),
    "sync-batchnorm/--no-sync-batchnorm": (
        "Compute batch norm over the whole batch that several processes share; on GPUs only.",
        "no-sync-batchnorm",
        {"default": None},
    ),
    "clip-norm": (
        "Largest l-2 norm of all gradients together; 0 for no limit.",
        "0",
        {"type": float},
    ),
    "stop-after": (
        "End after N epochs at full strength without a better joint validation accuracy; 0 for "
        "never.",
        "0",
        {"type": int, "metavar": "N"},
    ),
    "validation-limit": (
        "Evaluate at most N validation images after each epoch; 0 for all of them.",
        "0",
        {"type": int, "metavar": "N"},
    ),
}
"""Fields of a training configuration by flag: the help, the default in words, click's settings."""


def combined(*options: Option) -> Option:
    """Return a decorator that adds several options to a command; `--help` lists them in the given
    order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def training_options(*flags: str, **defaults: str) -> Option:
    """Return a decorator that adds the options that set fields of a training configuration.

    A flag that the user leaves out is None (or an empty tuple), so that a data set's default holds.

    Args:
        flags: names without the dashes in front, in the order of `--help`; all of them if empty.
        defaults: text of `--help` for defaults that differ in this command, by field.
    """
    chosen = []
    for flag in flags or _TRAINING:
        text, default, settings = _TRAINING[flag]
        default = defaults.get(flag.replace("-", "_"), default)
        chosen.append(click.option(f"--{flag}", help=f"{text}  [default: {default}]", **settings))
    return combined(*chosen)


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that the user has set, by name."""
    return {name: value for name, value in flags.items() if value is not None and value != ()}


def output_option(
    help_text: str, *, metavar: str = "FILE", required: bool = False, **settings: Any
) -> Option:
    """Return the option ``-o/--output``, which names the file or folder that a command writes."""
    return click.option(
        "-o", "--output", type=PATH, metavar=metavar, required=required, help=help_text, **settings
    )


def kept_option() -> Option:
    """Return the option ``-o/--output`` of a command that measures a model from elsewhere."""
    return output_option(
        "Folder to make for --model, with its weights and results, which the commands for runs "
        "take like a run.",
        metavar="DIR",
    )


def format_option(*more: str) -> Option:
    """Return the option ``--format``, which chooses how the result is printed: as a table or as
    JSON, for example.

    Args:
        more: forms besides ``table`` and ``json``.
    """
    return click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json", *more]),
        default="table",
        show_default=True,
        help="Form in which the result is printed.",
    )


def download_option() -> Option:
    """Return the option ``--download``, which fetches missing data."""
    return click.option(
        "--download", is_flag=True, help="Fetch the data set's missing files into --data-root."
    )


def moved_data_option() -> Option:
    """Return the option ``--data-root``, for a run whose data set has moved to a different
    folder."""
    return click.option(
        "--data-root", metavar="DIR", help="Folder of the data set's files.  [default: the run's]"
    )


def device_option() -> Option:
    """Return the option ``--device``."""
    return click.option(
        "--device", metavar="DEVICE", help="Device: auto, cpu, cuda, cuda:1, ...  [default: auto]"
    )


def model_option(
    help_text: str = "The network of a run whose model was given in Python, such as FILE.py:NAME.",
) -> Option:
    """Return the option ``--model``, which names a network."""
    return click.option("--model", metavar="MODEL", callback=named, help=help_text)


class _Checkpoint(click.Choice[str]):
    """The checkpoints of a run; a file is refused with the flag that takes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).endswith(WEIGHTS):
            self.fail(
                f"{value!r} is a file of weights: name it with --weights, and --model", param, ctx
            )
        return super().convert(value, param, ctx)


def checkpoint_option() -> Option:
    """Return the option ``--checkpoint``, which chooses the weights of a run."""
    return click.option(
        "--checkpoint",
        type=_Checkpoint(["best", "last"]),
        help="The checkpoint that was best on validation, or the last epoch's.  [default: best]",
    )


def measurement_options(images: str) -> Option:
    """Return a decorator that adds the options of a command that measures a run.

    Args:
        images: the number of images measured by default, in words.
    """
    return combined(
        click.option(
            "--limit",
            type=int,
            help=f"Measure the first LIMIT images, 1 to 1,000,000,000.  [default: {images}]",
        ),
        click.option(
            "--seed", type=int, help="Seed of the random draws, from 0 to 2**62.  [default: 0]"
        ),
        click.option(
            "--batch-size",
            type=int,
            help="Images per batch, 1 to 1,000,000; the results do not depend on it.  "
            "[default: 250 on a CPU, elsewhere the fastest]",
        ),
        device_option(),
        moved_data_option(),
        checkpoint_option(),
    )
