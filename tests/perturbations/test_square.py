"""square follows the paper's schedule and squares, and uses only logits."""

import itertools
import math

import pyautoattack.square
import pytest
import torch
from torch import nn

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.perturbations.attacks.square import Square, margin, share_changed
from curricula.victim.model_victim import ModelVictim

X = 0.2 + 0.6 * torch.rand((7, 2, 6, 9), generator=torch.Generator().manual_seed(2))
Y = torch.arange(7) % 3


class LogitsOnly:
    """A victim without gradients, which records its queries."""

    def __init__(self, model):
        self.model, self.queries, self.index = model, [], []

    def logits(self, x):
        assert not torch.is_grad_enabled()
        self.queries.append(x)
        return self.model(x)

    def subset(self, index):
        self.index.append(index)
        return self


def linear_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))


@pytest.mark.parametrize(
    ("query", "share"),
    [
        (0, 0.8), (10, 0.8), (11, 0.4), (50, 0.4), (51, 0.2), (200, 0.2), (201, 0.1), (500, 0.1),
        (501, 0.05), (1000, 0.05), (1001, 0.025), (2000, 0.025), (2001, 0.0125), (4000, 0.0125),
        (4001, 0.00625), (6000, 0.00625), (6001, 0.003125), (8000, 0.003125), (8001, 0.0015625),
    ],
)  # fmt: skip
def test_the_share_follows_the_papers_table(query, share):
    assert share_changed(query, 10_000, 0.8) == pytest.approx(share)
    # Fewer queries pass through the same shares, sooner.
    assert share_changed(query // 100, 100, 0.8) == share_changed(query // 100 * 100, 10_000, 0.8)


def test_the_margin_is_the_labels_lead():
    logits = torch.tensor([[3.0, 1, 2], [3.0, 1, 2], [0.0, 0, -1]])
    assert margin(logits, torch.tensor([0, 1, 0])).tolist() == [1, -2, 0]


def test_the_search_starts_with_stripes_and_only_improves(generator):
    """Each query lies at a corner of the ball, and differs from the best so far in one square of
    the image, with one sign per channel; the margin of the best never increases."""
    model = linear_model()
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([50.0, 0, 0]))  # nothing fools it
    victim, y, eps = LogitsOnly(model), torch.zeros(7, dtype=torch.long), 0.1
    found = Square(budget=eps, queries=61)(
        X, y, strength=1.0, victim=victim, generator=generator
    )  # fmt: skip
    image, stripes, *squares = victim.queries
    assert len(squares) == 59
    assert torch.equal(image, X)
    torch.testing.assert_close((stripes - X).abs(), torch.full_like(X, eps))
    assert torch.equal((stripes > X), (stripes > X)[:, :, :1].expand_as(X))
    best, places = stripes, []
    lead = margin(model(best), y)
    for number, candidate in enumerate(squares):
        torch.testing.assert_close((candidate - X).abs(), torch.full_like(X, eps))
        side = min(max(round(math.sqrt(share_changed(number, 61, 0.8) * 54)), 1), 6)
        changed = (candidate != best).any(1)
        for i in range(7):
            rows, columns = changed[i].any(1).nonzero(), changed[i].any(0).nonzero()
            if len(rows):
                assert rows.max() - rows.min() < side
                assert columns.max() - columns.min() < side
            if len(rows) and side == 1:
                places.append((number, int(rows), int(columns)))
        now = margin(model(candidate), y)
        best = torch.where((now < lead)[:, None, None, None], candidate, best)
        lead = torch.minimum(now, lead)
    torch.testing.assert_close(found, best)
    assert len(set(places)) > len(
        {number for number, _, _ in places}
    )  # each image has its own squares


def test_the_squares_shrink_at_the_papers_queries(generator):
    """With 100 queries, square n has the side of the paper's square 100 n; 40 x 40 pixels."""
    x, y = torch.full((64, 1, 40, 40), 0.5), torch.zeros(64, dtype=torch.long)
    victim = LogitsOnly(
        lambda x: torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3)
    )  # the margin never decreases
    Square(budget=0.1, queries=100)(x, y, strength=1.0, victim=victim, generator=generator)
    _, stripes, *squares = victim.queries
    # round(sqrt(1600 p)) for p of 0.8, 0.2, 0.1, 0.05, 0.025, ...: from that number on.
    sides = {0: 36, 1: 18, 3: 13, 6: 9, 11: 6, 21: 4, 41: 3, 61: 2}
    for number, candidate in enumerate(squares):
        changed = (candidate != stripes).any(1)
        side = sides[max(first for first in sides if first <= number)]
        for seen in (changed.any(1).int(), changed.any(2).int()):
            # Stripes of the square's sign do not show; some of 64 images have none at the ends.
            width = 40 - seen.argmax(1) - seen.flip(1).argmax(1)
            assert width[seen.any(1)].max() == side


def test_a_fooled_image_is_not_changed_further(generator):
    """The first image is fooled by the stripes and by every square; the second only at query 7; the
    third never."""
    victim = LogitsOnly(None)

    def scripted(x):
        number = len(victim.queries) - 1
        others = [number if number > 0 else -9, 5 if number == 7 else -number - 1, -9]
        return torch.tensor([[0.0, float(other)] for other in others])

    victim.model = scripted
    y = torch.zeros(3, dtype=torch.long)
    found = Square(budget=0.1, queries=20)(
        X[:3], y, strength=1.0, victim=victim, generator=generator
    )
    assert [len(query) for query in victim.queries] == [3] * 20
    for image, query in ((0, 1), (1, 7), (2, 1)):
        assert torch.equal(found[image], victim.queries[query][image])
    assert not torch.equal(found[0], victim.queries[-1][0])


def test_squares_reach_the_last_pixel(generator):
    """Only the last pixel can fool this model."""

    class Last(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), (x[:, 1, -1, -1] - 0.55) * 100], dim=1)

    x, y = torch.full((9, 2, 5, 8), 0.5), torch.zeros(9, dtype=torch.long)
    attack = Square(budget=0.06, queries=400)
    found = attack(x, y, strength=1.0, victim=LogitsOnly(Last()), generator=generator)
    torch.testing.assert_close(found[:, 1, -1, -1], torch.full((9,), 0.56))


def test_on_a_linear_model_it_approaches_the_closed_form(generator):
    """With two classes the worst change is eps along the signs; with 54 pixels in two channels a
    few hundred queries find nearly all of it."""
    torch.manual_seed(0)
    layer = nn.Linear(108, 2)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
        layer.bias.copy_(torch.tensor([50.0, 0.0]))
    model, y = nn.Sequential(nn.Flatten(), layer), torch.zeros(7, dtype=torch.long)
    worst = 2 * 0.1 * layer.weight[0].detach().abs().sum()
    gained = {}
    for queries in (10, 100, 2000):
        attack = Square(budget=0.1, queries=queries)
        found = attack(X, y, strength=1.0, victim=ModelVictim(model), generator=generator)
        decrease = (margin(model(X), y) - margin(model(found), y)).detach()
        gained[queries] = float((decrease / worst).min())
    assert gained[10] < gained[100] < gained[2000] <= 1 + 1e-5
    assert gained[2000] > 0.95


def test_misclassified_images_are_unchanged_and_not_queried_again(generator):
    model = linear_model()
    clean_wrong = model(X).argmax(1) != Y
    assert clean_wrong.any()
    assert not clean_wrong.all()
    victim = LogitsOnly(model)
    strength = torch.tensor([1.0, 1, 1, 0, 0, 0.5, 1])
    found = Square(budget=0.3, queries=200)(
        X, Y, strength=strength, victim=victim, generator=generator
    )
    assert torch.equal(found[clean_wrong | (strength == 0)], X[clean_wrong | (strength == 0)])
    sizes = [len(query) for query in victim.queries]
    assert sizes[0] == 7
    assert sizes[1] == int((~clean_wrong & (strength > 0)).sum())
    assert sizes == sorted(sizes, reverse=True)
    # With a ball this large a linear model is soon fooled, and then no longer queried.
    now_wrong = model(found).argmax(1) != Y
    assert now_wrong[strength == 1].all()
    assert len(sizes) < 200


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.5), ("l1", 6.0)])
@pytest.mark.parametrize("side", [10, 28])
def test_every_query_of_an_image_is_that_of_the_authors_code(norm, eps, side, monkeypatch):
    """Their code draws the windows, signs and directions that ours has drawn."""
    torch.manual_seed(3)
    x, y = torch.rand((1, 2, side, side)), torch.zeros(1, dtype=torch.long)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * side**2, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        model[3].bias.copy_(torch.tensor([50.0, 0, 0]))  # nothing fools it
    draws, randint = [], torch.randint

    def recorded(*arguments, **keywords):
        draws.append(randint(*arguments, **keywords))
        return draws[-1]

    victim = LogitsOnly(model)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", recorded)
        Square(budget=eps, norm=norm, queries=40)(
            x, y, strength=1.0, victim=victim, generator=torch.Generator().manual_seed(0)
        )

    turned, signs = draws[:2]
    tiles = side // (side // 5)
    places = [(row, column) for row in range(tiles) for column in range(tiles)]
    turns = [bool(turned[0, 0, row, 0, column, 0]) for row, column in places]
    choices = [2.0 * signs[:, :, row, :, column] - 1 for row, column in places]
    numbers = []
    for query in range(2, len(draws), 6):
        numbers += [int(draws[query + each]) for each in range(4)]
        turns.append(bool(draws[query + 4]))
        choices.append(2.0 * draws[query + 5].reshape(1, 2, 1, 1) - 1)
    queried = []

    class Scripted(pyautoattack.square.SquareAttack):
        def random_int(self, low=0, high=1, shape=(1,)):
            return numbers.pop(0)

        def random_choice(self, shape):
            return choices.pop(0)

        def eta(self, side):
            pyramid, turn = super().eta(side), turns.pop(0)
            upright = bool(pyramid[0, side // 2] * pyramid[-1, side // 2] < 0)
            return pyramid.T if turn == upright else pyramid

    attack = Scripted(
        lambda x: queried.append(x.clone()) or model(x).detach(),
        norm=norm.upper(), eps=eps, n_queries=40, device="cpu",
    )  # fmt: skip
    attack.init_hyperparam(x)
    with torch.random.fork_rng(), pytest.raises(IndexError):  # our draws are used up
        attack.attack_single_run(x, y)
    ours = victim.queries[1:]
    assert len(ours) == 39
    for mine, theirs in zip(ours, queried, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)
    assert any(not torch.equal(a, b) for a, b in itertools.pairwise(ours))


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.5), ("l1", 2.0)])
@pytest.mark.parametrize("shape", [(7, 2, 6, 9), (7, 1, 3, 17), (7, 1, 1, 1)])
def test_the_windows_fit_images_of_any_size_and_keep_the_ball(norm, eps, shape, generator):
    x = torch.rand(shape, generator=generator)
    victim = LogitsOnly(lambda x: torch.stack([torch.full((len(x),), 9.0), x.sum((1, 2, 3))], 1))
    strength = torch.linspace(0.4, 1, 7)
    y = torch.zeros(7, dtype=torch.long)
    Square(budget=eps, norm=norm, queries=30)(
        x, y, strength=strength, victim=victim, generator=generator
    )
    for query in victim.queries[1:]:
        assert query.min() >= 0
        assert query.max() <= 1
        length = torch.linalg.vector_norm((query - x).flatten(1), 2 if norm == "l2" else 1, 1)
        assert (length <= eps * strength + 1e-5).all()


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_the_number_of_queries_is_kept(queries, generator):
    victim = LogitsOnly(nn.Sequential(nn.Flatten(), nn.Linear(108, 1)))
    victim.model = lambda x: torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3)
    y = torch.zeros(7, dtype=torch.long)
    found = Square(budget=0.1, queries=queries)(
        X, y, strength=1.0, victim=victim, generator=generator
    )
    assert len(victim.queries) == queries
    assert torch.equal(found, X) == (queries == 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("queries=0", "queries must be 1 or more"),
        ("p_init=0", "p_init must be above 0"),
        ("p_init=2", "p_init must be at most 1"),
        ("steps=3", "unknown argument 'steps'"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        Threat.parse(f"square(0.1, {arguments})")
