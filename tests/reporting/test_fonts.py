"""Class names in any language are drawn with the installed fonts, or escaped: never as boxes."""

import json

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import curricula
from curricula.evaluation.results import Evaluation, ThreatResult
from curricula.reporting import fonts
from curricula.reporting.confusion import confusion_figure
from curricula.reporting.figures import as_label, plain_text, write_figure
from curricula.reporting.fonts import drawable, use_fonts
from curricula.reporting.point_labels import label_points
from curricula.reporting.previews import preview_figure
from curricula.reporting.report import report
from curricula.training.run import Run

HAN, HONEYBEE = "\u6f22", "\N{HONEYBEE}"


@pytest.fixture
def default_font(monkeypatch):
    """Leave matplotlib's own font alone, whatever is installed."""
    own = fonts._fonts()[:1]
    monkeypatch.setattr(fonts, "_fonts", lambda: own)
    fonts._family_with.cache_clear()
    yield
    fonts._family_with.cache_clear()


def make_font(path, family, letters):
    """Write a font in which each letter is a filled square."""
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 700), (700, 700), (700, 0)):
        (pen.moveTo if point == (0, 0) else pen.lineTo)(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, letters), "square"))
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def han_font(tmp_path, monkeypatch):
    """Install a font that has two letters."""
    path = tmp_path / "han.ttf"
    make_font(path, "Test Han", HAN + HONEYBEE)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(path)
    (added,) = [each for each in font_manager.fontManager.ttflist if each.name == "Test Han"]
    own = fonts._fonts()[:1]
    monkeypatch.setattr(fonts, "_fonts", lambda: [*own, (added.name, frozenset(map(ord, HAN)))])
    fonts._family_with.cache_clear()
    yield
    fonts._family_with.cache_clear()


def drawn(text):
    """Return a picture of a figure with a text, as an array; warnings are errors."""
    with plain_text():
        figure = Figure(figsize=(3, 1))
        figure.text(0.1, 0.5, drawable(text))
        use_fonts(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()), figure.texts[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HAN, r"\u6f22"),
        (f"a{HAN}b", r"a\u6f22b"),
        (HONEYBEE, ":honeybee:"),
        ("\N{REGIONAL INDICATOR SYMBOL LETTER D}", ":regional_indicator_symbol_letter_d:"),
        ("\N{CJK UNIFIED IDEOGRAPH-20000}", r"\U00020000"),
        ("\N{DEVANAGARI LETTER HA}", r"\u0939"),
        ("\N{HANGUL SYLLABLE HAN}", r"\ud55c"),
        ("\N{ARABIC LETTER AIN}", "\N{ARABIC LETTER AIN}"),
        ("Zoë ☃ ё ≠", "Zoë ☃ ё ≠"),
        ("\udcff", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_letters_that_no_font_has_are_escaped(default_font, text, expected):
    picture, shown = drawn(text)
    assert shown.get_text() == drawable(text) == expected
    assert picture.min() < 128


def test_an_installed_font_is_used_for_the_letters_that_it_has(han_font):
    picture, shown = drawn(f"{HAN}{HAN}")
    assert shown.get_text() == f"{HAN}{HAN}"
    assert shown.get_fontfamily()[-1] == "Test Han"
    assert (picture[..., 0] < 10).sum() > 150  # two squares of 10 x 10 pixels, filled
    assert drawable(HONEYBEE) == ":honeybee:"


def test_titles_labels_ticks_and_names_beside_points_use_the_font(han_font, tmp_path):
    @plain_text()
    def draw():
        figure = Figure()
        axes = figure.subplots()
        axes.set(title=as_label(HAN), xlabel=as_label(HAN))
        axes.set_xticks([0, 1], [HAN, "b"])
        axes.plot([0, 1], label=as_label(HAN))
        axes.legend()
        assert label_points(axes, [(0.5, 0.2)], [HAN], bold=[False]) == [True]
        return figure

    before = list(rcParams["font.family"])
    figure = draw()
    write_figure(figure, tmp_path / "figure.svg")  # a letter without a font would be a warning
    named = [text for text in figure.findobj(Text) if text.get_text() == HAN]
    assert len(named) >= 5
    assert rcParams["font.family"] == before


def test_the_installed_fonts_are_read_once_and_never_draw_boxes():
    families = [family for family, _ in fonts._fonts()]
    assert families[0] == ""
    assert not any("Last Resort" in family for family in families)
    for letter in ("a", "é", "ж"):
        assert fonts._family_with(letter) == ""


NAMES = (
    "漢字",
    "عربي",
    "🐝",
    "नमस्ते",
    "👨\u200d👩\u200d👧",
    "می\u200cخواهم",
    "ไทย",
    "한국어",
    "🇩🇪",
    "é",
)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_figure_with_names_of_all_scripts_is_written_without_a_warning(tmp_path, ending):
    figure = preview_figure(
        torch.zeros(len(NAMES), 1, 8, 8), torch.ones(1, len(NAMES), 1, 8, 8),
        headings=["strength 1"], names=NAMES, title=" ".join(NAMES), caption=" ".join(NAMES),
    )  # fmt: skip
    write_figure(figure, tmp_path / f"figure.{ending}")
    assert any("عربي" in text.get_text() for text in figure.findobj(Text))


def trained_page(path, **arguments):
    """Return the page of a short training."""
    run = curricula.train(
        model="tinycnn", perturb="rot:30", epochs=1, batch_size=4, output=path, **arguments
    ).run
    curricula.evaluate(run, limit=20)
    return report(run.path).read_text(encoding="utf-8")


def test_a_training_on_classes_of_all_scripts_ends_with_its_page(tmp_path, tiny):
    photos = tmp_path / "photos"
    for split in ("train", "test"):
        for number, name in enumerate(NAMES):
            (photos / split / name).mkdir(parents=True)
            for image in range(2):
                pixels = np.full((8, 8, 3), 20 * number + image, np.uint8)
                Image.fromarray(pixels).save(photos / split / name / f"{image}.png")
    page = trained_page(tmp_path / "run", data="folder(size=8)", data_root=photos)
    assert page.count("data:image") >= 1
    identity = Run(tmp_path / "run").path.joinpath("data.json").read_text(encoding="utf-8")
    assert set(json.loads(identity)["classes"]) == set(NAMES)


def test_the_classes_of_a_confusion_are_drawn_with_the_installed_font(han_font, tmp_path):
    labels = torch.arange(3).repeat(2)
    found = ThreatResult(name="a", threat="rot", correct=0, fooled=6, n=6)
    evaluation = Evaluation(
        results=[found], labels=labels, predictions={"a": labels.roll(1)}, classes=(HAN, "b", "c")
    )
    figure = confusion_figure(evaluation)
    write_figure(figure, tmp_path / "figure.svg")  # a letter without a font would be a warning
    named = [text for text in figure.findobj(Text) if text.get_text() == HAN]
    assert len(named) >= 2
    assert all("Test Han" in text.get_fontfamily() for text in named)
