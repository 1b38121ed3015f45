"""Models of Python files: ``mynet.py:MyNet`` as a user names one, ``file("mynet.py", MyNet)`` as a
configuration does."""

import re
from pathlib import Path

from curricula.errors import UserError, shortened
from curricula.expressions.syntax import Argument, Call, Quoted, parse_call, quotable
from curricula.plugins import registry

FILE = "file"  # name of the model that a file defines
_NAMED = re.compile(r"(?P<path>.+\.py):(?P<call>.*)", re.DOTALL)


def names_file(text: str) -> bool:
    """Return whether a text names a model of a file, as ``mynet.py:MyNet`` does.

    >>> names_file("mynet.py:MyNet(width=4)"), names_file("lenet")
    (True, False)
    """
    return _NAMED.fullmatch(text) is not None and not text.startswith(f"{FILE}(")


def named_model(text: str) -> str:
    """Return the expression of a model that the user named: of ``mynet.py:MyNet`` it is
    ``file("mynet.py", MyNet)``. The file is loaded, which runs its code.

    A text from a configuration must not come here, since it may be someone else's.

    Raises:
        UserError: no such file, a broken one, or no name of a class or function.
    """
    if names_file(text):
        path, _, written = text.partition(".py:")
        path += ".py"
        if not quotable(path):
            raise UserError(f"model {shortened(text)}: the path cannot be written; rename the file")
        if not written:
            raise UserError(f"model {shortened(text)}: name its class or function: {path}:NAME")
        call = parse_call(written)
        expression = str(
            Call(FILE, (Argument(Quoted(path)), Argument(Call(call.name)), *call.arguments))
        )
    elif text.lstrip().startswith(FILE):
        call = parse_call(text)
        if call.name != FILE:
            return text
        path, _, _ = parts_of(call)
        expression = text
    else:
        return text
    registry.current().add_file(Path(path))
    return expression


def parts_of(call: Call) -> tuple[str, str, tuple[Argument, ...]]:
    """Return the path, the name and the further arguments of ``file("mynet.py", MyNet, ...)``.

    Raises:
        UserError: the call has a different form.
    """
    match call.arguments:
        case (
            Argument(value=Quoted(path), key=None),
            Argument(value=Call(name=name, arguments=()), key=None),
            *rest,
        ):
            return path, name, tuple(rest)
    raise UserError(
        f'model {shortened(call)}: write {FILE}("FILE.py", NAME), or FILE.py:NAME on the command '
        "line, with the arguments of its class or function"
    )
