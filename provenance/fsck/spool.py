"""The spool as the checker reads it: from the files alone, without the shipper's reader.

::

    <spool>/<run id>/r<rank>-<producer, 32 hex>-<index, 8 digits>.seg
    <spool>/<run id>/cursors.json     {"producers": {producer hex: {"acked": int, ...}}, ...}

A segment that another process holds under flock(2) may still grow; what is unreadable at its
end is a write in progress.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from provenance.errors import FormatError, NewerVersionError, TruncatedError
from provenance.formats import json_text
from provenance.formats.event import Event, SegmentHeader, joined_steps, read_frame
from provenance.formats.record import Kind
from provenance.fsck.findings import Finding, FindingKind

_SEGMENT: Final = re.compile(r"r\d{1,9}-([0-9a-f]{32})-\d{8}\.seg")
_EVENT_ARRAY: Final = b"\x96"
"""An event's payload begins with the msgpack mark of an array of six."""
_FRAME_HEADER_BYTES: Final = 8


@dataclass(slots=True)
class SpoolRun:
    """What lies in one run's folder.

    Attributes:
        events: By ``(producer, seq)``.
        acked: Per producer, how many events the shipper was told that the database has.
    """

    run: UUID
    events: dict[tuple[bytes, int], tuple[SegmentHeader, Event]] = field(default_factory=dict)
    acked: dict[bytes, int] = field(default_factory=dict)
    segments: int = 0
    findings: list[Finding] = field(default_factory=list)


def spool_runs(spool_dir: Path) -> dict[UUID, Path]:
    """The folders of runs, by run id; none where there is no spool. Raises OSError: the spool
    cannot be listed."""
    found: dict[UUID, Path] = {}
    if not spool_dir.exists():
        return found
    for entry in sorted(os.scandir(spool_dir), key=lambda entry: entry.name):
        with suppress(ValueError):
            run = UUID(entry.name)
            if entry.is_dir() and str(run) == entry.name:
                found[run] = Path(entry.path)
    return found


def read_run(folder: Path, run: UUID) -> SpoolRun:
    """Every event that the folder holds, and what of it cannot be read.

    Raises:
        OSError: A file cannot be read. A file that a shipper deleted meanwhile is none.
    """
    found = SpoolRun(run)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return found
    # The cursor first: what it says was committed then is in the database that is read later.
    found.acked = _acked(folder / "cursors.json")
    for name in names:
        match = _SEGMENT.fullmatch(name)
        if match is None:
            continue
        try:
            live = _is_live(folder / name)
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        found.segments += 1
        _read_segment(found, name, bytes.fromhex(match[1]), data, live)
    return found


def _read_segment(found: SpoolRun, name: str, producer: bytes, data: bytes, live: bool) -> None:
    subject = f"{found.run}/{name}"
    own, position = SegmentHeader(found.run, producer, 0, 1, 0), 0
    try:
        own, position = SegmentHeader.decode(data)
    except FormatError as error:
        if isinstance(error, NewerVersionError):
            problem = f"{error}: a later release's, which this one does not read"
            found.findings.append(FindingKind.SPOOL_DAMAGED(subject, problem))
        if live or isinstance(error, NewerVersionError):
            return
        found.findings.append(_damage(subject, data, 0, None, error))
    if (own.run, own.producer) != (found.run, producer):
        problem = f"its header names run {own.run} and producer {own.producer.hex()}"
        found.findings.append(FindingKind.SPOOL_DAMAGED(subject, problem))
    steps: dict[int, list[Event]] = {}
    newest: Event | None = None
    for start, end, item in _frames(data, position):
        newest = item if isinstance(item, Event) else newest
        if isinstance(item, Event) and item.kind is Kind.STEPS:
            steps.setdefault(item.seq, []).append(item)
        elif isinstance(item, Event):
            found.events.setdefault((own.producer, item.seq), (own, item))
        elif end is not None or not live:
            found.findings.append(_damage(subject, data, start, end, item))
    if live and newest is not None:
        steps.pop(newest.seq, None)  # more may join them
    for seq, frames in steps.items():
        found.events.setdefault((own.producer, seq), (own, joined_steps(frames)))


def _frames(data: bytes, position: int) -> Iterator[tuple[int, int | None, Event | FormatError]]:
    """``(start, end, event or why there is none)``; ``end`` None where nothing readable follows."""
    while position < len(data):
        try:
            payload, end = read_frame(data, position)
            event = Event.decode(payload)
        except FormatError as error:
            following = _next_event(data, position + 1)
            yield position, following, error
            if following is None:
                return
            position = following
        else:
            yield position, end, event
            position = end


def _next_event(data: bytes, start: int) -> int | None:
    """The next offset where a whole event stands."""
    mark = data.find(_EVENT_ARRAY, start + _FRAME_HEADER_BYTES)
    while mark >= 0:
        try:
            payload, _ = read_frame(data, mark - _FRAME_HEADER_BYTES)
            Event.decode(payload)
        except FormatError:
            mark = data.find(_EVENT_ARRAY, mark + 1)
        else:
            return mark - _FRAME_HEADER_BYTES
    return None


def _damage(subject: str, data: bytes, start: int, end: int | None, error: FormatError) -> Finding:
    cut_off = end is None and isinstance(error, TruncatedError)
    kind = FindingKind.SPOOL_TRUNCATED if cut_off else FindingKind.SPOOL_DAMAGED
    upto = len(data) if end is None else end
    return kind(subject, f"bytes {start} to {upto} hold no event: {error}")


def _is_live(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _acked(path: Path) -> dict[bytes, int]:
    """A lost or broken cursor file costs shipping again, and tells nothing here."""
    try:
        raw: Any = json_text.loads(path.read_bytes())
        return {bytes.fromhex(k): int(v["acked"]) for k, v in raw["producers"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
