"""Give every reader of a file thousands of damaged and invented files.

    python tests/tools/fuzz_readers.py [--only NAME] [--inputs 20000] [--seed 0]

A tiny training writes real files. Each is changed at random, as bytes, as text and as the value
that it holds, or replaced by an invented one; the same seed gives the same files. A reader may
return, or raise a UserError of one printable line. Printed are the number of files of each reader,
how many were refused, the slowest in seconds, and every other exception. The exit status is 1 if
there is one, or if a file took longer than a second.
"""

import argparse
import contextlib
import io
import json
import logging
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
import torch
from PIL import Image
from safetensors.torch import save_file

import curricula
from curricula.api.measuring import read_finished
from curricula.data.dataset import load_data
from curricula.data.identity import DataIdentity
from curricula.data.photos import pixels_of, read_image
from curricula.errors import UserError
from curricula.evaluation.audit import Audit
from curricula.evaluation.certify import Certificates
from curricula.evaluation.robustness_profile import RobustnessProfile
from curricula.models.weights import load_weights, read_weights
from curricula.plugins import registry
from curricula.reporting.certified import certified_figure
from curricula.reporting.profiles import joint_figure, profile_figure
from curricula.reporting.suite_figure import suite_figure
from curricula.runtime.parsing import parse_toml
from curricula.runtime.random_state import seeded
from curricula.sweeps.database import Database
from curricula.sweeps.folder import IDENTITY, Failure, Pruned, folder_identity
from curricula.sweeps.pruning import INTERMEDIATE, intermediate
from curricula.sweeps.queue import Place, Queue
from curricula.sweeps.search import TRIALS, read_trials
from curricula.sweeps.search_spec import parse_search, read_search
from curricula.sweeps.spec import read_sweep
from curricula.training.callbacks import NoCallback
from curricula.training.checkpoint import read_checkpoint, restore
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan, make_plan
from curricula.training.predictions import read_evaluation
from curricula.training.run import BEST, LAST, Elsewhere, Run
from curricula.training.step import Networks, start
from curricula.training.stored_suites import StoredSuites

TESTS = Path(__file__).parents[1]
TINY = TESTS / "fixtures" / "tiny.py"
STORED = TESTS / "evaluation" / "stored"
MAX_SECONDS = 1.0  # seconds of the processor that a file may take
MAX_WAIT = 5.0  # seconds that it may take in all, beside other processes
MAX_HANG = 30  # seconds after which a reader is stopped
CPU = torch.device("cpu")

Draw = random.Random
Change = Callable[[bytes, Draw], bytes]

SWEEP = """[base]
data = "tiny"
perturb = "rot:60+pgd:0.3"
[axes]
seed = [0, 1, 2]
lr = [0.1, 0.2]
[axes.curriculum]
constant = { schedule = ["constant"] }
ramp = { schedule = ["linear(until=0.4)"], epochs = 3 }
[evaluation]
limit = 2000
split = "test"
frontier = ["spatial", "joint"]
[evaluation.threats]
spatial = "rot:60"
joint = "rot:60+pgd(0.3, steps=40)"
"""
SEARCH = """[base]
data = "tiny"
perturb = "rot:{angle}+pgd"
schedule = ["rot=constant", "pgd=linear(until={end})"]
[ranges]
lr = { low = 0.001, high = 0.1, log = true }
angle = { low = 10, high = 30, step = 5 }
end = { low = 0.05, high = 0.95 }
objective = ["at", "trades(beta=6)"]
[search]
trials = 30
sampler = "nsga2"
seed = 1
objectives = ["spatial", "joint"]
prune = true
[evaluation]
limit = 2000
[evaluation.threats]
spatial = "rot:60"
joint = "rot:60+pgd(0.3, steps=40)"
"""

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 0.5, 1.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**62, 2**63,
    10**18, 10**19 - 1, "", "a", "1", "x" * 3000, "\0", "\x1b[2J", "a\nb", "\ud800", "$\\frac{$",
    "_x", "../x", "/etc/passwd", ".", "CON", "clean", "joint", "rot", "nan", [], {}, [[]], [None],
    {"": 0}, {"a": {}}, [0] * 40, ["a", "a"], [[1], [1, 2]], {"clean": 0.5, "joint": 2},
]  # fmt: skip
TEXTS = [
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "0x" + "f" * 5000, "[" * 3000,
    '{"a":' * 3000, "a." * 3000, "\ufeff", "\n", "\r\n", "\n\n", "\0", "\\ud800", "\\u0000", '"',
    "'", '"""', "'''", "#", "=", "{", "}", "]", ",", ":", "null", "true", "inf", "nan",
    "1979-05-27T07:32:00Z", "\u2028", "é", "1_000", "-0", "1e5", "[axes]", "[[axes]]", "a = 1\n",
    "x" * 5000, " " * 5000, "\x7f", "\\", "/",
]  # fmt: skip


# Changes of the bytes of a file.


def of_bytes(content: bytes, draw: Draw) -> bytes:
    """Return a file with some bytes changed, lost, moved or added."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << draw.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = draw.choice((0, 255, 128, 10, draw.randrange(256)))
            case 2:
                del changed[at : at + draw.choice((1, 2, 8, 100, 10_000))]
            case 3:
                begin = draw.randrange(len(changed) + 1)
                changed[at:at] = changed[begin : begin + draw.choice((1, 8, 100, 1000))]
            case 4:
                changed[at:at] = draw.randbytes(draw.choice((1, 4, 50)))
            case 5:
                changed = changed[:at]
    return bytes(changed)


def of_text(content: bytes, draw: Draw) -> bytes:
    """Return a text with some words of `TEXTS` put in, or a line lost or repeated."""
    text = content.decode(errors="replace")
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(text) + 1)
        if draw.random() < 0.7:
            end = at + draw.choice((0, 0, 1, 5))
            text = text[:at] + draw.choice(TEXTS) + text[end:]
        else:
            lines = text.split("\n")
            line = draw.randrange(len(lines))
            lines[line : line + 1] = draw.choice(([], [lines[line]] * 2, [lines[line][::-1]]))
            text = "\n".join(lines)
    return text.encode(errors="surrogatepass")


def invented(content: bytes, draw: Draw) -> bytes:
    """Return bytes that have nothing to do with the file."""
    if draw.random() < 0.2:
        return draw.randbytes(draw.choice((0, 1, 8, 100, 3000)))
    return as_json(invent(draw, 4)).encode(errors="surrogatepass")


# Changes of the value that a file holds.


def invent(draw: Draw, depth: int) -> Any:
    """Return a random JSON value."""
    if depth == 0 or draw.random() < 0.4:
        return draw.choice(VALUES)
    count = draw.choice((0, 1, 2, 5))
    if draw.random() < 0.5:
        return [invent(draw, depth - 1) for _ in range(count)]
    return {str(draw.choice(VALUES))[:50]: invent(draw, depth - 1) for _ in range(count)}


def changed_value(value: Any, draw: Draw) -> Any:
    """Return a JSON value with one part replaced, lost, repeated, wrapped or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        rest = {name: part for name, part in value.items() if name != key}
        match draw.randrange(8):
            case 0:
                return rest
            case 1:
                return {**rest, str(draw.choice(VALUES))[:100]: value[key]}
        return {**value, key: changed_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        match draw.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
        return [*value[:at], changed_value(value[at], draw), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw.random() < 0.3:
        return draw.choice((-value, value + 1, value * 1000, str(value), value + 0.5, [value]))
    return draw.choice(([value], {"a": value}, draw.choice(VALUES), draw.choice(VALUES)))


def as_json(value: Any) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(value)
    return "null"


def of_json(content: bytes, draw: Draw) -> bytes:
    """Return a JSON file whose value is changed."""
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        value = changed_value(value, draw)
    return as_json(value).encode()


def of_json_lines(content: bytes, draw: Draw) -> bytes:
    """Return a JSON-lines file of which some lines are changed."""
    value = [json.loads(line) for line in content.splitlines()]
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(value))
        value[at] = changed_value(value[at], draw)
    return "\n".join(map(as_json, value)).encode() + b"\n"


def of_toml(content: bytes, draw: Draw) -> bytes:
    """Return a TOML file whose value is changed, as far as TOML can hold it."""
    value = parse_toml(content.decode())
    for _ in range(draw.choice((1, 1, 2, 4))):
        value = changed_value(value, draw)
    try:
        return tomli_w.dumps(value).encode()
    except Exception:  # None, surrogates, lists in place of tables
        return of_text(content, draw)


def of_safetensors(content: bytes, draw: Draw) -> bytes:
    """Return a checkpoint with a changed header or state, without its digest, which would tell."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header["__metadata__"].pop("digest", None)
    for _ in range(draw.choice((1, 1, 2))):
        kind = draw.randrange(4)
        texts = header["__metadata__"]
        if kind == 0 and isinstance(texts.get("state"), str):
            with contextlib.suppress(ValueError):  # changed already
                texts["state"] = as_json(changed_value(json.loads(texts["state"]), draw))
        elif kind == 1 and data:
            at = draw.randrange(len(data))
            piece = draw.choice((b"\xff" * 8, bytes(8), struct.pack("<q", -1), draw.randbytes(8)))
            data = data[:at] + piece[: len(data) - at] + data[at + len(piece) :]
        elif kind == 2:
            header = changed_value(header, draw)
            if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
                break
        else:
            name = draw.choice([name for name in header if name != "__metadata__"] or [""])
            if isinstance(header.get(name), dict) and "dtype" in header[name]:
                size, shape = (
                    header[name].get("data_offsets", [0, 0]),
                    header[name].get("shape", []),
                )
                with contextlib.suppress(LookupError, TypeError, ValueError):
                    header[name] |= draw.choice(reshaped(shape, size[1] - size[0]))
    text = as_json(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def reshaped(shape: list[int], size: int) -> list[dict[str, Any]]:
    """Return other types and shapes of the same bytes."""
    types = {"F64": 8, "F32": 4, "I64": 8, "U8": 1, "BOOL": 1, "C64": 8, "F16": 2, "F8_E4M3": 1}
    found: list[dict[str, Any]] = [{"shape": shape[::-1]}, {"shape": [1, *shape]}, {"shape": []}]
    return found + [
        {"dtype": name, "shape": [size // width]}
        for name, width in types.items()
        if size % width == 0
    ]


def of_idx(content: bytes, draw: Draw) -> bytes:
    """Return a file of MNIST whose header is changed."""
    at = 4 * draw.randrange(1 + content[3])
    number = draw.choice((0, 1, 27, 28, 2**31, 2**32 - 1, draw.randrange(256)))
    return content[:at] + struct.pack(">I", number) + content[at + 4 :]


def of_npz(content: bytes, draw: Draw) -> bytes:
    """Return an archive of NumPy or torch with one member changed, and right check sums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as file, zipfile.ZipFile(stream, "w") as changed:
        chosen = draw.choice(file.namelist())
        for name in file.namelist():
            array = file.read(name)
            begin = array[:128]  # the header, where most changes matter
            if name == chosen:
                array = draw.choice((of_bytes(array, draw), of_bytes(begin, draw) + array[128:]))
            changed.writestr(name, array)
    return stream.getvalue()


def of_database(content: bytes, draw: Draw) -> bytes:
    """Return a database with bytes changed within one page: most of it stays readable."""
    begin = 4096 * draw.randrange(len(content) // 4096)
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 10))):
        at = begin + draw.choice((draw.randrange(100), draw.randrange(4096)))
        changed[at] = draw.choice((0, 255, changed[at] ^ 1, draw.randrange(256)))
    return bytes(changed)


def of_row(content: bytes, draw: Draw) -> bytes:
    """Return a database of which one value is changed, as SQL would."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        ((table,),) = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        name = draw.choice([*names, *["results"] * len(names)])
        ((before,),) = database.execute(f"SELECT {name} FROM {table}")
        text = str(before).encode()
        is_json = text.startswith((b"[", b"{"))
        changes = [of_bytes, of_text, invented, *([of_json] * 3 if is_json else [])]
        after: Any = draw.choice(changes)(text, draw).decode(errors="replace")
        after = draw.choice((after, after, after, after.encode(), None, 2**62, -1, 0.5, ""))
        with contextlib.suppress(sqlite3.Error):  # a constraint, or a surrogate
            database.execute(f"UPDATE {table} SET {name} = ?", (after,))
            database.commit()
        return database.serialize()


# Readers.


@attrs.frozen(kw_only=True)
class Reader:
    """A reader of a file.

    Attributes:
        file: path of the file, in the folder of all.
        read: reads it.
        changes: the kinds of changes.
        named: text that an error must have.
    """

    file: str
    read: Callable[[], object]
    changes: tuple[Change, ...]
    named: str


JSON = (of_bytes, of_text, of_json, of_json, of_json, invented)
LINES = (of_bytes, of_text, of_json_lines, of_json_lines, of_json_lines, invented)
TOML = (of_bytes, of_text, of_toml, of_toml, of_toml, invented)


class _Killed(KeyboardInterrupt):
    pass


def write_files(folder: Path) -> Plan:
    """Write real files by a tiny training and by the library, and return the training's plan."""
    registry.use(registry.build_registry([TINY]))
    values = {
        "data": "tiny", "model": "tinycnn(width=2)", "perturb": "rot+pgd(0.1, steps=1)",
        "schedule": ["gated", "pgd=per-image"], "average": "ema(decay=0.9)", "epochs": 2,
        "precision": "float32", "compile": "off", "optimizer": "adamw",
    }  # fmt: skip
    curricula.train(**values, output=folder / "run")

    class Kill(NoCallback):
        def on_step_end(self, update: Any) -> None:
            if update.progress.step == 12:
                raise _Killed

    with contextlib.suppress(_Killed):
        curricula.train(**values, output=folder / "killed", checkpoint_every=1, callbacks=[Kill()])
    for file in ("profile.json", "audit.json", "certificates.json", "suites.json"):
        shutil.copy(STORED / file, folder / "run" / file)
    images = json.loads((STORED / "certificates.json").read_text())["images"]
    lines = [json.dumps({"index": index, "image": image}) for index, image in enumerate(images)]
    (folder / "run" / "certify-0.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "failed").mkdir()
    (folder / "failed" / "failed.json").write_text('{"reason": "no reason"}')
    (folder / "failed" / "elsewhere.json").write_text('{"host": "a", "path": "/runs/a"}')
    (folder / "failed" / "pruned.json").write_text('{"epoch": 3}')
    lines = [{"epoch": epoch, "first": 0.5, "second": 0.25} for epoch in (2, 3)]
    (folder / "failed" / INTERMEDIATE).write_text(json.dumps(lines))
    (folder / "sweep.toml").write_text(SWEEP)
    (folder / "search.toml").write_text(SEARCH)
    (folder / TRIALS).write_text(json.dumps(parse_search(SEARCH).extremes))
    draws = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 12), ("t10k", 3)):
        images = draws.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, count)
        labels = bytes(number % 10 for number in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)
    arrays = {}
    for part, count in (("train", 12), ("test", 3)):
        arrays[f"x_{part}"] = draws.integers(0, 256, (count, 9, 9)).astype(np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 3
    np.savez(folder / "arrays.npz", **arrays)
    for part in ("train", "test"):
        (folder / "images" / part / "bee").mkdir(parents=True)
        picture = Image.fromarray(draws.integers(0, 256, (9, 9, 3)).astype(np.uint8))
        for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm"):
            picture.save(folder / "images" / part / "bee" / f"image.{suffix}")
        (folder / "images" / part / "fly").mkdir()
        picture.save(folder / "images" / part / "fly" / "image.png")
    (folder / "photos").mkdir()
    for name, (photo, options) in photos(draws).items():
        photo.save(folder / "photos" / name, **options)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).state_dict()
    save_file(network, folder / "net.safetensors", metadata={"format": "pt"})
    torch.save({"state_dict": network, "epoch": 3}, folder / "net.pt")
    torch.save(network, folder / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("study", "rows"):
        (folder / name).mkdir()
        queue = open_queue(folder / name)
        queue.add({"cell": {"values": {"seed": 0}}}, {})
        if name == "rows":
            lease = queue.claim("cell", queue.entries(["cell"])["cell"], is_dead=False)
            assert lease is not None
            lease.finish({"evaluation.json": "[]", "metrics.jsonl": "{}"})
        queue.database.engine.dispose()
    folder_identity(folder / "study")
    shutil.copy(TINY, folder / "plugin.py")
    return make_plan(values)


OPENED = ("palette.png", "turned.jpg", "turned.tif")  # also read as images that a caller opened


def photos(draws: np.random.Generator) -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    """Return images of many formats and modes by the names of their files, and how to save them."""
    levels = draws.integers(0, 256, (9, 7, 4)).astype(np.uint8)
    colour, clear = Image.fromarray(levels[..., :3]), Image.fromarray(levels)
    deep = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation
    return {
        "frames.gif": (colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
        "palette.png": (colour.quantize(5), {"transparency": 2}),
        "deep.png": (deep, {}),
        "clear.png": (clear, {}),
        "turned.jpg": (colour, {"exif": exif}),
        "inks.jpg": (colour.convert("CMYK"), {}),
        "clear.webp": (clear, {"lossless": True, "exif": exif}),
        "image.jp2": (colour, {}),
        "image.avif": (colour, {}),
        "deep.tif": (deep, {"compression": "tiff_lzw"}),
        "float.tif": (Image.fromarray(levels[..., 0].astype(np.float32) / 255), {}),
        "turned.tif": (clear, {"compression": "tiff_adobe_deflate", "exif": exif}),
        "image.tga": (clear, {"compression": "tga_rle"}),
        "image.qoi": (clear, {}),
        "image.pcx": (colour, {}),
        "image.sgi": (colour, {}),
        "image.dds": (clear, {}),
        "deep.pgm": (deep.convert("I"), {}),
    }


def open_queue(folder: Path) -> Queue:
    database = Database.open(folder, None, print)
    return Queue(database=database, study="sweep", place=Place(), lease_seconds=60)


def readers(folder: Path, plan: Plan) -> dict[str, Reader]:
    """Return the readers by name."""
    run, killed = Run(folder / "run"), Run(folder / "killed")
    model = plan.build_model().cpu()
    accepted: Counter[str] = Counter()

    def of_run(file: str, read: Callable[[], object], changes: tuple[Change, ...]) -> Reader:
        return Reader(file=f"run/{file}", read=read, changes=changes, named=file)

    def read_cells() -> None:
        found = read_sweep(folder / "sweep.toml")
        for cell in found.cells[:100]:
            assert Path(cell.name).name == cell.name not in ("", ".", ".."), cell.name
            found.row(cell)

    def read_and_name() -> None:
        found = read_search(folder / "search.toml")
        for cell in found.sweep(found.extremes[:100]).cells:
            assert Path(cell.name).name == cell.name not in ("", ".", ".."), cell.name

    def restored() -> None:
        with seeded(0, CPU):
            threads = torch.get_num_threads()
            try:
                state = start(plan)
                networks = Networks.of(plan, state.model)
                found = read_checkpoint(killed, LAST)
                restore(plan, state, networks, PassCounter.attach(networks), found, killed)
            finally:
                torch.set_num_threads(threads)

    def study() -> None:
        queue = open_queue(folder / "study")
        for seen in queue.entries(["cell"]).values():
            lease = queue.claim("cell", seen, is_dead=True)
            if lease is not None:
                lease.finish({"evaluation.json": "[]"})
        queue.database.engine.dispose()
        read_results("study")

    def read_results(name: str) -> None:
        queue = open_queue(folder / name)
        for seen in queue.entries(["cell"]).values():
            queue.results("cell", seen)
        queue.database.engine.dispose()

    def draw_suites(found: StoredSuites) -> None:
        for each in found.suites.values():
            for table in each.tables:
                suite_figure(table)
                assert table.findings or not table.has_severities

    def figures(file: str, cls: Any, *draw: Callable[[Any], object]) -> Callable[[], None]:
        def read() -> None:
            found = run.read(file, cls)
            accepted[file] += 1
            if accepted[file] % 500 == 0:  # drawing takes most of a second
                for each in draw:
                    each(found)

        return read

    def image(suffix: str) -> Reader:
        return Reader(
            file=f"images/train/bee/image.{suffix}",
            read=lambda: load_data("folder(size=8)", root=folder / "images"),
            changes=(of_bytes,),
            named=f"image.{suffix}",
        )

    def photo(name: str) -> Reader:
        path = folder / "photos" / name
        return Reader(
            file=f"photos/{name}",
            read=lambda: read_image(path, 8, False),
            changes=(of_bytes,),
            named=name,
        )

    def opened(name: str) -> Reader:
        def read() -> None:
            try:
                image = Image.open(folder / "photos" / name)
            except Exception as error:  # that of the caller
                raise UserError(f"{name} is not opened") from error
            with image:
                pixels_of(image, name, size=8)

        return Reader(file=f"photos/{name}", read=read, changes=(of_bytes,), named=name)

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))

    def weights(name: str, changes: tuple[Change, ...]) -> Reader:
        def read() -> None:
            load_weights(network, read_weights(folder / name))

        return Reader(file=name, read=read, changes=changes, named=name)

    return {
        "config": of_run("config.toml", lambda: run.config, TOML),
        "sweep": Reader(file="sweep.toml", read=read_cells, changes=TOML, named="sweep.toml"),
        "search": Reader(
            file="search.toml", read=read_and_name, changes=TOML, named="search.toml"
        ),
        "trials": Reader(
            file=TRIALS,
            read=lambda: read_trials(parse_search(SEARCH), folder),
            changes=JSON,
            named=TRIALS,
        ),
        "pruned": Reader(
            file="failed/pruned.json",
            read=lambda: Run(folder / "failed").read("pruned.json", Pruned),
            changes=JSON,
            named="pruned.json",
        ),
        "intermediate": Reader(
            file=f"failed/{INTERMEDIATE}",
            read=lambda: intermediate(Run(folder / "failed")),
            changes=JSON,
            named=INTERMEDIATE,
        ),
        "metrics": of_run("metrics.jsonl", lambda: run.metrics, LINES),
        "timing": of_run("timing.jsonl", lambda: run.times, LINES),
        "environment": of_run("environment.json", lambda: run.environment, JSON),
        "data": of_run("data.json", lambda: run.read("data.json", DataIdentity), JSON),
        "evaluation": of_run("evaluation.json", lambda: run.results("test"), JSON),
        "predictions": of_run(
            "predictions.safetensors",
            lambda: read_evaluation(run, "test"),
            (of_bytes, of_safetensors, of_safetensors),
        ),
        "profile": of_run(
            "profile.json",
            figures("profile.json", RobustnessProfile, profile_figure, joint_figure),
            JSON,
        ),
        "audit": of_run("audit.json", figures("audit.json", Audit), JSON),
        "suites": of_run("suites.json", figures("suites.json", StoredSuites, draw_suites), JSON),
        "certificates": of_run(
            "certificates.json",
            figures("certificates.json", Certificates, certified_figure),
            JSON,
        ),
        "finished": of_run(
            "certify-0.jsonl", lambda: read_finished(run, "certify-0.jsonl", 1000), LINES
        ),
        "elsewhere": Reader(
            file="failed/elsewhere.json",
            read=lambda: Run(folder / "failed").read("elsewhere.json", Elsewhere),
            changes=JSON,
            named="elsewhere.json",
        ),
        "failure": Reader(
            file="failed/failed.json",
            read=lambda: Run(folder / "failed").read("failed.json", Failure),
            changes=JSON,
            named="failed.json",
        ),
        "compare": of_run("metrics.jsonl", lambda: curricula.compare([run.path]), LINES),
        "compare-config": of_run("config.toml", lambda: curricula.compare([run.path]), TOML),
        "plugins-config": of_run("config.toml", run.check_plugins, TOML),
        "weights": of_run(
            BEST, lambda: run.load_weights(BEST, model), (of_bytes, of_safetensors, of_safetensors)
        ),
        "checkpoint": Reader(
            file=f"killed/{LAST}",
            read=restored,
            changes=(of_bytes, of_safetensors, of_safetensors, of_safetensors),
            named=LAST,
        ),
        "mnist-images": Reader(
            file="MNIST/raw/train-images-idx3-ubyte",
            read=lambda: load_data("mnist", root=folder),
            changes=(of_bytes, of_idx),
            named="mnist in",
        ),
        "mnist-labels": Reader(
            file="MNIST/raw/t10k-labels-idx1-ubyte",
            read=lambda: load_data("mnist", root=folder),
            changes=(of_bytes, of_idx),
            named="mnist in",
        ),
        "npz": Reader(
            file="arrays.npz",
            read=lambda: load_data("npz", root=folder / "arrays.npz"),
            changes=(of_bytes, of_npz),
            named="arrays.npz",
        ),
        **{name: photo(name) for name in photos(np.random.default_rng(0))},
        **{f"opened {name}": opened(name) for name in OPENED},
        "safetensors": weights("net.safetensors", (of_bytes, of_safetensors, of_safetensors)),
        "torch": weights("net.pt", (of_bytes, of_npz, of_npz)),
        "torch-old": weights("old.pth", (of_bytes,)),
        **{suffix: image(suffix) for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm")},
        "identity": Reader(
            file=f"study/{IDENTITY}",
            read=lambda: folder_identity(folder / "study"),
            changes=(of_bytes, of_text, invented),
            named=IDENTITY,
        ),
        "rows": Reader(
            file="rows/study.db",
            read=lambda: read_results("rows"),
            changes=(of_row,),
            named="study.db",
        ),
        "plugin": Reader(
            file="plugin.py",
            read=lambda: registry.build_registry([folder / "plugin.py"], entry_points=False),
            changes=(of_bytes, of_text),
            named="plugin",
        ),
        "study": Reader(
            file="study/study.db", read=study, changes=(of_database, of_database, of_bytes),
            named="study.db",
        ),
    }  # fmt: skip


@attrs.define
class Report:
    """Counts of the files that a reader was given.

    Attributes:
        inputs, refused: number of files, and of those that were refused.
        slowest: seconds of the processor that the slowest took.
        faults: exceptions other than `UserError`, and messages that are not one line, by kind, with
            their number.
    """

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: Counter[str] = attrs.field(factory=Counter)


def _stop(*_: object) -> None:
    raise TimeoutError(f"not done after {MAX_HANG} seconds")


@contextlib.contextmanager
def hangs_stopped() -> Iterator[None]:
    """Raise an error inside the block if it takes too long."""
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(name: str, reader: Reader, folder: Path, inputs: int, seed: int) -> Report:
    """Give a reader a number of files, and return what came of them."""
    path = folder / reader.file
    real = path.read_bytes()
    report = Report()
    for number in range(inputs):
        draw = Draw(f"{seed} {name} {number}")
        content = draw.choice(reader.changes)(real, draw)
        for left in (*path.parent.glob(f"{path.name}-*"), path):  # journals of the database
            left.unlink(missing_ok=True)
        path.write_bytes(content)
        report.inputs += 1
        began, worked = time.perf_counter(), time.process_time()
        try:
            with hangs_stopped():
                reader.read()
        except UserError as error:
            report.refused += 1
            message = str(error)
            if not message.isprintable() or len(message) > 2100 or reader.named not in message:
                report.faults[f"input {number}: message {message[:300]!r}"] += 1
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
            if not any(kind in fault for fault in report.faults):
                report.faults[f"input {number}: {kind}: {str(error)[:200]!r}"] += 1
        took, worked = time.perf_counter() - began, time.process_time() - worked
        report.slowest = max(report.slowest, worked)
        if worked > MAX_SECONDS or took > MAX_WAIT:
            report.faults[f"input {number}: {worked:.1f} of {took:.1f} seconds"] += 1
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()
    path.write_bytes(real)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="name of a reader; repeatable")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    logging.disable()  # Pillow's about damaged TIFF files
    torch.set_num_threads(1)
    ok = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        known = readers(folder, write_files(folder))
        for reader in known.values():
            reader.read()  # a real file is read, and everything imported
        for name in arguments.only or known:
            began = time.perf_counter()
            found = fuzz(name, known[name], folder, arguments.inputs, arguments.seed)
            ok = ok and not found.faults
            print(
                f"{name:<18} {found.inputs:>7,} files, {found.refused:>7,} refused, slowest "
                f"{found.slowest:.3f} s, {len(found.faults)} faults, "
                f"{time.perf_counter() - began:.0f} s in all",
                flush=True,
            )
            for fault in list(found.faults)[:20]:
                print(f"    {fault}", flush=True)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
