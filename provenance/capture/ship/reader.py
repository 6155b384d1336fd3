"""Reading a producer's segments: what is new, what is lost, what is durable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from provenance import files
from provenance.capture.ending import GOES_ON
from provenance.capture.ship.cursor import Cursor
from provenance.capture.spool import Corruption, Segment, read_segment
from provenance.errors import FormatError, NewerVersionError
from provenance.formats.event import Event, joined_steps
from provenance.formats.producers.statement import chain_start
from provenance.formats.record import MAX_SAFE_INTEGER, Kind

MAX_HOLE = 1 << 20
"""More events than fit into the longest segment: a larger hole is not filled."""
LOST = "lost in the spool: damaged or deleted"


class Numbers(NamedTuple):
    """What a training counts on with: behind its highest step and its highest epoch with metrics;
    0 before the first."""

    step: int = 0
    epoch: int = 0

    def behind(self, event: Event) -> Numbers:
        """Behind an event too, whose steps are joined; a number that is none counts for nothing."""
        if event.kind is Kind.METRICS:
            return self._replace(epoch=_behind(self.epoch, [event.epoch]))
        if event.kind is not Kind.STEPS:
            return self
        steps = (step for series in event.fields["series"] for step in series["step"])
        return self._replace(step=_behind(self.step, steps))


def _behind(highest: int, numbers: Iterable[object]) -> int:
    own = (n + 1 for n in numbers if type(n) is int and 0 <= n < MAX_SAFE_INTEGER)
    return max(highest, max(own, default=0))


class ProducerReader:
    """The new events of one producer's segments, and where reading them has come to.

    Iterating yields each event, or damaged range, with its segment. In the place of an event
    that the spool has lost comes a gap: a writer leaves no hole, and a hole would keep the
    rest from ever being acknowledged.

    Args:
        group: The producer's segments, oldest first.
        cursor: Where to begin; :meth:`move` moves it.
    """

    def __init__(self, group: Sequence[Segment], cursor: Cursor) -> None:
        self._group = group
        self._segment, self._offset = cursor.segment, cursor.offset
        self._next, self._ended = cursor.next, cursor.ended
        self.numbers = Numbers(cursor.next_step, cursor.next_epoch)
        """Behind those of the events so far."""
        self._unsynced: set[Path] = set()
        self._began = False
        self.missing = 0
        self.blocked: str | None = None
        """Why reading stopped before an event: more is missing than gaps can stand for."""

    def __iter__(self) -> Iterator[tuple[Segment, Event | Corruption]]:
        for segment in self._group:
            if segment.index < self._segment:
                continue
            if segment.index > self._segment:
                self._segment, self._offset = segment.index, 0
            final = segment is not self._group[-1] or not segment.is_live()  # before reading
            self._unsynced.add(segment.path)
            if self._offset == 0:
                self._began = True
                with suppress(FormatError):  # the reader reports damage and finds the first event
                    self._offset = segment.header()[1]
            frames = read_segment(segment.path, self._offset, final=final)
            for offset, item in whole_events(frames, final=final):
                if isinstance(item, Event) and item.seq <= MAX_SAFE_INTEGER:
                    if item.seq - self._next > MAX_HOLE:
                        self.blocked = f"events {self._next} to {item.seq - 1} are missing"
                        return
                    yield from self._lost(segment, item)
                self._offset = offset
                if isinstance(item, Corruption):
                    yield segment, item
                elif item.seq > MAX_SAFE_INTEGER:
                    yield segment, Corruption(offset, offset, f"sequence number {item.seq}")
                else:  # an end that was shipped before a cursor file was lost is one too
                    self._ended = self._ended or _is_final(item)
                    if item.seq >= self._next:
                        self._next = item.seq + 1
                        self.numbers = self.numbers.behind(item)
                        yield segment, item

    def _lost(self, segment: Segment, event: Event) -> Iterator[tuple[Segment, Event]]:
        for seq in range(self._next, event.seq):
            fields = {"dropped": 1, "reason": LOST}
            self._next = seq + 1
            self.missing += 1
            yield segment, Event(seq, Kind.GAP, None, event.rank, event.ts_ns, fields)

    def sync(self) -> None:
        """Make durable what was read: nothing is shipped that a power cut could take back."""
        for path in self._unsynced:
            with files.opened(path, os.O_RDONLY) as descriptor:
                os.fdatasync(descriptor)
        if self._began:
            files.sync_directory(self._group[0].path.parent)
        self._unsynced.clear()
        self._began = False

    def move(self, cursor: Cursor, chain: bytes) -> bool:
        """Put the cursor where reading is, with the chain there; True where it was elsewhere."""
        here = (self._segment, self._offset, self._next, self._ended)
        moved = here != (cursor.segment, cursor.offset, cursor.next, cursor.ended)
        cursor.segment, cursor.offset, cursor.next, cursor.ended = here
        cursor.next_step, cursor.next_epoch = self.numbers
        cursor.chain = chain
        return moved


def whole_events(
    frames: Iterable[tuple[int, Event | Corruption]], *, final: bool
) -> Iterator[tuple[int, Event | Corruption]]:
    """Frames as :func:`read_segment` gives them, those of steps joined to events.

    The newest event of steps is yielded once another follows, or the segment is ``final``: until
    then more steps may join it, and what was shipped must not change. Damage in the midst of one
    comes behind it.
    """
    steps: list[Event] = []
    end, damage = 0, list[tuple[int, Corruption]]()
    for offset, item in frames:
        if isinstance(item, Corruption) and steps:
            damage.append((offset, item))
            continue
        step = item if isinstance(item, Event) and item.kind is Kind.STEPS else None
        if steps and (step is None or step.seq != steps[0].seq):
            yield from _closed(steps, end, damage)
            steps, damage = [], []
        if step is not None:
            steps.append(step)
            end = offset
        else:
            yield offset, item
    if final:
        yield from _closed(steps, end, damage)


def _closed(
    steps: Sequence[Event], end: int, damage: Sequence[tuple[int, Corruption]]
) -> Iterator[tuple[int, Event | Corruption]]:
    if steps:
        yield end, joined_steps(steps)
    for offset, item in damage:
        yield max(offset, end), item


def _is_final(event: Event) -> bool:
    """Whether it ends the rank's part: a run that may go on keeps its key."""
    state = event.fields.get("state", "finished")
    return event.kind is Kind.RUN_END and state not in GOES_ON


def later_release(segment: Segment) -> str | None:
    """Why a segment is not for this release to read; None where it is, damaged or not."""
    try:
        segment.header()
    except NewerVersionError as error:
        later = f"{segment.path.name} is a later release's ({error})"
        return f"{later}; its events wait for that release's shipper"
    except FormatError:
        pass
    return None


def first_cursor(first: Segment) -> Cursor:
    """The cursor of a producer without one, at the first segment that is left.

    Those before it are gone because the database has them: how many events that were, and with
    which chain, its acknowledgement says.
    """
    try:
        header, offset = first.header()
    except FormatError:
        cursor = Cursor(first.rank, segment=first.index, next=_first_seq(first))
    else:
        seq = header.first_seq
        cursor = Cursor(first.rank, header.world_size, first.index, offset, seq, seq)
    if cursor.next == 0:
        cursor.chain = cursor.acked_chain = chain_start(first.run, first.producer)
    return cursor


def _first_seq(segment: Segment) -> int:
    """The number of the first event that can be read; 0 in a producer's very first segment."""
    if segment.index == 0:
        return 0
    items = (item for _, item in read_segment(segment.path))
    return next((item.seq for item in items if isinstance(item, Event)), 0)


def written_next(group: Sequence[Segment], cursor: Cursor | None) -> float | None:
    """When the event behind the cursor was written, in Unix seconds; None where none is there, or
    it does not read.

    Args:
        cursor: None before the first event.
    """
    with suppress(OSError, FormatError):
        for segment in group:
            if cursor is None or segment.index > cursor.segment:
                return segment.event_at(segment.header()[1]).ts_ns / 1e9
            if segment.index == cursor.segment and segment.size() > cursor.offset:
                return segment.event_at(cursor.offset or segment.header()[1]).ts_ns / 1e9
    return None
