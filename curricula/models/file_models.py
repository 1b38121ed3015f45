"""Networks of Python files that the user names in this process."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from curricula.errors import UserError, did_you_mean, message_of, shortened, shown
from curricula.expressions import factories
from curricula.expressions.model_files import FILE, parts_of
from curricula.expressions.syntax import Argument, Call, Quoted
from curricula.plugins import registry
from curricula.victim.copies import copied


def file_model(
    num_classes: int, in_channels: int, image_size: int | tuple[int, int], path: str, name: str
) -> nn.Module:
    """Build a network from a class or function of a Python file, or copy a network that the file
    holds: ``file("mynet.py", MyNet, width=4)``, on the command line also ``mynet.py:MyNet``.

    The class or function gets the arguments of the call, and the three below if it has parameters
    of these names. The file runs only if you name it in the same process, by ``--model
    FILE.py:NAME`` or ``--plugin FILE.py``: a run from someone else cannot start it.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels.
        path: the file.
        name: name of a class, a function or a network in it.

    Raises:
        UserError: a file that was not named, no such name, or a value of another type.
    """
    supplied = {
        "num_classes": num_classes, "in_channels": in_channels, "image_size": image_size,
    }  # fmt: skip
    call = Call(FILE, (Argument(Quoted(path)), Argument(Call(name))))
    network: nn.Module = build_from_file(call, supplied=supplied).value
    return network


def build_from_file(call: Call, *, supplied: Mapping[str, Any]) -> factories.Built:
    """Return the network of a call ``file("mynet.py", MyNet, ...)``, and the call with every
    default written out.

    Args:
        call: the call as parsed.
        supplied: values of the parameters ``num_classes``, ``in_channels`` and ``image_size``,
            which the class or function may have.

    Raises:
        UserError: as `file_model` does; an argument is unknown or of the wrong type.
    """
    path, name, rest = parts_of(call)
    values = vars(registry.current().module_of(path))
    where = f"model {shortened(f'{path}:{name}')}"
    if name not in values:
        public = [each for each, value in values.items() if callable(value) and each[0] != "_"]
        raise UserError(f"{where}: the file has no such name; {did_you_mean(name, public)}")
    found = values[name]
    if isinstance(found, nn.Module):
        if rest:
            raise UserError(f"{where}: it is a network already, and takes no arguments")
        return factories.Built(value=copied(found), call=call)
    if not callable(found):
        raise UserError(f"{where}: it must be a class or a function, not {shown(found)}")
    inner = _built(found, Call(name, rest), supplied, where)
    if not isinstance(inner.value, nn.Module):
        raise UserError(f"{where}: it must return a torch.nn.Module, not {shown(inner.value)}")
    arguments = (Argument(Quoted(path)), Argument(Call(name)), *inner.call.arguments)
    return factories.Built(value=inner.value, call=Call(FILE, arguments))


file_model.from_call = build_from_file  # type: ignore[attr-defined]


def _built(
    factory: Callable[..., Any], call: Call, supplied: Mapping[str, Any], where: str
) -> factories.Built:
    """Return what a class or function of a file makes of a call.

    Raises:
        UserError: its code fails, or an argument is wrong.
    """
    try:
        parameters = set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        parameters = set()
    written = {argument.key for argument in call.arguments}
    own = {
        key: value for key, value in supplied.items() if key in parameters and key not in written
    }
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results may go to standard output
            return factories.call_factory(factory, "model", call, supplied=own)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{call}: ')}") from error
    except Exception as error:  # the user's code may raise anything
        raise UserError(f"{where}: {type(error).__name__}: {message_of(error)}") from error
