"""Speed of verification offline: one bundle, how it grows, and all runs of a database.

    python tests/benchmarks/bench_verify.py [--epochs 100] [--runs 300] [--repeat 5] [--json]

Beside each stands a peer from the same run of this program: plain SHA-256 over the bundle's
files, and over the rows of the database. Imports are not counted. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from provenance.app.verify_all import verify_all
from provenance.bootstrap import reading, sending
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.formats.record import Kind
from provenance.settings import Settings, load
from provenance.verify.verifier import verify
from tests.support.runs import run_of
from tests.support.verify_world import KEY, World, before, ending, finished, metrics, seal, story

FIRST = 0x01890A5DAC96
GROWTH = ((1_000, 0), (10_000, 0), (500, 50), (500, 500))
"""Epochs, and checkpoints among them."""


def fastest(repeat: int, action: Callable[[], object]) -> float:
    """Milliseconds of the fastest of ``repeat`` runs."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def measure_bundle(folder: Path, epochs: int, repeat: int) -> dict[str, float]:
    """Milliseconds by what was done to a bundle of ``epochs`` epochs, folder and zip."""
    evidence = finished(epochs).evidence()
    bundle = write_bundle(evidence, folder / "bundle")
    zipped = write_bundle(evidence, folder / "bundle.zip")

    def plain() -> None:
        for path in bundle.rglob("*"):
            if path.is_file():
                hashlib.sha256(path.read_bytes()).digest()

    def whole(place: Path) -> None:
        report = verify(read_bundle(place), None, now=0.0)
        assert report.outcome == "consistent", report.findings

    return {
        "files": sum(path.is_file() for path in bundle.rglob("*")),
        "plain sha256 over the files": fastest(repeat, plain),
        "read a folder": fastest(repeat, lambda: read_bundle(bundle)),
        "read and verify a folder": fastest(repeat, lambda: whole(bundle)),
        "read and verify a zip": fastest(repeat, lambda: whole(zipped)),
    }


def long_run(epochs: int, checkpoints: int) -> World:
    """A finished run; metrics and a state at each epoch."""
    events = before()
    for epoch in range(1, epochs + 1):
        root = {"algorithm": "blake3", "root": f"mth-sha256:{epoch}"}
        events += [metrics(epoch), (Kind.STATE, epoch, root)]
        if checkpoints and not epoch % (epochs // checkpoints):
            events.append(seal("checkpoint", epoch))
    world, events = World(), ending(events)
    for at in range(0, len(events), 1000):
        world.ingest(world.batch(events[at : at + 1000], first=at))
    world.anchor()
    return world


def measure_long(world: World, place: Path) -> dict[str, float]:
    """CPU seconds and megabytes of one run: from the database, and of its bundle."""
    times = {}
    for name, action in (
        ("verify from the database", lambda: verify(world.evidence(), None, now=0.0).findings),
        ("write a folder", lambda: write_bundle(world.evidence(), place) != place),
        ("read and verify a folder", lambda: verify(read_bundle(place), None, now=0.0).findings),
    ):
        start = time.process_time()
        assert not action()
        times[name] = time.process_time() - start
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return times | {"MB": size / 1e6}


def measure_growth(folder: Path) -> dict[str, dict[str, float]]:
    """As :func:`measure_long`, by size of the run."""
    return {
        f"{epochs} epochs, {checkpoints} checkpoints": measure_long(
            long_run(epochs, checkpoints), folder / f"{epochs}-{checkpoints}"
        )
        for epochs, checkpoints in GROWTH
    }


def database(folder: Path, runs: int, epochs: int) -> Settings:
    """A deployment with ``runs`` finished runs on the local network."""
    settings = load(None, folder / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    for at in range(runs):
        world.ingest(world.batch(story(epochs), run=run_of(FIRST + at, KEY)))
    world.anchor()
    world.store.close()
    return settings


def measure_all(folder: Path, runs: int, epochs: int, repeat: int) -> dict[str, float]:
    """Milliseconds per run of ``verify --all``."""
    settings = database(folder, runs, epochs)
    file = reading.sqlite_path(settings.database_url)

    def plain() -> None:
        with closing(sqlite3.connect(str(file))) as db:
            for table in ("records", "receipts", "ledger_entries", "heads", "anchors"):
                for row in db.execute(f"SELECT * FROM {table}"):
                    hashlib.sha256(repr(row).encode()).digest()

    def everything() -> None:
        with verify_all(settings) as found:
            assert all(result.outcome == "verified" for result in found)

    times = {"plain sha256 over the rows": fastest(repeat, plain)}
    times["verify --all"] = fastest(repeat, everything)
    return {name: value / runs for name, value in times.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100, help="epochs of the bundle's run")
    parser.add_argument("--runs", type=int, default=300, help="runs of 3 epochs in the database")
    parser.add_argument("--repeat", type=int, default=5, help="runs, of which the fastest counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = measure_bundle(folder, options.epochs, options.repeat)
        growth = measure_growth(folder)
        short = measure_all(folder / "short", options.runs, 3, options.repeat)
        long = measure_all(folder / "long", max(1, options.runs // 20), 100, options.repeat)
    whole, plain = bundle["read and verify a folder"], bundle["plain sha256 over the files"]
    ratios = {
        "bundle to plain sha256": whole / plain,
    }
    ones = list(growth.items())
    for (small, few), (large, many) in ((ones[0], ones[1]), (ones[2], ones[3])):
        for name, value in many.items():
            ratios[f"{name}, {large} to {small}"] = value / few[name]
    if options.json:
        document: dict[str, object] = {
            "benchmark": "verify",
            "epochs": options.epochs,
            "runs": options.runs,
            "bundle_ms": bundle,
            "growth": growth,
            "all_3_epochs_ms_per_run": short,
            "all_100_epochs_ms_per_run": long,
            "ratios": ratios,
            "cpus": os.cpu_count(),
        }
        print(
            json.dumps(json.loads(json.dumps(document), parse_float=lambda t: round(float(t), 3)))
        )
        return 0
    print(f"a bundle of {options.epochs} epochs, {bundle.pop('files'):.0f} files")
    for name, value in bundle.items():
        print(f"  {name:<34}{value:9.1f} ms")
    for size, values in growth.items():
        listed = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        print(f"{size}, CPU seconds: {listed}")
    for epochs, times in ((3, short), (100, long)):
        print(f"all runs of a database, {epochs} epochs each, per run")
        for name, value in times.items():
            print(f"  {name:<34}{value:9.2f} ms")
    for name, value in ratios.items():
        print(f"{name}: {value:.1f}x on {os.cpu_count()} CPUs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
