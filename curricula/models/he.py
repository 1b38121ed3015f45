"""The initial weights of He et al. (2015), as the residual networks for small images take them."""

from torch import nn


def he_initialise(network: nn.Module) -> nn.Module:
    """The same network, its convolutions drawn anew from a normal distribution of variance
    2 / (kernel height x kernel width x output channels), and the biases of its convolutions and
    linear layers at 0 (He et al. 2015, section 2.2, backward case)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return network
