"""Contracts for plugin authors: the requirements on each kind of object, as tests."""

from curricula.testing.callbacks import CALLBACK_CLAUSES, check_callback
from curricula.testing.data import DATASET_CLAUSES, check_dataset
from curricula.testing.learning_rates import LR_SCHEDULE_CLAUSES, check_lr_schedule
from curricula.testing.models import MODEL_CLAUSES, check_model
from curricula.testing.objectives import OBJECTIVE_CLAUSES, check_objective
from curricula.testing.optimizers import OPTIMIZER_CLAUSES, check_optimizer
from curricula.testing.perturbations import PERTURBATION_CLAUSES, check_perturbation
from curricula.testing.schedules import SCHEDULE_CLAUSES, check_schedule
from curricula.testing.suites import SUITE_CLAUSES, check_suite

__all__ = [
    "CALLBACK_CLAUSES",
    "DATASET_CLAUSES",
    "LR_SCHEDULE_CLAUSES",
    "MODEL_CLAUSES",
    "OBJECTIVE_CLAUSES",
    "OPTIMIZER_CLAUSES",
    "PERTURBATION_CLAUSES",
    "SCHEDULE_CLAUSES",
    "SUITE_CLAUSES",
    "check_callback",
    "check_dataset",
    "check_lr_schedule",
    "check_model",
    "check_objective",
    "check_optimizer",
    "check_perturbation",
    "check_schedule",
    "check_suite",
]
