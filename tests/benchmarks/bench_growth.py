"""Cost of one more checkpoint as a run goes on, and what an epoch and a checkpoint leave behind.

Runs that have had few checkpoints and many take turns, each in an SQLite file: ingest with its
seal, then anchor and receipt on the local network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import text

from tests.benchmarks.measure import in_turns
from tests.benchmarks.table import Row, row
from tests.benchmarks.worlds import epoch_events, ingest_run, local_world, long_run, run_events
from tests.support.verify_world import World


class Run:
    """One that has had a checkpoint at each of its epochs, all with their receipts."""

    def __init__(self, folder: Path, checkpoints: int) -> None:
        self.world = local_world(folder)[0]
        events = run_events(checkpoints, checkpoints)
        self.next, self.epoch = len(events), checkpoints
        ingest_run(self.world, events)
        self.world.anchor()
        self.batches: list[bytes] = []

    def prepare(self, count: int) -> None:
        """Batches of one epoch with its checkpoint."""
        for _ in range(count):
            self.epoch += 1
            events = epoch_events(self.epoch, True)
            self.batches.append(self.world.batch(events, first=self.next))
            self.next += len(events)

    def ingest(self) -> None:
        """The next epoch and its seal."""
        self.world.ingest(self.batches.pop(0))


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    sizes, times = ((50, 100, 200), 9) if quick else ((200, 1_000, 2_000), 50)
    with tempfile.TemporaryDirectory() as name:
        runs = {size: Run(Path(name, str(size)), size) for size in sizes}
        for run in runs.values():
            run.prepare(times)
        calls = {str(size): run.ingest for size, run in runs.items()}
        ingested: dict[str, list[float]] = {key: [] for key in calls}
        anchored: dict[str, list[float]] = {key: [] for key in calls}
        anchors = {str(size): run.world.anchor for size, run in runs.items()}
        for _ in range(times):
            for into, turn in ((ingested, calls), (anchored, anchors)):
                for key, (one,) in in_turns(turn, 1, scale=1e3).items():
                    into[key].append(one)
    first, *others = calls
    for label, taken in (("ingest and seal", ingested), ("anchor and receipt", anchored)):
        for key in others:
            peer = (f"after {first} checkpoints", taken[first])
            name = f"one checkpoint, {label}, after {int(key):,}"
            yield row(name, "ms", taken[key], peer, "ratio <= 1.5")
    yield from left_behind(*((100, 200) if quick else (1_000, 2_000)))


def left_behind(few: int, many: int) -> Iterator[Row]:
    """Rows and bytes of the database, by the difference between two runs."""
    short, long, sealed = (_size(long_run(*of)) for of in ((few, 0), (many, 0), (many, many)))
    for at, unit in enumerate(("rows", "bytes")):
        yield row(f"database {unit} per epoch", unit, [(long[at] - short[at]) / (many - few)])
        yield row(
            f"database {unit} per checkpoint, no receipt", unit, [(sealed[at] - long[at]) / many]
        )


def _size(world: World) -> tuple[int, int]:
    """Rows and bytes of a database."""
    with world.store.exclusive() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))
        rows = sum(
            connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in tables.scalars().all()
        )
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        size = connection.execute(text("PRAGMA page_size")).scalar_one()
    return int(rows), int(pages) * int(size)
