"""Contracts for plugin authors: what curricula takes for granted of a perturbation, as tests."""

from curricula.testing.perturbations import PERTURBATION_CLAUSES, check_perturbation

__all__ = ["PERTURBATION_CLAUSES", "check_perturbation"]
