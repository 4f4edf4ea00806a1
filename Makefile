# Two commands on a fresh machine: `make demo` and `make test`. The rest is for working on lotteryfw.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint docs campaign clean

demo: $(VENV)/.demo            ## set up, and run the quickstart on the embedded digits
	$(BIN)/lotteryfw recipe recipes/quickstart.toml --out runs/quickstart

test: $(VENV)/.dev             ## set up, check and run the tests that need nothing beside the clone
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev             ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

campaign: $(VENV)/.dev         ## kill, damage, fill up and interrupt: thousands of faults, hours
	$(BIN)/python -m tests.campaign

docs: $(VENV)/.dev             ## build the documentation into site/
	$(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[plots,fast]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
