"""The verbs of the library: one verb measures a run, its folder or a model."""

import re

import pytest
import torch
from torch import nn

import curricula
from curricula.data import Split
from curricula.errors import UserError
from curricula.sweeps.spec import parse_sweep
from curricula.testing import (
    check_dataset,
    check_model,
    check_objective,
    check_perturbation,
    check_schedule,
)
from curricula.training.config import COMMON_TRAINING
from curricula.training.run import Run

SWEEP = parse_sweep("[axes]\nseed = [0, 1]\n")

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
        ({"data": "tiny", "limit": 0}, "limit must lie from 1 to 1,000,000,000, not 0"),
        ({"data": "tiny", "batch_size": 0}, "batch_size must lie from 1 to 1,000,000, not 0"),
        ({"data": "tiny", "seed": -1}, "seed must lie from 0"),
    ],
)
def test_bad_input_to_evaluate(settings, message):
    with pytest.raises(UserError, match=message):
        curricula.evaluate(nn.Flatten(), **settings)


PROGRESS = {"step": 0, "total_steps": 4, "epoch": 0, "total_epochs": 1}
TRAINING = COMMON_TRAINING | {"model": "lenet"}
LABELLED = Split(pixels=torch.zeros(0, 1, 8, 8, dtype=torch.uint8), labels=torch.zeros(0).long())


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


def evaluate(model=LINEAR, data="tiny", **settings):
    return curricula.evaluate(model, data=data, **settings)


def profile(**settings):
    return curricula.robustness_profile(LINEAR, data="tiny", **settings)


def audit(**settings):
    return curricula.audit(LINEAR, data="tiny", **settings)


def parse(text="rot:30+pgd:0.1", schedules=(), **settings):
    return curricula.Curriculum.parse(text, schedules, **settings)


def batches(batch_size, generator=None):
    return next(curricula.batches(LABELLED, batch_size, generator=generator))


FOREIGN = [
    (lambda: evaluate(threat=["clean"]), "evaluate has no argument 'threat'; did you mean threats"),
    (lambda: profile(limt=3), "robustness_profile has no argument 'limt'; did you mean limit"),
    (lambda: audit(epsilon=3), "audit has no argument 'epsilon'; did you mean eps"),
    (lambda: curricula.train(learning_rate=3), "train has no argument .*; did you mean lr"),
    (lambda: curricula.train(out="x"), "train has no argument 'out'; did you mean output"),
    (lambda: curricula.train(zzz="x"), r"no argument 'zzz'; help\(train\) lists all"),
    (lambda: curricula.resume("x", root="y"), "has no argument 'root'; did you mean data_root"),
    (lambda: curricula.load_model("x", chekpoint=1), "load_model has no .*; did you mean checkp"),
    (lambda: curricula.load_data("digits", data_root="x"), "load_data has no .*; did you mean roo"),
    (lambda: curricula.compare("x", axis=3), "compare has no argument 'axis'; did you mean axes"),
    (lambda: curricula.run_sweep(SWEEP, out="x"), "run_sweep has no .*; did you mean output"),
    (lambda: parse(budget={}), "Curriculum.parse has no .* 'budget'; did you mean budgets"),
    (lambda: curricula.Threat.parse("rot", strengths=1), "Threat.parse has no .* strength"),
    (lambda: curricula.train(output=3), "output must be a path, not 3"),
    (lambda: curricula.train(output=""), "output must be a path, not ''"),
    (lambda: curricula.train(callbacks=[print]), "callback must have the methods of .*Callback"),
    (lambda: curricula.train(baseline="no"), "baseline must be True or False, not 'no'"),
    (lambda: curricula.train(download=1), "download must be True or False, not 1"),
    (lambda: profile(grid="no"), "grid must be True or False, not 'no'"),
    (lambda: curricula.load_data("digits", download="no"), "download must be True or False"),
    (lambda: curricula.run_sweep(SWEEP, "out", retry="no"), "retry must be True or False"),
    (lambda: curricula.train(schedule=3), "schedule must be a list of texts, such as .*, not 3"),
    (lambda: curricula.train(schedule=[3]), "schedule must be a list of texts"),
    (lambda: curricula.train(seed="a"), "seed must be a whole number, not 'a'"),
    (lambda: curricula.train(batch_size=0), "batch_size must be 1 or more, not 0"),
    (lambda: curricula.train(shuffle="no"), "shuffle must be true or false, not 'no'"),
    (lambda: curricula.train(data_root=3), "data_root must be text, not 3"),
    (lambda: evaluate(3), "model must be a run, its folder or a torch.nn.Module, not 3"),
    (lambda: evaluate(print), "model must be a run, its folder or a torch.nn.Module"),
    (
        lambda: evaluate(data=3),
        "data must be a DataSet or its name, such as 'digits', .*, not 3",
    ),
    (lambda: evaluate(threats=[]), "threats is empty: .* leave it out for the standard ones"),
    (lambda: evaluate(threats={}), "threats is empty"),
    (lambda: evaluate(threats=3), "threats must be a list of expressions, not 3"),
    (lambda: evaluate(threats={" ": "clean"}), "name of a threat must be text on one line"),
    (lambda: evaluate(threats=[0.1]), "an expression is a text, such as 'rot:30.pgd', not 0.1"),
    (lambda: evaluate(threats={"mine": None}), "an expression is a text, .* not None"),
    (lambda: evaluate(split=3), "split must be test, validation or labelled images, not 3"),
    (lambda: evaluate(split=LABELLED), "split has no images"),
    (lambda: evaluate(limit=1.5), "limit must be a whole number, from 1 to .*, not 1.5"),
    (lambda: evaluate(limit="3"), "limit must be a whole number, from 1 to .*, not '3'"),
    (lambda: evaluate(limit=True), "limit must be a whole number, from 1 to .*, not True"),
    (lambda: evaluate(seed="a"), "seed must be a whole number, from 0 to .*, not 'a'"),
    (lambda: evaluate(seed=0.5), "seed must be a whole number, .* not 0.5"),
    (lambda: evaluate(batch_size=2.0), "batch_size must be a whole number, from 1 to .*, not 2.0"),
    (lambda: evaluate(device=torch.device("cpu")), "device device.* is not available; choose"),
    (lambda: evaluate(data_root=3), "data_root must be a path, not 3"),
    (lambda: evaluate(checkpoint=["best"]), "checkpoint must be best or last, not .'best'."),
    (lambda: evaluate(progress=3), "progress must be True, False or a function .*, not 3"),
    (lambda: profile(split="tset"), "split must be test or validation, not 'tset'"),
    (lambda: profile(budgets={"lnif": "0.1"}), "budgets: unknown unit 'lnif'; did you mean linf"),
    (lambda: profile(budgets=[3]), "budgets must map units to budgets, such as .*, not .3."),
    (lambda: profile(budgets={"linf": "8"}), "the budget in linf must be at most 2/3, not 8"),
    (lambda: profile(limit=0), "limit must lie from 1 to 1,000,000,000, not 0"),
    (lambda: audit(split="tset"), "split must be test or validation, not 'tset'"),
    (lambda: audit(eps="8/255"), "eps must be a number, 0 or more, not '8/255'"),
    (lambda: audit(eps=float("nan")), "eps must be a number, 0 or more, not nan"),
    (lambda: audit(norm="l3"), "norm must be linf or l2 or l1, not 'l3'"),
    (lambda: audit(seed=-1), "seed must lie from 0"),
    (lambda: curricula.load_model(3), "run must be a path, not 3"),
    (lambda: curricula.load_model(""), "run must be a path, not ''"),
    (lambda: curricula.Run.open(None), "run must be a path, not None"),
    (lambda: curricula.build_model("lenet", "digit"), "unknown dataset 'digit': did you mean digi"),
    (lambda: curricula.build_model("lenet", 3), "data must be a DataSet or its name"),
    (lambda: curricula.build_model(3, "tiny"), "an expression is a text"),
    (lambda: curricula.load_data(3), "an expression is a text"),
    (lambda: curricula.load_data("digits", root=3), "root must be a path, not 3"),
    (lambda: batches(0), "batch_size must be 1 or more, not 0"),
    (lambda: batches("4"), "batch_size must be a whole number, 1 or more, not '4'"),
    (lambda: batches(4, generator=0), "generator must be a torch.Generator or None, not 0"),
    (lambda: curricula.compare([]), "paths is empty: name one or more folders"),
    (lambda: curricula.compare(3), "paths must be a path, not 3"),
    (lambda: curricula.compare("x", axes=("joint",)), "axes must be the names of two threats"),
    (lambda: curricula.compare("x", axes="joint"), "axes must be the names of two threats"),
    (lambda: curricula.compare("x", reference=0.5), "reference must be two accuracies, .* not 0.5"),
    (lambda: curricula.compare("x", reference=("a", 0)), "reference must be two accuracies"),
    (lambda: curricula.compare("x", split="tset"), "split must be test or validation, not 'tset'"),
    (lambda: curricula.run_sweep("x"), "sweep x: no such file; .*find_sweep reads a recipe"),
    (lambda: curricula.run_sweep(3, "out"), "sweep must be a path, not 3"),
    (lambda: curricula.run_sweep(SWEEP), "output is missing: name the folder of the sweep"),
    (lambda: curricula.run_sweep(SWEEP, 3), "output must be a path, not 3"),
    (lambda: curricula.run_sweep(SWEEP, "out", storage=3), "storage must be the URL of a database"),
    (lambda: parse(3), "an expression is a text, such as 'rot:30.pgd', not 3"),
    (lambda: parse(schedules=3), "schedule must be a list of texts, such as .*, not 3"),
    (lambda: parse(schedules=[3]), "schedule must be a list of texts"),
    (lambda: parse(schedules="liner"), "unknown schedule 'liner': did you mean linear"),
    (lambda: parse(budgets=["30"]), "budgets must be a mapping of texts, not"),
    (
        lambda: parse("pgd", budgets={"linf": "8"}),
        "pgd: budget must be at most 1 in linf",
    ),
    (lambda: curricula.Threat.parse("rot:30", strength=2), "strength must lie from 0 to 1, not 2"),
    (lambda: curricula.Threat.parse("rot:30", strength="1"), "strength must be a number, .* '1'"),
    (lambda: curricula.Threat.parse(None), "an expression is a text"),
    (lambda: curricula.Threat(tree="rot"), "tree must be a bound expression, .*, not 'rot'"),
    (
        lambda: curricula.training.TrainConfig(**TRAINING | {"epochs": 0}),
        "epochs must be 1 or more, not 0",
    ),
    (
        lambda: curricula.training.TrainConfig(**TRAINING | {"lr": -1.0}),
        "lr must be above 0, not -1",
    ),
    (lambda: curricula.Run(3), "run must be a path, not 3"),
    (lambda: evaluate(torch.rand(99, 9)), r"model must be a run, .* not tensor\(.*\.\.\..*\)$"),
    (lambda: evaluate(data=LABELLED), "there are no images: give one or more"),
    (lambda: next(curricula.batches([1], 1, generator=None)), "split must be labelled images"),
    (lambda: curricula.ModelVictim(lambda x: x), "model must be a torch.nn.Module, not <function"),
    (
        lambda: curricula.ModelVictim(nn.Flatten(), precision="fp8"),
        "precision must be float32 or b",
    ),
    (lambda: curricula.Progress(**PROGRESS | {"step": -1}), "^step must be 0 or more, not -1"),
    (lambda: curricula.Progress(**PROGRESS | {"total_steps": 0}), "total_steps must be 1 or more"),
    (lambda: curricula.Progress(**PROGRESS | {"epoch": 0.5}), "epoch must be a whole number, 0 or"),
    (
        lambda: curricula.Progress(**PROGRESS | {"total_epochs": 0}),
        "total_epochs must be 1 or more",
    ),
    (
        lambda: curricula.Progress(**PROGRESS | {"step": 20}),
        "step .of total_steps. must lie from 0 to 4, not 20",
    ),
    (
        lambda: curricula.Progress(**PROGRESS | {"epoch": 2}),
        "epoch .of total_epochs. must lie from 0 to 1, not 2",
    ),
]


@pytest.mark.parametrize(
    ("call", "message"), FOREIGN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_foreign_value_of_any_argument_is_one_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": lambda x: x[0]}, r"there are 1 images and 5 labels; give each image its"),
        ({"pixels": lambda x: x / 1.0}, r"have a pixel of 16; .* from 0 to 1: divide them: pixels"),
        ({"pixels": lambda x: x.expand(5, 3, 8, 8)}, r"have 3 channels; those of digits have 1"),
        ({"pixels": lambda x: x.int() + 9}, r"images have a pixel of 25; .* max_value, 16"),
        (
            {"labels": torch.arange(4)},
            r"there are 5 images and 4 labels; give each image its label",
        ),
        ({"labels": torch.rand(5) / 2 + 0.25}, r"labels must be whole numbers, .*, not 0\.\d+"),
        ({"labels": torch.ones(5, 2).long()}, r"labels of shape \(5, 2\) are not one-hot"),
        ({"labels": [[1]] * 4}, r"there are 5 images and 4 labels; give each image its label"),
        ({"labels": torch.arange(8, 13)}, r"labels are from 8 to 12; they must be from 0 to 9"),
        ({"labels": torch.arange(5) - 1}, r"labels are from -1 to 3; they must be from 0 to 9"),
    ],
)
@pytest.mark.parametrize("verb", [curricula.evaluate, curricula.robustness_profile])
def test_labelled_images_that_are_not_the_data_sets_are_one_line(changes, message, verb):
    digits = curricula.load_data("digits")
    pixels, labels = changes.get("pixels", torch.clone), changes.get("labels", torch.arange(5))
    split = Split(pixels=pixels(digits.test.pixels[:5]), labels=labels)
    with pytest.raises(UserError, match=message):
        verb(LINEAR, data=digits, split=split)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (
            lambda x: x,
            r"shape \(2, 1, 28, 28\) for 2 images; it must be \(2, K\);",
        ),
        (lambda x: x.sum((1, 2, 3)), r"returns an output of shape \(2,\) for 2 images"),
        (
            lambda x: x.flatten(1)[:, :5],
            r"has 5 outputs for .* data have 10 classes; give",
        ),
        (lambda x: None, r"returns a NoneType, not a tensor; let it return only the logits"),
        (lambda x: x @ torch.ones(3, 3), r"cannot take images of 1x28x28 .*; build it for them"),
    ],
)
def test_a_model_that_cannot_classify_the_images_is_one_line(returns, message):
    model = nn.Identity()
    model.forward = returns
    with pytest.raises(UserError, match=message):
        evaluate(model, data="digits")


CHECKS = [check_dataset, check_model, check_objective, check_perturbation, check_schedule]


@pytest.mark.parametrize("check", CHECKS)
def test_a_contract_needs_an_object(check):
    for subject in ("rot", None, 3):
        with pytest.raises(UserError, match="is checked on the object itself, not on"):
            check(subject)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("evalute", "did you mean evaluate"),
        ("Curiculum", "did you mean Curriculum"),
        ("xyz", "dir(curricula) lists all"),
    ],
)
def test_an_unknown_name_of_the_package_gets_a_suggestion(name, fix):
    with pytest.raises(AttributeError, match=re.escape(fix)):
        getattr(curricula, name)
    assert not hasattr(curricula, "__wrapped__")


def test_a_name_stands_for_its_data_set():
    torch.manual_seed(0)
    named = curricula.build_model("lenet", "tiny")
    torch.manual_seed(0)
    built = curricula.build_model("lenet", curricula.load_data("tiny"))
    assert str(named) == str(built)
    assert torch.equal(named[1].weight, built[1].weight)


def test_a_text_is_a_list_of_one_schedule():
    now = curricula.Progress(**PROGRESS | {"step": 1})
    schedule = "pgd=linear(until=0.5)"
    found = [parse("rot:30+pgd:0.1", form).strengths(now) for form in (schedule, [schedule])]
    assert found[0] == found[1] == {"rot": pytest.approx(0.625), "pgd": 0.5}


def test_a_run_is_opened_by_the_text_of_its_path(trained):
    assert Run.open(str(trained.run.path)) == Run(str(trained.run.path)) == trained.run


def test_bad_input_about_a_run(trained, tmp_path):
    with pytest.raises(UserError, match=r"normalise is for a model: run .* leave it out"):
        curricula.evaluate(trained.run, normalise="none")
    with pytest.raises(UserError, match="output is for a model"):
        curricula.evaluate(trained.run, output=tmp_path / "kept")
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


def test_a_file_in_place_of_the_folder_of_runs_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="output runs: there is a file of that name"):
        curricula.train(data="tiny")
