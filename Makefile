# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.
.PHONY: demo test check devnet bench faults faults-short lint format clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# One after the other: they kill, stop and crowd processes, and would disturb each other.
FAULTS := $(PYTEST) tests/faults -p no:xdist

$(VENV)/.demo: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c requirements.lock -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --quiet -c requirements.lock -e '.[dev]'
	touch $@

# The servers that can be had here; what cannot is said, and the rest goes on.
$(VENV)/.devnet: $(VENV)/.demo $(wildcard deploy/devnet/*/package-lock.json)
	$(BIN)/provenance devnet install || true
	touch $@

demo: $(VENV)/.demo $(VENV)/.devnet
	$(BIN)/provenance demo

devnet: $(VENV)/.demo $(VENV)/.devnet
	$(BIN)/provenance devnet up

test: $(VENV)/.dev $(VENV)/.devnet
	$(PYTEST) -n 2 --dist loadfile --ignore=tests/faults
	$(FAULTS)

check: $(VENV)/.dev $(VENV)/.devnet lint
	$(PYTEST) -n 2 --dist loadfile --ignore=tests/faults --cov --cov-report=term-missing:skip-covered --cov-fail-under=90
	$(FAULTS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check provenance workers tests examples
	$(BIN)/ruff check provenance workers tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format provenance workers tests examples
	$(BIN)/ruff check --fix provenance workers tests examples

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

# The long form of the fault tests; it writes build/faults.json and docs/reliability.md.
# PROVENANCE_FAULTS_SEED=<seed> replays the random choices of an earlier run.
faults: $(VENV)/.dev $(VENV)/.devnet
	rm -rf build/faults build/faults.json
	PROVENANCE_FAULTS=long $(PYTEST) tests/faults -p no:xdist -s || failed=1; \
	$(BIN)/python -m tests.faults.summary && test -z "$$failed"

# The same scenarios with few kills each, in minutes; also a part of `make test`.
faults-short: $(VENV)/.dev $(VENV)/.devnet
	$(FAULTS)

clean:
	-test -x $(BIN)/provenance && $(BIN)/provenance devnet down
	rm -rf $(VENV) .devnet build dist artifacts
