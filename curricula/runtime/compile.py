"""torch.compile for batches of one size; if it fails, the run continues uncompiled."""

import logging
import warnings

import torch
from torch import Tensor, nn

_warned: set[str] = set()
"""Messages already shown: a training compiles two networks, which fail with the same message."""


def _is_not_of_the_gpu(record: logging.LogRecord) -> bool:
    """Return whether a log record says something else than that torch found no GPU."""
    return not str(record.msg).startswith("No CUDA runtime is found")


class Compiled(nn.Module):
    """Run a network compiled by torch.compile for batches of one size.

    Smaller and larger batches run uncompiled, so that the network is compiled only once. If
    compilation fails, one warning says so, and all batches run uncompiled.

    Args:
        network: from images to logits; its parameters and flags are not changed.
        batch_size: size of the batches to compile for, in images.
    """

    def __init__(self, network: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.network = network
        self.batch_size = batch_size
        self.failed = False
        # With CUDA's compiler but no GPU, as on a login node, torch logs that it has none.
        logging.getLogger("torch.utils.cpp_extension").addFilter(_is_not_of_the_gpu)
        # In a list: torch.compile returns a module, which would register the network twice.
        self._compiled = [torch.compile(network, dynamic=False)]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor
        if self.failed or len(x_NCHW) != self.batch_size:
            logits = self.network(x_NCHW)
            return logits
        try:
            logits = self._compiled[0](x_NCHW)
        except Exception as error:  # a compiler may raise anything
            if x_NCHW.is_cuda and torch.cuda.is_current_stream_capturing():
                raise  # the capture failed, not the compiler
            self.failed = True
            reason = str(error).strip().partition("\n")[0]
            line = (
                f"the network could not be compiled ({type(error).__name__}: {reason}); it runs "
                "uncompiled"
            )
            if line not in _warned:
                _warned.add(line)
                warnings.warn(line, stacklevel=2)
            logits = self.network(x_NCHW)
        return logits
