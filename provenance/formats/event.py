"""Events: what lies in a spool segment.

docs/FORMAT.md, section 2.1::

    segment = "MLPS" || 01 || frame(header) || frame(event) || frame(event) ...
    frame   = length (u32) || CRC-32 (u32, RFC 1952) || payload             both little-endian
    header  = msgpack [run (16 bytes), producer (16 bytes), rank, world_size, first_seq]
    event   = msgpack [seq, kind, epoch, rank, ts_ns, fields]

Steps are the one kind of which several frames with the same ``seq`` are one event
(:func:`joined_steps`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgpack

from provenance.errors import (
    ChecksumError,
    FormatError,
    NewerVersionError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.json_text import canonical_size
from provenance.formats.record import (
    MAX_RECORD_BYTES,
    MAX_SAFE_INTEGER,
    Kind,
    Record,
    normalise,
    salt_for,
    timestamp,
)

SEGMENT_MAGIC = b"MLPS"
SEGMENT_VERSION = 1
FRAME_HEADER = struct.Struct("<II")
MAX_FRAME_BYTES = 8 * 1024 * 1024
_NO_SECRET = {"delta", "accountant"}
"""Of a budget whose epsilon is hidden."""
COUNTS = {f"{kind.value}.count": kind for kind in (Kind.DATA_TRAIN, Kind.DATA_TEST)}
"""The names of datasets' sample counts, and the kinds of the records that state them."""
_TELLS_COUNT = {"count", "bytes", "parts", "parts_total", "items"}
"""Of a dataset whose count is hidden."""
SURELY_FITS = 800_000
"""Bytes of an event whose record is not too large: a byte of msgpack is six of JSON at most, and
begins one list or mapping."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Names the run and the producer of a spool segment."""

    run: UUID
    producer: bytes
    rank: int
    world_size: int
    first_seq: int

    def encode(self) -> bytes:
        """Magic, version and one frame."""
        payload = pack([self.run.bytes, self.producer, self.rank, self.world_size, self.first_seq])
        return SEGMENT_MAGIC + bytes([SEGMENT_VERSION]) + frame(payload)

    @classmethod
    def decode(cls, data: bytes) -> tuple[SegmentHeader, int]:
        """The header and the offset of the first event frame, or ``FormatError``."""
        start = len(SEGMENT_MAGIC) + 1
        check_prefix(data, SEGMENT_MAGIC, SEGMENT_VERSION, "segment")
        payload, end = read_frame(data, start)
        run, producer, rank, world_size, first_seq = read_array(
            payload, "segment header", (bytes, bytes, int, int, int)
        )
        check_length(run, 16, "run")
        check_length(producer, 16, "producer")
        return cls(UUID(bytes=run), producer, rank, world_size, first_seq), end


@dataclass(frozen=True, slots=True)
class Event:
    """What the trainer writes. ``ts_ns``: Unix time in nanoseconds."""

    seq: int
    kind: Kind
    epoch: int | None
    rank: int
    ts_ns: int
    fields: dict[str, Any]

    def encode(self) -> bytes:
        """The msgpack payload, without its frame."""
        return pack([self.seq, self.kind.value, self.epoch, self.rank, self.ts_ns, self.fields])

    @classmethod
    def decode(cls, payload: bytes) -> Event:
        """Read a payload; ``FormatError`` where it is no event."""
        seq, kind, epoch, rank, ts_ns, fields = read_array(
            payload, "event", (int, str, (int, type(None)), int, int, dict)
        )
        try:
            return cls(seq, Kind(kind), epoch, rank, ts_ns, fields)
        except ValueError as error:
            raise FormatError(f"event: unknown kind {kind!r}") from error


def check_prefix(data: bytes, magic: bytes, version: int, what: str) -> None:
    """Refuse data that does not begin with a magic of four bytes and a version."""
    if len(data) < 5:
        raise TruncatedError(f"{what} of {len(data)} bytes, expected at least 5")
    if data[:4] != magic:
        raise UnknownVersionError(f"{what} magic {bytes(data[:4]).hex()}, expected {magic.hex()}")
    if data[4] != version:
        kind = NewerVersionError if data[4] > version else UnknownVersionError
        raise kind(f"{what} version {data[4]}, expected {version}")


def frame(payload: bytes) -> bytes:
    """A payload with its length and checksum; ``TooLargeError`` over 8 MiB."""
    if len(payload) > MAX_FRAME_BYTES:
        raise TooLargeError(f"event of {len(payload)} bytes, at most {MAX_FRAME_BYTES}")
    return FRAME_HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_frame(data: bytes | memoryview, offset: int) -> tuple[bytes, int]:
    """The payload of the frame at ``offset`` and the offset behind it; ``TruncatedError``,
    ``TooLargeError`` or ``ChecksumError`` where there is no whole one."""
    if offset + FRAME_HEADER.size > len(data):
        raise TruncatedError(f"frame header at byte {offset} is cut off")
    length, crc = FRAME_HEADER.unpack_from(data, offset)
    if length > MAX_FRAME_BYTES:
        raise TooLargeError(f"frame of {length} bytes at byte {offset}, at most {MAX_FRAME_BYTES}")
    start = offset + FRAME_HEADER.size
    end = start + length
    if end > len(data):
        rest = len(data) - start
        raise TruncatedError(f"frame at byte {offset} needs {length} bytes, found {rest}")
    payload = bytes(data[start:end])
    if not length or zlib.crc32(payload) != crc:
        raise ChecksumError(f"frame at byte {offset} does not fit its checksum")
    return payload, end


def joined_steps(frames: Sequence[Event]) -> Event:
    """The one event of the frames of steps that share a ``seq``, in order.

    A frame's fields are ``{"at": its place from 0, "step": int, "metrics": {name: value}}``. Steps
    with the same names make a series, by column, in the order in which the names first came::

        {"series": [{"metrics": {name: [value, ...]}, "step": [int, ...]}], "steps": int,
         "until": ts of the last}

    and, of frames that are not here, ``"missing"``: how many, so far as the last one here tells.
    """
    first, last = frames[0], frames[-1]
    series: dict[tuple[str, ...], tuple[list[Any], list[list[Any]]]] = {}
    for frame in frames:
        metrics = frame.fields.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        steps, columns = series.setdefault((*metrics,), ([], [[] for _ in metrics]))
        steps.append(frame.fields.get("step"))
        for column, value in zip(columns, metrics.values(), strict=True):
            column.append(value)
    fields: dict[str, Any] = {
        "series": [
            {"metrics": dict(zip(names, columns, strict=True)), "step": steps}
            for names, (steps, columns) in series.items()
        ],
        "steps": len(frames),
        "until": timestamp(max(0, min(last.ts_ns, 2**63 - 1))),
    }
    at = last.fields.get("at", 0)
    missing = at + 1 - len(frames) if isinstance(at, int) else 0
    if missing > 0:
        fields["missing"] = missing
    return replace(first, fields=fields)


def record_of(event: Event, header: SegmentHeader, salt_key: bytes) -> Record:
    """The record of an event, always with the same bytes; ``InputError`` for a field without a
    JSON form."""
    body = normalise(event.fields)
    assert isinstance(body, dict)
    return Record(
        run=header.run,
        kind=event.kind,
        epoch=event.epoch,
        rank=event.rank,
        producer=header.producer,
        seq=event.seq,
        ts=timestamp(event.ts_ns),
        salt=salt_for(salt_key, header.producer, event.seq),
        body=body,
    )


def numbers_of(kind: Kind, fields: Mapping[str, Any]) -> list[Any]:
    """Where the fields of an event, or the body of its record, have the numbers that a user names:
    metrics, a budget, results, the metrics of each series of steps, and a dataset's count."""
    if kind in COUNTS.values():
        return [{f"{kind.value}.count": fields["count"]}] if "count" in fields else []
    stated = fields.get("series")
    series = stated if isinstance(stated, list) else []
    steps = [each.get("metrics") for each in series if isinstance(each, dict)]
    return [*map(fields.get, ("metrics", "privacy", "results")), *steps]


def places_of(numbers: Any, name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a name stands in them, nested ones joined by dots: the mappings and their keys."""
    if isinstance(numbers, list):
        for item in numbers:
            yield from places_of(item, name)
    elif isinstance(numbers, dict):
        if name in numbers:
            yield numbers, name
        for key, inner in numbers.items():
            if name.startswith(f"{key}."):
                yield from places_of(inner, name[len(key) + 1 :])


def without_numbers(
    kind: Kind, fields: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """A copy of fields that shows no number of these names. With an epsilon goes all of its budget
    but delta and accountant: steps, noise and rates give epsilon away. With the count of a
    dataset go its bytes, parts and item set."""
    if any(COUNTS.get(name) is kind for name in names):
        return {key: value for key, value in fields.items() if key not in _TELLS_COUNT}
    copy = deepcopy(dict(fields))
    numbers = numbers_of(kind, copy)
    for name in names:
        for owner, key in list(places_of(numbers, name)):
            del owner[key]
    budget = copy.get("privacy")
    if isinstance(budget, dict) and any(f".{name}".endswith(".epsilon") for name in names):
        copy["privacy"] = {key: budget[key] for key in budget.keys() & _NO_SECRET}
    return copy


def check_size(kind: Kind, fields: dict[str, Any], payload: bytes) -> None:
    """Refuse an event that no record carries: ``TooLargeError`` names its largest value.

    Args:
        payload: The event's bytes, over :data:`SURELY_FITS` of them.
    """
    size_of, expected = _packed_size, f"a record of at most {MAX_RECORD_BYTES:,} bytes"
    if len(payload) <= MAX_FRAME_BYTES:
        longest = MAX_SAFE_INTEGER  # whatever number it gets
        event = Event(longest, kind, longest, longest, 0, fields)
        event = joined_steps([event]) if kind is Kind.STEPS else event
        record = record_of(event, SegmentHeader(UUID(int=0), bytes(16), 0, 1, 0), bytes(32))
        size_of = _json_size
        try:
            room = MAX_RECORD_BYTES - len(replace(record, body={}).encode())
            if canonical_size(record.body, room) <= room:
                return
        except ValueError as error:
            size_of, expected = _packed_size, f"a record without {error}"
    path, size = _largest(fields, size_of)
    raise TooLargeError(f"{path}: found {size:,} bytes, expected {expected}")


def _largest(
    fields: Mapping[str, object], size_of: Callable[[object], int], path: str = ""
) -> tuple[str, int]:
    """Path and size of the value that makes most of the fields."""
    size, name = max((size_of(value), name) for name, value in fields.items())
    inner, path = fields[name], f"{path}.{name[:80]}" if path else name[:80]
    if isinstance(inner, Mapping) and inner:
        below = _largest(inner, size_of, path)
        if below[1] * 2 > size:
            return below
    return path, size


def _json_size(value: object) -> int:
    return canonical_size(normalise(value))


def _packed_size(value: object) -> int:
    return len(pack(value))


def pack(value: object) -> bytes:
    """A value as msgpack bytes."""
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def read_array(payload: bytes, what: str, types: tuple[Any, ...]) -> list[Any]:
    """The msgpack array in the payload, its items of the given types."""
    try:
        value = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    except msgpack.ExtraData as error:
        raise TrailingBytesError(f"{what}: bytes after the end") from error
    except msgpack.StackError as error:
        raise TooLargeError(f"{what}: nested too deep") from error
    except (ValueError, TypeError) as error:  # TypeError: a map or list as a key
        reason = str(error) or type(error).__name__
        kind = TruncatedError if "incomplete" in reason else FormatError
        raise kind(f"{what}: not msgpack: {reason}") from error
    if not isinstance(value, list) or len(value) != len(types):
        raise FormatError(f"{what}: expected an array of {len(types)}")
    for index, (item, expected) in enumerate(zip(value, types, strict=True)):
        if not isinstance(item, expected) or isinstance(item, bool):
            raise FormatError(f"{what}: element {index} is a {type(item).__name__}")
    return value


def check_length(value: bytes, size: int, what: str) -> None:
    """Refuse bytes of another length."""
    if len(value) != size:
        raise FormatError(f"{what}: {len(value)} bytes, expected {size}")
