"""Two plugins with one name: expressions and runs say which one they mean."""

import json
import textwrap

import pytest
from click.testing import CliRunner
from conftest import TINY

import curricula
from curricula.cli.main import program
from curricula.curriculum import Curriculum
from curricula.errors import UserError
from curricula.expressions import bind
from curricula.expressions.checks import check_perturbation
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.plugins.registry import Provider
from curricula.reporting.report import report
from curricula.training.run import ENVIRONMENT, Run

TURN = """
    from curricula import Record, hookimpl
    from curricula.perturbations.geometric.affine import Rotation, Translation

    @hookimpl
    def curricula_perturbations():
        yield Record(name="move", factory={factory}, summary="moves")
        yield Record(name={own!r}, factory={factory}, summary="moves")

    @hookimpl
    def curricula_schedules():
        yield Record(name="half", factory=lambda: lambda progress, state: {half}, summary="half")
"""
SMALL = {"data": "tiny", "model": "tinycnn(width=2)", "epochs": 1}


@pytest.fixture
def files(tmp_path):
    """Write two plugin files that register one perturbation and one schedule; return them."""
    turn, shift = tmp_path / "turn.py", tmp_path / "shift.py"
    turn.write_text(textwrap.dedent(TURN).format(factory="Rotation", own="only", half=0.5))
    shift.write_text(textwrap.dedent(TURN).format(factory="Translation", own="sole", half=0.25))
    return turn, shift


@pytest.fixture
def clash(files):
    """Use a registry with both files and the tiny data set."""
    registry.use(registry.build_registry([TINY, *files]))


def test_labels_and_grids_use_the_name_without_its_provider(clash):
    text = "turn/move:30+shift/move:3+only:5"
    assert check_perturbation(text) == ("move", "move.2", "only")
    curriculum = Curriculum.parse(text, ["move.2=shift/half", "move=turn/half"])
    assert [type(leaf.perturbation).__name__ for leaf in curriculum.tree.leaves.values()] == [
        "Rotation", "Translation", "Rotation",
    ]  # fmt: skip
    assert str(curriculum).startswith("turn/move(30, ")
    assert str(bind(str(curriculum))) == str(curriculum)
    progress = curricula.Progress(step=0, total_steps=1, epoch=0, total_epochs=1)
    assert curriculum.strengths(progress) == {"move": 0.5, "move.2": 0.25, "only": 0.0}
    grid = bind("grid(turn/move:30, move=3)")
    assert str(bind(str(grid))) == str(grid)
    assert "move=3" in str(grid)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"perturb": "only+move:3"}, "perturbation 'move'"),
        ({"perturb": "worst(move:3)"}, "perturbation 'move'"),
        ({"perturb": "only", "schedule": "half"}, "schedule 'half'"),
        ({"augmentation": "move:3"}, "perturbation 'move'"),
    ],
)
def test_a_bare_name_is_one_line_before_any_work(clash, tmp_path, values, names):
    with pytest.raises(
        UserError, match=rf"^{names} is registered by .*turn\.py and by .*shift"
    ) as e:
        curricula.train(**SMALL, **values, output=tmp_path / "run")
    short = names.split("'")[1]
    assert f"write turn/{short} or shift/{short}" in str(e.value)
    assert not (tmp_path / "run").exists()


def test_a_run_states_the_provider_and_is_measured_with_it(clash, files, tmp_path):
    done = curricula.train(
        **SMALL, perturb="shift/move:3", schedule="turn/half", output=tmp_path / "run"
    )
    run = done.run
    assert run.config.perturb.startswith("shift/move(3, ")
    assert run.config.schedule == ("move=turn/half",)
    names = run.environment.names
    assert names["perturbation"]["shift/move"].name == str(files[1])
    assert names["schedule"]["turn/half"].name == str(files[0])
    assert names["dataset"]["tiny"].name == str(TINY)
    assert names["objective"]["at"].name == "curricula"
    assert f"shift/move of {files[1]}, " in report(run.path).read_text()
    (result,) = curricula.evaluate(run, threats=["shift/move:3"], limit=5)
    assert result.threat.startswith("shift/move(3, ")
    registry.use(registry.build_registry([TINY, files[1]]))
    with pytest.raises(UserError, match=r"'turn/half'\): it was trained with .*turn\.py; write"):
        run.check_plugins()


def test_the_list_shows_clashes_and_what_is_left_out(files, monkeypatch):
    plugins = [word for file in files for word in ("--plugin", str(file))]
    listed = CliRunner().invoke(program, [*plugins, "plugins"])
    assert listed.exit_code == 0
    rows = [line.split()[0] for line in listed.output.splitlines() if line.startswith("  ")]
    assert {"turn/move", "shift/move", "only", "sole", "turn/half"} <= set(rows)
    assert "move" not in rows
    last = listed.output.splitlines()[-2:]
    assert last[0].startswith("perturbation 'move' is registered by ")
    assert last[1].startswith("schedule 'half' is registered by ")
    monkeypatch.setenv("CURRICULA_DISABLE", "shift")
    listed = CliRunner().invoke(program, [*plugins, "plugins"])
    assert listed.output.splitlines()[-1] == f"plugin {files[1]} is left out by CURRICULA_DISABLE"
    assert "is registered by" not in listed.output
    monkeypatch.setenv("CURRICULA_DISABLE", "shfit")
    refused = CliRunner().invoke(program, [*plugins, "plugins"])
    assert refused.exit_code == 2
    assert refused.output == (
        "Error: CURRICULA_DISABLE: there is no plugin 'shfit'; did you mean shift?\n"
    )


def distribution(name, version="1.0", perturbation="haze"):
    """Return a plugin with one perturbation, and the distribution that it comes from."""
    from curricula.perturbations.geometric.affine import Rotation

    class Plugin:
        @hookimpl
        def curricula_perturbations(self):
            yield Record(name=perturbation, factory=Rotation, summary="turns")

    return Plugin(), Provider(name=name, version=version, source="distribution")


def use(*plugins):
    built = registry.build_registry([TINY])
    for plugin in plugins:
        built.add(*plugin)
    registry.use(built)
    return built


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run with a perturbation of a distribution."""
    before = registry.current()
    use(distribution("fake-one", "1.5"), distribution("unused", "9", "rain"))
    path = tmp_path_factory.mktemp("trained") / "run"
    curricula.train(
        **SMALL,
        perturb="haze:20",
        output=path,
    )
    registry.use(before)
    return path


def test_a_run_names_the_distribution_that_each_missing_name_came_from(trained):
    use()
    says = (
        rf"^run {trained} needs a plugin that is missing here \(unknown perturbation 'haze'\): it "
        r"was trained with fake-one 1\.5; install it$"
    )
    with pytest.raises(UserError, match=says):
        curricula.evaluate(trained, limit=1)
    with pytest.raises(UserError, match=says):
        curricula.resume(trained)
    curricula.load_model(trained)  # which needs no perturbation


def test_a_run_of_a_plugin_that_is_left_out_or_broken_says_so(trained):
    provider = distribution("fake-one", "1.5")[1]
    use().disabled.append(provider)
    with pytest.raises(
        UserError, match=r"with fake-one 1\.5; it is left out by CURRICULA_DISABLE$"
    ):
        Run.open(trained).check_plugins()
    use().failures.append(registry.Failure(provider=provider, reason="broken"))
    with pytest.raises(UserError, match=r"plugin fake-one 1\.5 failed to load: broken$"):
        Run.open(trained).check_plugins()


def test_a_name_that_another_distribution_provides_here_is_refused(trained):
    use(distribution("fake-two", "2"))
    with pytest.raises(
        UserError,
        match=r"perturbation 'haze' of fake-one 1\.5, which is of fake-two 2 here: install",
    ):
        curricula.evaluate(trained, limit=1)
    use(distribution("fake-one", "1.6"))
    Run.open(trained).check_plugins()
    use(distribution("fake-one", "1.5"), distribution("fake-two", "2"))
    with pytest.raises(UserError, match=r"config\.toml: perturbation 'haze' is registered by fake"):
        Run.open(trained).check_plugins()


def test_a_run_of_an_earlier_version_names_all_that_is_missing(trained, tmp_path):
    import shutil

    run = Run.open(shutil.copytree(trained, tmp_path / "old"))
    stored = json.loads((run.path / ENVIRONMENT).read_text())
    del stored["names"]
    (run.path / ENVIRONMENT).write_text(json.dumps(stored))
    use()
    with pytest.raises(UserError, match=r"was trained with fake-one 1\.5, unused 9; install it$"):
        run.check_plugins()
    use(distribution("fake-two", "2"))
    run.check_plugins()
