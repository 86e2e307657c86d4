# Every verb installs what it needs first; `make help` lists them.
SHELL := /bin/bash
STARTED := $(shell date +%s)
PY := .venv/bin/python
# Two OpenMP threads in each of two busy processes cost more than they bring.
export TOKENIZERS_PARALLELISM ?= false
export MLFLOW_DISABLE_TELEMETRY ?= true

.DEFAULT_GOAL := help
.PHONY: help install lock quickstart test test-all check format bench

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## make .venv with everything this machine needs (CPU or CUDA)
	@bash .ci/install

lock: install ## write constraints.txt anew
	@bash .ci/lock

quickstart: install ## the whole method on a small world with a real LLM, under twenty minutes on two cores
	$(PY) -m lit_qagent quickstart --started $(STARTED)

test: install ## unit tests, then integration tests with the real engine and model
	$(PY) -m pytest -m "not integration and not gpu and not slow and not network"
	$(PY) -m pytest -m "integration and not gpu and not slow and not network"

test-all: install ## the slow tests too
	$(PY) -m pytest -m "not gpu and not network"

check: install ## format, lint, types and layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: install ## format the code and fix what can be fixed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: install ## every benchmark, one row each
	@set -e; for script in benchmarks/bench_*.py; do $(PY) $$script; done
