"""How far the shipper has come with a run: ``<spool>/<run>/cursors.json``.

Replaced atomically and synced. A lost or broken file costs shipping again what the spool
still has, which changes nothing downstream::

    {"v": 1, "generation": str|null, "producers": {producer hex: {"rank", "world_size",
     "segment", "offset", "next", "chain", "acked", "acked_chain", "ended"}}}

The chains (:mod:`provenance.formats.producers.statement`) are 64 hex digits, or null where a lost
cursor file took them along and no acknowledgement has brought one back yet.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from provenance import files
from provenance.formats.fields import Fields

CURSOR_FILE = "cursors.json"
CURSOR_VERSION = 1


@dataclass(slots=True)
class Cursor:
    """One producer: all below ``next`` is in the transport, all below ``acked`` committed.

    ``segment`` and ``offset`` (bytes) are where event ``next`` is to be read; ``chain`` and
    ``acked_chain`` are the chains before events ``next`` and ``acked``.
    """

    rank: int
    world_size: int = 1
    segment: int = 0
    offset: int = 0
    next: int = 0
    acked: int = 0
    ended: bool = False
    chain: bytes | None = None
    acked_chain: bytes | None = None


@dataclass(slots=True)
class Cursors:
    """A run's cursors, and the transport's generation that they hold for."""

    generation: str | None = None
    producers: dict[bytes, Cursor] = field(default_factory=dict)

    @property
    def unacknowledged(self) -> int:
        """Events shipped and not yet known to be in the database."""
        return sum(max(0, c.next - c.acked) for c in self.producers.values())

    def rewind(self) -> int:
        """Back to what is committed; the number of events to be shipped again."""
        again = self.unacknowledged
        for cursor in self.producers.values():
            if cursor.next > cursor.acked:
                cursor.segment, cursor.offset, cursor.next = 0, 0, cursor.acked
                cursor.chain = cursor.acked_chain
        return again


def load_cursors(run_dir: Path) -> Cursors:
    """The run's cursors; fresh ones where there is no file.

    Raises:
        FormatError, UnknownVersionError: The file is not what :func:`save_cursors` writes.
    """
    path = run_dir / CURSOR_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Cursors()
    top = Fields.parse(data, str(path))
    top.version(CURSOR_VERSION)
    return Cursors(top.maybe("generation", top.text), top.by_hex("producers", 16, _cursor))


def save_cursors(run_dir: Path, cursors: Cursors) -> None:
    """Replace the file; durable on return."""
    value = {
        "v": CURSOR_VERSION,
        "generation": cursors.generation,
        "producers": {key.hex(): _as_json(c) for key, c in cursors.producers.items()},
    }
    files.replace(run_dir / CURSOR_FILE, json.dumps(value).encode())


def delete_cursors(run_dir: Path) -> None:
    """Delete the file; not an error where it is gone already."""
    (run_dir / CURSOR_FILE).unlink(missing_ok=True)


_NAMES = tuple(entry.name for entry in dataclasses.fields(Cursor))
_CHAINS = ("chain", "acked_chain")


def _as_json(cursor: Cursor) -> dict[str, object]:
    values = {name: getattr(cursor, name) for name in _NAMES}
    return values | {name: values[name] and values[name].hex() for name in _CHAINS}


def _cursor(producers: Fields, key: str) -> Cursor:
    cursor = producers.object(key, *_NAMES)
    numbers = {name: cursor.integer(name) for name in _NAMES if name not in (*_CHAINS, "ended")}
    read = Cursor(rank=numbers.pop("rank"), ended=cursor.boolean("ended"))
    for name, number in numbers.items():
        setattr(read, name, number)
    for name in _CHAINS:
        setattr(read, name, cursor.maybe(name, lambda name: cursor.hex(name, 32)))
    return read
