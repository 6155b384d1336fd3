"""Deployments with long runs or many, on the local network, that several benchmarks measure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from provenance.bootstrap import sending
from provenance.formats.record import Kind
from provenance.settings import Settings, load
from tests.support.runs import run_of
from tests.support.verify_world import (
    KEY,
    RUN,
    Fields,
    World,
    before,
    ending,
    metrics,
    seal,
    story,
)  # fmt: skip

FIRST = 0x01890A5DAC96
PART = 1000
"""Events in a batch."""


def local_world(folder: Path, config: object = None) -> tuple[World, Settings]:
    """A deployment in ``folder``: an SQLite file if not configured otherwise, the local network."""
    settings = load(config, folder / "artifacts")
    world = World(names=())
    world.store.close()
    store = sending.open_store(settings)
    world.store = store  # type: ignore[assignment]  # SqlStore, behind its interface
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)  # type: ignore[assignment]  # as above: behind its interface
    return world, settings


def epoch_events(epoch: int, checkpoint: bool) -> list[Fields]:
    """Metrics and a state; a checkpoint's mark too."""
    state: Fields = (Kind.STATE, epoch, {"algorithm": "blake3", "root": f"mth-sha256:{epoch}"})
    return [metrics(epoch), state, *([seal("checkpoint", epoch)] if checkpoint else [])]


def run_events(epochs: int, checkpoints: int) -> list[Fields]:
    """A run that goes on, checkpoints spread evenly over it."""
    events = before()
    for epoch in range(1, epochs + 1):
        due = bool(checkpoints) and not epoch % (epochs // checkpoints)
        events += epoch_events(epoch, due)
    return events


def ingest_run(world: World, events: Sequence[Fields], run: UUID = RUN) -> None:
    """All of it, in batches."""
    for at in range(0, len(events), PART):
        world.ingest(world.batch(events[at : at + PART], run=run, first=at))


def long_run(epochs: int, checkpoints: int) -> World:
    """A finished run, in memory, that no network has."""
    world = World(names=())
    ingest_run(world, ending(run_events(epochs, checkpoints)))
    return world


def database(folder: Path, runs: int, epochs: int) -> Settings:
    """A deployment with ``runs`` finished runs, final on the local network."""
    world, settings = local_world(folder)
    for at in range(runs):
        world.ingest(world.batch(story(epochs), run=run_of(FIRST + at, KEY)))
    world.anchor()
    world.store.close()
    return settings


def _own_redis(base: Path, config: Path) -> Path:
    """A copy of a configuration that brings its own Redis."""
    document = json.loads(config.read_bytes())
    document.pop("redis_url", None)
    document.pop("database_url", None)
    copy = base / "config.json"
    copy.write_text(json.dumps(document))
    return copy


@contextmanager
def fleet(
    base: Path, config: Path | None = None, database_url: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """``provenance up`` with its own Redis, and its services' process ids; ``database_url`` where
    the database is not the SQLite file of ``base``."""
    arguments = ["--config", str(_own_redis(base, config))] if config is not None else []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
    if database_url is not None:
        environment["PROVENANCE_DATABASE_URL"] = database_url
    process = subprocess.Popen(
        [
            sys.executable, "-m", "provenance.cli", "up", "--json",
            "--base-dir", str(base), *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        if not line:
            _, problem = process.communicate()
            raise SystemExit(f"provenance up ended: {problem.strip()}")
        text += line
    told = json.loads(text)
    if "error" in told:
        raise SystemExit(f"provenance up: {told['error']}")
    try:
        yield process, told["services"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
