"""Curricula and threats on a batch, against brute force; budgets, schedules and errors."""

import math
from types import SimpleNamespace
from typing import Literal

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.geometry import compose, identity_theta, rotation_theta, translation_theta, warp
from curricula.interfaces import Progress
from curricula.losses import adversarial_rank
from curricula.perturbations.attacks.pgd import PGD
from curricula.perturbations.geometric.affine import Rotation
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.testing import check_perturbation
from curricula.victim.model_victim import ModelVictim

BUDGETS = {"degrees": "30", "pixels": "3", "linf": "8/255", "l2": "0.5"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    x = torch.rand((8, 1, 12, 12), generator=seeded(1))
    y = torch.arange(8) % 3
    return ModelVictim(model), x, y


def views_of(text, scene, *, strength=1.0, seed=0):
    victim, x, y = scene
    curriculum = Curriculum.parse(text, budgets=BUDGETS)
    strengths = dict.fromkeys(curriculum.tree.leaves, strength)
    return curriculum(x, y, strengths=strengths, victim=victim, generator=seeded(seed))


def at(step, total=100):
    return Progress(step=step, total_steps=total, epoch=step // 10, total_epochs=total // 10)


def test_the_three_views(scene):
    victim, x, y = scene
    views = views_of("rot:30+pgd(0.1, steps=3)", scene)
    generator = seeded()
    rot = Rotation(budget=30.0)
    transformed = rot.apply(x, rot.sample(8, 1.0, generator))
    pgd = PGD(budget=0.1, steps=3)
    perturbed = pgd(transformed, y, strength=1.0, victim=victim, generator=generator)
    assert torch.equal(views.clean, x)
    assert torch.equal(views.transformed, transformed)
    assert torch.equal(views.perturbed, perturbed)
    # The eps-ball is centred on the transformed image, as in CuSP.
    assert (views.perturbed - views.transformed).abs().max() <= 0.1 + 1e-6


def test_each_of_two_pixel_links_stays_in_the_ball_around_its_input(scene):
    one = views_of("pgd(0.1, steps=2)", scene).perturbed
    both = views_of("pgd(0.1, steps=2)+pgd(0.05, steps=2)", scene)
    change = (both.perturbed - one).abs().max()
    assert 0 < change <= 0.05 + 1e-6
    assert torch.equal(both.transformed, both.clean)


def test_strength_zero_and_clean_change_nothing(scene):
    for text in ("rot:30+trans:3+pgd:0.1", "rot|pgd", "worst(rot+pgd, k=2)"):
        views = views_of(text, scene, strength=0.0)
        assert torch.equal(views.perturbed, scene[1])
    assert torch.equal(views_of("clean", scene).perturbed, scene[1])


def test_the_reference_of_a_kl_attack_is_the_transformed_view(scene):
    victim, _, y = scene
    views = views_of("rot:30+pgd(0.1, steps=2, loss=kl)", scene)
    generator = seeded()
    rot = Rotation(budget=30.0)
    transformed = rot.apply(scene[1], rot.sample(8, 1.0, generator))
    pgd = PGD(budget=0.1, steps=2, loss="kl")
    expected = pgd(
        transformed, y, strength=1.0, victim=victim.with_reference(transformed), generator=generator
    )
    assert torch.equal(views.perturbed, expected)


def test_the_victims_own_loss_is_the_default_and_a_named_one_overrides_it(scene):
    _, x, y = scene
    kl = ModelVictim(scene[0].as_module(), loss="kl")
    run = {"strengths": {"pgd": 1.0}}

    def attacked(text, victim):
        curriculum = Curriculum.parse(text)
        return curriculum(x, y, victim=victim, generator=seeded(), **run).perturbed

    by_default = attacked("pgd(0.1, steps=2)", kl)
    assert torch.equal(by_default, attacked("pgd(0.1, steps=2, loss=kl)", scene[0]))
    assert not torch.equal(by_default, attacked("pgd(0.1, steps=2, loss=ce)", kl))


def test_a_union_takes_one_random_branch_per_image_for_all_views(scene):
    victim, x, y = scene
    n = 3000
    many = (victim, x[:1].expand(n, 1, 12, 12), y[:1].expand(n))
    views = views_of("rot:90|pgd(0.2, steps=1)|clean", many)
    spatial = (views.transformed != views.clean).flatten(1).any(1)
    attacked = (views.perturbed != views.transformed).flatten(1).any(1)
    assert not (spatial & attacked).any()
    # A third each: binomial, to five standard deviations.
    five = 5 * math.sqrt(n * 2 / 9)
    assert abs(int(spatial.sum()) - n / 3) < five
    assert abs(int(attacked.sum()) - n / 3) < five
    assert torch.equal(views.transformed[spatial], views.perturbed[spatial])


def test_a_union_gives_each_image_its_own_strength_and_label(scene):
    victim, x, y = scene
    curriculum = Curriculum.parse("pgd(0.1, steps=1)|clean")
    strength_N = torch.linspace(0, 1, 8)
    views = curriculum(x, y, strengths={"pgd": strength_N}, victim=victim, generator=seeded())
    change = (views.perturbed - x).flatten(1).abs().amax(1)
    assert (change <= 0.1 * strength_N + 1e-6).all()
    assert (change > 0).any()


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize(
    "inner", ["rot:60", "rot:60+pgd(0.1, steps=2)", "rot:60|pgd(0.1, steps=2)"]
)
def test_worst_of_k_is_the_brute_force_choice(scene, inner, together, monkeypatch):
    victim, x, y = scene
    monkeypatch.setattr("curricula.expressions.nodes.PIXELS_AT_ONCE", together * 8 * 12 * 12)
    found = views_of(f"worst({inner}, k=3)", scene)
    generator = seeded()
    candidates = []
    for branch in inner.split("|"):
        curriculum = Curriculum.parse(branch)
        strengths = dict.fromkeys(curriculum.tree.leaves, 1.0)
        for size in {1: [1, 1, 1], 2: [2, 1], 3: [3]}[together]:
            many = curriculum(
                x.repeat(size, 1, 1, 1),
                y.repeat(size),
                strengths=strengths,
                victim=victim,
                generator=generator,
            )
            candidates += [many.map(lambda v, i=i: v[8 * i : 8 * i + 8]) for i in range(size)]
    losses = torch.stack(
        [F.cross_entropy(victim.logits(c.perturbed), y, reduction="none") for c in candidates]
    )
    for image, choice in enumerate(losses.argmax(0)):
        assert torch.equal(found.perturbed[image], candidates[choice].perturbed[image])
        assert torch.equal(found.transformed[image], candidates[choice].transformed[image])
    assert len(set(losses.argmax(0).tolist())) > 1


GRIDS = {
    # expression, candidates in their order as rows of labels, by brute force
    "grid(rot:60, rot=7)": [{"rot": [a]} for a in (-60, -40, -20, 0, 20, 40, 60)],
    "grid(rot:30+trans:2, rot=3, trans=3)": [
        {"rot": [a], "trans": [dx, dy]}
        for a in (-30, 0, 30)
        for dx in (-2, 0, 2)
        for dy in (-2, 0, 2)
    ],
    "grid(rot:30|trans:2, rot=5, trans=2)": [
        *({"rot": [a]} for a in (-30, -15, 0, 15, 30)),
        *({"trans": [dx, dy]} for dx in (-2, 2) for dy in (-2, 2)),
    ],
}


@pytest.mark.parametrize("together", [1, 4, 1000])
@pytest.mark.parametrize("threat", [False, True])
@pytest.mark.parametrize("text", GRIDS)
def test_a_grid_is_the_brute_force_choice(scene, text, threat, together, monkeypatch):
    victim, x, y = scene
    monkeypatch.setattr("curricula.expressions.nodes.PIXELS_AT_ONCE", together * 8 * 12 * 12)
    thetas = []
    for point in GRIDS[text]:
        theta = identity_theta(1, x.device)
        if "rot" in point:
            theta = compose(theta, rotation_theta(torch.tensor(point["rot"], dtype=torch.float)))
        if "trans" in point:
            shift = torch.tensor([point["trans"]], dtype=torch.float)
            theta = compose(theta, translation_theta(shift))
        thetas.append(theta)
    if threat:
        found = Threat.parse(text)(x, y, victim=victim, generator=seeded())
    else:
        found = views_of(text, scene).perturbed
    choices = set()
    for i in range(len(x)):
        seen = [warp(x[i : i + 1], theta) for theta in thetas]
        logits = torch.cat([victim.logits(image) for image in seen])
        losses = F.cross_entropy(logits, y[i].expand(len(seen)), reduction="none")
        fools = (logits.argmax(1) != y[i]).nonzero().flatten().tolist()
        choice = fools[0] if threat and fools else int(losses.argmax())
        choices.add(choice)
        assert torch.equal(found[i], seen[choice][0])
    assert len(choices) > 1


def test_a_grid_follows_the_strength_of_each_image(scene):
    victim, x, y = scene
    curriculum = Curriculum.parse("grid(trans:4, trans=3)")
    strength_N = torch.tensor([0, 0.25, 0.5, 0.75, 1.0, 1.0, 0, 0.5])
    found = curriculum(x, y, strengths={"trans": strength_N}, victim=victim, generator=seeded())
    for i, strength in enumerate(strength_N.tolist()):
        alone = curriculum(
            x[i : i + 1],
            y[i : i + 1],
            strengths={"trans": strength},
            victim=victim,
            generator=seeded(),
        )
        assert torch.equal(found.perturbed[i], alone.perturbed[0])


def test_a_grid_attacks_at_every_point(scene):
    victim, x, y = scene
    attack = "pgd(0.1, steps=3, random_start=false)"
    found = views_of(f"grid(rot:60+{attack}, rot=5)", scene)
    pgd = bind(attack).leaves["pgd"].perturbation
    transformed, perturbed, losses = [], [], []
    for angle in (-60, -30, 0, 30, 60):
        turned = warp(x, rotation_theta(torch.full((8,), float(angle))))
        transformed.append(turned)
        found_here = pgd(turned, y, strength=1.0, victim=victim, generator=seeded())
        perturbed.append(found_here)
        losses.append(F.cross_entropy(victim.logits(found_here), y, reduction="none"))
    for image, choice in enumerate(torch.stack(losses).argmax(0)):
        torch.testing.assert_close(found.transformed[image], transformed[choice][image])
        torch.testing.assert_close(found.perturbed[image], perturbed[choice][image])


def test_the_default_grid_is_that_of_engstrom_and_others():
    tree = bind("grid(rot:30+trans:3)")
    assert str(tree).endswith(", rot=31, trans=5)")
    (branch,) = tree.branches
    assert branch.points == {"rot": 31, "trans": 5}


def test_an_explicit_grid_is_the_same_grid():
    def sizes(tree):
        perturbations = [leaf.perturbation for leaf in tree.leaves.values()]
        (points,) = {n for branch in tree.branches for n in branch.points.values()}
        return [len(perturbation.grid(1.0, points)) for perturbation in perturbations]

    tree = bind("grid(crop:4|crop:0)")
    assert sizes(tree) == sizes(bind(str(tree)))


def test_a_threat_gives_detached_images(scene):
    victim, x, y = scene
    attached = x.clone().requires_grad_()
    for text in ("clean", "rot:30", "rot:30+trans:3", "grid(rot:30+trans:3, rot=3, trans=3)"):
        found = Threat.parse(text)(attached, y, victim=victim, generator=seeded())
        assert not found.requires_grad, text


def use_mine(**hooks):
    """Register the records of these hooks, beside all others."""
    names = registry.build_registry()
    names.add(SimpleNamespace(**hooks), registry.Provider(name="mine", source="file"))
    registry.use(names)


def test_strengths_and_images_of_other_types_are_made_float32(scene):
    victim, x, y = scene

    @attrs.frozen(kw_only=True)
    class Doubled(Rotation):
        def __call__(self, x_NCHW, y_N, **more):
            return super().__call__(x_NCHW, y_N, **more).double()

    @hookimpl
    def curricula_perturbations():
        yield Record(name="doubled", factory=Doubled, summary="gives float64")

    @hookimpl
    def curricula_schedules():
        whole = torch.tensor([0, 1] * 4)
        yield Record(name="whole", factory=lambda: lambda progress, state: whole, summary="0 or 1")

    use_mine(
        curricula_perturbations=curricula_perturbations, curricula_schedules=curricula_schedules
    )
    curriculum = Curriculum.parse("doubled:30+pgd(0.1, steps=1)", ["whole"])
    strengths = curriculum.strengths(at(0), indices_N=torch.arange(8))
    assert {strength.dtype for strength in strengths.values()} == {torch.float32}
    views = curriculum(x, y, strengths=strengths, victim=victim, generator=seeded())
    assert views.perturbed.dtype == torch.float32


@pytest.mark.parametrize("threat", [True, False])
def test_a_candidate_with_nan_logits_is_kept_as_the_worst(scene, threat):
    victim, x, y = scene

    @attrs.frozen(kw_only=True)
    class Broken(Rotation):
        def __call__(self, x_NCHW, y_N, **more):
            return torch.full_like(x_NCHW, torch.nan)

    @hookimpl
    def curricula_perturbations():
        yield Record(name="broken", factory=Broken, summary="gives NaN")

    use_mine(curricula_perturbations=curricula_perturbations)
    text = "worst(rot:1|broken:30, k=2)"
    if threat:
        found = Threat.parse(text)(x, y, victim=victim, generator=seeded())
    else:
        found = views_of(text, scene).perturbed
    correct = victim.logits(x).argmax(1) == y
    assert found[correct].isnan().all()
    assert correct.any()


def test_a_schedule_gives_one_strength_or_one_per_training_image():
    plain = Curriculum.parse("rot:30")
    curriculum = attrs.evolve(plain, schedules={"rot": lambda progress, state: torch.ones(10)})
    curriculum.check_schedules(10, at(0))
    with pytest.raises(UserError, match=r"the schedule of rot gave strengths of shape \(10,\)"):
        curriculum.check_schedules(11, at(0))


def test_attacking_after_every_candidate_is_not_attacking_the_worst_one(scene):
    inside = views_of("worst(rot:60+pgd(0.1, steps=2), k=3)", scene).perturbed
    outside = views_of("worst(rot:60, k=3)+pgd(0.1, steps=2)", scene).perturbed
    assert not torch.equal(inside, outside)


def test_a_threat_reads_a_union_as_the_worst_of_its_branches(scene):
    victim, x, y = scene
    texts = (
        "clean",
        "grid(trans:2, trans=3)",
        "fgsm:0.1",
        "mim(0.2, steps=3)",
    )  # no draws
    found = Threat.parse("|".join(texts))(x, y, victim=victim, generator=seeded())
    branches = [Threat.parse(text)(x, y, victim=victim, generator=seeded()) for text in texts]
    logits = torch.stack([victim.logits(branch) for branch in branches])
    fools = logits.argmax(2) != y
    loss = torch.stack([F.cross_entropy(found, y, reduction="none") for found in logits])
    choices = torch.where(fools.any(0), fools.int().argmax(0), loss.argmax(0))
    for image, choice in enumerate(choices):
        torch.testing.assert_close(found[image], branches[choice][image])
    assert len(set(choices.tolist())) > 1


def test_a_threat_never_prefers_a_correct_candidate_to_a_misclassified_one():
    # Three classes: the candidate that fools has the lower cross-entropy.
    fooling = torch.tensor([[0.40, 0.41, 0.00]]).log().nan_to_num(neginf=-99)
    correct = torch.tensor([[0.34, 0.33, 0.33]]).log()
    y = torch.tensor([0])
    assert F.cross_entropy(fooling, y) < F.cross_entropy(correct, y)
    assert adversarial_rank(fooling, y) > adversarial_rank(correct, y)


def test_missing_budgets_come_from_the_data_set_by_unit():
    assert str(bind("rot+trans+pgd", budgets=BUDGETS)).startswith("rot(30, ")
    assert "pgd(8/255, norm=linf" in str(bind("pgd", budgets=BUDGETS))
    assert "pgd(0.5, norm=l2" in str(bind("pgd(norm=l2)", budgets=BUDGETS))
    with pytest.raises(
        UserError, match=r"no standard budget in degrees .*rot:BUDGET, or .* budgets="
    ):
        bind("rot", budgets={"linf": "0.1"})


def test_the_users_arguments_override_the_data_sets_attack_defaults():
    leaves = bind("pgd:0.1+pgd(0.1, steps=9)", defaults={"steps": "3"}).leaves
    assert [leaf.perturbation.steps for leaf in leaves.values()] == [3, 9]


@pytest.mark.parametrize(
    "text",
    [
        "rot+pgd",
        "grid(rot|trans+rot+pgd, trans=3)+fgsm",
        "worst(rot|trans+pgd, k=3)+fgsm",
        "(rot|clean)+pgd(step=2/255)",
        "pgd(norm=l2)",
    ],
)
def test_the_printed_expression_binds_to_itself(text):
    resolved = str(bind(text, budgets=BUDGETS))
    again = bind(resolved)
    assert str(again) == resolved
    assert [leaf.perturbation for leaf in again.leaves.values()] == [
        leaf.perturbation for leaf in bind(text, budgets=BUDGETS).leaves.values()
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgd+rot", r"rot after pgd would break the eps-ball of pgd; write rot\+pgd"),
        ("(clean|pgd)+trans", "trans after pgd"),
        ("worst(rot+pgd, k=2)+rot", "rot after pgd"),
        ("worst(pgd+rot, k=2)", "rot after pgd"),
        ("pgd:-1", "pgd:-1: budget must be 0 or more"),
        ("rot:181", "budget must be at most 180, not 181"),
        ("rot(30, foo=1)", "unknown argument 'foo'; perturbation 'rot' takes budget"),
        ("rot(30, 1, 2, 3)", "too many arguments|must be bilinear"),
        ("rot(30, interpolation=cubic)", "interpolation must be bilinear or nearest, not cubic"),
        ("rot(30, budget=30)", "given twice"),
        ("pgd(0.1, steps=2.5)", "steps must be a whole number or auto, not 2.5"),
        ("pgd(0.1, random_start=1)", "random_start must be true or false, not 1"),
        ("pgd(0.1, loss=hinge)", "loss must be default or ce or kl or dlr, not hinge"),
        ("pgd(0.1, step=rot)", "step must be a number or none, not rot"),
        ("pgd(eps=1)", r"^pgd\(eps=1\): unknown argument 'eps'.*; did you mean budget\?"),
        ("pgd(0.1, alpha=1)", r"unknown argument 'alpha'.*; did you mean step or rel_step\?"),
        (
            "pgd(0.1, step=5)",
            r"step must be at most 1, 10 times .*, not 5; did you mean steps=5 or step=5/255",
        ),
        (
            "pgd(8/255, step=2)",
            r"0.313725, 10 times .*, not 2; did you mean steps=2 or step=2/255\?",
        ),
        (
            "pgd(1, norm=l2, step=11)",
            r"step must be at most 10, .*, not 11; did you mean steps=11\?$",
        ),
        ("mim(0.1, rel_step=11)", r"rel_step must be at most 10, 10 times .*, not 11$"),
        ("clean:3", "clean takes no arguments"),
        ("worst(k=3)", "nothing to search; write worst"),
        ("worst(rot, k=0)", "k must be a whole number from 1 to 10000, not 0"),
        ("worst(rot, k=2.5)", "k must be a whole number"),
        ("worst(rot, k=1e20)", "k must be a whole number"),
        ("worst(rot, pgd)", "unexpected argument"),
        ("worst(3)", "expected an expression"),
        ("grid(rot=3)", "nothing to search; write grid"),
        ("grid(rot, trans=3)", "unexpected argument trans=3; the grid is over rot"),
        ("grid(rot, rot=2.5)", "rot must be a whole number from 1 to 10000, not 2.5"),
        ("grid(rot+trans, rot=500, trans=50)", "a grid of 1,250,000 points; at most 10,000"),
        ("grid(pgd)", "no spatial or intensity change to lay a grid over"),
        ("grid(worst(rot, k=3))", "with no union, worst or grid inside"),
        ("grid((rot|trans)+pgd)", "with no union, worst or grid inside"),
        ("grid(pgd+rot)", "rot after pgd"),
        ("grid(rot+pgd)+trans", "trans after pgd"),
        ("rto:30", "unknown perturbation 'rto': did you mean rot"),
    ],
)
def test_wrong_expressions_are_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        bind(text, budgets=BUDGETS)
    assert "\n" not in str(caught.value)


def test_a_pixel_attack_after_clean_or_after_spatial_branches_is_fine():
    bind("clean+rot+(trans|clean)+pgd+fgsm", budgets=BUDGETS)


def test_schedules_are_for_all_leaves_or_for_one():
    curriculum = Curriculum.parse(
        "rot+rot:10+pgd",
        ["constant(0.5)", "rot.2=linear(until=1)", "pgd=step(0:1/4, 0.5:1)"],
        budgets=BUDGETS,
    )
    assert curriculum.strengths(at(50)) == {"rot": 0.5, "rot.2": 0.5, "pgd": 1.0}
    assert curriculum.strengths(at(20)) == {"rot": 0.5, "rot.2": 0.2, "pgd": 0.25}


def test_the_default_schedule_is_linear_to_40_percent():
    curriculum = Curriculum.parse("rot:30")
    assert [curriculum.strengths(at(step))["rot"] for step in (0, 20, 40, 90)] == [0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("pdg=linear", r"no perturbation is called 'pdg' here; there is rot, pgd"),
        ("liner", "unknown schedule 'liner': did you mean linear"),
        ("rot=linear(until=2)", "until must be at most 1"),
        ("linear(until=0)", "until must be above 0"),
        ("constant(2)", "value must be at most 1"),
        ("linear+cosine", "expected a single name"),
        ("", r"^schedule '': write \[LABEL=\]SCHEDULE"),
        ("pgd=", r"^schedule 'pgd=': write"),
    ],
)
def test_wrong_schedules_are_refused(schedule, message):
    with pytest.raises(UserError, match=message):
        Curriculum.parse("rot:30+pgd:0.1", [schedule])


def test_an_adaptive_schedule_changes_by_feedback_and_per_image(tiny):
    curriculum = Curriculum.parse("rot:30+pgd:0.1", ["constant", "pgd=earned(rate=0.5)"])
    states = curriculum.start(10)
    indices = torch.tensor([2, 7])
    strengths = curriculum.strengths(at(0), states=states, indices_N=indices)
    assert strengths["pgd"].tolist() == [0, 0]
    moved = curriculum.after_batch(
        states,
        indices_N=indices,
        correct_N=torch.tensor([True, False]),
        strengths=strengths,
        progress=at(0),
        chance=0.5,
    )
    found = curriculum.strengths(at(1), states=moved, indices_N=torch.tensor([7, 2, 0]))
    assert found["pgd"].tolist() == [0, 0.5, 0]
    assert found["rot"] == 1
    assert states["pgd"]["strength"].sum() == 0  # the old state is unchanged
    assert curriculum.after_epoch(moved, {"joint": 0.5})["pgd"]["epochs"] == 1
    with pytest.raises(ValueError, match="give indices_N"):
        curriculum.strengths(at(0), states=states)


def test_a_strength_outside_0_to_1_is_refused():
    curriculum = Curriculum.parse("rot:30")
    wild = type(curriculum)(
        tree=curriculum.tree,
        schedules={"rot": lambda progress, state: 1.5},
        schedule_calls=curriculum.schedule_calls,
    )
    with pytest.raises(UserError, match=r"schedule of rot gave a strength of 1\.5"):
        wild.strengths(at(0))


class ThirdParty:
    """A perturbation whose attributes and output are chosen by the test."""

    unit, budget, norm_bound, channels, training_only = "share", 1.0, None, None, False

    def __init__(self, output=lambda x: x, kind="intensity"):
        self.output, self.kind = output, kind

    def __call__(self, x, y, *, strength, victim, generator):
        return self.output(x)


def registered(factory):
    loaded = registry.build_registry()
    module = SimpleNamespace(
        curricula_perturbations=hookimpl(
            lambda: [Record(name="odd", factory=factory, summary="odd")],
            specname="curricula_perturbations",
        )
    )
    loaded.add(module, registry.Provider(name="third-party", source="file"))
    registry.use(loaded)


def test_the_output_of_third_party_code_is_clamped_to_an_image(scene):
    registered(lambda: ThirdParty(lambda x: (x + 5).requires_grad_()))
    views = views_of("odd", scene)
    assert (views.perturbed == 1).all()
    assert not views.perturbed.requires_grad
    registered(lambda: ThirdParty(lambda x: x[1:]))
    with pytest.raises(UserError, match="odd turned images of shape"):
        views_of("odd", scene)
    for other in (lambda x: (x * 255).byte(), lambda x: x > 0.5, lambda x: x + 0j, lambda x: None):
        registered(lambda other=other: ThirdParty(other))
        with pytest.raises(UserError, match=r"odd returned .*; a perturbation returns floating"):
            views_of("odd", scene)


def test_undeclared_or_wrong_attributes_are_named():
    registered(lambda: ThirdParty(kind="sound"))
    with pytest.raises(UserError, match="its kind is 'sound'; it must be spatial"):
        bind("odd")
    registered(lambda: len)
    with pytest.raises(UserError, match="declares no kind, unit, budget"):
        bind("odd")
    broken = check_perturbation(len)
    assert broken["attributes_are_declared"].startswith("AssertionError: it declares no kind")


def test_true_false_and_none_are_plain_words_where_a_parameter_wants_words():
    class Moody(ThirdParty):
        def __init__(self, mode: Literal["none", "true", "soft"] = "none", label: str = "false"):
            super().__init__()
            self.mode, self.label = mode, label

    registered(Moody)
    for text in ("odd", "odd(mode=true, label=none)", "odd(mode=soft)"):
        resolved = str(bind(text))
        assert str(bind(resolved)) == resolved
        (leaf,) = bind(resolved).leaves.values()
        assert isinstance(leaf.perturbation.mode, str)
        assert isinstance(leaf.perturbation.label, str)


@pytest.mark.parametrize("text", ["pgd:1e39", "fgsm:1e39", "trans:1e300", "pgd(0.1, step=1e39)"])
def test_a_budget_too_large_for_float32_is_refused(text):
    with pytest.raises(UserError, match="must be at most 1,000,000, not 1e"):
        bind(text)


def test_a_schedule_in_shorthand_prints_its_stages():
    calls = Curriculum.parse("rot:30", ["step(count=2, until=0.5)"]).schedule_calls
    assert str(calls["rot"]) == "step(0:0, 0.25:0.5, 0.5:1)"
    with pytest.raises(ValueError, match="strength must lie from 0 to 1, not 7"):
        Threat.parse("rot:30", strength=7)


BAD_BATCHES = {
    "a network as victim": (
        {"victim": nn.Flatten()},
        r"victim must be a curricula.ModelVictim, not Flatten.*; write curricula.ModelVictim\(mod",
    ),
    "no victim": ({"victim": None}, "victim must be a curricula.ModelVictim, not None"),
    "images from 0 to 255": (
        {"x": lambda x: x * 255},
        r"images must lie in \[0, 1\], not from 0.* to 25\d; write x / 255$",
    ),
    "normalised images": ({"x": lambda x: x - 0.5}, r"\[0, 1\], not from -0.* to 0.5; write \(x"),
    "whole numbers": (
        {"x": lambda x: x.int()},
        r"float32 in \[0, 1\], not torch.int32; write x.fl",
    ),
    "bytes": ({"x": lambda x: x.byte()}, "not torch.uint8; write x.float"),
    "one image": (
        {"x": lambda x: x[0]},
        r"a dense tensor NCHW, .* not torch.float32 of shape \(1, 12, 12\)",
    ),
    "an array": ({"x": lambda x: x.numpy()}, r"images must be a dense tensor NCHW.* not array\("),
    "sparse": ({"x": lambda x: x.to_sparse()}, r"must be a dense tensor NCHW.* not torch.float32"),
    "ignored": (
        {"y": lambda y: y.index_fill(0, torch.tensor(2), -100)},
        "must lie from 0 to 2, .* from -100 to 2",
    ),
    "other images": ({"x": lambda x: x[..., :9]}, "cannot take torch.float32 images of 1x12x9 "),
    "few labels": ({"y": lambda y: y[:3]}, r"int64 tensor of shape \(8,\), .* of shape \(3,\)"),
    "float labels": ({"y": lambda y: y.float()}, "labels must be an int64 .* not torch.float32 of"),
    "one-hot labels": ({"y": lambda y: torch.eye(3).long()[y]}, r"of shape \(8,\), .* \(8, 3\)"),
    "a list of labels": ({"y": lambda y: y.tolist()}, r"labels must be .* not \[0, 1, 2, "),
    "label 12": ({"y": lambda y: y + 12}, "must lie from 0 to 2, since .* not from 12 to 14"),
    "label -1": ({"y": lambda y: y - 1}, "must lie from 0 to 2, since .* not from -1 to 1"),
    "a seed": ({"generator": 3}, "generator must be a torch.Generator, not 3"),
    "one strength": ({"strengths": 1.0}, "strengths must map each of rot, pgd to .*, not 1.0"),
    "a missing strength": (
        {"strengths": {"rot": 1.0}},
        "each of rot, pgd to a number .* not {'rot'",
    ),
    "a large strength": (
        {"strengths": {"rot": 2.0, "pgd": 1.0}},
        "of rot must lie from 0 to 1, not 2",
    ),
    "text": ({"strengths": {"rot": 1, "pgd": "1"}}, "strength of pgd must be a number, .* not '1'"),
    "one of many is large": (
        {"strengths": {"rot": 1.0, "pgd": torch.arange(8) / 4}},
        "the strength of pgd must lie from 0 to 1, not 1.75",
    ),
    "strengths of others": (
        {"strengths": {"rot": torch.ones(3), "pgd": 1.0}},
        r"strength of rot must be a number or a tensor of shape \(8,\), .* of shape \(3,\)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_bad_batch_is_one_line(scene, changes, message):
    victim, x, y = scene
    given = {"victim": victim, "generator": seeded(), "x": x, "y": y}
    given["strengths"] = {"rot": 1.0, "pgd": 1.0}
    for name, value in changes.items():
        given[name] = value(given[name]) if name in ("x", "y") else value
    text, batch = "rot:30+pgd(0.1, steps=1)", (given.pop("x"), given.pop("y"))
    with pytest.raises(UserError, match=message) as caught:
        Curriculum.parse(text)(*batch, **given)
    assert len(str(caught.value)) < 350
    del given["strengths"]  # a threat has its own
    if "strengths" not in changes:
        with pytest.raises(UserError, match=message):
            Threat.parse(text)(*batch, **given)


@pytest.mark.parametrize("text", ["worst(rot:30, k=2)", "rot:30|fgsm:0.1", "apgd:0.1", "mim:0.1"])
def test_a_label_that_the_model_lacks_is_one_line_in_any_expression(scene, text):
    victim, x, y = scene
    message = "labels must lie from 0 to 2, since the model has 3"
    with pytest.raises(UserError, match=message):
        views_of(text, (victim, x, y + 3))
    with pytest.raises(UserError, match=message):
        Threat.parse(text)(x, y + 3, victim=victim, generator=seeded())


def test_an_error_of_another_cause_stays_as_it_is(scene, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("broken")

    monkeypatch.setattr(PGD, "__call__", broken)
    with pytest.raises(RuntimeError, match=r"^broken$"):
        views_of("pgd:0.1", scene)


def test_images_may_leave_their_range_by_rounding_and_keep_their_gradient(scene):
    victim, x, y = scene
    views = views_of("rot:30", (victim, (x * 1.0001).requires_grad_(), y))
    assert views.perturbed.max() <= 1


def test_adaptive_strengths_need_their_states_and_indices():
    now = Progress(step=1, total_steps=10, epoch=0, total_epochs=1)
    curriculum = Curriculum.parse("rot:30", ["per-image"])
    states = curriculum.start(5)
    for given, message in [
        ({}, r"schedule of rot adapts .*: give states=, .* curriculum.start\(NUM_TRAIN\)"),
        ({"states": {"pgd": {}}}, r"schedule of rot adapts to the training: give states="),
        ({"states": states}, r"the schedule of rot is per image: give indices_N"),
        ({"states": states, "indices_N": torch.arange(9)}, r"indices_N must lie below 5, the num"),
    ]:
        with pytest.raises(UserError, match=message):
            curriculum.strengths(now, **given)
    for number in (0, -1, "a"):
        with pytest.raises(UserError, match=r"num_train must be .*1 or more, not"):
            curriculum.start(number)


def test_strengths_need_a_progress():
    with pytest.raises(
        UserError, match=r"progress must be a curricula.Progress, not 0.5; write Pr"
    ):
        Curriculum.parse("rot:30").strengths(0.5)
