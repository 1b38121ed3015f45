"""Keep a network in a checkpoint: the tensors of its state dict, and aside from them what plain
torch would not load: buffers that are not persistent, and extra state of other types."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curricula.errors import UserError, message_of
from curricula.runtime.parsing import parse_json
from curricula.victim.copies import copied

ASIDE = "aside."  # prefix of the names of what is kept aside
NONE = ":none"  # end of the name of a buffer that is None
EXTRA = "_extra_state"  # last part of the name of a module's extra state in a state dict


def state_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors in a network's state dict, by name."""
    state = network.state_dict().items()
    return {name: value for name, value in state if isinstance(value, Tensor)}


def is_extra_state(name: str) -> bool:
    """Return whether a name in a state dict is that of a module's extra state."""
    return name.rpartition(".")[2] == EXTRA


def kept(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a network as a checkpoint names them: ``PREFIX.NAME`` for those of its
    state dict, and ``aside.PREFIX.NAME`` for its other buffers, and for its other extra state,
    whose JSON they hold as bytes; extra state that JSON cannot hold is left out.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> layer.register_buffer("seen", torch.zeros(()), persistent=False)
        >>> [*kept(layer, "model")]
        ['model.weight', 'aside.model.seen']
    """
    found = {f"{prefix}.{name}": tensor for name, tensor in state_tensors(network).items()}
    for name, (module, buffer) in _loose_buffers(network).items():
        tensor = module._buffers[buffer]
        found[f"{ASIDE}{prefix}.{name}{'' if tensor is not None else NONE}"] = (
            torch.empty(0) if tensor is None else tensor
        )
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor) and (text := _as_json(value)) is not None:
            content = bytearray(text.encode())
            found[f"{ASIDE}{prefix}.{name}"] = torch.frombuffer(content, dtype=torch.uint8)
    return found


def aside(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return by name what a checkpoint keeps of a network aside, under ``aside.PREFIX.NAME``."""
    begin = f"{ASIDE}{prefix}."
    return {name.removeprefix(begin): t for name, t in tensors.items() if name.startswith(begin)}


def load_kept(
    network: nn.Module, state: Mapping[str, Tensor], beside: Mapping[str, Tensor]
) -> None:
    """Load the tensors of a network's state dict and what was kept aside, both on the CPU; what was
    not kept aside, as in checkpoints of earlier versions, stays as it is.

    Raises:
        ValueError: something kept aside is not expected or damaged.
        RuntimeError: the state dict does not fit.
    """
    extra = {name: v for name, v in network.state_dict().items() if not isinstance(v, Tensor)}
    network.load_state_dict({**extra, **state})
    load_aside(network, beside)


def load_aside(network: nn.Module, beside: Mapping[str, Tensor]) -> None:
    """Load what a checkpoint keeps of a network aside, on the CPU, as `aside` returns it.

    Raises:
        ValueError: it is not expected or damaged.
    """
    modules, loose = dict(network.named_modules()), _loose_buffers(network)
    for name, tensor in beside.items():
        if name in loose:
            _set_buffer(network, *loose[name], tensor)
        elif name.removesuffix(NONE) in loose:
            module, buffer = loose[name.removesuffix(NONE)]
            module._buffers[buffer] = None
        elif is_extra_state(name) and name.removesuffix(EXTRA).rstrip(".") in modules:
            value = parse_json(tensor.to(torch.uint8).numpy().tobytes().decode())
            modules[name.removesuffix(EXTRA).rstrip(".")].set_extra_state(value)
        else:
            raise ValueError(f"{name} is not expected")


def _set_buffer(network: nn.Module, module: nn.Module, name: str, new: Tensor) -> None:
    """Set a buffer of one of a network's modules; one that had no tensor yet, or that its forward
    replaces, may have another shape."""
    old = module._buffers[name]
    if old is None:
        device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
        module._buffers[name] = new.to(device)
    elif old.dtype != new.dtype:
        raise ValueError(f"{name} is of {new.dtype}, not {old.dtype}")
    elif old.shape == new.shape:
        old.detach().copy_(new)
    else:
        module._buffers[name] = new.to(old.device)


def check_kept(network: nn.Module, name: str) -> None:
    """Check that a checkpoint can keep and restore the extra state of a network's modules.

    Args:
        network: the network. It is not changed.
        name: its name in messages.

    Raises:
        UserError: it is neither tensors nor values of JSON, or is not taken back.
    """
    extra = {key: v for key, v in network.state_dict().items() if not isinstance(v, Tensor)}
    for key, value in extra.items():
        if _as_json(value) is None:
            raise UserError(
                f"{name} has extra state {key}, a {type(value).__name__}, that a run cannot keep: "
                "let get_extra_state return a tensor, or numbers and texts, in lists and mappings "
                "by text"
            )
    if not extra:
        return
    try:
        load_kept(copied(network), state_tensors(network), aside(kept(network, "model"), "model"))
    except Exception as error:  # third-party code may raise anything
        raise UserError(
            f"{name} does not take its extra state back ({message_of(error)}), so that a training "
            "could not be continued: write set_extra_state"
        ) from error


def _loose_buffers(network: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return (module, name in it) of each buffer that a state dict leaves out, by full name."""
    return {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in network.named_modules()
        for name in tuple(module._buffers.keys())  # of a scripted module only keys() works
        if name in module._non_persistent_buffers_set
    }


def _as_json(value: Any) -> str | None:
    """Return a value as JSON; None if JSON does not give it back."""
    try:
        text = json.dumps(value)
        return text if repr(parse_json(text)) == repr(value) else None  # 1 is not 1.0, nor True
    except Exception:  # of third-party objects
        return None
