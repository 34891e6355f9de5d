# Every target makes what it needs on a machine that has only Python >= 3.11 and make; `make help` lists them.
# .venv is this repository's own environment; remove it at any time with `make clean`.

SHELL := bash
.DEFAULT_GOAL := help

# The first Python that is new enough and can make an environment. Asked only when one is made.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; \
	done)

# What goes on the command line of what is run, e.g. make test PYTEST_ARGS="-k events", make demo DEMO_ARGS="--help".
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
# Processes that run the tests side by side, each a file at a time; many tests start processes of their own.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# -qq: errors only.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt
BENCHMARKS = $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

.PHONY: help demo test test-all lint format bench clean

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo.stamp  ## train a classifier of digits: evaluation, early stopping, checkpoints, MLflow, TensorBoard
	@$(BIN)/python examples/digits.py $(DEMO_ARGS)

test: $(VENV)/dev.stamp  ## the fast tests
	@$(BIN)/python -m pytest -m "not slow" -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-all: $(VENV)/dev.stamp  ## all tests
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# Types are checked on the package as it is installed, the only form in which the folders are named leyden.*;
# sed turns the installed paths of a message back into those of the repository.
lint: $(VENV)/dev.stamp  ## ruff and mypy --strict; all of it, also when the first finds something
	@rm -rf build/lib build/typecheck
	@$(PIP_INSTALL) --no-deps --target build/typecheck .
	@set -o pipefail; status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check --quiet . || status=1; \
	MYPYPATH=build/typecheck $(BIN)/python -m mypy -p leyden | sed 's|^build/typecheck/leyden/||' || status=1; \
	exit $$status

format: $(VENV)/dev.stamp  ## put every file into ruff's form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/bench.stamp  ## leyden beside its peers
	@for benchmark in $(BENCHMARKS); do $(BIN)/python "$$benchmark" $(BENCH_ARGS) || exit 1; done

clean:  ## remove the environment, what was built and the caches; runs/ stays
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Dependency groups need pip 25.1; the one that comes with Python may be older.
$(VENV)/pip.stamp:
	@test -n "$(PYTHON)" || { echo "leyden needs Python 3.11 or newer with the venv module; found none on PATH." \
		"Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	@echo "installing leyden and what the examples need into $(VENV) (minutes, the first time)"
	@$(PIP_INSTALL) --editable ".[mlflow,tensorboard]" --group examples
	@touch $@

$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	@echo "installing leyden and what its tests need into $(VENV) (minutes, the first time)"
	@$(PIP_INSTALL) --editable ".[all]" --group dev
	@touch $@

$(VENV)/bench.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	@echo "installing leyden and the peers it is compared with into $(VENV) (minutes, the first time)"
	@$(PIP_INSTALL) --editable ".[mlflow,tensorboard]" --group bench
	@touch $@
