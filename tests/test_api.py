"""The verbs of the library: one verb measures a run, its folder or a model."""

import pytest
import torch
from torch import nn

import curricula
from curricula.data import Split
from curricula.errors import UserError
from curricula.training.run import Run

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from pathlib import Path

    from curricula.plugins import registry

    registry.use(registry.build_registry([Path(__file__).parent / "fixtures" / "tiny.py"]))
    folder = tmp_path_factory.mktemp("api") / "run"
    return curricula.train(
        data="tiny", perturb="rot:20+pgd:0.05", epochs=1, compile="off", output=folder
    )


def test_a_run_its_folder_and_its_model_are_measured_alike(trained):
    threats = {"mine": "rot:20+pgd(0.05, steps=3)"}
    model = curricula.load_model(trained.run)
    data = curricula.load_data("tiny")
    found = [
        curricula.evaluate(subject, threats=threats, limit=20, **settings)
        for subject, settings in [
            (trained.run, {}),
            (trained.run.path, {}),
            (str(trained.run.path), {}),
            (model, {"data": data}),
            (model, {"data": "tiny"}),
            (model, {"data": data, "split": data.test}),
        ]
    ]
    assert all(results == found[0] for results in found)
    assert [result.name for result in found[0]] == ["mine"]


def test_by_default_a_model_is_measured_at_the_budgets_of_its_data(trained):
    model = curricula.load_model(trained.run)
    found = curricula.evaluate(model, data="tiny", limit=5)
    assert [result.name for result in found] == ["clean", "spatial", "adversarial", "joint"]
    budgets = curricula.load_data("tiny").budgets
    assert found[1].threat.startswith(f"rot({budgets['degrees']},")


def test_validation_images_are_those_held_out_of_training(trained):
    held_out = curricula.load_data("tiny").with_validation()[1]
    (found,) = curricula.evaluate(trained.run, threats=["clean"], split="validation")
    assert found.n == len(held_out)
    model = curricula.load_model(trained.run)
    given = curricula.evaluate(model, data="tiny", threats=["clean"], split=held_out)
    assert given == [found]


def test_the_last_checkpoint_is_chosen_by_its_name(trained):
    last = curricula.load_model(trained.run, checkpoint="last")
    (found,) = curricula.evaluate(trained.run, threats=["clean"], checkpoint="last")
    assert curricula.evaluate(last, data="tiny", threats=["clean"]) == [found]


def test_the_profile_and_the_audit_of_a_model_write_nothing(trained, quick_audit):
    model = curricula.load_model(trained.run)
    before = sorted(trained.run.path.rglob("*"))
    budgets = {"degrees": "20", "linf": "0.05"}
    profile = curricula.robustness_profile(model, data="tiny", budgets=budgets, limit=2, name="it")
    assert (profile.model, profile.n, profile.budgets["degrees"]) == ("it", 2, "20")
    audit = curricula.audit(model, data="tiny", eps=0.05, limit=2)
    assert (audit.eps, audit.norm, audit.n) == ("0.05", "linf", 2)
    assert sorted(trained.run.path.rglob("*")) == before


def test_the_audit_of_a_run_takes_another_ball(trained, quick_audit):
    assert curricula.audit(trained.run, limit=2).eps == "0.05"
    assert curricula.audit(trained.run, limit=2, eps=0.02).eps == "0.02"
    assert curricula.audit(trained.run, limit=2, eps=0.5, norm="l2").norm == "l2"


def test_the_callers_model_stays_as_it_is():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    data = curricula.load_data("tiny")
    model(data.images(data.test[:1].load().pixels))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curricula.evaluate(model, data=data, threats=["pgd(0.1, steps=2)"], limit=5)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a model is measured on data"),
        ({"data": "tyni"}, "unknown dataset 'tyni'"),
        ({"data": "tiny", "split": "train"}, "split must be test or validation, not 'train'"),
        ({"data": "tiny", "threats": ["rott"]}, "unknown perturbation 'rott'"),
        ({"data": "tiny", "limit": 0}, "limit must be 1 or more, not 0"),
        ({"data": "tiny", "batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"data": "tiny", "seed": -1}, "seed must lie from 0"),
    ],
)
def test_bad_input_to_evaluate(settings, message):
    with pytest.raises(UserError, match=message):
        curricula.evaluate(nn.Flatten(), **settings)


def test_bad_input_about_a_run(trained, tmp_path):
    with pytest.raises(UserError, match="a run is measured on the data set it names"):
        curricula.evaluate(trained.run, data="tiny")
    with pytest.raises(UserError, match="checkpoint must be best or last, not 'first'"):
        curricula.load_model(trained.run, checkpoint="first")
    with pytest.raises(UserError, match="not a run folder"):
        curricula.audit(tmp_path)
    for verb in (curricula.robustness_profile, curricula.audit):
        with pytest.raises(UserError, match="of a run is measured on its test images"):
            verb(trained.run, split="validation")
        images = curricula.load_data("tiny").test
        assert isinstance(images, Split)
        with pytest.raises(UserError, match="of a run is measured on its test images"):
            verb(trained.run, split=images)


def test_a_baseline_is_trained_without_perturbations(tmp_path):
    trained = curricula.train(
        data="tiny", perturb="rot", epochs=1, compile="off", baseline=True, output=tmp_path / "run"
    )
    assert trained.baseline is not None
    assert trained.baseline.run == Run(tmp_path / "run" / "baseline")
    assert trained.baseline.run.config.perturb == "clean"
