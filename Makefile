# Every target works from a bare clone: it makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq -c constraints.txt
CORE := $(VENV)/.stamp-core
DEV := $(VENV)/.stamp-dev

# FC drops half of the spectrum; at this budget it keeps most labels from the paper's attacker and none from an adaptive one.
DEMO := compare gauss:0.3 fc:50 --data digits --norm l2 --epsilon 1.0 --output demo --store demo/store

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(CORE)  ## audit two defenses on digits with a network trained on the spot
	$(BIN)/noisychannel $(DEMO)

test: $(DEV)  ## fast tests, doctests included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n 2

test-slow: $(DEV)  ## tests that take minutes
	$(BIN)/python -m pytest -m slow

check: $(DEV)  ## format, lint, types, floors, size budget
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/budget.py src

bench: $(DEV)  ## speed beside the peers, as ratios
	$(BIN)/python benchmarks/run.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "noisychannel needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing noisychannel into $(VENV) (a few minutes, once) ..."
	@$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing noisychannel and its development tools into $(VENV) (a few minutes, once) ..."
	@$(PIP) -e ".[dev]"
	@$(PIP) --no-deps torchattacks  # its own dependencies would drag in torchvision and CUDA
	@touch $(CORE) $@
