"""SpoolWriter: one producer's segments, written by one process.

Life of an event: it gets the next sequence number, is framed, and one ``os.write`` hands
it to the kernel, where it survives the death of the process. A full segment is followed by
the next; each is pre-allocated, so that a full disk does not stop the current one.

Where the disk takes no more, events wait in a ring of bounded count and size; past that
they are dropped and counted, control events such as a seal's mark apart, of which some are
kept. When there is room again the ring is written first, then a ``gap`` event that says how
many were dropped and why, then what was kept. Numbers are given at the write, so
the sequence on disk has no hole. A segment that somebody deletes while it is written is written
again from the open file. :meth:`finish` has a reserve, pre-allocated behind every
segment, for the gap and the end of a run whose disk stays full. Where a whole segment does
not fit any more a smaller one is made, and none without room for a reserve but the first.

Not thread-safe; the emitter serialises.

Over 400 lines: one writer's state, from its first segment to its end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack

from provenance import files
from provenance.capture.spool import segment_name
from provenance.errors import FormatError
from provenance.formats.event import (
    SURELY_FITS,
    Event,
    SegmentHeader,
    check_size,
    frame,
    read_frame,
)
from provenance.formats.record import CONTROL_KINDS, Kind
from provenance.log import get_logger, shown

SEGMENT_BYTES = 8 * 1024 * 1024
STEPS_AT_ONCE = 1000
STEPS_BYTES = 512 * 1024
STEPS_NS = 30 * 10**9
"""Frames of steps, their bytes and their time in one event, at most."""
RESERVE_BYTES = 16 * 1024
_LEAST = 2 * RESERVE_BYTES
RING_EVENTS = 4096
RING_BYTES = 8 * 1024 * 1024
LATE_EVENTS = 64
RETRY_S = 0.1
LOOK_NS = 10**9
"""How long a deleted segment may go unnoticed."""
_STEPS = Kind.STEPS.value
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_log = get_logger("provenance")


@dataclass(slots=True)
class _OpenSteps:
    """The event of steps that was begun last."""

    seq: int
    count: int
    size: int
    since_ns: int

    def has_room(self, ts_ns: int) -> bool:
        """Whether a step of this moment may join it."""
        full = self.count >= STEPS_AT_ONCE or self.size >= STEPS_BYTES
        return not full and 0 <= ts_ns - self.since_ns < STEPS_NS


class SpoolWriter:
    """Appends one producer's events to its segments.

    Args:
        run_dir: The run's folder in the spool; must exist.
        producer: 16 bytes that name this process.
        segment_bytes: When to begin the next segment.
        ring_events, ring_bytes: What is held in memory while the disk is full, at most.
        retry_s: How often a full disk is tried again.
        restored: Called where somebody deleted the folder, or what is in it; may raise OSError.
    """

    def __init__(
        self,
        run_dir: Path,
        run: UUID,
        producer: bytes,
        rank: int,
        world_size: int,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        ring_events: int = RING_EVENTS,
        ring_bytes: int = RING_BYTES,
        retry_s: float = RETRY_S,
        restored: Callable[[], object] = bool,
    ) -> None:
        self.run_dir, self.run, self.producer = run_dir, run, producer
        self.rank, self.world_size = rank, world_size
        self.next_seq = 0
        self.lost = 0
        """Events dropped for good, in all."""
        self._restored = restored
        self._limit = self._room = segment_bytes
        self._ring_events, self._ring_bytes, self._retry_s = ring_events, ring_bytes, retry_s
        self._fd = -1
        self._path = run_dir
        self._index = 0
        self._start = self._offset = 0
        self._in_doubt = False
        self._ring: deque[bytes] = deque()
        self._ring_size = 0
        self._dropped = 0
        self._late: list[bytes] = []
        """Control events behind the first drop."""
        self._reason = ""
        self._retry_at = 0.0
        self._finished = False
        self._steps = _OpenSteps(-1, 0, 0, 0)
        self._looked = 0
        self._missing = False
        """The segment was deleted, and is only in this process."""
        self._pack = msgpack.Packer(strict_types=True).pack
        self._rotate()

    @property
    def held(self) -> int:
        """Events that wait in memory for room on the disk."""
        return len(self._ring) + len(self._late)

    def append(self, kind: Kind, epoch: int | None, ts_ns: int, fields: dict[str, Any]) -> bool:
        """Write one event. True: the kernel has it. False: held in memory, or dropped.

        Raises:
            TooLargeError: No record carries it.
            TypeError, ValueError, OverflowError: msgpack cannot pack the fields: a subclass of
                a plain type, a lone surrogate, an integer beyond 64 bits.
        """
        if not 0 <= ts_ns - self._looked < LOOK_NS:
            self._look(ts_ns)
        blocked = (self._in_doubt or self._ring or self._dropped) and self._is_blocked()
        pack = self._pack
        # Event.encode, without the object.
        payload = pack([self.next_seq, kind._value_, epoch, self.rank, ts_ns, fields])
        if len(payload) > SURELY_FITS:
            check_size(kind, fields, payload)
        data = frame(payload)
        if not blocked and self._write(data):
            return True
        self._hold(payload, kind)
        return False

    def append_step(self, ts_ns: int, step: int, metrics: dict[str, Any]) -> bool:
        """Write one step: a frame of the event before it where that is of steps, too, and has
        room for it; else of a new one. As :meth:`append`."""
        if not 0 <= ts_ns - self._looked < LOOK_NS:
            self._look(ts_ns)
        open_, at = self._steps, 0
        blocked = (self._in_doubt or self._ring or self._dropped) and self._is_blocked()
        if open_.seq == self.next_seq - 1 and open_.has_room(ts_ns) and not blocked:
            at = open_.count
        fields = {"at": at, "step": step, "metrics": metrics}
        if at:
            data = frame(self._pack([open_.seq, _STEPS, None, self.rank, ts_ns, fields]))
            fits = self._fd >= 0 and self._offset + len(data) <= self._room
            small = len(data) < STEPS_BYTES
            if fits and small and self._write(data, retry=False, more=True):
                open_.count += 1
                open_.size += len(data)
                return True
            fields["at"] = 0
        seq, before = self.next_seq, self._offset
        if not self.append(Kind.STEPS, None, ts_ns, fields):
            return False
        if seq == self.next_seq - 1:
            size = self._offset - (before if before < self._offset else self._start)
            self._steps = _OpenSteps(seq, 1, size, ts_ns)
        return True

    def flush(self) -> bool:
        """Write what is held and sync. True where all of it is on the disk."""
        self._look(self._looked)
        clear = not self._is_blocked(retry=True)
        try:
            if self._fd >= 0:
                os.fdatasync(self._fd)
        except OSError as error:
            self._failed(error)
            return False
        return clear

    def finish(self, ts_ns: int, reason: str, state: str = "finished") -> bool:
        """End the producer: ``run.end`` with the number of events before it, once.

        With a disk that is still full, held control events, the gap and the end go into
        the reserve; the other held events become part of the gap.
        """
        if self._finished:
            return True
        self._finished = True
        self._look(ts_ns)
        if self._is_blocked(retry=True):
            self._retry_at = 0.0
            control = deque(p for p in self._ring if Event.decode(p).kind in CONTROL_KINDS)
            self._drop(len(self._ring) - len(control))
            self._ring = control
            self._room += RESERVE_BYTES
            self._recover()
        fields = {"events": self.next_seq, "reason": reason, "state": state}
        payload = Event(self.next_seq, Kind.RUN_END, None, self.rank, ts_ns, fields).encode()
        self._room += RESERVE_BYTES
        written = not (self._ring or self._dropped) and self._write(frame(payload))
        self._close_segment(self._fd)
        self._fd = -1
        if self.lost:
            _log.warning("events were dropped: the run has a gap", events=self.lost)
        return written

    def abandon(self) -> None:
        """Let go of an inherited segment without touching it: for the child of a fork."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._finished = True

    # --- one write --------------------------------------------------------------------

    def _write(self, data: bytes, *, retry: bool = True, more: bool = False) -> bool:
        """One frame: True where the kernel has it, False where there is no room for it; ``more``
        of the event that was written last, or a new one.

        write(2), once; a short one is followed by another, which completes it or says why
        not. The order of statements lets :meth:`_reconcile` mend an interruption anywhere.
        """
        full = self._offset + len(data) > self._room and self._offset > self._start
        if (full or self._fd < 0) and not self._rotate():
            return False
        self._in_doubt = True
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._reconcile()
            self._failed(error)
            if error.errno not in files.NO_SPACE:
                self._close_segment(self._fd)
                self._fd = -1
            # Not the disk is full but this file (a limit on its size, a bad sector): the next.
            return retry and self._fd < 0 and self._write(data, retry=False)
        self._offset += written
        if not more:
            self.next_seq += 1
        self._in_doubt = False
        return True

    def _is_blocked(self, *, retry: bool = False) -> bool:
        """Mend and write what is left of earlier events; True where some stay in memory.

        Args:
            retry: Try a disk that was full a moment ago, too.
        """
        if self._in_doubt:
            self._reconcile()
        if retry:
            self._retry_at = 0.0
        return bool(self._ring or self._dropped) and not self._recover()

    def _reconcile(self) -> None:
        """After a write of unknown outcome (short, or a signal handler raised): look.

        Whole frames behind the last known offset count as written; a torn one is cut off.
        Where the file cannot be mended it is left as it is and the next segment begins.
        """
        try:
            size = os.fstat(self._fd).st_size - self._offset
            tail, done = os.pread(self._fd, size, self._offset), 0
            while done < len(tail):
                try:
                    payload, done = read_frame(tail, done)
                except FormatError:
                    os.ftruncate(self._fd, self._offset + done)
                    files.preallocate(self._fd, self._room + RESERVE_BYTES, _LEAST)  # cut off, too
                    break
                self.next_seq = Event.decode(payload).seq + 1  # of a step perhaps as it was
            self._offset += done
        except OSError as error:
            self._failed(error)
            self._close_segment(self._fd, trim=False)
            self._fd = -1
        self._in_doubt = False

    def _look(self, ts_ns: int) -> None:
        """Write the segment again where somebody deleted it, or moved its folder: this process
        still has it open."""
        self._looked = ts_ns
        if self._in_doubt:
            self._reconcile()
        if self._fd < 0 or files.is_at(self._fd, self._path):
            return
        try:
            data = os.pread(self._fd, self._offset, 0)
        except OSError as error:
            self._failed(error)
            return
        written = self._begin(self._path, data)
        if written or not self._missing:
            outcome = "is written again" if written else f"cannot be written: {self._reason}"
            lost = "; what came before it is lost unless it was shipped" * (self._index > 1)
            _log.warning(
                f"the spool was deleted while the run goes on; its segment {outcome}{lost}",
                path=str(self._path),
            )
        self._missing = not written

    def _rotate(self) -> bool:
        """Begin the next segment."""
        self._look(self._looked)
        path = self.run_dir / segment_name(self.rank, self.producer, self._index)
        whose = (self.run, self.producer, self.rank, self.world_size)
        header = SegmentHeader(*whose, self.next_seq).encode()
        if not self._begin(path, header):
            return False
        self._index += 1
        self._start = self._offset = len(header)
        return True

    def _begin(self, path: Path, data: bytes) -> bool:
        """Go on in a new file, which gets its name when lock and data are there."""
        temporary, fd = path.with_suffix(".new"), -1
        try:
            if path == self._path or not self.run_dir.exists():  # somebody deleted it
                self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._restored()
            fd = os.open(temporary, _OPEN, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            allocated = files.preallocate(fd, self._limit + RESERVE_BYTES, _LEAST)
            no_room = allocated == 0 and self._fd >= 0  # the segment that is there has its reserve
            if no_room or os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(temporary, path)
        except OSError as error:
            self._failed(error)
            if fd >= 0:
                os.close(fd)
                with contextlib.suppress(OSError):
                    temporary.unlink()
            return False
        old, self._fd = self._fd, fd
        self._room = allocated - RESERVE_BYTES if allocated > 0 else self._limit
        self._path = path
        self._close_segment(old)
        return True

    def _close_segment(self, fd: int, *, trim: bool = True) -> None:
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            if trim:  # gives back what is pre-allocated behind the end
                os.ftruncate(fd, os.fstat(fd).st_size)
                # The kernel's own time of a write is some milliseconds coarse, and the shipper
                # tells by it who of a parent and its children wrote last.
                os.utime(fd, ns=(time.time_ns(), time.time_ns()))
        with contextlib.suppress(OSError):
            os.close(fd)

    # --- no room ----------------------------------------------------------------------

    def _failed(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "error")
        self._reason = f"spool: {error.strerror or 'cannot write'} ({name})"
        self._retry_at = time.monotonic() + self._retry_s

    def _hold(self, payload: bytes, kind: Kind) -> None:
        """Into the ring; after a first drop behind the gap, or not at all."""
        more = LATE_EVENTS if kind in CONTROL_KINDS else 0
        full = len(self._ring) >= self._ring_events + more
        large = self._ring_size + len(payload) > self._ring_bytes + more * RESERVE_BYTES
        if self._dropped and len(self._late) < more:
            self._late.append(payload)
        elif self._dropped or full or large:
            self._drop(1)
        else:
            self._ring.append(payload)
            self._ring_size += len(payload)

    def _drop(self, count: int) -> None:
        if count and not self.lost:
            where = f"{self._path.parent} takes no more ({self._reason})"
            line = f"provenance: run {self.run}: events are dropped: {where}; the run will say so"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
                print(shown(line), file=sys.stderr, flush=True)  # noqa: T201  a trainer's log may go anywhere
        self._dropped += count
        self.lost += count

    def _recover(self) -> bool:
        """Write the ring and the gap; True where nothing is held back any more."""
        if time.monotonic() < self._retry_at:
            return False
        while self._ring or self._dropped:
            if self._ring:
                event = replace(Event.decode(self._ring[0]), seq=self.next_seq)
                if not self._write(frame(event.encode())):
                    return False
                self._ring_size -= len(self._ring.popleft())
                continue
            fields = {"dropped": self._dropped, "reason": self._reason}
            gap = Event(self.next_seq, Kind.GAP, None, self.rank, time.time_ns(), fields)
            if not self._write(frame(gap.encode())):
                return False
            self._dropped = 0
            self._ring.extend(self._late)
            self._ring_size = sum(map(len, self._late))
            self._late.clear()
        return True
