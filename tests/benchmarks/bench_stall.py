"""How long ``track_epoch(model=...)`` holds a training up, and what it costs in wall and memory.

    python tests/benchmarks/bench_stall.py [--sizes 10,100] [--steps 10] [--epochs 5] [--json]

A multilayer perceptron is trained for epochs of a few steps, each followed by ``track_epoch`` with
its weights. The stall is the time inside that call, and inside the next step's wait for the hash.
The wall is that of the epochs with their weights beside epochs without, in turns. Memory is what
the process gains over all epochs, beside the model, its gradients and its optimizer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from provenance.tracker import ProvenanceTracker

MODES: dict[str, tuple[str | None, float | None, float]] = {
    "stall-free": ("stall-free", 0.5, 64.0), "copy": ("copy", None, 64.0),
}  # fmt: skip
"""By mode: what ``track_epoch`` is told, the bar in ms, the bar in MB beside one arena."""


def perceptron(million: int) -> Any:
    """About so many parameters in ten layers."""
    width = round((million * 1e5) ** 0.5)
    layers = [
        torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU()) for _ in range(10)
    ]
    return torch.nn.Sequential(*layers)


class Training:
    """A model and its optimizer."""

    def __init__(self, million: int) -> None:
        self.model = perceptron(million)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self.batch = torch.randn(32, self.model[0][0].in_features)

    def step(self) -> None:
        """Forward, backward, step."""
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()


def measure(million: int, mode: str | None, steps: int, epochs: int, folder: Path) -> Any:
    """Median stall in ms, added wall as a share, memory gained in MB, parameters."""
    training = Training(million)
    tracker = ProvenanceTracker(folder)
    tracker.track_model(training.model)
    waited = 0.0
    settle = tracker._snapshots.settle

    def timed() -> None:
        nonlocal waited
        begun = time.perf_counter()
        settle()
        waited += time.perf_counter() - begun

    tracker._snapshots.settle = timed  # type: ignore[method-assign]
    for _ in range(3):
        training.step()
    tracker.track_epoch(0, {"loss": 0.0}, model=training.model, weights=mode)
    training.step()
    process = psutil.Process()
    before = process.memory_info().rss
    peak, stalls = before, []
    walls: dict[bool, list[float]] = {True: [], False: []}
    for epoch in range(1, 2 * epochs + 1):
        tracked = bool(epoch % 2)
        waited = 0.0
        begun = time.perf_counter()
        if tracked:
            tracker.track_epoch(epoch, {"loss": 0.0}, model=training.model, weights=mode)
            stall = time.perf_counter() - begun
        for _ in range(steps):
            training.step()
            peak = max(peak, process.memory_info().rss)
        walls[tracked].append(time.perf_counter() - begun)
        if tracked:
            stalls.append(stall + waited)
    tracker.close()
    added = statistics.median(walls[True]) / statistics.median(walls[False]) - 1
    parameters = sum(p.numel() for p in training.model.parameters())
    return statistics.median(stalls) * 1e3, added, (peak - before) / 1e6, parameters


def rows(sizes: list[int], steps: int, epochs: int) -> Iterator[dict[str, Any]]:
    """One measurement each: name, value, unit, bar and whether it is met."""
    for million in sizes:
        for name, (mode, bar_ms, bar_mb) in MODES.items():
            with tempfile.TemporaryDirectory() as folder:
                stall, added, memory, parameters = measure(
                    million, mode, steps, epochs, Path(folder)
                )
            where = f"{name}, {parameters / 1e6:.0f}M parameters"
            for what, value, unit, bar in (
                ("stall", stall, "ms", bar_ms),
                (
                    f"added wall, {steps} steps an epoch",
                    100 * added,
                    "%",
                    None if bar_ms is None else 0.2,
                ),
                ("memory", memory, "MB", bar_mb),
            ):
                met = bar is None or value <= bar
                yield {
                    "name": f"{what}, {where}",
                    "value": value,
                    "unit": unit,
                    "bar": bar,
                    "met": met,
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100", help="millions of parameters")
    parser.add_argument("--steps", type=int, default=10, help="steps in an epoch")
    parser.add_argument("--epochs", type=int, default=5, help="tracked epochs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = []
    sizes = [int(size) for size in arguments.sizes.split(",")]
    for row in rows(sizes, arguments.steps, arguments.epochs):
        results.append(row)
        if not arguments.json:
            bar = "no bar" if row["bar"] is None else f"bar {row['bar']} {row['unit']} "
            met = "" if row["bar"] is None else "met" if row["met"] else "MISSED"
            print(f"{row['name']:<60} {row['value']:9.3f} {row['unit']:<3} {bar}{met}", flush=True)
    if arguments.json:
        print(json.dumps({"bench": "stall", "results": results}))


if __name__ == "__main__":
    main()
