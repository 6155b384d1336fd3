"""Shipper: what is shipped, when the cursor moves, what is deleted, and what an outage does.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.capture.emitter import Emitter
from provenance.capture.keys import KEY_FILE, keep_run_keys, new_run_keys
from provenance.capture.reasons import UNSHIPPED, UNSIGNED, noted
from provenance.capture.ship import keyless, reader, shipment
from provenance.capture.ship import loop as shipper_module
from provenance.capture.ship.batches import BATCH_BYTES, BATCH_RECORDS
from provenance.capture.ship.cursor import CURSOR_FILE, load_cursors
from provenance.capture.ship.loop import Shipper
from provenance.capture.spool import read_segment, scan_run
from provenance.capture.spool_writer import SpoolWriter
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    TransportUnavailable,
    UnavailableError,
)
from provenance.formats.event import SEGMENT_VERSION, Event, frame
from provenance.formats.note import SignerKey
from provenance.formats.producers.acknowledgement import (
    NOBODY,
    sign_acknowledgement,
    sign_sealed,
)
from provenance.formats.producers.batch import open_batch
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, Record, record_digest
from provenance.stores.memory_transport import MemoryTransport
from tests.support.sigstore_world import Sigstore

LEDGER = SignerKey.from_private_bytes("test/ledger", b"\x05" * 32)


class Database:
    """What a hashing worker does, as far as a shipper can see it."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.rows: dict[UUID, dict[bytes, dict[int, bytes]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        self.batches = 0
        self.carried: list[bytes | None] = []
        self.duplicates = 0

    def drain(self, *, publish: bool = True) -> None:
        while deliveries := self.transport.read("worker", 100):
            for delivery in deliveries:
                if not delivery.payload:
                    continue  # a stranger's: parked
                batch = open_batch(delivery.payload)
                self.batches += 1
                self.carried.append(batch.identity_bytes)
                rows = self.rows[batch.certificate.run][batch.certificate.producer]
                for seq, data in enumerate(batch.records, batch.first_seq):
                    self.duplicates += seq in rows
                    assert rows.setdefault(seq, data) == data, "the same event, other bytes"
            self.transport.ack(deliveries)
        if publish:
            for run, producers in self.rows.items():
                self.transport.publish_acknowledged(
                    run,
                    {key: self.acknowledge(run, key) for key in producers},
                    self.transport.generation(),
                )

    def acknowledge(
        self, run: UUID, producer: bytes, count: int | None = None, key: SignerKey = LEDGER
    ) -> bytes:
        """As the ledger signs what is here without a hole, or ``count`` events of it."""
        rows = self.rows[run][producer]
        if count is None:
            count = next(n for n in range(len(rows) + 1) if n not in rows)
        digests = (record_digest(rows[seq]) for seq in range(count))
        chain = chain_on(chain_start(run, producer), digests)
        return sign_acknowledgement(run, producer, count, chain, key)

    def records(self, run: UUID) -> list[Record]:
        return [
            Record.decode(rows[seq])
            for _, rows in sorted(self.rows[run].items())
            for seq in sorted(rows)
        ]


class World:
    """A spool with one run, a transport and a database."""

    def __init__(self, spool: Path, sigstore: str | None = None) -> None:
        self.spool = spool
        keys = replace(new_run_keys(), sigstore=sigstore)
        self.run = keys.run
        self.folder = spool / str(self.run)
        self.keys = keep_run_keys(self.folder, keys)
        self.transport = MemoryTransport()
        self.database = Database(self.transport)
        self.emitters: list[Emitter] = []  # one that is collected ends its producer

    def emitter(self, rank: int = 0, world_size: int = 1, **options: Any) -> Emitter:
        self.emitters.append(Emitter(self.spool, self.run, rank, world_size, **options))
        return self.emitters[-1]

    def shipper(self, **options: Any) -> Shipper:
        options.setdefault("ledger_keys", lambda: [LEDGER.verifier.public_bytes])
        return Shipper(self.spool, self.transport, **options)

    def epochs(self) -> list[int | None]:
        return [r.epoch for r in self.database.records(self.run) if r.kind is Kind.METRICS]

    def segments(self) -> list[str]:
        return [s.path.name for s in scan_run(self.folder, self.run).segments]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "spool")


def emit(emitter: Emitter, *epochs: int) -> None:
    for n in epochs:
        assert emitter.emit(Kind.METRICS, n, {"n": n})


# --- who stands behind the run -----------------------------------------------------------


class Signer:
    """Sigstore, as far as a shipper can see it; ``reason`` is why it signs nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reason: str | None = None) -> None:
        self.calls, self.reason = 0, reason
        monkeypatch.setattr(keyless, "_bundle", self)

    def __call__(self, kind: str, message: bytes, token_file: str) -> bytes:
        self.calls += 1
        assert (kind, token_file) == ("artifact", "/run/token")
        if self.reason is not None:
            raise UnavailableError(self.reason)
        return Sigstore().sign(message)


@pytest.fixture
def asking(tmp_path: Path) -> World:
    """A run that is to be signed by Sigstore."""
    return World(tmp_path / "spool", sigstore="/run/token")


def identities(world: World) -> list[bool]:
    """Whether each batch carries one, in order; all are taken by the database."""
    world.database.carried.clear()
    world.database.drain()
    return [each is not None for each in world.database.carried]


def assert_cleared(world: World) -> None:
    """What is left comes home, and the run's folder goes."""
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 1
    assert not world.folder.exists()


def test_an_identity_travels_until_the_ledger_has_the_producer(
    asking: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(monkeypatch)
    one, two = asking.emitter(world_size=2), asking.emitter(rank=1, world_size=2)
    emit(one, 0)
    with asking.shipper() as shipper:
        shipper.run_once()
        emit(one, 1)
        shipper.run_once()
    with asking.shipper() as shipper:  # it restarts: nothing is signed again
        emit(one, 2)
        shipper.run_once()
        assert identities(asking) == [True, True, True]
        emit(one, 3)
        emit(two, 3)
        shipper.run_once()
        assert sorted(identities(asking)) == [False, True], "the other rank's, which is new"
    assert signer.calls == 1
    one.close()
    two.close()
    assert_cleared(asking)


def test_where_nobody_signs_the_run_goes_on_and_each_shipper_tries_once(
    asking: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(monkeypatch, "Sigstore: no route to host")
    emitter = asking.emitter()
    for epoch in range(2):
        with asking.shipper() as shipper, structlog.testing.capture_logs() as logs:
            emit(emitter, epoch)
            shipper.run_once()
            shipper.run_once()
        assert [(e["event"], e["reason"]) for e in logs if e["log_level"] == "warning"] == [
            ("no identity signs this run", signer.reason)
        ]
        assert signer.calls == epoch + 1
    assert noted(asking.spool, UNSIGNED) == {str(asking.run): signer.reason}
    assert identities(asking) == [False, False]
    signer.reason = None
    for _ in range(2):  # the ledger has begun the run without an identity
        with asking.shipper() as shipper:
            emit(emitter, 2)
            shipper.run_once()
            shipper.run_once()
    assert identities(asking) == [False, False]
    emitter.close()
    assert_cleared(asking)


# --- the plain way -----------------------------------------------------------------------


def test_events_arrive_as_signed_records(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, *range(5))
    with world.shipper() as shipper:
        shipped = shipper.run_once()
    assert (shipped.runs, shipped.events, shipped.batches, shipped.pending) == (1, 5, 1, 5)
    assert shipped.bytes > 500
    batch = open_batch(world.transport.read("x", 1)[0].payload)
    assert batch.certificate == world.keys.producer(emitter.producer, 0)[0]
    assert (batch.first_seq, batch.before) == (0, chain_start(world.run, emitter.producer))
    assert [Record.decode(r).body for r in batch.records] == [{"n": n} for n in range(5)]


def test_nothing_new_ships_nothing(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, 1)
    with world.shipper() as shipper:
        shipper.run_once()
        again = shipper.run_once()
        assert (again.events, again.batches) == (0, 0)
        emit(emitter, 2)
        assert shipper.run_once().events == 1
    world.database.drain()
    assert world.epochs() == [1, 2]
    assert world.database.duplicates == 0


def test_a_later_shipper_goes_on_where_the_first_ended(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(20))
    with world.shipper() as first:
        first.run_once()
    emit(emitter, *range(20, 40))
    with world.shipper() as second:
        assert second.run_once().events == 20
    world.database.drain()
    assert world.epochs() == list(range(40))
    assert world.database.duplicates == 0


def test_shipping_twice_gives_the_same_bytes(world: World) -> None:
    emit(world.emitter(), *range(50))
    for _ in range(2):
        with world.shipper() as shipper:
            shipper.run_once()
        (world.folder / CURSOR_FILE).unlink()
    world.database.drain()  # asserts equal bytes
    assert world.database.duplicates == 50


def test_batches_are_bounded_by_count(world: World) -> None:
    emit(world.emitter(), *range(BATCH_RECORDS * 2 + 1))
    with world.shipper() as shipper:
        assert shipper.run_once().batches == 3
    sizes = [len(open_batch(d.payload).records) for d in world.transport.read("x", 9)]
    assert sizes == [BATCH_RECORDS, BATCH_RECORDS, 1]


def test_batches_are_bounded_by_bytes_and_a_large_record_travels_alone(world: World) -> None:
    emitter = world.emitter()
    for size in (400_000, 400_000, 400_000, 2_000_000, 10):
        emitter.emit(Kind.METRICS, 1, {"text": "x" * size})
    with world.shipper() as shipper:
        shipper.run_once()
    deliveries = [d for _ in range(2) for d in world.transport.read("x", 9)]
    batches = [open_batch(d.payload).records for d in deliveries]
    assert [len(records) for records in batches] == [2, 1, 1, 1]
    assert all(sum(map(len, r)) <= BATCH_BYTES for r in batches if len(r) > 1)


def test_a_large_backlog_is_flushed_in_pieces_and_the_cursor_moves_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipment, "FLUSH_BYTES", 5000)
    emit(world.emitter(segment_bytes=4000), *range(200))
    appended: list[int] = []
    real = world.transport.append

    def append(payloads: Any) -> None:
        if len(appended) == 3:
            raise TransportUnavailable("away")
        appended.append(sum(len(open_batch(p).records) for p in payloads))
        real(payloads)

    monkeypatch.setattr(world.transport, "append", append)
    with world.shipper() as shipper:
        with pytest.raises(TransportUnavailable):
            shipper.run_once()
        (cursor,) = load_cursors(world.folder).producers.values()
        assert cursor.next == sum(appended) > 0
        monkeypatch.setattr(world.transport, "append", real)
        shipper.run_once()
    world.database.drain()
    assert world.epochs() == list(range(200))
    assert world.database.duplicates == 0


def test_ranks_and_runs_are_shipped_side_by_side(world: World, tmp_path: Path) -> None:
    other = World(world.spool)
    for rank in range(3):
        emit(world.emitter(rank, 3), *range(10))
    emit(other.emitter(), *range(7))
    with world.shipper() as shipper:
        assert shipper.run_once().runs == 2
    world.database.drain()
    records = world.database.records(world.run)
    assert sorted((r.rank, r.seq) for r in records) == [(r, s) for r in range(3) for s in range(10)]
    assert len(world.database.records(other.run)) == 7


# --- order of steps ----------------------------------------------------------------------


def test_the_producer_that_wrote_last_is_shipped_last(world: World) -> None:
    """A killed child announces no end: what it wrote comes before the end of its parent."""
    emitters = [world.emitter() for _ in range(8)]
    parent = min(emitters, key=lambda emitter: emitter.producer)
    for emitter in emitters:
        emit(emitter, 1)
    parent.close("finished")
    with world.shipper() as shipper:
        shipper.run_once()
    order = [open_batch(d.payload).certificate.producer for d in world.transport.read("me", 100)]
    assert order[-1] == parent.producer
    assert len(order) == len(emitters)


def test_files_are_synced_before_and_the_cursor_saved_after_the_append(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(world.emitter(), 1)
    steps: list[str] = []

    def step(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if not (name == "append" and not args[0]):
                steps.append(name)
            return real(*args)

        return call

    with world.shipper() as shipper:
        shipper.run_once()  # generation and cursor file are there
        for target, name in (
            (os, "fdatasync"),
            (world.transport, "append"),
            (shipment, "save_cursors"),
        ):
            monkeypatch.setattr(target, name, step(name, getattr(target, name)))
        emit(world.emitter(), 2)
        shipper.run_once()
    assert steps == ["fdatasync", "append", "save_cursors"]


# --- a database that went back -----------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 3])
def test_what_a_restored_database_lacks_is_shipped_again(world: World, kept: int) -> None:
    emitter = world.emitter()
    emit(emitter, *range(1, 6))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().pending == 0
        rows = world.database.rows[world.run][emitter.producer]
        for seq in [seq for seq in rows if seq >= kept]:
            del rows[seq]
        emit(emitter, 6)
        emitter.close()
        shipper.run_once()
        world.database.drain()  # event 6 is taken, and what lies before it is missing
        with structlog.testing.capture_logs() as logs:
            shipped = shipper.run_once()
        assert (shipped.rewound, shipped.events) == (7 - kept, 7 - kept)
        assert [entry["acknowledged"] for entry in logs] == [kept]
        world.database.drain()
        assert shipper.run_once().finished_runs == 1
    assert world.epochs() == [1, 2, 3, 4, 5, 6]


def test_what_it_lacks_and_the_spool_no_longer_has_is_said_once(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(20))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().deleted_segments
        world.database.rows[world.run][emitter.producer].clear()
        emit(emitter, 20)
        shipper.run_once()
        world.database.drain()
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                shipped = shipper.run_once()
                assert (shipped.rewound, shipped.events, shipped.missing) == (0, 0, 0)
    (said,) = logs
    assert said["event"].endswith("and the spool no longer has them")
    assert (said["acknowledged"], said["before"]) == (0, 20)
    assert said["spool_from"] > 0


# --- outages -----------------------------------------------------------------------------


def test_while_the_transport_is_away_the_cursor_stands(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, 1)
    world.transport.unavailable = True
    with world.shipper() as shipper:
        for _ in range(3):
            with pytest.raises(TransportUnavailable):
                shipper.run_once()
        emit(emitter, 2)
        world.transport.unavailable = False
        assert shipper.run_once().events == 2


def test_an_emptied_transport_is_given_again_what_is_not_committed(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(10))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        emit(emitter, *range(10, 30))
        shipper.run_once()
        world.transport.lose_everything()
        again = shipper.run_once()
    assert (again.rewound, again.events) == (20, 20)
    world.database.drain()
    assert world.epochs() == list(range(30))
    assert world.database.duplicates == 0


def test_an_emptied_transport_is_noticed_by_a_later_shipper_too(world: World) -> None:
    emit(world.emitter(), *range(10))
    with world.shipper() as shipper:
        shipper.run_once()
    world.transport.lose_everything()
    world.transport.append([])  # somebody else has been there: a generation, not ours
    with world.shipper() as shipper:
        assert shipper.run_once().rewound == 10
    world.database.drain()
    assert world.epochs() == list(range(10))


def test_a_loss_between_append_and_the_next_pass_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(world.emitter(), *range(5))
    real = world.transport.append

    def append(payloads: Any) -> None:
        real(payloads)
        if payloads:
            world.transport.lose_everything()
            monkeypatch.setattr(world.transport, "append", real)

    monkeypatch.setattr(world.transport, "append", append)
    with world.shipper() as shipper:
        shipper.run_once()
        assert shipper.run_once().rewound == 5
    world.database.drain()
    assert world.epochs() == list(range(5))


def test_entries_that_vanished_without_a_new_generation_are_shipped_again(world: World) -> None:
    emit(world.emitter(), *range(5))
    with world.shipper(stall_s=0.0) as shipper:
        shipper.run_once()
        shipper.run_once()  # learns where it stands; entries are still there
        world.transport.ack(world.transport.read("thief", 9))
        assert shipper.run_once().rewound == 5
    world.database.drain()
    assert world.epochs() == list(range(5))


def test_a_slow_worker_is_no_reason_to_ship_again(world: World) -> None:
    emit(world.emitter(), *range(5))
    with world.shipper(stall_s=0.0) as shipper:
        for _ in range(5):
            assert shipper.run_once().rewound == 0


def test_what_vanished_is_shipped_again_though_others_keep_the_stream_filled(
    world: World,
) -> None:
    emit(world.emitter(), *range(5))
    with world.shipper(stall_s=0.0) as shipper:
        shipper.run_once()
        assert shipper.run_once().rewound == 0
        world.transport.ack(world.transport.read("thief", 9))
        world.transport.append([b""] * 3)
        assert shipper.run_once().rewound == 0, "nobody is seen to work"
        world.transport.ack(world.transport.read("worker", 1))
        assert shipper.run_once().rewound == 5
        assert world.transport.backlog() == 3
    world.database.drain()
    assert world.epochs() == list(range(5))


def test_what_waits_behind_a_long_backlog_is_not_shipped_again(world: World) -> None:
    world.transport.append([b""] * 50)
    emit(world.emitter(), *range(5))
    with world.shipper(stall_s=0.0) as shipper:
        for _ in range(50):
            assert shipper.run_once().rewound == 0
            world.transport.ack(world.transport.read("worker", 1))
            world.transport.append([b""])
            assert shipper.run_once().rewound == 0
        world.database.drain()
        assert shipper.run_once().rewound == 0
    assert world.database.duplicates == 0


def test_a_transport_full_of_unread_batches_gets_no_more(world: World) -> None:
    emitter = world.emitter()
    with world.shipper(max_backlog=2) as shipper:
        for n in range(4):
            emit(emitter, n)
            last = shipper.run_once()
        assert (world.transport.backlog(), last.waiting) == (2, 1)
        world.database.drain()
        assert shipper.run_once().events == 2
    world.database.drain()
    assert world.epochs() == list(range(4))


def test_a_full_disk_under_the_cursors_does_not_stop_shipping(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = world.emitter()
    emit(emitter, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shipment, "save_cursors", full)
    with world.shipper() as shipper:
        shipper.run_once()
        emit(emitter, 2)
        shipper.run_once()
        emitter.close()
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().deleted_segments == 1
    assert world.database.duplicates == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"v": 2}', b'{"v": 1, "generation": 3, "producers": {}}',
     b'{"v": 1, "generation": null, "producers": {"zz": {}}}',
     b'{"v": 1, "generation": null, "producers": {"00": {"rank": -1}}}',
     b'{"v": 1, "generation": null, "producers": {"00": {"rank": 1, "other": 2}}}'],
)  # fmt: skip
def test_a_broken_cursor_file_costs_shipping_again(world: World, content: bytes) -> None:
    emit(world.emitter(), *range(3))
    (world.folder / CURSOR_FILE).write_bytes(content)
    with pytest.raises(FormatError):
        load_cursors(world.folder)
    with world.shipper() as shipper:
        assert shipper.run_once().events == 3


def test_a_spool_that_is_deleted_and_written_again_is_shipped_on(world: World) -> None:
    folder, restored = world.folder, lambda: keep_run_keys(world.folder, world.keys)
    emitter = world.emitter(restored=restored)
    emit(emitter, 1, 2)
    with world.shipper() as shipper:
        shipper.run_once()
        emit(emitter, 3)
        shutil.rmtree(folder)
        shipper.run_once()
        emitter.flush()
        emit(emitter, 4)
        emitter.close()
        assert shipper.run_once().missing == 0
    world.database.drain()
    assert world.epochs() == [1, 2, 3, 4]
    assert world.database.duplicates == 0


def test_what_a_deleted_spool_had_that_nobody_shipped_is_a_gap(world: World) -> None:
    emitter = world.emitter(
        segment_bytes=2048, restored=lambda: keep_run_keys(world.folder, world.keys)
    )
    with world.shipper() as shipper:
        emit(emitter, 0)
        shipper.run_once()
        emit(emitter, *range(1, 100))
        shutil.rmtree(world.folder)
        shipper.run_once()
        emitter.close()
        missing = shipper.run_once().missing
    world.database.drain()
    records = world.database.records(world.run)
    assert 0 < missing < 99
    assert [r.seq for r in records] == list(range(101))
    assert sum(r.kind is Kind.GAP for r in records) == missing


def test_lost_cursors_over_a_spool_whose_beginning_is_deleted(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(30))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().deleted_segments >= 2
    (world.folder / CURSOR_FILE).unlink()
    emit(emitter, *range(30, 40))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().pending == 0
    assert world.epochs() == list(range(40))


def test_a_run_that_ended_before_its_cursors_were_lost_leaves_nothing(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(30))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().deleted_segments >= 2
        emitter.close()
        shipper.run_once()
        world.database.drain()
    (world.folder / CURSOR_FILE).unlink()
    with world.shipper() as shipper:
        done = shipper.run_once()
    assert (done.events, done.finished_runs) == (0, 1)
    assert not world.folder.exists()


def test_what_comes_before_a_hole_that_no_gap_fills_is_shipped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_HOLE", 3)
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    for n in range(3):
        writer.append(Kind.METRICS, n, 1, {"n": n})
    (segment,) = scan_run(world.folder, world.run).segments
    with segment.path.open("ab") as file:
        file.write(frame(Event(9, Kind.METRICS, 9, 0, 1, {}).encode()))
    with structlog.testing.capture_logs() as logs, world.shipper() as shipper:
        first, again = shipper.run_once(), shipper.run_once()
        world.database.drain()
        shipper.run_once()
    writer.abandon()
    assert (first.events, first.unusable, again.events) == (3, 1, 0)
    assert world.epochs() == [0, 1, 2]
    assert sum("events 3 to 8 are missing" in entry["event"] for entry in logs) == 1


# --- damage and poison -------------------------------------------------------------------


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_event_is_reported_once_and_the_rest_shipped(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, *range(10))
    (segment,) = scan_run(world.folder, world.run).segments
    damage(segment.path, segment.size() // 2)
    with structlog.testing.capture_logs() as logs, world.shipper() as shipper:
        shipped = shipper.run_once()
        emit(emitter, 10)
        shipper.run_once()
    assert (shipped.corruptions, shipped.missing, shipped.events) == (1, 1, 10)
    assert [entry["event"] for entry in logs if "damaged" in entry["event"]] == [
        f"spool segment {segment.path.name} is damaged; shipping what follows"
    ]
    world.database.drain()
    missing = set(range(11)) - set(world.epochs())
    assert len(missing) == 1


def test_damage_leaves_a_gap_record_and_the_file_for_people(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, *range(10))
    (segment,) = scan_run(world.folder, world.run).segments
    damage(segment.path, segment.size() // 2)
    spoiled = segment.path.read_bytes()
    emitter.close()
    with world.shipper() as shipper, structlog.testing.capture_logs() as logs:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().pending == 0
        for _ in range(3):
            assert shipper.run_once().finished_runs == 0
    gaps = [r for r in world.database.records(world.run) if r.kind is Kind.GAP]
    assert [(r.seq, r.body["dropped"]) for r in gaps] == [(4, 1)]
    assert "lost in the spool" in str(gaps[0].body["reason"])
    assert [p.name for p in world.folder.iterdir()] == [segment.path.stem + ".damaged"]
    assert next(world.folder.iterdir()).read_bytes().startswith(spoiled)
    assert sum("stays" in entry["event"] for entry in logs) == 1


def test_a_deleted_segment_leaves_gap_records(world: World) -> None:
    emitter = world.emitter(segment_bytes=300)
    emit(emitter, *range(30))
    emitter.close()
    segments = scan_run(world.folder, world.run).segments
    segments[2].path.unlink()
    with world.shipper() as shipper:
        assert shipper.run_once().missing > 0
        world.database.drain()
        assert shipper.run_once().finished_runs == 1


def test_without_cursors_what_the_database_has_is_no_hole(world: World) -> None:
    """Segments are gone, cursors are lost, and the header of the first that is left too."""
    emitter = world.emitter(segment_bytes=300)
    emit(emitter, *range(30))
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        shipper.run_once()
    (world.folder / CURSOR_FILE).unlink()
    (left,) = scan_run(world.folder, world.run).segments
    assert left.index > 0
    damage(left.path, 3)
    emit(emitter, 30)
    with world.shipper() as shipper:
        assert shipper.run_once().missing == 0
        world.database.drain()
    assert world.epochs() == list(range(31))


def test_a_torn_tail_of_a_dead_trainer_is_reported_and_passed(world: World) -> None:
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    for n in range(3):
        writer.append(Kind.METRICS, n, 1, {"n": n})
    (segment,) = scan_run(world.folder, world.run).segments
    with segment.path.open("ab") as file:
        file.write(frame(Event(3, Kind.METRICS, 3, 0, 1, {}).encode())[:-2])
    with world.shipper() as shipper:
        alive = shipper.run_once()
        assert (alive.events, alive.corruptions) == (3, 0)
        writer.abandon()
        dead = shipper.run_once()
        assert (dead.events, dead.corruptions) == (0, 1)
        assert shipper.run_once().corruptions == 0
        world.database.drain()
        assert shipper.run_once().deleted_segments == 1


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Event(1, Kind.METRICS, 1, 0, 1, {"x": b"bytes"}), Kind.GAP),
        (Event(1, Kind.METRICS, 1, 0, 2**62, {"x": b"bytes"}), Kind.GAP),
        (Event(1, Kind.METRICS, 2**60, 0, 1, {"x": 1}), Kind.GAP),
        (Event(1, Kind.METRICS, 1, 0, -1, {"x": 1}), Kind.METRICS),
        (Event(1, Kind.METRICS, 1, 0, 1, {"x": [1.5] * 700_000}), Kind.METRICS),
        (Event(1, Kind.METRICS, 1, 0, 1, {"x": [1 / 3] * 800_000}), Kind.GAP),
        (Event(1, Kind.METRICS, 1, 0, 2**63 - 1, {"x": 1}), Kind.METRICS),
        (Event(1, Kind.METRICS, 2**53 - 1, 0, 1, {"x": 1}), Kind.METRICS),
        (Event(1, Kind.STEPS, None, 0, 1, {"series": [], "steps": 1000}), Kind.STEPS),
        (Event(1, Kind.STEPS, None, 0, 1, {"step": 2**53 - 1, "metrics": {}}), Kind.STEPS),
    ],
)
@pytest.mark.slow
def test_an_event_without_a_form_as_record_goes_as_a_gap_with_its_number(
    world: World, event: Event, kind: Kind
) -> None:
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    writer.append(Kind.METRICS, 0, 1, {"x": 0})
    (segment,) = scan_run(world.folder, world.run).segments
    with segment.path.open("ab") as file:
        file.write(frame(event.encode()))
        file.write(frame(Event(2, Kind.METRICS, 2, 0, 1, {"x": 2}).encode()))
    writer.abandon()
    with world.shipper() as shipper:
        shipped = shipper.run_once()
        assert (shipped.events, shipped.replaced) == (3, int(kind is Kind.GAP))
        world.database.drain()
        assert shipper.run_once().pending == 0
    records = world.database.records(world.run)
    assert [(r.seq, r.kind) for r in records] == [
        (0, Kind.METRICS), (1, kind), (2, Kind.METRICS),
    ]  # fmt: skip
    if kind is Kind.GAP:
        assert records[1].body["dropped"] == 1
        assert "metrics not recorded" in str(records[1].body["reason"])


def test_a_number_that_no_record_can_have_is_damage(world: World) -> None:
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    writer.append(Kind.METRICS, 0, 1, {"x": 0})
    (segment,) = scan_run(world.folder, world.run).segments
    with segment.path.open("ab") as file:
        file.write(frame(Event(2**60, Kind.METRICS, 2, 0, 1, {"x": 2}).encode()))
    with world.shipper() as shipper:
        shipped = shipper.run_once()
    assert (shipped.events, shipped.corruptions) == (1, 1)
    writer.abandon()


def test_a_later_release_s_segment_waits_for_its_shipper(world: World) -> None:
    """Nothing of it is shipped, as damage neither, and nothing is deleted; the rest goes on."""
    later = world.emitter(0, 2)
    emit(later, *range(3))
    later.close()
    emit(world.emitter(1, 2), 1)
    (path,) = world.folder.glob("r0-*.seg")
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes([SEGMENT_VERSION + 1]) + data[5:])
    with structlog.testing.capture_logs() as logs, world.shipper() as shipper:
        first, again = shipper.run_once(), shipper.run_once()
        world.database.drain()
        shipper.run_once()
    assert (first.events, first.unusable, again.events, first.corruptions) == (1, 1, 0, 0)
    (line,) = [entry["event"] for entry in logs if "later release" in entry["event"]]
    assert "segment version 2, expected 1" in line
    path.write_bytes(data)
    with world.shipper() as shipper:
        assert shipper.run_once().events == 4


def test_a_run_without_its_key_waits_and_holds_up_nobody(world: World) -> None:
    other = World(world.spool)
    emit(world.emitter(), 1)
    emit(other.emitter(), 1)
    (world.folder / KEY_FILE).chmod(0o644)
    with structlog.testing.capture_logs() as logs, world.shipper() as shipper:
        shipped = shipper.run_once()
        shipper.run_once()
        assert (shipped.events, shipped.unusable) == (1, 1)
        assert len([entry for entry in logs if "cannot be shipped" in entry["event"]]) == 1
        reasons = noted(world.spool, UNSHIPPED)
        assert list(reasons) == [world.folder.name]
        assert "mode 0644, expected 0600" in reasons[world.folder.name]
        (world.folder / KEY_FILE).chmod(0o600)
        assert shipper.run_once().events == 1
        assert not noted(world.spool, UNSHIPPED)


def test_an_unreadable_segment_holds_up_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(world.emitter(0, 2), 1)
    emit(world.emitter(1, 2), 1)
    real = read_segment

    def read(path: Path, *args: Any, **options: Any) -> Any:
        if path.name.startswith("r0"):
            raise OSError(5, "Input/output error", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(reader, "read_segment", read)
    with world.shipper() as shipper:
        shipped = shipper.run_once()
        assert (shipped.events, shipped.unusable) == (1, 1)
        monkeypatch.setattr(reader, "read_segment", read_segment)
        assert shipper.run_once().events == 1


# --- clearing away -----------------------------------------------------------------------


def test_segments_go_when_committed_but_never_the_one_being_written(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(30))
    before = world.segments()
    with world.shipper() as shipper:
        shipper.run_once()
        assert shipper.run_once().deleted_segments == 0
        assert world.segments() == before
        world.database.drain()
        assert shipper.run_once().deleted_segments == len(before) - 1
        assert world.segments() == before[-1:]
        emit(emitter, *range(30, 60))
        shipper.run_once()
        world.database.drain()
        shipper.run_once()
    assert len(world.segments()) == 1
    assert world.epochs() == list(range(60))


def test_a_partly_committed_range_keeps_its_segment(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(30))
    segments = scan_run(world.folder, world.run).segments
    second = segments[1].header()[0].first_seq
    with world.shipper() as shipper:
        shipper.run_once()
        generation = world.transport.generation()
        world.database.drain(publish=False)
        for count, deleted in ((second - 1, 0), (second, 1)):
            said = world.database.acknowledge(world.run, emitter.producer, count)
            world.transport.publish_acknowledged(world.run, {emitter.producer: said}, generation)
            assert shipper.run_once().deleted_segments == deleted


def test_what_the_ledger_did_not_sign_deletes_nothing(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    other = World(world.spool)
    emit(emitter, *range(30))
    emit(other.emitter(), *range(30))
    segments = world.segments()
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain(publish=False)
        mine, thief = emitter.producer, SignerKey.from_private_bytes("x", b"\x06" * 32)
        chain = chain_start(world.run, mine)
        forged = [
            (10**9).to_bytes(8, "big"),
            (10**9).to_bytes(8, "big") + bytes(96),
            world.database.acknowledge(world.run, mine, 30, thief),
            sign_acknowledgement(world.run, mine, 10**9, chain, LEDGER),  # never shipped
            sign_acknowledgement(world.run, mine, 30, chain, LEDGER),  # other events
            world.database.acknowledge(other.run, other.emitters[0].producer),
            sign_acknowledgement(world.run, bytes(16), 30, chain, LEDGER),
        ]
        for said in forged:
            world.transport.publish_acknowledged(
                world.run, {mine: said}, world.transport.generation()
            )
            assert shipper.run_once().deleted_segments == 0
            assert world.segments() == segments
        world.database.drain()
        assert shipper.run_once().deleted_segments == len(segments) - 1


def test_without_the_ledgers_key_the_spool_is_kept_and_says_so(world: World) -> None:
    emitter = world.emitter(segment_bytes=500)
    emit(emitter, *range(30))
    emitter.close()
    known: list[bytes] = []
    with (
        structlog.testing.capture_logs() as logs,
        world.shipper(ledger_keys=lambda: known, stall_s=0.0) as shipper,
    ):
        shipper.run_once()
        world.database.drain()
        for _ in range(3):
            shipped = shipper.run_once()
            assert (shipped.deleted_segments, shipped.rewound) == (0, 0)
        known.append(LEDGER.verifier.public_bytes)  # a worker has made it
        assert shipper.run_once().finished_runs == 1
    assert sum("ledger's key is not known" in entry["event"] for entry in logs) == 1


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["emit", "ship", "drain", "lose", "restart", "forget"])))
def test_whatever_happens_a_producer_signs_one_chain(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world, before = World(Path(folder) / "spool"), 0
        emitter, payloads = world.emitter(segment_bytes=400), list[bytes]()
        real = world.transport.append

        def append(batches: Any) -> None:
            payloads.extend(batches)
            real(batches)

        world.transport.append = append  # type: ignore[assignment,method-assign]  # a stand-in
        shipper = world.shipper(stall_s=0.0)
        for step in [*steps, "emit", "restart", "ship", "drain", "ship", "ship", "drain"]:
            if step == "emit":
                emit(emitter, *range(before, before + 5))
                before += 5
            elif step == "ship":
                shipper.run_once()
            elif step == "drain":
                world.database.drain()
            elif step == "lose":
                world.transport.lose_everything()
            else:
                shipper.close()
                if step == "forget":
                    world.database.drain()
                    (world.folder / CURSOR_FILE).unlink(missing_ok=True)
                shipper = world.shipper(stall_s=0.0)
        shipper.close()
        assert world.epochs() == list(range(before))
        digests = [record_digest(r.encode()) for r in world.database.records(world.run)]
        for batch in map(open_batch, payloads):
            chain = chain_on(chain_start(world.run, emitter.producer), digests[: batch.first_seq])
            assert batch.before == chain


def test_a_finished_run_leaves_nothing(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, *range(3))
    (world.folder / f"r0-{'0' * 32}-00000007.new").touch()
    emitter.close()
    with world.shipper() as shipper:
        shipped = shipper.run_once()
        assert (shipped.finished_runs, shipped.deleted_segments) == (0, 0)
        assert (world.folder / KEY_FILE).exists()
        world.database.drain()
        done = shipper.run_once()
        assert (done.finished_runs, done.deleted_segments) == (1, 1)
        assert shipper.run_once().runs == 0
    assert not world.folder.exists()


def test_the_key_stays_until_every_rank_has_ended(world: World) -> None:
    first, second = world.emitter(0, 2), world.emitter(1, 2)
    emit(first, 1)
    emit(second, 1)
    first.close()
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 0
        assert (world.folder / KEY_FILE).exists()
        second.close()
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 1


def test_the_key_stays_while_a_rank_has_not_even_begun(world: World) -> None:
    world.emitter(0, 2).close()
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        shipper.run_once()
        assert shipper.run_once().finished_runs == 0
    assert (world.folder / KEY_FILE).exists()


def test_a_folder_with_a_strangers_file_stays_without_its_key(world: World) -> None:
    world.emitter().close()
    (world.folder / "notes.txt").write_text("mine")
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        shipper.run_once()
        shipper.run_once()
    assert os.listdir(world.folder) == ["notes.txt"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_that_was_abandoned_is_cleared_after_long(world: World, ended: bool) -> None:
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    writer.append(Kind.METRICS, 0, 1, {})
    writer.abandon()  # as a killed trainer does: no end
    with world.shipper(abandoned_s=3600.0) as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 0
        assert (world.folder / KEY_FILE).exists()
        if ended:
            long_ago = time.time() - 7200
            os.utime(world.folder, (long_ago, long_ago))
        assert shipper.run_once().finished_runs == int(ended)
    assert world.folder.exists() != ended


@pytest.mark.parametrize("signer", [LEDGER, SignerKey.from_private_bytes("other", b"\x06" * 32)])
def test_a_host_with_some_of_the_ranks_clears_a_run_that_is_sealed(
    world: World, monkeypatch: pytest.MonkeyPatch, signer: SignerKey
) -> None:
    monkeypatch.setattr(shipment, "SEALED_POLL_S", 0.0)
    emitter = world.emitter(rank=1, world_size=2)
    emit(emitter, 1)
    emitter.close()
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 0
        assert (world.segments(), (world.folder / KEY_FILE).exists()) == ([], True)
        said = {NOBODY: sign_sealed(world.run, signer)}
        world.transport.publish_acknowledged(world.run, said, world.transport.generation())
        assert shipper.run_once().finished_runs == (signer is LEDGER)
    assert world.folder.exists() == (signer is not LEDGER)


def test_an_abandoned_run_that_is_not_committed_is_never_cleared(world: World) -> None:
    writer = SpoolWriter(world.folder, world.run, bytes(16), 0, 1)
    writer.append(Kind.METRICS, 0, 1, {})
    writer.abandon()
    with world.shipper(abandoned_s=0.0) as shipper:
        for _ in range(3):
            assert shipper.run_once().finished_runs == 0
    assert len(world.segments()) == 1


def test_a_run_that_has_only_its_key_yet_is_left_alone(world: World) -> None:
    with world.shipper() as shipper:
        shipper.run_once()
    assert os.listdir(world.folder) == [KEY_FILE]


def test_a_producer_that_stated_nothing_is_cleared_with_its_run(world: World) -> None:
    SpoolWriter(world.folder, world.run, b"e" * 16, 0, 1).abandon()
    emitter = world.emitter()
    emit(emitter, 1)
    emitter.close()
    with world.shipper() as shipper:
        shipper.run_once()
        world.database.drain()
        assert shipper.run_once().finished_runs == 1


def test_a_segment_deleted_under_the_readers_feet(world: World) -> None:
    emit(world.emitter(), 1)
    with world.shipper() as shipper:
        spool = scan_run(world.folder, world.run)
        for segment in spool.segments:
            segment.path.unlink()
        state = shipment.Shipment(world.folder, 60.0, 60.0)
        total = shipment.Shipped()
        state.serve(spool, shipment.Contact(world.transport, 10, ()), total)
        assert total.events == 0
        shipper.run_once()


# --- lock and loop -----------------------------------------------------------------------


def test_one_shipper_per_spool(world: World) -> None:
    with (
        world.shipper(),
        pytest.raises(InputError, match=rf"another shipper \(process {os.getpid()}\)"),
    ):
        world.shipper()
    world.shipper().close()


def test_a_spool_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot lock the spool"):
        Shipper(tmp_path / "file" / "spool", MemoryTransport())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "POLL_S", (0.001, 0.005))
    monkeypatch.setattr(shipper_module, "BACKOFF_S", (0.001, 0.005))


@pytest.mark.usefixtures("quick")
def test_the_loop_survives_outages_and_stops_when_told(world: World) -> None:
    emitter = world.emitter()
    stop = threading.Event()
    totals: list[Any] = []
    world.transport.unavailable = True
    with world.shipper() as shipper:
        thread = threading.Thread(target=lambda: totals.append(shipper.run(stop)))
        thread.start()
        emit(emitter, *range(10))
        time.sleep(0.05)
        world.transport.unavailable = False
        deadline = time.monotonic() + 30
        while len(world.epochs()) < 10 and time.monotonic() < deadline:
            world.database.drain()
            time.sleep(0.01)
        stop.set()
        thread.join(30)
    assert world.epochs() == list(range(10))
    assert totals[0].events == 10


@pytest.mark.usefixtures("quick")
def test_a_trainer_s_last_words_are_shipped_before_an_idle_shipper_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come between the last pass and the look whether anybody is there."""
    emitter = world.emitter()
    emit(emitter, 1)
    with world.shipper() as shipper:
        alive = shipper.trainers_alive

        def ends_then_looks() -> bool:
            emitter.close()
            return alive()

        monkeypatch.setattr(shipper, "trainers_alive", ends_then_looks)
        shipper.run(threading.Event(), idle_exit_s=0.1)
    world.database.drain()
    kinds = [r.kind for r in world.database.records(world.run)]
    assert kinds == [Kind.METRICS, Kind.RUN_END]


@pytest.mark.slow
def test_an_idle_shipper_leaves_when_its_trainers_are_gone(world: World) -> None:
    emitter = world.emitter()
    emit(emitter, 1)
    stop = threading.Event()
    with world.shipper() as shipper:
        thread = threading.Thread(target=lambda: shipper.run(stop, idle_exit_s=0.02))
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()  # the emitter is
        emitter.close()
        thread.join(30)
        assert not thread.is_alive()
    world.database.drain()
    assert len(world.database.records(world.run)) == 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("trouble", ["away", "full"])
def test_a_shipper_gives_up_when_the_transport_stays_away(world: World, trouble: str) -> None:
    emitter = world.emitter()
    emit(emitter, 1)
    emitter.close()
    world.transport.unavailable = trouble == "away"
    with world.shipper(max_backlog=0 if trouble == "full" else 100) as shipper:
        shipper.run(threading.Event(), give_up_s=0.02, idle_exit_s=3600.0)
    assert len(world.segments()) == 1


@pytest.mark.usefixtures("quick")
def test_credentials_refused_at_first_contact_end_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(world.emitter(), 1)

    def refuse() -> None:
        raise ConfigError("redis_url", "refused")

    monkeypatch.setattr(world.transport, "generation", refuse)
    with world.shipper() as shipper, pytest.raises(ConfigError):
        shipper.run(threading.Event())


@pytest.mark.usefixtures("quick")
def test_credentials_refused_later_are_waited_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = world.emitter()
    real = world.transport.generation
    refusals = iter(range(3))

    def sometimes() -> str | None:
        if next(refusals, None) is not None:
            raise ConfigError("redis_url", "refused")
        return real()

    stop = threading.Event()
    with world.shipper() as shipper:
        thread = threading.Thread(target=lambda: shipper.run(stop))
        thread.start()
        time.sleep(0.05)
        monkeypatch.setattr(world.transport, "generation", sometimes)
        emit(emitter, 1)
        deadline = time.monotonic() + 30
        while not world.transport.backlog() and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
        thread.join(30)
    assert next(refusals, None) is None
    assert world.transport.backlog() == 1


@pytest.mark.parametrize("taken", [True, False])
def test_a_trainer_that_comes_in_the_last_moment_is_served(
    world: World, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """It opened its segment, found the lock held, and started no shipper."""
    shipper = world.shipper()
    others: list[Shipper] = []
    looks = iter([False, True])

    def alive() -> bool:
        late = next(looks)
        if late and taken:
            others.append(world.shipper())
        return late

    monkeypatch.setattr(shipper, "trainers_alive", alive)
    assert shipper._may_leave(0.0, 1.0) is taken
    if not taken:
        with pytest.raises(InputError):
            world.shipper()
    shipper.close()
    for other in others:
        other.close()


def test_a_trainer_that_came_and_ended_in_the_last_moment_is_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last pass, and before the lock was given back: it started no shipper."""
    with world.shipper() as shipper:
        last_pass = shipper.run_once

        def run_once() -> shipment.Shipped:
            shipped = last_pass()
            emitter = world.emitter()
            emit(emitter, 1)
            emitter.close()
            return shipped

        monkeypatch.setattr(shipper, "run_once", run_once)
        assert not shipper._may_leave(0.0, 1.0, shipment.Shipped())
        monkeypatch.undo()
        shipper.run(threading.Event(), idle_exit_s=0.0)
    world.database.drain()
    assert world.epochs() == [1]


def test_cursor_file_is_replaced_not_rewritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = world.emitter()
    emit(emitter, 1)
    with world.shipper() as shipper:
        shipper.run_once()
        before = (world.folder / CURSOR_FILE).read_bytes()

        def torn(value: object) -> str:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(json, "dumps", torn)
        emit(emitter, 2)
        shipper.run_once()
        monkeypatch.undo()
        assert (world.folder / CURSOR_FILE).read_bytes() == before
    assert json.loads(before)["v"] == 1


def test_a_report_says_what_waits_and_since_when(world: World) -> None:
    world.transport.unavailable = True
    emitter, before = world.emitter(), time.time()
    with world.shipper() as shipper:
        emit(emitter, 1, 2)
        with pytest.raises(TransportUnavailable):
            shipper.run_once()
        time.sleep(0.01)
        waiting = shipper.figures(shipment.Shipped())
        assert waiting["runs"] == 1
        assert waiting["bytes"] > 0
        assert 0 < waiting["age_s"] <= time.time() - before + 0.01
        world.transport.unavailable = False
        shipper.run_once()
        assert shipper.figures(shipment.Shipped())["age_s"] == 0, "shipped, not committed"
