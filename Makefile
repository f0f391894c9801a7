# Two commands: `make book` and `make test`. All targets make the virtual environment first, if need be.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ACTIVATE := to have the command in this shell: source $(BIN)/activate, then companion --help
# How many workers `auto` is, and the order of files: tests/conftest.py. More than four only wait for each other.
PYTEST_ARGS ?= -q -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
# Processes start sooner with modules that are compiled already, and mypy reads modules on two cores.
unexport PYTHONDONTWRITEBYTECODE
export MYPY_NUM_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help book test check sync lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: $(STAMP)  ## execute all notebooks, build the html and print where it is
	$(BIN)/companion book
	@echo "$(ACTIVATE)"

test: $(STAMP)  ## run the whole test suite (PYTEST_ARGS="-k name" for a part)
	$(BIN)/python -m pytest $(PYTEST_ARGS) --record=_build/tests.json

check: lint  ## style, types and the quick tests: no notebook, browser, interpreter, compiler or long fit
	$(BIN)/python -m pytest -q --quick -n auto --maxprocesses=4 --dist=loadfile

sync: $(STAMP)  ## write notebooks/NN_name.ipynb from notebooks/NN_name.md
	@$(BIN)/python -c "from companion import book; print(*book.sync(), sep='\n')"

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove what the other targets made, the virtual environment included
	rm -rf $(VENV) _build build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or later is needed; '$(PYTHON)' is older or does not run (set PYTHON=...)" >&2; exit 2; }
	@echo "installing into $(VENV) (about two minutes; longer where pip takes torch with CUDA, some GB)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[book,dev,kernels]' -c constraints.txt
	@touch $@
	@echo "$(ACTIVATE)"
