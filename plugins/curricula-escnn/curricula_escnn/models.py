"""Networks equivariant to rotations by 90 degrees, on escnn."""

import warnings
from typing import Any

from torch import Tensor, nn

from curricula.errors import UserError
from curricula.models.normalise import Normalise

with warnings.catch_warnings():
    # escnn runs without py3nj, which needs a Fortran compiler; nothing else is silenced.
    warnings.filterwarnings("ignore", message=".*py3nj.*")
    from escnn import gspaces
    from escnn import nn as enn


class P4CNN(nn.Module):
    """Seven equivariant convolutions to invariant logits.

    escnn keeps expanded filters as buffers in evaluation mode and drops them in training mode, so
    they are left out of checkpoints: a checkpoint loads whatever mode it was saved in.
    """

    def __init__(
        self, num_classes: int, in_channels: int, side: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        space = gspaces.rot2dOnR2(4)
        self.images = enn.FieldType(space, in_channels * [space.trivial_repr])
        hidden = enn.FieldType(space, width * [space.regular_repr])
        out = enn.FieldType(space, num_classes * [space.regular_repr])
        layers: list[enn.EquivariantModule] = []
        before = self.images
        for number in range(1, 7):
            layers += [
                enn.R2Conv(before, hidden, 3, bias=False),
                enn.InnerBatchNorm(hidden),
                enn.ReLU(hidden, inplace=True),
                enn.PointwiseDropout(hidden, dropout),
            ]
            if number == 2:
                layers.append(enn.PointwiseMaxPool(hidden, 2))
            before = hidden
        layers += [enn.R2Conv(hidden, out, side), enn.GroupPooling(out)]
        self.normalise = Normalise()
        self.equivariant = enn.SequentialModule(*layers)
        self.register_state_dict_post_hook(_leave_out_expanded_filters)
        self.register_load_state_dict_post_hook(_expand_filters_anew)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        features = self.equivariant(enn.GeometricTensor(self.normalise(x_NCHW), self.images))
        logits: Tensor = features.tensor.flatten(1)
        return logits

    def plain_equivalent(self) -> nn.Module:
        """The same function at the present weights as ordinary torch layers, at rest."""
        flags = {module: module.training for module in self.equivariant.modules()}
        exported = self.equivariant.eval().export()
        self.equivariant.train(flags[self.equivariant])
        for module, training in flags.items():
            module.training = training
        plain = nn.Sequential(Normalise(), exported, nn.Flatten()).eval()
        # escnn builds some of the exported layers on the CPU.
        return plain.to(next(self.parameters()).device)


_EXPANDED = (".filter", ".expanded_bias")


def _leave_out_expanded_filters(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any
) -> None:
    for name in [name for name in state if name.endswith(_EXPANDED)]:
        del state[name]


def _expand_filters_anew(module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.endswith(_EXPANDED)]
    if not module.training:
        module.train()
        module.eval()


def p4cnn(
    num_classes: int, in_channels: int, image_size: int, width: int = 13, dropout: float = 0.3
) -> nn.Module:
    """P4CNN (Cohen and Welling 2016, section 8.1): the form of `stdcnn` that is equivariant to
    turns by 90 degrees, and whose logits are invariant to them.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 22 or more, and even: the pooling of an odd map would not be
            equivariant.
        width: regular fields of each layer (4 channels each), 1 or more; 13 gives about the
            parameter count of stdcnn (23,124 and 21,750 at 28x28 with 10 classes).
        dropout: probability in [0, 1), after every layer but the last.

    Raises:
        UserError: an argument out of range.
    """
    side = (image_size - 4) // 2 - 8  # as in stdcnn
    if side < 1 or image_size % 2:
        raise UserError(
            f"p4cnn takes images of an even size of 22x22 or more, not {image_size}x{image_size}"
        )
    if width < 1:
        raise UserError(f"width must be 1 or more, not {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie from 0 to below 1, not {dropout:g}")
    return P4CNN(num_classes, in_channels, side, width, dropout)
