"""Initial weights after He et al. (2015), as residual networks for small images have them."""

from torch import nn


def he_initialise(network: nn.Module) -> nn.Module:
    """Initialise a network's weights in place after He et al. (2015, section 2.2, backward case),
    and return the network.

    Weights of convolutions are drawn from a normal distribution of variance
    2 / (kernel height x kernel width x output channels); biases of convolutions and linear layers
    are set to 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return network
