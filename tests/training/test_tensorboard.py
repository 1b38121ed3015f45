"""TensorBoard's own loader reads what a training wrote: the numbers of metrics.jsonl, each once."""

import io
import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import curricula
from curricula.cli.main import program
from curricula.errors import UserError
from curricula.interfaces import Views
from curricula.plugins import registry
from curricula.runtime.records import to_json
from curricula.training import loop, tensorboard
from curricula.training.callbacks import NoCallback
from curricula.training.run import BEST, METRICS, Run

SMALL = {
    "data": "tiny",
    "model": "tinycnn(width=2)",
    "perturb": "rot+pgd(0.1, steps=1)",
    "epochs": 3,
    "precision": "float32",
    "checkpoint_every": 4,
}
STEPS = 9  # updates of an epoch of the tiny data set
CALLBACK = "tensorboard(images=3, every=2)"


class Killed(KeyboardInterrupt):
    """Imitate SIGKILL: nothing catches it."""


def written(path):
    """Return [(step, value)] by tag: scalars and images as TensorBoard's loader for programs reads
    them, texts and, under ``pages``, everything as that of its pages does."""
    loaded = EventAccumulator(str(path / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    tags = loaded.Tags()
    found = {tag: [(e.step, e.value) for e in loaded.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["images"]:
        found[tag] = [(e.step, e.encoded_image_string) for e in loaded.Images(tag)]
    pages = plugin_event_accumulator.EventAccumulator(str(path / "tensorboard"), {"tensors": 0})
    found["pages"] = {
        tag: [(e.step, e.tensor_proto.SerializeToString()) for e in pages.Tensors(tag)]
        for tag in pages.Reload().Tags()["tensors"]
    }
    for tag in tags["tensors"]:
        found[tag] = [(e.step, e.tensor_proto.string_val[0]) for e in pages.Tensors(tag)]
    return found


def expected_of_epochs(run):
    """Return the scalars of epochs in a run's metrics.jsonl, rounded to float32."""
    found = {}

    def add(tag, values, step):
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{tag}/{name}", value, step)
            elif isinstance(value, (int, float)):
                found.setdefault(f"{tag}/{name}", []).append((step, float(np.float32(value))))

    for line in run.lines(METRICS):
        add("epoch", line, line["epoch"] * STEPS - 1)
    return found


def epochs_of(found):
    return {
        tag: values
        for tag, values in found.items()
        if tag.startswith("epoch/") and not tag.startswith("epoch/findings")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a training that nothing interrupted."""
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("whole") / "run"
    return curricula.train(**SMALL, output=path, callbacks=[CALLBACK]).run.path


def test_epochs_are_those_of_the_metrics(whole):
    expected = expected_of_epochs(Run.open(whole))
    assert epochs_of(written(whole)) == expected
    assert len(expected["epoch/validation/joint"]) == 3
    assert {"epoch/loss", "epoch/strength/pgd", "epoch/strong_accuracy", "epoch/passes/gradient",
            "epoch/lr", "epoch/best", "epoch/train_accuracy"} <= expected.keys()  # fmt: skip


def test_updates_are_those_of_the_training(tiny, tmp_path):
    class Losses(NoCallback):
        def on_train_start(self, run, plan, steps):
            self.found = {"step/loss": [], "step/lr": [], "step/strength/rot": []}

        def on_step_end(self, update):
            step = update.progress.step
            self.found["step/loss"].append((step, float(update.loss)))
            self.found["step/lr"].append((step, float(np.float32(update.lr))))
            strength = float(np.float32(update.strengths["rot"]))
            self.found["step/strength/rot"].append((step, strength))

    losses = Losses()
    path = tmp_path / "run"
    curricula.train(**SMALL, output=path, callbacks=[losses, "tensorboard(every=1)"])
    found = written(path)
    assert {tag: found[tag] for tag in losses.found} == losses.found
    means = torch.tensor([value for _, value in found["step/loss"]]).reshape(3, STEPS).mean(1)
    assert means.tolist() == pytest.approx([line.loss for line in Run.open(path).metrics])


def test_every_second_update_and_the_final_results(whole):
    found = written(whole)
    assert [step for step, _ in found["step/loss"]] == list(range(0, 3 * STEPS, 2))
    for result in Run.open(whole).results("test"):
        accuracy = float(np.float32(result.accuracy))
        assert found[f"final/accuracy/{result.name}"] == [(3 * STEPS, accuracy)]
        rate = float(np.float32(result.fooling_rate))
        assert found[f"final/fooling_rate/{result.name}"] == [(3 * STEPS, rate)]
        ((step, table),) = found["final/text_summary"]
        assert step == 3 * STEPS
        assert f"| {result.name} | {100 * result.accuracy:.1f} (" in table.decode()
        assert f"`{result.threat}`" in table.decode()


def test_images_are_those_that_were_trained_on(tiny, tmp_path):
    class Views(NoCallback):
        def on_train_start(self, run, plan, steps):
            self.found = []

        def on_step_end(self, update):
            if update.progress.step % STEPS == 0:
                self.found.append(update.views(3))

    views, path = Views(), tmp_path / "run"
    curricula.train(**SMALL, accumulate=7, output=path, callbacks=[views, CALLBACK])
    images = written(path)["images"]
    assert [step for step, _ in images] == [0, STEPS, 2 * STEPS]
    for (_, encoded), expected in zip(images, views.found, strict=True):
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded)).convert("L"), copy=True))
        rows = pixels.reshape(3, 28, 3, 28).permute(0, 2, 1, 3)
        for row, name in zip(rows, ("clean", "transformed", "perturbed"), strict=True):
            assert torch.equal(row, (getattr(expected, name)[:, 0] * 255).round().to(torch.uint8))


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (5, 1)])
def test_a_picture_has_one_or_three_channels(channels, shown, generator):
    x = torch.rand(4, channels, 5, 7, generator=generator)
    pixels = tensorboard.picture(Views(clean=x, transformed=x, perturbed=x))
    assert pixels.shape == (shown, 3 * 5, 4 * 7)
    assert pixels.dtype == torch.uint8


def test_a_threat_with_a_union_is_one_cell_of_the_table(tiny, tmp_path):
    values = {**SMALL, "perturb": "rot|pgd(0.1, steps=1)", "epochs": 1}
    path = curricula.train(**values, output=tmp_path / "run", callbacks=[CALLBACK]).run.path
    (_, table), = written(path)["final/text_summary"]  # fmt: skip
    cells = [line.replace(r"\|", "").count("|") for line in table.decode().splitlines()]
    assert set(cells) == {5}


def test_the_training_is_the_same_without_it(whole, tiny, tmp_path):
    path = curricula.train(**SMALL, output=tmp_path / "run").run.path
    for file in (METRICS, "evaluation.json", "config.toml", BEST):
        assert (path / file).read_bytes() == (whole / file).read_bytes()


class KillIn(NoCallback):
    """Kill the training in an event, the n-th time that it comes."""

    def __init__(self, event, times):
        self.left = times
        setattr(self, event, self.kill)

    def kill(self, *values):
        self.left -= 1
        if not self.left:
            raise Killed


KILLED = [
    ("on_step_end", 1),
    ("on_step_end", 6),
    ("on_step_end", STEPS),
    ("on_step_end", 2 * STEPS + 5),
    ("on_epoch_end", 1),
    ("on_epoch_end", 3),
    ("on_checkpoint", 2),
    ("on_checkpoint", 3),
    ("on_eval_start", 1),
    ("on_eval_end", 1),
]


@pytest.mark.parametrize(("event", "times"), KILLED)
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_a_killed_training_continues_its_files(whole, tiny, tmp_path, event, times, after):
    path = tmp_path / "run"
    callbacks = [CALLBACK, KillIn(event, times)]
    with pytest.raises(Killed):
        curricula.train(**SMALL, output=path, callbacks=callbacks if after else callbacks[::-1])
    curricula.resume(path, callbacks=[CALLBACK])
    assert written(path) == written(whole)
    assert len(list((path / "tensorboard").iterdir())) == 2


def test_a_killed_process_leaves_a_half_written_record(whole, tiny, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(**SMALL, output=path, callbacks=[CALLBACK, KillIn("on_step_end", 12)])
    (file,) = (path / "tensorboard").iterdir()
    with file.open("ab") as stream:  # the beginning of another record
        stream.write(file.read_bytes()[:20])
    curricula.resume(path, callbacks=[CALLBACK])
    assert written(path) == written(whole)


def test_a_training_killed_ten_times(whole, tiny, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(**SMALL, output=path, callbacks=[CALLBACK, KillIn("on_step_end", 5)])
    for times in [1, 2, 3, 4, 5, 6, 5, 6, 7]:
        with pytest.raises(Killed):
            curricula.resume(
                path, checkpoint_every=4, callbacks=[CALLBACK, KillIn("on_step_end", times)]
            )
    curricula.resume(path, callbacks=[CALLBACK])
    assert written(path) == written(whole)
    assert len(list((path / "tensorboard").iterdir())) == 11


def test_a_rollback_voids_what_comes_again(tiny, tmp_path, monkeypatch):
    checked, real = [], loop.problem

    def problem(state):
        checked.append(state.step)
        first = state.step == 2 * STEPS and checked.count(2 * STEPS) == 1
        return "loss" if first else real(state)

    monkeypatch.setattr(loop, "problem", problem)
    path = tmp_path / "run"
    curricula.train(**SMALL, on_collapse="rollback", output=path, callbacks=[CALLBACK])
    found = written(path)
    assert epochs_of(found) == expected_of_epochs(Run.open(path))
    assert [step for step, _ in found["step/loss"]] == list(range(0, 3 * STEPS, 2))


def test_findings_are_texts(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "findings", lambda *_, **__: ["divergence"])
    path = curricula.train(**SMALL, output=tmp_path / "run", callbacks=[CALLBACK]).run.path
    found = written(path)["epoch/findings/text_summary"]
    assert found == [(epoch * STEPS - 1, b"divergence") for epoch in (1, 2, 3)]


def test_a_baseline_has_its_own_files(tiny, tmp_path):
    values = SMALL | {"epochs": 1}
    path = tmp_path / "run"
    curricula.train(**values, baseline=True, output=path, callbacks=[CALLBACK])
    for each in (path, path / "baseline"):
        found = written(each)
        assert epochs_of(found) == expected_of_epochs(Run.open(each))
        assert len(found["final/accuracy/joint"]) == 1


def test_without_images_there_are_none(tiny, tmp_path):
    values = SMALL | {"epochs": 1}
    run = curricula.train(
        **values, output=tmp_path / "run", callbacks=["tensorboard(images=0)"]
    ).run
    assert "images" not in written(run.path)


def linked(path, outside):
    outside.mkdir()
    (path / "tensorboard").symlink_to(outside)


def linked_file(path, outside):
    outside.mkdir()
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "events.out.tfevents.000002").symlink_to(outside / "file")
    (path / "tensorboard" / "events.out.tfevents.000001").symlink_to(outside)


def in_the_way(path, outside):
    outside.mkdir()
    (path / "tensorboard").write_text("mine")


@pytest.mark.parametrize("plant", [linked, linked_file, in_the_way])
def test_nothing_is_written_outside_of_the_run(tiny, tmp_path, plant):
    path, outside = tmp_path / "run", tmp_path / "outside"
    with pytest.raises(Killed):
        curricula.train(**SMALL, output=path, callbacks=[KillIn("on_step_end", 5)])
    plant(path, outside)
    if plant is linked_file:
        curricula.resume(path, callbacks=[CALLBACK])
    else:
        with pytest.raises(UserError, match=r"callback tensorboard\(.*\) failed in on_train_start"):
            curricula.resume(path, callbacks=[CALLBACK])
        curricula.resume(path)
    assert not list(outside.iterdir())


def test_a_full_disk_is_one_line_and_the_rest_follows(whole, tiny, tmp_path, monkeypatch, capfd):
    def full(file):
        raise OSError(28, "No space left on device")

    path = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(tensorboard._EventFile, "flush", full)
        with pytest.raises(UserError, match="No space left on device") as caught:
            curricula.train(**SMALL, output=path, callbacks=[CALLBACK])
    assert str(caught.value).startswith("callback tensorboard(images=3, every=2) failed in ")
    assert not capfd.readouterr().err
    curricula.resume(path, callbacks=[CALLBACK])
    assert written(path) == written(whole)


def test_without_the_package_one_line_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "curricula.training.tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"; try: pip install tensorboard$"):
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=["tensorboard"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "unknown callback 'tensorbord': did you mean tensorboard?"),
        (
            "tensorboard(imags=1)",
            "callback 'tensorboard' takes images, every; did you mean images?",
        ),
        ("tensorboard(images=65)", "images must be at most 64, not 65"),
        ("tensorboard(every=0)", "every must be 1 or more, not 0"),
        ("tensorboard(every=1/2)", "every must be a whole number, not 1/2"),
        ("tensorboard+tensorboard", "expected a single name or call"),
    ],
)
def test_a_wrong_expression_is_one_line(tiny, tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=[text])
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


PLUGIN = '''
from curricula import Record, hookimpl
from curricula.training import NoCallback


class Count(NoCallback):
    """Print the number of updates."""

    def __init__(self, name: str = "updates"):
        self.name, self.updates = name, 0

    def on_step_end(self, update):
        self.updates += 1
        if self.updates == 5 and self.name == "broken":
            raise RuntimeError("out of paper")

    def on_train_end(self):
        print(f"{self.name}: {self.updates}")


@hookimpl
def curricula_callbacks():
    yield Record(name="count", factory=Count, summary="counts updates")
    yield Record(name="nothing", factory=lambda: print, summary="no callback")
'''


@pytest.fixture
def run_program(tmp_path, monkeypatch):
    from conftest import TINY

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)

    def run(*words):
        return CliRunner().invoke(program, ["--plugin", str(TINY), "--plugin", "mine.py", *words])

    return run


TRAIN = ["train", "--data", "tiny", "--model", "tinycnn(width=2)", "--epochs", "1"]


def test_callbacks_of_a_plugin_file_follow_by_name(run_program, tmp_path):
    done = run_program(
        *TRAIN, "-o", "run", "--callback", "count", "--callback", "count(name=again)",
        "--callback", CALLBACK,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"updates: {STEPS}\nagain: {STEPS}\n" in done.output
    assert epochs_of(written(tmp_path / "run")) == expected_of_epochs(Run.open(tmp_path / "run"))
    assert "callback" not in (tmp_path / "run" / "config.toml").read_text()


def test_a_run_goes_on_without_a_broken_callback(run_program, tmp_path):
    broken = run_program(
        *TRAIN, "-o", "run", "--callback", "count(name=broken)", "--callback", CALLBACK
    )
    assert broken.exit_code == 2
    (line,) = [line for line in broken.output.splitlines() if line.startswith("Error: ")]
    failed = "callback count(name=broken) failed in on_step_end (RuntimeError: out of paper)"
    assert line.startswith(f"Error: {failed}; ")
    command = line.rpartition("without it: ")[2]
    assert command.endswith(f" train --resume run --callback '{CALLBACK}'")
    going_on = run_program("train", "--resume", "run", "--callback", CALLBACK)
    assert going_on.exit_code == 0, going_on.output
    assert [step for step, _ in written(tmp_path / "run")["step/loss"]] == list(range(0, STEPS, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont", "unknown callback 'cuont': did you mean count?"),
        ("nothing", "callback nothing of mine.py lacks methods of curricula.training.Callback"),
        ("count(nam=a)", "unknown argument 'nam'; callback 'count' takes name; did you mean name?"),
        ("", "the expression is empty"),
    ],
)
def test_a_wrong_name_ends_with_status_2(run_program, tmp_path, text, message):
    for words in (TRAIN, ["train", "--resume", "run"]):
        done = run_program(*words, "--callback", text)
        assert done.exit_code == 2
        if words is TRAIN:
            assert message in done.output
    assert not (tmp_path / "runs").exists()


def test_the_record_of_an_epoch_is_a_line_of_the_metrics(whole):
    run = Run.open(whole)
    assert json.loads(json.dumps(to_json(run.metrics))) == run.lines(METRICS)


KILLED_PROCESS = """
    import json, os, pathlib, signal, sys
    import curricula
    from curricula.plugins import registry
    from curricula.training import NoCallback

    class Kill(NoCallback):
        def on_step_end(self, update):
            if update.progress.step == 14:
                os.kill(os.getpid(), signal.SIGKILL)

    plugin, path, values, callback = json.loads(sys.argv[1])
    sys.path.insert(0, str(pathlib.Path(plugin).parents[1]))
    import pytest
    from fixtures.quick import shorten_attacks

    shorten_attacks(pytest.MonkeyPatch())  # as in the tests themselves
    registry.use(registry.build_registry([pathlib.Path(plugin)]))
    curricula.train(**values, output=path, callbacks=[callback, Kill()])
"""


def test_a_process_killed_by_the_system_continues_its_files(whole, tiny, tmp_path):
    from conftest import TINY

    path = tmp_path / "run"
    arguments = json.dumps([str(TINY), str(path), SMALL, CALLBACK])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_PROCESS), arguments], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert max(step for step, _ in written(path)["step/loss"]) == 10  # after 12 updates it saved
    curricula.resume(path, callbacks=[CALLBACK])
    assert written(path) == written(whole)
