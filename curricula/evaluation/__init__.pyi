from .accuracy import evaluate_threats as evaluate_threats
from .audit import Audit as Audit
from .audit_checks import Check as Check
from .results import ThreatResult as ThreatResult
from .results import wilson_interval as wilson_interval
from .robustness_profile import RobustnessProfile as RobustnessProfile
from .threats import standard_threats as standard_threats
