# Every target makes its own .venv when there is none, or when what it should hold has changed.
# An activated environment of yours is neither used nor touched.

PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
BIN := .venv/bin
STAMP := .venv/complete
# what most commands import; compiled at set-up, since those to whom PYTHONDONTWRITEBYTECODE is set never would
COMPILED := traitscope.runner, traitscope.viewer, traitscope.cli.app, transformers.models.gemma2.modeling_gemma2
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-slow lint check bench bench-quick bench-peers clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install everything that was tested, at the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Expected Python 3.11 or newer, got $$($(PYTHON) -V). Name one: make PYTHON=python3.12"; exit 1; }
	rm -f $(STAMP)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import $(COMPILED)'
	@touch $(STAMP)

demo: $(STAMP) ## run the bundled suite on the bundled model, then verify what it left in runs/
	$(BIN)/traitscope run overnight
	$(BIN)/traitscope verify "$$(ls -td runs/overnight-*/ | head -1)"

test: $(STAMP) ## the tests, one process a core
	$(BIN)/python -m pytest -n $(JOBS)

test-slow: $(STAMP) ## the slow tests too
	$(BIN)/python -m pytest -n $(JOBS) -m 'slow or not slow'

lint: $(STAMP) ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test ## everything that CI runs before the demo

BENCHMARKS := suite mixed replay traits kinds memory gpu start

bench: $(STAMP) ## measure on this machine, beside the peers that are there; results in benchmarks/results
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(BENCH) || exit 1; done
	$(BIN)/python -m benchmarks.tables

bench-quick: $(STAMP) ## every benchmark with tiny shapes: does it run
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --quick $(BENCH) || exit 1; done

bench-peers: $(STAMP) ## the libraries compared with, each in an environment of its own (gigabytes)
	$(BIN)/python -m benchmarks.peers.install

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
