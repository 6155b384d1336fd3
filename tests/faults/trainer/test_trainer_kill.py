"""Trainers killed in mid-write: every event whose ``emit`` returned True is in the spool.

The long form (``-m slow``) kills a hundred; the seed of the delays is printed and taken
from ``FAULT_SEED``.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from provenance.capture.emitter import Emitter
from provenance.capture.keys import new_run_keys
from provenance.capture.spool import Corruption, Segment, read_segment, scan
from provenance.formats.event import Event
from provenance.formats.record import Kind

SEED = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(2**32)))
_NUMBER = struct.Struct("<Q")


def in_child(work: Callable[[int], None]) -> tuple[int, int]:
    """Fork; the child gets a pipe to report on. Returns its id and our end."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            work(theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    return child, ours


def emit_until_killed(spool: Path, run: UUID, forks: bool) -> Callable[[int], None]:
    """Emits for ever and reports each success, after it, in one atomic write."""

    def work(report: int) -> None:
        emitter = Emitter(spool, run, segment_bytes=20_000)
        if forks:
            os.fork()  # both go on; the pipe keeps each write whole
        rng = random.Random(os.getpid())
        number = 0
        while True:
            fields = {"pid": os.getpid(), "text": "x" * rng.randrange(2000)}
            if emitter.emit(Kind.METRICS, number, fields):
                os.write(report, _NUMBER.pack(os.getpid() << 32 | number))
            number += 1

    return work


def read_to_end(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts)


def let_go(segment: Segment) -> bool:
    """A killed process closes its files one after the other; this one may come last."""
    deadline = time.monotonic() + 30
    while segment.is_live() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not segment.is_live()


def kill_some(tmp_path: Path, kills: int, forks: bool = False) -> None:
    print(f"FAULT_SEED={SEED}")
    rng = random.Random(SEED)
    reported = 0
    for kill in range(kills):
        spool, run = tmp_path / str(kill), new_run_keys().run
        work = emit_until_killed(spool, run, forks)

        def in_own_group(report: int, work: Callable[[int], None] = work) -> None:
            os.setpgid(0, 0)
            work(report)

        child, ours = in_child(in_own_group)
        first = os.read(ours, _NUMBER.size)  # it is at work
        # The pipe must not fill up, so it is read while the child works.
        parts = [first]
        until = time.monotonic() + rng.uniform(0.005, 0.08)
        while time.monotonic() < until:
            parts.append(os.read(ours, 1 << 16))
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        parts.append(read_to_end(ours))
        data = b"".join(parts)
        promised = {value for (value,) in _NUMBER.iter_unpack(data)}
        reported += len(promised)
        found: set[int] = set()
        for group in (g for s in scan(spool) for g in s.producers.values()):
            events: list[Event] = []
            assert let_go(group[-1])
            for segment in group:
                items = [item for _, item in read_segment(segment.path, final=True)]
                torn = [item for item in items if isinstance(item, Corruption)]
                # A kill can tear at most the write under way, the last of a producer.
                assert not torn or (segment is group[-1] and items[-1] is torn[0])
                events += [item for item in items if isinstance(item, Event)]
            assert [e.seq for e in events] == list(range(len(events)))
            found |= {e.fields["pid"] << 32 | (e.epoch or 0) for e in events}
        assert promised <= found, f"{len(promised - found)} events lost at kill {kill}"
    assert reported > kills


def test_killed_trainers_lose_nothing_they_were_promised(tmp_path: Path) -> None:
    kill_some(tmp_path, 10)


def test_killed_trainers_with_forked_children(tmp_path: Path) -> None:
    kill_some(tmp_path, 3, forks=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_killed_trainers(tmp_path: Path) -> None:
    kill_some(tmp_path, 100)


def test_a_limit_on_file_size_is_met_without_an_exception(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel write short and then refuse, as a full disk does."""
    run = new_run_keys().run

    def work(report: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        emitter = Emitter(tmp_path, run)
        for number in range(500):
            emitter.emit(Kind.METRICS, number, {"text": "x" * 1000})
            time.sleep(0.0005)
        os.write(report, _NUMBER.pack(emitter.counts()["errors"]))
        emitter.close()

    child, ours = in_child(work)
    (errors,) = _NUMBER.unpack(read_to_end(ours))
    os.waitpid(child, 0)
    assert errors == 0
    (spool,) = scan(tmp_path)
    assert len(spool.segments) > 5
    items = [i for s in spool.segments for _, i in read_segment(s.path, final=True)]
    assert not [i for i in items if isinstance(i, Corruption)]
    events = [i for i in items if isinstance(i, Event)]
    assert [e.seq for e in events] == list(range(501))
    assert [e.epoch for e in events[:-1]] == list(range(500))
    assert events[-1].kind is Kind.RUN_END


def test_a_small_tmpfs_that_fills_up(tmp_path: Path) -> None:
    """A real full disk, where this process may mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k none {mount} 2>/dev/null"):
        pytest.skip("mounting a tmpfs needs privileges; run as root to include this test")
    try:
        ballast = mount / "ballast"
        ballast.write_bytes(bytes(60_000))
        emitter = Emitter(mount, new_run_keys().run, segment_bytes=32_000)
        for number in range(1000):
            emitter.emit(Kind.METRICS, number, {"text": "x" * 500})
        assert emitter.counts()["held"] > 0
        assert emitter.counts()["errors"] == 0
        held, written = emitter.counts()["held"], emitter.counts()["written"]
        assert held + written == 1000
        os.system(f"mount -o remount,size=8m {mount}")
        assert emitter.flush()
        assert emitter.close()
        (spool,) = scan(mount)
        items = [i for s in spool.segments for _, i in read_segment(s.path, final=True)]
        events = [i for i in items if isinstance(i, Event)]
        assert [e.epoch for e in events[:-1]] == list(range(1000))
        assert len(items) == len(events) == 1001
    finally:
        os.system(f"umount {mount}")
