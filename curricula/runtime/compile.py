"""torch.compile, for batches of one size, and never at the cost of a run."""

import warnings

import torch
from torch import Tensor, nn

_told: set[str] = set()
"""What has been warned of: a training compiles two networks, and they fail alike."""


class Compiled(nn.Module):
    """A network that is compiled for batches of one size; smaller or larger ones run as they are,
    so that nothing is compiled twice. Where compilation fails, one warning says so, and all
    batches run as they are.

    Args:
        network: from images to logits. Its parameters and flags stay its own.
        batch_size: of the batches that are to be fast.
        graphs: on a GPU, replay the kernels as one CUDA graph. What comes back lies in memory
            that the next call writes again.
    """

    def __init__(self, network: nn.Module, batch_size: int, *, graphs: bool) -> None:
        super().__init__()
        self.network = network
        self.batch_size = batch_size
        self.failed = False
        mode = "reduce-overhead" if graphs else "default"
        # In a list: what torch.compile returns is a module around the same network.
        self._compiled = [torch.compile(network, dynamic=False, mode=mode)]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor
        if self.failed or len(x_NCHW) != self.batch_size:
            logits = self.network(x_NCHW)
            return logits
        try:
            logits = self._compiled[0](x_NCHW)
        except Exception as error:  # a compiler can fail in any way
            self.failed = True
            reason = str(error).strip().partition("\n")[0]
            line = (
                f"the network could not be compiled ({type(error).__name__}: {reason}); it runs "
                "uncompiled"
            )
            if line not in _told:
                _told.add(line)
                warnings.warn(line, stacklevel=2)
            logits = self.network(x_NCHW)
        return logits
