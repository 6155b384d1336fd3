"""EpochOrder: which epochs a run has tracked, in constant memory for one that counts upwards."""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_STRETCHES: Final = 512
"""Stretches that are remembered beside the current one; the oldest is forgotten first."""

TWICE: Final = "epoch tracked twice; both are recorded"
BEHIND: Final = "epoch out of order; recorded in its place"


class EpochOrder:
    """Notices epochs that come twice or behind a later one.

    Epochs that count upwards by one step (1, 2, 3 or 100, 200, 300) are a stretch, however
    many they are; an epoch behind the newest one is a stretch by itself. An epoch of a forgotten
    stretch is taken for one that is new and out of order.
    """

    def __init__(self) -> None:
        self.newest = -1
        """The largest epoch so far."""
        self.count = 0
        """Different epochs so far."""
        self._first, self._step = 0, 0
        self._stretches: deque[range] = deque(maxlen=MAX_STRETCHES)

    def add(self, epoch: int) -> str | None:
        """Note an epoch; the warning that it deserves, if any."""
        step = epoch - self.newest
        if step == self._step and step:
            self.newest = epoch
        elif step > 0:
            if self._step or self.newest < 0:
                self._end_stretch(epoch)
            else:
                self._step = step
            self.newest = epoch
        elif any(epoch in stretch for stretch in (self._current(), *self._stretches)):
            return TWICE
        else:
            self._stretches.append(range(epoch, epoch + 1))
            self.count += 1
            return BEHIND
        self.count += 1
        return None

    def _current(self) -> range:
        return range(self._first, self.newest + 1, self._step or 1)

    def _end_stretch(self, epoch: int) -> None:
        if self.newest >= 0:
            self._stretches.append(self._current())
        self._first, self._step = epoch, 0
