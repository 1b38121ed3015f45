# Everything happens in .venv: pip installs uv, and uv the rest from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYNC := UV_PYTHON_DOWNLOADS=never $(BIN)/uv sync --quiet --inexact --all-packages --python $(BIN)/python
BENCHMARKS ?= tests/benchmarks
TEST_OPTIONS ?=  # of pytest, for example --durations=10
SOURCES := pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test check docs benchmark clean

# One thread: the figures of the README depend on their number, and a network this small gains little.
demo: $(VENV)/demo.stamp  ## train on the embedded digits, beside a baseline
	OMP_NUM_THREADS=1 $(BIN)/curricula train --perturb rot+pgd --schedule linear --baseline

# One process per core with one thread each: networks this small gain nothing from more threads. The
# processes share compiled bytecode, whatever the caller's environment says.
test: $(VENV)/test.stamp  ## all tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(TEST_OPTIONS)

check: $(VENV)/check.stamp  ## lint, format, layers, types, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python tests/tools/words.py

docs: $(VENV)/docs.stamp  ## the site, into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

benchmark: $(VENV)/test.stamp $(VENV)/benchmark.stamp  ## speed, alone on the machine: hours
	$(BIN)/python -m pytest $(BENCHMARKS) --benchmark-json benchmarks.json -s

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/demo.stamp: $(BIN)/uv $(SOURCES)
	$(SYNC)
	touch $@

# Each other target installs the dependency group of its name. Bytecode is compiled once, here: the
# tests start processes, and each would compile torch again where Python may not write beside it.
$(VENV)/%.stamp: $(BIN)/uv $(SOURCES)
	$(SYNC) --group $* --compile-bytecode
	touch $@
