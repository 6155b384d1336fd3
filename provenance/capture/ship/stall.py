"""Stall: whether a run's events were lost on their way, as after a trim, or a server that came back
with older data under the same generation."""

from __future__ import annotations

import time

MAX_STALL_S = 3600.0


class Stall:
    """Watches one run from pass to pass.

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
            backlog: Entries in the stream, asked before ``committed`` and after the shipping.
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
