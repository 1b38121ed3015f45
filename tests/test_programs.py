"""Check that what a newcomer wants takes ten lines or fewer. Other tests run these programs and
check what they print, beside other libraries and on what the user has."""

from pathlib import Path

import pytest
from fixtures.programs import PROGRAMS, lines

MAX_LINES = 10
NAMES = sorted(path.name for path in PROGRAMS.iterdir() if path.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_a_program_has_at_most_ten_lines_and_a_test_runs_it(name):
    assert 1 <= len(lines(name)) <= MAX_LINES
    tests = Path(__file__).parent.rglob("test_*.py")
    assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in tests)


def test_every_task_has_its_program():
    assert NAMES == [
        "beside_autoattack.py", "beside_foolbox.py", "copied_run.py", "fine_tuning.sh",
        "medmnist.py", "own_weights.sh", "photos.sh",
    ]  # fmt: skip
