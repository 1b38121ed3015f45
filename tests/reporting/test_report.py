"""The page of a run or a sweep: self-contained, and right in a browser."""

import html
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.test_cli import TINY, run
from fixtures.quick import leave_figures_blank, shorten_audits
from matplotlib.text import Text

import curricula
import curricula.reporting.report as page
from curricula.evaluation.results import Evaluation, in_percent, threat_result
from curricula.models import Randomised
from curricula.plugins import registry
from curricula.reporting.confusion import confusion_figure
from curricula.reporting.figures import PIXELS_PER_INCH
from curricula.reporting.page import Section
from curricula.reporting.report import report, report_results
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep
from curricula.training.predictions import read_evaluation
from curricula.training.run import Run

MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SWEEP = """
[base]
data = "tiny"
epochs = 1
perturb = "rot+pgd"
compile = "off"

[axes]
seed = [0, 1]
lr = [0.01, 1e30]

[evaluation]
limit = 20
"""


class Page(HTMLParser):
    """Collect the tags of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    registry.use(registry.build_registry([TINY]))
    folder = tmp_path_factory.mktemp("reports")
    curricula.train(data="tiny", perturb="rot+pgd", compile="off", output=folder / "run")
    run_sweep(parse_sweep(SWEEP), folder / "sweep")
    return folder


@pytest.fixture(scope="module")
def reported(folder):
    """Return a copy of the run with its report, under an odd name; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    copy = Path(shutil.copytree(folder / "run", folder / "<b>odd & <script>; of $mine"))
    report(copy)
    return copy


@pytest.fixture(scope="module")
def measured(folder):
    """Return a reported copy of the run with all results, and its audit; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    copy = Path(shutil.copytree(folder / "run", folder / "measured"))
    curricula.robustness_profile(copy, limit=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_audits(monkeypatch)
        found = curricula.audit(copy, limit=10)
    report(copy)
    return copy, found


@pytest.fixture(scope="module")
def both(folder):
    """Return a run of one epoch and its baseline; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    settings = {"data": "tiny", "perturb": "rot", "epochs": 1, "compile": "off"}
    return curricula.train(**settings, baseline=True, output=folder / "both")


@pytest.fixture
def blank_figures(monkeypatch):
    """For tests that look at the rest of a page."""
    leave_figures_blank(monkeypatch)


@pytest.fixture
def trained(tiny, folder, tmp_path, blank_figures):
    """Return a copy of a run, to write into."""
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_page_is_self_contained_and_every_image_has_a_text(reported):
    page = Page(reported / "report.html")
    assert len(page.of("img")) == 4  # training, confusion, example images, fooled images
    for image in page.of("img"):
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 30
    links = [a.get("src", a.get("href", "")) for _, a in page.tags]
    assert not [link for link in links if link and not link.startswith("data:")]
    assert not page.of("script")
    assert "url(" not in (reported / "report.html").read_text()


def test_every_figure_is_saved_as_png_and_svg(reported):
    files = sorted((reported / "figures").iterdir())
    assert {file.stem for file in files} == {"training", "confusion", "shown", "fooled"}
    assert len(files) == 8
    for file in files:
        assert file.read_bytes().startswith(MAGIC[file.suffix])


def command(*arguments):
    """Return a command as the page writes it."""
    return shlex.join(["curricula", "--plugin", str(TINY), *map(str, arguments)])


def test_a_page_shows_the_results_and_names_the_commands_for_the_rest(reported):
    page = Page(reported / "report.html")
    for result in json.loads((reported / "evaluation.json").read_text()):
        assert result["threat"] in page.text
        assert f"{100 * result['accuracy']:.1f}" in page.text
    config = Run.open(reported).config
    assert config.perturb in page.text
    assert config.lr_schedule in page.text
    assert torch.__version__ in page.text
    for verb in ("profile", "audit"):
        assert command(verb, reported) in page.text


def test_a_page_shows_the_profile_and_the_audit(measured):
    folder, found = measured
    page = Page(folder / "report.html")
    for verb in ("profile", "audit"):
        assert command(verb, folder) not in page.text
    assert len(page.of("img")) == 6
    assert (folder / "figures" / "joint.svg").exists()
    for check in found.checks:
        assert check.finding in page.text
    for meaning in ("robust to the rotation and to the attack", "mean of the rotation"):
        assert meaning in page.text  # of the union and of the average
    assert page.text.count("FAILED") == sum(not check.passed for check in found.checks)


def test_a_page_shows_the_classes_that_suffer_and_what_they_are_taken_for(reported):
    page = Page(reported / "report.html")
    found = read_evaluation(Run(reported), "test")
    lowest = min(found.per_class("joint"), key=lambda each: (each.accuracy, each.label))
    cells = [in_percent(lowest.accuracy, lowest.interval)]
    assert f"{lowest.name}{lowest.n}" in page.text.replace("\n", "")
    assert all(cell in page.text for cell in cells)
    counts_KK = found.confusion("joint") * (1 - np.eye(10, dtype=int))
    true, taken = divmod(int(counts_KK.argmax()), 10)
    counts = [found.confusion(name)[true, taken] for name in found.predictions]
    assert f"{true}{taken}{''.join(map(str, counts))}" in page.text
    (image,) = (each for each in page.of("img") if "taken for" in each["alt"])
    assert f"{true} as {taken} ({counts[-1]})" in image["alt"]


def test_a_page_without_stored_predictions_goes_without_the_classes(trained):
    (trained / "predictions.safetensors").unlink()
    page = Page(report(trained))
    assert "Classes" not in page.text
    assert "Confusions" not in page.text


def test_of_a_thousand_classes_a_page_shows_the_worst_and_says_so(tmp_path):
    labels_N = np.arange(3000) % 1000
    wrong_N = np.where(labels_N % 100 == 7, (labels_N + 1) % 1000, labels_N)
    predictions = {"clean": labels_N, "turned": wrong_N}
    found = Evaluation(
        results=[
            threat_result(name, name, of_N, clean_N=labels_N, labels_N=labels_N)
            for name, of_N in predictions.items()
        ],
        labels=labels_N,
        predictions=predictions,
        classes=tuple(f"<{label}>" for label in range(1000)),
    )
    report_results(tmp_path / "page.html", found, model="m", data="d")
    page = Page(tmp_path / "page.html")
    assert "The 15 of 1,000 classes with the lowest accuracy." in page.text
    for label in range(7, 1000, 100):
        assert f"<{label}>30.0 (0.0" not in page.text
        assert f"<{label}>3100.0 (43.9 to 100.0)0.0 (0.0 to 56.1)" in page.text
        assert f"<{label}><{label + 1}>03" in page.text
    figure = confusion_figure(found)
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {"<7>", "<8>", "(other)"} <= texts
    assert any("12 of 1,000 classes" in text for text in texts)


def test_the_page_of_a_random_network_shows_single_draws_and_their_mean(tiny, tmp_path):
    model = Randomised(
        curricula.build_model("tinycnn", curricula.load_data("tiny")), "gaussian:0.5"
    )
    page = tmp_path / "page.html"
    (found,) = curricula.evaluate(model, "tiny", ["clean"], draws=5, limit=20, report=page)
    text = Page(page).text
    for accuracy in (found.accuracy, found.draws.accuracy, found.draws.mean_accuracy):
        assert f"{100 * accuracy:.1f} (" in text
    assert "the majority of 5 draws" in text
    curricula.evaluate(model.network, "tiny", ["clean"], limit=20, report=tmp_path / "plain.html")
    assert "draw" not in Page(tmp_path / "plain.html").text


def test_a_plain_run_shows_no_curriculum(tiny, both, blank_figures):
    plain = both.baseline.run.path
    page = Page(report(plain))
    assert not (plain / "figures" / "shown.png").exists()
    assert "strengths: none" in " ".join(image["alt"] for image in page.of("img"))


def test_a_baseline_is_shown_beside_its_run(tiny, both, blank_figures):
    page = Page(report(both.run.path))
    assert "baseline" in page.text
    low, high = both.baseline.results[1].interval
    spatial = f"{100 * both.baseline.results[1].accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert spatial in page.text


def test_a_run_whose_data_is_missing_says_how_to_name_it(trained, tmp_path):
    config = (trained / "config.toml").read_text()
    moved = re.sub(r"^data = .*$", 'data = "mnist"', config, flags=re.MULTILINE)
    (trained / "config.toml").write_text(moved)
    page = Page(report(trained))
    assert "mnist is not in" in page.text
    assert f"curricula --plugin {TINY} report {trained} --data-root DIR" in page.text
    assert len(page.of("img")) == 2  # training, confusion


def test_a_run_that_was_cut_off_or_damaged_says_so(trained):
    (trained / "evaluation.json").unlink()
    (trained / "best.safetensors").write_bytes(b"{")
    page = Page(report(trained))
    assert "The training did not finish" in page.text
    assert f"curricula --plugin {TINY} evaluate {trained}" in page.text
    assert f"checkpoint {trained / 'best.safetensors'}: damaged" in page.text
    assert "--data-root" not in page.text


def test_names_are_text_and_not_tags(reported):
    page = Page(reported / "report.html")
    assert not page.of("b")
    assert not page.of("script")
    assert f"Run {reported.name}" in page.text


def test_the_page_of_a_sweep_has_the_table_the_frontier_and_what_failed(tiny, folder):
    page = Page(report(folder / "sweep"))
    compared = curricula.compare([folder / "sweep"])
    assert f"{100 * compared.rows[0].mean('joint'):.1f}" in page.text
    assert f"{compared.hypervolume:.4f}" in page.text
    for name, threat in compared.threats.items():
        assert f"{name}{threat}" in page.text  # two cells of a line
    assert "on test images" in page.text
    assert page.text.count("lr=1e+30 failed: the loss is no longer finite") == 2
    assert {file.stem for file in (folder / "sweep" / "figures").iterdir()} == {
        "frontier", "learning",
    }  # fmt: skip
    assert "tiny" in page.text


def test_a_sweep_that_has_run_nothing_has_a_page(folder, tmp_path):
    (tmp_path / "sweep.toml").write_bytes((folder / "sweep" / "sweep.toml").read_bytes())
    assert "cells have not been run yet" in Page(report(tmp_path)).text


def test_train_sweep_and_report_write_it(folder, tmp_path, monkeypatch, blank_figures):
    monkeypatch.chdir(tmp_path)
    done = run("train", "--data", "tiny", "--epochs", "1", "--compile", "off", "--output", "mine")
    assert done.exit_code == 0, done.output
    assert f"report: {Path('mine/report.html')}" in done.output
    Path("mine/report.html").unlink()
    assert run("report", "mine").output == f"report: {Path('mine/report.html')}\n"
    assert Path("mine/report.html").exists()
    Path("few.toml").write_text('[base]\ndata = "tiny"\nepochs = 1\n[axes]\nseed = [0]\n')
    done = run("sweep", "few.toml")
    assert done.exit_code == 0, done.output
    assert Path("runs/few/report.html").exists()


def test_a_page_says_that_measurements_are_of_weights_that_the_run_no_longer_has(
    measured, trained, monkeypatch
):
    monkeypatch.setattr(page, "_example_images", lambda *_: Section(title="Images"))
    for file in ("profile.json", "audit.json"):
        shutil.copy(measured[0] / file, trained)
    curricula.certify(trained, limit=1, draws=10, n0=2, checkpoint="last")
    found = Run(trained)

    def commands(file, verb):
        section = page._of_weights(found, file, verb, Section(title=verb))
        assert section.text == (" Weights: the last checkpoint." if verb == "certify" else "")
        return [shlex.split(line)[3:] for lines in section.missing.values() for line in lines]

    def change(file):
        tensors, texts = found.load(file)
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        found.save(file, {**tensors, name: tensors[name] + 1}, texts)

    for file, verb, checkpoint, more in (
        ("profile.json", "profile", "best", []),
        ("audit.json", "audit", "best", []),
        ("certificates.json", "certify", "last", ["--checkpoint", "last"]),
    ):
        weights = f"{checkpoint}.safetensors"
        kept = (trained / weights).read_bytes()
        assert commands(file, verb) == []
        change(weights)
        assert commands(file, verb) == [[verb, str(trained), *more]]
        (trained / weights).unlink()  # it may be on another machine
        assert commands(file, verb) == []
        (trained / weights).write_bytes(kept)
    change("best.safetensors")
    notes = [note for section in page._of_run(found, None) for note in section.missing]
    assert notes.count(page.CHANGED_WEIGHTS) == 2  # profile and audit


def test_bad_input_to_report_is_one_line(trained, tmp_path):
    (trained / "metrics.jsonl").write_text("{\n")
    (tmp_path / "empty").mkdir()
    for folder, message in [
        (tmp_path / "absent", "is not a run folder"),
        (tmp_path / "empty", "is not a run folder"),
        (trained, "metrics.jsonl: cannot be read"),
    ]:
        result = run("report", folder)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("evaluation.json", '[{"name": "clean", "threat": "clean", "n": "ten"}]'),
        ("evaluation.json", '[{"name":"a","threat":"a","correct":0,"fooled":0,"n":0}]'),
        ("metrics.jsonl", '{"epoch": 1}'),
        ("profile.json", "{}"),
        ("audit.json", '{"checks": [{}]}'),
    ],
)
def test_a_file_of_another_shape_is_named(trained, file, text):
    (trained / file).write_text(text)
    result = run("report", trained)
    assert result.exit_code == 2, result.output
    assert f"{trained / file}: not of the shape that curricula writes" in result.stderr
    assert result.stderr.count("\n") == 1


LOOK = """<!doctype html><title>wait</title>
{frames}
<script>
addEventListener("load", () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const inside = frame.contentDocument, root = inside.documentElement;
    const images = [...inside.images];
    return {{
      scrolls: root.scrollWidth > root.clientWidth,
      width: root.clientWidth,
      missing: images.filter(image => !image.complete || !image.naturalWidth).length,
      images: images.length,
      wide: [...inside.querySelectorAll("figure > *")]
        .filter(part => part.getBoundingClientRect().right > root.clientWidth).length,
      tables: [...inside.querySelectorAll(".scroll:has(table)")]
        .filter(box => box.scrollWidth > box.clientWidth).length,
      inches: images.map(image => image.getBoundingClientRect().width / image.naturalWidth
        * (image.src.startsWith("data:image/svg") ? 96 : {dpi})),
      cut: [...inside.querySelectorAll("th, td")]
        .filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent),
    }};
  }}));
}});
</script>"""
FRAME = '<iframe srcdoc="{page}" style="border: 0; height: 900px; width: {width}px"></iframe>'
LOOKS = [(which, width) for which in ("run", "sweep") for width in (390, 1200)]


@pytest.fixture(scope="module")
def looks(folder, measured):
    """Return what a browser finds in the page of a run and of a sweep at each width, and its log;
    one browser shows them all."""
    registry.use(registry.build_registry([TINY]))
    pages = {
        which: html.escape(path.read_text(encoding="utf-8"))
        for which, path in (
            ("run", measured[0] / "report.html"), ("sweep", report(folder / "sweep")),
        )
    }  # fmt: skip
    frames = [FRAME.format(page=pages[which], width=width) for which, width in LOOKS]
    look = folder / "look.html"
    look.write_text(LOOK.format(frames="\n".join(frames), dpi=PIXELS_PER_INCH), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--window-size=1400,1000",
            "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", look.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    found = json.loads(html.unescape(title[1]))
    return dict(zip(LOOKS, found, strict=True)), done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
@pytest.mark.parametrize(("which", "width"), LOOKS)
def test_in_a_browser_nothing_is_missing_and_nothing_scrolls_sideways(looks, which, width):
    found = looks[0][which, width]
    assert found["width"] == width
    assert found["images"] == {"run": 6, "sweep": 2}[which]
    assert (found["missing"], found["wide"], found["scrolls"]) == (0, 0, False)
    assert found["cut"] == []
    assert found["tables"] == 0
    assert all(inch * 9 / 72 >= 10 for inch in found["inches"])  # letters of 9 points, in pixels
    assert "CONSOLE" not in looks[1]


def test_a_command_of_the_page_can_be_typed_whatever_the_folder_is_called(reported):
    page = Page(reported / "report.html")
    (command,) = re.findall(r"curricula --plugin .*? train --config .*?/config.toml'", page.text)
    assert shlex.split(command) == [
        "curricula", "--plugin", str(TINY), "train", "--config", str(reported / "config.toml"),
    ]  # fmt: skip
