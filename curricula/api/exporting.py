"""Write a trained network for other programs: `export`.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

import io
import json
import math
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from curricula.api.predicting import (
    ImageClassifier,
    draws_numbers,
    open_classifier,
    output_of,
)
from curricula.data.spec import height_width
from curricula.errors import UserError, message_of
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.files import check_output, write_output
from curricula.runtime.values import as_path, check_choice, check_whole, known_keywords
from curricula.training.config import MAX_LIMIT
from curricula.training.loading import CHECKPOINTS, Checkpoint, open_data

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from curricula.data.dataset import DataSet
    from curricula.data.spec import ImageSpec
    from curricula.training.run import Run

Form = Literal["onnx", "pt2"]
FORMS: Mapping[str, Form] = {".onnx": "onnx", ".pt2": "pt2"}
"""Formats of an exported file by the ending of its name."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages that an export to ONNX needs."""

OPSET = 18  # of ONNX: the one that torch translates to, which programs since 2023 read
CHECKED = 100  # images compared by default
TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit if that is above 1
METADATA = "curricula.json"  # name of the metadata in a .pt2 file


@attrs.frozen(kw_only=True)
class Exported:
    """An exported network, and how it was compared with the original.

    Attributes:
        path: the file.
        difference: largest difference of a logit from the original network's.
        images: number of images compared.
        source: what they are, such as ``test images of digits``.
    """

    path: Path
    difference: float
    images: int
    source: str


@known_keywords()
@cpu_by_default()
def export(
    model: "Run | str | Path | nn.Module",
    output: str | Path,
    *,
    data: "DataSet | ImageSpec | str | None" = None,
    checkpoint: Checkpoint = "best",
    data_root: str | Path | None = None,
    limit: int = CHECKED,
) -> Exported:
    """Write a trained network as ONNX or as a program of `torch.export`, and return how far its
    logits are from the network's own.

    The file takes float32 images NCHW in [0, 1], any number of them, and returns float32 logits
    NK; the normalisation is inside, and weights of another dtype become float32. Its metadata state
    the class names, the channels and their colours, the size and the range of the images. It is
    compared with the network before it is written, on the first test images, or on random ones
    where there are no data.

    Args:
        model: a run, its folder, or a classifier of images in [0, 1], which is not changed.
        output: the file: ``.onnx`` or ``.pt2``.
        data: classes, channels and size of a classifier's images, and the images to compare on: a
            data set, its expression or its `ImageSpec`; leave it out for a run.
        checkpoint: weights of a run: ``best`` on validation, or the ``last`` epoch's.
        data_root: folder of the run's data, if they have moved since.
        limit: number of images to compare on, 1 to 1,000,000,000.

    Raises:
        UserError: no such run, another ending, a missing package, a network that cannot be
            exported, or one whose exported logits differ by more than 1e-4; no file is written.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> from curricula.api import export
        >>> exported = export(model, "model.pt2", data="digits")
        >>> exported.images, exported.difference < 1e-4
        (100, True)
    """
    path = as_path("output", output)
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    check_whole("limit", limit, 1, MAX_LIMIT)
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UserError(f"output {path}: its name must end in {' or '.join(FORMS)}")
    missing = [name for name in PACKAGES if form == "onnx" and find_spec(name) is None]
    if missing:
        raise UserError(
            f"an export to ONNX needs {', '.join(missing)}: pip install onnx onnxscript "
            "onnxruntime, or write .pt2, which needs no more than torch"
        )
    check_output(path)
    classifier = open_classifier(model, data=data, checkpoint=checkpoint)
    x_NCHW, source = _images(classifier, data_root, limit)

    import torch

    from curricula.interfaces import HasPlainEquivalent
    from curricula.runtime.modes import ordinary_mode
    from curricula.victim.copies import copied, is_scripted

    if is_scripted(classifier.network):
        raise UserError(
            "the network is scripted or traced: export the network that it was made from, or save "
            "it as it is, torch.jit.save"
        )
    write: Callable[..., tuple[bytes, Callable[[Tensor], Tensor]]] = (
        _as_onnx if form == "onnx" else _as_program
    )
    copy = copied(classifier.network).cpu().float().eval()
    original = _logits_alone(copied(copy))
    if draws_numbers(original, x_NCHW):  # first, as the exporter's message is about its own code
        raise UserError(
            "the network draws random numbers in its forward pass, and an exported file would not "
            "draw as it does: export the network inside, such as model.network of a randomised one"
        )
    network = _logits_alone(
        copy.plain_equivalent() if isinstance(copy, HasPlainEquivalent) else copy
    )
    try:
        with warnings.catch_warnings(), ordinary_mode(x_NCHW.device):
            warnings.simplefilter("ignore")  # of torch's exporter, about its own code
            program = torch.export.export(
                network,
                (x_NCHW[:1].repeat(2, 1, 1, 1),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            content, exported = write(program, _metadata(classifier))
    except Exception as error:  # torch and its translators raise errors of many types
        raise UserError(
            f"the network cannot be exported as {path.suffix} ({_first_line(error)}); its forward "
            "must be made of torch's operations alone, whatever the images"
        ) from error
    difference = _difference(original, exported, x_NCHW)
    if not difference.allowed:
        raise UserError(
            f"the exported logits differ by {difference.largest:.2g} from the network's on "
            f"{len(x_NCHW):,} {source}, more than {TOLERANCE:g}; nothing was written"
        )
    write_output(path, content)
    return Exported(path=path, difference=difference.largest, images=len(x_NCHW), source=source)


def _images(
    classifier: ImageClassifier, data_root: str | Path | None, limit: int
) -> "tuple[Tensor, str]":
    """Return the images to compare on, and what they are: the first test images of the data, or
    random ones where the data are not there or have changed."""
    import torch

    found = classifier.data
    if classifier.run is not None:
        try:
            found = open_data(classifier.run, root=data_root)
        except UserError:
            if data_root is not None:  # the caller expects them there
                raise
    if found is not None and len(found.test):
        pixels = found.test[slice(limit)].load().pixels
        return found.images(pixels).cpu(), f"test images of {found.name}"
    shape = classifier.spec.image_shape
    generator = torch.Generator().manual_seed(0)
    return torch.rand((min(limit, CHECKED), *shape), generator=generator), "random images"


def _logits_alone(network: "nn.Module") -> "nn.Module":
    """Return a network that returns the logits alone of the given one."""
    from torch import Tensor, nn

    from curricula.victim.outputs import logits_of

    class LogitsAlone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x_NCHW: Tensor) -> Any:
            return logits_of(self.network(x_NCHW))

    return LogitsAlone().eval()


def _metadata(classifier: ImageClassifier) -> dict[str, Any]:
    """Return what a program that uses the file has to know, as values of JSON."""
    from importlib.metadata import version

    height, width = height_width(classifier.spec.image_size)
    stated: dict[str, Any] = {
        "classes": list(classifier.spec.classes),
        "channels": classifier.spec.channels,
        "colours": {1: "grey", 3: "RGB"}.get(classifier.spec.channels),
        "height": height,
        "width": width,
        "layout": "NCHW",
        "range": [0, 1],
        "normalisation": "inside",
        "output": "logits",
        "curricula": version("curricula"),
    }
    if classifier.run is not None:
        stated["model"] = classifier.run.model_config.model
    return stated


def _as_program(
    program: "torch.export.ExportedProgram", metadata: Mapping[str, Any]
) -> "tuple[bytes, Callable[[Tensor], Tensor]]":
    """Return a program as the bytes of a .pt2 file, and the function that these bytes compute."""
    import torch

    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={METADATA: json.dumps(dict(metadata))})
    stream.seek(0)
    return stream.getvalue(), torch.export.load(stream).module()


def _as_onnx(
    program: "torch.export.ExportedProgram", metadata: Mapping[str, Any]
) -> "tuple[bytes, Callable[[Tensor], Tensor]]":
    """Return a program as the bytes of an ONNX file, and the function that ONNX Runtime makes of
    these bytes."""
    import onnxruntime
    import torch

    translated = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert translated is not None
    proto = translated.model_proto
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    content: bytes = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of threads that a container does not allow
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x_NCHW: "Tensor") -> "Tensor":
        (logits_NK,) = session.run(["logits"], {"images": x_NCHW.numpy()})
        return torch.from_numpy(logits_NK)

    return content, run


@attrs.frozen
class _Difference:
    """The largest difference of a logit, and whether the tolerance allows it."""

    largest: float
    allowed: bool


def _difference(
    network: "nn.Module", exported: "Callable[[Tensor], Tensor]", x_NCHW: "Tensor"
) -> _Difference:
    """Return how far the logits of an exported network are from the network's own, in batches of
    different sizes."""
    import torch

    from curricula.runtime.modes import ordinary_mode
    from curricula.victim.outputs import checked_logits

    sizes, begin = (1, 3, 64), 0
    largest, allowed = 0.0, True
    number = 0
    while begin < len(x_NCHW):
        batch = x_NCHW[begin : begin + sizes[min(number, 2)]].contiguous()
        expected = checked_logits(output_of(network, batch), len(batch))
        with torch.no_grad(), ordinary_mode(batch.device):
            found = exported(batch)
        apart = float((found - expected).abs().max())
        allowed &= found.shape == expected.shape
        allowed &= apart <= TOLERANCE * max(1.0, float(expected.abs().max()))  # False for NaN
        largest = apart if math.isnan(apart) else max(largest, apart)
        begin, number = begin + len(batch), number + 1
    return _Difference(largest, allowed)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, without the stack traces that torch adds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return message_of(ValueError(lines[0][:300])) if lines else type(error).__name__
