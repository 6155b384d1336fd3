"""Whether the fleet works: how long ago a task of each queue ended, and whether it did its work.

A ping is answered by a worker that does nothing. Workers touch ``<queue>.alive`` when a task ends
(:mod:`workers.alive`), and the sweep, where database and Redis answer it, sends every queue one:
the hashing queue its drain. So each age is that of the last sweep that reached the queue too;
``beat`` is the sender of sweeps. What hangs, or was taken off its queue, grows old.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provenance.settings import Settings

ALIVE_DIR_ENV = "PROVENANCE_ALIVE_DIR"
TASK_LIMIT_S = 150
"""Seconds after which a task is killed: so long a worker may have ended none."""
SHIPPER = "shipper"
"""Its mark is that of the newest report that reached Redis."""
SWEEPS = 3
"""Of which a queue may have missed all but one."""
_MAX_PROBLEM = 500
_UNTOLD = "its task could not do its work"  # a full disk takes an empty file


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds since a task of the queue ended; None where none has.

    ``problem``: why the newest one that had work could not do it; None where it did.
    """

    queue: str
    age_s: float | None
    problem: str | None = None

    def stale(self, limit_s: float) -> bool:
        """Whether that is too long ago."""
        return self.age_s is None or self.age_s > limit_s

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.queue}: {self.problem}"
        if self.age_s is None:
            return f"{self.queue}: no task has ended yet"
        return f"{self.queue}: the last task ended {self.age_s:.0f} s ago"


def limit_s(settings: Settings) -> float:
    """The age in seconds from which a queue counts as stale."""
    return TASK_LIMIT_S + SWEEPS * settings.sweep_interval_s


def alive_dir(settings: Settings) -> Path:
    """Where workers leave their marks: ``$PROVENANCE_ALIVE_DIR``, else ``<base_dir>/run``."""
    return Path(os.environ.get(ALIVE_DIR_ENV) or settings.base_dir / "run")


def anchor_queue(network: str) -> str:
    """The queue of a network's worker."""
    return f"anchor.{network}"


def queues(settings: Settings) -> tuple[str, ...]:
    """Every queue of the configuration, and ``beat``."""
    anchors = map(anchor_queue, settings.blockchain.active)
    return ("hashing", *anchors, "confirm", "verify", "beat")


def ages(settings: Settings, names: Sequence[str] = ()) -> list[Age]:
    """The age of each named queue, of all where none is named; an unreadable mark is none."""
    folder, limit = alive_dir(settings), limit_s(settings)
    found = []
    for name in names or queues(settings):
        failed = folder / f"{name}.failed"
        failed_s, problem = _age(failed), None
        if failed_s is not None and failed_s <= limit:
            with suppress(OSError):
                problem = failed.read_text(errors="replace")[:_MAX_PROBLEM] or _UNTOLD
        found.append(Age(name, _age(folder / f"{name}.alive"), problem))
    return found


def note_alive(settings: Settings, queue: str) -> None:
    """A task of the queue ended."""
    with suppress(OSError):
        (alive_dir(settings) / f"{queue}.alive").touch()


def note_problem(settings: Settings, queue: str, problem: str | None) -> None:
    """Why it could not do its work; None where it did."""
    path = alive_dir(settings) / f"{queue}.failed"
    with suppress(OSError):
        if problem is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(problem[:_MAX_PROBLEM], errors="replace")


def _age(mark: Path) -> float | None:
    try:
        return max(0.0, time.time() - mark.stat().st_mtime)
    except OSError:
        return None
