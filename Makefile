# Each target installs its own requirements. STACK=native|ha|docker|auto selects where the system runs (default: auto).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
unexport PYTHONDONTWRITEBYTECODE # a suite starts twice as fast with compiled modules

.PHONY: help setup venv up down demo verify lint contract contract-deep saga interleavings chaos ha flake concurrency e2e abuse bench locust mutants coverage report trace smu stripe docs proto lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: venv ## create .venv from the hash-pinned lock and install RabbitMQ and Chromium (with apt, as root or by sudo)
	@$(BIN)/python -m harness setup

venv: # does nothing unless the lock has changed
	@harness/dev/venv.sh

up: venv ## start the system, print every address, run until Ctrl-C
	@$(BIN)/python -m harness up

down: venv ## stop the system and keep its data
	@$(BIN)/python -m harness down

demo: venv ## buy a ticket through the gateway step by step, then check the invariants
	@$(BIN)/python -m harness.demo

verify: lint ## run lint and every test, then write reports/index.html
	@$(PYTEST) --report=reports --in-parallel=mutants,saga --in-parallel=unit,e2e/browser,contract -m "not deep"

lint: venv ## run ruff, mypy (strict), import-linter and the prose check
	@$(MAKE) --no-print-directory --output-sync --jobs=2 $(LINTS)

LINTS := lint-types lint-prose lint-style lint-imports
.PHONY: $(LINTS)
lint-types:
	$(BIN)/mypy services clients harness fakes tests

lint-prose:
	$(BIN)/python -m harness.dev.prose

lint-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-imports:
	$(BIN)/lint-imports

saga: venv ## run every flow with a fault at every step
	@$(PYTEST) -m saga

interleavings: venv ## explore pairs of flows in depth, in about an hour (PAIR=WORD, SEED=N, MINUTES=N, resumes after an interrupt)
	@$(BIN)/python -m tests.saga.interleavings $(if $(PAIR),--pair "$(PAIR)") $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

chaos: venv ## disturb the system under load and judge it by its clients' ledger (S=SECONDS, default 60, SEED=N)
	@$(BIN)/python -m tests.chaos $(if $(S),--seconds $(S)) $(if $(SEED),--seed $(SEED))

SPACE := $(subst ,, )
ha: venv ## lose each part of a cluster under load, and judge it (K=WORDS of a name, COUNT=N runs with the seeds 1 to N, or SEED=N)
	@failed=0; for seed in $(or $(SEED),$$(seq $(or $(COUNT),1))); do \
		SEED=$$seed $(PYTEST) -m ha $(if $(K),-k "$(subst $(SPACE), and ,$(strip $(K)))") || { failed=$$?; [ $$failed = 1 ] || break; }; done; exit $$failed

N ?= 20
MARK ?= saga
flake: venv ## run MARK (default: saga) N times (default: 20) to find flaky tests (resumes after an interrupt)
	@$(BIN)/python -m harness.dev.flake_hunt --runs $(N) --mark "$(MARK)"

e2e: venv ## test whole flows through the gateway
	@$(PYTEST) -m e2e

abuse: venv ## attack the running system with many accounts and addresses
	@$(PYTEST) -m abuse

contract: venv ## test that the running services match the specs
	@$(PYTEST) -m contract

contract-deep: venv ## run the contract tests with ten times the examples
	@CONTRACT_DEEP=1 $(PYTEST) -m contract

concurrency: venv ## test locks and indexes under load
	@$(PYTEST) -m concurrency

bench: venv ## measure speed relative to plain SQL and fail if a limit is missed (AGAINST=REF compares with that commit)
	@$(BIN)/python -m harness.bench $(if $(AGAINST),--against "$(AGAINST)")

locust: venv ## run a contended sale with locust's web UI and a live seat map
	@$(BIN)/python -m harness.dashboard

mutants: venv ## remove each guard and expect its test to fail (SEEDS=20 clean runs first, DEEP=1: all unit and saga tests)
	@$(BIN)/python -m tests.mutants --seeds $(or $(SEEDS),20) $(if $(DEEP),--deep)

coverage: venv ## measure unit-test coverage per service
	@$(BIN)/coverage run --source=services -m pytest -m unit
	@$(BIN)/coverage json -q -o reports/coverage.json

report: venv ## write reports/index.html again from the last results
	@$(BIN)/python -m harness.report

trace: venv ## show one request in the logs of all services: make trace ID=<X-Correlation-ID>
	@$(BIN)/python -m harness.report.trace "$(ID)"

smu: venv ## run the fake SMU with its inbox page on port 6001
	@PORT=$${PORT:-6001} $(BIN)/python -m fakes.smu

stripe: venv ## run the fake Stripe on port 6002
	@PORT=$${PORT:-6002} $(BIN)/python -m fakes.stripe

docs: venv ## generate the pages and pictures of docs/ that show facts of the code
	@$(BIN)/python -m tests.doc_pages

proto: venv ## generate services/contracts/pb from proto/
	@$(BIN)/python -m harness.dev.grpc_codegen

# One lock serves Python 3.11 to 3.14. A pin that still fits is kept, unless UPGRADE names its package.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
lock: venv ## pin requirements*.lock again after requirements*.in changed (UPGRADE=NAME takes the newest version of a package)
	@$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	@export UV_CUSTOM_COMPILE_COMMAND="make lock"; upgrade="$(addprefix --upgrade-package ,$(UPGRADE))"; \
	$(LOCK) $$upgrade requirements.in -o requirements.lock; \
	$(LOCK) $$upgrade -c requirements.lock requirements-dev.in -o requirements-dev.lock

clean: down ## stop the system and delete its data and logs
	@$(BIN)/python -m harness down --volumes
