# On a machine with Python 3.11 or newer and a package index: `make test`, `make demo`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# The number of processes that run the tests.
WORKERS ?= 2

.PHONY: demo test lint format types bench docs clean

demo: $(VENV)/.run
	$(BIN)/python -m experiments.demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test
	$(BIN)/pyrefly check

bench: $(VENV)/.test
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do name=$$(basename $$file .py); \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name $(ARGS); done

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build docs/api .pytest_cache .ruff_cache .jax_cache

# Each stamp says that what it names is installed as pyproject.toml has it; a change there installs again.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.run
