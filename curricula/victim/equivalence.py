"""Compare a faster form of a network with the network itself, on a few images."""

import torch
from torch import Tensor, nn

from curricula.runtime.memory_format import channels_last
from curricula.runtime.precision import no_tf32, weight_dtype
from curricula.victim.copies import copied, restored
from curricula.victim.outputs import logits_of

MAX_IMAGES = 8  # images compared
TOLERANCE = 1e-3  # share of the largest logit: far more than a different order of summation changes


def outputs_match(form: nn.Module, network: nn.Module, x_NCHW: Tensor) -> bool:
    """Return whether a faster form of a network returns the network's logits on channels-last
    images, within a tolerance.

    A network's code may depend on what a form changes: the types and attributes of its layers, its
    weights, or the memory format of its feature maps. The form then fails or returns other logits.

    Args:
        form: in eval mode; it may raise any exception.
        network: in eval mode. Both start from the same random state, and the global one is
            restored.
        x_NCHW: images; the first `MAX_IMAGES` are compared.
    """
    x = x_NCHW.detach()[:MAX_IMAGES]
    x = x.to(weight_dtype(network) or x.dtype)
    with torch.no_grad(), no_tf32():
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            expected: Tensor = logits_of(network(x.clone(memory_format=torch.contiguous_format)))
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            try:
                found: Tensor = logits_of(form(x.clone(memory_format=torch.channels_last)))
            except Exception:  # code that did not expect this form may raise anything
                return False
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().amax() <= TOLERANCE * expected.abs().amax())


def equal_up_to(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether tensors are equal within a share of the largest value; NaN and infinities
    equal each other."""
    if found.shape != expected.shape:
        return False
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return False
    found, expected = found[finite], expected[finite]
    if not len(expected):
        return True
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    return bool((found - expected).abs().amax() <= tolerance * expected.abs().amax())


def to_device(model: nn.Module, x_NCHW: Tensor, device: torch.device) -> nn.Module:
    """Return a model on a device, in channels-last memory format if its logits stay the same, since
    convolutions are fastest there.

    A model whose code misreads or refuses channels-last feature maps (as ``view`` does) keeps its
    memory format.

    Args:
        model: moved in place.
        x_NCHW: images to compare both memory formats on; the first `MAX_IMAGES` are enough.
        device: where to put the model.
    """
    model = model.to(device)
    network = copied(model)
    network.eval()
    form = channels_last(copied(network))
    with restored(model):  # a copy of it may run its own modules
        match = outputs_match(form, network, x_NCHW.to(device))
    return channels_last(model) if match else model
