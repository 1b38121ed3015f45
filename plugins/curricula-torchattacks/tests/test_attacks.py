"""Every attack of torchattacks gives that package's numbers, with one strength per image."""

import doctest
import inspect
import random

import numpy as np
import pytest
import torch
import torchattacks
from curricula_torchattacks import attacks
from curricula_torchattacks.attacks import CLASSES, Attack
from curricula_torchattacks.plugin import ATTACKS, NOT_OFFERED, curricula_perturbations
from torch import Tensor, nn

from curricula.errors import Notice, UserError
from curricula.expressions import factories
from curricula.expressions.binding import bind
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.testing import PERTURBATION_CLAUSES
from curricula.testing import perturbations as clauses
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
    """Return an attack with few steps."""
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


# One adapter runs all attacks, so the clauses about it (inputs, model, random numbers) hold for all
# attacks if they hold for one of each form; the clauses about the results are tested on each.
OF_EACH_ATTACK = (
    clauses.attributes_are_declared,
    clauses.output_is_an_image_like_the_input,
    clauses.norm_bound_holds_for_each_image,
)
# A norm ball; a patched class; a switch; a standard deviation; targets; a random start of numpy's.
ONE_OF_EACH_FORM = ("PGD", "Square", "DeepFool", "GN", "APGDT", "OnePixel")
CASES = [
    pytest.param(clause, name, keywords, id=f"{clause.__name__}-{case}")
    for clause in PERTURBATION_CLAUSES
    for case, (name, keywords) in zip(NAMES, SETTINGS, strict=True)
    if clause in OF_EACH_ATTACK or (name in ONE_OF_EACH_FORM and not keywords)
]


@pytest.mark.filterwarnings("ignore:torchattacks-square in l-2 pads")
@pytest.mark.parametrize(("clause", "name", "keywords"), CASES)
def test_each_keeps_the_contract(clause, name, keywords):
    clause(quick(name, **keywords))


def test_all_attacks_of_the_package_are_offered_or_listed_as_not_offered():
    assert set(ATTACKS) == set(CLASSES)
    assert set(ATTACKS).isdisjoint(NOT_OFFERED)
    assert set(ATTACKS) | set(NOT_OFFERED) == set(torchattacks.__all__)
    names = {record.name for record in curricula_perturbations()}
    assert names == {f"torchattacks-{name.lower()}" for name in ATTACKS} | {"autoattack"}


# Six images; their labels are the model's predictions.
X = torch.rand((6, 3, 10, 10), generator=torch.Generator().manual_seed(0))
EPS = 0.05


@pytest.fixture(scope="module")
def model():
    """A network whose results do not depend on the memory format."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(300, 32), nn.Tanh(), nn.Linear(32, 10)).eval()


def predicted(model: nn.Module, x_NCHW: Tensor = X) -> Tensor:
    with torch.no_grad():
        return model(x_NCHW).argmax(1)


def attacked(attack, model, strength=1.0, x_NCHW=X, y_N=None, seed=0):
    return attack(
        x_NCHW,
        predicted(model, x_NCHW) if y_N is None else y_N,
        strength=strength,
        victim=ModelVictim(model),
        generator=torch.Generator().manual_seed(seed),
    )


COUNTED = {
    "PGD": {},
    "EOTPGD": {},
    "SINIFGSM": {},
    "VMIFGSM": {},
    "PGDRS": {},
    "SPSA": {},
    "APGDT": {"n_restarts": 2},
    "FAB": {"multi_targeted": True, "n_restarts": 2},
    "Square": {"n_restarts": 2},
    "GN": {},
    "SparseFool": {},
    "EADL1": {},
    "OnePixel": {},
    "Pixle": {},
}


@pytest.mark.parametrize("name", COUNTED)
def test_the_declared_passes_are_near_those_of_a_robust_image(name):
    class Robust(nn.Linear):
        images = 0

        def forward(self, x_NCHW: Tensor) -> Tensor:
            Robust.images += len(x_NCHW)
            return super().forward(x_NCHW.flatten(1))

    network = Robust(300, 10)
    with torch.no_grad():
        network.bias[0] = 1000  # class 0 for every image
    attack, victim = quick(name, **COUNTED[name]), ModelVictim(network)
    victim.logits(X[:2])
    Robust.images = 0
    y_N = torch.zeros(2, dtype=torch.long)
    attack(X[:2], y_N, strength=1.0, victim=victim, generator=torch.Generator())
    assert attack.passes / 3 <= Robust.images / 2 <= 4 * attack.passes


BALL = {"eps": EPS}
STEPS = {"eps": EPS, "alpha": EPS * 0.5, "steps": 3}
OURS = {"steps": 3, "rel_step": 0.5}
PATCH = {"max_epsilon": EPS, "num_iter_set": 3}
EAD = {"max_iterations": 10, "binary_search_steps": 2}
# Keywords of torchattacks, and the equal ones of ours.
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
    "UPGD": (STEPS | {"decay": 0.5}, OURS | {"decay": 0.5}),
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
def test_results_equal_torchattacks(name, model):
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
        expected = theirs(X, predicted(model)).detach().clamp(0, 1)  # EAD leaves [0, 1] a little
    np.random.set_state(state)
    result = attacked(ours, model)
    if ours.unit == "l2":  # our projection adds a division and a product
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    else:
        assert torch.equal(result, expected)
    assert not torch.equal(result, X)


def test_all_attacks_except_pixle_are_compared_with_the_package():
    assert set(CLASSES) - set(PAIRS) == {"Pixle"}


@pytest.mark.parametrize("name", ["PGD", "PGDL2", "FAB", "Square", "GN"])
def test_images_are_grouped_by_strength(name, model):
    fixed = {"random_start": False} if name.startswith("PGD") else {}
    attack = quick(name, **fixed)
    strength = torch.tensor([0, 1.0, 0.25, 0.25, 1.0, 0])
    mixed = attacked(attack, model, strength)
    assert torch.equal(mixed[strength == 0], X[strength == 0])
    y = predicted(model)
    if name == "GN":
        size = (mixed - X).flatten(1).std(1)
        assert (size[strength == 1] > 2 * size[strength == 0.25].max()).all()
        return
    for value in (0.25, 1.0):
        group = strength == value
        alone = attacked(attack, model, value, X[group], y[group])
        assert torch.equal(mixed[group], alone)


@pytest.mark.parametrize("name", ["CW", "Pixle", "JSMA"])
def test_an_attack_without_eps_is_on_at_any_strength(name, model):
    attack = quick(name)
    assert attack.unit == "switch"
    assert attack.norm_bound is None
    full = attacked(attack, model, 1.0)
    assert torch.equal(attacked(attack, model, 1e-3), full)
    assert torch.equal(attacked(attack, model, torch.full((6,), 1e-3)), full)


@pytest.mark.parametrize("name", CLASSES)
def test_an_attack_restores_random_states_and_prints_nothing(name, model, capfd):
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
    """A model without parameters, of which torchattacks warns, with the name by which it detects a
    normalisation."""

    mean, std = torch.tensor([0.5]), torch.tensor([0.5])

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.flatten(1)[:, :10] * 5


def test_a_model_needs_no_parameters_and_its_normalisation_is_ignored(capfd):
    model = RobModel()
    result = attacked(CLASSES["PGD"](budget=EPS, random_start=False), model)
    assert capfd.readouterr() == ("", "")
    changed = (result - X).flatten(1) != 0
    assert changed[:, :10].all(dim=0).any()
    assert not changed[:, 10:].any()


@pytest.mark.parametrize("name", ["MIFGSM", "DeepFool", "SparseFool", "VNIFGSM", "UPGD", "Jitter"])
def test_a_zero_gradient_leaves_the_image_finite(name):
    """The package divides the gradient by its norm, and returns NaN."""

    class Flat(nn.Module):
        def forward(self, x_NCHW: Tensor) -> Tensor:
            return x_NCHW.flatten(1)[:, :4] * 0 + torch.tensor([1.0, 0, 0, 0])

    result = attacked(quick(name), Flat())
    assert result.isfinite().all()
    assert (result - X).abs().max() <= 0.1 + 1e-6


def test_jsma_targets_the_next_of_the_models_classes():
    """With four classes, torchattacks targets a fifth."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    with torch.no_grad():  # each value raises one class's logit and lowers the others
        network[1].weight.copy_((4 * torch.eye(4) - 1).repeat(1, 4))
    x = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(1)) / 2
    y = torch.tensor([3, 2, 0])
    with pytest.raises(IndexError):
        torchattacks.JSMA(network)(x, y)
    result = attacked(CLASSES["JSMA"](gamma=1.0), network, x_NCHW=x, y_N=y)
    assert torch.equal(predicted(network, result), torch.tensor([0, 3, 1]))


# Faults of torchattacks 3.5.1: where one of these tests fails, the package was fixed.


def small(height: int, width: int, classes: int = 10) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(height * width, classes)).eval()
    x = torch.rand((2, 1, height, width))
    return network, x, predicted(network, x)


def test_torchattacks_pixle_fails_on_images_that_are_not_square():
    network, x, y = small(6, 20)
    with pytest.raises(IndexError):
        torchattacks.Pixle(network)(x, y)
    assert attacked(quick("Pixle"), network, x_NCHW=x).shape == x.shape


def test_pixle_only_moves_pixels():
    """Each pixel of the result is a pixel of the image, with all its channels."""
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
def test_torchattacks_square_in_l2_fails_on_some_sizes(height, width):
    network, x, y = small(height, width)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        torchattacks.Square(network, norm="L2", eps=0.01, n_queries=20)(x, y)
    with pytest.warns(Notice, match=rf"pads images of {height}x{width}.* square\(norm=l2\)"):
        result = attacked(CLASSES["Square"](budget=5, norm="l2", n_queries=200), network, x_NCHW=x)
    assert (predicted(network, result) != y).any()


@pytest.mark.parametrize(
    ("name", "parameters"), [("CW", {"c": 100}), ("UPGD", {"loss": "margin", "eps": 0.3})]
)
def test_torchattacks_margins_find_nothing_where_all_logits_are_negative(name, parameters):
    """As log-probabilities, which are valid logits."""
    network, x, y = small(8, 8)
    network = nn.Sequential(network, nn.LogSoftmax(1))
    assert torch.equal(getattr(torchattacks, name)(network, **parameters)(x, y), x)
    ours = {{"eps": "budget"}.get(key, key): value for key, value in parameters.items()}
    result = attacked(CLASSES[name](**ours), network, x_NCHW=x)
    assert (predicted(network, result) != y).all()


def test_a_step_of_upgd_ascends_the_margin():
    network, x, y = small(8, 8)
    attack = CLASSES["UPGD"](budget=0.3, loss="margin", steps=1, rel_step=0.1)
    with torch.no_grad():
        second = network(x).topk(2).indices[:, 1]
    ascent = (network[1].weight[second] - network[1].weight[y]).sign().reshape(x.shape)
    expected = (x + 0.03 * ascent).clamp(0, 1)
    torch.testing.assert_close(attacked(attack, network, x_NCHW=x), expected)


def test_torchattacks_fab_in_l1_fails():
    network, x, y = small(10, 10)
    with pytest.raises(UnboundLocalError):
        torchattacks.FAB(network, norm="L1", eps=1.0, steps=2)(x, y)


def test_parameters_that_the_package_ignores_are_left_out(model):
    for name in ("PIFGSM", "PIFGSMPP"):
        attack = getattr(torchattacks, name)
        results = [
            attack(model, num_iter_set=2, momentum=momentum, prob=prob)(X, predicted(model))
            for momentum, prob in ((0.0, 0.0), (1.0, 0.7))
        ]
        assert torch.equal(*results)


@pytest.mark.parametrize("name", ["TIFGSM", "PIFGSM", "PIFGSMPP"])
def test_attacks_for_three_channels_fail_on_one(name):
    network, x, y = small(12, 12)
    assert CLASSES[name].channels == {3}
    with pytest.raises(RuntimeError, match="groups"):
        getattr(torchattacks, name)(network)(x, y)


def test_default_steps_are_the_packages_except_for_three_attacks():
    """All other defaults are read from the package's signatures."""
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
def test_the_stored_expression_builds_an_equal_attack(name, names):
    text = f"torchattacks-{name.lower()}"
    once = resolved(text + ("(0.1)" if CLASSES[name].__name__ in _with_eps() else ""))
    again = factories.build("perturbation", once.call)
    assert again == once
    docstring = inspect.getdoc(CLASSES[name])
    for parameter in inspect.signature(CLASSES[name]).parameters.values():
        assert f"\n    {parameter.name}: " in docstring
        assert parameter.annotation is not parameter.empty
    example = doctest.DocTestParser().get_doctest(docstring, vars(attacks), name, None, None)
    assert doctest.DocTestRunner().run(example) == (0, 1)


def _with_eps() -> set[str]:
    return {
        name
        for name, attack_class in CLASSES.items()
        if inspect.signature(attack_class).parameters["budget"].default is inspect.Parameter.empty
    }


def test_a_data_sets_steps_reach_pgd_but_not_cw(names):
    budgets, defaults = {"linf": "8/255"}, {"steps": "5"}
    bound = bind("torchattacks-pgd+torchattacks-cw", budgets=budgets, defaults=defaults)
    pgd, cw = (leaf.perturbation for leaf in bound.leaves.values())
    assert (pgd.steps, pgd.rel_step, cw.max_steps) == (5, 0.5, 50)


@pytest.mark.parametrize("name", ["autoattack", *ATTACKS])
def test_an_l_inf_radius_above_1_is_a_forgotten_255(name):
    name = name if name == "autoattack" else f"torchattacks-{name.lower()}"
    (leaf,) = bind(f"{name}:1").leaves.values()
    if leaf.perturbation.unit == "linf":
        with pytest.raises(UserError, match=r"at most 1 in linf, .*; did you mean 8/255\?$"):
            bind(f"{name}:8")
    elif leaf.perturbation.unit != "switch":
        bind(f"{name}:8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchattacks-foo(0.1)", "unknown perturbation 'torchattacks-foo': did you mean .*fab"),
        ("torchattacks-fab(0.1, norm=l1)", "norm must be linf or l2, not l1"),
        ("torchattacks-pgd(0.1, alpha=0.01)", "unknown argument 'alpha'; .* rel_step"),
        ("torchattacks-pgd(0.1, steps=0)", "steps must be 1 or more"),
        ("torchattacks-square(0.1, n_queries=0)", "n_queries must be 1 or more"),
        ("torchattacks-apgd(0.1, n_restarts=0)", "n_restarts must be 1 or more"),
        ("torchattacks-pgd(0.1, rel_step=0)", "rel_step must be above 0"),
        ("torchattacks-pgd(-0.1)", "budget must be 0 or more"),
        ("torchattacks-cw(0.5)", "budget must be 1, not 0.5: torchattacks-cw has no eps"),
        ("torchattacks-eadl1(max_iterations=5)", "max_iterations must be 10 or more, not 5; or"),
        ("torchattacks-pgdrs(0.1, batch_max=2)", "batch_max must be noise_batch_size or more, 5"),
        ("torchattacks-tifgsm(0.1, len_kernel=4)", "len_kernel must be odd, from 1 to 101, not 4"),
        ("torchattacks-jsma(theta=0)", "theta must be in \\[-1, 1\\] and not 0"),
        ("torchattacks-pixle(x_dimensions=3:2)", "x_dimensions must be LOW:HIGH, .* not 3:2"),
        ("torchattacks-pixle(x_dimensions=0.5:2)", "x_dimensions must be LOW:HIGH"),
        ("torchattacks-upgd(0.1, loss=kl)", "loss must be ce or margin or dlr, not kl"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(text, message, names):
    with pytest.raises(UserError, match=message) as error:
        resolved(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "keywords", "classes"),
    [("APGDT", {}, 3), ("APGD", {"loss": "dlr"}, 2), ("UPGD", {"loss": "dlr"}, 2)],
)
def test_too_few_classes_are_an_error_of_one_line(name, keywords, classes):
    network, x, y = small(10, 10, classes)
    with pytest.raises(UserError, match=f"needs {classes + 1} classes or more here, not {classes}"):
        attacked(quick(name, **keywords), network, x_NCHW=x)
    theirs = getattr(torchattacks, name)(
        network, **({"n_classes": classes} if name == "APGDT" else keywords)
    )
    with pytest.raises(IndexError):
        theirs(x, y)


@pytest.mark.parametrize("name", list(CLASSES))
def test_permuted_images_give_the_same(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 10))
    x, y = torch.rand(2, 3, 12, 12), torch.tensor([0, 1])
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected, found = (
        quick(name)(
            images, y, strength=1.0, victim=ModelVictim(model),
            generator=torch.Generator().manual_seed(0),
        )
        for images in (x, permuted)
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
