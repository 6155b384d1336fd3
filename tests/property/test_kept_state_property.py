"""What is sealed from kept state against trees built anew from all records: 500 histories."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, Phase
from provenance.formats.run_tree.walk import RunWalk
from provenance.ledger import ingest as ingest_module
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import seal_ready
from provenance.ports.transport import Delivery
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import checkpoints_upto, digested, run_leaves, run_tree
from tests.support.runs import POLICY, Producer, some_run

NOW = 1_760_000_100.0
PER_BLOCK = 50
ALONE = replace(POLICY, networks=())


@pytest.fixture(scope="module")
def store() -> Iterator[SqlStore]:
    opened = SqlStore.open("sqlite://")
    yield opened
    opened.close()


def history(rng: random.Random, run: UUID) -> list[Producer]:
    """Ranks with one or two processes each, which record and mark epochs in any order."""
    world_size = rng.choice([1, 1, 2, 3])
    producers: list[Producer] = []
    for rank in range(world_size):
        for process in range(rng.choice([1, 1, 1, 2])):
            name = bytes([rng.randrange(256), rank, process]) * 5 + b"\0"
            producer = Producer(run=run, rank=rank, world_size=world_size, name=name)
            if not producers or (rank == 0 and rng.random() < 0.5):
                producer.begin()
            epoch = 0
            for _ in range(rng.randrange(7)):
                epoch = max(0, epoch + rng.choice([0, 1, 1, 1, 2, -1]))
                for kind in (Kind.METRICS, Kind.STATE, Kind.PRIVACY):
                    if rng.random() < 0.6:
                        producer.add(kind, epoch, value=rng.random())
                if rng.random() < 0.3:
                    producer.add(rng.choice([Kind.STEPS, Kind.ARTIFACT, Kind.NOTE]), value=epoch)
                if rng.random() < 0.6:
                    producer.seal("checkpoint", epoch, anchor=rng.random() < 0.5)
            if rank == 0:
                producer.add(Kind.RESULTS, results={"accuracy": rng.random()})
            if not producers or producer is producers[0]:
                producer.seal("after")
            if rng.random() < 0.9:
                producer.end()
            producers.append(producer)
    return producers


@pytest.mark.slow
@pytest.mark.no_cover  # nothing but what tests/unit/ledger covers, and nearly twice as slow with it
@pytest.mark.parametrize("block", range(10))
def test_what_is_sealed_is_what_all_records_give(
    store: SqlStore, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = 0
    for seed in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
        rng, run = random.Random(seed), some_run()
        monkeypatch.setattr(ingest_module, "TRANSACTION_S", rng.choice([0.0, 0.25]))
        pieces = [d for each in history(rng, run) for d in each.deliveries(rng.randint(1, 5))]
        if rng.random() < 0.7:
            rng.shuffle(pieces)
        pieces += rng.sample(pieces, rng.randrange(len(pieces)))  # delivered again
        if rng.random() < 0.3:
            del pieces[rng.randrange(len(pieces))]
        while pieces:
            taken = [pieces.pop(0) for _ in range(min(rng.randint(1, 6), len(pieces)))]
            deliveries = [Delivery(str(at), d.payload) for at, d in enumerate(taken)]
            ingest(MemoryTransport(), store, ALONE, deliveries, lambda: NOW)
            if rng.random() < 0.05:
                with store.transaction() as tx:
                    seal_ready(tx, run, ALONE, NOW + 61)
        with store.transaction() as tx:
            seal_ready(tx, run, ALONE, NOW + 61)
            entries, records = tx.entries(run), digested(tx, run)
            rng.shuffle(records)
            walked = RunWalk(run, records, entries).seals
            for entry, seal in zip(entries, walked, strict=True):
                stated, told = dict(entry.coverage), checkpoints_upto(entries, entry.index)
                naive = run_tree(records, entry.phase, told, stated).root
                assert naive == seal.root == entry.root, (seed, entry)
                if entry.phase is not Phase.AFTER:
                    assert seal.coverage == stated, (seed, entry)
            known: set[bytes] = set()
            for entry in entries:
                told = checkpoints_upto(entries, entry.index)
                counted = {leaf.digest for leaf in run_leaves(records, entry.phase, told)[0]}
                assert known <= counted, (seed, entry)
                known = counted
            for row in tx.producers(run):
                own = {r.record.seq: r.digest for r in records if r.record.producer == row.producer}
                contiguous = next(seq for seq in range(len(own) + 1) if seq not in own)
                chain = chain_start(run, row.producer)
                assert row.highest == max(own, default=-1) + 1, seed
                if tx.run(run).state == "open":  # type: ignore[union-attr]  # it is there
                    assert row.contiguous == contiguous, seed
                for seq, digest, kept in tx.digests_from(run, row.producer, 0):
                    if seq < row.contiguous:
                        chain = chain_on(chain, [digest])
                        assert kept == chain, (seed, seq)
                assert row.chain == chain, seed
            sealed += len(entries)
    assert sealed > PER_BLOCK
