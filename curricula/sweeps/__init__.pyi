from .collect import compare as compare
from .comparison import Comparison as Comparison
from .runner import run_sweep as run_sweep
from .spec import Sweep as Sweep
from .spec import read_sweep as read_sweep
