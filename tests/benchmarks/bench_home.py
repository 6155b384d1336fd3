"""How long a run takes until all its roots are final on the local network: the whole walk.

A fleet of its own (``provenance up``), real trainers, one SQLite file. Seconds from the first
``track_epoch`` of a run with many checkpoints; from the start of a fleet that finds such a run in
its spool; and from the last event of many trainers at once, each a process.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from provenance.bootstrap import reading
from provenance.settings import load
from provenance.tracker import ProvenanceTracker
from tests.benchmarks.bench_emit import METRICS
from tests.benchmarks.table import Row, missing, row
from tests.benchmarks.worlds import fleet

LIMIT_S = 300.0


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    if quick:
        yield missing("until final on local", "it takes minutes, leave --quick out")
        return
    for epochs, every in ((2_000, 1), (20_000, 10)):
        label = f"until final on local: {epochs:,} epochs, a checkpoint at every {every}"
        work, roots = training(epochs, every), epochs // every + 2
        yield row(
            f"{label}, from the first epoch", "s", [under_way(work, roots)], bar="value <= 30"
        )
        yield row(f"{label}, from the fleet's start", "s", [found(work, roots)], bar="value <= 60")
    label = "until final on local: 200 trainers of 50 epochs at once, from the last event"
    yield row(label, "s", [crowd(200, 50)], bar="value <= 15")


def training(epochs: int, every: int = 0) -> Callable[[Path], None]:
    """Trains in a folder; a root before, after and at every so many epochs."""
    options = {"store_epoch_checkpoints": bool(every), "checkpoint_every": every or 1}
    config = {"blockchain": {"enabled": True, "storage_options": options}}

    def train(folder: Path) -> None:
        tracker = ProvenanceTracker(folder, config)
        tracker.store_merkle_on_blockchain_before_training({})
        for epoch in range(1, epochs + 1):
            tracker.track_epoch(epoch, METRICS)
        tracker.store_merkle_on_blockchain_after_training({})

    return train


def until_final(folder: Path, roots: int, begun: float) -> float:
    """Seconds from ``begun`` until so many roots have their receipts."""
    database = reading.sqlite_path(load(None, folder).database_url)
    while time.monotonic() - begun < LIMIT_S:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            (count,) = db.execute("SELECT count(*) FROM receipts").fetchone()
        if count == roots:
            return time.monotonic() - begun
        time.sleep(0.1)
    raise SystemExit(f"{count} of {roots} roots are final after {LIMIT_S:.0f} s")


def under_way(train: Callable[[Path], None], roots: int) -> float:
    """With a fleet that runs already."""
    with tempfile.TemporaryDirectory(prefix="home-") as name, fleet(Path(name)):
        begun = time.monotonic()
        train(Path(name))
        return until_final(Path(name), roots, begun)


def found(train: Callable[[Path], None], roots: int) -> float:
    """With a fleet that starts when the training is over."""
    with tempfile.TemporaryDirectory(prefix="home-") as name:
        train(Path(name))
        begun = time.monotonic()
        with fleet(Path(name)):
            return until_final(Path(name), roots, begun)


def crowd(trainers: int, epochs: int) -> float:
    """Many trainers at once."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="home-") as name, fleet(Path(name)):
        train = training(epochs)
        processes = [fork.Process(target=train, args=(Path(name),)) for _ in range(trainers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return until_final(Path(name), 2 * trainers, time.monotonic())
