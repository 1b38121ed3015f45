"""Every attack of torchattacks: that package's own numbers, an image at its own strength."""

import inspect
import random

import numpy as np
import pytest
import torch
import torchattacks
from curricula_torchattacks.attacks import CLASSES, Attack
from curricula_torchattacks.plugin import ATTACKS, NOT_OFFERED, curricula_perturbations
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.binding import bind
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.testing import PERTURBATION_CLAUSES
from curricula.victim.model_victim import ModelVictim

QUICK = {
    "steps": 2,
    "max_steps": 2,
    "num_iter_set": 2,
    "nb_sample": 2,
    "max_batch_size": 2,
    "n_queries": 8,
    "restarts": 2,
    "max_iterations": 10,
    "binary_search_steps": 2,
    "gamma": 0.01,
    "m": 2,
    "N": 2,
    "noise_batch_size": 2,
}


def quick(name: str, budget: float = 0.1, **keywords) -> Attack:
    """An attack with few steps."""
    parameters = inspect.signature(CLASSES[name]).parameters
    chosen = {key: value for key, value in QUICK.items() if key in parameters}
    if parameters["budget"].default is inspect.Parameter.empty:
        chosen["budget"] = budget
    return CLASSES[name](**chosen | keywords)


SETTINGS = [(name, {}) for name in CLASSES] + [
    ("APGD", {"norm": "l2"}),
    ("APGD", {"loss": "dlr"}),
    ("APGDT", {"norm": "l2"}),
    ("FAB", {"norm": "l2"}),
    ("FAB", {"multi_targeted": True, "n_restarts": 2}),
    ("Square", {"norm": "l2", "budget": 1.0}),
    ("UPGD", {"loss": "dlr", "random_start": True}),
    ("TIFGSM", {"kernel_name": "linear"}),
    ("PGDRS", {"noise_type": "uniform"}),
    ("JSMA", {"theta": -1.0}),
    ("Pixle", {"pixel_mapping": "similarity_random"}),
    ("Pixle", {"update_each_iteration": True, "pixel_mapping": "distance"}),
]
NAMES = [" ".join((name, *map(str, keywords.values()))) for name, keywords in SETTINGS]


@pytest.mark.parametrize(("name", "keywords"), SETTINGS, ids=NAMES)
@pytest.mark.parametrize("clause", PERTURBATION_CLAUSES)
def test_each_keeps_the_contract(clause, name, keywords):
    clause(quick(name, **keywords))


def test_they_are_all_that_the_package_has():
    assert set(ATTACKS) == set(CLASSES)
    assert set(ATTACKS).isdisjoint(NOT_OFFERED)
    assert set(ATTACKS) | set(NOT_OFFERED) == set(torchattacks.__all__)
    names = {record.name for record in curricula_perturbations()}
    assert names == {f"torchattacks-{name.lower()}" for name in ATTACKS} | {"autoattack"}


# The same images, in their places; ten classes, and each image is of the one that the model sees.
X = torch.rand((6, 3, 10, 10), generator=torch.Generator().manual_seed(0))
EPS = 0.05


@pytest.fixture(scope="module")
def model():
    """Nothing here computes otherwise when memory is laid out in another way."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(300, 32), nn.Tanh(), nn.Linear(32, 10)).eval()


def seen(model: nn.Module, x_NCHW: Tensor = X) -> Tensor:
    with torch.no_grad():
        return model(x_NCHW).argmax(1)


def attacked(attack, model, strength=1.0, x_NCHW=X, y_N=None, seed=0):
    return attack(
        x_NCHW,
        seen(model, x_NCHW) if y_N is None else y_N,
        strength=strength,
        victim=ModelVictim(model),
        generator=torch.Generator().manual_seed(seed),
    )


BALL = {"eps": EPS}
STEPS = {"eps": EPS, "alpha": EPS * 0.5, "steps": 3}
OURS = {"steps": 3, "rel_step": 0.5}
PATCH = {"max_epsilon": EPS, "num_iter_set": 3}
EAD = {"max_iterations": 10, "binary_search_steps": 2}
# What the package is asked for, and what we are: seed, classes and norm as users mean them.
PAIRS: dict[str, tuple[dict, dict]] = {
    "FGSM": (BALL, {}),
    "BIM": (STEPS, OURS),
    "RFGSM": (STEPS, OURS),
    "PGD": (STEPS, OURS),
    "PGDL2": (STEPS, OURS),
    "EOTPGD": (STEPS | {"eot_iter": 3}, OURS | {"eot_iter": 3}),
    "FFGSM": (BALL | {"alpha": 1.25 * EPS}, {}),
    "TPGD": (STEPS, OURS),
    "MIFGSM": (STEPS | {"decay": 0.8}, OURS | {"decay": 0.8}),
    "NIFGSM": (STEPS, OURS),
    "SINIFGSM": (STEPS | {"m": 2}, OURS | {"m": 2}),
    "VMIFGSM": (STEPS | {"N": 2, "beta": 1}, OURS | {"N": 2, "beta": 1}),
    "VNIFGSM": (STEPS, OURS),
    "DIFGSM": (STEPS | {"diversity_prob": 0.9}, OURS | {"diversity_prob": 0.9}),
    "TIFGSM": (STEPS | {"len_kernel": 3, "nsig": 2}, OURS | {"len_kernel": 3, "nsig": 2}),
    "PIFGSM": (PATCH, {"num_iter_set": 3}),
    "PIFGSMPP": (PATCH | {"project_factor": 0.5}, {"num_iter_set": 3, "project_factor": 0.5}),
    "UPGD": (STEPS | {"loss": "margin"}, OURS | {"loss": "margin"}),
    "Jitter": (STEPS | {"std": 0.2, "scale": 5}, OURS | {"std": 0.2, "scale": 5}),
    "PGDRS": (STEPS | {"noise_type": "guassian"}, OURS | {"noise_type": "gaussian"}),
    "PGDRSL2": (STEPS | {"noise_type": "uniform"}, OURS | {"noise_type": "uniform"}),
    "SPSA": (BALL | {"lr": 0.5 * EPS, "nb_iter": 2}, {"nb_iter": 2, "rel_step": 0.5}),
    "APGD": (BALL | {"norm": "L2", "loss": "dlr", "steps": 20}, {"norm": "l2", "loss": "dlr"}),
    "APGDT": (BALL | {"norm": "Linf", "n_classes": 10, "steps": 20}, {"norm": "linf"}),
    "FAB": (
        BALL | {"norm": "L2", "multi_targeted": True, "n_classes": 10, "steps": 20},
        {"norm": "l2", "multi_targeted": True, "max_steps": 20},
    ),
    "Square": (BALL | {"norm": "L2", "n_queries": 50}, {"norm": "l2", "n_queries": 50}),
    "GN": ({"std": EPS}, {}),
    "CW": ({"c": 5, "steps": 20}, {"c": 5, "max_steps": 20}),
    "DeepFool": ({"steps": 5, "overshoot": 0.1}, {"max_steps": 5, "overshoot": 0.1}),
    "SparseFool": ({"steps": 2, "lam": 2}, {"max_steps": 2, "lam": 2}),
    "EADL1": (EAD | {"initial_const": 10}, EAD | {"initial_const": 10}),
    "EADEN": (EAD | {"initial_const": 10, "beta": 0.01}, EAD | {"initial_const": 10, "beta": 0.01}),
    "JSMA": ({"gamma": 0.02}, {"gamma": 0.02}),
    "OnePixel": ({"pixels": 2, "steps": 2}, {"pixels": 2, "max_steps": 2}),
}
PAIRS["APGD"][1]["steps"] = PAIRS["APGDT"][1]["steps"] = 20


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_torchattacks_to_the_bit(name, model):
    theirs_keywords, keywords = PAIRS[name]
    needs_budget = "budget" not in keywords and quick(name).unit != "switch"
    ours = CLASSES[name](**keywords, **({"budget": EPS} if needs_budget else {}))
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    theirs = getattr(torchattacks, name)(model, **theirs_keywords)
    if hasattr(theirs, "seed"):
        theirs.seed = seed
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        expected = theirs(X, seen(model)).detach().clamp(0, 1)  # EAD's may be a little outside
    np.random.set_state(state)
    result = attacked(ours, model)
    if ours.unit == "l2":  # The projection onto the ball divides and multiplies once more.
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    else:
        assert torch.equal(result, expected)
    assert not torch.equal(result, X)


def test_only_pixle_is_without_a_twin():
    assert set(CLASSES) - set(PAIRS) == {"Pixle"}


@pytest.mark.parametrize("name", ["PGD", "PGDL2", "FAB", "Square", "GN"])
def test_images_are_grouped_by_strength(name, model):
    fixed = {"random_start": False} if name.startswith("PGD") else {}
    attack = quick(name, **fixed)
    strength = torch.tensor([0, 1.0, 0.25, 0.25, 1.0, 0])
    mixed = attacked(attack, model, strength)
    assert torch.equal(mixed[strength == 0], X[strength == 0])
    y = seen(model)
    if name == "GN":
        size = (mixed - X).flatten(1).std(1)
        assert (size[strength == 1] > 2 * size[strength == 0.25].max()).all()
        return
    for value in (0.25, 1.0):
        group = strength == value
        alone = attacked(attack, model, value, X[group], y[group])
        assert torch.equal(mixed[group], alone)


@pytest.mark.parametrize("name", ["CW", "Pixle", "JSMA"])
def test_what_has_no_eps_is_on_at_any_strength(name, model):
    attack = quick(name)
    assert attack.unit == "switch"
    assert attack.norm_bound is None
    full = attacked(attack, model, 1.0)
    assert torch.equal(attacked(attack, model, 1e-3), full)
    assert torch.equal(attacked(attack, model, torch.full((6,), 1e-3)), full)


@pytest.mark.parametrize("name", CLASSES)
def test_it_leaves_no_trace(name, model, capfd):
    np.random.seed(5)
    random.seed(5)
    torch.manual_seed(5)
    numpy_state, python_state, torch_state = (
        np.random.get_state()[1].copy(),
        random.getstate(),
        torch.get_rng_state(),
    )
    dtype = torch.get_default_dtype()
    first = attacked(quick(name), model, seed=3)
    assert capfd.readouterr() == ("", "")
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_default_dtype() == dtype
    np.random.seed(6)
    random.seed(6)
    assert torch.equal(attacked(quick(name), model, seed=3), first)


class RobModel(nn.Module):
    """Of the name by which torchattacks looks for a normalisation; and without a parameter, of
    which it complains."""

    mean, std = torch.tensor([0.5]), torch.tensor([0.5])

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.flatten(1)[:, :10] * 5


def test_a_normalisation_is_not_guessed_and_no_parameter_is_needed(capfd):
    model = RobModel()
    result = attacked(CLASSES["PGD"](budget=EPS, random_start=False), model)
    assert capfd.readouterr() == ("", "")
    changed = (result - X).flatten(1) != 0
    assert changed[:, :10].all(dim=0).any()
    assert not changed[:, 10:].any()


@pytest.mark.parametrize("name", ["MIFGSM", "DeepFool", "SparseFool", "VNIFGSM", "UPGD", "Jitter"])
def test_a_gradient_of_zero_leaves_the_image(name):
    """The package divides it by its norm, and gives no numbers back."""

    class Flat(nn.Module):
        def forward(self, x_NCHW: Tensor) -> Tensor:
            return x_NCHW.flatten(1)[:, :4] * 0 + torch.tensor([1.0, 0, 0, 0])

    result = attacked(quick(name), Flat())
    assert result.isfinite().all()
    assert (result - X).abs().max() <= 0.1 + 1e-6


def test_jsma_goes_for_the_next_of_the_classes_there_are():
    """With four classes, torchattacks by itself asks for a fifth."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    with torch.no_grad():  # Each value speaks for one class and against the others.
        network[1].weight.copy_((4 * torch.eye(4) - 1).repeat(1, 4))
    x = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(1)) / 2
    y = torch.tensor([3, 2, 0])
    with pytest.raises(IndexError):
        torchattacks.JSMA(network)(x, y)
    result = attacked(CLASSES["JSMA"](gamma=1.0), network, x_NCHW=x, y_N=y)
    assert torch.equal(seen(network, result), torch.tensor([0, 3, 1]))


# What is broken in torchattacks 3.5.1: where one of these fails, the package was mended.


def small(height: int, width: int, classes: int = 10) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(height * width, classes)).eval()
    x = torch.rand((2, 1, height, width))
    return network, x, seen(network, x)


def test_pixle_needs_square_images_by_itself():
    network, x, y = small(6, 20)
    with pytest.raises(IndexError):
        torchattacks.Pixle(network)(x, y)
    assert attacked(quick("Pixle"), network, x_NCHW=x).shape == x.shape


def test_pixle_moves_pixels_and_changes_none():
    """Each pixel of the result is one of the image's, colour and all."""
    result = attacked(
        quick("Pixle", max_iterations=1, restarts=1),
        nn.Sequential(nn.Flatten(), nn.Linear(300, 10)),
    )
    assert not torch.equal(result, X)
    for image, moved in zip(X.flatten(2), result.flatten(2), strict=True):
        assert {tuple(pixel) for pixel in moved.T.tolist()} <= {
            tuple(pixel) for pixel in image.T.tolist()
        }


@pytest.mark.parametrize(("height", "width"), [(12, 12), (10, 16), (4, 4)])
def test_square_in_l2_needs_other_sizes_by_itself(height, width):
    network, x, y = small(height, width)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        torchattacks.Square(network, norm="L2", eps=0.01, n_queries=20)(x, y)
    result = attacked(CLASSES["Square"](budget=5, norm="l2", n_queries=200), network, x_NCHW=x)
    assert (seen(network, result) != y).any()


def test_fab_in_l1_has_no_end():
    network, x, y = small(10, 10)
    with pytest.raises(UnboundLocalError):
        torchattacks.FAB(network, norm="L1", eps=1.0, steps=2)(x, y)


def test_what_the_package_never_reads_is_left_out(model):
    for name in ("PIFGSM", "PIFGSMPP"):
        attack = getattr(torchattacks, name)
        results = [
            attack(model, num_iter_set=2, momentum=momentum, prob=prob)(X, seen(model))
            for momentum, prob in ((0.0, 0.0), (1.0, 0.7))
        ]
        assert torch.equal(*results)


@pytest.mark.parametrize("name", ["TIFGSM", "PIFGSM", "PIFGSMPP"])
def test_three_channels_alone(name):
    network, x, y = small(12, 12)
    assert CLASSES[name].channels == {3}
    with pytest.raises(RuntimeError, match="groups"):
        getattr(torchattacks, name)(network)(x, y)


def test_ours_differ_in_the_defaults_that_are_said_to():
    """Everything else is read off the package's signatures."""
    at_their_eps = {"PGDL2": (0.2, 0.25), "PGDRSL2": (0.2, 0.25), "SPSA": (1 / 30, 2.5)}
    for name, attack_class in CLASSES.items():
        theirs = inspect.signature(getattr(torchattacks, name)).parameters
        if "rel_step" not in inspect.signature(attack_class).parameters:
            continue
        step = theirs["lr" if name == "SPSA" else "alpha"].default / theirs["eps"].default
        expected = at_their_eps.get(name, (step, step))
        assert (step, attack_class(budget=0.1).rel_step) == pytest.approx(expected)


# Through expressions.


@pytest.fixture
def names():
    built = registry.build_registry(entry_points=False)
    provider = registry.Provider(name="curricula-torchattacks", source="distribution")
    from curricula_torchattacks import plugin

    built.add(plugin, provider)
    before = registry.current()
    registry.use(built)
    yield built
    registry.use(before)


def resolved(text: str, **keywords) -> factories.Built:
    return factories.build("perturbation", parse_call(text), **keywords)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_stored_builds_the_same(name, names):
    text = f"torchattacks-{name.lower()}"
    once = resolved(text + ("(0.1)" if CLASSES[name].__name__ in _with_eps() else ""))
    again = factories.build("perturbation", once.call)
    assert again == once
    doc = inspect.getdoc(CLASSES[name])
    for parameter in inspect.signature(CLASSES[name]).parameters.values():
        assert f"\n    {parameter.name}: " in doc
        assert parameter.annotation is not parameter.empty


def _with_eps() -> set[str]:
    return {
        name
        for name, attack_class in CLASSES.items()
        if inspect.signature(attack_class).parameters["budget"].default is inspect.Parameter.empty
    }


def test_a_data_sets_steps_are_for_what_is_like_pgd(names):
    budgets, defaults = {"linf": "8/255"}, {"steps": "5"}
    bound = bind("torchattacks-pgd+torchattacks-cw", budgets=budgets, defaults=defaults)
    pgd, cw = (leaf.perturbation for leaf in bound.leaves.values())
    assert (pgd.steps, pgd.rel_step, cw.max_steps) == (5, 0.5, 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchattacks-foo(0.1)", "unknown perturbation 'torchattacks-foo': did you mean .*fab"),
        ("torchattacks-fab(0.1, norm=l1)", "norm must be linf or l2, not l1"),
        ("torchattacks-pgd(0.1, alpha=0.01)", "unknown argument 'alpha'; .* rel_step"),
        ("torchattacks-pgd(0.1, steps=0)", "'steps' must be >= 1"),
        ("torchattacks-pgd(0.1, rel_step=0)", "'rel_step' must be > 0"),
        ("torchattacks-pgd(-0.1)", "'budget' must be >= 0"),
        ("torchattacks-cw(0.5)", "budget must be 1, not 0.5: torchattacks-cw has no eps"),
        ("torchattacks-eadl1(max_iterations=5)", "max_iterations must be 10 or more, not 5; or"),
        ("torchattacks-pgdrs(0.1, batch_max=2)", "batch_max must be noise_batch_size or more, 5"),
        ("torchattacks-tifgsm(0.1, len_kernel=4)", "len_kernel must be odd and 1 or more, not 4"),
        ("torchattacks-jsma(theta=0)", "theta must be in \\[-1, 1\\] and not 0"),
        ("torchattacks-pixle(x_dimensions=3:2)", "x_dimensions must be LOW:HIGH, .* not 3:2"),
        ("torchattacks-pixle(x_dimensions=0.5:2)", "x_dimensions must be LOW:HIGH"),
        ("torchattacks-upgd(0.1, loss=kl)", "loss must be ce or margin or dlr, not kl"),
    ],
)
def test_a_mistake_is_one_line(text, message, names):
    with pytest.raises(UserError, match=message) as error:
        resolved(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "keywords", "classes"),
    [("APGDT", {}, 3), ("APGD", {"loss": "dlr"}, 2), ("UPGD", {"loss": "dlr"}, 2)],
)
def test_too_few_classes_are_one_line(name, keywords, classes):
    network, x, y = small(10, 10, classes)
    with pytest.raises(UserError, match=f"needs {classes + 1} classes or more here, not {classes}"):
        attacked(quick(name, **keywords), network, x_NCHW=x)
    theirs = getattr(torchattacks, name)(
        network, **({"n_classes": classes} if name == "APGDT" else keywords)
    )
    with pytest.raises(IndexError):
        theirs(x, y)
