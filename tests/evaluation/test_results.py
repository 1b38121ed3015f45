"""Results of an evaluation: counts, intervals, and no torch behind them."""

import doctest
import subprocess
import sys

from curricula.evaluation import results


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(results)
    assert found.attempted
    assert not found.failed


def test_results_and_the_frontier_are_read_without_torch():
    script = (
        "import sys, curricula.evaluation.results, curricula.evaluation.pareto; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
