"""Intervals over seeds, held to their promise by simulation."""

import math
from statistics import NormalDist, mean, stdev

import numpy as np
import pytest
from scipy import stats

from curricula.evaluation.intervals import seeds_interval, wilson_interval

REPEATS = 600
NORMAL = NormalDist()


def simulated(generator, *, share, images, seeds, of_images, of_seeds):
    """Return outcomes (seeds, images) and the accuracy over all seeds and images.

    An image is classified correctly where the sum of a threshold and three normal draws is
    positive: one of the image (variance ``of_images``), one of the seed (standard deviation
    ``of_seeds``), and one of both (the rest of variance 1).
    """
    threshold = NORMAL.inv_cdf(share)
    latent = threshold + generator.normal(size=images) * math.sqrt(of_images)
    latent = latent + generator.normal(size=(seeds, 1)) * of_seeds
    latent = latent + generator.normal(size=(seeds, images)) * math.sqrt(1 - of_images)
    return latent > 0, NORMAL.cdf(threshold / math.sqrt(1 + of_seeds**2))


def coverage(known, **setting):
    """Return the share of intervals that contain the accuracy."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(REPEATS):
        outcomes_SN, accuracy = simulated(generator, **setting)
        n = outcomes_SN.shape[1]
        images_SN = outcomes_SN if known else None
        low, high = seeds_interval([*map(int, outcomes_SN.sum(1))], n, images_SN)
        assert 0 <= low < high <= 1
        inside += low <= accuracy <= high
    return inside / REPEATS


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("share", "seeds", "of_images", "of_seeds"),
    [
        (0.7, 3, 0.25, 0),  # outcomes of two seeds correlate by 0.15
        (0.7, 3, 0.85, 0),  # by 0.64
        (0.97, 3, 0.9, 0),
        (0.7, 3, 0.5, 0.1),  # accuracies of the seeds spread by 2.8 points
        (0.7, 5, 0.5, 0.3),
        (0.7, 2, 0.5, 0),
        (0.7, 2, 0.5, 0.1),
    ],
)
def test_the_interval_covers_what_it_promises(known, share, seeds, of_images, of_seeds):
    """The error of a share of 600 is 0.9 points at 95 %."""
    found = coverage(
        known, share=share, images=300, seeds=seeds, of_images=of_images, of_seeds=of_seeds
    )
    assert found >= (0.88 if seeds == 2 else 0.93)
    assert found <= (0.99 if known else 1)  # not wide for nothing


def test_pooled_images_would_cover_less():
    """The setting can tell a right interval from the one that counts each image once per seed."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(REPEATS):
        outcomes_SN, accuracy = simulated(
            generator, share=0.7, images=300, seeds=3, of_images=0.85, of_seeds=0
        )
        low, high = wilson_interval(outcomes_SN.sum(), outcomes_SN.size)
        inside += low <= accuracy <= high
    assert inside / REPEATS < 0.86


def test_with_many_images_it_is_students_interval_of_the_seeds():
    accuracies, n = [0.61, 0.6, 0.62], 10**8
    low, high = seeds_interval([round(each * n) for each in accuracies], n)
    half = stats.t.ppf(0.975, 2) * stdev(accuracies) / math.sqrt(3)
    assert (high - low) / 2 == pytest.approx(half, rel=0.01)
    assert low < mean(accuracies) < high


def test_where_seeds_agree_on_every_image_it_is_that_of_one_seed():
    outcomes_N = np.random.default_rng(0).random(400) < 0.8
    correct = int(outcomes_N.sum())
    same = seeds_interval([correct] * 3, 400, np.stack([outcomes_N] * 3))
    assert same == pytest.approx(wilson_interval(correct, 400), abs=2e-4)


@pytest.mark.parametrize("correct", [[0, 0, 0], [50, 50, 50], [50]])
def test_at_the_ends_and_for_one_seed_it_is_wilsons_for_the_images(correct):
    assert seeds_interval(correct, 50) == wilson_interval(correct[0], 50)
