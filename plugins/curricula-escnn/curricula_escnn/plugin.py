"""The records of this distribution; imports neither torch nor escnn."""

from collections.abc import Iterable

from curricula.plugins.hookspecs import Record, hookimpl

INSTALL = "pip install ./plugins/curricula-escnn in a clone of curricula"


@hookimpl
def curricula_models() -> Iterable[Record]:
    yield Record(
        name="p4cnn",
        factory="curricula_escnn.small:p4cnn",
        summary="gcnn-stdcnn over c4, after Cohen and Welling; 20,539 parameters (stdcnn 21,750)",
        install=INSTALL,
    )
    yield Record(
        name="p4mcnn",
        factory="curricula_escnn.small:p4mcnn",
        summary="gcnn-stdcnn over d4, after Cohen and Welling; 20,776 parameters (stdcnn 21,750)",
        install=INSTALL,
    )
    yield Record(
        name="gcnn-stdcnn",
        factory="curricula_escnn.small:gcnn_stdcnn",
        summary="stdcnn, invariant to group=cN or dN; 20,539 parameters (stdcnn 21,750)",
        install=INSTALL,
    )
    yield Record(
        name="gcnn-vgg16",
        factory="curricula_escnn.vgg:gcnn_vgg16",
        summary="vgg16, invariant to group=cN or dN; 14,716,394 parameters (vgg16 14,728,266)",
        install=INSTALL,
    )
    yield Record(
        name="gcnn-resnet18",
        factory="curricula_escnn.resnet:gcnn_resnet18",
        summary="resnet18, invariant to group=cN or dN; 11,165,738 parameters "
        "(resnet18 11,173,962)",
        install=INSTALL,
    )
