"""Files of results keep their keys, order and numbers; stored/ holds earlier files."""

import json
from pathlib import Path

import pytest

from curricula.benchmark.measure import Samples, Speed
from curricula.evaluation.audit import Audit
from curricula.evaluation.audit_checks import Check
from curricula.evaluation.certify import Certificates, ImageCertificate
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.robustness_profile import JointGrid, RobustnessProfile, Series
from curricula.runtime.records import from_json, to_json

STORED = Path(__file__).parent / "stored"


def result(name, correct, fooled, n=7):
    return ThreatResult(name=name, threat="rot(30)", correct=correct, fooled=fooled, n=n)


CLEAN, TURNED, ATTACKED = result("clean", 7, 0), result("rotation", 5, 2), result("attack", 3, 4)
PROFILE = RobustnessProfile(
    model="small-cnn, best.safetensors of runs/a",
    data="digits",
    n=7,
    seed=3,
    budgets={"degrees": "30", "pixels": "1", "linf": "0.2"},
    clean=CLEAN,
    series=(Series(name="random", unit="degrees", values=(0.0, 15.0), measured=(CLEAN, TURNED)),),
    joint=JointGrid(
        degrees=(0.0, 30.0),
        linf=(0.0, 0.1),
        rows=((CLEAN, TURNED), (ATTACKED, result("joint", 0, 7))),
    ),
    combined=(TURNED, ATTACKED),
)
AUDIT = Audit(
    eps="8/255",
    norm="linf",
    n=7,
    seed=0,
    checks=(
        Check(name="plateau", passed=False, finding="of 7 images"),
        Check(name="monotone in eps", passed=True, finding="none"),
    ),
    left_out=("the DLR loss needs three classes or more, and there are 2",),
    attacks=(CLEAN, ATTACKED),
)
CERTIFICATES = Certificates(
    model="small-cnn, best checkpoint of runs/a",
    data="digits",
    sigma=0.5,
    n0=10,
    draws=1000,
    alpha=0.001,
    seed=0,
    group="c4",
    images=(
        ImageCertificate(label=1, predicted=1, votes=990, nearest=0.5, farthest=1.5),
        ImageCertificate(label=1, predicted=2, votes=620, nearest=2.5, farthest=3.5),
        ImageCertificate(label=0, predicted=0, votes=510, nearest=2.0, farthest=2.5),
    ),
)
ROUNDS = Samples(values=(0.5, 3.0, 1.25))
SPEED = Speed(
    setting={"model": "small-cnn", "batch_size": 64},
    images_per_second=ROUNDS,
    update=ROUNDS,
    gradient_pass=ROUNDS,
    forward_pass=ROUNDS,
    training_pass=ROUNDS,
    gradient_passes=10.0,
    forward_passes=0.5,
    training_passes=1.0,
    share=ROUNDS,
    compile_seconds=None,
    peak_memory=4096,
    baselines={"foolbox": ROUNDS},
    ratios={},
)
RECORDS = {
    "result": TURNED,
    "profile": PROFILE,
    "audit": AUDIT,
    "certificates": CERTIFICATES,
    "speed": SPEED,
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_written_as_before(name):
    stored = (STORED / f"{name}.json").read_text(encoding="utf-8")
    assert json.dumps(to_json(RECORDS[name]), indent=2) + "\n" == stored


@pytest.mark.parametrize("name", ["result", "profile", "audit", "certificates"])
def test_what_was_stored_is_read_back(name):
    stored = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    assert from_json(type(RECORDS[name]), stored) == RECORDS[name]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"correct": "5"}, TypeError),
        ({"correct": 5.0}, TypeError),
        ({"correct": True}, TypeError),
        ({"name": None}, TypeError),
        ({"n": 0}, ValueError),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(changed, error):
    with pytest.raises(error):
        from_json(ThreatResult, {**to_json(TURNED), **changed})


def test_a_missing_field_is_named():
    stored = to_json(TURNED)
    del stored["fooled"]
    with pytest.raises(KeyError, match="fooled"):
        from_json(ThreatResult, stored)
