"""A run folder from someone else whose files are no files, under any name."""

import os
import shutil
import time

import attrs
import pytest

import curricula
from curricula.cli.tables import show_accuracies
from curricula.errors import UserError
from curricula.evaluation.audit import Audit
from curricula.evaluation.robustness_profile import RobustnessProfile
from curricula.plugins import registry
from curricula.reporting.report import report
from curricula.runtime.records import to_json
from curricula.training.run import LAST, Run

FILES = (
    "config.toml", "metrics.jsonl", "timing.jsonl", "environment.json", "data.json",
    "evaluation.json", "best.safetensors", "last.safetensors", "profile.json", "audit.json",
    "failed.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("trained") / "run"
    curricula.train(data="tiny", model="tinycnn(width=2)", perturb="rot", epochs=1, output=path)
    return path


@pytest.fixture
def folder(trained, tiny, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


PLANTED = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a full device": lambda path: path.symlink_to("/dev/full"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a huge file without a block": lambda path: (path.touch(), os.truncate(path, 2**42)),
    "an empty file": lambda path: path.write_bytes(b""),
}


def answer(read):
    """Return the message of a user error; an empty text if there is none."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_not_a_file_is_one_line_at_once(folder, kind):
    answers = []
    for file in FILES:
        path = folder / file
        real = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        PLANTED[kind](path)
        for read in (
            lambda: curricula.compare([folder]),
            lambda: curricula.load_model(folder),
            lambda: curricula.load_model(folder, checkpoint="last"),
            lambda: Run(folder).environment,
            lambda: Run(folder).read("profile.json", RobustnessProfile),
            lambda: Run(folder).read("audit.json", Audit),
        ):
            began = time.process_time()
            answers.append(answer(read))
            assert time.process_time() - began < 1
        shutil.rmtree(path) if kind == "a folder" else path.unlink()
        if real is not None:
            path.write_bytes(real)
    assert all(message.isprintable() for message in answers)
    refused = [message for message in answers if message]
    assert all(str(folder) in message for message in refused)
    assert len(answers) > len(refused) >= 5
    assert curricula.compare([folder]).rows


def test_a_run_may_have_any_name(trained, tiny, tmp_path):
    path = tmp_path / os.fsdecode(b"-rf ~#?a\nb$\\frac{$<b>&\"'%s\x1b[2J\xff")
    shutil.copytree(trained, path)
    page = report(path).read_bytes().decode("utf-8")
    assert "<b>" not in page
    assert curricula.compare([path]).rows[0].label.isprintable()
    assert len(curricula.evaluate(path, threats=["clean"], limit=1)) == 1
    (path / LAST).write_bytes(b"x")
    with pytest.raises(UserError, match=r"last.safetensors: damaged") as raised:
        curricula.load_model(path, checkpoint="last")
    assert str(raised.value).isprintable()


def test_results_of_someone_else_are_printed_as_they_are(folder, capsys):
    (result, *_) = Run(folder).results("test")
    name = "[/red][bold]x"
    results = [attrs.evolve(result, name=name, threat="[link=x]y[/z]")]
    Run(folder).write_json("evaluation.json", to_json(results))
    show_accuracies({"this run": Run(folder).results("test"), "baseline": [result]})
    printed = capsys.readouterr().out
    assert name in printed
    assert f"{name}: [link=x]y[/z]" in printed
    (folder / "evaluation.json").write_text("[]")
    with pytest.raises(UserError, match=r"evaluation.json: .*there are no results"):
        Run(folder).results("test")
