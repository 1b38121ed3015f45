"""The names of classes that a network states, compared with those of data: a network whose outputs
are in a different order gives plausible, wrong accuracies. Nothing here imports torch."""

import inspect
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curricula.errors import UserError, shown

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTES = ("id2label", "classes", "class_names", "label_names")
"""Attributes that may name the classes of a network."""
HOLDERS = ("config", "pretrained_cfg")
"""Attributes of a network of Hugging Face or timm that describe it."""
_NUMBERED = re.compile(r"(label|class)?\d+")


def is_numbered(classes: Sequence[str]) -> bool:
    """Return whether class names are the numbers of the labels, as of data without class names.

    >>> is_numbered(["0", "1"]), is_numbered(["cat", "dog"])
    (True, False)
    """
    return list(classes) == [str(number) for number in range(len(classes))]


def same_classes(classes: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether class names are equal and in the same order; letter case, spaces, hyphens and
    underscores do not count, unless they are all that tells two classes apart.

    >>> same_classes(["Fire truck", "cat"], ["fire_truck", "Cat"])
    True
    """
    return _comparable(classes, others) == _comparable(others, classes)


def check_same_classes(
    classes: Sequence[str], data: str, others: Sequence[str], of: str, fix: str
) -> None:
    """Check that the classes of data are those of a network, in the same order, as far as their
    names tell. Different numbers of classes are left to the checks of outputs.

    Args:
        classes: class names of the data, by label.
        data: name of the data, in messages.
        others: class names of the network; names such as ``LABEL_0`` tell nothing.
        of: name of the network, in messages.
        fix: what the user can do.

    Raises:
        UserError: a label has a different class; the message names the first one.
    """
    if len(classes) != len(others) or same_classes(classes, others):
        return
    ours, theirs = _comparable(classes, others), _comparable(others, classes)
    tells_nothing = any(all(map(_NUMBERED.fullmatch, map(_plain, n))) for n in (classes, others))
    if tells_nothing and set(ours) != set(theirs):
        return
    label = next(n for n, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
    verb = "are in a different order from" if set(ours) == set(theirs) else "differ from"
    raise UserError(
        f"the classes of {data} {verb} those of {of}: label {label} is "
        f"{shown(classes[label])}, not {shown(others[label])}; {fix}"
    )


def stated_classes(model: "nn.Module", count: int) -> tuple[str, ...] | None:
    """Return the names of a network's classes, by output, that it or a part of it states, as
    networks of Hugging Face do in ``config.id2label``; None if none states ``count`` names."""
    for module in model.modules():
        for holder in (module, *(_attribute(module, name) for name in HOLDERS)):
            for attribute in ATTRIBUTES:
                names = _names(_attribute(holder, attribute))
                if names is not None and len(names) == count:
                    return names
    return None


def check_stated_classes(model: "nn.Module", classes: Sequence[str], data: str) -> None:
    """Check that the class names that a network states, if any, are those of data, in the same
    order.

    Raises:
        UserError: a label has a different class.
    """
    stated = stated_classes(model, len(classes))
    if stated is not None:
        check_same_classes(
            classes, data, stated, "the model", "order and name the data's classes as the model "
            "does, or correct the names that the model states",
        )  # fmt: skip


def _attribute(holder: Any, name: str) -> Any:
    """Return an attribute or value of an object or a mapping, without running a property's code;
    None if there is none."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    return inspect.getattr_static(holder, name, None)


def _names(value: Any) -> tuple[str, ...] | None:
    """Return a list of names, or a mapping of numbers to names, by number; None for all else."""
    if isinstance(value, Mapping):
        try:
            numbers = {int(number): name for number, name in value.items()}
        except (TypeError, ValueError):
            return None
        value = [numbers.get(number) for number in range(len(numbers))]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value)


def _comparable(classes: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return class names without what does not count between them and others."""
    plain = [_plain(name) for name in classes]
    ambiguous = any(len({*map(_plain, names)}) < len({*names}) for names in (classes, others))
    return list(classes) if ambiguous else plain


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
