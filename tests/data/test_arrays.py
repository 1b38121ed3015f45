"""Images and labels of callers are converted where that is beyond doubt, and refused elsewhere."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torchvision import transforms

import curricula
from curricula import DataSet, load_data
from curricula.data.dataset import Split, as_dataset
from curricula.errors import DataWarning, UserError
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.plugins.registry import Provider

N = 12
GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (N, 3, 10, 6), dtype=torch.uint8, generator=GENERATOR)
PIXELS[:, 0, 0, 0] = 255
LABELS = torch.arange(N) % 4
GREY = PIXELS[:, :1]


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def pillow(x_CHW):
    array = x_CHW.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def with_info(**info):
    image = pillow(GREY[0])
    image.info.update(info)
    return image


SAME_IMAGES = {
    "uint8": PIXELS,
    "channels last": nhwc(PIXELS),
    "numpy": PIXELS.numpy(),
    "numpy, channels last": nhwc(PIXELS).numpy(),
    "int16": PIXELS.to(torch.int16),
    "int64": PIXELS.long(),
    "uint16 of numpy": PIXELS.numpy().astype(np.uint16),
    "big endian": PIXELS.numpy().astype(">i4"),
    "float32": PIXELS / 255,
    "float64": PIXELS.double() / 255,
    "float64 of numpy, channels last": nhwc(PIXELS).numpy() / 255.0,
    "nested lists": PIXELS.tolist(),
    "a list of tensors": list(PIXELS),
    "a tuple of arrays, channels last": tuple(nhwc(PIXELS).numpy()),
    "a list of Pillow's images": [pillow(x) for x in PIXELS],
    "read-only": np.frombuffer(PIXELS.numpy().tobytes(), dtype=np.uint8).reshape(PIXELS.shape),
    "reversed twice": PIXELS.numpy()[::-1].copy()[::-1],
    "not contiguous": PIXELS.transpose(2, 3).contiguous().transpose(2, 3),
    "with a gradient": (PIXELS / 255).requires_grad_(),
    "an array of objects": np.array([*PIXELS.numpy(), None], dtype=object)[:N],
    "numbers as objects": PIXELS.numpy().astype(object),
    "long integers of C": PIXELS.numpy().astype(np.ulonglong),
}


@pytest.mark.parametrize("how", SAME_IMAGES)
def test_the_same_images_in_every_form(how):
    data = as_dataset((SAME_IMAGES[how], LABELS))
    x = data.images(data.test.pixels)
    assert data.image_size == (10, 6)
    assert not x.requires_grad
    torch.testing.assert_close(x, PIXELS / 255, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_and_read_as_float32(dtype):
    half = (PIXELS / 255).to(dtype)
    data = as_dataset((half, LABELS))
    assert torch.equal(data.images(data.test.pixels), half.float())


def test_what_rounding_leaves_beyond_0_and_1_is_cut_off():
    x = PIXELS / 255 * (1 + 2e-6) - 1e-6
    assert x.min() < 0
    assert x.max() > 1
    before = x.clone()
    data = as_dataset((x, LABELS))
    assert torch.equal(data.images(data.test.pixels), before.clamp(0, 1))
    assert torch.equal(x, before)


def test_grey_images_need_no_axis_and_truth_values_are_black_and_white():
    for x in (GREY, GREY[:, 0], nhwc(GREY), GREY[:, 0].numpy(), [pillow(x) for x in GREY]):
        data = as_dataset((x, LABELS))
        assert torch.equal(data.test.pixels, GREY)
        assert data.budgets["linf"] == "0.3"
    masks = GREY[:, 0] > 127
    data = as_dataset((masks, LABELS))
    assert torch.equal(data.images(data.test.pixels)[:, 0], masks.float())


def test_a_stated_layout_decides():
    for layout, channels in (("NCHW", 4), ("NHWC", 3)):
        x = torch.rand(N, 4, 9, 3)
        assert as_dataset((x, LABELS), layout=layout).in_channels == channels
    many = torch.rand(N, 16, 9, 9)
    assert as_dataset((many, LABELS), layout="NCHW").in_channels == 16
    assert as_dataset(TensorDataset(many, LABELS), layout="NHWC").in_channels == 9
    with pytest.raises(UserError, match="layout must be NCHW or NHWC, not 'nchw'"):
        as_dataset(TensorDataset(many, LABELS), layout="nchw")


WRONG_IMAGES = {
    "normalised": (PIXELS / 127.5 - 1, r"images have a pixel of -1;.* undo their norm.*normalise="),
    "up to 255": (
        PIXELS.float(),
        r"have a pixel of 255; .* from 0 to 1: divide them: pixels / 255",
    ),
    "slightly above 1": (PIXELS / 254, r"have a pixel of 1.003\d+; .* pixels.clip\(0, 1\)"),
    "overshooting": (PIXELS / 230 - 0.05, r"have a pixel of -0.05; .* from 0 to 1: undo"),
    "NaN": ((PIXELS / 255).masked_fill(PIXELS == 7, float("nan")), "a pixel of nan; .* replace"),
    "infinite": (PIXELS / 0.0, "have a pixel of"),
    "divided twice": (PIXELS / 255 / 255, r"no pixel above 0.0039: they .* divided by 255 twice"),
    "16 bits": (PIXELS.int() * 257, r"pixels from 0 to 65535; .* such as pixels / 65535"),
    "signed": (PIXELS.int() - 128, r"pixels from -128 to 127; whole pixels must be from 0 to 255"),
    "zeros and ones": (PIXELS // 255, r"no pixel above 1 of 255; .*: pixels / 1"),
    "sixteen levels": (
        PIXELS // 16,
        r"no pixel above 15 of 255; if 15 means white, .* pixels / 15",
    ),
    "flat": (PIXELS.reshape(N, -1), r"must have the shape .*, not \(12, 180\); .*reshape"),
    "one image": (PIXELS[0], r"there are 3 images and 12 labels"),
    "five axes": (PIXELS[None], r"must have the shape .* not \(1, 12, 3, 10, 6\)"),
    "many channels": (torch.rand(N, 16, 9, 9), r"\(12, 16, 9, 9\), which does not tell .*layout="),
    "channels on both sides": (torch.rand(N, 4, 9, 3), r"does not tell where .*layout='NCHW' or"),
    "complex": (PIXELS + 0j, "images are of torch.complex64, complex numbers; .* tensor.real"),
    "complex numbers of numpy": ((PIXELS + 0j).numpy(), "be numbers, not .*complex64.*array.real"),
    "signed bytes": ((PIXELS // 2).to(torch.int8), "are of torch.int8, which ends at 127; give"),
    "sparse": ((PIXELS / 255).to_sparse(), r"layout torch.sparse_coo; write tensor.to_dense\(\)"),
    "nested": (
        torch.nested.nested_tensor([*(PIXELS / 255)], layout=torch.jagged),
        r"are a nested tensor; give a list of tensors: list\(tensor.unbind\(\)\)",
    ),
    "without values": (torch.empty(N, 3, 10, 6, device="meta"), "meta, which has no values; load"),
    "of 8 bits": ((PIXELS / 255).to(torch.float8_e4m3fn), r"float8_e4m3fn; write tensor.float\(\)"),
    "of 128 bits": (PIXELS.numpy().astype(np.longdouble), r"float128 .*astype\(np.float64\)"),
    "of 64 bits": (PIXELS.numpy().astype(np.ulonglong) + 2**63, "from 9223372036854775808 to"),
    "records": (np.zeros(N, dtype=[("x", "u1", (3, 10, 6))]), r"give one field: array\['NAME'\]"),
    "bytes": (np.array([b"a"] * N), r"must be numbers, not .*np.char.decode\(array\)"),
    "one of Pillow": (pillow(PIXELS[0]), r"a single image of Pillow; give a list: \[image\]"),
    "some missing": ([PIXELS[0].numpy(), None], "images must be numbers, not NoneType"),
    "texts": (["a"] * N, "images must be numbers"),
    "objects": (np.array([None] * N), "images must be numbers"),
    "of two sizes": (
        [PIXELS[0], PIXELS[1, :, :5]],
        r"image 1 of the images has the shape \(3, 5, 6\), those before it \(3, 10, 6\); .*Resize",
    ),
    "of two types": ([PIXELS[0], PIXELS[1] / 255], "image 1 of .* of torch.float32, those before"),
    "none": (PIXELS[:0], "there are 0 images and 12 labels"),
    "of 32 bits by Pillow": (
        [pillow(PIXELS[0]), Image.new("I", (6, 10))],
        r"image 1 of the images has pixels of 32 bits; it is not known which value is white: save",
    ),
    "a transparent colour": ([with_info(transparency=3)], r"image 0 .*info.pop\(.transparency.\)"),
}


@pytest.mark.parametrize("how", WRONG_IMAGES)
def test_wrong_images_are_one_line(how):
    images, message = WRONG_IMAGES[how]
    with pytest.raises(UserError, match=message) as caught:
        as_dataset((images, LABELS))
    assert "\n" not in str(caught.value)


SAME_LABELS = {
    "list": LABELS.tolist(),
    "tuple": tuple(LABELS.tolist()),
    "uint8": LABELS.to(torch.uint8),
    "int32 of numpy": LABELS.numpy().astype(np.int32),
    "uint64 of numpy": LABELS.numpy().astype(np.uint64),
    "whole floats": LABELS.double(),
    "a column": LABELS[:, None],
    "a column of numpy": LABELS[:, None].numpy().astype(np.uint8),
    "lists of one": LABELS[:, None].tolist(),
    "a list of tensors": list(LABELS),
    "objects": np.array([*LABELS.tolist(), None], dtype=object)[:N],
    "one-hot": torch.eye(4, dtype=torch.int64)[LABELS],
    "one-hot of floats": np.eye(4)[LABELS.numpy()],
    "one-hot of truth values": np.eye(4, dtype=bool)[LABELS.numpy()],
}


@pytest.mark.parametrize("how", SAME_LABELS)
def test_the_same_labels_in_every_form(how):
    data = as_dataset((PIXELS, SAME_LABELS[how]))
    assert data.test.labels.dtype == torch.int64
    assert torch.equal(data.test.labels, LABELS)


def test_labels_may_be_class_names():
    names = ["cat", "dog", "elk", "fox"]
    texts = [names[label] for label in LABELS]
    column = [[text] for text in texts]
    for labels in (texts, column, np.array(texts), np.array(texts, dtype=object)):
        data = as_dataset((PIXELS, labels), classes=names)
        assert torch.equal(data.test.labels, LABELS)
    pair = (PIXELS, texts)
    with pytest.raises(UserError, match=r"labels are text: .* order of the model's outputs, cur"):
        as_dataset(pair)
    data = DataSet.from_arrays(train=(PIXELS, texts[::-1]), test=pair)  # as folders: sorted
    assert (data.classes, data.test.labels.tolist()) == (tuple(names), LABELS.tolist())
    with pytest.raises(UserError, match="test labels have 'fox', which is not among the classes"):
        DataSet.from_arrays(train=(PIXELS[:3], texts[:3]), test=pair)
    with pytest.raises(UserError, match="labels have 1, which is not among the classes"):
        as_dataset((PIXELS, ["cat", 1] * 6), classes=names)
    with pytest.raises(UserError, match=r"labels have 'fox', which is not among the classes"):
        as_dataset((PIXELS, texts), classes=names[:3])


WRONG_LABELS = {
    "from 1": (LABELS + 1, r"from 1 to 4; .* from 0 to 3, .*; number them from 0: labels - 1"),
    "unlabelled": (LABELS - 1, r"from -1 to 2; .* leave out images without a class"),
    "ignored": (LABELS.masked_fill(LABELS == 2, -100), r"from -100 to 3; .* leave out images"),
    "beyond": (LABELS * 3, r"labels are from 0 to 9; they must be from 0 to 3, for the 4 classes"),
    "fewer": (LABELS[:7], r"there are 12 images and 7 labels; give each image its label"),
    "more": (torch.cat([LABELS, LABELS]), "there are 12 images and 24 labels"),
    "halves": (LABELS / 2, r"labels must be whole numbers, class by class from 0, not 0.5"),
    "NaN": (LABELS.float().masked_fill(LABELS == 2, float("nan")), "must be whole numbers, .* nan"),
    "soft": (torch.full((N, 4), 0.25), r"labels of shape \(12, 4\) are not one-hot: a row must"),
    "multi-label": (torch.ones(N, 4), r"\(12, 4\) are not one-hot"),
    "smoothed": (torch.eye(4)[LABELS] * 0.9 + 0.025, r"\(12, 4\) are not one-hot"),
    "masks": (torch.zeros(N, 10, 6), r"labels must have the shape \(N,\), not \(12, 10, 6\)"),
    "one number": (3, r"labels must have the shape \(N,\), not \(\)"),
    "nothing": (None, "labels must be numbers, not NoneType"),
    "one missing": ([*LABELS[1:].tolist(), None], "labels must be numbers, not NoneType"),
    "sparse": (LABELS.to_sparse(), "labels are a tensor of layout torch.sparse_coo"),
    "beyond 63 bits": (np.full(N, 2**63 + 1, np.uint64), "must be whole numbers, .* not 9.22337e"),
    "beyond 64 bits": ([2**70] * N, r"labels must be numbers, not \[about 10\^21"),
}


@pytest.mark.parametrize(
    ("dtype", "largest"), [(torch.bfloat16, 256), (torch.float16, 2048), (torch.float32, 2**24)]
)
def test_labels_that_their_type_rounds_are_refused(dtype, largest):
    for high in (largest, largest + 1):
        data = (PIXELS[:2], torch.tensor([0, high]).to(dtype))
        with pytest.raises(UserError, match=f"which rounds whole numbers above {largest}; give"):
            as_dataset(data)
    assert as_dataset((PIXELS, LABELS.to(dtype))).test.labels.tolist() == LABELS.tolist()


def test_labels_that_are_text_need_different_class_names():
    texts = ["crane"] * N
    with pytest.raises(UserError, match=r"text, and two classes are named 'crane'; give the labe"):
        as_dataset((PIXELS, texts), classes=["crane", "dog", "crane"])


@pytest.mark.parametrize("how", WRONG_LABELS)
def test_wrong_labels_are_one_line(how):
    labels, message = WRONG_LABELS[how]
    with pytest.raises(UserError, match=message) as caught:
        as_dataset((PIXELS, labels), num_classes=4)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        DataSet.from_arrays(train=(PIXELS, labels), test=(PIXELS, LABELS), classes=list("abcd"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, r"labels \[1, 2, 3, 4\] are not the classes 0, 1, .* from 0: labels - 1"),
        (LABELS * 2, r"labels \[0, 2, 4, 6\] are not the classes .*classes=\[...\]"),
        (LABELS - 1, r"labels \[-1, 0, 1, 2\] are not the classes .* leave out images"),
        (LABELS * 0, r"a classifier needs two or more classes, not 1 \(0\)"),
    ],
)
def test_the_numbers_of_a_training_are_its_classes(labels, message):
    pair = (PIXELS, labels)
    with pytest.raises(UserError, match=message):
        DataSet.from_arrays(train=pair, test=pair)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], r"two or more classes, not 1 \(a\)"),
        ("abcd", "classes must be the list of the class names, not 'abcd'"),
        ([0, 1, 2, 3], "the name of a class must be text on one line, not 0"),
        (["a", "b", "c", ""], "the name of a class must be text on one line, not ''"),
        (["a", "b", "c", "d\n"], r"the name of a class must be text on one line, not 'd"),
        ({0: "a"}, "classes must be the list of the class names"),
        (list("abc"), "labels are from 0 to 3; they must be from 0 to 2, for the 3 classes"),
    ],
)
def test_wrong_class_names_are_one_line(classes, message):
    pair = (PIXELS, LABELS)
    with pytest.raises(UserError, match=message):
        DataSet.from_arrays(train=pair, test=pair, classes=classes)


def test_a_thousand_classes():
    labels = torch.arange(1000)
    pair = (torch.rand(1000, 5, 6), labels)
    for classes in (None, [f"class {number}" for number in range(1000)]):
        data = DataSet.from_arrays(train=pair, test=pair, classes=classes)
        assert data.num_classes == 1000


def test_arrays_are_a_whole_data_set():
    pair, other = (PIXELS, LABELS), (PIXELS.flip(0), LABELS.flip(0))
    data = DataSet.from_arrays(train=pair, test=other, name="mine", budgets={"degrees": "15"})
    assert (data.name, len(data.train), len(data.test)) == ("mine", N, N)
    assert data.budgets == {"degrees": "15"}
    assert data.training_defaults["model"] == "resnet18"
    own = DataSet.from_arrays(train=pair, test=other, validation=other)
    assert own.with_validation()[1] is own.validation
    with pytest.raises(UserError, match=r"different channels .*: training 3x10x6, test 1x10x6"):
        DataSet.from_arrays(train=pair, test=(GREY, LABELS))
    with pytest.raises(UserError, match=r"training data must be a pair .*DataSet.from_torch"):
        DataSet.from_arrays(train=PIXELS, test=pair)
    with pytest.raises(UserError, match=r"has no argument 'tests'; did you mean test"):
        DataSet.from_arrays(train=pair, tests=pair)


def test_nothing_of_the_callers_is_written_to():
    x, y = PIXELS / 255, LABELS.clone()
    data = as_dataset((x, y))
    data.images(data.test.pixels).zero_()
    assert torch.equal(x, PIXELS / 255)
    assert torch.equal(y, LABELS)


class Items(Dataset):
    """Pairs (image, label) in a given form."""

    def __init__(self, image=lambda x: x, label=lambda y: int(y), keys=None):
        self.image, self.label, self.keys = image, label, keys

    def __len__(self):
        return N

    def __getitem__(self, index):
        if index >= N:
            raise IndexError
        pair = (self.image(PIXELS[index]), self.label(LABELS[index]))
        return dict(zip(self.keys, pair, strict=True)) if self.keys else pair


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Items())


class Named(Items):
    classes = ("cat", "dog", "elk", "fox")


ITEMS = {
    "tensors": Items(),
    "tensors and tensor labels": Items(label=lambda y: y),
    "labels of one": Items(label=lambda y: y[None]),
    "one-hot": Items(label=lambda y: torch.eye(4)[y]),
    "arrays": Items(image=lambda x: x.permute(1, 2, 0).numpy()),
    "Pillow's images": Items(image=pillow),
    "torchvision's transforms": Items(image=lambda x: transforms.ToTensor()(pillow(x))),
    "by name": Items(keys=("image", "label")),
    "by other names": Items(keys=("img", "labels")),
    "a stream": Stream(),
    "a list": list(Items()),
    "a subset": Subset(Items(), range(N)),
    "two joined": ConcatDataset([Subset(Items(), range(5)), Subset(Items(), range(5, N))]),
    "tensors in memory": TensorDataset(PIXELS, LABELS),
    "a loader": DataLoader(Items(), batch_size=5),
    "a loader by name": DataLoader(Items(keys=("image", "label")), batch_size=5),
    "a loader of a stream": DataLoader(Stream(), batch_size=5),
    "a loader without batches": DataLoader(Items(), batch_size=None),
    "a loader of one-hot": DataLoader(Items(label=lambda y: torch.eye(4)[y]), batch_size=5),
    "batches": [(PIXELS[:5], LABELS[:5]), (PIXELS[5:10], LABELS[5:10]), (PIXELS[10:], LABELS[10:])],
    "two batches": [(PIXELS[:5].numpy(), LABELS[:5].tolist()), (PIXELS[5:].numpy(), LABELS[5:])],
    "a loader of lists": DataLoader(
        Items(image=pillow), batch_size=5, collate_fn=lambda rows: tuple(zip(*rows, strict=True))
    ),
    "a loader with workers": DataLoader(Items(), batch_size=5, num_workers=1),
}


@pytest.mark.parametrize("how", ITEMS)
def test_the_same_torch_data_in_every_form(how):
    before = torch.get_rng_state()
    data = as_dataset(ITEMS[how])
    assert torch.equal(data.test.labels, LABELS)
    torch.testing.assert_close(data.images(data.test.pixels), PIXELS / 255, atol=1e-6, rtol=0)
    assert torch.equal(torch.get_rng_state(), before)
    pixels = data.test.pixels
    if not isinstance(ITEMS[how], Stream) and "stream" not in how and "batches" not in how:  # once
        assert pixels.untyped_storage().nbytes() == pixels.numel() * pixels.element_size()


@pytest.mark.parametrize("batch_size", [5, None])
def test_a_loader_that_only_shuffles_is_read_in_the_order_of_its_data(batch_size):
    data = as_dataset(DataLoader(Items(), batch_size=batch_size, shuffle=True))
    assert torch.equal(data.test.pixels, PIXELS)
    assert torch.equal(data.test.labels, LABELS)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_that_leaves_images_out_has_a_note(shuffle):
    with pytest.warns(
        DataWarning, match=r"last batch \(drop_last=True\): 10 of 12 images are used"
    ):
        data = as_dataset(DataLoader(Items(), batch_size=5, shuffle=shuffle, drop_last=True))
    assert torch.equal(data.test.pixels, PIXELS[:10])
    whole = as_dataset(DataLoader(Items(), batch_size=4, shuffle=shuffle, drop_last=True))
    assert len(whole.test) == N


def test_a_loader_with_a_sampler_keeps_each_images_label():
    loader = DataLoader(Items(), batch_size=5, sampler=SubsetRandomSampler(range(N)))
    data = as_dataset(loader)
    assert not torch.equal(data.test.labels, LABELS)
    for pixels, label in zip(data.test.pixels, data.test.labels, strict=True):
        (number,) = [n for n in range(N) if torch.equal(PIXELS[n], pixels)]
        assert label == LABELS[number]
    assert torch.equal(as_dataset(loader).test.pixels, data.test.pixels)


def test_two_items_are_not_images_and_labels():
    x, z = PIXELS[:2]
    for two in ([(x, "cat"), (z, "dog")], [{"image": x, "label": 0}, {"image": z, "label": 1}]):
        data = as_dataset(two, classes=["cat", "dog"])
        assert torch.equal(data.test.pixels, PIXELS[:2])
        assert data.test.labels.tolist() == [0, 1]


def test_batches_of_grey_images_need_no_axis_of_channels():
    batches = [(GREY[:5, 0], LABELS[:5]), (GREY[5:, 0], LABELS[5:])]
    assert torch.equal(as_dataset(batches).test.pixels, GREY)


def test_class_names_come_from_the_data():
    for named in (Named(), Subset(Named(), range(8)), DataLoader(Named(), batch_size=5)):
        assert as_dataset(named, num_classes=9).classes == Named.classes
    assert as_dataset(Named(), classes=list("abcd")).classes == ("a", "b", "c", "d")
    data = DataSet.from_torch(train=Named(), test=Items())
    assert data.classes == Named.classes

    class Renamed(Items):
        classes = ("dog", "cat", "elk", "fox")

    with pytest.raises(UserError, match=r"parts of the data have different classes: .*dog, cat"):
        DataSet.from_torch(train=Named(), test=Renamed())


def test_classes_in_another_order_renumber_the_labels():
    """Names laid over the labels of another order would relabel the images."""

    class Fewer(Items):
        classes = ("cat", "elk")

    def named(data):
        return [data.classes[label] for label in data.test.labels]

    true = named(as_dataset(Named()))
    assert named(as_dataset(Named(), classes=Named.classes[::-1])) == true
    fewer = Fewer(label=lambda y: int(y) // 2)
    both = DataSet.from_torch(train=Named(), test=fewer, classes=Named.classes)
    assert named(both) == [Fewer.classes[label // 2] for label in LABELS.tolist()]
    others = [name for name in Named.classes if name != true[0]]
    with pytest.raises(UserError, match=rf"have the class '{true[0]}', which classes lacks"):
        as_dataset(Named(), classes=[*others, "yak"])


def test_grey_images_among_coloured_ones_become_coloured():
    images = [pillow(PIXELS[0]), pillow(GREY[1]), pillow(PIXELS[2])]
    for order in ((0, 1, 2), (1, 0, 2)):
        data = as_dataset(([images[n] for n in order], [0, 1, 0]))
        pixels = data.test.pixels[list(order).index(1)]
        assert torch.equal(pixels, GREY[1].expand(3, 10, 6))


WRONG_ITEMS = {
    "three values": (
        [(PIXELS[0], 0, "note")] * 3,
        r"item 0 of the images must be \(image, label\)",
    ),
    "other names": (Items(keys=("photo", "kind")), r"item 0 .* not keys photo, kind"),
    "images alone": (list(PIXELS), r"item 0 .* must be \(image, label\), .* not Tensor of torch"),
    "normalised": (
        Items(image=lambda x: (x / 255 - 0.5) / 0.25),
        r"images have a pixel of -2; .* undo their normalisation",
    ),
    "random sizes": (
        Items(image=lambda x: x[:, : 5 + int(x[0, 1, 1]) % 2]),
        r"image \d+ of the images has the shape .*Resize\(\(HEIGHT, WIDTH\)\)",
    ),
    "many channels": (
        Items(image=lambda x: torch.rand(16, 9, 9)),
        r"images have the shape \(1, 16, 9, 9\), which does not tell",
    ),
    "a tensor": (PIXELS, r"data must be a DataSet or its name, .*, not Tensor of torch.uint8"),
    "nothing": (None, "data must be a DataSet or its name, .* not NoneType"),
    "parts without a test": ({"train": Items()}, "keys train, and no test; add it to train, or"),
}


@pytest.mark.parametrize("how", WRONG_ITEMS)
def test_wrong_items_are_one_line(how):
    data, message = WRONG_ITEMS[how]
    with pytest.raises(UserError, match=message) as caught:
        as_dataset(data)
    assert "\n" not in str(caught.value)


def stop(index):
    if index == 7:
        raise OSError("the disk\nis gone")
    return PIXELS[index], int(LABELS[index])


class Wrong(Items):
    """Items of which one cannot be read, or whose number is wrong."""

    def __init__(self, read=stop, length=N):
        self.read, self.length = read, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.read(index)


class WrongStream(IterableDataset):
    """More or fewer items than its length."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter(Items())

    def __len__(self):
        return self.length


UNREADABLE = {
    "an error": (Wrong(), "item 7 of the images cannot be read: OSError: the disk is gone"),
    "of a loader": (DataLoader(Wrong(), batch_size=5), "batch 1 of the images cannot .*: OSError:"),
    "of a worker": (
        DataLoader(Wrong(), batch_size=5, num_workers=1),
        "batch 1 of the images cannot be read: OSError: the disk is gone",
    ),
    "too long": (
        Wrong(lambda index: [*Items()][index], 20),
        r"item 12 of the images .*: IndexError: .*; is their len\(\), 20, too large\?",
    ),
    "no length": (Wrong(length=-1), r"the images have no len\(\): ValueError"),
    "a stream too short": (
        WrongStream(20),
        r"images are 12 items, and their len\(\) is 20; correct",
    ),
    "a stream too long": (WrongStream(7), r"images are 12 items, and their len\(\) is 7; correct"),
    "sizes in a batch": (
        DataLoader(Items(image=lambda x: x[:, : 5 + int(x[0, 1, 1]) % 2]), batch_size=N),
        "batch 0 of the images cannot be read: RuntimeError: stack expects each tensor to be equal",
    ),
    "batches with fewer labels": (
        [(PIXELS[:6], LABELS[:6]), (PIXELS[6:], LABELS[:5])],
        "item 1 of the images has 6 images and 5 labels; give each image its label",
    ),
    "no pixels": ([(Image.new("RGB", (0, 4)), 0)], "image 0 of the images has no pixels; leave"),
    "a class": (TensorDataset, "data must be a DataSet .* not type"),
    "a vast length": (Wrong(length=10**15), "1,000,000,000,000,000 images would take .* GiB"),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_data_that_cannot_be_read_are_one_line_with_the_item(how):
    data, message = UNREADABLE[how]
    with pytest.raises(UserError, match=message) as caught:
        as_dataset(data)
    assert "\n" not in str(caught.value)


def test_a_stream_without_an_end_is_one_line(monkeypatch):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield PIXELS[0], 1

    monkeypatch.setattr("curricula.data.arrays.MAX_STREAMED", 50)
    for data in (Endless(), DataLoader(Endless(), batch_size=5)):
        with pytest.raises(UserError, match=r"item \d\d of the images came, and no end; .*islice"):
            as_dataset(data)


def test_images_of_pillow_are_read_like_files():
    turned = pillow(PIXELS[0].transpose(1, 2).flip(2))  # a camera's that was held upright
    exif = Image.Exif()
    exif[0x0112] = 8  # Orientation
    turned.info["exif"] = exif.tobytes()
    clear = pillow(PIXELS[1])
    clear.putalpha(0)
    depth = Image.fromarray(GREY[2, 0].numpy().astype(np.uint16) * 257)
    coloured = pillow(PIXELS[3]).quantize(4)
    data = as_dataset(([turned, clear, depth, coloured], LABELS[:4])).test.pixels
    assert torch.equal(data[0], PIXELS[0])
    assert data[1].min() == 255
    assert torch.equal(data[2], GREY[2].expand(3, 10, 6))
    expected = torch.from_numpy(np.array(coloured.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(data[3], expected)


def test_a_class_without_training_images_has_a_note():
    with pytest.warns(DataWarning, match=r"training images have none of classes .*: 2, 3$"):
        DataSet.from_arrays(train=(PIXELS[:2], LABELS[:2]), test=(PIXELS, LABELS))


@attrs.frozen
class ClassLabel:
    names: list[str] | None


@attrs.frozen
class Columns:
    """Rows and features as the data sets of Hugging Face have them."""

    features: dict[str, object] | None
    image: str = "image"
    label: str = "label"

    @property
    def column_names(self):
        return [self.image, "note", self.label]

    def __len__(self):
        return N

    def __iter__(self):
        for x, y in zip(PIXELS, LABELS.tolist(), strict=True):
            yield {self.image: pillow(x), "note": "-", self.label: y}


def test_columns_of_images_and_labels_are_found():
    image, label = type("Image", (), {})(), ClassLabel(list(Named.classes))
    for names in (("image", "label"), ("img", "labels"), ("photo", "kind")):
        data = as_dataset(Columns(dict(zip(names, (image, label), strict=True)), *names))
        assert data.classes == Named.classes
        assert torch.equal(data.test.pixels, PIXELS)
        assert torch.equal(data.test.labels, LABELS)
    assert as_dataset(Columns(None), num_classes=4).classes == ("0", "1", "2", "3")
    with pytest.raises(UserError, match=r"columns photo, note, label; rename .* images to image"):
        as_dataset(Columns(None, "photo"))


@pytest.fixture(scope="module")
def hugging_face():
    """Return a data set of Hugging Face's library, of Pillow's images.

    The library is not among the tests' requirements: it needs NumPy 2 by way of pyarrow, and
    curricula-escnn an older one.
    """
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    names = ["cat", "dog", "elk", "fox"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"image": [pillow(x) for x in PIXELS], "label": LABELS.tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


of_dill = pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")


@of_dill
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.rename_columns({"image": "img", "label": "labels"}),
        lambda data: data.rename_columns({"image": "photo", "label": "kind"}),
        lambda data: data.with_format("torch"),
        lambda data: data.with_format("numpy"),
        lambda data: data.to_iterable_dataset(),
        lambda data: data.add_column("note", ["-"] * N),
    ],
)
def test_hugging_face_data(hugging_face, change):
    data = as_dataset(change(hugging_face))
    assert data.classes == ("cat", "dog", "elk", "fox")
    assert torch.equal(data.test.labels, LABELS)
    assert torch.equal(data.test.pixels, PIXELS)


@of_dill
def test_hugging_face_parts(hugging_face):
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    parts = datasets.DatasetDict({"train": hugging_face, "test": hugging_face.select(range(5))})
    data = as_dataset(parts)
    assert (len(data.train), len(data.test)) == (N, 5)
    plain = hugging_face.rename_column("label", "kind").cast_column("kind", datasets.Value("int64"))
    with pytest.raises(UserError, match=r"columns image, kind; rename that of the labels to label"):
        as_dataset(plain)


@attrs.frozen
class Plugged:
    """A plugin with one data set."""

    data: DataSet

    @hookimpl
    def curricula_datasets(self):
        return [Record(name="plugged", factory=lambda root, download: self.data, summary="")]


def plugged(**changes):
    """Return what is loaded of a plugin's data set whose training split is changed."""
    pair = (PIXELS, LABELS)
    right = DataSet.from_arrays(train=pair, test=pair, classes=list("abcd"), name="plugged")
    wrong = attrs.evolve(right, train=attrs.evolve(right.train, **changes))
    registry.current().add(Plugged(wrong), Provider(name="plugged", source="file"))
    return load_data("plugged")


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": nhwc(PIXELS)},
        {"pixels": PIXELS.long()},
        {"pixels": PIXELS / 255},
        {"pixels": PIXELS.numpy()},
        {"labels": LABELS.int()},
        {"labels": LABELS.to(torch.uint8)},
        {"labels": LABELS[:, None]},
        {"labels": torch.eye(4)[LABELS]},
        {"labels": LABELS.tolist()},
    ],
)
def test_a_plugins_data_are_converted_at_the_same_door(changes):
    data = plugged(**changes)
    torch.testing.assert_close(data.images(data.train.pixels), PIXELS / 255, atol=1e-6, rtol=0)
    assert data.train.labels.dtype == torch.int64
    assert torch.equal(data.train.labels, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": PIXELS.float()}, "training images of plugged have a pixel of 255; .* / 255"),
        ({"pixels": PIXELS / 127.5 - 1}, "images of plugged have a pixel of -1; .* undo their"),
        ({"pixels": PIXELS.flatten(1)}, r"training images of plugged must have the shape \(N, C, "),
        ({"labels": LABELS + 1}, "labels of plugged are from 1 to 4; .* labels - 1"),
        ({"labels": LABELS - 1}, "training labels of plugged are from -1 to 2"),
        ({"labels": LABELS.masked_fill(LABELS == 1, -100)}, "labels of plugged are from -100 to 3"),
        ({"labels": LABELS[:5]}, "there are 12 training images of plugged and 5 labels"),
        ({"labels": LABELS / 2}, "training labels of plugged must be whole numbers"),
        ({"labels": torch.rand(N, 4)}, r"training labels of plugged of shape .* not one-hot"),
    ],
)
def test_a_plugins_wrong_data_are_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        plugged(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [["a"], "abcd", [0, 1, 2, 3], None])
def test_a_plugins_classes_are_checked(classes):
    pair = (PIXELS, LABELS)
    right = DataSet.from_arrays(train=pair, test=pair)
    with pytest.raises(UserError, match="class"):
        as_dataset(attrs.evolve(right, classes=classes))


def test_a_split_is_data_too():
    data = as_dataset(Split(pixels=nhwc(PIXELS), labels=LABELS.int()))
    assert torch.equal(data.test.pixels, PIXELS)
    digits = load_data("digits")
    assert as_dataset(digits) is digits
    with pytest.raises(UserError, match="layout and classes are for arrays: digits states its own"):
        as_dataset("digits", classes=["a", "b"])


def test_a_pair_alone_is_not_trained_on(tmp_path):
    data = (torch.rand(N, 12, 12), LABELS)
    with pytest.raises(UserError, match=r"0 training and 12 .*; in Python, give data={'train': "):
        curricula.train(data=data, model="lenet", epochs=1, output=tmp_path / "run")


def test_a_plugin_that_returns_no_data_set_is_one_line():
    registry.current().add(Plugged((PIXELS, LABELS)), Provider(name="plugged", source="file"))
    with pytest.raises(UserError, match=r"data set plugged: its plugin returned \(.*, no DataSet"):
        load_data("plugged")


@pytest.mark.parametrize("masked", ["images", "labels"])
def test_a_mask_is_refused_since_it_would_be_lost(masked):
    x, y = np.random.default_rng(0).random((6, 1, 8, 8)), np.arange(6) % 3
    x = np.ma.array(x, mask=x < 0.1) if masked == "images" else x
    y = np.ma.array(y, mask=y == 1) if masked == "labels" else y
    with pytest.raises(UserError, match=f"{masked} are masked in part"):
        as_dataset((x, y))


@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_validation_images_are_found_under_each_of_their_names(key):
    x, y = np.random.default_rng(0).random((6, 1, 8, 8)), np.arange(6) % 3
    found = as_dataset({"train": (x, y), "test": (x, y), key: (x[:4], y[:4])})
    assert len(found.validation) == 4
    with pytest.raises(UserError, match="two parts of validation images"):
        as_dataset({"train": (x, y), "test": (x, y), "val": (x, y), "validation": (x, y)})
