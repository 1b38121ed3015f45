"""The example notebook, executed as a newcomer would: progress, figures and tables inline.

The attacks take few steps here: this tests that the cells work together, not the accuracies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
PNG = "iVBORw0KGgo"  # how base64 of a PNG file begins
STARTUP = """
import pytest
from fixtures.quick import shorten_attacks

shorten_attacks(pytest.MonkeyPatch())
del pytest, shorten_attacks
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell of code, by its source."""
    for needed in ("nbconvert", "ipykernel", "pandas"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("notebook")
    (folder / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "quick.py").write_text(STARTUP, encoding="utf-8")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK.name,
            "--output", "done.ipynb",
        ],
        cwd=folder,
        env={
            **os.environ,
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": os.pathsep.join(paths),
        },
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = json.loads((folder / "done.ipynb").read_text(encoding="utf-8"))["cells"]
    return {
        "".join(cell["source"]): cell["outputs"] for cell in cells if cell["cell_type"] == "code"
    }


def of(outputs, line):
    """Return the outputs of the cell with the given last line."""
    (found,) = (
        each for source, each in outputs.items() if f"\n{source}".rsplit("\n", 1)[1] == line
    )
    return found


def test_every_cell_shows_something_and_nothing_goes_wrong(outputs):
    for source, found in outputs.items():
        assert found[-1]["output_type"] == "execute_result", source
        for output in found:
            assert output["output_type"] in ("execute_result", "display_data"), (source, output)


@pytest.mark.parametrize(
    "cell",
    [
        'preview("rot:60+pgd:0.1", data="digits", images=2)',
        "draw(curriculum)",
        "draw(trained.run)",
        "draw(found)",
        "draw(profile)",
        "draw(comparison)",
    ],
)
def test_a_figure_is_one_image_inline(outputs, cell):
    result = of(outputs, cell)[-1]
    assert result["data"]["image/png"].startswith(PNG)
    assert 200 < result["metadata"]["image/png"]["width"] < 1000


def test_the_training_shows_a_line_for_each_part_and_its_table(outputs):
    *lines, result = of(outputs, "trained")
    texts = ["".join(line["data"]["text/plain"]) for line in lines]
    assert len(texts) == 4  # the run and its baseline, each trained and evaluated
    assert texts[0].startswith("epoch 4/4, loss ")
    for text, line in zip(texts, lines, strict=True):
        assert ": 100 %" in text
        assert '<progress value="1.000"' in "".join(line["data"]["text/html"])
    assert "baseline" in "".join(result["data"]["text/html"])


def test_the_comparison_is_a_table_and_the_last_cell_a_data_frame(outputs):
    assert "<table>" in "".join(of(outputs, "comparison")[-1]["data"]["text/html"])
    last = [*outputs.values()][-1]
    assert 'class="dataframe"' in "".join(last[-1]["data"]["text/html"])


def test_the_stored_notebook_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
