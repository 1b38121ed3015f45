"""Use a trained network: `predict` classifies images.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from curricula.data.spec import ImageSpec, height_width
from curricula.errors import Notice, UserError, message_of, shown
from curricula.expressions.syntax import parse_call
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.values import check_choice, check_whole, described, known_keywords
from curricula.training.checks import check_device_name
from curricula.training.config import MAX_BATCH_SIZE
from curricula.training.loading import (
    CHECKPOINTS,
    Checkpoint,
    image_spec,
    load_model,
    max_value,
)
from curricula.training.run import Run

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from curricula.data.arrays import Layout
    from curricula.data.dataset import DataSet

BATCH = 64  # images classified at once
PROBED = 8  # images on which it is looked whether a network is random
RANDOM = (
    "the network draws random numbers in its forward pass: each probability is that of one draw, "
    "and another call gives another one; average those of several calls"
)


@attrs.frozen(kw_only=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        image: path of the file, or number of the image, as text.
        classes: names of the most probable classes, the first one predicted.
        probabilities: their probabilities (softmax of the logits), in [0, 1].
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@attrs.frozen(kw_only=True, eq=False)
class ImageClassifier:
    """A network with what it needs to know of images.

    Attributes:
        network: the network, in eval mode, which is not changed.
        spec: classes, channels and size of its images.
        ground: colour behind transparent pixels.
        run: the run that it comes from, if any.
        data: the data set that a caller gave to describe its images, if any.
        max_value: value that means 1.0 in arrays of whole numbers.
    """

    network: "nn.Module"
    spec: ImageSpec
    max_value: int = 255
    ground: Any = "white"
    run: Run | None = None
    data: "DataSet | None" = None


@known_keywords()
@cpu_by_default()
def predict(
    model: "Run | str | Path | nn.Module",
    images: Any,
    *,
    data: "DataSet | ImageSpec | str | None" = None,
    top: int = 5,
    checkpoint: Checkpoint = "best",
    device: str = "auto",
    batch_size: int = BATCH,
    on_error: Callable[[UserError], None] | None = None,
) -> list[Prediction]:
    """Return the most probable classes of each image.

    A run needs neither its data nor a GPU: the run folder states the classes, the size and the
    channels. Photos are read as by the data set ``folder``: upright, in this size.

    Args:
        model: a run, its folder, or a classifier of images in [0, 1].
        images: a file, a folder (with the folders below it), an image of Pillow or a list of
            these; or one or more images as a tensor or an array, uint8 or floating-point in [0, 1],
            of the network's size.
        data: classes, channels and size of a classifier's images: a data set, its expression or
            its `ImageSpec`; leave it out for a run.
        top: number of classes to return, 1 or more; all if there are fewer.
        checkpoint: weights of a run: ``best`` on validation, or the ``last`` epoch's.
        device: as in `TrainConfig`.
        batch_size: images classified at once, 1 to 1,000,000.
        on_error: receives the error of a file that cannot be read, which is then passed over; by
            default it is raised.

    Raises:
        UserError: no such run, a damaged checkpoint, images that cannot be read or are of another
            shape, logits that are not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
        >>> found = curricula.predict(model, torch.rand(2, 1, 28, 28), data="digits", top=3)
        >>> [(each.image, len(each.classes)) for each in found]
        [('0', 3), ('1', 3)]
    """
    check_whole("top", top, 1)
    check_whole("batch_size", batch_size, 1, MAX_BATCH_SIZE)
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    check_device_name(device)
    classifier = open_classifier(model, data=data, checkpoint=checkpoint)

    from curricula.runtime.devices import resolve_device

    where = resolve_device(device)
    network = _on(classifier.network, where)
    found: list[Prediction] = []
    for names, x_NCHW in _batches(images, classifier, batch_size, on_error):
        on_device = x_NCHW.to(where)
        is_first = not found
        found += _classified(network, classifier.spec.classes, names, on_device, top)
        if is_first and draws_numbers(network, on_device):
            warnings.warn(Notice(RANDOM), stacklevel=2)
    return found


def open_classifier(
    model: Any, *, data: Any = None, checkpoint: Checkpoint = "best"
) -> ImageClassifier:
    """Return the network of a run, or a given classifier, with what it needs to know of images.

    Args:
        model: a run, its folder, or a classifier.
        data: classes, channels and size of a classifier's images.
        checkpoint: weights of a run.

    Raises:
        UserError: as `predict` does.
    """
    if isinstance(model, (Run, str, Path)):
        if data is not None:
            raise UserError("data is for a model: a run states its classes and image size")
        run = model if isinstance(model, Run) else Run.open(model)
        network = load_model(run, checkpoint=checkpoint)
        return ImageClassifier(
            network=network,
            spec=_as_spec(image_spec(run)),
            max_value=max_value(run),
            ground=_ground(run),
            run=run,
        )

    from torch import nn

    from curricula.data.dataset import as_dataset
    from curricula.models.class_names import check_stated_classes
    from curricula.victim.model_checks import weight_problem

    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a run, its folder or a torch.nn.Module, not {shown(model)}")
    if data is None:
        raise UserError(
            "a model does not state its classes: give data=, such as data='digits' or "
            "data=ImageSpec(classes=..., channels=..., image_size=...)"
        )
    found = None if isinstance(data, ImageSpec) else as_dataset(data)
    spec = data if found is None else _as_spec(found)
    if problem := weight_problem(model):
        raise UserError(f"the model {problem}")
    check_stated_classes(model, spec.classes, "data" if found is None else found.name)
    highest = 255 if found is None else found.max_value
    return ImageClassifier(network=model, spec=spec, max_value=highest, data=found)


def _as_spec(data: "DataSet | ImageSpec") -> ImageSpec:
    """Return the classes, channels and size of a data set's images."""
    return ImageSpec(classes=data.classes, channels=data.in_channels, image_size=data.image_size)


def _ground(run: Run) -> Any:
    """Return the colour that the run's data set put behind transparent pixels."""
    call = parse_call(run.model_config.data)
    grounds = [str(argument.value) for argument in call.arguments if argument.key == "ground"]
    return grounds[0] if call.name == "folder" and grounds else "white"


def _on(network: "nn.Module", where: "torch.device") -> "nn.Module":
    """Return a network in eval mode on a device: a copy if it is not so already."""
    from curricula.victim.copies import copied

    tensors = (*network.parameters(), *network.buffers())
    training = any(module.training for module in network.modules())
    if not training and all(tensor.device == where for tensor in tensors):
        return network
    return copied(network).to(where).eval()


def _batches(
    images: Any,
    classifier: ImageClassifier,
    batch_size: int,
    on_error: Callable[[UserError], None] | None,
) -> "Iterator[tuple[list[str], Tensor]]":
    """Yield the names and the float images NCHW of each batch."""
    import torch
    from PIL import Image

    from curricula.data.arrays import check_whole_pixels

    photos = [images] if isinstance(images, (str, Path, Image.Image)) else images
    is_list = isinstance(photos, (list, tuple))
    if is_list and not photos:
        raise UserError("images is empty: name one or more")
    if not is_list or not all(isinstance(each, (str, Path, Image.Image)) for each in photos):
        x_NCHW = _of_arrays(images, classifier)
        check_whole_pixels(x_NCHW, classifier.max_value, "images")
        for begin in range(0, len(x_NCHW), batch_size):
            batch = x_NCHW[begin : begin + batch_size]
            names = [str(begin + number) for number in range(len(batch))]
            yield names, batch.float() / (1 if batch.is_floating_point() else classifier.max_value)
        return
    if classifier.spec.channels not in (1, 3):
        raise UserError(
            f"the network takes images of {classifier.spec.channels} channels, and files have 1 or "
            "3: give the images as a tensor"
        )
    names, pixels = [], []
    for name, read in _photos(photos, classifier, on_error):
        names.append(name)
        pixels.append(read)
        if len(names) == batch_size:
            yield names, torch.stack(pixels).float() / 255
            names, pixels = [], []
    if names:
        yield names, torch.stack(pixels).float() / 255


def _of_arrays(images: Any, classifier: ImageClassifier) -> "Tensor":
    """Return images in tensors or arrays, or a single one, as pixels NCHW of a network's shape.

    Raises:
        UserError: they are something else, or of another shape.
    """
    from curricula.data.arrays import Origin, as_pixels

    if not isinstance(images, (list, tuple)) and not hasattr(images, "__array__"):
        raise UserError(
            "images must be files, images of Pillow, or a tensor or an array of images, not "
            f"{described(images)}; of a data set, give the images alone"
        )
    shape = classifier.spec.image_shape
    channels, *size = shape
    dimensions = () if getattr(images, "is_nested", False) else getattr(images, "shape", ())
    layout: Layout | None = "NCHW" if tuple(dimensions[1:]) == shape else None
    single: dict[tuple[int, ...], Layout] = {(*size, channels): "NHWC", shape: "NCHW"}
    if tuple(dimensions) in single:
        images, layout = images[None], single[tuple(dimensions)]
    elif channels == 1 and tuple(dimensions) == tuple(size):
        images = images[None]
    # Where white is known not to be 255, dark images are no sign of another scale.
    is_stored = classifier.max_value < 255
    x_NCHW = as_pixels(images, Origin(""), layout=layout, stored=is_stored)
    if tuple(x_NCHW.shape[1:]) != shape:
        raise UserError(
            f"the images are of shape {tuple(x_NCHW.shape[1:])}; the network takes {shape}: resize "
            "them"
        )
    return x_NCHW


def _photos(
    photos: "Iterable[str | Path | Image.Image]",
    classifier: ImageClassifier,
    on_error: Callable[[UserError], None] | None,
) -> "Iterator[tuple[str, Tensor]]":
    """Yield the path and the pixels of each image file, and the number and the pixels of each image
    of Pillow."""
    from PIL import Image

    from curricula.data.class_folders import Search
    from curricula.data.photos import pixels_of, read_image

    size, is_grey = height_width(classifier.spec.image_size), classifier.spec.channels == 1
    for number, photo in enumerate(photos):
        named: list[tuple[str, Any]] = [(str(number), photo)]
        try:
            if not isinstance(photo, Image.Image):
                files = [str(photo)]
                if Path(photo).is_dir():
                    files = Search(unread_photos=True).images(str(photo))
                if not files:
                    raise UserError(
                        f"{photo} has no images; name a folder or files that are images"
                    )
                named = [(file, file) for file in files]
        except UserError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        for name, each in named:
            try:
                if isinstance(each, Image.Image):
                    pixels = pixels_of(
                        each, f"image {name}", size=size, grey=is_grey, ground=classifier.ground
                    )
                else:
                    pixels = read_image(each, size, is_grey, classifier.ground)
            except UserError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                yield name, pixels


def draws_numbers(network: "nn.Module", x_NCHW: "Tensor") -> bool:
    """Return whether a network draws random numbers in its forward pass, by the first images; False
    if it does not return logits."""
    from curricula.victim.averaged import is_random
    from curricula.victim.outputs import logits_of, shape_problem

    x = x_NCHW[:PROBED]
    if shape_problem(output_of(network, x[:2]), len(x[:2])):
        return False
    return is_random(lambda images: logits_of(output_of(network, images)), x)


def output_of(network: "nn.Module", x_NCHW: "Tensor") -> Any:
    """Return what a network returns for a copy of images in the dtype of its weights, computed
    without gradients and in torch's ordinary modes.

    Raises:
        UserError: it fails.
    """
    import torch

    from curricula.runtime.modes import ordinary_mode
    from curricula.runtime.precision import weight_dtype

    images = x_NCHW.to(weight_dtype(network) or x_NCHW.dtype, copy=True)
    with ordinary_mode(x_NCHW.device), torch.no_grad():
        try:
            return network(images)
        except Exception as error:  # of third-party code
            size = "x".join(map(str, x_NCHW.shape[1:]))
            raise UserError(
                f"the network cannot take {len(x_NCHW)} images of {size} ({message_of(error)}): "
                "build it for them, or give other images"
            ) from error


def _classified(
    network: "nn.Module", classes: tuple[str, ...], names: list[str], x_NCHW: "Tensor", top: int
) -> list[Prediction]:
    """Return the most probable classes of the images of a batch."""
    from curricula.victim.outputs import logits_of, shape_problem

    output = output_of(network, x_NCHW)
    if problem := shape_problem(output, len(names), len(classes)):
        raise UserError(f"the network returns {problem}")
    logits_NK: Tensor = logits_of(output)
    probabilities_NK = logits_NK.double().softmax(1).cpu()
    for name, finite in zip(names, logits_NK.isfinite().all(1).tolist(), strict=True):
        if not finite:
            raise UserError(f"the network's logits are not finite for image {name}: train it again")
    values, labels = probabilities_NK.topk(min(top, len(classes)), dim=1)
    return [
        Prediction(
            image=name,
            classes=tuple(classes[label] for label in row),
            probabilities=tuple(of_row),
        )
        for name, row, of_row in zip(names, labels.tolist(), values.tolist(), strict=True)
    ]
