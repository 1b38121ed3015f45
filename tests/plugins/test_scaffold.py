"""`curricula plugins new`: the written package installs, passes its tests and trains."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from curricula.cli.main import program
from curricula.plugins.names import NAME_PATTERN
from curricula.plugins.scaffold import FILES, MAX_NAME_LENGTH, PLUGIN_NAME

ROOT = Path(__file__).parents[2]
NAMES = ["haze", "soft-haze_2", "x" * MAX_NAME_LENGTH]


def new(*arguments):
    return CliRunner().invoke(program, ["plugins", "new", *map(str, arguments)])


def python(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def paths(*folders):
    """PYTHONPATH with these folders first."""
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", str(ROOT))])


TEST_AND_TRAIN = """
import sys
import pytest
status = pytest.main(["-q", "-W", "error", "-W", "ignore:invalid escape sequence"])
if status:
    sys.exit(status)
from curricula.cli.main import program
program(sys.argv[1:])
"""


def test_the_package_installs_is_listed_passes_its_tests_and_trains(tmp_path):
    name = "soft-haze_2"
    written = new(name, "--output", tmp_path)
    assert written.exit_code == 0, written.output
    folder = tmp_path / f"curricula-{name}"
    site = tmp_path / "site"
    installed = python(
        "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
        "--disable-pip-version-check", "--target", site, folder, cwd=tmp_path,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    listed = python("-m", "curricula", "plugins", cwd=tmp_path, PYTHONPATH=paths(site))
    (line,) = [line for line in listed.stdout.splitlines() if line.split()[:1] == [name]]
    assert "0.1.0" in line
    # One process, for one import of torch.
    both = python(
        "-c", TEST_AND_TRAIN, "--plugin", ROOT / "tests" / "fixtures" / "tiny.py", "train",
        "--data", "tiny", "--perturb", f"{name}+pgd", "--epochs", "1", "--output", "../run",
        cwd=folder, PYTHONPATH=paths(site),
    )  # fmt: skip
    assert both.returncode == 0, both.stdout + both.stderr
    assert " passed" in both.stdout
    assert f"{name}:0.5+pgd" in (tmp_path / "run" / "config.toml").read_text()


def test_the_next_commands_are_printed(tmp_path):
    folder = tmp_path / "curricula-haze"
    assert new("haze", "--output", tmp_path).stdout.splitlines() == [
        f"{folder} is written. Next, where curricula is installed from its clone:",
        f"  pip install -e '{folder}[test]'",
        f"  pytest {folder}",
        "  curricula train --perturb haze+pgd",
    ]


OURS = re.compile(r"curricula(-\w+)*")


@pytest.mark.parametrize("name", ["", "plugins", "new"])
def test_no_distribution_requires_curricula_from_the_package_index(name, tmp_path):
    new("haze", "--output", tmp_path)
    folder = tmp_path if name == "new" else ROOT / name
    files = [ROOT / "pyproject.toml"] if not name else [*folder.glob("*/pyproject.toml")]
    assert files
    for file in files:
        project = tomllib.loads(file.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        required = [*project["dependencies"], *(text for extra in extras for text in extra)]
        assert not [text for text in required if OURS.match(text)], file


def test_no_command_installs_curricula_by_its_name():
    kinds = (".md", ".template", ".py")
    files = [*ROOT.glob("*.md")]
    for folder in ("curricula", "docs", "plugins"):
        files += [file for file in (ROOT / folder).rglob("*") if file.suffix in kinds]
    assert len(files) > 200
    commands = re.compile(r"(?:pip|uv) (?:install|add)((?: +[^\s`\"]+)+)")
    for file in files:
        for words in commands.findall(file.read_text(encoding="utf-8")):
            found = [word for word in words.split(" in ")[0].split() if OURS.match(word.strip("'"))]
            folders = [word for word in found if word.endswith("[test]'")]  # that `new` has written
            assert found == folders, (file, words)


def test_the_default_output_is_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new("haze").exit_code == 0
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        f"curricula-haze/{file}"
        for file in (
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "curricula_haze/__init__.py",
            "curricula_haze/plugin.py",
            "curricula_haze/perturbation.py",
            "tests/test_haze.py",
        )
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_written_files_are_formatted_and_lint_free(name, tmp_path):
    pytest.importorskip("ruff")
    new(name, "--output", tmp_path)
    folder = tmp_path / f"curricula-{name}"
    for command in (["check"], ["format", "--check"]):
        done = python(
            "-m", "ruff", *command, "--no-cache", "--config", ROOT / "pyproject.toml", ".",
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "$" not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Haze", "plugin name 'Haze': write at most 30 lower-case letters and digits"),
        ("2haze", "a letter first"),
        ("haze_", "with - or _ between them"),
        ("haze--bank", "with - or _ between them"),
        ("../haze", "plugin name '../haze'"),
        ("", "plugin name ''"),
        ("x" * 31, "at most 30"),
        ("nébel", "lower-case letters"),
        ("worst", "'worst' is a reserved word: choose another"),
        ("clean", "'clean' is a reserved word"),
        ("none", "'none' is a reserved word"),
        ("pgd", "plugin name 'pgd': curricula 0.1.0 already has a perturbation of that name"),
        (
            "torchattacks-pgd",
            "curricula-torchattacks 0.1.0 already has a perturbation of that name",
        ),
        ("escnn", "the package curricula_escnn is already installed"),
    ],
)
def test_an_invalid_name_is_refused_in_one_line(name, message, tmp_path):
    done = new(name, "--output", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_name_registered_by_a_file_is_refused_naming_the_file(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from curricula import Record, hookimpl\n\n\n@hookimpl\ndef curricula_perturbations():\n"
        "    yield Record(name='haze', factory=dict, summary='')\n"
    )
    done = CliRunner().invoke(program, ["--plugin", str(mine), "plugins", "new", "haze"])
    assert done.exit_code == 2
    assert f"{mine} already has a perturbation of that name" in done.stderr


def test_an_existing_folder_is_left_unchanged(tmp_path):
    kept = tmp_path / "curricula-haze" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    done = new("haze", "--output", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"Error: {kept.parent} already exists: choose another output (--output)\n"
    assert [*kept.parent.iterdir()] == [kept]
    done = new("haze", "--output", kept)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert kept.read_text() == "mine"


def test_an_unknown_subcommand_is_one_line():
    done = CliRunner().invoke(program, ["plugins", "nwe"])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "nwe" in done.stderr


def test_plugins_lists_once_and_new_help_has_an_example():
    listed = CliRunner().invoke(program, ["plugins"])
    assert listed.exit_code == 0
    assert listed.stdout.startswith("perturbations\n")
    shown = CliRunner().invoke(program, ["plugins", "new", "--help"])
    assert "Example: curricula plugins new haze" in shown.output


def test_the_templates_are_in_the_wheel(tmp_path):
    built = python(
        "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    for template in FILES:
        assert f"curricula/plugins/scaffold/template/{template}.template" in held


def test_every_template_is_used():
    there = {
        path.name for path in (ROOT / "curricula" / "plugins" / "scaffold" / "template").iterdir()
    }
    assert there == {f"{template}.template" for template in FILES}


@pytest.mark.parametrize("name", NAMES)
def test_plugin_names_are_valid_in_expressions(name):
    assert re.fullmatch(PLUGIN_NAME, name)
    assert re.fullmatch(NAME_PATTERN, name)
