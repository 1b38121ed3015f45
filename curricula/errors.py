"""Errors that the user caused, each reported in one line."""

from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message is one line with the value, what is allowed, and the fix.

    The command line prints the message and exits with status 2; a library caller may catch it as
    the ``ValueError`` that it is. A fault of curricula itself never raises this class.
    """


class UnknownNameError(UserError):
    """A name that no loaded plugin registered; the message has the nearest registered names."""


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return ``did you mean ...?`` with the registered names closest to an unknown one.

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
    import difflib  # here: few runs need it

    known = tuple(known)
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    return f"known: {', '.join(known)}" if otherwise is None else otherwise
