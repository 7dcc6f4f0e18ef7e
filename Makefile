# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# More than there are cores: many tests wait most of the time.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))
SPREAD := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(SPREAD)

.DEFAULT_GOAL := help
.PHONY: help demo test unit integration interop lint types layers check bench docs wheel oldest clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.app  ## set up and run the main job: plan, apply into a folder, prove it
	@sh scripts/demo.sh $(BIN)/mtlsctl

test: $(VENV)/.test  ## set up and run every test; a peer that is missing is skipped with its reason
	$(PYTEST)

unit: $(VENV)/.test  ## the tests that need no other program and take seconds
	$(PYTEST) tests/unit tests/contract tests/cli tests/golden

integration: $(VENV)/.test  ## real nginx, Apache, Node, curl and Python on loopback
	$(PYTEST) tests/integration

interop: $(VENV)/.test  ## every server with every caller; writes docs/reference/interop.md from what came out
	MTLSCTL_UPDATE_GOLDEN=1 MTLSCTL_REQUIRE_PEERS=1 $(BIN)/python -m pytest tests/interop tests/docs/test_interop.py

lint: $(VENV)/.lint  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint  ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.lint  ## who may import whom
	$(BIN)/lint-imports

check: lint types layers  ## everything that reads the code without running it

bench: $(VENV)/.test  ## the benchmarks: medians of paired runs
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/issue.py
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/push.py

docs: $(VENV)/.app  ## the generated reference pages
	$(BIN)/python scripts/inventory_reference.py

wheel: $(VENV)/.lint  ## build the wheel and run it from an empty environment in an empty folder
	sh scripts/check_wheel.sh $(BIN)/python

oldest: $(VENV)/.oldest  ## the unit tests with the oldest dependencies that we claim
	.venv-oldest/bin/python -m pytest $(SPREAD) tests/unit tests/contract tests/cli tests/golden

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "mtlsctl needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

$(VENV)/.oldest: tests/constraints-oldest.txt pyproject.toml $(VENV)/bin/python
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c tests/constraints-oldest.txt -e '.[test]'
	@touch $@

clean:  ## forget what was set up
	rm -rf $(VENV) .venv-oldest .demo build dist
