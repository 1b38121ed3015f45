"""Figures show what they say they show; the commands that write them refuse what they cannot."""

import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation.test_records import PROFILE
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import curricula
from curricula.cli.main import program
from curricula.cli.preview import command
from curricula.errors import UserError
from curricula.evaluation.results import Evaluation, threat_result
from curricula.interfaces import Progress
from curricula.perturbations.attacks.pgd import PGD
from curricula.perturbations.geometric.affine import Rotation
from curricula.reporting import draw
from curricula.reporting.curves import curve, parse_schedules, schedules_figure
from curricula.reporting.figures import write_figure
from curricula.reporting.previews import largest_change, preview, preview_figure

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


def shown(figure):
    """Return the images of a preview, by row of cells from above, then from the left."""
    rows = {}
    for image in figure.axes[0].images:
        left, _, bottom, _ = image.get_extent()
        rows.setdefault(round(-bottom, 6), []).append((left, image.get_array()))
    return [
        [np.asarray(array) for _, array in sorted(row, key=lambda cell: cell[0])]
        for _, row in sorted(rows.items())
    ]


def headings_and_names(figure):
    """Return the texts above the images of a preview, and those at their left, in order."""
    sheet = figure.axes[0]
    left, _, _, top = sheet.images[0].get_extent()
    texts = [(*text.get_position(), text.get_text()) for text in sheet.texts]
    above = sorted((x, text) for x, y, text in texts if y > top)
    beside = sorted((-y, text) for x, y, text in texts if x < left)
    return [text for _, text in above], [text for _, text in beside]


def caption(figure):
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def assert_no_text_is_cut(figure):
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            assert page.x0 <= box.x0, text
            assert box.x1 <= page.x1, text
            assert page.y0 <= box.y0, text
            assert box.y1 <= page.y1, text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from curricula.plugins import registry

    registry.use(registry.build_registry([TINY]))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return curricula.train(data="tiny", epochs=1, output=folder).run


@pytest.mark.usefixtures("tiny")
def test_a_row_is_one_rotation_that_grows_and_below_it_is_its_change():
    figure = preview("rot:40", data="tiny", strengths=[0, 0.5, 1], images=3, seed=5)
    data = curricula.load_data("tiny")
    labels = data.test.labels.tolist()
    index = sorted(labels.index(label) for label in set(labels))[:3]  # the first of each class
    x = data.images(data.test.pixels[index])
    drawn = torch.rand((3, 1), generator=torch.Generator().manual_seed(5)) * 2 - 1
    rows = shown(figure)
    assert [len(row) for row in rows] == [4, 3] * 3
    for image, (cells, changes) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
        np.testing.assert_array_equal(cells[0], x[image, 0])
        for strength, cell, change in zip([0, 0.5, 1], cells[1:], changes, strict=True):
            turned = Rotation(budget=40).apply(x, drawn * strength * 40)[image, 0]
            np.testing.assert_allclose(cell, turned, atol=2e-5)
            np.testing.assert_array_equal(change, cell - cells[0])
        np.testing.assert_array_equal(cells[1], cells[0])  # strength 0
    headings, names = headings_and_names(figure)
    assert headings == ["original", "strength 0", "strength 0.5", "strength 1"]
    assert names == [data.classes[labels[each]] for each in index]
    assert "rot(40, interpolation=bilinear, padding=zeros)" in caption(figure)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("perturb", "attacked"),
    [("rot:40", False), ("rot:40+pgd(0.1)", True), ("worst(rot:40, k=2)", True), ("clean", False)],
)
def test_a_caption_names_the_network_where_it_is_attacked(perturb, attacked):
    figure = preview(perturb, data="tiny", strengths=[1], images=1)
    assert ("untrained tinycnn" in caption(figure)) == attacked


def test_with_a_run_attacks_are_aimed_at_its_network(tiny, trained):
    figure = preview("pgd(0.1, random_start=false)", run=trained, strengths=[1], images=2)
    data = curricula.load_data("tiny")
    x, y = data.images(data.test.pixels[:2]), data.test.labels[:2]
    attacked = PGD(budget=0.1, steps=2, random_start=False)(  # 2: the data set's training default
        x,
        y,
        strength=1.0,
        victim=curricula.ModelVictim(curricula.load_model(trained)),
        generator=torch.Generator(),
    )
    cells = shown(figure)[::2]
    np.testing.assert_array_equal(np.stack([row[1] for row in cells]), attacked[:, 0])
    assert str(trained.path) in caption(figure)
    assert "untrained" not in caption(figure)


@pytest.mark.usefixtures("tiny")
def test_an_untrained_victim_is_the_same_each_time_and_moves_no_global_state():
    before = torch.random.get_rng_state()
    first, again, other = (
        shown(preview("pgd(0.1)", data="tiny", images=2, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.usefixtures("tiny")
def test_the_seed_of_a_preview_is_0_by_default(tmp_path):
    usual, seeded = (preview("rot", data="tiny", images=1, **seed) for seed in ({}, {"seed": 0}))
    np.testing.assert_array_equal(shown(usual)[1], shown(seeded)[1])
    assert "seed 0." in caption(usual)
    (option,) = (each for each in command.params if each.name == "seed")
    assert option.help.endswith("[default: 0]")


def test_of_several_channels_the_change_is_that_of_the_one_that_moved_most(generator):
    before, after = torch.rand((2, 3, 4, 5), generator=generator), torch.rand((2, 3, 4, 5))
    change = largest_change(before, after)
    for n, h, w in np.ndindex(2, 4, 5):
        each = [float(after[n, c, h, w] - before[n, c, h, w]) for c in range(3)]
        assert float(change[n, h, w]) == max(each, key=abs)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_channels_and_shape(channels, generator):
    x = torch.rand((2, channels, 6, 9), generator=generator)
    perturbed = torch.rand((1, 2, channels, 6, 9), generator=generator)
    figure = preview_figure(
        x, perturbed, headings=["turned\nby 30"], names=["a", "a name of many letters"], title="t",
        caption="c $x_{",
    )  # fmt: skip
    first = shown(figure)[0]
    for cell, image in zip(first, (x[0], perturbed[0, 0]), strict=True):
        expected = image.permute(1, 2, 0) if channels == 3 else image.mean(0)
        np.testing.assert_allclose(cell, expected, rtol=1e-6)
    box = figure.axes[0].images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(9 / 6)
    assert_no_text_is_cut(figure)


def test_a_vector_file_holds_each_image_in_its_own_pixels(tmp_path):
    x = torch.zeros(1, 1, 6, 9)
    figure = preview_figure(x, x[None], headings=["h"], names=["n"], title="t", caption="c")
    write_figure(figure, tmp_path / "f.svg")
    assert (tmp_path / "f.svg").read_text().count("<image ") == 3 + 1  # the colour bar


@pytest.mark.parametrize(
    "strengths", [[1], [0.1, 1 / 3, 2 / 3, 0.9, 1], [i / 20 for i in range(20)]]
)
@pytest.mark.usefixtures("tiny")
def test_no_text_of_a_preview_is_cut(strengths):
    text = "rot:60+trans:3|worst(rot(60, padding=border)+trans:3, k=2)+pgd(0.1, steps=1)"
    assert_no_text_is_cut(preview(text, data="tiny", strengths=strengths, images=1))


SCHEDULES = [
    "linear", "step(0:2/3, 0.62:5/6, 0.74:1)", "step(count=3, until=2/3)", "root(power=3)",
    "sigmoid(until=1)", "constant:0.25", "cosine(start=0.1)", "exponential",
]  # fmt: skip


def test_a_curve_is_the_schedule_at_each_share_of_training():
    figure = schedules_figure(parse_schedules(SCHEDULES))
    (axes,) = figure.axes
    assert len(axes.lines) == len(SCHEDULES)
    for text, line in zip(SCHEDULES, axes.lines, strict=True):
        ((resolved, schedule),) = parse_schedules([text]).items()
        assert line.get_label() == resolved
        share, strength = line.get_data()
        assert (share[0], share[-1]) == (0, 1)
        assert len(share) > 1000
        for step in range(0, len(share) - 1, 7):
            progress = Progress(step=step, total_steps=len(share) - 1, epoch=0, total_epochs=1)
            assert share[step] == progress.fraction
            assert strength[step] == schedule(progress, {})
        assert strength[-1] == strength[-2]
        assert line.get_drawstyle() == "steps-post"
    assert_no_text_is_cut(figure)


def test_steps_rise_at_their_fractions():
    ((name, schedule),) = parse_schedules(["step(0:2/3, 0.62:5/6, 0.74:1)"]).items()
    share, strength = curve(schedule, name)
    rises = share[1:][np.diff(strength) > 0]
    np.testing.assert_allclose(rises, [0.62, 0.74], atol=1e-12)


def test_a_long_legend_is_folded_and_each_curve_looks_its_own():
    stages = ", ".join(f"{i / 40}:{i / 40}" for i in range(40))
    figure = schedules_figure(parse_schedules([f"step({stages})", *SCHEDULES]))
    assert_no_text_is_cut(figure)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(SCHEDULES) + 1


@pytest.mark.usefixtures("tiny")
def test_a_schedule_without_one_curve_says_so():
    ((name, schedule),) = parse_schedules(["earned"]).items()
    with pytest.raises(UserError, match=r"earned\(rate=0.1\) adapts to the training"):
        curve(schedule, name)
    with pytest.raises(UserError, match="each image its own strength"):
        curve(lambda progress, state: torch.zeros(5), "easy-first")
    with pytest.raises(
        UserError, match=r"steep gave a strength of 1\.001; it must lie from 0 to 1"
    ):
        curve(lambda progress, state: 3 * progress.fraction, "steep")


def run(*arguments):
    return CliRunner().invoke(program, ["--plugin", str(TINY), *map(str, arguments)])


@pytest.mark.parametrize("suffix", MAGIC)
def test_both_commands_write_each_format(suffix, tmp_path):
    pictures = [tmp_path / f"preview.{suffix}", tmp_path / f"curves.{suffix.upper()}"]
    done = [
        run("preview", "--perturb", "rot+pgd", "--data", "tiny", "--images", 1, "-o", pictures[0]),
        run("schedule", "linear", "step", "-o", pictures[1]),
    ]
    for result, picture in zip(done, pictures, strict=True):
        assert result.exit_code == 0, result.output
        assert str(picture) in result.output
        assert picture.read_bytes().startswith(MAGIC[suffix])
    assert sorted(tmp_path.iterdir()) == sorted(pictures)


def test_preview_takes_a_run_and_strengths_as_fractions(trained, tmp_path):
    result = run(
        "preview", "--perturb", "fgsm:0.1", "--run", trained.path, "--strengths", "0,1/3, 1",
        "--seed", 7, "-o", tmp_path / "fgsm.svg",
    )  # fmt: skip
    assert result.exit_code == 0, result.output


PREVIEW = ["preview", "--perturb", "rot", "--data", "tiny", "-o"]
BAD_INPUT = [
    ([*PREVIEW, "f.gif"], "output f.gif: its name must end in .png, .svg, .pdf"),
    ([*PREVIEW, "png"], "output png: its name must end in"),
    ([*PREVIEW, "absent/f.png"], "there is no folder absent; make it first"),
    ([*PREVIEW, "file.txt/f.png"], "output file.txt/f.png: file.txt is a file, not a folder"),
    ([*PREVIEW, "file.txt/a/f.png"], "output file.txt/a/f.png: file.txt is a file, not a folder"),
    ([*PREVIEW, "folder.png"], "there is a folder of that name"),
    ([*PREVIEW, f"{'a' * 300}.png"], "cannot be written"),
    ([*PREVIEW, "f.png", "--strengths", "0,1.5"], "strengths must lie from 0 to 1, not 1.5"),
    ([*PREVIEW, "f.png", "--strengths", "-0.1"], "strengths must lie from 0 to 1, not -0.1"),
    ([*PREVIEW, "f.png", "--strengths", "0,,1"], "expected a single value, not ''"),
    ([*PREVIEW, "f.png", "--strengths", "nan"], "expected a number, not 'nan'"),
    ([*PREVIEW, "f.png", "--strengths", ",".join("1" * 21)], "lie from 1 to 20, not 21"),
    ([*PREVIEW, "f.png", "--images", "0"], "0 is not in the range 1<=x<=50"),
    ([*PREVIEW, "f.png", "--images", "51"], "51 is not in the range 1<=x<=50"),
    ([*PREVIEW, "f.png", "--seed", "-1"], "seed must lie from 0 to"),
    ([*PREVIEW, "f.png", "--run", "absent"], "absent is not a run folder"),
    ([*PREVIEW, "f.png", "--perturb", "pgd+rot"], "write rot+pgd"),
    ([*PREVIEW, "f.png", "--data", "mnits"], "unknown dataset 'mnits'"),
    ([*PREVIEW, "f.png", "--data", "mnist", "--data-root", "no"], "mnist is not in 'no'"),
    (["preview", "-o", "f.png"], "Missing option '--perturb'"),
    (["schedule", "-o", "f.png"], "Missing argument 'SCHEDULE...'"),
    (["schedule", "linear"], "Missing option '-o'"),
    (["schedule", "linear", "-o", "f.jpg"], "output f.jpg: its name must end in"),
    (["schedule", "linear", "liner", "-o", "f.png"], "unknown schedule 'liner'"),
    (["schedule", "linear", "earned", "-o", "f.png"], "earned(rate=0.1) adapts to the training"),
    (["schedule", "linear(until=0)", "-o", "f.png"], "until must be above 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=lambda value: str(value)[-40:])
def test_bad_input_is_one_line_and_nothing_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").touch()
    Path("folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("preview", "--perturb", "no such", "--data", "nothing", "-o", "f.gif")
    assert "output f.gif" in result.stderr


def test_a_preview_of_images_in_the_order_of_their_classes_shows_all_classes():
    x, y = torch.rand(9, 1, 12, 12), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    data = curricula.DataSet.from_arrays(
        train=(x, y),
        test=(x, y),
        classes=("cat", "dog", "owl"),
        training_defaults={"model": "lenet"},
    )
    figure = preview("rot", data=data, images=5, strengths=[1])
    assert headings_and_names(figure)[1] == ["cat", "dog", "owl", "cat", "dog"]
    cells = [row[0] for row in shown(figure)[::2]]
    np.testing.assert_allclose(cells, x[[0, 4, 7, 1, 5], 0], atol=0.003)


def test_more_images_than_there_are_and_a_data_set_without_a_model(tiny, monkeypatch):
    from curricula.reporting import previews

    few = curricula.load_data("tiny")
    few = attrs.evolve(few, test=few.test[:4], training_defaults={})
    monkeypatch.setattr(previews, "load_data", lambda *text, **root: few)
    with pytest.raises(UserError, match="tiny has 4 test images, not 5"):
        preview("rot", data="tiny", images=5)
    with pytest.raises(UserError, match="tiny has no default model: name a trained run"):
        preview("rot", data="tiny", images=4)


def test_a_disk_that_fails_while_writing_is_one_line(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    figure = schedules_figure(parse_schedules(["linear"]))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match=r"cannot be written.*No space left"):
        write_figure(figure, tmp_path / "f.png")


def test_a_place_where_one_may_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = run("schedule", "linear", "-o", tmp_path / "f.png")
    assert result.exit_code == 2
    assert "cannot be written; choose another place" in result.stderr


def test_draw_takes_every_result_and_says_what_else_is_wrong(tmp_path):
    run = curricula.train(
        data="random(size=12, channels=1, images=20)",
        model="lenet",
        perturb="rot",
        epochs=1,
        batch_size=9,
        compile="off",
        output=tmp_path / "run",
    ).run
    found = curricula.evaluate(run, threats=["clean"])
    curriculum = curricula.Curriculum.parse("rot:30+pgd:0.1", "cosine")
    expected = {
        "spatial accuracy, %": curricula.compare(run.path),
        "predicted class": found,
        "share of training": curriculum,
        "epoch (kept: 1)": run,
        "within ± degrees (budget 30)": PROFILE,
    }
    for label, subject in expected.items():
        figure = draw(subject)
        assert label in {axes.get_xlabel() for axes in figure.axes}
        png, size = figure._repr_png_()
        assert png.startswith(MAGIC["png"])
        assert size["width"] == round(80 * figure.get_figwidth())
    with pytest.raises(UserError, match="draw takes a run, a curriculum, or what evaluate"):
        draw("runs/first")
    with pytest.raises(UserError, match="clean has no perturbation"):
        draw(curricula.Curriculum.parse("clean"))
    with pytest.raises(UserError, match="there is no frontier to draw"):
        draw(attrs.evolve(curricula.compare(run.path), rows=()))
    (run.path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has no epochs yet"):
        draw(run)


def test_the_schedules_of_a_curriculum_are_named_by_their_perturbation():
    figure = draw(curricula.Curriculum.parse("rot:30+pgd:0.1", ["rot=cosine", "pgd=constant"]))
    (legend,) = figure.legends
    names = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert [name.partition("(")[0] for name in names] == ["rot: cosine", "pgd: constant"]


def test_a_preview_takes_a_curriculum_and_a_data_set():
    data = curricula.load_data("digits")
    text = curricula.Curriculum.parse("rot:30")
    figures = [preview("rot:30", data="digits", images=2), preview(text, data=data, images=2)]
    first, second = (shown(figure) for figure in figures)
    for row, other in zip(first, second, strict=True):
        for image, same in zip(row, other, strict=True):
            np.testing.assert_array_equal(image, same)


def test_figures_leave_pyplot_and_the_display_alone(tmp_path):
    script = (
        "import sys, curricula\n"
        "from curricula.reporting import draw\n"
        "draw(curricula.Curriculum.parse('rot:30'))._repr_png_()\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_confusion_figure_shows_the_shares_of_each_class():
    labels_N = np.array([0, 0, 0, 0, 1, 1])
    predicted_N = np.array([0, 1, 1, 1, 1, 1])
    found = Evaluation(
        results=[threat_result("turned", "rot", predicted_N, clean_N=labels_N, labels_N=labels_N)],
        labels=labels_N,
        predictions={"turned": predicted_N},
        classes=("cat", "a dog", "unseen"),
    )
    figure = draw(found)
    (axes,) = figure.axes
    (image,) = axes.images
    array = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(array, [[25, 75, 0], [0, 100, 0], [np.nan] * 3])
    assert [text.get_text() for text in axes.texts] == ["25", "75", "100"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "a dog", "unseen"]
    assert axes.get_title() == "turned: 50.0 %"
    assert_no_text_is_cut(figure)
