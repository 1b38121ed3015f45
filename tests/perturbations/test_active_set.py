"""A threat attacks only active images, with the same results as attacking all."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.small import BUDGETS, small_perturbations
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.data.dataset import in_order, load_data
from curricula.evaluation.accuracy import evaluate_threats
from curricula.expressions.random_streams import Streams
from curricula.victim.forms import Choice
from curricula.victim.model_victim import ModelVictim

N = 60

PARTLY = {
    # Threats that fool some images soon, some late, and most never.
    "restarts": "pgd(0.15, steps=2, rel_step=0.1, restarts=5)",
    "restarts of apgd": "apgd(0.06, steps=1, restarts=5)",
    "worst": "worst(rot:10+pgd(0.03, steps=2), k=6)",
    "union": "rot:15|pgd(0.03, steps=3)|trans:1+fgsm:0.02",
    "worst of a union": "worst(rot:12|trans:1, k=3)+pgd(0.01, steps=2)",
    "worst of restarts": "worst(rot:10+pgd(0.05, steps=2, rel_step=0.2, restarts=3), k=3)",
    "grid": "grid(rot:10+pgd(0.02, steps=2), rot=5)",
    "queries": "square(0.2, queries=40)",
    "a union with queries": "square(0.2, queries=40)|rot:20",
}


class Counting(nn.Module):
    """A model that records the number of images in each pass."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        # shared with deep copies
        self.seen = _Shared()

    def forward(self, x):
        self.seen.images.append(len(x))
        return self.model(x)


class _Shared:
    def __init__(self):
        self.images = []

    def __deepcopy__(self, memo):
        return self


@pytest.fixture(autouse=True)
def _no_equivalence_check(monkeypatch):
    """Count only the attack's passes: tests/victim/test_equivalence.py tests the check."""
    monkeypatch.setattr("curricula.evaluation.accuracy._check_gradient", lambda *_: None)
    monkeypatch.setattr("curricula.evaluation.accuracy._is_random", lambda *_: False)
    monkeypatch.setattr("curricula.evaluation.accuracy._notices", lambda *_, **__: ())
    monkeypatch.setattr("curricula.victim.frozen.outputs_match", lambda form, network, x: True)
    monkeypatch.setattr(
        "curricula.victim.frozen.choose_form", lambda network, x, least: Choice(form=least)
    )


@pytest.fixture(scope="module")
def scene():
    """Digits, a ridge regression on random features of them, and test images."""
    data = load_data("digits")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(1, 16, 5, stride=4, bias=False), nn.ReLU(), nn.Flatten())
        known = features(data.images(data.train.pixels)).numpy()
        targets = 20 * F.one_hot(data.train.labels, 10).float().numpy()
        ridge = known.T @ known + 20 * np.eye(known.shape[1])
        readout = nn.Linear(known.shape[1], 10, bias=False)
        readout.weight.copy_(torch.from_numpy(np.linalg.solve(ridge, known.T @ targets).T))
    return data, Counting(nn.Sequential(features, readout)), data.test[:N]


def run(scene, threat, *, active=True, batch_size=N, seed=0):
    """Return (the adversarial images, which are robust, number of images passed to the model)."""
    data, model, split = scene
    victim, generator = ModelVictim(model, early_stop=active), torch.Generator().manual_seed(0)
    model.seen.images.clear()
    made = [
        Threat.parse(threat)(
            data.images(batch.pixels),
            batch.labels,
            victim=victim,
            generator=generator,
            streams=Streams.of(seed, torch.arange(N)[i * batch_size :][: len(batch)]),
        )
        for i, batch in enumerate(in_order(split, batch_size))
    ]
    passes = sum(model.seen.images)
    x = torch.cat(made)
    with torch.no_grad():
        return x, model(x).argmax(1) == split.labels, passes


@pytest.mark.parametrize("threat", PARTLY.values(), ids=PARTLY)
def test_leaving_out_fooled_images_changes_no_accuracy_and_saves_passes(scene, threat):
    _, right, passes = run(scene, threat)
    _, all_right, all_passes = run(scene, threat, active=False)
    assert torch.equal(right, all_right)
    assert 0.15 * N < right.sum() < 0.85 * N
    if not threat.startswith("square"):  # which always leaves them out
        assert passes < 0.95 * all_passes


@pytest.mark.parametrize("threat", PARTLY.values(), ids=PARTLY)
def test_an_images_result_does_not_depend_on_its_batch(scene, threat):
    x, right, _ = run(scene, threat)
    for batch_size in (7, 45):
        found, found_right, _ = run(scene, threat, batch_size=batch_size)
        assert torch.equal(found_right, right)
        # A convolution may round differently and flip a sign, but only for a few images.
        assert ((found - x).flatten(1).abs().amax(1) < 1e-5).float().mean() > 0.95


def test_another_seed_gives_other_draws(scene):
    threat = PARTLY["restarts"]
    assert not torch.equal(run(scene, threat)[0], run(scene, threat, seed=1)[0])


def candidates(scene, threat, k):
    """Yield k candidates for every image, drawn as a search draws them, without leaving any out."""
    data, model, split = scene
    x = data.images(split.pixels)
    images = torch.arange(N)
    for number in range(k):
        streams = Streams.of(0, images).split().fold_in(images, images * 0 + number)
        yield Threat.parse(threat)(
            x,
            split.labels,
            victim=ModelVictim(model),
            generator=torch.Generator(),
            streams=streams,
        )


@pytest.mark.parametrize("images", [1, 3 * N, 1000 * N])
@pytest.mark.parametrize("inner", ["rot:25", "rot:10+pgd(0.03, steps=2)", "rot:9+trans:2"])
def test_worst_of_k_equals_a_search_over_all_candidates(scene, inner, images, monkeypatch):
    """The result is the first candidate that fools, or the one of highest loss if none does. An
    image is attacked by at most twice as many candidates as fail to fool it."""
    k = 7
    monkeypatch.setattr("curricula.expressions.nodes.PIXELS_AT_ONCE", images * 28 * 28)
    model, labels = scene[1], scene[2].labels
    all_of_them = list(candidates(scene, inner, k))
    with torch.no_grad():
        logits = torch.stack([model(x) for x in all_of_them])
    fools = logits.argmax(2) != labels
    losses = torch.stack([F.cross_entropy(found, labels, reduction="none") for found in logits])
    first = torch.where(fools.any(0), fools.int().argmax(0), k)
    choice = torch.where(fools.any(0), first, losses.argmax(0))
    found, right, passes = run(scene, f"worst({inner}, k={k})")
    expected = torch.stack(all_of_them)[choice, torch.arange(N)]
    assert ((found - expected).flatten(1).abs().amax(1) < 1e-5).float().mean() > 0.95
    assert torch.equal(right, ~fools.any(0))
    assert len(choice.unique()) > 3

    each = 3 if "pgd" in inner else 1  # passes per candidate
    tried = (first + 1).clamp_max(k)  # at least
    assert passes >= each * int(tried.sum())
    if images == 1:
        assert passes == each * int(tried.sum())
    assert passes <= each * int((2 * first).clamp(1, k).sum())


def test_restarts_attack_only_active_images(scene):
    """Each restart computes gradients for the images that are still robust."""
    steps, k = 3, 4
    right, passes = [], []
    for restarts in range(1, k + 1):
        _, found, seen = run(scene, f"pgd(0.12, steps={steps}, rel_step=0.1, restarts={restarts})")
        right.append(found)
        passes.append(seen)
    for before, after in pairwise(right):
        assert not (after & ~before).any()  # a fooled image stays fooled
    active = [N, *(int(found.sum()) for found in right)]
    assert active[-1] < active[1] < N
    expected = sum((steps + 1) * active[i] for i in range(k))
    assert passes[-1] == expected
    assert passes[0] == steps * N


def test_a_later_attack_gets_only_images_that_the_earlier_ones_did_not_fool(scene):
    _, first, _ = run(scene, "pgd(0.04, steps=3)|clean")
    _, _, passes = run(scene, "pgd(0.04, steps=3)|fgsm:0.01")
    assert passes == 4 * N + 2 * int(first.sum())


def test_equal_branches_draw_like_candidates_of_worst(scene):
    """The second branch does not repeat the first."""
    found, _, _ = run(scene, "rot:25|rot:25|rot:25")
    expected, _, _ = run(scene, "worst(rot:25, k=3)")
    torch.testing.assert_close(found, expected)


def test_training_attacks_all_images(scene):
    data, model, split = scene
    x = data.images(split.pixels)
    for text, passes in (
        ("pgd(0.05, steps=2, restarts=3)", 3 * 3),
        ("worst(rot:30+pgd(0.05, steps=2), k=4)", 4 * 3),
    ):
        curriculum = Curriculum.parse(text)
        model.seen.images.clear()
        curriculum(
            x,
            split.labels,
            strengths=dict.fromkeys(curriculum.tree.leaves, 1.0),
            victim=ModelVictim(model),
            generator=torch.Generator().manual_seed(0),
        )
        assert sum(model.seen.images) == passes * N


def test_accuracies_do_not_depend_on_the_batch_size(scene):
    data, model, split = scene
    threats = {name: Threat.parse(text) for name, text in PARTLY.items()}
    whole = evaluate_threats(model, data, split, threats)
    assert len({found.correct for found in whole}) > 3
    for batch_size in (9, 60):
        assert evaluate_threats(model, data, split, threats, batch_size=batch_size) == whole


def test_equal_threats_are_run_once(scene):
    data, model, split = scene
    texts = {"a": "pgd(0.05, steps=2)", "b": "rot:9", "c": "pgd(0.05, steps=2, restarts=1)"}
    threats = {name: Threat.parse(text) for name, text in texts.items()}
    batches = []
    model.seen.images.clear()
    found = evaluate_threats(
        model, data, split, threats, batch_size=20, after_batch=lambda: batches.append(1)
    )
    assert sum(model.seen.images) == N + 3 * N + N  # the first are the clean images
    assert len(batches) == 3 * 3
    assert [result.name for result in found] == ["a", "b", "c"]
    assert found[0].correct == found[2].correct
    assert found[0].threat == found[2].threat != found[1].threat

    model.seen.images.clear()
    halved = Threat.parse(texts["a"], strength=0.5)
    evaluate_threats(model, data, split, {"a": threats["a"], "half": halved})
    assert sum(model.seen.images) == N + 2 * 3 * N


def test_evaluation_leaves_out_fooled_images(scene):
    data, model, split = scene
    *_, passes = run(scene, PARTLY["restarts"])
    model.seen.images.clear()
    evaluate_threats(model, data, split, {"restarts": Threat.parse(PARTLY["restarts"])})
    assert sum(model.seen.images) == N + passes + N


OURS = {
    name: call
    for name, call in small_perturbations().items()
    # those of another library draw for a batch from one seed; nfgsm is for training only
    if name not in ("autoattack", "nfgsm") and not name.startswith("torchattacks-")
}


WITHOUT_DRAWS = (
    *("fgsm", "mim", "grey"),
    *("brighten", "defocus-blur", "gaussian-blur", "jpeg", "low-contrast", "pixelate", "saturate"),
    "zoom-blur",
)


@pytest.mark.parametrize("name", OURS)
def test_an_image_gets_the_same_draws_alone_and_in_a_batch(name, generator):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 4)).double()
    victim = ModelVictim(model)
    x = torch.rand((8, 3, 12, 10), generator=generator, dtype=torch.float64)
    y = torch.arange(8) % 4
    threat = Threat.parse(OURS[name], budgets=BUDGETS)

    def made(index, seed=0):
        return threat(
            x[index],
            y[index],
            victim=victim,
            generator=torch.Generator().manual_seed(len(index)),
            streams=Streams.of(seed, index),
        )

    images = torch.arange(8)
    whole = made(images)
    for index in ([5], [6, 1, 3], [2, 4]):
        part = made(torch.tensor(index))
        torch.testing.assert_close(part, whole[index], rtol=0, atol=1e-4)
    if name not in WITHOUT_DRAWS:
        assert not torch.allclose(whole, made(images, seed=1), atol=1e-3)
