"""The commands of the tutorial work, in their order, in an empty folder. Each training takes one
epoch here, on fewer images: this tests that the commands work together, not the accuracies on the
page."""

import re
import shlex
from pathlib import Path

from click.testing import CliRunner
from fixtures.few_digits import few_digits

from curricula.cli.main import program
from curricula.data import digits
from curricula.plugins import registry

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
COMMAND = re.compile(r"^\$ curricula (.*)$", re.MULTILINE)
PLUGIN = re.compile(r"^Write this into `(\w+\.py)`:\n\n```python\n(.*?)^```", re.M | re.S)


def test_the_commands_of_the_tutorial_work_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "digits", few_digits)
    page = PAGE.read_text(encoding="utf-8")
    for name, source in PLUGIN.findall(page):
        Path(name).write_text(source, encoding="utf-8")
    commands = COMMAND.findall(page.replace("\\\n", ""))  # as a shell joins lines
    shortened = [re.sub(r"--epochs \d+", "--epochs 1", command) for command in commands]
    assert shortened != commands
    before = registry.current()
    try:
        for command in shortened:
            done = CliRunner().invoke(program, shlex.split(command))
            assert done.exit_code == 0, f"{command}\n{done.output}"
    finally:
        registry.use(before)
    pictures = re.findall(r"\]\(tutorial/(\w+\.png)\)", page)
    drawn = {path.name for path in tmp_path.rglob("*.png")}
    assert len(commands) >= 10
    assert drawn.issuperset(pictures)
