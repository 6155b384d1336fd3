"""Cost of ``track_epoch`` to a training loop, beside what people use instead.

``track_epoch`` with eight metrics takes turns with a bare ``os.write`` of as many bytes, hot,
after 300 us of work and after 1 ms of sleep; at epoch 1,000,000 with epoch 1,000; with a Redis
that refuses or hangs with no Redis; and with other ways to send an epoch's metrics.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from provenance.tracker import ProvenanceTracker
from tests.benchmarks.measure import Call, in_turns, private_redis
from tests.benchmarks.table import Row, missing, row

METRICS = {f"metric_{n}": 0.123456 + n for n in range(8)}


def spin() -> None:
    """300 us of work between two calls."""
    until = time.perf_counter_ns() + 300_000
    while time.perf_counter_ns() < until:
        pass


def doze() -> None:
    """1 ms of sleep between two calls."""
    time.sleep(0.001)


PACKED = "eight metrics are packed (0.5 us) beside one system call; after 300 us of work it is met"
COLD = "a sleep empties the core's caches, of which a call fills more anew than one system call"
PACES: dict[str, tuple[Call | None, int, str]] = {
    "hot": (None, 1, PACKED), "300 us spin": (spin, 10, ""), "1 ms sleep": (doze, 20, COLD),
}  # fmt: skip
"""What happens between two calls, by how much fewer of them there are, why a bar is missed."""


def tracking(folder: Path, config: dict[str, Any] | None = None, epochs: int = 1_000) -> Call:
    """Calls ``track_epoch`` for the next epoch of a run that has had ``epochs``."""
    tracker = ProvenanceTracker(folder, config)
    numbers = count(1)
    for _ in range(epochs):
        tracker.track_epoch(next(numbers), METRICS)
    return lambda: tracker.track_epoch(next(numbers), METRICS)


def bare_write(folder: Path, tracked: Call) -> tuple[Call, int]:
    """``os.write`` of as many bytes as ``tracked`` writes for one epoch, and how many."""
    (segment,) = folder.glob("spool/*/*.seg")
    before = segment.stat().st_size
    tracked()
    data = os.urandom(segment.stat().st_size - before)
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda: os.write(descriptor, data), len(data)


@contextlib.contextmanager
def redis_that(folder: Path, answers: bool) -> Iterator[dict[str, Any]]:
    """Configuration with a Redis that hangs, or refuses; ends the shipper that a tracker starts."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        yield {"redis_url": f"redis://127.0.0.1:{server.getsockname()[1]}/0"}
        lock = folder / "spool" / "shipper.lock"
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(lock.read_text()), signal.SIGTERM)


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory() as name, private_redis() as url:
        yield from track_epoch(Path(name), 20_000 if quick else 100_000)
        yield from aged(Path(name), 100_000 if quick else 1_000_000)
        yield from without_redis(Path(name), 20_000 if quick else 100_000)
        yield from others(Path(name), url, 500 if quick else 5_000)


def track_epoch(folder: Path, times: int) -> Iterator[Row]:
    """Beside ``os.write``."""
    ours = tracking(folder)
    bare, size = bare_write(folder, ours)
    calls = {"track_epoch": ours, "os.write": bare}
    for pacing, (pace, fewer, why) in PACES.items():
        taken = in_turns(calls, times // fewer, pace=pace, scale=1e6)
        for part, quantile in (("p50", 0.5), ("p99", 0.99)):
            peer = ("os.write of as many bytes", taken["os.write"])
            label = f"track_epoch, {pacing}, {part}"
            bar, samples = "ratio <= 5", taken["track_epoch"]
            yield row(label, "us", samples, peer, bar, why, quantile)
    yield row("spool bytes per epoch of 8 metrics", "bytes", [size])


def aged(folder: Path, epochs: int) -> Iterator[Row]:
    """A long run beside a short one; few calls, so that the short one stays short."""
    calls = {"late": tracking(folder / "late", epochs=epochs), "early": tracking(folder / "early")}
    taken = in_turns(calls, 3_000, scale=1e6)
    peer = ("epoch 1,000", taken["early"])
    yield row(f"track_epoch, epoch {epochs:,}, p50", "us", taken["late"], peer, "ratio <= 1.1")


def without_redis(folder: Path, times: int) -> Iterator[Row]:
    """With a Redis that is down, beside none."""
    alone = tracking(folder / "alone")
    for name, answers in (("refused", False), ("hung", True)):
        with redis_that(folder / name, answers) as config:
            calls = {"cut off": tracking(folder / name, config), "alone": alone}
            taken = in_turns(calls, times, scale=1e6)
            peer, label = ("no Redis", taken["alone"]), f"track_epoch, Redis {name}, p50"
            yield row(label, "us", taken["cut off"], peer, "ratio <= 1.1")


def others(folder: Path, redis_url: str | None, times: int) -> Iterator[Row]:
    """What else an epoch's metrics could go to; the ratio is how many times faster we are."""
    ours = tracking(folder / "beside")
    peers: list[tuple[str, int | None, str, Callable[[contextlib.ExitStack], Call | None]]] = [
        ("redis-py XADD", 10, "make devnet", lambda _: xadd(redis_url)),
        ("Celery send_task, Redis broker", 60, "make devnet", lambda _: send_task(redis_url)),
        ("MLflow log_metrics, SQLite", 60, "make bench", lambda end: mlflow(folder, end)),
        ("wandb log, offline", None, "make bench", lambda end: wandb(folder, end)),
    ]  # fmt: skip
    for name, bar, how, get in peers:
        with contextlib.ExitStack() as ending:
            call = get(ending)
            if call is None:
                yield missing(f"{name}, p50", how)
                continue
            taken = in_turns({"track_epoch": ours, name: call}, times, burst=100, scale=1e6)
        peer = ("track_epoch", taken["track_epoch"])
        limit = None if bar is None else f"ratio >= {bar}"
        yield row(f"{name}, p50", "us", taken[name], peer, limit)


def xadd(url: str | None) -> Call | None:
    """One entry of a stream that keeps the last 100."""
    if url is None:
        return None
    import redis

    client: Any = redis.Redis.from_url(url)
    packed = json.dumps(METRICS).encode()
    return lambda: client.xadd("bench-emit", {"b": packed}, maxlen=100)


def send_task(url: str | None) -> Call | None:
    """A task for nobody."""
    if url is None:
        return None
    from celery import Celery

    app = Celery("bench", broker=url, set_as_current=False)
    return lambda: app.send_task("nobody", args=[METRICS], queue="bench", ignore_result=True)


def mlflow(folder: Path, ending: contextlib.ExitStack) -> Call | None:
    """A step of an MLflow run."""
    if find_spec("mlflow") is None:
        return None
    import mlflow as client

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client.start_run()
    ending.callback(client.end_run)
    steps = count()
    return lambda: client.log_metrics(METRICS, step=next(steps))


def wandb(folder: Path, ending: contextlib.ExitStack) -> Call | None:
    """A step of a Weights & Biases run that stays on this disk."""
    if find_spec("wandb") is None:
        return None
    import wandb as client

    run = client.init(mode="offline", dir=folder, settings=client.Settings(silent=True))
    ending.callback(run.finish)
    return lambda: run.log(METRICS)
