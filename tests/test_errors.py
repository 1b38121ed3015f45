"""Suggestions of names: by meaning, then by spelling."""

import inspect

import pytest

import curricula
from curricula import errors
from curricula.errors import did_you_mean, similar_names
from curricula.plugins import registry
from curricula.training.config import FIELDS


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("learning_rate", ["lr", "lr_schedule", "epochs"], ["lr"]),
        ("Learning-Rate", ["lr", "epochs"], ["lr"]),
        ("batch", ["epochs", "batch-size"], ["batch-size"]),
        ("epsilon", ["budget", "norm", "eps"], ["budget", "eps"]),
        ("optimiser", ["optimizer", "objective"], ["optimizer"]),
        ("epoch", ["epochs", "lr"], ["epochs"]),
        ("learning_rate", ["model", "data"], []),
    ],
)
def test_similar_names_are_those_of_the_same_meaning_or_spelling(word, known, expected):
    assert similar_names(word, known) == expected
    assert ("did you mean" in did_you_mean(word, known)) == bool(expected)


def test_every_name_that_the_table_suggests_exists():
    records = registry.build_registry(entry_points=False)
    factories = [
        records.find("perturbation", "pgd").load(),
        records.find("dataset", "mnist").load(),
    ]
    verbs = [curricula.evaluate, curricula.audit, curricula.train, *factories]
    flags = {
        option.name
        for name in ("train", "evaluate")
        for option in records.find("command", name).load().params
    }
    names = {name for verb in verbs for name in inspect.signature(verb).parameters} | set(FIELDS)
    assert set(errors._ALSO_CALLED) <= names | flags | {"threat"}
