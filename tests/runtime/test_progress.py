"""Progress from Python: shown where someone looks at it, or handed to a function."""

import io
import sys
import types

import pytest
from rich.console import Console
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.runtime import progress as module
from curricula.runtime.progress import ProgressBar, in_notebook, is_interactive, reported

TRAINING = {
    "data": "random(size=12, channels=1, images=20)",
    "model": "lenet",
    "perturb": "rot",
    "epochs": 2,
    "batch_size": 9,
    "compile": "off",
}


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a notebook's cell, as a kernel of IPython would show them."""
    shown = []

    class Handle:
        def __init__(self, place):
            self.place = place

        def update(self, bar):
            shown[self.place] = (repr(bar), bar._repr_html_())

    def display(bar, *, display_id):
        assert display_id is True
        shown.append((repr(bar), bar._repr_html_()))
        return Handle(len(shown) - 1)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shown


@pytest.fixture
def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_by_default_where_standard_error_is_a_terminal(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    assert is_interactive() is terminal
    with reported("work", None) as report:
        report(0.5)
    assert ("work" in sys.stderr.getvalue()) is terminal


def test_a_program_without_standard_error_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_interactive()


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not in_notebook()
    ipython.get_ipython = lambda: None
    assert not in_notebook()


def test_false_shows_nothing_in_a_notebook(outputs, model):
    curricula.evaluate(model, "digits", ["clean"], limit=5, progress=False)
    curricula.train(**TRAINING, progress=False, output="quiet")
    assert outputs == []


def test_a_notebook_shows_one_line_for_a_measurement_with_the_final_share(outputs, model):
    curricula.evaluate(model, "digits", ["clean", "rot:30"], limit=5)
    ((text, html),) = outputs
    assert text.startswith("evaluation: 100 %")
    assert '<progress value="1.000" max="1">' in html


def test_a_notebook_shows_a_line_for_a_training_and_one_for_its_evaluation(outputs):
    trained = curricula.train(**TRAINING, output="run")
    training, evaluation = (text for text, _ in outputs)
    last = trained.run.metrics[-1]
    assert training.startswith(f"epoch 2/2, loss {last.loss:.3f}, validation clean ")
    assert f"joint {100 * last.validation['joint']:.1f} %: 100 %" in training
    assert evaluation.startswith("evaluation: 100 %")


def test_a_notebooks_output_is_not_updated_at_every_batch(outputs, monkeypatch):
    monkeypatch.setattr(module, "NOTEBOOK_SECONDS", 1000.0)
    with reported("work", None) as report:
        for step in range(100):
            report(step / 100)
        assert outputs[0][0].startswith("work: 0 %")
    assert outputs[0][0].startswith("work: 99 %")


def test_a_text_from_someone_else_is_escaped(outputs):
    with ProgressBar("<script>") as bar:
        bar.progress(0.5)
    assert "<script>" not in outputs[0][1]


def test_true_prints_lines_without_a_terminal(monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    stream = Stream(False)
    with ProgressBar("[bold]work", Console(file=stream, width=40)) as bar:
        for step in range(1, 101):
            bar.progress(step / 100)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("[bold]work: 10 % after 0 s")
    assert len(lines) == 10


def test_a_function_receives_the_share_of_the_work(model):
    shares = []
    curricula.evaluate(model, "digits", ["clean", "rot:30"], limit=5, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    shares.clear()
    trained = curricula.train(**TRAINING, progress=shares.append, output="reported")
    steps = 2 * (18 // 9)
    assert shares == [step / steps for step in range(1, steps + 1)]
    assert len(trained.results) == 4


def test_progress_changes_nothing_about_a_training(outputs):
    with_bar = curricula.train(**TRAINING, output="with")
    without = curricula.train(**TRAINING, progress=False, output="without")
    assert with_bar.run.metrics == without.run.metrics
    assert with_bar.results == without.results


def test_a_function_that_fails_ends_the_training_in_one_line():
    def fail(share):
        raise RuntimeError("no more")

    with pytest.raises(UserError, match=r"failed in on_step_end .*no more"):
        curricula.train(**TRAINING, progress=fail, output="failed")


@pytest.mark.parametrize("progress", ["yes", 1, 0.5, []])
def test_a_wrong_value_is_one_line(model, progress):
    fix = "progress must be True, False or a function of the share that is done"
    with pytest.raises(UserError, match=fix):
        curricula.evaluate(model, "digits", ["clean"], progress=progress)
    with pytest.raises(UserError, match=fix):
        curricula.train(**TRAINING, progress=progress)
