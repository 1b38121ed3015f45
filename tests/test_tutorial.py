"""The commands of the tutorial work, in their order, in an empty folder."""

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from curricula.cli.main import program
from curricula.plugins import registry

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
COMMAND = re.compile(r"^\$ curricula (.*)$", re.MULTILINE)
PLUGIN = re.compile(r"^Write this into `(\w+\.py)`:\n\n```python\n(.*?)^```", re.M | re.S)


def test_the_commands_of_the_tutorial_work_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    for name, source in PLUGIN.findall(page):
        Path(name).write_text(source, encoding="utf-8")
    commands = COMMAND.findall(page)
    before = registry.current()
    try:
        for command in commands:
            done = CliRunner().invoke(program, shlex.split(command))
            assert done.exit_code == 0, f"{command}\n{done.output}"
    finally:
        registry.use(before)
    pictures = re.findall(r"\]\(tutorial/(\w+\.png)\)", page)
    drawn = {path.name for path in tmp_path.rglob("*.png")}
    assert len(commands) >= 10
    assert drawn.issuperset(pictures)
