"""Calls that take turns, and a Redis of their own for benchmarks that need one."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from provenance_devnet import Devnet

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[[], object]


def seconds(action: Call) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def in_turns(
    calls: Mapping[str, Call],
    times: int,
    burst: int = 1,
    pace: Call | None = None,
    scale: float = 1,
) -> dict[str, list[float]]:
    """Seconds, times ``scale``, of each call, in the order in which they were taken.

    Args:
        calls: By name; they take turns, so that each sees the same machine.
        times: How often each is called.
        burst: How often one is called in its turn.
        pace: What is done before each call; its time does not count.
        scale: 1e6 for microseconds.
    """  # fmt: skip
    clock = time.perf_counter_ns
    taken: dict[str, list[float]] = {name: [] for name in calls}
    turns = [(call, taken[name].append) for name, call in calls.items()]
    for _ in range(max(1, times // burst)):
        for call, note in turns:
            for _ in range(burst):
                if pace is not None:
                    pace()
                begun = clock()
                call()
                note((clock() - begun) * 1e-9)
    return {name: [one * scale for one in samples] for name, samples in taken.items()}


@contextlib.contextmanager
def private_redis() -> Iterator[str | None]:
    """Address of a Redis on a free port, as the tests start it; None where it does not start."""
    with tempfile.TemporaryDirectory(prefix="prov-") as folder:
        devnet = Devnet(ROOT, Path(folder))
        (server,) = devnet.up(["redis"])
        try:
            yield server.url if server.running else None
        finally:
            devnet.down()
