# Everything happens in .venv, which uv fills from pyproject.toml; uv is itself installed by pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYNC := UV_PYTHON_DOWNLOADS=never $(BIN)/uv sync --quiet --inexact --all-packages --python $(BIN)/python
BENCHMARKS ?= tests/benchmarks
SOURCES := pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test check docs benchmark clean

demo: $(VENV)/demo.stamp  ## train on the embedded digits, beside a baseline
	$(BIN)/curricula train --perturb rot+pgd --schedule linear --baseline

# A process a core, each of one thread: so small networks gain nothing from more.
test: $(VENV)/test.stamp  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/check.stamp  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs.stamp  ## the site, into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

benchmark: $(VENV)/test.stamp $(VENV)/benchmark.stamp  ## speed, alone on the machine: hours
	$(BIN)/python -m pytest $(BENCHMARKS) --benchmark-json benchmarks.json -s

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/demo.stamp: $(BIN)/uv $(SOURCES)
	$(SYNC)
	touch $@

# Each of the others adds its dependency group of the same name.
$(VENV)/%.stamp: $(BIN)/uv $(SOURCES)
	$(SYNC) --group $*
	touch $@
