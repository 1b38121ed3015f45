"""The suites of common corruptions, each at its five severities. Importing it imports no torch."""

from collections.abc import Iterable, Mapping

from curricula_corruptions.plugin import COMMON, EXTRA, STRENGTHS

SEVERITIES = range(1, len(STRENGTHS) + 1)


def corruptions() -> dict[str, str | Mapping[str, str]]:
    """Return clean images and the fifteen common corruptions at severities 1 to 5 (Hendrycks and
    Dietterich 2019), in the benchmark's order: 75 threats, and clean images."""
    return _suite(COMMON)


def extra_corruptions() -> dict[str, str | Mapping[str, str]]:
    """Return clean images and the four extra corruptions at severities 1 to 5, which Hendrycks and
    Dietterich (2019) keep for validation: 20 threats, and clean images."""
    return _suite(EXTRA)


def _suite(names: Iterable[str]) -> dict[str, str | Mapping[str, str]]:
    return {
        "clean": "clean",
        **{name: {str(each): f"{name}:{each}" for each in SEVERITIES} for name in names},
    }
