"""curricula: image classifiers that are robust to spatial changes and adversarial pixels at once.

Importing this package imports nothing heavy: each name is loaded when it is first used.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curricula.api import Trained, audit, evaluate, load_model, robustness_profile, train
    from curricula.curriculum import Curriculum, Threat
    from curricula.data.dataset import DataSet, Split, SplitLike, batches, load_data
    from curricula.data.lazy_split import LazySplit, Reader
    from curricula.errors import UnknownNameError, UserError
    from curricula.evaluation.accuracy import evaluate_threats
    from curricula.evaluation.audit import Audit
    from curricula.evaluation.audit_checks import Check
    from curricula.evaluation.results import ThreatResult
    from curricula.evaluation.robustness_profile import RobustnessProfile
    from curricula.expressions.binding import bind
    from curricula.expressions.syntax import parse
    from curricula.interfaces import (
        AdaptiveSchedule,
        AffinePerturbation,
        Feedback,
        NormBound,
        Objective,
        ParametricPerturbation,
        Perturbation,
        Progress,
        Schedule,
        TrainingLoss,
        Victim,
        Views,
    )
    from curricula.models.build import build_model
    from curricula.models.normalise import Normalise
    from curricula.plugins.hookspecs import Record, hookimpl
    from curricula.sweeps.collect import compare
    from curricula.sweeps.comparison import Comparison
    from curricula.sweeps.runner import run_sweep
    from curricula.sweeps.spec import Sweep, read_sweep
    from curricula.training.config import TrainConfig
    from curricula.training.run import Run
    from curricula.victim.model_victim import ModelVictim

_MODULES = {
    "api": ("Trained", "audit", "evaluate", "load_model", "robustness_profile", "train"),
    "expressions.binding": ("bind",),
    "sweeps.comparison": ("Comparison",),
    "curriculum": ("Curriculum", "Threat"),
    "data.dataset": ("SplitLike", "DataSet", "Split", "batches", "load_data"),
    "data.lazy_split": ("LazySplit", "Reader"),
    "errors": ("UnknownNameError", "UserError"),
    "evaluation.accuracy": ("evaluate_threats",),
    "evaluation.audit": ("Audit",),
    "evaluation.audit_checks": ("Check",),
    "evaluation.results": ("ThreatResult",),
    "evaluation.robustness_profile": ("RobustnessProfile",),
    "expressions.syntax": ("parse",),
    "sweeps.collect": ("compare",),
    "plugins.hookspecs": ("Record", "hookimpl"),
    "interfaces": (
        "AffinePerturbation",
        "Feedback",
        "NormBound",
        "AdaptiveSchedule",
        "Objective",
        "ParametricPerturbation",
        "Perturbation",
        "Progress",
        "Schedule",
        "TrainingLoss",
        "Victim",
        "Views",
    ),
    "models.normalise": ("Normalise",),
    "sweeps.spec": ("Sweep", "read_sweep"),
    "sweeps.runner": ("run_sweep",),
    "training.config": ("TrainConfig",),
    "models.build": ("build_model",),
    "training.run": ("Run",),
    "victim.model_victim": ("ModelVictim",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AdaptiveSchedule",
    "AffinePerturbation",
    "Audit",
    "Check",
    "Comparison",
    "Curriculum",
    "DataSet",
    "Feedback",
    "LazySplit",
    "ModelVictim",
    "NormBound",
    "Normalise",
    "Objective",
    "ParametricPerturbation",
    "Perturbation",
    "Progress",
    "Reader",
    "Record",
    "RobustnessProfile",
    "Run",
    "Schedule",
    "Split",
    "SplitLike",
    "Sweep",
    "Threat",
    "ThreatResult",
    "TrainConfig",
    "Trained",
    "TrainingLoss",
    "UnknownNameError",
    "UserError",
    "Victim",
    "Views",
    "audit",
    "batches",
    "bind",
    "build_model",
    "compare",
    "evaluate",
    "evaluate_threats",
    "hookimpl",
    "load_data",
    "load_model",
    "parse",
    "read_sweep",
    "robustness_profile",
    "run_sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("curricula")
    if name not in _HOME:
        raise AttributeError(f"module 'curricula' has no attribute {name!r}")
    value = getattr(import_module(f"curricula.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
