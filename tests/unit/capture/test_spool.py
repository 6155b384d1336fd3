"""Segments on disk: layout, rotation, full disks, torn writes, damage, liveness.

Over 400 lines: case by case, one file: `provenance/capture/spool.py`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance import files
from provenance.capture.keys import new_run_keys
from provenance.capture.spool import (
    Corruption,
    parse_segment,
    pending_bytes,
    read_segment,
    refuse_network_file_system,
    scan,
    scan_run,
)
from provenance.capture.spool_writer import LOOK_NS, RESERVE_BYTES, SpoolWriter
from provenance.errors import FormatError, InputError, TooLargeError
from provenance.formats.event import Event, SegmentHeader, frame, record_of
from provenance.formats.record import Kind

PRODUCER = bytes(range(16))


@pytest.fixture
def run() -> UUID:
    return new_run_keys().run


@pytest.fixture
def make(tmp_path: Path, run: UUID) -> Iterator[Callable[..., SpoolWriter]]:
    (tmp_path / str(run)).mkdir()
    made: list[SpoolWriter] = []

    def writer(**options: Any) -> SpoolWriter:
        made.append(SpoolWriter(tmp_path / str(run), run, PRODUCER, 0, 1, retry_s=0.0, **options))
        return made[-1]

    yield writer
    for each in made:
        each.abandon()


class Disk:
    """Stands in for os.write on segments: takes ``room`` bytes, then is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.error = errno.ENOSPC
        self.calls = 0
        real = os.write

        def write(fd: int, data: bytes) -> int:
            self.calls += 1
            if self.room is None:
                return real(fd, data)
            if self.room <= 0:
                raise OSError(self.error, os.strerror(self.error))
            part = data[: self.room]
            self.room -= len(part)
            return real(fd, part)

        monkeypatch.setattr(os, "write", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def put(writer: SpoolWriter, number: int) -> bool:
    return writer.append(Kind.METRICS, number, 1_700_000_000_000_000_000, {"n": number})


def read_all(folder: Path, run: UUID, *, final: bool = True) -> list[Event | Corruption]:
    return [
        item
        for segment in scan_run(folder / str(run), run).segments
        for _, item in read_segment(segment.path, final=final)
    ]


def events(folder: Path, run: UUID) -> list[Event]:
    items = read_all(folder, run)
    assert all(isinstance(item, Event) for item in items), items
    return [item for item in items if isinstance(item, Event)]


# --- writing -----------------------------------------------------------------------------


def test_events_come_back_in_order(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make()
    assert all(put(writer, n) for n in range(50))
    found = events(tmp_path, run)
    assert [(e.seq, e.epoch, e.fields) for e in found] == [(n, n, {"n": n}) for n in range(50)]


def test_layout_is_the_documented_one(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    put(make(), 0)
    path = tmp_path / str(run) / f"r0-{PRODUCER.hex()}-00000000.seg"
    assert path.stat().st_mode & 0o777 == 0o600
    (spool,) = scan(tmp_path)
    (segment,) = spool.segments
    assert (segment.path, segment.rank, segment.producer, segment.index) == (path, 0, PRODUCER, 0)
    header, offset = segment.header()
    assert header == SegmentHeader(run, PRODUCER, 0, 1, 0)
    assert path.read_bytes()[:offset] == header.encode()


def test_segments_rotate_and_name_their_first_event(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make(segment_bytes=1000)
    for n in range(100):
        assert put(writer, n)
    segments = scan_run(tmp_path / str(run), run).segments
    assert [s.index for s in segments] == list(range(len(segments)))
    assert len(segments) > 3
    for segment in segments:
        assert segment.size() <= 1000
        first = next(item for _, item in read_segment(segment.path))
        assert isinstance(first, Event)
        assert first.seq == segment.header()[0].first_seq
    assert [e.seq for e in events(tmp_path, run)] == list(range(100))


def test_an_event_larger_than_a_segment_has_one_of_its_own(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make(segment_bytes=1000)
    for n in range(3):
        assert writer.append(Kind.METRICS, n, 1, {"text": "x" * 5000})
    assert [e.seq for e in events(tmp_path, run)] == [0, 1, 2]


def test_an_event_beyond_the_format_is_refused_and_takes_no_number(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make()
    with pytest.raises(TooLargeError):
        writer.append(Kind.METRICS, 0, 1, {"text": "x" * (8 * 1024 * 1024)})
    assert put(writer, 7)
    assert [(e.seq, e.epoch) for e in events(tmp_path, run)] == [(0, 7)]


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        (Kind.METRICS, "x" * (8 * 1024 * 1024 - 300), "x: found 8,388,310 bytes"),
        pytest.param(
            Kind.METRICS, {"a": 1, "b": [0.12345678901234567] * 500_000}, "x.b: found 10,000,001",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Kind.METRICS, [[]] * 1_000_001, "without more than 1000000 objects and lists",
            marks=pytest.mark.slow,
        ),
        (Kind.STEPS, {f"name {n}": 1.5 for n in range(480_000)}, "metrics: found"),
    ],
)  # fmt: skip
def test_what_the_shipper_could_make_no_record_of_is_refused_at_once(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], kind: Kind, value: Any, named: str
) -> None:
    """Its event is within the limit, its record is not."""
    writer = make()
    fields = {"metrics": value, "step": 1} if kind is Kind.STEPS else {"x": value}
    with pytest.raises(TooLargeError, match="found [0-9,]+ bytes, expected a record") as refused:
        writer.append(kind, None, 1, fields)
    assert named in str(refused.value)
    assert put(writer, 1)
    assert [event.seq for event in events(tmp_path, run)] == [0]


def test_the_largest_event_is_a_record(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make()
    assert writer.append(Kind.METRICS, 1, 1, {"x": "x" * (8 * 1024 * 1024 - 512)})
    (event,) = events(tmp_path, run)
    assert record_of(event, SegmentHeader(run, PRODUCER, 0, 1, 0), bytes(32)).encode()


def test_a_spool_that_is_deleted_under_the_training_is_written_again(
    tmp_path: Path, run: UUID, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, restored = tmp_path / str(run), list[bool]()
    folder.mkdir()
    writer = SpoolWriter(
        folder, run, PRODUCER, 0, 1, segment_bytes=2048, restored=lambda: restored.append(True)
    )
    for n in range(3):
        writer.append(Kind.METRICS, n, 0, {"n": n})
    shutil.rmtree(folder)
    writer.append(Kind.METRICS, 3, LOOK_NS - 1, {"n": 3})
    assert not folder.exists(), "it is looked at once a second"
    writer.append(Kind.METRICS, 4, LOOK_NS, {"n": 4})
    assert [e.epoch for e in events(tmp_path, run)] == [0, 1, 2, 3, 4]
    (segment,) = scan_run(folder, run).segments
    assert segment.is_live()
    assert restored == [True]
    segment.path.unlink()
    writer.append(Kind.METRICS, 5, 2 * LOOK_NS, {"n": 5})
    assert [e.epoch for e in events(tmp_path, run)] == [0, 1, 2, 3, 4, 5]
    assert restored == [True, True], "the key may be gone as well"
    os.rename(folder, tmp_path / "away")
    for n in range(5, 60):  # the segment is full in the same second
        writer.append_step(2 * LOOK_NS, n, {"n": n})
    shutil.rmtree(folder)
    assert writer.finish(2 * LOOK_NS, "completed")
    last = events(tmp_path, run)
    assert (last[-1].kind, last[-1].fields["events"]) == (Kind.RUN_END, last[-1].seq)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(restored) == 4
    assert all("the spool was deleted while the run goes on; its segment is" in s for s in said)
    unless = "what came before it is lost unless it was shipped"
    assert [unless in line for line in said] == [False, False, False, True]


def test_a_spool_that_cannot_be_made_again_is_tried_again(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    writer, folder = make(), tmp_path / str(run)
    put(writer, 0)
    shutil.rmtree(folder)
    folder.write_text("in its place")
    for n in range(1, 4):
        writer.append(Kind.METRICS, n, n * LOOK_NS, {"n": n})
    folder.unlink()
    writer.append(Kind.METRICS, 4, 4 * LOOK_NS, {"n": 4})
    assert [e.epoch for e in events(tmp_path, run)] == [0, 1, 2, 3, 4]
    first, second = capsys.readouterr().err.splitlines()
    assert "its segment cannot be written: spool: " in first
    assert "its segment is written again" in second


def test_finish_counts_the_events_before_it_once(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make()
    for n in range(3):
        put(writer, n)
    assert writer.finish(5, "completed")
    assert writer.finish(6, "again")
    last = events(tmp_path, run)[-1]
    assert (last.seq, last.kind) == (3, Kind.RUN_END)
    assert last.fields == {"events": 3, "reason": "completed", "state": "finished"}


def test_preallocation_is_beyond_the_end_and_given_back(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make(segment_bytes=1 << 20)
    put(writer, 0)
    (segment,) = scan_run(tmp_path / str(run), run).segments
    status = segment.path.stat()
    if status.st_blocks * 512 < 1 << 20:
        pytest.skip("this file system does not pre-allocate")
    assert status.st_size < 1000
    writer.finish(1, "completed")
    assert segment.path.stat().st_blocks * 512 < 1 << 16


# --- full disks --------------------------------------------------------------------------


def test_a_short_outage_loses_nothing(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make()
    put(writer, 0)
    disk.room = 0
    assert [put(writer, n) for n in range(1, 5)] == [False] * 4
    assert writer.held == 4
    disk.room = None
    assert put(writer, 5)
    assert (writer.held, writer.lost) == (0, 0)
    assert [(e.seq, e.epoch) for e in events(tmp_path, run)] == [(n, n) for n in range(6)]


def test_beyond_the_ring_a_gap_says_how_many_and_why(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make(ring_events=3)
    disk.room = 0
    for n in range(10):
        put(writer, n)
    assert (writer.held, writer.lost) == (3, 7)
    disk.room = None
    assert put(writer, 99)
    found = events(tmp_path, run)
    assert [e.seq for e in found] == list(range(5))
    assert [e.epoch for e in found] == [0, 1, 2, None, 99]
    assert found[3].kind is Kind.GAP
    assert found[3].fields["dropped"] == 7
    assert "ENOSPC" in found[3].fields["reason"]


def test_the_ring_is_bounded_by_bytes_too(make: Callable[..., SpoolWriter], disk: Disk) -> None:
    writer = make(ring_bytes=1000)
    disk.room = 0
    for n in range(50):
        writer.append(Kind.METRICS, n, 1, {"text": "x" * 100})
    assert 0 < writer.held < 10
    assert writer.held + writer.lost == 50


def test_after_a_drop_no_smaller_event_slips_in_before_the_gap(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make(ring_bytes=200)
    disk.room = 0
    put(writer, 0)
    writer.append(Kind.METRICS, 1, 1, {"text": "x" * 500})
    put(writer, 2)
    disk.room = None
    put(writer, 3)
    assert [e.epoch for e in events(tmp_path, run)] == [0, None, 3]


@pytest.mark.parametrize("room", [1, 4, 8, 9, 20])
def test_a_short_write_leaves_no_torn_frame(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk, room: int
) -> None:
    writer = make()
    put(writer, 0)
    disk.room = room
    assert not put(writer, 1)
    assert [e.seq for e in events(tmp_path, run)] == [0]
    disk.room = None
    assert put(writer, 2)
    assert [(e.seq, e.epoch) for e in events(tmp_path, run)] == [(0, 0), (1, 1), (2, 2)]


def test_a_torn_frame_that_cannot_be_cut_off_is_skipped_by_the_reader(
    tmp_path: Path,
    run: UUID,
    make: Callable[..., SpoolWriter],
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = make()
    put(writer, 0)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.room = 12
    monkeypatch.setattr(os, "ftruncate", refuse)
    assert not put(writer, 1)
    disk.room = None
    assert put(writer, 2)
    found = read_all(tmp_path, run)
    assert [type(item).__name__ for item in found] == ["Event", "Corruption", "Event", "Event"]
    assert [item.seq for item in found if isinstance(item, Event)] == [0, 1, 2]


def test_another_error_moves_on_to_a_new_segment(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make()
    put(writer, 0)
    disk.room, disk.error = 0, errno.EFBIG
    assert not put(writer, 1)
    disk.room = None
    assert put(writer, 2)
    assert [s.index for s in scan_run(tmp_path / str(run), run).segments] == [0, 1]
    assert [e.seq for e in events(tmp_path, run)] == [0, 1, 2]


def test_a_disk_full_at_rotation_keeps_the_old_segment(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make(segment_bytes=300)
    n = 0
    while len(scan_run(tmp_path / str(run), run).segments) < 2:
        put(writer, n)
        n += 1
    disk.room = 0
    for _ in range(30):
        put(writer, n)
        n += 1
    assert writer.held > 10
    assert not [p for p in (tmp_path / str(run)).iterdir() if p.suffix == ".new"]
    disk.room = None
    assert put(writer, n)
    assert [e.epoch for e in events(tmp_path, run)] == list(range(n + 1))


def test_a_full_disk_is_not_tried_at_every_event(tmp_path: Path, run: UUID, disk: Disk) -> None:
    (tmp_path / str(run)).mkdir()
    writer = SpoolWriter(tmp_path / str(run), run, PRODUCER, 0, 1, retry_s=60.0)
    disk.room = 0
    put(writer, 0)
    before = disk.calls
    for n in range(1, 100):
        put(writer, n)
    assert disk.calls == before
    disk.room = None
    assert writer.flush()
    assert writer.held == 0
    writer.abandon()


def test_the_reserve_takes_gap_seal_and_end_of_a_run_whose_disk_stays_full(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(segment_bytes=400, ring_events=4)
    while writer._offset < 360:
        put(writer, 0)
    written = writer.next_seq

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", refuse)  # no new segment
    put(writer, 1)
    writer.append(Kind.SEAL, None, 1, {"phase": "after"})
    for n in range(2, 9):
        put(writer, n)
    assert writer.held == 4
    assert writer.finish(1, "completed")
    monkeypatch.undo()
    tail = events(tmp_path, run)[written:]
    assert [e.kind for e in tail] == [Kind.SEAL, Kind.GAP, Kind.RUN_END]
    assert tail[1].fields["dropped"] == 8
    assert tail[2].fields["events"] == tail[2].seq
    assert [e.seq for e in tail] == list(range(written, written + 3))


def test_a_mark_behind_the_first_drop_is_kept_and_comes_behind_the_gap(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make(ring_events=2)
    disk.room = 0
    for n in range(5):
        put(writer, n)
    writer.append(Kind.SEAL, None, 1, {"phase": "after"})
    put(writer, 5)
    assert (writer.held, writer.lost) == (3, 4)
    disk.room = None
    assert writer.finish(1, "completed")
    kinds = [e.kind for e in events(tmp_path, run)]
    assert kinds == [Kind.METRICS, Kind.METRICS, Kind.GAP, Kind.SEAL, Kind.RUN_END]


def test_a_mark_that_finds_the_ring_full_is_not_what_is_dropped(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make(ring_events=2)
    disk.room = 0
    for n in range(2):
        put(writer, n)
    writer.append(Kind.SEAL, None, 1, {"phase": "after"})
    assert (writer.held, writer.lost) == (3, 0)
    disk.room = None
    assert writer.finish(1, "completed")
    assert [e.kind for e in events(tmp_path, run)][2:] == [Kind.SEAL, Kind.RUN_END]


class Blocks:
    """A fallocate(2) with so many bytes to give."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.given: list[int] = []

    def __call__(self, fd: int, mode: int, start: int, size: int) -> int:
        if size > self.free:
            ctypes.set_errno(errno.ENOSPC)
            return -1
        self.given.append(size)
        self.free -= size
        return 0


def test_with_little_room_a_segment_is_smaller_and_keeps_its_reserve(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(200_000)
    monkeypatch.setattr(files, "_FALLOCATE", blocks)
    writer = make(segment_bytes=1_000_000, ring_events=4)
    assert len(blocks.given) == 1
    assert 64_000 < blocks.given[0] <= 200_000
    blocks.free = 70_000
    n = 0
    while writer.lost == 0:  # a second, smaller segment, and then none
        writer.append(Kind.METRICS, n, 1, {"pad": "x" * 1000})
        n += 1
    assert len(blocks.given) == 2
    assert 2 * RESERVE_BYTES <= blocks.given[1] <= 70_000
    sizes = [s.size() for s in scan_run(tmp_path / str(run), run).segments]
    assert all(
        size <= given - RESERVE_BYTES for size, given in zip(sizes, blocks.given, strict=True)
    )
    assert writer.finish(1, "completed")
    tail = events(tmp_path, run)[-2:]
    assert [e.kind for e in tail] == [Kind.GAP, Kind.RUN_END]
    assert tail[0].fields["dropped"] == writer.lost


def test_finish_says_so_where_even_the_reserve_is_gone(
    make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    writer = make()
    disk.room = 0
    put(writer, 0)
    assert not writer.finish(1, "completed")


def test_no_room_for_the_first_segment_is_no_error(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter], disk: Disk
) -> None:
    disk.room = 5
    writer = make()
    assert not put(writer, 0)
    assert not list((tmp_path / str(run)).iterdir())
    disk.room = None
    assert put(writer, 1)
    assert [e.seq for e in events(tmp_path, run)] == [0, 1]


def test_flush_reports_a_failing_sync(
    make: Callable[..., SpoolWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make()
    put(writer, 0)
    assert writer.flush()

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    assert not writer.flush()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exception_out_of_the_write_neither_doubles_nor_skips_a_number(
    tmp_path: Path,
    run: UUID,
    make: Callable[..., SpoolWriter],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """A signal handler that raises does so right before or right after the system call."""
    writer = make()
    put(writer, 0)
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        if when == "after":
            real(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(writer, 1)
    monkeypatch.setattr(os, "write", real)
    assert put(writer, 2)
    found = events(tmp_path, run)
    assert [e.epoch for e in found] == ([0, 1, 2] if when == "after" else [0, 2])
    assert [e.seq for e in found] == list(range(len(found)))


# --- reading -----------------------------------------------------------------------------


def encoded(*numbers: int) -> list[bytes]:
    return [frame(Event(n, Kind.METRICS, n, 0, 1, {"n": n}).encode()) for n in numbers]


@pytest.fixture
def segment(tmp_path: Path, run: UUID) -> Path:
    return tmp_path / f"r0-{PRODUCER.hex()}-00000000.seg"


def header(run: UUID) -> bytes:
    return SegmentHeader(run, PRODUCER, 0, 1, 0).encode()


def test_an_incomplete_tail_ends_quietly_and_is_read_when_complete(
    segment: Path, run: UUID
) -> None:
    frames = encoded(0, 1)
    segment.write_bytes(header(run) + frames[0] + frames[1][:-3])
    ((offset, first),) = read_segment(segment)
    assert isinstance(first, Event)
    segment.write_bytes(header(run) + frames[0] + frames[1])
    ((_, second),) = read_segment(segment, offset)
    assert isinstance(second, Event)
    assert second.seq == 1


def test_an_incomplete_tail_of_a_final_segment_is_damage(segment: Path, run: UUID) -> None:
    frames = encoded(0, 1)
    data = header(run) + frames[0] + frames[1][:-3]
    segment.write_bytes(data)
    (_, (offset, damage)) = read_segment(segment, final=True)
    assert isinstance(damage, Corruption)
    assert (damage.start, damage.end, offset) == (
        len(header(run) + frames[0]), len(data), len(data),
    )  # fmt: skip
    assert "cut off" in damage.reason


def test_a_length_damaged_upwards_does_not_hide_what_follows(segment: Path, run: UUID) -> None:
    frames = encoded(0, 1, 2)
    broken = (len(frames[1]) * 1000).to_bytes(4, "little") + frames[1][4:]
    segment.write_bytes(header(run) + frames[0] + broken + frames[2])
    found = [item for _, item in read_segment(segment)]
    assert [type(item).__name__ for item in found] == ["Event", "Corruption", "Event"]
    assert isinstance(found[2], Event)
    assert found[2].seq == 2


@pytest.mark.parametrize("zeros", [1, 100, 5000])
def test_zeros_where_events_should_be_are_skipped(segment: Path, run: UUID, zeros: int) -> None:
    frames = encoded(0, 1)
    segment.write_bytes(header(run) + frames[0] + bytes(zeros) + frames[1])
    found = [item for _, item in read_segment(segment)]
    assert [type(item).__name__ for item in found] == ["Event", "Corruption", "Event"]


@pytest.mark.parametrize("final", [True, False])
def test_a_damaged_header_costs_no_event(segment: Path, run: UUID, final: bool) -> None:
    head = bytearray(header(run))
    head[7] ^= 0xFF
    segment.write_bytes(bytes(head) + b"".join(encoded(0, 1)))
    found = [item for _, item in read_segment(segment, final=final)]
    assert [type(item).__name__ for item in found] == ["Corruption", "Event", "Event"]


def test_a_file_cut_off_inside_its_header(segment: Path, run: UUID) -> None:
    segment.write_bytes(header(run)[:10])
    assert list(read_segment(segment)) == []
    ((offset, damage),) = read_segment(segment, final=True)
    assert (offset, type(damage)) == (10, Corruption)
    segment.write_bytes(b"")
    assert list(read_segment(segment, final=True)) == []


def test_an_intact_frame_that_is_no_event_is_damage_of_itself_only(
    segment: Path, run: UUID
) -> None:
    frames = encoded(0, 1)
    segment.write_bytes(header(run) + frames[0] + frame(b"\xc0") + frames[1])
    found = [item for _, item in read_segment(segment)]
    assert [type(item).__name__ for item in found] == ["Event", "Corruption", "Event"]


def test_what_looks_like_an_event_inside_damage_is_not_believed(segment: Path, run: UUID) -> None:
    frames = encoded(0, 1)
    decoy = bytes(8) + frames[0][8:-1]
    segment.write_bytes(header(run) + b"\x01" + decoy + frames[1])
    found = [item for _, item in read_segment(segment)]
    assert [type(item).__name__ for item in found] == ["Corruption", "Event"]
    assert isinstance(found[1], Event)
    assert found[1].seq == 1


# --- finding -----------------------------------------------------------------------------


def test_scan_finds_dead_runs_and_ignores_strangers(tmp_path: Path) -> None:
    runs = sorted((new_run_keys().run for _ in range(3)), key=str)
    for run in runs:
        (tmp_path / str(run)).mkdir()
        SpoolWriter(tmp_path / str(run), run, os.urandom(16), 3, 4).finish(1, "x")
    (tmp_path / "shipper.lock").touch()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / str(runs[0]).upper().replace("-", "")).mkdir()
    (tmp_path / str(runs[0]) / "notes.seg").touch()
    (tmp_path / str(runs[0]) / f"r0-{PRODUCER.hex()}-00000000.new").touch()
    found = scan(tmp_path)
    assert [spool.run for spool in found] == runs
    assert [len(spool.segments) for spool in found] == [1, 1, 1]
    assert {s.rank for spool in found for s in spool.segments} == {3}
    assert pending_bytes(tmp_path) == sum(s.size() for spool in found for s in spool.segments) > 0


def test_scan_of_nothing_is_empty(tmp_path: Path) -> None:
    assert scan(tmp_path / "absent") == []
    assert scan_run(tmp_path / "absent", new_run_keys().run).segments == []
    assert pending_bytes(tmp_path / "absent") == 0


def test_only_the_newest_segment_of_a_living_process_is_live(
    tmp_path: Path, run: UUID, make: Callable[..., SpoolWriter]
) -> None:
    writer = make(segment_bytes=300)
    for n in range(20):
        put(writer, n)
    segments = scan_run(tmp_path / str(run), run).segments
    assert [s.is_live() for s in segments] == [False] * (len(segments) - 1) + [True]
    writer.finish(1, "x")
    assert not segments[-1].is_live()
    segments[0].path.unlink()
    assert not segments[0].is_live()
    assert segments[0].size() == 0
    with pytest.raises(FileNotFoundError):
        segments[0].header()


def test_a_killed_process_lets_go_of_its_segment(tmp_path: Path, run: UUID) -> None:
    (tmp_path / str(run)).mkdir()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        SpoolWriter(tmp_path / str(run), run, PRODUCER, 0, 1)
        os.write(tell, b"!")
        signal.pause()
    try:
        os.read(ready, 1)
        (segment,) = scan_run(tmp_path / str(run), run).segments
        assert segment.is_live()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
    assert not segment.is_live()


def test_names_that_are_no_segments(tmp_path: Path, run: UUID) -> None:
    for name in ("r0-abc-00000000.seg", f"r0-{PRODUCER.hex()}-1.seg", "x.seg", "run.key"):
        assert parse_segment(tmp_path / name, run) is None


def test_a_broken_header_is_a_format_error(tmp_path: Path, run: UUID) -> None:
    path = tmp_path / f"r0-{PRODUCER.hex()}-00000000.seg"
    path.write_bytes(b"MLPS\x09")
    segment = parse_segment(path, run)
    assert segment is not None
    with pytest.raises(FormatError):
        segment.header()


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /home rw shared:2 - nfs4 server:/home rw
24 23 0:22 / /home/me/with\\040space rw shared:3 master:4 - xfs /dev/vdb rw
25 22 0:23 / /homes rw - tmpfs tmpfs rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/home/me/artifacts", True),
        ("/home", True),
        ("/home/me/with space/x", False),
        ("/homes/x", False),
        ("/srv", False),
    ],
)
def test_network_file_systems_are_refused(tmp_path: Path, path: str, refused: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    if not refused:
        refuse_network_file_system(Path(path), mounts)
        return
    with pytest.raises(InputError, match=r"network file system \(nfs4 at /home\).*local disk"):
        refuse_network_file_system(Path(path), mounts)


def test_without_a_list_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    refuse_network_file_system(tmp_path, tmp_path / "absent")
