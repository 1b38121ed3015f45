"""The file of a search: what it means, and the one line that each mistake gets."""

import time

import pytest

from curricula.errors import UserError
from curricula.recipes import find_search, recipes
from curricula.sweeps.search_spec import (
    Choices,
    NumberRange,
    check_search,
    check_trials,
    parse_search,
    read_search,
)
from curricula.sweeps.spec import parse_sweep

BASE = """
[base]
data = "digits"
perturb = "rot:{angle}+pgd"
schedule = ["rot=constant", "pgd=linear(start={begin}, until={end})"]
epochs = 4
"""
SEARCH = f"""{BASE}
[ranges]
lr = {{ low = 0.001, high = 0.1, log = true }}
batch_size = {{ low = 16, high = 64, step = 16 }}
objective = ["at", "trades(beta=6)"]
shuffle = [true, false]
angle = {{ low = 10, high = 30 }}
begin = {{ low = 0.0, high = 0.5, step = 0.1 }}
end = {{ low = 0.05, high = 0.95 }}

[search]
trials = 7
sampler = "nsga2"
seed = 3
objectives = ["adversarial", "clean"]
prune = true

[evaluation]
limit = 20
"""
TRIAL = {
    "lr": 0.01, "batch_size": 32, "objective": "trades(beta=6)", "shuffle": "False", "angle": 20,
    "begin": 0.2, "end": 0.5,
}  # fmt: skip


def test_a_range_sets_a_field_or_fills_a_placeholder():
    assert parse_search(SEARCH).configuration(TRIAL) == {
        "data": "digits",
        "perturb": "rot:20+pgd",
        "schedule": ["rot=constant", "pgd=linear(start=0.2, until=0.5)"],
        "epochs": 4,
        "lr": 0.01,
        "batch_size": 32,
        "objective": "trades(beta=6)",
        "shuffle": False,
    }


def test_the_trials_are_cells_of_a_sweep_on_the_validation_images():
    search = parse_search(SEARCH)
    sweep = search.sweep([TRIAL, {**TRIAL, "angle": 10}])
    assert parse_sweep(sweep.as_toml()) == sweep
    assert (sweep.split, sweep.limit, sweep.frontier_of) == (
        "validation",
        20,
        ("adversarial", "clean"),
    )
    assert [cell.values for cell in sweep.cells] == [
        search.configuration(TRIAL),
        search.configuration({**TRIAL, "angle": 10}),
    ]
    assert [sweep.row(cell)[:20] for cell in sweep.cells] == [
        "1 lr=0.01, batch_siz",
        "2 lr=0.01, batch_siz",
    ]
    assert sweep.base == {"data": "digits", "epochs": 4}


def test_a_search_is_written_and_read_back():
    search = parse_search(SEARCH)
    assert parse_search(search.as_toml()) == search
    assert (search.trials, search.sampler, search.seed, search.prune) == (7, "nsga2", 3, True)
    few = parse_search("[ranges]\nlr = { low = 1, high = 2 }\n")
    assert (few.trials, few.sampler, few.seed, few.prune) == (30, "tpe", 0, False)
    assert few.objectives == ("spatial", "adversarial")
    assert parse_search(few.as_toml()) == few


def test_limits_without_a_point_are_whole_numbers():
    ranges = parse_search(SEARCH).ranges
    assert ranges["angle"] == NumberRange(low=10, high=30)
    assert ranges["angle"].is_whole
    assert not ranges["begin"].is_whole
    assert ranges["lr"].rounded(0.0123456) == 0.01235
    assert ranges["end"].rounded(0.0500001) == 0.05
    assert ranges["objective"] == Choices(values={"at": "at", "trades(beta=6)": "trades(beta=6)"})


def test_the_ends_of_every_range_are_checked():
    search = parse_search(SEARCH)
    check_search(search)
    assert len(search.extremes) == 1 + len(search.ranges)
    late = parse_search(SEARCH.replace("high = 0.95", "high = 2.0"))
    with pytest.raises(UserError, match=r"with lr=0.001.* end=2.0: .*until must be at most 1, not"):
        check_search(late)
    with pytest.raises(UserError, match="unknown objective 'tardes'"):
        check_search(parse_search(SEARCH.replace('"trades(beta=6)"', '"tardes(beta=6)"')))


@pytest.mark.parametrize("name", recipes("search"))
def test_every_shipped_search_is_right(name):
    check_search(find_search(name))


def ranges(line, base=""):
    return f'[base]\nperturb = "rot:30"\n{base}\n[ranges]\n{line}\n'


LR = "lr = { low = 0.1, high = 0.2 }"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ranges("lrr = { low = 1, high = 2 }"), "'lrr' is not used: it is no field, and no text"),
        (ranges("lrr = { low = 1, high = 2 }"), "did you mean lr"),
        (ranges("lr = { low = 0.2, high = 0.1 }"), "'lr': low must be below high, 0.1, not 0.2"),
        (ranges("lr = { low = 0.1, high = 0.1 }"), "'lr': low must be below high"),
        (ranges("lr = { low = 0.0, high = 0.1, log = true }"), "low must be above 0 with log"),
        (ranges("lr = { low = -1, high = 1, log = true }"), "low must be above 0 with log, not -1"),
        (ranges("lr = { low = 1, high = 5, log = true, step = 1 }"), "log and step exclude each"),
        (ranges("lr = { low = 0.1, high = 0.5, step = 0.3 }"), "step must be above 0 and divide"),
        (ranges("lr = { low = 0, high = 4, step = -2 }"), "step must be above 0 and divide"),
        (ranges("lr = { low = 0, high = 4, step = 0 }"), "step must be above 0 and divide"),
        (ranges("lr = { low = 0, high = 1, step = 1e-320 }"), "into at most 1,000,000 parts, not"),
        (ranges("lr = { low = 0.0, high = 1.0, step = 1e-7 }"), "into at most 1,000,000 parts"),
        (ranges("lr = { low = 0.1 }"), "range 'lr' has no high; write"),
        (ranges("lr = {}"), "range 'lr' has no low; write"),
        (ranges("lr = { low = 0.1, hihg = 0.3 }"), "unknown key 'hihg'; did you mean high"),
        (ranges("lr = { low = 0.1, high = 0.3, log = 1 }"), "log must be True or False, not 1"),
        (ranges("lr = { low = '0.1', high = 0.3 }"), "low must be a number, from -1e"),
        (ranges("lr = { low = 0.1, high = nan }"), "high must be a number, from -1e"),
        (ranges("lr = { low = 0.1, high = 1e36 }"), "high must lie from"),
        (ranges("lr = { low = true, high = 2 }"), "low must be a number"),
        (ranges("lr = 0.1"), "range 'lr' must be a table such as { low = 0.1, high = 0.9 } or a"),
        (ranges("lr = []"), "range 'lr' must have 2 to 100 choices, not 0"),
        (ranges("lr = [0.1]"), "range 'lr' must have 2 to 100 choices, not 1"),
        (ranges("lr = [0.1, 0.1]"), "range 'lr' has a value twice"),
        (ranges(f"lr = {list(range(101))}"), "range 'lr' must have 2 to 100 choices, not 101"),
        (ranges("seed = [0, 1]"), "seed cannot be searched: the best of several seeds is the luck"),
        (ranges('data = ["digits", "mnist"]'), "data cannot be searched: all trials are measured"),
        (ranges(LR, "lr = 0.3"), r"lr is in \[base\] and in \[ranges\]; leave it out of one"),
        (ranges(LR, 'schedule = ["linear(until={end})"]'), r"schedule: \{end\} has no range in"),
        (ranges(LR, 'schedule = ["linear(until={lr})"]'), r"\{lr\} has the name of a field; give"),
        (ranges(LR, 'schedule = ["linear(until={})"]'), "a placeholder is a name in braces, such"),
        (ranges(LR, 'schedule = ["linear(until={a b})"]'), "a placeholder is a name in braces, su"),
        (ranges(LR, 'model = "lenet{"'), "a placeholder is a name in braces, such as {end}, not"),
        (ranges("a = [1, 2]", 'data = "{a}"'), "data cannot be searched: all trials are measured"),
        (ranges("a = [true, false]", 'model = "{a}"'), "choices of a placeholder must be texts or"),
        (ranges('a = ["x", "y\\u001b"]', 'model = "{a}"'), "characters that can be printed"),
        ("[base]\nlr = 0.1\n", r"\[ranges\] is empty: name a field or a placeholder and its"),
        ("[axes]\nseed = [0]\n", r"it has \[axes\], so it is a sweep: use curricula sweep"),
        ("[range]\nseed = [0]\n", "unknown section 'range'; did you mean ranges"),
        ("[base]\nlrr = 1\n", "unknown key 'lrr'; did you mean lr"),
        ("ranges = 3", r"\[ranges\] must be a table, not 3"),
        ("[ranges", "not TOML"),
        (ranges(LR) + "[search]\ntrails = 3", "unknown search key 'trails'; did you mean trials"),
        (ranges(LR) + "[search]\ntrials = 0", "search: trials must lie from 1 to 1,000, not 0"),
        (ranges(LR) + "[search]\ntrials = 1001", "search: trials must lie from 1 to 1,000, not 10"),
        (ranges(LR) + "[search]\ntrials = 1.5", "search: trials must be a whole number"),
        (ranges(LR) + "[search]\nsampler = 'TPE'", "sampler must be tpe or nsga2, not 'TPE'"),
        (ranges(LR) + "[search]\nsampler = 3", "sampler must be tpe or nsga2, not 3"),
        (ranges(LR) + "[search]\nsampler = []", r"sampler must be tpe or nsga2, not \[\]"),
        (ranges(LR) + "[search]\nseed = -1", "search: seed must lie from 0 to"),
        (ranges(LR) + "[search]\nprune = 'no'", "search: prune must be True or False, not 'no'"),
        (ranges(LR) + "[search]\nobjectives = ['spatial']", "objectives must be a list of two of"),
        (ranges(LR) + "[search]\nobjectives = ['clean', 'spatial', 'joint']", "a list of two of"),
        (ranges(LR) + "[search]\nobjectives = ['clean', 'clean']", "objectives must be a list of"),
        (ranges(LR) + "[search]\nobjectives = ['clean', 'spatal']", "clean, spatial, adversarial"),
        (ranges(LR) + "[search]\nobjectives = 'clean'", "objectives must be a list of two of the"),
        (ranges(LR) + "[search]\nobjectives = [['clean'], 3]", "objectives must be a list of two"),
        (ranges(LR) + "[evaluation]\nsplit = 'test'", "a search has no split: it is measured on"),
        (ranges(LR) + "[evaluation]\nfrontier = ['a', 'b']", "unknown evaluation key 'frontier'"),
        (ranges(LR) + "[evaluation]\nlimit = 0", "evaluation: limit must lie from 1"),
        (ranges(LR) + "[evaluation.threats]\na = 'rot'", "compares two of its threats or more"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as raised:
        parse_search(text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_file_with_ranges_is_no_sweep():
    with pytest.raises(
        UserError, match=r"it has \[ranges\], so it is a search: use curricula sear"
    ):
        parse_sweep(ranges(LR))


def test_braces_in_the_folder_of_the_data_are_no_placeholder():
    search = parse_search(ranges(LR, 'data_root = "/data/{x}/{"'))
    assert search.configuration({"lr": 0.1})["data_root"] == "/data/{x}/{"


@pytest.mark.parametrize("folder", ["absent.toml", "", "."])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, folder):
    with pytest.raises(UserError, match=r"search .*: (no such file|cannot be read)"):
        read_search(tmp_path / folder)


@pytest.mark.parametrize(
    "found",
    [
        3, {}, [3], [{}], [{**TRIAL, "more": 1}], [{**TRIAL, "angle": 9}],
        [{**TRIAL, "angle": 20.0}], [{**TRIAL, "end": True}], [{**TRIAL, "objective": "tardes"}],
        [{**TRIAL, "objective": 3}], [{**TRIAL, "lr": "0.01"}], [{**TRIAL, "lr": None}],
        [TRIAL] * 1001, [{**TRIAL, "lr": [1]}],
    ],
)  # fmt: skip
def test_damaged_trials_are_refused(found):
    search = parse_search(SEARCH)
    assert check_trials(search, [TRIAL]) == [TRIAL]
    with pytest.raises((TypeError, ValueError)):
        check_trials(search, found)


def test_long_names_and_many_ranges_are_refused_within_a_second():
    long = ", ".join(f"'{letter * 1900}'" for letter in "ab")
    many = "".join(f"r{number} = [{long}]\n" for number in range(50))
    base = "".join(f"{{r{number}}}" for number in range(50))
    began = time.perf_counter()
    with pytest.raises(UserError, match="the values of a trial take"):
        parse_search(f'[base]\nmodel = "{base}"\n[ranges]\n{many}')
    with pytest.raises(UserError, match="51 ranges; at most 50"):
        parse_search("[ranges]\n" + "".join(f"r{number} = [1, 2]\n" for number in range(51)))
    assert time.perf_counter() - began < 3
