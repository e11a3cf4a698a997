# Every verb that people and CI use. The first one that needs it sets everything up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
WORKERS ?= 2
HOST ?=
PORT ?=
DATA ?= data
ARGS ?=
export PYTHON

RUN := .venv/.installed-run
DEV := .venv/.installed-dev

.PHONY: help demo serve check test golden bench soak docs studio lock clean

help:
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)$$/  make \1\t\2/' | expand -t 18

demo: $(RUN) ## Run the main job: publish, find, run, cancel in mid-run, replay
	@$(BIN)/insula demo $(ARGS)

serve: $(RUN) ## Serve the API (127.0.0.1:8080; HOST=, PORT=), data in ./data (DATA=)
	@$(BIN)/insula serve --data $(DATA) $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(ARGS)

check: $(DEV) ## Lint, format, types, ranks, locks, cleanliness
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest tests/repository

test: $(DEV) ## Run the tests
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

golden: $(DEV) ## Write the golden files of the wire anew: read the difference, then commit it
	@INSULA_GOLDEN=write $(BIN)/pytest tests/compat $(ARGS)

bench: $(DEV) ## Measure what we claim, as a table and as JSON
	@$(BIN)/python benchmarks/run.py $(ARGS)

soak: $(DEV) ## The long forms of the races, the load and the chaos
	@INSULA_SOAK=1 $(BIN)/pytest tests/acceptance --timeout 3600 $(ARGS)

docs: $(DEV) ## Check that the reference is complete and that its examples run
	@$(BIN)/pytest tests/docs $(ARGS)

studio: ## Build the studio
	@echo "The studio is not available yet; use the API or the insula command."

lock: ## Pin the dependencies anew (ARGS=--upgrade for newer versions)
	@scripts/setup lock $(ARGS)

clean: ## Remove what was built, installed and cached; data stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): requirements.lock pyproject.toml scripts/setup
	@scripts/setup install requirements.lock
	@touch $(RUN)

# The development lock holds everything that the other one holds.
$(DEV): requirements.lock requirements-dev.lock pyproject.toml scripts/setup
	@scripts/setup install requirements-dev.lock
	@touch $(RUN) $(DEV)
