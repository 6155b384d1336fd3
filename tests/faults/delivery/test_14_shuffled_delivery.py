"""Scenario 14: every batch arrives some times, in any order, cut in any way."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.ledger.ingest import ingest
from provenance.ports.transport import Delivery
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.stores.sql.schema import metadata
from tests.faults.support.checker import named_roots
from tests.faults.support.harness import rounds, scenario, seeded
from tests.support.runs import POLICY, RUN, START_NS, Producer

EPOCHS = 3


def two_ranks() -> list[Producer]:
    """A run of two ranks with a checkpoint."""
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    leader = Producer(world_size=2, key=key)
    second = Producer(rank=1, world_size=2, name=b"\x02" * 16, key=key)
    leader.begin()
    for number in range(1, EPOCHS + 1):
        for producer in (leader, second):
            producer.epoch(number, loss=1 / (number + producer.rank))
            if number == 2:
                producer.seal("checkpoint", number)
    second.end()
    leader.finish()
    return [leader, second]


def cut(rng: random.Random, producer: Producer) -> list[bytes]:
    """All events, in batches of random size, some of them in several cuts."""
    batches = []
    for _ in range(rng.randint(1, 3)):
        at = 0
        while at < len(producer.events):
            size = rng.randint(1, 6)
            batches.append(producer.batch(at, at + size))
            at += size
    return batches


class Database:
    """One database, emptied for every round: opening one costs more than a round."""

    def __init__(self, path: Path) -> None:
        self.store = SqlStore.open(f"sqlite:///{path}")
        self.raw = sqlite3.connect(path, isolation_level=None)
        self.raw.execute("PRAGMA synchronous=OFF")
        self.tables = [table.name for table in metadata.sorted_tables]

    def close(self) -> None:
        self.raw.close()
        self.store.close()

    def deliver(self, batches: list[bytes], sizes: list[int]) -> tuple[dict[str, str], int]:
        """Ingest batches in reads of these sizes; the roots and the number of records."""
        self.raw.execute("BEGIN IMMEDIATE")
        for table in self.tables:
            self.raw.execute(f"DELETE FROM {table}")
        self.raw.execute("COMMIT")
        transport, left = MemoryTransport(), list(batches)
        for size in sizes:
            read = [Delivery(str(number), batch) for number, batch in enumerate(left[:size])]
            del left[:size]
            if read:
                result = ingest(transport, self.store, POLICY, read, lambda: START_NS / 1e9)
                assert (result.equivocations, result.parked) == (0, 0)
        assert not left
        with self.store.snapshot() as tx:
            return named_roots(tx.entries(RUN)), len(tx.records(RUN))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(tmp_path / "ledger.db")
    yield found
    found.close()


def test_any_order_and_any_repetition_gives_one_root(database: Database) -> None:
    with scenario(14, "Duplicated and shuffled delivery") as tally:
        rng, ranks = seeded(), two_ranks()
        events = sum(len(producer.events) for producer in ranks)
        expected, held = database.deliver([producer.batch() for producer in ranks], [1, 1])
        assert set(expected) == {"before", "checkpoint/2", "after"}
        assert held == events
        for number in range(rounds(60, 1000)):
            seed = rng.randrange(1 << 32)
            choices = random.Random(seed)
            batches = [b for producer in ranks for b in cut(choices, producer)]
            batches += choices.choices(batches, k=choices.randint(0, len(batches)))
            choices.shuffle(batches)
            sizes: list[int] = []
            while sum(sizes) < len(batches):
                sizes.append(choices.randint(1, 8))
            roots, held = database.deliver(batches, sizes)
            tally.kills += 1
            assert roots == expected, f"round {number}, seed {seed}"
            tally.events += events
            tally.lost += events - held


def test_the_root_depends_on_what_was_recorded(database: Database) -> None:
    """The comparison above can fail: one other loss, another root."""
    expected, _ = database.deliver([p.batch() for p in two_ranks()], [1, 1])
    changed = two_ranks()
    changed[1].events[0].fields["metrics"]["loss"] = 0.123
    roots, _ = database.deliver([p.batch() for p in changed], [1, 1])
    assert roots["before"] == expected["before"]
    assert roots["checkpoint/2"] != expected["checkpoint/2"]
    assert roots["after"] != expected["after"]
