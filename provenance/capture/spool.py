"""The spool on disk: where segments lie, who still writes them, and how they are read.

::

    <spool>/<run id>/r<rank>-<producer, 32 hex>-<index, 8 digits>.seg
    <spool>/<run id>/run.key        the run's keys, until it is sealed
    <spool>/<run id>/cursors.json   how far the shipper has come
    <spool>/<run id>/....damaged    a segment that was damaged, kept for people to look at
    <spool>/shipper.lock            held by the one shipper

A producer's newest segment is held under an exclusive flock(2) for as long as its process
lives; the kernel lets go of it however the process ends. A segment without that lock MUST
NOT grow any more. Segments appear under their name with lock and header already there.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from provenance import files
from provenance.errors import (
    FormatError,
    InputError,
    ProvenanceError,
    SpoolUnavailable,
    TruncatedError,
)
from provenance.formats.event import FRAME_HEADER, MAX_FRAME_BYTES, Event, SegmentHeader, read_frame
from provenance.formats.record import Kind

LOCK_FILE = "shipper.lock"
_NAME = re.compile(r"r(\d{1,9})-([0-9a-f]{32})-(\d{8})\.seg")

# What an event's payload starts with: an array of six, a non-negative integer (seq), and
# the name of a kind. Finds candidates for the next frame at the speed of a C scan.
_EVENT_START = re.compile(
    rb"\x96(?:[\x00-\x7f]|\xcc.|\xcd.{2}|\xce.{4}|\xcf.{8})(?:"
    + b"|".join(re.escape(bytes([0xA0 | len(kind)]) + kind.encode()) for kind in Kind)
    + b")",
    re.DOTALL,
)

# Where O_APPEND is not atomic between hosts, flock is not kept, or fdatasync is a promise only.
NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs",
    "glusterfs", "ocfs2", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse",
    "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.mount-s3", "fuse.juicefs",
    "fuse.blobfuse2",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file, as its name and folder tell."""

    path: Path
    run: UUID
    rank: int
    producer: bytes
    index: int

    def size(self) -> int:
        """Bytes, not counting what is pre-allocated; 0 where the file is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def written_at(self) -> int:
        """When the last event was written, in nanoseconds; 0 where the file is gone."""
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def is_live(self) -> bool:
        """True while the producer's process holds it, so that it may still grow.

        Ask before reading: what is read after a False is all that there will be.
        """
        return files.is_locked(self.path)

    def event_at(self, offset: int) -> Event:
        """The event whose frame begins there. Raises FormatError: there is no whole one;
        FileNotFoundError: the file is gone."""
        with self.path.open("rb") as file:
            file.seek(offset)
            head = file.read(FRAME_HEADER.size)
            length = int.from_bytes(head[:4], "little")
            payload, _ = read_frame(head + file.read(min(length, MAX_FRAME_BYTES)), 0)
        return Event.decode(payload)

    def header(self) -> tuple[SegmentHeader, int]:
        """The header as written, and the offset of the first event. Raises FormatError: it does not
        decode; FileNotFoundError: the file is gone."""
        with self.path.open("rb") as file:
            return SegmentHeader.decode(file.read(256))


@dataclass(frozen=True, slots=True)
class RunSpool:
    """A run's folder: its segments by producer, oldest first."""

    run: UUID
    path: Path
    producers: Mapping[bytes, tuple[Segment, ...]]

    @property
    def segments(self) -> list[Segment]:
        """All segments, by producer and index."""
        return [segment for group in self.producers.values() for segment in group]


@dataclass(frozen=True, slots=True)
class Corruption:
    """Bytes ``start`` to ``end`` of a segment that hold no readable event."""

    start: int
    end: int
    reason: str


def segment_name(rank: int, producer: bytes, index: int) -> str:
    """File name of a segment."""
    return f"r{rank}-{producer.hex()}-{index:08d}.seg"


def parse_segment(path: Path, run: UUID) -> Segment | None:
    """A path as a segment; None where its name is not one."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    return Segment(path, run, int(match[1]), bytes.fromhex(match[2]), int(match[3]))


def scan_run(path: Path, run: UUID) -> RunSpool:
    """One run's segments; empty where the folder is gone."""
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        names = []
    segments = [s for name in names if (s := parse_segment(path / name, run)) is not None]
    segments.sort(key=lambda s: (s.rank, s.producer, s.index))
    producers: dict[bytes, tuple[Segment, ...]] = {}
    for segment in segments:
        producers[segment.producer] = (*producers.get(segment.producer, ()), segment)
    return RunSpool(run, path, producers)


def scan(spool_dir: Path) -> list[RunSpool]:
    """Every run in the spool, those of dead trainers included, oldest id first.

    Folders that are not named by a UUID are none of ours.
    """
    try:
        entries = sorted(entry.name for entry in os.scandir(spool_dir) if entry.is_dir())
    except FileNotFoundError:
        return []
    runs = []
    for name in entries:
        try:
            run = UUID(name)
        except ValueError:
            continue
        if str(run) == name:
            runs.append(scan_run(spool_dir / name, run))
    return runs


def pending_bytes(spool_dir: Path) -> int:
    """Bytes in the spool's segments, which the database has not committed yet."""
    return sum(segment.size() for spool in scan(spool_dir) for segment in spool.segments)


def read_segment(
    path: Path, offset: int = 0, *, final: bool = False
) -> Iterator[tuple[int, Event | Corruption]]:
    """The events from byte ``offset`` on, each with the offset behind it.

    Behind damage it goes on at the next frame whose checksum and content hold, and yields
    the range between as a Corruption. An unreadable tail with nothing readable behind it
    is a write in progress: it ends quietly there, to be called again; where the segment is
    ``final`` (see :meth:`Segment.is_live`), that too is a Corruption.

    Args:
        offset: 0, or an offset that was yielded before.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    position = 0
    if offset == 0:
        try:
            position = SegmentHeader.decode(data)[1]
        except FormatError as error:
            # Nothing behind the header yet: being written, unless final.
            end = _next_event(data, 0)
            if end is None and not final:
                return
            position = len(data) if end is None else end
            if position:
                yield position, Corruption(0, position, str(error))
    while position < len(data):
        try:
            payload, end = read_frame(data, position)
        except FormatError as error:
            following = _next_event(data, position + 1)
            if following is None and not final:
                return
            end = len(data) if following is None else following
            cut = isinstance(error, TruncatedError) and following is None
            reason = f"{type(error).__name__} at byte {offset + position}{': cut off' * cut}"
            yield offset + end, Corruption(offset + position, offset + end, reason)
        else:
            item: Event | Corruption
            try:
                item = Event.decode(payload)
            except FormatError as error:
                item = Corruption(offset + position, offset + end, str(error))
            yield offset + end, item
        position = end


def _next_event(data: bytes, start: int) -> int | None:
    """The first offset from ``start`` on where a whole, valid event frame begins."""
    position = start + FRAME_HEADER.size
    while (match := _EVENT_START.search(data, position)) is not None:
        candidate = match.start() - FRAME_HEADER.size
        try:
            payload, _ = read_frame(data, candidate)
            Event.decode(payload)
        except FormatError:
            position = match.start() + 1
            continue
        return candidate
    return None


def refused(problem: str, error: OSError) -> ProvenanceError:
    """What an error of the spool is: the disk's state, or the place that was chosen for it."""
    of_disk = error.errno in (*files.NO_SPACE, errno.EIO, errno.EROFS)
    kind = SpoolUnavailable if of_disk else InputError
    return kind(f"{problem}: {error.strerror}")


def refuse_network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Check that a spool may lie at ``path``: only where one host owns the disk.

    Knows the file system where the kernel lists mounts as proc(5) mountinfo.

    Raises:
        InputError: It lies on a network file system.
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    where = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    if kind in NETWORK_FILE_SYSTEMS:
        raise InputError(
            f"{path}: lies on a network file system ({kind} at {best}), where events can be lost "
            "or mixed; choose a base_dir on a local disk"
        )
