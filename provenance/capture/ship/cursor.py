"""How far the shipper has come with a run: ``<spool>/<run>/cursors.json``.

Replaced atomically and synced. A lost or broken file costs shipping again what the spool
still has, which changes nothing downstream::

    {"v": 1, "generation": str|null, "producers": {producer hex: {"rank", "world_size",
     "segment", "offset", "next", "chain", "acked", "acked_chain", "ended", "next_step",
     "next_epoch"}}}

The chains (:mod:`provenance.formats.producers.statement`) are 64 hex digits, or null where a lost
cursor file took them along and no acknowledgement has brought one back yet.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from provenance import files
from provenance.formats.fields import Fields, as_json

CURSOR_FILE = "cursors.json"
CURSOR_VERSION = 1
MAX_STALL_S = 3600.0


@dataclass(slots=True)
class Cursor:
    """One producer: all below ``next`` is in the transport, all below ``acked`` committed.

    ``segment`` and ``offset`` (bytes) are where event ``next`` is to be read; ``chain`` and
    ``acked_chain`` are the chains before events ``next`` and ``acked``. ``next_step`` and
    ``next_epoch`` follow the highest ones read; 0 before the first.
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
    next_step: int = 0
    next_epoch: int = 0


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
    """The run's cursors; fresh ones where there is no file. Raises FormatError,
    UnknownVersionError: the file is not what :func:`save_cursors` writes."""
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
        "producers": {key.hex(): as_json(c) for key, c in cursors.producers.items()},
    }
    files.replace(run_dir / CURSOR_FILE, json.dumps(value).encode())


def _cursor(producers: Fields, key: str) -> Cursor:
    names = [entry.name for entry in fields(Cursor)]
    cursor = producers.object(key, *names)

    def read(name: str) -> Any:
        if name.endswith("chain"):
            return cursor.maybe(name, lambda key: cursor.hex(key, 32))
        return cursor.boolean(name) if name == "ended" else cursor.integer(name)

    return Cursor(**{name: read(name) for name in names})


class Stall:
    """Whether a run's events were lost on their way, as after a trim, or a server that came back
    with older data under the same generation; watches one run from pass to pass.

    Events are lost where for ``stall_s`` nothing of the run was committed, and since then as many
    entries left the stream as stood in it: it is worked off in order, so those of the run were
    among them. How many left is counted from its length, which falls at times also where others
    add to it. An empty stream has lost all; one that nobody works on keeps what waits in it. Two
    workers that overtake each other make this wrong at worst, and then it is shipped twice.

    Args:
        stall_s: Seconds; doubles with each loss up to an hour, until something is committed.
    """

    def __init__(self, stall_s: float) -> None:
        self._first_s = self._stall_s = stall_s
        self._committed, self._since = -1, 0.0
        self._forget()

    def _forget(self) -> None:
        self._ahead: int | None = None
        self._left = self._backlog = 0

    def is_lost(self, committed: int, waits: bool, backlog: int) -> bool:
        """One look.

        Args:
            committed: Events of the run that are in the database.
            waits: Some were shipped and are not.
            backlog: Entries in the run's own stream, asked before ``committed`` and after the
                shipping.
        """
        now = time.monotonic()
        if committed != self._committed or not waits:
            self._committed, self._since, self._stall_s = committed, now, self._first_s
            self._forget()
            return False
        if self._ahead is None:
            self._ahead = backlog
        else:
            self._left += max(0, self._backlog - backlog)
        self._backlog = backlog
        if now - self._since < self._stall_s or self._left < self._ahead:
            return False
        self._since, self._stall_s = now, min(MAX_STALL_S, self._stall_s * 2)
        self._forget()
        return True
