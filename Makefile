# Every target makes its own virtual environment in .venv; nothing of the system's Python is used but the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced

.PHONY: demo test lint bench chaos clean

demo: $(STAMP)  ## the shop choreography on the embedded log, no server needed
	@$(BIN)/choreo demo shop

test: $(STAMP)  ## all tests, three at a time (many of them wait for servers); those that need a server this machine cannot start say so
	$(BIN)/pytest -n 3 $(PYTEST_ARGS)

lint: $(STAMP)  ## style, types, layers, lock file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv lock --check

MINUTES ?= 1
ORDERS ?= 10000
chaos: $(STAMP)  ## faults of all kinds while events flow, MINUTES=5 on each set-up (or SETUP=kafka), SEED=7 again; SABOTAGE=inbox-off; FLOW=shop ORDERS=10000
	$(BIN)/python -m tests.chaos $(if $(FLOW),--flow $(FLOW) --orders $(ORDERS),--minutes $(MINUTES)) $(if $(SETUP),--setup $(SETUP)) $(if $(SEED),--seed $(SEED)) $(if $(SABOTAGE),--sabotage $(SABOTAGE))

bench: $(STAMP)  ## every claim about performance, beside the same by hand and other frameworks; writes benchmarks/results.md
	@cd benchmarks/peers && ../../$(BIN)/uv sync --quiet --frozen
	$(BIN)/python benchmarks/all.py

$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "choreo needs Python 3.11 or newer; set PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv sync --quiet --frozen --active --inexact
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .choreo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
