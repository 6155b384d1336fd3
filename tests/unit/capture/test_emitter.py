"""Emitter: never raises, never doubles a number, threads, signals, forks, exits.

Over 400 lines: case by case, one file: `provenance/capture/emitter.py`.
"""

from __future__ import annotations

import errno
import gc
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from provenance import tracker
from provenance.capture import emitter as emitter_module
from provenance.capture.emitter import Emitter
from provenance.capture.keys import new_run_keys
from provenance.capture.spool import read_segment, scan
from provenance.errors import InputError
from provenance.formats.event import Event, SegmentHeader, frame, record_of
from provenance.formats.record import Kind


@pytest.fixture
def run() -> UUID:
    return new_run_keys().run


def spooled(folder: Path) -> dict[bytes, list[Event]]:
    """Events by producer; fails on damage."""
    found: dict[bytes, list[Event]] = defaultdict(list)
    for spool in scan(folder):
        for segment in spool.segments:
            for _, item in read_segment(segment.path, final=True):
                assert isinstance(item, Event), item
                found[segment.producer].append(item)
    return dict(found)


def only(folder: Path) -> list[Event]:
    (events,) = spooled(folder).values()
    assert [e.seq for e in events] == list(range(len(events)))
    return events


def test_an_event_arrives_as_it_was_given(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run, 2, 4)
    assert emitter.emit(Kind.METRICS, 3, {"metrics": {"loss": 0.25, "name": "x", "ok": True}})
    (event,) = only(tmp_path)
    assert (event.kind, event.epoch, event.rank) == (Kind.METRICS, 3, 2)
    assert event.fields == {"metrics": {"loss": 0.25, "name": "x", "ok": True}}
    (segment,) = scan(tmp_path)[0].segments
    assert segment.header()[0].world_size == 4
    assert segment.producer == emitter.producer
    assert emitter.counts() == {"written": 1, "held": 0, "dropped": 0, "errors": 0}


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"x": math.nan, "y": -math.inf}, {"x": "NaN", "y": "-Infinity"}),
        ({"x": 2**80}, {"x": str(2**80)}),
        ({"x": "a\ud800b"}, {"x": "a\\ud800b"}),
        ({"x": np.float32(0.5), "y": np.int64(3)}, {"x": 0.5, "y": 3}),
        ({"x": np.array([1, 2])}, {"x": [1, 2]}),
        ({1: {"y": (1, {2})}}, {"1": {"y": [1, [2]]}}),
        ({"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}, {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}),
        ({"a": {"b": 2**80}}, {"a": {"b": str(2**80)}}),
    ],
)
def test_whatever_is_written_becomes_a_record(
    tmp_path: Path, run: UUID, given: dict[Any, Any], body: dict[str, Any]
) -> None:
    emitter = Emitter(tmp_path, run)
    assert emitter.emit(Kind.METRICS, 1, given)
    (event,) = only(tmp_path)
    header = SegmentHeader(run, emitter.producer, 0, 1, 0)
    record = record_of(event, header, bytes(32))
    assert record.body == body
    assert record.encode()


class Name(StrEnum):
    X = "x"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("epoch", "fields", "reason"),
    [
        (1, {"x": object()}, "object"),
        (1, {"x": Unprintable()}, "Unprintable"),
        (1, {"a": {"b": {"c": {"d": {"e": {"f": 1j}}}}}}, "complex"),
        (1, {"a\ud800": 1, "a\\ud800": 2}, "two keys"),
        (1, [1, 2], "expected a mapping"),
        (1, None, "expected a mapping"),
        ("three", {"x": 1}, "str"),
        (1.5, {"x": 1}, "float"),
        (2**70, {"x": 1}, "Overflow"),
        (1, {"x": "y" * 9_000_000}, "TooLarge"),
    ],
)
def test_what_cannot_be_recorded_leaves_a_gap_and_raises_nothing(
    tmp_path: Path, run: UUID, epoch: Any, fields: Any, reason: str
) -> None:
    emitter = Emitter(tmp_path, run)
    assert emitter.emit(Kind.METRICS, epoch, fields) is False
    assert emitter.emit(Kind.METRICS, 9, {"x": 1})
    gap, after = only(tmp_path)
    assert gap.kind is Kind.GAP
    assert gap.fields["dropped"] == 1
    assert reason in gap.fields["reason"]
    assert "metrics" in gap.fields["reason"]
    assert after.epoch == 9
    assert emitter.counts()["errors"] == 1
    assert reason in (emitter.last_error or "")


def test_what_no_record_carries_is_named_and_refused_where_that_is_asked(
    tmp_path: Path, run: UUID, capsys: pytest.CaptureFixture[str]
) -> None:
    emitter = Emitter(tmp_path, run)
    fields = {"metrics": {"loss": 1, "map": "y" * 9_000_000}}
    said = "metrics.map: found 9,000,005 bytes, expected a record of at most 8,388,608 bytes"
    with pytest.raises(InputError, match=f"^{said}$"):
        emitter.emit(Kind.METRICS, 1, fields, refuse=True)
    assert (spooled(tmp_path), emitter.counts()["errors"]) == ({}, 0)
    assert not emitter.emit(Kind.METRICS, 1, fields)
    (gap,) = only(tmp_path)
    reason = f"metrics not recorded: TooLargeError: {said}"
    assert gap.fields == {"dropped": 1, "reason": reason, "what": "metrics"}
    assert capsys.readouterr().err.count(said) == 1


def test_an_epoch_of_numpy_is_an_epoch(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run)
    assert emitter.emit(Kind.METRICS, np.int64(4), {"x": 1})  # type: ignore[arg-type]  # wrong or wider on purpose
    assert only(tmp_path)[0].epoch == 4


def test_a_failure_nobody_thought_of_is_counted_not_raised(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)

    def broken() -> int:
        raise ZeroDivisionError("clock")

    monkeypatch.setattr(time, "time_ns", broken)
    assert not emitter.emit(Kind.METRICS, 1, {"x": 1})
    monkeypatch.undo()
    assert (emitter.counts()["errors"], emitter.last_error) == (1, "ZeroDivisionError: clock")
    assert emitter.emit(Kind.METRICS, 1, {"x": 1})
    assert len(only(tmp_path)) == 1


def test_a_full_disk_is_not_the_trainings_business(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not any(emitter.emit(Kind.METRICS, n, {"x": n}) for n in range(5000))
    assert emitter.counts()["held"] == 4096
    assert emitter.counts()["dropped"] == 5000 - 4096
    monkeypatch.undo()
    assert emitter.flush()
    assert emitter.close()
    events = only(tmp_path)
    assert len(events) == 4096 + 2
    assert events[-2].fields["dropped"] == 904


# --- numbers -----------------------------------------------------------------------------


NUMBERS: dict[str, Any] = {"loss": 0.5, "step": 3, "ok": True, "nan": math.nan, "big": 2**63}


def test_numbers_are_the_bytes_that_an_event_has(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run, 2, 4)
    assert emitter.emit_metrics(Kind.METRICS, 7, NUMBERS)
    assert emitter.emit(Kind.METRICS, 7, {"metrics": NUMBERS})
    quick, slow = only(tmp_path)
    (segment,) = scan(tmp_path)[0].segments
    data = segment.path.read_bytes()[segment.header()[1] :]
    assert data == frame(quick.encode()) + frame(slow.encode())
    same = Event(0, Kind.METRICS, 7, 2, 0, {})
    assert replace(quick, ts_ns=0, fields={}) == same
    assert replace(slow, seq=0, ts_ns=0, fields={}) == same
    assert str(quick.fields) == str(slow.fields)  # NaN is not equal to itself
    header = SegmentHeader(run, emitter.producer, 2, 4, 0)
    body = record_of(quick, header, bytes(32)).body["metrics"]
    assert body == {"loss": 0.5, "step": 3, "ok": True, "nan": "NaN", "big": str(2**63)}


class AddsUp:
    """No number, whatever it answers to a sum."""

    def __radd__(self, other: object) -> int:
        return 0


class Refuses:
    def __radd__(self, other: object) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "numbers",
    [
        {"x": "text"}, {"x": None}, {"x": b"bytes"}, {"x": [1]}, {"x": {"y": 1}}, {"x": (1,)},
        {1: 1}, {b"x": 1}, {("x",): 1}, {"a\ud800": 1}, {"x": 2**64}, {"x": 1j},
        {"x": AddsUp()}, {"x": Refuses()}, {"x": np.float64(1)}, {"x": np.float32(1)},
        {"x": np.ones(2)}, {Name.X: 1}, {"x" * 9_000_000: 1},
    ],
    ids=lambda numbers: str(numbers)[:20],
)  # fmt: skip
def test_what_is_more_than_numbers_is_not_stated(
    tmp_path: Path, run: UUID, numbers: dict[Any, Any]
) -> None:
    emitter = Emitter(tmp_path, run)
    assert emitter.emit_metrics(Kind.METRICS, 1, {"x": 1})
    assert not emitter.emit_metrics(Kind.METRICS, 1, numbers)
    assert emitter.counts() == {"written": 1, "held": 0, "dropped": 0, "errors": 0}
    assert len(only(tmp_path)) == 1


def test_numbers_wait_for_an_emit_under_way_and_for_room(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)
    real = os.write
    answers: list[bool] = []

    def reenter(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        answers.append(emitter.emit_metrics(Kind.METRICS, 2, {"x": 2}))
        emitter.emit(Kind.METRICS, 2, {"metrics": {"x": 2}})
        return real(fd, data)

    monkeypatch.setattr(os, "write", reenter)
    assert emitter.emit_metrics(Kind.METRICS, 1, {"x": 1})
    assert answers == [False]
    assert [e.epoch for e in only(tmp_path)] == [1, 2]

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert emitter.emit_metrics(Kind.METRICS, 3, {"x": 3})
    assert emitter.counts()["held"] == 1
    monkeypatch.undo()
    assert emitter.flush()
    assert emitter.close()
    assert not emitter.emit_metrics(Kind.METRICS, 4, {"x": 4})
    assert [e.epoch for e in only(tmp_path)] == [1, 2, 3, None]


def test_numbers_of_a_forked_child_are_its_own(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit_metrics(Kind.METRICS, 0, {"x": 1})
    child = os.fork()
    if child == 0:
        refused = not emitter.emit_metrics(Kind.METRICS, 1, {"x": 1})
        begun = emitter.emit(Kind.METRICS, 1, {"metrics": {"x": 1}})
        os._exit(not (refused and begun and emitter.emit_metrics(Kind.METRICS, 2, {"x": 1})))
    wait_for(child)
    emitter.emit_metrics(Kind.METRICS, 1, {"x": 1})
    found = spooled(tmp_path)
    assert sorted([e.epoch for e in events] for events in found.values()) == [[0, 1], [1, 2]]


# --- ending ------------------------------------------------------------------------------


def test_close_ends_the_producer_once(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit(Kind.METRICS, 1, {"x": 1})
    assert emitter.close("done \ud800" + "x" * 9_000_000)
    assert emitter.close("again")
    assert not emitter.emit(Kind.METRICS, 2, {"x": 2})
    events = only(tmp_path)
    assert [e.kind for e in events] == [Kind.METRICS, Kind.RUN_END]
    reason = "done \\ud800" + "x" * 494
    assert events[-1].fields == {"events": 1, "reason": reason, "state": "finished"}
    assert emitter.counts()["dropped"] == 1


@pytest.mark.slow
def test_collection_ends_the_producer(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit(Kind.METRICS, 1, {"x": 1})
    del emitter
    gc.collect()
    assert only(tmp_path)[-1].kind is Kind.RUN_END


SCRIPT = """
import sys, uuid, pathlib
from provenance.formats.record import Kind
from provenance.capture.emitter import Emitter
emitter = Emitter(pathlib.Path(sys.argv[1]), uuid.UUID(sys.argv[2]))
emitter.emit(Kind.METRICS, 1, {"x": 1})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("", "exit"),
        ("sys.exit(3)", "exit"),
        ("raise ValueError", "exit"),
        ("import os; os._exit(0)", None),
    ],
)
def test_the_interpreters_exit_ends_the_producer(
    tmp_path: Path, run: UUID, ending: str, reason: str | None
) -> None:
    subprocess.run(
        [sys.executable, "-c", SCRIPT + ending, str(tmp_path), str(run)],
        check=False,
        stderr=subprocess.DEVNULL,
    )
    events = only(tmp_path)
    assert events[0].kind is Kind.METRICS
    assert [e.fields["reason"] for e in events[1:]] == ([reason] if reason else [])


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path, run: UUID) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot spool events"):
        Emitter(tmp_path / "file", run)


def test_a_network_file_system_is_refused(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise InputError(f"{path}: network")

    monkeypatch.setattr(emitter_module, "refuse_network_file_system", refuse)
    monkeypatch.setattr(tracker, "refuse_network_file_system", refuse)
    for begin in (lambda: Emitter(tmp_path, run), lambda: tracker.ProvenanceTracker(tmp_path)):
        with pytest.raises(InputError, match="network"):
            begin()
    assert not any(tmp_path.iterdir()), "what is refused leaves nothing"


# --- threads and signals -----------------------------------------------------------------


def test_threads_share_one_sequence_in_file_order(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run, segment_bytes=20_000)

    def work(name: int) -> None:
        for n in range(500):
            assert emitter.emit(Kind.METRICS, n, {"thread": name})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = only(tmp_path)
    assert len(events) == 4000
    by_thread: dict[int, list[int | None]] = defaultdict(list)
    for event in events:
        by_thread[event.fields["thread"]].append(event.epoch)
    assert all(epochs == list(range(500)) for epochs in by_thread.values())


def test_an_emit_from_a_signal_handler_inside_an_emit_waits_for_its_end(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)
    answers: list[bool] = []
    real = os.write
    depth = 0

    def interrupted(fd: int, data: bytes) -> int:
        nonlocal depth
        depth += 1
        if depth == 1:
            signal.raise_signal(signal.SIGUSR1)
        return real(fd, data)

    def handler(*_: object) -> None:
        fields = {"from": "handler"}
        answers.append(emitter.emit(Kind.METRICS, 2, fields))
        answers.append(emitter.flush())
        answers.append(emitter.close("handler"))
        fields["from"] = "changed later"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(os, "write", interrupted)
        assert emitter.emit(Kind.METRICS, 1, {"from": "loop"})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [False, False, False]
    assert emitter.close("end")
    events = only(tmp_path)
    assert [e.fields.get("from") for e in events] == ["loop", "handler", None]


def test_deferred_events_are_bounded(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)
    real = os.write
    nested = False

    def reenter(fd: int, data: bytes) -> int:
        nonlocal nested
        if not nested:
            nested = True
            for n in range(1100):
                emitter.emit(Kind.METRICS, n, {})
        return real(fd, data)

    monkeypatch.setattr(os, "write", reenter)
    emitter.emit(Kind.METRICS, 0, {})
    assert emitter.counts()["dropped"] == 1100 - 1024
    assert len(only(tmp_path)) == 1025


def test_an_exception_out_of_a_handler_leaves_the_emitter_usable(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        emitter.emit(Kind.METRICS, 1, {})
    monkeypatch.undo()
    assert emitter.emit(Kind.METRICS, 2, {})
    assert [e.epoch for e in only(tmp_path)] == [1, 2]


# --- fork --------------------------------------------------------------------------------


def wait_for(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
def test_a_forked_child_has_its_own_producer_and_leaves_the_parents_alone(
    tmp_path: Path, run: UUID
) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit(Kind.METRICS, 0, {"who": "parent"})
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            done = all(emitter.emit(Kind.METRICS, n, {"who": number}) for n in range(100))
            done = emitter.close("child") and done
            os._exit(0 if done else 1)
        children.append(child)
    for n in range(1, 100):
        emitter.emit(Kind.METRICS, n, {"who": "parent"})
    for child in children:
        wait_for(child)
    emitter.close()
    found = spooled(tmp_path)
    assert len(found) == 5
    for events in found.values():
        assert [e.seq for e in events] == list(range(101))
        assert len({e.fields["who"] for e in events[:-1]}) == 1
        assert events[-1].fields["events"] == 100
    assert {e[0].fields["who"] for e in found.values()} == {"parent", 0, 1, 2, 3}


def test_a_child_that_states_nothing_leaves_nothing(tmp_path: Path, run: UUID) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit(Kind.METRICS, 0, {})
    child = os.fork()
    if child == 0:
        os._exit(0 if emitter.close() and emitter.flush() and emitter.counts()["held"] == 0 else 1)
    wait_for(child)
    assert [e.kind for e in only(tmp_path)] == [Kind.METRICS]
    assert scan(tmp_path)[0].segments[0].is_live()


FORKS_BESIDE_A_THREAD = """
import os, pathlib, signal, sys, threading, uuid
from provenance.formats.record import Kind
from provenance.capture.emitter import Emitter
emitter = Emitter(pathlib.Path(sys.argv[1]), uuid.UUID(sys.argv[2]))
stop = threading.Event()

def work():
    while not stop.is_set():
        emitter.emit(Kind.METRICS, 0, {"who": "thread"})

thread = threading.Thread(target=work)
thread.start()
hung = 0
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if emitter.emit(Kind.METRICS, 1, {"who": "child"}) else 1)
    hung += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
sys.exit(hung)
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_emits_does_not_hang_the_child(
    tmp_path: Path, run: UUID
) -> None:
    # In a process of its own: coverage's tracer takes a lock that a fork does not survive.
    subprocess.run(
        [sys.executable, "-c", FORKS_BESIDE_A_THREAD, str(tmp_path), str(run)], check=True
    )
    found = spooled(tmp_path)
    assert len(found) == 31
    assert all([e.seq for e in events] == list(range(len(events))) for events in found.values())


def _loader_worker(emitter: Emitter, number: int) -> None:
    for n in range(20):
        emitter.emit(Kind.METRICS, n, {"worker": number})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork"])
def test_workers_of_multiprocessing_end_their_producers(
    tmp_path: Path, run: UUID, method: str
) -> None:
    emitter = Emitter(tmp_path, run)
    emitter.emit(Kind.METRICS, 0, {"worker": None})
    context: Any = multiprocessing.get_context(method)
    workers = [context.Process(target=_loader_worker, args=(emitter, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    emitter.close()
    found = spooled(tmp_path)
    assert len(found) == 4
    assert all(events[-1].kind is Kind.RUN_END for events in found.values())
    assert sorted(len(events) for events in found.values()) == [2, 21, 21, 21]


def test_a_child_forgets_what_its_parent_holds(
    tmp_path: Path, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitter = Emitter(tmp_path, run)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    emitter.emit(Kind.METRICS, 1, {"who": "parent"})
    monkeypatch.undo()
    child = os.fork()
    if child == 0:
        os._exit(0 if emitter.emit(Kind.METRICS, 2, {"who": "child"}) else 1)
    wait_for(child)
    assert emitter.flush()
    assert sorted(e.fields["who"] for events in spooled(tmp_path).values() for e in events) == [
        "child",
        "parent",
    ]
