"""Images that are read when needed are the same as in memory, and no reader is left behind."""

import io
import multiprocessing
import os
import signal
import sys
import time
import tomllib
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

import curricula
from curricula import UserError, batches, load_data
from curricula.data import LazySplit, Reader, Split, folder, lazy_split
from curricula.data.dataset import in_order
from curricula.testing import check_dataset

pytestmark = [
    # Python 3.12 and newer warn at every fork; the workers use no thread of the parent.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    # On a machine with one core.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

SIZE = 12
SOURCES = ((20, 14), (12, 12), (9, 31))  # height, width: enlarged, kept, shrunk
COUNTS = {"train": 24, "test": 7}  # images per class
PER_CLASS = (("ant", 0), ("bee", 90), ("cow", 160))


def picture(rng, size, floor):
    """Return coarse colours, brighter for later classes: something to learn."""
    coarse = rng.integers(floor, floor + 96, (3, 3, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for name, floor in PER_CLASS:
            (path / part / name).mkdir(parents=True)
            for number in range(count):
                ending = ("png", "jpg", "bmp")[number % 3]
                image = picture(rng, SOURCES[number % len(SOURCES)], floor)
                image.save(path / part / name / f"{number:02}.{ending}")
    return str(path)


def load(root, **arguments):
    written = ", ".join(f"{name}={value}" for name, value in {"size": SIZE, **arguments}.items())
    return load_data(f"folder({written})", root=root)


@pytest.fixture
def workers(monkeypatch):
    def set_number(number):
        monkeypatch.setenv("CURRICULA_WORKERS", str(number))

    return set_number


def same(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(("number", "grey"), [(0, "false"), (1, "true"), (2, "false")])
def test_batches_are_those_in_memory(root, workers, number, grey):
    workers(number)
    held, read = (load(root, grey=grey, keep=keep) for keep in ("memory", "disk"))
    assert isinstance(held.train, Split)
    assert isinstance(read.train, LazySplit)
    assert (held.classes, held.in_channels) == (read.classes, read.in_channels)
    (held, held_validation), (read, validation) = held.with_validation(), read.with_validation()
    orders = [torch.Generator().manual_seed(3) for _ in range(2)]
    for _ in range(2):
        pairs = zip(
            batches(held.train, 10, generator=orders[0]),
            batches(read.train, 10, generator=orders[1]),
            strict=True,
        )
        count = 0
        for (indices, batch), (read_indices, read_batch) in pairs:
            count += 1
            assert torch.equal(indices, read_indices)
            assert same(batch, read_batch)
        assert count == len(read.train) // 10
        for split, read_split in ((held_validation, validation), (held.test, read.test)):
            both = list(zip(in_order(split, 6), in_order(read_split, 6), strict=True))
            assert all(same(*pair) for pair in both)
            assert len(both[-1][1]) == len(split) % 6 > 0


def test_pixels_are_those_of_another_decoder_and_resizer(root):
    read = load(root, keep="disk")
    paths = sorted(Path(root, "train").glob("*/*"))
    for path, pixels in zip(paths, read.train.load().pixels, strict=True):
        image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        # Pillow also filters before it shrinks; the two round at different places.
        expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        assert (pixels.int() - expected.int()).abs().max() <= 1, path
    grey = load(root, keep="disk", grey="true").train
    luma = (read.train.load().pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    assert (grey.load().pixels[:, 0] - luma).abs().max() < 2


COLOURS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4)).astype(np.uint8)
COLOURS[..., 3] = COLOURS[..., 3] // 128 * 255  # transparent or not
GREY = COLOURS[..., 0]
ON_WHITE = np.where(COLOURS[..., 3:] == 255, COLOURS[..., :3], 255)
DEEP = (GREY.astype(np.uint16) << 8) + COLOURS[..., 1]
MODES = {
    "alpha.png": (Image.fromarray(COLOURS), ON_WHITE),
    "grey.png": (Image.fromarray(GREY), GREY[..., None].repeat(3, 2)),
    "palette.png": (Image.fromarray(GREY).convert("P"), GREY[..., None].repeat(3, 2)),
    "deep.png": (Image.fromarray(DEEP), GREY[..., None].repeat(3, 2)),
    "deep.tif": (Image.fromarray(DEEP), GREY[..., None].repeat(3, 2)),
}


@pytest.mark.parametrize("name", MODES)
def test_images_of_other_modes_become_colours_of_eight_bits(tmp_path, name):
    image, expected = MODES[name]
    image.save(tmp_path / name)
    read = folder.ReadFile(paths=np.array([os.fsencode(tmp_path / name)]), size=SIZE, grey=False)
    np.testing.assert_array_equal(read(0).permute(1, 2, 0).numpy(), expected)


def test_a_training_is_the_same_bit_for_bit(root, workers, tiny, tmp_path):
    """With dropout and random perturbations; only the folder's expression differs."""
    runs = {"memory": 0, "disk": 2, "again": 0}
    for name, number in runs.items():
        workers(number)
        curricula.train(
            data=f"folder(size={SIZE}, keep={'memory' if name == 'memory' else 'disk'})",
            data_root=root,
            model="tinycnn",
            perturb="rot:20+pgd(8/255, steps=2)",
            augmentation="flip",
            epochs=2,
            batch_size=16,
            output=tmp_path / name,
        )
        for file in ("metrics.jsonl", "evaluation.json"):
            found, expected = ((tmp_path / run / file).read_bytes() for run in (name, "memory"))
            assert found == expected
        for file in ("best.safetensors", "last.safetensors"):
            found, expected = (load_file(tmp_path / run / file) for run in (name, "memory"))
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in found)
    configs = {name: (tmp_path / name / "config.toml").read_bytes() for name in runs}
    assert configs["disk"] == configs["again"]
    memory, disk = (tomllib.loads(configs[name].decode()) for name in ("memory", "disk"))
    assert {key for key in disk if disk[key] != memory[key]} == {"data"}
    assert disk["data"] == (
        f"folder(size={SIZE}, grey=false, keep=disk, ground=white, split_seed=0)"
    )
    workers(2)
    found = [
        curricula.evaluate(tmp_path / run, threats=["rot:20"], limit=17, batch_size=5)
        for run in ("memory", "disk")
    ]
    assert found[0] == found[1]


def test_auto_holds_a_data_set_that_fits(root, monkeypatch):
    count = len(PER_CLASS) * sum(COUNTS.values())
    monkeypatch.setattr(folder, "MAX_BYTES", count * 3 * SIZE * SIZE)
    assert isinstance(load(root).train, Split)
    monkeypatch.setattr(folder, "MAX_BYTES", count * 3 * SIZE * SIZE - 1)
    data = load(root)
    assert isinstance(data.train, LazySplit)
    assert isinstance(data.test, LazySplit)
    assert isinstance(load(root, grey="true").train, Split)
    assert isinstance(load(root, keep="memory").train, Split)


def test_a_wrong_value_of_keep_is_one_line(root):
    with pytest.raises(UserError, match="keep must be auto or memory or disk, not ram"):
        load(root, keep="ram")


def test_the_contract_is_kept(root, workers):
    workers(0)
    # The defaults of colour images have batches of 128, and this folder is small.
    read = attrs.evolve(
        load(root, keep="disk"), training_defaults={"model": "resnet18", "batch_size": 8}
    )
    assert check_dataset(read) == {}


@attrs.frozen
class Numbered:
    """Return images that show their numbers; one can be unreadable."""

    damaged: int = -1

    def __call__(self, number):
        if number == self.damaged:
            raise UserError(f"image {number} cannot be read")
        return torch.full((1, 8, 8), number % 251, dtype=torch.uint8)


class Dying:
    def __call__(self, number):
        os._exit(3)


def numbered(count=40, **arguments):
    reader = Reader(**{"read": Numbered(), "workers": 0, **arguments})
    labels = torch.arange(count) * 7
    return LazySplit(reader=reader, numbers=torch.arange(count), labels=labels, shape=(1, 8, 8))


@given(st.data())
def test_any_selection_of_images_is_the_same_as_in_memory(data):
    read = numbered(data.draw(st.integers(0, 40), label="count"))
    held = read.load()
    assert held.pixels[:, 0, 0, 0].tolist() == list(range(len(read)))
    for _ in range(data.draw(st.integers(0, 3), label="choices")):
        places = st.integers(0, max(0, len(read) - 1))
        if data.draw(st.booleans(), label="slice"):
            index = slice(data.draw(places), data.draw(places), data.draw(st.sampled_from([1, 2])))
        else:
            some = data.draw(st.lists(places, max_size=9)) if len(read) else []
            index = torch.tensor(some, dtype=torch.int64)
        read, held = read[index], held[index]
        assert (len(read), read.shape) == (len(held), held.shape)
    assert same(read.load(), held)
    size = data.draw(st.integers(1, 12), label="batch size")
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0))
    pairs = list(zip(read.batches(order, size), held.batches(order, size), strict=True))
    assert len(pairs) == -(-len(read) // size)
    assert all(torch.equal(i, j) and same(a, b) for (i, a), (j, b) in pairs)


def children():
    return {process.pid for process in multiprocessing.active_children()}


def test_workers_persist_between_passes_and_exit_with_the_data(root):
    before = children()
    read = numbered(workers=2)
    assert len(list(in_order(read, 40))) == 1
    assert children() == before, "a single batch is not worth a process"
    assert len(list(in_order(read, 8))) == 5
    first = children() - before
    assert len(first) == 2
    assert len(list(in_order(read[slice(20)], 4))) == 5
    assert children() - before == first
    del read
    assert children() == before


def test_two_passes_at_once_and_one_left_early():
    before = children()
    read = numbered(workers=1)
    outer = []
    for batch in in_order(read, 10):
        outer.append(batch)
        inner = torch.cat([batch.labels for batch in in_order(read, 7)])
        assert torch.equal(inner, read.labels)
    assert same(
        read.load(),
        Split(
            pixels=torch.cat([batch.pixels for batch in outer]),
            labels=torch.cat([batch.labels for batch in outer]),
        ),
    )
    kept = children() - before
    for _ in in_order(read, 3):
        break
    assert len(children() - before) == len(kept) - 1
    assert torch.equal(next(in_order(read, 10)).pixels, outer[0].pixels)


@pytest.mark.parametrize("number", [0, 1])
def test_passes_draw_nothing_from_the_global_random_state(number):
    state = torch.get_rng_state()
    assert len(list(in_order(numbered(workers=number), 10))) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("number", [0, 1])
def test_an_image_that_cannot_be_read_is_one_line(number):
    before = children()
    read = numbered(read=Numbered(damaged=25), workers=number)
    found = []
    with pytest.raises(UserError) as raised:
        found.extend(in_order(read, 10))
    assert str(raised.value) == "image 25 cannot be read"
    assert len(found) == 2
    del raised
    assert children() == before


def test_an_interrupt_while_workers_start_or_stop_is_not_swallowed(monkeypatch):
    before = children()
    start = lazy_split.DataLoader.__iter__

    def interrupted_start(loader):
        signal.raise_signal(signal.SIGINT)
        return start(loader)

    with monkeypatch.context() as patched:
        patched.setattr(lazy_split.DataLoader, "__iter__", interrupted_start)
        with pytest.raises(KeyboardInterrupt):
            list(in_order(numbered(workers=1), 10))
    assert children() == before


def test_workers_that_cannot_start_are_one_line(monkeypatch):
    def full(loader):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lazy_split.DataLoader, "__iter__", full)
    with pytest.raises(UserError, match=r"cannot be started .*No space.* CURRICULA_WORKERS=0"):
        list(in_order(numbered(workers=1), 10))


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(UserError, match=r"ended early .* or none with CURRICULA_WORKERS=0"):
        list(in_order(numbered(read=Dying(), workers=1), 10))


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_a_damaged_file_is_named(tmp_path, keep):
    for part in COUNTS:
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20), "red").save(tmp_path / part / name / "0.jpg")
    damaged = tmp_path / "train" / "bee" / "0.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(
        UserError, match=r"^folder: \S*train/bee/0.jpg cannot be read as an image: \S.*$"
    ):
        load(str(tmp_path), keep=keep).train.load()
    damaged.unlink()
    if keep == "disk":
        damaged.with_suffix(".png").write_text("no image")
        data = load(str(tmp_path), keep=keep)
        damaged.with_suffix(".png").unlink()
        with pytest.raises(UserError, match=r"bee/0.png cannot .* image: No such file or direct"):
            data.train.load()


def encoded(kind):
    stream = io.BytesIO()
    picture(np.random.default_rng(0), (20, 14), 0).save(stream, kind)
    return stream.getvalue()


KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "QOI", "JPEG2000", "PCX")
ENCODED = {kind: encoded(kind) for kind in KINDS}


@given(st.sampled_from(sorted(ENCODED)), st.data())
@pytest.mark.filterwarnings("ignore")  # Pillow warns about what it repairs
def test_damaged_bytes_are_an_image_or_one_line(tmp_path_factory, kind, data):
    damaged = bytearray(ENCODED[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    read = folder.ReadFile(paths=np.array([os.fsencode(path)]), size=SIZE, grey=False)
    try:
        pixels = read(0)
    except UserError as error:
        problem = str(error)
        assert str(path) in problem
        assert "\n" not in problem
    else:
        assert (pixels.shape, pixels.dtype) == ((3, SIZE, SIZE), torch.uint8)


def test_a_class_without_an_image_is_one_line(root, tmp_path):
    for part in COUNTS:
        (tmp_path / part / "ant").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / part / "ant" / "0.png")
        (tmp_path / part / "bee").mkdir()
        (tmp_path / part / "bee" / "notes.txt").write_text("no image")
    with pytest.raises(
        UserError, match=r"^folder: .*one class, ant \(passed over .*\(bee\)\)[^\n]*$"
    ):
        load(str(tmp_path), keep="disk")


@pytest.mark.parametrize("text", ["-1", "two", "1.5", "²", "513", "9" * 5000])
def test_a_wrong_number_of_workers_is_one_line(root, workers, text):
    workers(text)
    with pytest.raises(UserError, match="WORKERS must be a whole number, from 0 to 512, not"):
        load(root, keep="disk")


def test_there_is_one_worker_per_core_and_at_most_eight(workers, monkeypatch):
    assert 1 <= lazy_split.number_of_workers() <= 8
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
        assert lazy_split.number_of_workers() == 8
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 6, 7})
        assert lazy_split.number_of_workers() == 3
    workers(12)
    assert lazy_split.number_of_workers() == 12


def test_only_the_parent_handles_an_interrupt():
    before = children()
    read = numbered(workers=1)
    assert len(list(in_order(read, 10))) == 4
    (worker,) = children() - before
    os.kill(worker, signal.SIGINT)
    assert len(list(in_order(read, 10))) == 4
    assert children() - before == {worker}


def read_and_wait(root, pipe):
    """Read a batch; meanwhile the workers read ahead more than fits into their pipe."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["CURRICULA_WORKERS"] = "2"
    try:
        for _ in in_order(load(root, size=200, keep="disk").train, 4):
            pipe.send(sorted(children()))
            time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)


def runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, but its status is not collected yet


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks into Linux' /proc")
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_no_worker_outlives_its_parent(root, how):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    program = context.Process(target=read_and_wait, args=(root, sender))
    program.start()
    workers = receiver.recv()
    assert len(workers) == 2
    assert all(map(runs, workers))
    if how == "killed":
        program.kill()
    else:
        os.killpg(program.pid, signal.SIGINT)  # the whole group, as a terminal does
    deadline = time.monotonic() + 60
    program.join()
    assert program.exitcode == (-signal.SIGKILL if how == "killed" else 130)
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "a worker stayed"
        time.sleep(0.02)


def test_whole_and_floating_point_pixels_are_not_mixed(monkeypatch):
    monkeypatch.setattr("curricula.data.lazy_split.LOAD_BATCH", 2)

    def read(number):
        half = torch.full((1, 2, 2), 0.5)
        return half if number < 2 else (255 * half).to(torch.uint8)

    numbers = torch.arange(4)
    reader = Reader(read=read, workers=0)
    split = LazySplit(reader=reader, numbers=numbers, labels=numbers % 2, shape=(1, 2, 2))
    with pytest.raises(UserError, match=r"image 2 of the images is of torch.uint8, those before"):
        split.load()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda number: torch.zeros(1, 2, 2 + number % 2),
            r"image 1 was read as .*\(1, 2, 3\), ano",
        ),
        (
            lambda number: torch.zeros(1, 2, 2).to_sparse(),
            "pixels of image 0 are a tensor of layout",
        ),
        (lambda number: [0], r"image 0 was read as \[0\]; a reader returns a tensor"),
    ],
)
def test_a_reader_of_other_things_is_one_line_with_the_image(read, message, workers):
    reader, numbers = Reader(read=read, workers=workers), torch.arange(4)
    split = LazySplit(reader=reader, numbers=numbers, labels=numbers % 2, shape=(1, 2, 2))
    with pytest.raises(UserError, match=message):
        list(split.batches(numbers, 2))
