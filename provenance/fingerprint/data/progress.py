"""A progress line while data is read for longer than two seconds, on a terminal's stderr alone."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

_AFTER: Final = 2.0


class Progress:
    """Counts what is read of one dataset; a context manager."""

    def __init__(self) -> None:
        self._shown = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + _AFTER
        self._bar: Any = None
        self._name, self._total, self._done = "", 0, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def part(self, name: str, total: int = 0) -> None:
        """A part begins, of so many rows, elements or bytes; 0 where that is not known."""
        self._name, self._total, self._done = name, total, 0

    def add(self, count: int) -> None:
        """So many more are read."""
        self._done += count
        if self._shown and time.monotonic() >= self._next:
            self._draw()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            text = TextColumn("Digest of data {task.description}", markup=False)
            columns = text, BarColumn(), MofNCompleteColumn()
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("")
            self._bar.start()
        from provenance.log import shown

        name, total = shown(self._name), self._total or None
        self._bar.update(0, description=name, completed=self._done, total=total)
        self._next = time.monotonic() + 0.2
