"""Cost of stating one event, beside the ways that people use instead.

    python tests/benchmarks/bench_emit.py [--redis-url URL] [--json]

In one process and in turns, so that each sees the same machine: ``Emitter.emit``, its same
write without a lock, ``json.dumps`` and one write to a log file, and (with a URL) one XADD
round trip. Prints p50 and p99 in microseconds and the ratio of each p50 to that of emit.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from provenance.capture.emitter import Emitter
from provenance.capture.keys import new_run_keys
from provenance.capture.spool_writer import SpoolWriter
from provenance.formats.record import Kind

METRICS = {"loss": 0.123456, "accuracy": 0.98, "val_loss": 0.2, "val_accuracy": 0.97, "lr": 1e-3}
FIELDS = {"metrics": METRICS}
ROUNDS = 20


def cases(folder: Path, redis_url: str | None) -> dict[str, Callable[[], object]]:
    """The contenders by name; each call states one event."""
    run = new_run_keys().run
    emitter = Emitter(folder, run)
    bare = SpoolWriter(folder / str(run), run, os.urandom(16), 1, 2)
    log = os.open(folder / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    lock = threading.RLock()

    def uncontended() -> None:
        with lock:
            pass

    found: dict[str, Callable[[], object]] = {
        "emit": lambda: emitter.emit(Kind.METRICS, 1, FIELDS),
        "write without lock or guard": lambda: bare.append(Kind.METRICS, 1, time.time_ns(), FIELDS),
        "the lock alone": uncontended,
        "json.dumps + write": lambda: os.write(log, json.dumps(FIELDS).encode() + b"\n"),
    }
    if redis_url:
        client: Any = redis.Redis.from_url(redis_url)
        key = f"bench-emit-{os.getpid()}"
        packed = json.dumps(FIELDS).encode()
        client.xadd(key, {"b": packed})
        client.expire(key, 600)
        found["redis XADD"] = lambda: client.xadd(key, {"b": packed}, maxlen=100)
    return found


def measure(contenders: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """Percentiles in microseconds, and ratios to the first contender."""
    samples: dict[str, list[int]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            part = count // ROUNDS // (20 if "redis" in name else 1)
            clock, taken = time.perf_counter_ns, samples[name]
            for _ in range(max(part, 10)):
                begun = clock()
                call()
                taken.append(clock() - begun)
    result: dict[str, dict[str, float]] = {}
    for name, taken in samples.items():
        taken.sort()
        p50, p99 = taken[len(taken) // 2] / 1000, taken[len(taken) * 99 // 100] / 1000
        result[name] = {"p50_us": p50, "p99_us": p99}
    base = result["emit"]["p50_us"]
    for row in result.values():
        row["ratio_to_emit"] = round(row["p50_us"] / base, 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", help="measure one XADD round trip too")
    parser.add_argument("--count", type=int, default=100_000, help="events per contender")
    parser.add_argument("--dir", type=Path, help="disk to measure on; a temporary folder if not")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        result = measure(cases(Path(folder), arguments.redis_url), arguments.count)
    if arguments.json:
        print(json.dumps({"bench": "emit", "results": result}))
        return
    for name, row in result.items():
        print(
            f"{name:<30} p50 {row['p50_us']:8.2f} us   p99 {row['p99_us']:8.2f} us   "
            f"{row['ratio_to_emit']:6.2f} x emit"
        )


if __name__ == "__main__":
    main()
