# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help demo test quick check lint format docs devnet bench faults faults-short campaign dist clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The versions that CI runs; LOCK= takes whatever fits the bounds in pyproject.toml.
LOCK ?= -c requirements.lock
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
SOURCES := provenance workers deploy/devnet tests examples
# Kept, whatever the environment says: each process of a test would compile all of it anew.
export PYTHONDONTWRITEBYTECODE =
# Files in the order of tests/conftest.py.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# One after the other: they kill, stop and crowd processes, and would disturb each other.
FAULTS := $(PYTEST) tests/faults -p no:xdist

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.demo: pyproject.toml deploy/devnet/pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(LOCK) -e '.[demo]' -e deploy/devnet
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --quiet $(LOCK) -e '.[dev]' -e deploy/devnet
	touch $@

# The servers that can be had here; what cannot is said, and the rest goes on.
$(VENV)/.devnet: $(VENV)/.demo $(wildcard deploy/devnet/provenance_devnet/npm/*/package-lock.json)
	$(BIN)/provenance devnet install || true
	touch $@

demo: $(VENV)/.demo $(VENV)/.devnet ## train, anchor, verify and tamper, all real
	$(BIN)/provenance demo

test: $(VENV)/.dev $(VENV)/.devnet ## every test, the fault scenarios in their short form
	$(PYTEST) $(PARALLEL) --ignore=tests/faults
	$(FAULTS)

quick: $(VENV)/.dev ## unit and property tests but the slow ones: under a minute
	$(PYTEST) $(PARALLEL) -q -m 'not slow' --hypothesis-profile quick tests/unit tests/property

check: $(VENV)/.dev $(VENV)/.devnet lint docs ## what CI holds: lint, docs, every test with coverage
	$(PYTEST) $(PARALLEL) --ignore=tests/faults --cov --cov-report=term-missing:skip-covered --cov-fail-under=90
	$(FAULTS)

lint: $(VENV)/.dev ## format, lint, types, import contracts, docstrings
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## rewrite the code as `make lint` wants it
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.dev ## the documentation site, strict, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

devnet: $(VENV)/.demo $(VENV)/.devnet ## start the dev servers: Redis, Ethereum, Bitcoin, IPFS
	$(BIN)/provenance devnet up

bench: $(VENV)/.dev ## speed beside peers and bars, in one table
	$(BIN)/python -m tests.benchmarks

# It writes build/faults.json and docs/reliability.md.
# PROVENANCE_FAULTS_SEED=<seed> replays the random choices of an earlier run.
faults: $(VENV)/.dev $(VENV)/.devnet ## the long form of the fault scenarios, half an hour
	rm -rf build/faults build/faults.json
	PROVENANCE_FAULTS=long $(PYTEST) tests/faults -p no:xdist -s || failed=1; \
	$(BIN)/python -m tests.faults.summary && test -z "$$failed"

faults-short: $(VENV)/.dev $(VENV)/.devnet ## the same scenarios with few kills each, in minutes
	$(FAULTS)

# CAMPAIGN='--mutations 4000 --bit-flips 200 --seed 7' replays an earlier one.
campaign: $(VENV)/.dev ## 4,000 mutations of a deployment: none may be accepted
	$(BIN)/python -m tests.adversary.campaign $(CAMPAIGN)

dist: $(VENV)/.dev ## the wheel and the source archive, in dist/
	$(PIP) install --quiet $(LOCK) build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist deploy/devnet

clean: ## everything that the other targets made
	-test -x $(BIN)/provenance && $(BIN)/provenance devnet down
	rm -rf $(VENV) .devnet build dist artifacts
