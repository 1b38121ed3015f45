"""Tests of the scripts in this folder: what they find, and that they can fail."""

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tools import compare_runs, costs, monitor_runs, mutants, words

import curricula
from curricula.training.saver import Saver


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x < 1\n", {"return x <= 1", "return x > 1", "return None"}),
        ("a = b + c\n", {"a = b - c"}),
        ("if not a and b:\n    c()\n", {"if a and b:", "if not a or b:"}),
        ("def f(x=True): ...\n", {"def f(x=False): ..."}),
        ("y = min(a, b)\n", {"y = max(a, b)"}),
    ],
)
def test_each_kind_of_edit_is_drawn(source, expected):
    found = {new.strip() for _, _, new in mutants.edits(source)}
    assert expected <= found


@pytest.mark.parametrize(
    "source",
    [
        '"""Say 1 < 2."""\n',
        'def f(x):\n    raise ValueError(f"{x} < {1 + 2}")\n',
        "x: Literal[1, 2]\n",
        "y = x.permute(1, 0)\n",
    ],
)
def test_texts_types_messages_and_dimensions_are_not_edited(source):
    assert not list(mutants.edits(source))


def test_every_mutant_has_tests_and_changes_its_line():
    stored = mutants.read()
    assert len(stored) == 64
    assert len({each["id"] for each in stored}) == 64
    for mutant in stored:
        assert mutant["old"] != mutant["new"]
        assert mutant["tests"]


def test_old_names_habits_and_docstrings_without_a_verb_are_found():
    source = '"""Of a thing."""\nfallen = victim.standing(x)  # so many\nout = model\n'
    found = {match.found for match in words.matches_in("a.py", source)}
    assert found == {"Of", "fallen", "standing", "so many"}
    assert not list(words.matches_in("a.py", '"""Return a thing."""\nactive = 1\n'))


def test_an_entry_explains_its_own_matches_only():
    entry = words.Allowed("docs/*", "told", "history", "why")
    match = words.Match("docs/a.md", 1, "told", "given", "history told")
    assert entry.explains(match)
    assert not entry.explains(match._replace(file="README.md"))
    assert not entry.explains(match._replace(found="anew"))
    assert not entry.explains(match._replace(text="a story told"))


def test_one_digit_is_a_difference_and_a_rename_is_none(tmp_path):
    for name, text in {"old": '{"a": 0.10000000000000001}', "new": '{"a": 0.1}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(text)
    assert compare_runs.compare("x", tmp_path / "old", tmp_path / "new") == 1
    old = {"part": "test", "threats": ["natural", 1, None]}
    new = {"split": "test", "threats": ["transformed", 1, None]}
    assert not list(compare_runs.differences(old, new))
    assert list(compare_runs.differences(old, json.loads(json.dumps(new).replace("1", "2"))))
    assert list(compare_runs.differences({"a": 1}, {}))


def test_a_missing_file_is_a_difference(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    assert compare_runs.compare("x", tmp_path / "old", tmp_path / "new") == 1
    (tmp_path / "old" / "metrics.jsonl").write_text('{"loss": 0.5}\n')
    assert compare_runs.compare("x", tmp_path / "old", tmp_path / "new") == 1


def test_a_command_is_translated_into_the_present_words():
    assert compare_runs.present(["train", "--twin", "--out", "run"]) == [
        "train", "--baseline", "--output", "run",
    ]  # fmt: skip
    assert compare_runs.present(["evaluate", "run", "--profile", "--limit", "9"]) == [
        "profile", "run", "--limit", "9",
    ]  # fmt: skip


QUICK = {"data": "tiny", "model": "tinycnn(width=2)", "epochs": 1, "compile": "off"}


def test_the_truth_of_a_training_is_measured_beside_its_monitor(tiny):
    values = QUICK | {"perturb": "rot+pgd(0.1, steps=1)", "schedule": ["constant"]}
    found = monitor_runs.tried("ordinary: tiny", values)
    assert found["collapsed"] == found["found"] == []
    missed = {"collapsed": [2], "found": [4], "name": ""}
    assert monitor_runs.is_missed(missed)
    assert not monitor_runs.is_missed(missed | {"found": [3]})


def test_checkpoints_and_the_monitor_take_a_part_of_the_training(tiny):
    save = Saver.save
    found = costs.measured(QUICK | {"perturb": "rot"})
    assert 0 == found["within"] < found["after"] < found["training"]
    assert 0 < found["monitor"] < found["training"]
    assert Saver.save is save


def test_changes_along_a_trade_off_count_the_seeds_of_the_claimed_sign(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from tools import tradeoff_tables

    two_seeds = [[0.5, 0.25], [0.625, 0.125], [0.5, 0.125]]
    assert tradeoff_tables.steps(two_seeds, 1) == "+0.0 (1), -6.2 (0)"
    assert tradeoff_tables.steps(two_seeds, -1) == "+0.0 (1), -6.2 (1)"


def test_a_user_error_is_one_line(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from tools import speedrun_table

    done = CliRunner().invoke(speedrun_table.main, ["."])
    assert done.exit_code == 1
    assert re.fullmatch(r"Error: \S+ is not a run folder: .*\n", done.output)


@pytest.mark.parametrize("name", ["N-FGSM", "ZeroGrad", "LIET", "free"])
def test_fast_methods_count_every_pass_of_an_image(name, tiny, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from tools import fast_methods

    data, _ = curricula.load_data("random(size=28, channels=1, images=300)").with_validation()
    model = curricula.build_model("tinycnn(width=2)", data)
    passes = []

    def count(module, inputs, logits):
        passes.append(len(logits))
        logits.register_hook(lambda gradient: passes.append(len(gradient)))

    model.register_forward_hook(count)
    monkeypatch.setattr(curricula, "build_model", lambda *_: model)
    method, _ = next(made for full, made in fast_methods.METHODS.items() if full.startswith(name))
    trainer = fast_methods.trained(data, method(), epochs=1, seed=0)
    assert trainer.passes == sum(passes) > 0
    assert all(torch.isfinite(each).all() for each in model.parameters())
