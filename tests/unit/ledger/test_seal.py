"""Seals of checkpoints: what they cover, which are made, and that an honest run verifies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind, Phase
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import seal_ready
from provenance.ports.transport import Delivery
from provenance.ports.values import LedgerEntry
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.runs import POLICY, RUN, Producer
from tests.support.spooled import default_log as default_log

NOW = 1_760_000_100.0
SECOND = b"\x02" * 16
SAID = "checkpoint not sealed: a later one is"


@pytest.fixture
def store() -> Iterator[SqlStore]:
    opened = SqlStore.open("sqlite://")
    yield opened
    opened.close()


def take(store: SqlStore, *payloads: bytes) -> list[dict[str, Any]]:
    """Ingest; what was logged beside the seals that were made."""
    deliveries = [Delivery(str(at), payload) for at, payload in enumerate(payloads)]
    with capture_logs() as said:
        ingest(MemoryTransport(), store, replace(POLICY, networks=()), deliveries, lambda: NOW)
    return [dict(line) for line in said if line["event"] != "ledger.sealed"]


def entries(store: SqlStore) -> list[LedgerEntry]:
    with store.snapshot() as tx:
        return list(tx.entries(RUN))


def seals(store: SqlStore) -> list[str]:
    return [e.phase.value if e.epoch is None else str(e.epoch) for e in entries(store)]


def evidence(store: SqlStore) -> RunEvidence:
    return from_store(store, RUN, POLICY.signer.verifier)


def checked(store: SqlStore) -> VerificationReport:
    return verify(evidence(store), None, verifier_key=POLICY.signer.verifier, now=NOW)


def holds(store: SqlStore) -> list[str]:
    """The run verifies; the records that are late, by producer and seq."""
    assert checked(store).findings == ()
    found = [record for record in evidence(store).records if record.place == "late"]
    return sorted(f"{record.producer.hex()[:2]}-{record.seq}" for record in found)


def two(world_size: int = 1) -> tuple[Producer, Producer]:
    first = Producer(world_size=world_size)
    first.begin()
    return first, Producer(rank=world_size - 1, world_size=world_size, name=SECOND)


# --- what a checkpoint covers ------------------------------------------------------------


def test_a_producer_without_a_mark_is_covered_as_far_as_it_had_arrived(store: SqlStore) -> None:
    main, child = two()
    main.epoch(1)
    main.seal("checkpoint", 1)
    for number in (1, 1, 2):
        child.epoch(number)
    child.end()
    take(store, child.batch(0, 3), main.batch())
    assert entries(store)[1].coverage == ((main.name, 8), (SECOND, 3))
    take(store, child.batch(3))
    main.finish()
    take(store, main.batch(9))
    assert seals(store) == ["before", "1", "after"]
    assert holds(store) == ["02-3"], "the rest of epoch 1 came late; epoch 2 did not"


@pytest.mark.parametrize("marks_again", [False, True])
def test_the_first_process_of_a_resumed_run_comes_after_the_checkpoint(
    store: SqlStore, marks_again: bool
) -> None:
    """Each of the two may come first, and both may have marked the checkpoint."""
    dead, resumed = two()
    dead.epoch(1)
    if marks_again:
        dead.seal("checkpoint", 1)
    resumed.epoch(1)
    resumed.seal("checkpoint", 1)
    resumed.epoch(2)
    resumed.finish()
    take(store, dead.batch(0, 6), resumed.batch(0, 3))
    assert entries(store)[1].coverage == ((SECOND, 2),)
    take(store, dead.batch(6))
    assert checked(store).findings == ()
    dead.end()
    take(store, dead.batch(8 + marks_again), resumed.batch(3))
    assert seals(store) == ["before", "1", "after"]
    assert holds(store) == ["01-6", "01-7"]


def test_a_mark_that_comes_after_the_seal_moves_nothing(store: SqlStore) -> None:
    main, child = two()
    main.epoch(1)
    main.seal("checkpoint", 1)
    take(store, main.batch())
    child.epoch(1)
    child.seal("checkpoint", 1)
    child.end()
    take(store, child.batch())
    assert checked(store).findings == ()
    main.finish()
    take(store, main.batch(9))
    assert holds(store) == ["02-0", "02-1"]


def test_in_the_ordinary_case_what_is_stated_does_not_depend_on_arrival(store: SqlStore) -> None:
    first, second = two(world_size=2)
    for producer in (first, second):
        producer.epoch(1)
        producer.seal("checkpoint", 1)
        producer.epoch(2)
    other = SqlStore.open("sqlite://")
    take(store, first.batch(), second.batch())
    take(other, second.batch(0, 1))
    take(other, first.batch(3))
    take(other, second.batch(1))
    take(other, first.batch(0, 3))
    before, checkpoint = (entry.coverage for entry in entries(store))
    assert (before, checkpoint) == (((first.name, 6),), ((first.name, 8), (SECOND, 2)))
    assert entries(other) == entries(store)
    other.close()


# --- checkpoints go forward --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 100])
def test_checkpoints_out_of_order_are_made_alike_whatever_the_arrival(
    store: SqlStore, size: int
) -> None:
    main, _ = two()
    for number in (5, 3, 6):
        main.epoch(number)
        main.seal("checkpoint", number)
    main.finish()
    said = []
    for delivery in main.deliveries(size):
        said += take(store, delivery.payload)
    assert seals(store) == ["before", "5", "6", "after"]
    assert holds(store) == ["01-10", "01-9"], "epoch 3, behind the checkpoint of epoch 5"
    assert [(line["event"], line["epoch"]) for line in said] == [(SAID, 3)]


def test_a_checkpoint_behind_a_sealed_one_waits_for_nothing(store: SqlStore) -> None:
    main, _ = two()
    main.epoch(5)
    main.seal("checkpoint", 5)
    take(store, main.batch())
    main.epoch(3)
    main.seal("checkpoint", 3)
    said = take(store, main.batch(9))
    assert [line["epoch"] for line in said] == [3]
    with store.transaction() as tx:
        assert not tx.awaiting_seal()
        assert seal_ready(tx, RUN, POLICY, NOW + 1e6) == []
    assert seals(store) == ["before", "5"]
    assert checked(store).findings == ()


@pytest.mark.slow
def test_a_checkpoint_of_the_dead_process_comes_behind_the_resumed_ones(store: SqlStore) -> None:
    dead, resumed = two()
    dead.epoch(3)
    dead.seal("checkpoint", 3)
    dead.end()
    resumed.epoch(5)
    resumed.seal("checkpoint", 5)
    resumed.finish()
    take(store, dead.batch(0, 7), resumed.batch(0, 3))
    assert [line["epoch"] for line in take(store, dead.batch(7))] == [3]
    with store.snapshot() as tx:
        assert not tx.awaiting_seal()
    take(store, resumed.batch(3))
    assert seals(store) == ["before", "5", "after"]
    assert holds(store) == ["01-7"]


@pytest.mark.slow
def test_where_a_ranks_mark_is_missing_the_later_checkpoint_takes_its_records(
    store: SqlStore,
) -> None:
    first, second = two(world_size=2)
    for number in (3, 5):
        for producer in (first, second):
            producer.epoch(number)
        first.seal("checkpoint", number)
    second.seal("checkpoint", 5)
    said = take(store, first.batch(), second.batch())
    assert [(line["event"], line["epoch"]) for line in said] == [(SAID, 3)]
    assert seals(store) == ["before", "5"]
    assert entries(store)[1].coverage == ((first.name, 11), (SECOND, 4))
    second.seal("checkpoint", 3)
    assert take(store, second.batch(5)) == [], "it was said already"
    first.finish()
    second.end()
    assert take(store, first.batch(12), second.batch(6)) == []
    assert seals(store) == ["before", "5", "after"]
    assert holds(store) == []


def test_each_checkpoint_left_out_is_said_once(store: SqlStore) -> None:
    first, second = two(world_size=2)
    first.seal("checkpoint", 1)
    first.seal("checkpoint", 7)
    first.seal("checkpoint", 9)
    second.seal("checkpoint", 7)
    assert [line["epoch"] for line in take(store, first.batch(), second.batch())] == [1]
    second.seal("checkpoint", 2)
    second.seal("checkpoint", 2)
    assert [line["epoch"] for line in take(store, second.batch(1))] == [2]
    first.finish()
    second.end()
    said = take(store, first.batch(9), second.batch(3))
    assert [(line["event"], line["epoch"]) for line in said] == [
        ("checkpoint not sealed: the run is sealed", 9)
    ]
    assert seals(store) == ["before", "7", "after"]
    assert checked(store).findings == ()


# --- marks -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"phase": "before", "epoch": 1},
        {"phase": "after", "epoch": 1},
        {"phase": "checkpoint", "epoch": -1},
        {"phase": "checkpoint", "epoch": None},
    ],
)
def test_a_malformed_mark_asks_for_nothing_and_holds_nothing_up(
    store: SqlStore, body: dict[str, Any]
) -> None:
    main, _ = two()
    take(store, main.batch())
    main.add(Kind.SEAL, None, anchor=True, **body)
    take(store, main.batch(6))
    with store.snapshot() as tx:
        assert not tx.awaiting_seal()
        assert not tx.parked()
    main.epoch(1)
    main.finish()
    take(store, main.batch(7))
    assert [entry.phase for entry in entries(store)] == [Phase.BEFORE, Phase.AFTER]
    assert holds(store) == []


# --- what is stated is checked -----------------------------------------------------------


def sealed_run(store: SqlStore) -> RunEvidence:
    main, child = two()
    child.epoch(1)
    child.end()
    main.epoch(1)
    main.seal("checkpoint", 1)
    main.epoch(2)
    main.finish()
    take(store, child.batch(), main.batch())
    return evidence(store)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({b"\x01" * 16: 7, SECOND: 2}, "the records give run root"),
        ({b"\x01" * 16: 8}, "the records give run root"),
        ({}, "the records give run root"),
        ({b"\x01" * 16: 9, SECOND: 2}, "states to cover 9 events of producer 0101"),
        ({b"\x01" * 16: 8, SECOND: 3}, "the records give 2"),
        ({b"\x01" * 16: 8, SECOND: 2, b"\x03" * 16: 4}, "event 0 is covered and is not here"),
        ({b"\x01" * 16: 8, SECOND: 2, b"\x03" * 16: 0}, "event 0 is covered and is not here"),
    ],
)
def test_another_coverage_is_found(store: SqlStore, stated: dict[bytes, int], problem: str) -> None:
    told = sealed_run(store)
    assert told.entries[1].coverage == ((b"\x01" * 16, 8), (SECOND, 2))
    changed = replace(told.entries[1], coverage=tuple(sorted(stated.items())))
    forged = replace(told, entries=(told.entries[0], changed, told.entries[2]))
    report = verify(forged, None, verifier_key=POLICY.signer.verifier, now=NOW)
    assert any(f.check == 2 and problem in f.problem for f in report.findings), report.findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "stated", "problems"),
    [
        (0, {b"\x01" * 16: 7}, 2),
        (0, {b"\x01" * 16: 6, SECOND: 2}, 2),
        (0, {b"\x01" * 16: 5}, 1),  # as where the mark had not arrived: but for the root
        (2, {b"\x01" * 16: 14}, 2),
        (2, {b"\x01" * 16: 13, SECOND: 3}, 2),
    ],
)
def test_before_covers_the_leader_and_after_everybody(
    store: SqlStore, at: int, stated: dict[bytes, int], problems: int
) -> None:
    told = sealed_run(store)
    assert told.entries[0].coverage == ((b"\x01" * 16, 6),)
    assert told.entries[2].coverage == ((b"\x01" * 16, 14), (SECOND, 3))
    listed = list(told.entries)
    listed[at] = replace(listed[at], coverage=tuple(sorted(stated.items())))
    forged = replace(told, entries=tuple(listed))
    report = verify(forged, None, verifier_key=POLICY.signer.verifier, now=NOW)
    assert [f.check for f in report.findings] == [2] * problems
    assert any(f.problem.startswith("does not cover 1 events") for f in report.notices) == (
        problems == 1
    )
