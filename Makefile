# Every verb sets up what it lacks. STACK=native|docker|auto says where the system runs (default: auto).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
unexport PYTHONDONTWRITEBYTECODE # a suite that finds its modules compiled starts twice as fast

.PHONY: help setup venv up down demo verify lint contract contract-deep saga flake concurrency e2e bench locust mutants coverage report trace smu stripe proto lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: venv ## .venv from the hash-pinned lock, and RabbitMQ (by apt, as root or with sudo)
	@$(BIN)/python -m harness setup

venv: # only does something when the lock has changed
	@harness/dev/venv.sh

up: venv ## start the system, print every address, stay until Ctrl-C
	@$(BIN)/python -m harness up

down: venv ## end the system; its data stays
	@$(BIN)/python -m harness down

demo: venv ## buy a ticket through the gateway, each step shown, then check the invariants
	@$(BIN)/python -m harness.demo

verify: lint ## everything: lint, then every test, then reports/index.html
	@$(PYTEST) --report=reports --beside=unit -m "unit or saga or concurrency or contract or e2e"

lint: venv ## ruff, mypy (strict), import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy services harness fakes tests
	@$(BIN)/lint-imports

saga: venv ## every flow, a fault at every step
	@$(PYTEST) -m saga

N ?= 20
MARK ?= saga
flake: venv ## the suites of MARK (saga) N times (20), in slices: interrupted, it goes on where it was
	@$(BIN)/python -m harness.dev.flake_hunt --runs $(N) --mark "$(MARK)"

e2e: venv ## whole flows through the gateway
	@$(PYTEST) -m e2e

contract: venv ## what the specs say is what runs
	@$(PYTEST) -m contract

contract-deep: venv ## the same, with ten times the examples
	@CONTRACT_DEEP=1 $(PYTEST) -m contract

concurrency: venv ## locks and indexes under load
	@$(PYTEST) -m concurrency

bench: venv ## every figure as a ratio to the floor in SQL; fails where a gate is missed
	@$(BIN)/python -m harness.bench

locust: venv ## a contended sale: locust's web UI, and the hall live beside it
	@$(BIN)/python -m harness.dashboard

mutants: venv ## each guard taken away: its check has to fail (SEEDS=20 clean runs first; DEEP=1: all of unit and saga)
	@$(BIN)/python -m tests.mutants --seeds $(or $(SEEDS),20) $(if $(DEEP),--deep)

coverage: venv ## what of each service the unit tests come to, for the report
	@$(BIN)/coverage run --source=services -m pytest -m unit
	@$(BIN)/coverage json -q -o reports/coverage.json

report: venv ## reports/index.html again, from what the last runs left
	@$(BIN)/python -m harness.report

trace: venv ## one request's way through all services: make trace ID=<X-Correlation-ID>
	@$(BIN)/python -m harness.report.trace "$(ID)"

smu: venv ## the fake SMU alone, with its inbox page, on port 6001
	@PORT=$${PORT:-6001} $(BIN)/python -m fakes.smu

stripe: venv ## the fake Stripe alone, on port 6002
	@PORT=$${PORT:-6002} $(BIN)/python -m fakes.stripe

proto: venv ## generate services/contracts/pb from proto/
	@$(BIN)/python -m harness.dev.grpc_codegen

# One lock holds for Python 3.11 to 3.14. Pins that still fit stay, unless UPGRADE names their package.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
lock: venv ## pin requirements*.lock again after a change of requirements*.in; UPGRADE=NAME takes that package's newest
	@$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	@export UV_CUSTOM_COMPILE_COMMAND="make lock"; upgrade="$(addprefix --upgrade-package ,$(UPGRADE))"; \
	$(LOCK) $$upgrade requirements.in -o requirements.lock; \
	$(LOCK) $$upgrade -c requirements.lock requirements-dev.in -o requirements-dev.lock

clean: down ## remove the stack's data and logs as well
	@$(BIN)/python -m harness down --volumes
