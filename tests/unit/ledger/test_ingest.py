"""Ingest and seal: idempotent, order-free, and nothing bad blocks the rest.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import builtins
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from provenance.errors import StoreUnavailable, TransportUnavailable
from provenance.formats import merkle
from provenance.formats.checkpoint import open_head
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.producers.acknowledgement import NOBODY, open_acknowledgement
from provenance.formats.producers.batch import SignedRange, open_batch
from provenance.formats.producers.certificate import (
    Certificate,
    identity_statement,
    sign_identity,
)
from provenance.formats.producers.statement import Statement, chain_on, chain_start
from provenance.formats.record import Kind, Phase
from provenance.formats.run_tree import selection
from provenance.formats.run_tree.selection import BEFORE_KINDS
from provenance.ledger import batch_writer
from provenance.ledger import seal as seal_module
from provenance.ledger.batch_writer import IngestResult
from provenance.ledger.ingest import drain, ingest
from provenance.ledger.seal import seal_ready, waits_for
from provenance.ports.store import LedgerStore
from provenance.ports.transport import Delivery
from provenance.settings import TrustedIdentity
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.verify.identity import enrolment
from provenance.verify.trust import Trust
from tests.support.ledger_values import digested, run_leaves
from tests.support.runs import POLICY, RUN, Producer, complete_run, some_run
from tests.support.sigstore_world import ISSUER, WHO, Sigstore

NOW = 1_760_000_100.0


@pytest.fixture
def store() -> Iterator[LedgerStore]:
    opened = SqlStore.open("sqlite://")
    yield opened
    opened.close()


def take(
    store: LedgerStore, deliveries: list[Delivery], now: float = NOW, **policy: object
) -> IngestResult:
    return ingest(MemoryTransport(), store, replace(POLICY, **policy), deliveries, lambda: now)  # type: ignore[arg-type]  # keyword arguments of several types


def roots(store: LedgerStore, run: UUID = RUN) -> dict[str, str]:
    with store.snapshot() as tx:
        return {f"{e.phase}{e.epoch or ''}": e.root.hex() for e in tx.entries(run)}


def acknowledged(transport: MemoryTransport) -> dict[bytes, int]:
    """What the ledger's key acknowledged, by producer."""
    key = POLICY.signer.verifier.public_bytes
    return {
        producer: open_acknowledgement(data, RUN, producer, key).count
        for producer, data in transport.acknowledged(RUN).items()
    }


def test_a_run_comes_home_and_is_sealed(store: LedgerStore) -> None:
    producer = complete_run()
    transport = MemoryTransport()
    transport.append([delivery.payload for delivery in producer.deliveries()])
    done = drain(transport, store, POLICY, "worker", lambda: NOW)
    assert (done.new, done.parked, done.duplicates) == (len(producer.events), 0, 0)
    assert [e.phase for e in done.entries] == [Phase.BEFORE, Phase.AFTER]
    assert transport.backlog() == 0
    assert acknowledged(transport) == {producer.name: len(producer.events), NOBODY: 0}
    with store.snapshot() as tx:
        run = tx.run(RUN)
        assert run is not None
        assert (run.state, run.incomplete) == ("sealed", None)
        head = tx.head()
        assert head is not None
        assert head.root == merkle.root([e.root for e in tx.entries()])
        opened = open_head(head.note, POLICY.signer.verifier)
        assert (opened.size, opened.root) == (2, head.root)
        assert [(a.network, a.size) for a in tx.anchors()] == [("local", 1), ("local", 2)]


def test_run_root_by_hand(store: LedgerStore) -> None:
    """The whole tree with hashlib's names only: leaf = 00, node = 01 (RFC 6962)."""
    producer = complete_run(epochs=1)
    take(store, producer.deliveries())
    by_kind = {
        event.kind: merkle_leaf_data(data)
        for event, data in zip(producer.events, producer.records(), strict=True)
    }

    def mth(*items: bytes) -> bytes:
        return merkle.root(list(items))

    data = mth(mth(by_kind[Kind.DATA_TRAIN]), mth(by_kind[Kind.DATA_TEST]))
    model = mth(mth(by_kind[Kind.ARCHITECTURE]), mth(by_kind[Kind.WEIGHTS]))
    digests = [merkle_leaf_data(data) for data in producer.records()]

    def producers(count: int) -> bytes:
        chain = merkle_leaf_data(b"ml-provenance/chain/v1\0" + RUN.bytes + producer.name)
        for digest in digests[:count]:
            chain = merkle_leaf_data(chain + digest)
        head = b"ml-provenance/statement/v1\0" + RUN.bytes + producer.name
        return mth(merkle_leaf_data(head + count.to_bytes(8, "big") + chain))

    before = mth(data, model, mth(by_kind[Kind.CONFIG]), producers(6))
    epoch = mth(mth(by_kind[Kind.STATE]), mth(by_kind[Kind.METRICS]), mth())
    training = mth(by_kind[Kind.CONFIG], epoch, by_kind[Kind.RESULTS])
    after = mth(data, model, training, producers(len(digests)))
    assert roots(store) == {"before": before.hex(), "after": after.hex()}


def merkle_leaf_data(record: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(record).digest()


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 5))
@pytest.mark.slow
def test_duplicated_and_shuffled_delivery_gives_the_same_roots(seed: int, size: int) -> None:
    producer = complete_run(epochs=3)
    calm, wild = SqlStore.open("sqlite://"), SqlStore.open("sqlite://")
    take(calm, producer.deliveries())
    rng = random.Random(seed)
    deliveries = producer.deliveries(size) + producer.deliveries(size)[: rng.randrange(4)]
    rng.shuffle(deliveries)
    while deliveries:
        count = rng.randint(1, 3)
        take(wild, deliveries[:count])
        del deliveries[:count]
    assert roots(wild) == roots(calm)
    with wild.snapshot() as tx, calm.snapshot() as expected:
        assert not tx.parked()
        assert not tx.equivocations()
        assert tx.producers(RUN) == expected.producers(RUN)
        newest = tx.statements(RUN)[-1]
        assert newest == expected.statements(RUN)[-1]
        assert newest.count == len(producer.events)
    calm.close()
    wild.close()


def test_redelivery_after_the_seal_is_no_news(store: LedgerStore) -> None:
    producer = complete_run()
    take(store, producer.deliveries())
    again = take(store, producer.deliveries())
    assert (again.new, again.parked, again.entries) == (0, 0, [])
    assert again.duplicates == len(producer.events)


def test_another_key_is_refused_and_recorded(store: LedgerStore) -> None:
    producer = complete_run()
    take(store, [Delivery("1", producer.batch(0, 3))])
    thief = replace(producer, key=Ed25519PrivateKey.generate())
    done = take(store, [Delivery("2", thief.batch(3)), Delivery("3", producer.batch(3))])
    assert done.parked == 1
    assert done.new == len(producer.events) - 3
    with store.snapshot() as tx:
        (parked,) = tx.parked()
        assert "does not commit to key" in parked.reason


def test_a_stranger_who_knows_the_run_id_cannot_take_the_run(store: LedgerStore) -> None:
    producer = complete_run()
    thief = replace(producer, key=Ed25519PrivateKey.generate())
    done = take(store, [Delivery("1", thief.batch()), *producer.deliveries()])
    assert (done.parked, done.new) == (1, len(producer.events))
    with store.snapshot() as tx:
        run = tx.run(RUN)
        assert run is not None
        assert (run.public_key, run.state) == (producer.public_key, "sealed")


def test_what_a_producer_signed_is_kept_at_each_seal_and_at_last(store: LedgerStore) -> None:
    producer = complete_run(epochs=3)
    for delivery in producer.deliveries(4):  # the before mark is event 5, the end event 14
        take(store, [delivery])
    with store.snapshot() as tx:
        (row,) = tx.producers(RUN)
        assert (row.contiguous, row.highest) == (15, 15)
        assert [statement.count for statement in tx.statements(RUN)] == [8, 15]
        digests = [digest for _, digest, _ in tx.digests_from(RUN, producer.name, 0)]
        key = Certificate.decode(row.certificate).producer_key
        for statement in tx.statements(RUN):
            chain = chain_on(chain_start(RUN, producer.name), digests[: statement.count])
            assert tx.chain_at(RUN, producer.name, statement.count) == chain
            Statement(producer.name, statement.count, statement.signature).verify(RUN, chain, key)
        assert row.chain == chain


@pytest.mark.slow
def test_a_second_history_is_parked_and_what_it_signed_is_not_kept(store: LedgerStore) -> None:
    producer, other = complete_run(), complete_run()
    other.events[2] = replace(other.events[2], fields={"structure": "another"})
    take(store, [Delivery("1", producer.batch(0, 5))])
    done = take(store, [Delivery("2", other.batch(5))])
    assert done.parked == 1
    with store.snapshot() as tx:
        assert "follows other events" in tx.parked(RUN)[0].reason
    # Where it overlaps, its second value is kept as one, and its statement fits nothing here.
    done = take(store, [Delivery("3", other.batch(1))])
    assert done.equivocations == 1
    with store.snapshot() as tx:
        (row,) = tx.producers(RUN)
        assert row.contiguous == len(producer.events)
        assert [statement.count for statement in tx.statements(RUN)] == [5]
        (seen,) = tx.equivocations(RUN)
        proof = SignedRange.decode(seen.proof)
        assert proof.digest_of(2) == seen.digest
        proof.verify(RUN, producer.name, Certificate.decode(row.certificate).producer_key)


def test_a_second_certificate_of_a_producer_is_parked(store: LedgerStore) -> None:
    producer = complete_run()
    take(store, [Delivery("1", producer.batch(0, 3))])
    done = take(store, [Delivery("2", replace(producer, rank=1).batch(3))])
    assert done.parked == 1
    with store.snapshot() as tx:
        assert "another certificate" in tx.parked(RUN)[0].reason


def test_where_trainers_are_enrolled_a_run_by_nobody_known_is_parked(store: LedgerStore) -> None:
    alice, mallory = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    producer = complete_run()
    enrolled = enrolment(Trust(trainers={"alice": alice.public_key().public_bytes_raw().hex()}))
    signed = {
        key: replace(producer, identity=sign_identity(RUN, producer.public_key, key))
        for key in (alice, mallory)
    }
    take(store, [Delivery("1", producer.batch())], trainers=enrolled)
    take(store, [Delivery("2", signed[mallory].batch())], trainers=enrolled)
    with store.snapshot() as tx:
        assert tx.run(RUN) is None
        reasons = sorted(parked.reason for parked in tx.parked(RUN))
        assert "none of trust.trainers" in reasons[0]
        assert "no identity signed this run" in reasons[1]
    take(store, [Delivery("3", signed[alice].batch(0, 6))], trainers=enrolled)
    done = take(store, [Delivery("4", producer.batch(6))], trainers=enrolled)  # another rank's host
    assert (done.parked, done.new) == (0, len(producer.events) - 6)
    with store.snapshot() as tx:
        run = tx.run(RUN)
        assert run is not None
        assert run.identity == signed[alice].identity


def test_who_sigstore_certifies_is_enrolled_by_name_and_issuer(
    store: LedgerStore, tmp_path: Path
) -> None:
    sigstore, producer = Sigstore(), complete_run()
    statement = identity_statement(RUN, producer.public_key)
    root = sigstore.trusted_root(tmp_path / "root.json")
    pinned = {"ci": TrustedIdentity(WHO, ISSUER)}
    enrolled = enrolment(Trust(trainers=pinned, sigstore_root=root))
    eve, ci = (
        replace(producer, identity=b"\x02" + sigstore.sign(statement, who))
        for who in ("eve@example.org", WHO)
    )
    take(store, [Delivery("1", eve.batch())], trainers=enrolled)
    with store.snapshot() as tx:
        assert tx.run(RUN) is None
        (parked,) = tx.parked(RUN)
        assert parked.reason == (f"identity eve@example.org, by {ISSUER} is none of trust.trainers")
    take(store, [Delivery("2", ci.batch(0, 6))], trainers=enrolled)
    done = take(store, [Delivery("3", producer.batch(6))], trainers=enrolled)
    assert (done.parked, done.new) == (0, len(producer.events) - 6)
    with store.snapshot() as tx:
        run = tx.run(RUN)
        assert run is not None
        assert run.identity == ci.identity


@pytest.mark.slow
def test_equivocation_keeps_the_first_value(store: LedgerStore) -> None:
    producer = complete_run()
    other = complete_run()
    other.events[6] = replace(other.events[6], fields={"metrics": {"loss": 0.0}})
    take(store, [Delivery("1", producer.batch(0, 7))])
    done = take(store, [Delivery("2", other.batch(6, 7)), Delivery("3", producer.batch(7))])
    assert done.equivocations == 1
    calm = SqlStore.open("sqlite://")
    take(calm, producer.deliveries())
    assert roots(store) == roots(calm)
    with store.snapshot() as tx:
        (seen,) = tx.equivocations(RUN)
        assert (seen.seq, seen.data) == (6, other.records()[6])
    calm.close()


def test_poison_is_parked_and_never_blocks(store: LedgerStore) -> None:
    producer = complete_run()
    poison = [
        Delivery("p1", b"not a batch"),
        Delivery("p2", producer.batch()[:-1] + b"X"),
        Delivery("p3", producer.signed(90, [b"not a record"])),
        Delivery("p4", b"MLPB\x02" + producer.batch()[5:]),
    ]
    done = take(store, [*poison, *producer.deliveries()])
    assert done.parked == 4
    assert done.new == len(producer.events)
    assert len(roots(store)) == 2
    with store.snapshot() as tx:
        assert "batch version 2, expected 1" in {parked.reason for parked in tx.parked()}


def test_what_was_delivered_three_times_is_parked_and_takes_no_other_along(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies while it opens an entry leaves it, and all that it was given with it."""

    class Killed(BaseException):
        pass

    def deadly(data: bytes) -> Any:
        if data == poison:
            raise Killed
        return open_batch(data)

    producer, clock = complete_run(), [0.0]
    poison = producer.batch(0, 1) + b"poison"
    monkeypatch.setattr(batch_writer, "open_batch", deadly)
    transport = MemoryTransport(lambda: clock[0])
    transport.append([*(d.payload for d in producer.deliveries(4)), poison, producer.batch()])
    deaths = 0
    for _ in range(9):
        clock[0] += 100.0
        try:
            drain(transport, store, POLICY, "worker", lambda: NOW, stale_after_s=60.0)
        except Killed:
            deaths += 1
    assert (deaths, transport.backlog()) == (3, 0)
    with store.snapshot() as tx:
        assert [parked.reason for parked in tx.parked()] == ["delivered 4 times, never committed"]
        run = tx.run(RUN)
        assert run is not None
        assert run.state == "sealed"


def test_a_full_database_parks_nothing(tmp_path: Path) -> None:
    producer, clock = complete_run(20), [0.0]
    transport = MemoryTransport(lambda: clock[0])
    transport.append([producer.batch(0, 40), producer.batch(40)])
    store = SqlStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")

    def pages(limit: int) -> None:
        with store.exclusive() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={limit}")

    pages(1)
    for _ in range(10):
        clock[0] += 100.0
        with pytest.raises(StoreUnavailable, match="full"):
            drain(transport, store, POLICY, "worker", lambda: NOW)
    pages(100_000)
    clock[0] += 100.0
    drain(transport, store, POLICY, "worker", lambda: NOW)
    assert transport.backlog() == 0
    with store.snapshot() as tx:
        assert tx.parked() == []
        assert len(tx.records(RUN)) == len(producer.events)
    store.close()


def test_a_database_that_hangs_until_the_tasks_limit_parks_nothing(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limit(BaseException):
        pass

    def hangs(*_: object) -> None:
        raise Limit

    clock = [0.0]
    transport = MemoryTransport(lambda: clock[0])
    transport.append([complete_run().batch()])
    with monkeypatch.context() as patch:
        patch.setattr(store, "_begin", hangs)
        for _ in range(10):
            clock[0] += 100.0
            with pytest.raises(Limit), capture_logs() as logs:
                drain(transport, store, POLICY, "worker", lambda: NOW)
            assert [(line["run"], line["problem"]) for line in logs] == [(str(RUN), "Limit")]
    clock[0] += 100.0
    done = drain(transport, store, POLICY, "worker", lambda: NOW)
    assert (done.parked, len(done.entries)) == (0, 2)


def test_each_commit_has_its_own_time(store: SqlStore) -> None:
    times, transport = count(NOW), MemoryTransport()
    runs = [some_run(), some_run()]
    transport.append([complete_run(run=run).batch() for run in runs])
    drain(transport, store, POLICY, "worker", lambda: float(next(times)))
    with store.snapshot() as tx:
        rows = [tx.run(run) for run in runs]
        assert [(row.created_at, row.sealed_at) for row in rows if row] == [
            (NOW, NOW),
            (NOW + 1, NOW + 1),
        ]
        assert [head.created_at for head in tx.heads()] == [NOW, NOW, NOW + 1, NOW + 1]
        assert [tx.last_ingest(run) for run in runs] == [NOW, NOW + 1]


def test_a_run_that_cannot_be_written_holds_up_no_other(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, other = complete_run(), complete_run(run=some_run())
    take(store, [Delivery("0", damaged.batch(0, 7))])
    with store.exclusive() as connection:
        connection.exec_driver_sql("UPDATE run_trees SET training = x'00'")
    transport = MemoryTransport()
    payloads = [damaged.batch(7), other.batch(0, 7), damaged.batch(), other.batch(7)]
    transport.append(payloads)
    done = drain(transport, store, POLICY, "worker", lambda: NOW)
    assert (done.new, done.parked) == (len(other.events), 0)
    assert len(roots(store, other.run)) == 2
    assert transport.backlog() == 2  # the damaged run's, to come again


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seq": 3}, "stands at the place of seq 2"),
        ({"rank": 1}, "names rank 1"),
        ({"kind": Kind.METRICS}, "has no epoch"),
        ({"kind": Kind.METRICS, "epoch": -1}, "epoch: found -1, expected a whole number from 0"),
        ({"kind": Kind.CONFIG, "fields": {"public_key": "00"}}, "another public key"),
    ],
)
def test_misplaced_records_are_parked(
    store: LedgerStore, change: dict[str, object], problem: str
) -> None:
    producer = Producer()
    event = replace(Event(2, Kind.RESULTS, None, 0, 1, {}), **change)  # type: ignore[arg-type]  # keyword arguments of several types
    header = SegmentHeader(RUN, producer.name, 0, 1, 0)
    record = record_of(event, header, b"s" * 32).encode()
    batch = producer.signed(2, [record])
    assert take(store, [Delivery("1", batch)]).parked == 1
    with store.snapshot() as tx:
        assert problem in tx.parked()[0].reason


def test_foreign_records_in_a_batch_are_parked(store: LedgerStore) -> None:
    producer = Producer()
    for header, problem in (
        (SegmentHeader(UUID(int=5), producer.name, 0, 1, 0), "names run"),
        (SegmentHeader(RUN, b"\x09" * 16, 0, 1, 0), "names producer"),
    ):
        record = record_of(Event(0, Kind.RESULTS, None, 0, 1, {}), header, b"s" * 32).encode()
        batch = producer.signed(0, [record])
        take(store, [Delivery("1", batch)])
        with store.snapshot() as tx:
            assert any(problem in parked.reason for parked in tx.parked())


def test_nothing_after_the_before_seal_changes_it_or_who_leads(store: LedgerStore) -> None:
    producer = Producer()
    producer.begin()
    take(store, producer.deliveries())
    before = roots(store)["before"]
    late = Producer(name=b"\x02" * 16)
    late.add(Kind.DATA_TRAIN, root="other")
    late.seal("before")  # a mark of an earlier time than the leader's
    done = take(store, late.deliveries())
    assert (done.new, done.parked) == (1, 1)
    assert roots(store) == {"before": before}
    producer.finish()
    take(store, [Delivery("rest", producer.batch(6))])
    with store.snapshot() as tx:
        records = digested(tx, RUN)
    leaves, left_out = run_leaves(records, Phase.AFTER)
    assert [item.record.producer for item in left_out] == [late.name]
    assert len(leaves) == 5 + 1


def test_a_restarted_leader_repeats_its_beginning_and_nothing_is_parked(
    store: LedgerStore,
) -> None:
    first, again = Producer(), Producer(name=b"\x00" * 16)
    first.begin()
    first.epoch(1)
    take(store, first.deliveries())
    before = roots(store)["before"]
    again.begin()
    again.epoch(2)
    again.finish()
    again.events = [replace(event, ts_ns=event.ts_ns + 10**9) for event in again.events]
    assert take(store, again.deliveries()).parked == 0
    assert roots(store)["before"] == before
    with store.snapshot() as tx:
        run = tx.run(RUN)
        leaves, late = run_leaves(digested(tx, RUN), Phase.AFTER)
    assert run is not None
    assert (run.state, run.incomplete) == ("sealed", None)
    assert {item.record.kind for item in late} == BEFORE_KINDS
    assert {item.record.producer for item in late} == {again.name}
    assert len(leaves) == 5 + 2 + 2 + 1  # the beginning, two epochs, results


def test_a_sealed_run_takes_no_more(store: LedgerStore) -> None:
    producer = complete_run()
    take(store, producer.deliveries())
    producer.epoch(9)
    done = take(store, [Delivery("late", producer.batch(len(producer.events) - 2))])
    assert (done.new, done.parked) == (0, 2)


@pytest.mark.slow
def test_a_hole_waits_for_grace_and_is_named(store: LedgerStore) -> None:
    producer = complete_run()
    kept = [d for d in producer.deliveries(1) if not d.id.endswith("-7")]
    take(store, kept)
    assert list(roots(store)) == ["before"]
    with store.transaction() as tx:
        assert seal_ready(tx, RUN, POLICY, NOW + 59) == []
    with store.transaction() as tx:
        (entry,) = seal_ready(tx, RUN, POLICY, NOW + 60)
        assert entry.phase is Phase.AFTER
        run = tx.run(RUN)
        assert run is not None
        assert run.incomplete == "rank 0: events from 7 on are missing"


def two_ranks() -> tuple[Producer, Producer]:
    first = Producer(world_size=2)
    first.begin()
    second = Producer(rank=1, world_size=2, name=b"\x02" * 16)
    return first, second


def test_after_waits_for_every_rank(store: LedgerStore) -> None:
    first, second = two_ranks()
    first.epoch(1)
    first.finish()
    second.epoch(1)
    second.end()
    take(store, first.deliveries())
    assert list(roots(store)) == ["before"]
    take(store, second.deliveries(1)[:-1])
    assert list(roots(store)) == ["before"]
    take(store, second.deliveries(1)[-1:])
    assert list(roots(store)) == ["before", "after"]


def test_after_waits_for_what_is_in_hand(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.ledger.ingest.TRANSACTION_S", 0.0)
    trainer, child = complete_run(), Producer(name=b"\x02" * 16)
    child.epoch(1)
    child.end()
    assert take(store, [*trainer.deliveries(), *child.deliveries()]).parked == 0
    assert list(roots(store)) == ["before", "after"]


@pytest.mark.slow
def test_a_missing_rank_is_named_after_grace(store: LedgerStore) -> None:
    first, _ = two_ranks()
    first.finish()
    take(store, first.deliveries())
    take(store, [], now=NOW)
    with store.transaction() as tx:
        seal_ready(tx, RUN, POLICY, NOW + 61)
        run = tx.run(RUN)
        assert run is not None
        assert run.incomplete == "rank 1: no run.end"


def test_a_million_ranks_cost_what_those_cost_that_are_there(store: LedgerStore) -> None:
    producer = Producer(world_size=1_000_000)
    producer.begin()
    for epoch in range(1, 43):
        producer.epoch(epoch)
        producer.seal("checkpoint", epoch)
    steps = count()

    def counted(size: int) -> Iterator[int]:
        for rank in builtins.range(size):
            next(steps)
            yield rank

    with pytest.MonkeyPatch.context() as patch:
        for module in (seal_module, selection):
            patch.setattr(module, "range", counted, raising=False)
        take(store, producer.deliveries(16))
        producer.finish()
        take(store, [Delivery("end", producer.batch(len(producer.events) - 3))])
        with store.transaction() as tx:
            waiting = waits_for(tx, RUN)
            seal_ready(tx, RUN, POLICY, NOW + 61)
            run = tx.run(RUN)
    assert 20 <= next(steps) < 50_000
    assert waiting[0].startswith("nothing came from ranks 1, 2, 3,")
    assert waiting[0].endswith(", 20 and 999979 more of 1000000")
    assert run is not None
    assert str(run.incomplete).startswith("rank 1: no run.end; rank 2: no run.end")
    assert str(run.incomplete).endswith("rank 20: no run.end; 999979 more ranks: no run.end")


def test_checkpoint_needs_every_ranks_mark_and_stays_a_prefix(store: LedgerStore) -> None:
    first, second = two_ranks()
    for producer in (first, second):
        producer.epoch(1)
        producer.seal("checkpoint", 1)
        producer.add(Kind.METRICS, 1, metrics={"late": 1})
        producer.epoch(2)
    take(store, first.deliveries())
    assert list(roots(store)) == ["before"]
    take(store, second.deliveries())
    assert list(roots(store)) == ["before", "checkpoint1"]
    first.finish()
    second.end()
    size = len(first.events)
    take(
        store,
        [Delivery("f", first.batch(size - 3)), Delivery("s", second.batch(len(second.events) - 1))],
    )
    assert list(roots(store)) == ["before", "checkpoint1", "after"]
    from provenance.formats.run_tree.tree import SLOTS
    from tests.support.ledger_values import checkpoints_upto, run_leaves, run_tree

    with store.snapshot() as tx:
        records, sealed = digested(tx, RUN), checkpoints_upto(tx.entries(RUN))
        entries = tx.entries(RUN)
    assert [each.coverage for each in sealed] == [{first.name: 8, second.name: 2}]
    checkpoint = run_tree(records, Phase.CHECKPOINT, sealed, dict(entries[1].coverage))
    after = run_tree(records, Phase.AFTER, sealed, dict(entries[2].coverage))
    assert roots(store)["checkpoint1"] == checkpoint.root.hex()
    assert roots(store)["after"] == after.root.hex()
    kept, grown = (each.node("training").children for each in (checkpoint, after))
    assert grown[: len(kept)] == kept
    assert [checkpoint.node(top) for top in SLOTS] == [after.node(top) for top in SLOTS]
    late = run_leaves(records, Phase.AFTER, sealed)[1]
    assert [item.record.body for item in late] == [{"metrics": {"late": 1}}] * 2


def test_no_anchor_rows_where_none_are_wanted(store: LedgerStore) -> None:
    producer = Producer()
    producer.begin()
    producer.finish(anchor=False)
    take(store, producer.deliveries())
    with store.snapshot() as tx:
        assert [(a.network, a.size) for a in tx.anchors()] == [("local", 1)]
        assert len(tx.heads()) == 2


def test_a_drain_ends_with_its_time_and_says_that_there_is_more(store: SqlStore) -> None:
    transport, runs = MemoryTransport(), [complete_run(run=some_run()) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("provenance.ledger.ingest.BATCHES_PER_READ", 1)
        transport.append([run.batch() for run in runs])
        done = drain(transport, store, POLICY, "one", lambda: NOW, within_s=0.0)
        assert (done.batches, done.more, transport.backlog()) == (1, True, 2)
        done = drain(transport, store, POLICY, "one", lambda: NOW)
    assert (done.batches, done.more, transport.backlog()) == (2, False, 0)


class FullTransport(MemoryTransport):
    """A server without memory: it deletes, and takes nothing."""

    def publish_acknowledged(
        self, run: UUID, acknowledgements: Mapping[bytes, bytes], generation: str | None
    ) -> None:
        raise TransportUnavailable("out of memory")


def test_a_full_server_is_emptied_before_it_is_called_away(store: SqlStore) -> None:
    transport = FullTransport()
    transport.append([complete_run().batch()])
    with pytest.raises(TransportUnavailable):
        drain(transport, store, POLICY, "one", lambda: NOW)
    assert transport.backlog() == 0
    with store.snapshot() as tx:
        assert len(tx.records(RUN)) == len(complete_run().events)


def test_what_a_lost_server_delivered_is_not_acknowledged_in_the_next(store: SqlStore) -> None:
    transport, producer = MemoryTransport(), complete_run()
    transport.append([producer.batch()])
    deliveries = transport.read("one", 1)
    transport.lose_everything()
    transport.append([producer.batch()])
    assert ingest(transport, store, POLICY, deliveries, lambda: NOW).new == len(producer.events)
    assert transport.acknowledged(RUN) == {}
    assert drain(transport, store, POLICY, "one", lambda: NOW).duplicates == len(producer.events)
    assert acknowledged(transport) == {producer.name: len(producer.events), NOBODY: 0}


@pytest.mark.slow
def test_a_sealed_run_delivered_again_is_read_once_per_kind(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = complete_run(epochs=200)
    transport = MemoryTransport()
    transport.append([producer.batch()])
    drain(transport, store, POLICY, "one", lambda: NOW)
    reads: list[Any] = []
    with store.transaction() as tx:
        kind = type(tx)
    real = kind.records

    def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(kind, "records", counted)
    transport.append([producer.batch()])
    again = drain(transport, store, POLICY, "one", lambda: NOW)
    assert (again.duplicates, again.parked) == (len(producer.events), 0)
    assert len(reads) < 20
