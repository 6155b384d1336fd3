"""The ledger store of each kind: SQLite on disk, SQLite in memory, PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provenance.ports.store import LedgerStore, LedgerTx
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import (
    KEY,
    OTHER,
    RUN,
)


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite-file":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "sqlite-memory":
        return "sqlite://"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture(params=["sqlite-file", "postgresql"])
def durable_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database that outlives its store and crosses a fork."""
    if request.param == "sqlite-file":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def store(store_url: str) -> Iterator[LedgerStore]:
    opened: LedgerStore = SqlStore.open(store_url)
    yield opened
    opened.close()


@pytest.fixture
def tx(store: LedgerStore) -> Iterator[LedgerTx]:
    with store.transaction() as opened:
        yield opened


@pytest.fixture
def run_tx(tx: LedgerTx) -> LedgerTx:
    tx.add_run(RUN, KEY, 1.0)
    tx.add_run(OTHER, KEY, 2.0)
    return tx
