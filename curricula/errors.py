"""Errors caused by the user's input, each with a message of one line."""

import contextlib
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_COMPARED = re.compile(r"'(\w+)' must be (>=|>|<=|<) (\S+): (.+)")
_ALLOCATED = re.compile(r"tried to allocate (\d+) bytes")
_CHOSEN = re.compile(r"'(\w+)' must be in [(\[](.+?),?[)\]] \(got (.+)\)")
_USER_PASSWORD = re.compile(r"(//[^\s:@/]*:)\S*@")
_QUERY_PASSWORD = re.compile(r"([?&;]\w*pass\w*=)[^\s&;]*", re.IGNORECASE)
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Persian, Hindi and emoji use them
MAX_MESSAGE = 2000  # characters of a message
MAX_SHOWN = 300  # characters of a text inside a message
MAX_EXACT = 10**15  # counts up to this one are shown with all their digits
_ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    "batch_size": ("batch", "bs", "minibatch"),
    "budget": ("eps", "epsilon", "radius", "degrees", "max_degrees"),
    "clip_norm": ("grad_clip", "max_grad_norm"),
    "data": ("dataset",),
    "data_root": ("root", "data_dir", "data_path"),
    "device": ("gpu", "cuda"),
    "eps": ("epsilon", "radius", "budget"),
    "images": ("n", "num_images", "limit"),
    "init": ("weights", "pretrained", "ckpt", "init_from", "finetune"),
    "limit": ("n", "num_images", "n_examples", "images"),
    "lr": ("learning_rate", "eta"),
    "lr_schedule": ("lr_scheduler", "lr_decay"),
    "model": ("net", "network", "arch", "architecture"),
    "normalise": ("mean", "std", "mean_std", "normalization", "normalisation", "transform"),
    "objective": ("loss", "criterion"),
    "optimizer": ("optim", "optimiser"),
    "output": ("out", "outdir", "output_dir", "save_dir"),
    "perturb": ("attack", "attacks", "perturbations", "curriculum"),
    "precision": ("amp", "dtype", "bf16", "fp16"),
    "rel_step": ("alpha", "step_size", "eps_step", "eps_iter"),
    "restarts": ("n_restarts", "num_restarts"),
    "seed": ("random_state", "rng"),
    "step": ("alpha", "step_size", "eps_step", "eps_iter"),
    "steps": ("iterations", "iters", "num_steps", "nb_iter", "max_iter"),
    "stop_after": ("patience", "early_stopping"),
    "threat": ("attack", "attacks"),
    "threats": ("attack", "attacks", "threat"),
    "validation_limit": ("limit_val_batches", "validation_steps"),
    "weight_decay": ("wd",),
    "weights": (
        "ckpt",
        "ckpt_path",
        "checkpoint_path",
        "init",
        "model_path",
        "model_weights",
        "state_dict",
    ),
}
"""The words of other libraries for arguments and fields of this one."""
_ALLOWED = {">=": "{} or more", ">": "above {}", "<=": "at most {}", "<": "below {}"}


class UserError(ValueError):
    """An error caused by the user's input, whose one-line message states the value, what is
    allowed, and the fix.

    The command line prints the message and exits with status 2; a library caller may catch it as
    the ``ValueError`` that it is. A fault of curricula itself never raises this class.

    Args:
        message: the message; names in it may come from someone else (see `printable`).
    """

    def __init__(self, message: str) -> None:
        if len(message) > MAX_MESSAGE:  # of a name of thousands of characters; the fix comes last
            message = f"{message[: MAX_MESSAGE // 2]} ... {message[-MAX_MESSAGE // 2 :]}"
        super().__init__(printable(message))


@contextlib.contextmanager
def prefixed_errors(what: str) -> Iterator[None]:
    """Put a text, such as a cell's name, before the message of a user error raised inside the
    block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


class UnknownNameError(UserError):
    """An error for a name that no loaded plugin registered; its message suggests the nearest
    registered names."""


class Notice(UserWarning):
    """Tell in one line what the library has decided that the user may not expect.

    The command line prints it as a note. The message may have names from someone else.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DataWarning(Notice):
    """Tell in one line how a data set's files were understood, and which were passed over."""


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return ``did you mean ...?`` with the known names that are closest to ``name``.

    Args:
        name: the unknown name.
        known: all known names.
        otherwise: the text where no known name is similar; by default it lists all of them.

    Example:
        >>> did_you_mean("smalcnn", ["smallcnn", "lenet"])
        'did you mean smallcnn?'
        >>> did_you_mean("vgg", ["smallcnn", "lenet"])
        'known: smallcnn, lenet'
    """
    known = tuple(known)
    similar = similar_names(name, known)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    return f"known: {', '.join(known)}" if otherwise is None else otherwise


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three of the known names: those of the same meaning as ``name``, or else those
    that are spelt most alike.

    >>> similar_names("learning_rate", ["lr", "lr_schedule", "epochs"])
    ['lr']
    """
    import difflib  # here: few runs need it

    known = tuple(known)
    word = name.lower().replace("-", "_")
    meant = [each for each in known if word in _ALSO_CALLED.get(each.replace("-", "_"), ())]
    return meant or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def message_of(error: BaseException) -> str:
    """Return an error's message as one line of text, with messages of attrs validators in plain
    words.

    Built-in factories and those of plugins check their arguments with attrs validators.

    Example:
        >>> message_of(ValueError("'epochs' must be >= 1: 0"))
        'epochs must be 1 or more, not 0'
        >>> message_of(ValueError("'norm' must be in ('linf', 'l2') (got 'l3')"))
        'norm must be linf or l2, not l3'
    """
    first = error.args[0] if error.args else None
    text = " ".join((first if isinstance(first, str) else str(error)).split())
    if match := _COMPARED.fullmatch(text):
        name, sign, bound, value = match.groups()
        is_finite = (sign, bound) == ("<", "inf")
        allowed = "finite" if is_finite else _ALLOWED[sign].format(_readable(bound))
        return f"{name} must be {allowed}, not {_readable(value)}"
    if match := _CHOSEN.fullmatch(text):
        name, options, value = (part.replace("'", "") for part in match.groups())
        return f"{name} must be {options.replace(', ', ' or ')}, not {value}"
    if match := _ALLOCATED.search(text):
        return f"{amount(int(match[1]))} bytes of memory cannot be had; make it smaller"
    return text


def _readable(number: str) -> str:
    """Return a printed number as text for a message: without ``.0``, with thousands separators, and
    only its order of magnitude from 2**63 on."""
    number = number.removesuffix(".0")
    if not number.lstrip("-").isdecimal() or len(number) < 5:
        return number
    whole = int(number)
    return f"{whole:,}" if abs(whole) < 2**63 else amount(whole)


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < MAX_EXACT else amount(x)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 100  # characters


def shown(value: Any) -> str:
    """Return a value's repr as one short line, for use in an error message.

    Example:
        >>> shown("best"), shown(list(range(100)))
        ("'best'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    return " ".join(_SHORT.repr(value).split())


def shortened(text: object) -> str:
    """Return a value's text for use in an error message, with the middle left out if it is long.

    Example:
        >>> shortened("rot:30"), len(shortened("+".join(["rot:30"] * 100)))
        ('rot:30', 300)
    """
    whole = str(text)
    if len(whole) <= MAX_SHOWN:
        return whole
    half = (MAX_SHOWN - 3) // 2
    return f"{whole[: MAX_SHOWN - 3 - half]}...{whole[-half:]}"


def amount(count: int) -> str:
    """Return a whole number as text with thousands separators, or only its order of magnitude if it
    is very large.

    Python refuses to print numbers of more than 4,300 digits.

    Example:
        >>> amount(1_000_000), amount(10**5000)
        ('1,000,000', 'about 10^5000')
    """
    if abs(count) < MAX_EXACT:
        return f"{count:,}"
    return f"about {'-' if count < 0 else ''}10^{round(math.log10(abs(count)))}"


def printable(text: str) -> str:
    """Return a text on one line, without control characters and characters that cannot be drawn, so
    that it is safe on a terminal, in a page or in a figure.

    Example:
        >>> printable("one\\ntwo \\x1b[2J")
        'one two �[2J'
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS:
        return letter
    return " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"


def redacted(text: str) -> str:
    """Return a text without the passwords of the URLs in it.

    Example:
        >>> redacted("--storage postgresql://me:secret@host/db?sslpassword=secret")
        '--storage postgresql://me:***@host/db?sslpassword=***'
    """
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", text))
