"""Whether another form of a network computes what the network does."""

import torch
from torch import Tensor, nn

from curricula.runtime.precision import no_tf32

FEW = 8  # images that it is tried on
ROUNDING = 1e-3  # of the largest logit: far above what a sum in another order changes


def outputs_match(form: nn.Module, network: nn.Module, x_NCHW: Tensor) -> bool:
    """Whether a form of a network that runs channels last gives the network's own logits.

    A network's code may look at what a form changes: at the types and attributes of its layers,
    at its weights, at the layout of its maps. Such a form fails here, or gives other logits.

    Args:
        form: at rest; it may fail in any way.
        network: at rest. Both see the same random state, and the global one stays as it is.
        x_NCHW: images, of which the first few are shown.
    """
    x = x_NCHW.detach()[:FEW]
    with torch.no_grad(), no_tf32():
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            expected: Tensor = network(x.clone(memory_format=torch.contiguous_format))
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            try:
                found: Tensor = form(x.clone(memory_format=torch.channels_last))
            except Exception:  # whatever its code does with what it does not expect
                return False
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().amax() <= ROUNDING * expected.abs().amax())
