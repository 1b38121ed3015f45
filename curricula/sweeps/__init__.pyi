from .collect import compare as compare
from .comparison import Comparison as Comparison
from .runner import run_sweep as run_sweep
from .search import run_search as run_search
from .search_spec import Search as Search
from .search_spec import read_search as read_search
from .spec import Sweep as Sweep
from .spec import read_sweep as read_sweep
