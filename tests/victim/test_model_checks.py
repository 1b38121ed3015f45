"""A model that does not classify images in [0, 1] is refused before training, with a reason."""

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import curricula
from curricula.cli.main import program
from curricula.errors import UserError
from curricula.models.small import stdcnn
from curricula.plugins import registry
from curricula.testing.fixtures import assert_unchanged, make_fixture, state_of
from curricula.victim.model_checks import check_classifier
from curricula.victim.model_victim import ModelVictim

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, NO_CLASSIFIERS = FIXTURES / "tiny.py", FIXTURES / "no_classifiers.py"

REASONS = {
    "softmax": r"in eval mode returns probabilities .* leave out its last softmax",
    "sigmoid": r"in eval mode returns probabilities .* leave out its last softmax or sigmoid",
    "greedy": r"writes to its images",
    "lazy": r"has a weight without a shape \(1.weight\)",
    "broken-equivalent": r"cannot be differentiated in its images \(AttributeError: no such thing",
    "rounded": r"has no gradient in its images",
    "detached": r"has no gradient in its images",
    "in-numpy": r"cannot be differentiated in its images \(RuntimeError: Can't call numpy",
    "tuple": r"in eval mode returns a tuple, not a tensor",
    "nan": r"in eval mode returns logits that are not finite",
    "labels": r"in eval mode returns values of type torch.int64, not floating logits",
    "map": r"an output of shape \(20, 10, 1, 1\) for 20 images of 10 classes; it must be \(20, 10",
    "cornered": r"has a gradient in its images that is not finite",
    "too-few-classes": r"an output of shape \(20, 9\) for 20 images of 10 classes",
    "another-size": r"cannot take images of 1x28x28 in eval mode \(RuntimeError: .*mat1 and mat2",
    "two-when-training": r"in training mode returns a tuple, not a tensor",
    "no-module": r"is a function; its factory must return a torch.nn.Module",
    "locked": r"cannot be copied, which training needs \(TypeError: cannot pickle",
}


@pytest.fixture
def no_classifiers():
    registry.use(registry.build_registry([TINY, NO_CLASSIFIERS]))


@pytest.mark.parametrize("name", REASONS)
def test_training_refuses_it_in_one_line_and_writes_nothing(no_classifiers, name, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=f"^model {name} .*{REASONS[name]}") as caught:
        curricula.train(data="tiny", model=name, perturb="pgd", output=out)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)  # and the fix
    assert not out.exists()


def test_a_narrow_network_with_fresh_statistics_is_a_classifier():
    x = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    no_gradient = 0
    for seed in range(12):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = stdcnn(10, 1, 28, width=2)
        gradient, _, _ = ModelVictim(model).gradient(
            x, torch.zeros(20), loss=lambda logits, y, reference: logits[:, 0]
        )
        no_gradient += not gradient.any()
        before = state_of(model)
        check_classifier(model, x, 10)
        assert_unchanged(model, before)
    assert no_gradient > 0  # else this test shows nothing


def test_the_verdict_on_a_network_with_dropout_does_not_depend_on_earlier_draws():
    torch.manual_seed(0)
    hidden = nn.Dropout(0.9), nn.Linear(16, 1), nn.BatchNorm1d(1, momentum=1.0), nn.ReLU()
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(1, 3))
    images = torch.rand(4, 1, 4, 4)
    verdicts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        try:
            check_classifier(model, images, num_classes=3)
            verdicts.add("accepted")
        except UserError as error:
            verdicts.add(str(error))
    assert len(verdicts) == 1


def test_the_command_line_reports_it_in_one_line(tmp_path):
    done = CliRunner().invoke(
        program,
        ["--plugin", str(TINY), "--plugin", str(NO_CLASSIFIERS), "train", "--data", "tiny",
         "--model", "softmax", "--output", str(tmp_path / "run")],
    )  # fmt: skip
    assert done.exit_code == 2
    assert re.fullmatch(r"Error: model softmax in eval mode returns .*\n", done.stderr)


@pytest.mark.parametrize("name", ["log-softmax", "zero-head", "even-head", "tinycnn", "smallcnn"])
def test_an_unusual_classifier_trains(no_classifiers, name):
    data = curricula.load_data("tiny")
    check_classifier(curricula.build_model(name, data), data.images(data.test.pixels[:3]), 10)


def test_two_classes_and_colour_images_are_accepted():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    check_classifier(model, torch.rand(5, 3, 4, 4), 2)
    with pytest.raises(UserError, match=r"^the model in eval mode returns .* shape \(5, 2\)"):
        check_classifier(model, torch.rand(5, 3, 4, 4), 3)


def test_a_confident_trained_classifier_is_accepted():
    """Its cross-entropy would be exactly flat."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([1e4, 0, 0]))
    check_classifier(model, torch.rand(2, 1, 4, 4), 3)


def test_a_model_of_probabilities_is_still_evaluated(no_classifiers):
    data = curricula.load_data("tiny")
    model = curricula.build_model("softmax", data)
    (found,) = curricula.evaluate(model, data=data, threats=["pgd(0.1, steps=2)"], limit=10)
    assert found.n == 10


@pytest.mark.parametrize("softmax", [False, True])
def test_the_model_and_the_global_random_state_stay_as_they_were(softmax):
    bench = make_fixture(4, 3, 12, 12)
    model = nn.Sequential(bench.model, *[nn.Softmax(1)] * softmax).train()
    model[0][2].eval()  # a frozen layer, as fine-tuning has it
    x, state, before = bench.x_NCHW.clone(), torch.get_rng_state(), state_of(model)
    try:
        check_classifier(model, bench.x_NCHW, 4)
    except UserError:
        assert softmax
    after = state_of(model)
    for name, value in before.items():
        same = torch.equal(value, after[name]) if torch.is_tensor(value) else value == after[name]
        assert same, name
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, bench.x_NCHW)
