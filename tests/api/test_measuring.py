"""Measure any model on any data: what comes in, and what stays unchanged."""

import json

import attrs
import pytest
import torch
from torch import nn

import curricula
from curricula.data import DataSet, Split
from curricula.errors import UserError
from curricula.models import Normalise
from curricula.training.config import MeasuredConfig
from curricula.training.run import Run

THREATS = ["clean", "rot:30", "pgd(0.1, steps=2)"]


def images(n=30, channels=1, seed=0):
    draws = torch.Generator().manual_seed(seed)
    x_NCHW = torch.randint(0, 256, (n, channels, 12, 12), generator=draws, dtype=torch.uint8)
    return x_NCHW, torch.randint(0, 3, (n,), generator=draws)


def network(outputs=3, channels=1, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(400, outputs),
        )  # fmt: skip


def as_data(pixels, labels, classes=("0", "1", "2")):
    split = Split(pixels=pixels, labels=labels)
    return DataSet(
        name="made", train=split, test=split, classes=classes, image_size=12,
        budgets={"degrees": "30", "pixels": "2", "linf": "0.1"},
        attack_defaults={}, training_defaults={},
    )  # fmt: skip


def counts(results):
    return [(result.correct, result.fooled, result.n) for result in results]


@pytest.mark.parametrize("training", [True, False])
def test_a_measured_model_keeps_its_mode_weights_buffers_and_gradients(training):
    model, data = network().train(training), as_data(*images())
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(each.training, type(each)) for each in model.modules()]
    state = torch.get_rng_state()
    for normalise in (None, "0.5/0.25"):
        curricula.evaluate(model, data, THREATS, normalise=normalise)
    assert [(each.training, type(each)) for each in model.modules()] == flags
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight))
    assert model[0].weight.grad is None
    assert not model[0].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stated_normalisation_is_that_of_a_layer_in_front():
    pixels, labels = images(channels=3)
    model, data = network(channels=3), as_data(pixels, labels)
    inside = nn.Sequential(Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), model)
    expected = counts(curricula.evaluate(inside, data, THREATS))
    assert counts(curricula.evaluate(model, data, THREATS, normalise="imagenet")) == expected
    assert counts(curricula.evaluate(model, data, THREATS)) != expected
    other = nn.Sequential(Normalise(), model)
    assert counts(curricula.evaluate(other, data, THREATS, normalise="imagenet")) == expected
    assert isinstance(other[0], Normalise)
    assert other[0].mean.item() == 0.5
    with pytest.raises(UserError, match=r"mnist has 1 .* these images have 3"):
        curricula.evaluate(model, data, THREATS, normalise="mnist")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    curricula.train(
        data="random(size=12, channels=1, images=20)", model="lenet", perturb="rot:30", epochs=1,
        batch_size=9, compile="off", output=path,
    )  # fmt: skip
    return path


def test_a_run_is_measured_on_other_data_of_equal_classes(trained):
    pixels, labels = images()
    classes = curricula.load_data("random(size=12, channels=1, images=20)").classes
    data = as_data(pixels, labels, classes)
    found = curricula.evaluate(trained, data, THREATS)
    assert counts(found) == counts(curricula.evaluate(curricula.load_model(trained), data, THREATS))
    profile = curricula.robustness_profile(trained, data, limit=2)
    assert profile.n == 2
    assert not (trained / "profile.json").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classes": ("cat", "dog", "cow")}, r"classes of made are 3 \(cat, dog, cow\); those of"),
        ({"image_size": 14}, r"made are of 1x14x14 .* takes 1x12x12"),
        ({"image_size": (12, 13)}, r"made are of 1x12x13 .* takes 1x12x12"),
        ({"channels": 3}, r"made are of 3x12x12"),
    ],
)
def test_data_that_do_not_fit_a_run_are_one_line(trained, change, match):
    spec = curricula.load_data("random(size=12, channels=1, images=20)")
    data = as_data(*images(channels=change.pop("channels", 1)), spec.classes)
    with pytest.raises(UserError, match=match):
        curricula.evaluate(trained, attrs.evolve(data, **change), ["clean"])


def test_other_class_names_are_one_line(trained):
    run = Run(trained)
    identity = json.loads((trained / "data.json").read_text())
    names = identity["classes"]
    data = as_data(*images(), ("z", *names[1:]))
    with pytest.raises(UserError, match="name and order them alike"):
        curricula.evaluate(run, data, ["clean"])


def test_the_page_of_a_measured_model_is_one_file(tmp_path):
    page = tmp_path / "page.html"
    curricula.evaluate(network(), as_data(*images()), THREATS, report=page)
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    text = page.read_text()
    assert "Model Sequential" in text
    assert "pgd(0.1" in text
    with pytest.raises(UserError, match=r"output .*nowhere.*there is no folder"):
        curricula.evaluate(
            network(), as_data(*images()), ["clean"], report=tmp_path / "nowhere" / "page.html"
        )


def test_a_kept_model_is_measured_again_by_handing_it_over(tmp_path):
    model, data = network().eval(), as_data(*images())
    found = curricula.evaluate(model, data, THREATS, normalise="0.5/0.25", output=tmp_path / "kept")
    run = Run.open(tmp_path / "kept")
    config = run.model_config
    assert isinstance(config, MeasuredConfig)
    assert (config.data, config.model, config.normalise) == (
        "given(DataSet)", "given(Sequential)", "0.5/0.25",
    )  # fmt: skip
    assert counts(run.results("test")) == counts(found)
    again = curricula.load_model(run, model=network(seed=1))
    x_NCHW = torch.rand(4, 1, 12, 12)
    torch.testing.assert_close(again(x_NCHW), model((x_NCHW - 0.5) / 0.25))
    assert counts(curricula.evaluate(again, data, THREATS)) == counts(found)
    with pytest.raises(UserError, match="measured, not trained"):
        _ = run.config
    with pytest.raises(UserError, match="already holds a run"):
        curricula.evaluate(model, data, ["clean"], output=tmp_path / "kept")
    with pytest.raises(UserError, match="has one set of weights: leave out checkpoint"):
        curricula.load_model(run, checkpoint="last", model=network())


def test_the_same_images_in_any_form_give_the_same_counts():
    pixels, labels = images(channels=3)
    model = network(channels=3)
    x_NCHW = pixels.float() / 255
    expected = counts(curricula.evaluate(model, as_data(pixels, labels), THREATS))
    permuted = torch.utils.data.TensorDataset(x_NCHW, labels)
    forms = {
        "uint8": (pixels, labels),
        "float": (x_NCHW, labels),
        "NHWC": (x_NCHW.permute(0, 2, 3, 1), labels),
        "array": (pixels.permute(0, 2, 3, 1).numpy(), labels.numpy()),
        "list": (x_NCHW.tolist(), labels.tolist()),
        "int32 labels": (pixels, labels.int()[:, None]),
        "torch": permuted,
        "loader": torch.utils.data.DataLoader(permuted, batch_size=7),
    }
    for name, data in forms.items():
        # As fractions the images differ from uint8 / 255 by rounding alone.
        assert counts(curricula.evaluate(model, data, THREATS)) == expected, name
    found = curricula.evaluate(model, (x_NCHW.permute(0, 2, 3, 1), labels), THREATS, layout="NHWC")
    assert counts(found) == expected
    with pytest.raises(UserError, match="layout is for arrays: digits states its own"):
        curricula.evaluate(model, "digits", THREATS, layout="NHWC")


def test_data_without_class_names_have_a_class_for_each_output():
    pixels, labels = images()
    found = curricula.evaluate(network(outputs=7), (pixels, labels), ["clean"])
    assert found.classes == tuple("0123456")
    for more, fix in ((0, "give its last layer one for each"), (1, "number them from 0")):
        outputs = 2 + more
        model = network(outputs=outputs)
        with pytest.raises(UserError, match=rf"model has {outputs} outputs, .* {outputs}; {fix}"):
            curricula.evaluate(model, (pixels, labels + more), ["clean"])


def test_images_without_class_names_have_those_of_the_run(trained):
    pixels, labels = images()
    found = curricula.evaluate(trained, (pixels, labels), THREATS)
    run_classes = curricula.load_data("random(size=12, channels=1, images=20)").classes
    assert found.classes == run_classes
    with pytest.raises(UserError, match=r"classes of .* are 12"):
        curricula.evaluate(trained, (pixels, torch.arange(30) % 12), ["clean"])


def test_the_caller_keeps_the_images_as_they_were():
    pixels, labels = images()
    x_NCHW = (pixels.float() / 255).requires_grad_(False)
    before = x_NCHW.clone()
    curricula.evaluate(network(), (x_NCHW, labels), THREATS)
    assert torch.equal(x_NCHW, before)
