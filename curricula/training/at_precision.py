"""The network that is trained, at a precision."""

from torch import Tensor, nn

from curricula.runtime.precision import Precision, autocast, weight_dtype
from curricula.victim.outputs import logits_of


class AtPrecision(nn.Module):
    """Run a network in float32 or bf16 on images of the dtype of its weights, and return its logits
    in float32."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.dtype = weight_dtype(network)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        with autocast(x_NCHW.device, self.precision):
            logits: Tensor = logits_of(self.network(x_NCHW.to(self.dtype or x_NCHW.dtype)))
        return logits.float()
