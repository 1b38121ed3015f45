"""The proposals of a search: they follow from its seed and its earlier trials alone."""

import attrs
import optuna
import pytest
from optuna.trial import TrialState

from curricula.sweeps import sampling
from curricula.sweeps.sampling import POPULATION, RANDOM_TRIALS, propose
from curricula.sweeps.search_spec import check_trials, parse_search

SEARCH = parse_search(
    """
[base]
schedule = ["linear(until={end})"]
[ranges]
lr = { low = 0.001, high = 0.1, log = true }
end = { low = 0.05, high = 0.95 }
batch_size = { low = 16, high = 64, step = 16 }
objective = ["at", "trades(beta=6)"]
"""
)
SAMPLERS = ["tpe", "nsga2"]


def measured(trial):
    """Accuracies of a trial: a ramp that ends late costs the second, and trades helps it."""
    spatial = 0.3 + 0.6 * trial["end"] - abs(trial["lr"] - 0.01)
    adversarial = 0.8 - 0.6 * trial["end"] + 0.1 * (trial["objective"] != "at")
    return spatial, adversarial


def run(search, count, earlier=()):
    """The trials of a search and how they end: each fifth is pruned, each eleventh fails."""
    history = list(earlier)
    while len(history) < count:
        number, trial = len(history) + 1, propose(search, history)
        ending = "pruned" if number % 5 == 0 else "failed" if number % 11 == 0 else measured(trial)
        history.append((trial, ending))
    return history


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stop", [3, 24])
def test_a_search_that_was_interrupted_proposes_what_it_would_have(sampler, stop):
    search = attrs.evolve(SEARCH, sampler=sampler)
    whole = run(search, 30)
    assert run(search, 30, whole[:stop]) == whole
    check_trials(search, [trial for trial, _ in whole])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_depend_on_the_seed_and_on_what_was_measured(sampler):
    search = attrs.evolve(SEARCH, sampler=sampler)
    history = run(search, 24)
    assert propose(attrs.evolve(search, seed=1), history) != propose(search, history)
    other = [(trial, (0.5, trial["end"] / 2)) for trial, _ in history]
    assert propose(search, other) != propose(search, history)
    assert len({str(trial) for trial, _ in history}) == len(history)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_of_optuna_that_lives_on_proposes_the_same(sampler, monkeypatch):
    """Rebuilding the study for each trial changes nothing, generations of NSGA-II included."""
    monkeypatch.setattr(sampling, "MAX_PROPOSALS", 1)
    whole_numbers = """
[ranges]
epochs = { low = 1, high = 10000 }
batch_size = { low = 16, high = 1024, log = true }
objective = ["at", "trades(beta=6)"]
"""
    search = attrs.evolve(parse_search(whole_numbers), sampler=sampler)
    distributions = {name: sampling._distribution(one) for name, one in search.ranges.items()}
    history = []
    with sampling._silence_optuna():
        study = optuna.create_study(directions=["maximize"] * 2)
        for number in range(1, 31):
            study.sampler = sampling._sampler(search, number)
            asked = study.ask(distributions)
            assert propose(search, history) == asked.params
            point = asked.params["epochs"] / 10000, 1 / asked.params["batch_size"]
            if number % 5:
                study.tell(asked, list(point))
            else:
                study.tell(asked, state=TrialState.PRUNED)
            history.append((asked.params, point if number % 5 else "pruned"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_beats_random_trials(sampler):
    """The trials after the random ones reach higher on a simple slope in both accuracies."""
    search = attrs.evolve(SEARCH, sampler=sampler)
    history = []
    for _ in range(40):
        trial = propose(search, history)
        history.append((trial, (0.9 - abs(trial["end"] - 0.7), 0.9 - abs(trial["end"] - 0.72))))
    first, last = history[:RANDOM_TRIALS], history[-RANDOM_TRIALS:]
    assert POPULATION == RANDOM_TRIALS
    assert sum(point[0] for _, point in last) > sum(point[0] for _, point in first) + 1


def test_running_trials_of_other_processes_are_not_proposed_again():
    search = parse_search("[ranges]\nobjective = ['at', 'trades', 'kl', 'mart']\n")
    history = []
    for _ in range(4):
        history.append((propose(search, history), None))
    assert sorted(trial["objective"] for trial, _ in history) == ["at", "kl", "mart", "trades"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "limits",
    [
        "low = -999999999999999999, high = 999999999999999999", "low = 1e-320, high = 2e-320",
        "low = -1e35, high = 1e35", "low = 1e-300, high = 1e35, log = true", "low = 0, high = 1",
        "low = 0.1, high = 0.10000001", "low = 0.0, high = 1e35, step = 1e30",
    ],
)  # fmt: skip
def test_extreme_ranges_are_searched_without_a_warning(sampler, limits):
    search = attrs.evolve(parse_search(f"[ranges]\nlr = {{ {limits} }}\n"), sampler=sampler)
    history = []
    for number in range(14):
        history.append((propose(search, history), (number / 100, 0.4)))
    check_trials(search, [trial for trial, _ in history])
