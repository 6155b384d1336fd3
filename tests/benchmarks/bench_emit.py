"""Cost of ``track_epoch`` to a training loop, beside what people use instead.

    python tests/benchmarks/bench_emit.py [--redis-url URL] [--count N] [--dir DIR] [--json]

In one process and in turns, so that each sees the same machine: ``ProvenanceTracker.track_epoch``
with eight metrics and a bare ``os.write`` of as many bytes, hot, after 300 us of work and after
1 ms of sleep; at epoch 1,000,000 beside epoch 1,000; with a Redis that refuses or hangs beside no
Redis; and, where they are at hand, redis-py XADD (with a URL), Celery ``send_task`` (with a URL)
and MLflow ``log_metrics``. Prints p50 and p99 in microseconds, the ratio of each row to what it
is beside, and whether it keeps the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
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

METRICS = {f"metric_{n}": 0.123456 + n for n in range(8)}
Call = Callable[[], object]


def nothing() -> None:
    """Hot: one call after the other."""


def spin() -> None:
    """300 us of work between two calls."""
    until = time.perf_counter_ns() + 300_000
    while time.perf_counter_ns() < until:
        pass


def doze() -> None:
    """1 ms of sleep between two calls."""
    time.sleep(0.001)


PACINGS: dict[str, tuple[Call, int]] = {
    "hot": (nothing, 1), "300 us spin": (spin, 10), "1 ms sleep": (doze, 20),
}  # fmt: skip
"""What happens between two calls, and by how much fewer of them there are."""


def percentiles(
    calls: dict[str, Call], pace: Call, times: int, burst: int = 1
) -> dict[str, tuple[float, float]]:
    """p50 and p99 in microseconds of calls that take turns, each ``burst`` times."""
    clock = time.perf_counter_ns
    taken: dict[str, list[int]] = {name: [] for name in calls}
    turns = [(call, taken[name].append) for name, call in calls.items()]
    for _ in range(times // burst):
        for call, note in turns:
            for _ in range(burst):
                pace()
                begun = clock()
                call()
                note(clock() - begun)
    result = {}
    for name, samples in taken.items():
        samples.sort()
        result[name] = samples[len(samples) // 2] / 1e3, samples[len(samples) * 99 // 100] / 1e3
    return result


def tracking(folder: Path, config: dict[str, Any] | None = None, epochs: int = 1_000) -> Call:
    """Calls ``track_epoch`` for the next epoch of a run that has had ``epochs``."""
    tracker = ProvenanceTracker(folder, config)
    numbers = count(1)
    for _ in range(epochs):
        tracker.track_epoch(next(numbers), METRICS)
    return lambda: tracker.track_epoch(next(numbers), METRICS)


def bare_write(folder: Path, tracked: Call) -> Call:
    """``os.write`` of as many bytes as ``tracked`` writes for one epoch."""
    (segment,) = folder.glob("spool/*/*.seg")
    before = segment.stat().st_size
    tracked()
    data = os.urandom(segment.stat().st_size - before)
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda: os.write(descriptor, data)


def peers(folder: Path, redis_url: str | None) -> dict[str, tuple[Call, float]]:
    """What else an epoch's metrics could go to, and the bar for its p50 over ours."""
    found: dict[str, tuple[Call, float]] = {}
    if redis_url:
        import redis

        client: Any = redis.Redis.from_url(redis_url)
        key, packed = f"bench-emit-{os.getpid()}", json.dumps(METRICS).encode()
        client.xadd(key, {"b": packed})
        client.expire(key, 600)
        found["redis-py XADD"] = (lambda: client.xadd(key, {"b": packed}, maxlen=100), 10.0)
    if redis_url and find_spec("celery"):
        from celery import Celery

        app = Celery("bench", broker=redis_url, set_as_current=False)
        queue = f"bench-emit-{os.getpid()}-queue"
        found["Celery send_task"] = (
            lambda: app.send_task("nobody", args=[METRICS], queue=queue, ignore_result=True), 60.0,
        )  # fmt: skip
    if find_spec("mlflow"):
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.start_run()
        steps = count()
        found["MLflow log_metrics"] = (lambda: mlflow.log_metrics(METRICS, step=next(steps)), 60.0)
    return found


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


def rows(folder: Path, redis_url: str | None, times: int) -> Iterator[dict[str, Any]]:
    """One measurement each: name, value and peer in microseconds, ratio, bar, met."""

    def row(name: str, value: float, peer: str, peer_value: float, bar: float) -> dict[str, Any]:
        ratio = value / peer_value
        return {
            "name": name, "value": value, "unit": "us", "peer": peer, "peer_value": peer_value,
            "ratio": round(ratio, 2), "bar": bar, "met": ratio <= bar,
        }  # fmt: skip

    ours = tracking(folder)
    calls = {"track_epoch": ours, "os.write": bare_write(folder, ours)}
    for pacing, (pace, fewer) in PACINGS.items():
        found = percentiles(calls, pace, times // fewer)
        for index, part in enumerate(("p50", "p99")):
            mine, theirs = (found[name][index] for name in calls)
            yield row(f"track_epoch, {pacing}, {part}", mine, "os.write", theirs, 5.0)

    late = tracking(folder / "late", epochs=1_000_000)
    found = percentiles({"late": late, "early": ours}, nothing, times)
    yield row("epoch 1,000,000, p50", found["late"][0], "epoch 1,000", found["early"][0], 1.1)

    for name, answers in (("refused", False), ("hung", True)):
        with redis_that(folder / name, answers) as config:
            cut_off = tracking(folder / name, config)
            found = percentiles({"cut off": cut_off, "alone": ours}, nothing, times)
            yield row(f"Redis {name}, p50", found["cut off"][0], "no Redis", found["alone"][0], 1.1)

    for name, (call, bar) in peers(folder, redis_url).items():
        found = percentiles({"track_epoch": ours, name: call}, nothing, times // 50, burst=100)
        mine, theirs = found["track_epoch"][0], found[name][0]
        yield row("track_epoch, p50", mine, name, theirs, 1 / bar)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", help="measure XADD and Celery there too")
    parser.add_argument("--count", type=int, default=100_000, help="calls of each, hot")
    parser.add_argument("--dir", type=Path, help="disk to measure on; a temporary folder if not")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.dir))
    results = []
    try:
        for row in rows(folder, arguments.redis_url, arguments.count):
            results.append(row)
            if not arguments.json:
                met = "met" if row["met"] else "MISSED"
                print(
                    f"{row['name']:<30} {row['value']:9.2f} us   {row['peer']:<18} "
                    f"{row['peer_value']:9.2f} us   ratio {row['ratio']:6.2f}   "
                    f"bar {row['bar']:5.3g} {met}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps({"bench": "emit", "results": results}))


if __name__ == "__main__":
    main()
