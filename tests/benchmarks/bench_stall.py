"""How long ``track_epoch(model=...)`` holds a training up, and what it costs in wall and memory.

A multilayer perceptron is trained for epochs of a few steps, each followed by ``track_epoch`` with
its weights. The stall is the time inside that call, and inside the next step's wait for the hash.
The wall is that of the epochs with their weights beside epochs without, in turns. Memory is what
the process gains over all epochs, beside the model, its gradients and its optimizer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from provenance.tracker import ProvenanceTracker
from tests.benchmarks.measure import Call, in_turns
from tests.benchmarks.table import Row, missing, row

BARS: dict[str, tuple[str | None, str | None]] = {
    "stall-free": ("value <= 0.5", "ratio <= 1.002"), "copy": (None, None),
}  # fmt: skip
"""By mode: the bars of the stall in ms, and of the wall beside epochs without weights."""
WAITING = (
    "the call takes 0.6 ms; the rest is a step's wait for a hash that shares two cores with it"
)
SHARED = (
    "a step uses both cores, so what the hash of an epoch's weights takes of them is added to it"
)
COPIED = "the call's fixed part is 0.6 ms, and a drawn share of the frozen ones is copied too"
REUSE = {"weight_digests": {"reuse_frozen": True}}


class Measured(NamedTuple):
    """What a training gave."""

    stalls: list[float]
    walls: list[float]
    walls_without: list[float]
    memory: float


def perceptron(million: int, layers: int) -> Any:
    """About so many parameters in so many layers."""
    import torch

    width = round((million * 1e6 / layers) ** 0.5)
    return torch.nn.Sequential(
        *[
            torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU())
            for _ in range(layers)
        ]
    )


class Training:
    """A model and its optimizer."""

    def __init__(self, million: int, layers: int = 10) -> None:
        import torch

        self.model = perceptron(million, layers)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self.batch = torch.randn(32, self.model[0][0].in_features)

    def step(self) -> None:
        """Forward, backward, step."""
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()


def measure(million: int, mode: str, steps: int, epochs: int, folder: Path) -> Measured:
    """Stalls in ms, walls in ms of epochs with weights and of those without, MB gained."""
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

    tracker._snapshots.settle = timed  # type: ignore[method-assign]  # timed in place
    for _ in range(3):
        training.step()
    tracker.track_epoch(0, {"loss": 0.0}, model=training.model, weights=mode)
    training.step()
    process = psutil.Process()
    peak = before = process.memory_info().rss
    stalls: list[float] = []
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
        walls[tracked].append((time.perf_counter() - begun) * 1e3)
        if tracked:
            stalls.append((stall + waited) * 1e3)
    tracker.close()
    return Measured(stalls, walls[True], walls[False], (peak - before) / 1e6)


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    if not find_spec("torch"):
        yield missing("stall", "pip install torch")
        return
    steps, epochs = (3, 5) if quick else (10, 5)
    for million in (2,) if quick else (10, 100):
        for mode, (stall, wall) in BARS.items():
            with tempfile.TemporaryDirectory() as folder:
                found = measure(million, mode, steps, epochs, Path(folder))
            label = f"{mode}, {million}M parameters"
            yield row(f"stall per epoch, {label}", "ms", found.stalls, bar=stall, reason=WAITING)
            peer = ("without weights", found.walls_without)
            yield row(f"epoch of {steps} steps, {label}", "ms", found.walls, peer, wall, SHARED)
            yield row(f"memory gained, {label}", "MB", [found.memory], bar="value <= 64")
        yield frozen_row(million, 3 * epochs)


def frozen_row(million: int, epochs: int) -> Row:
    """Time in ``track_epoch`` of a model of which the last of 20 layers is trained, with and
    without the digests of the others from before."""
    training = Training(million, layers=20)
    training.model[:-1].requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        trackers = {
            name: ProvenanceTracker(Path(folder, name), config)
            for name, config in {"reused": REUSE, "read": None}.items()
        }
        numbers = {name: count() for name in trackers}

        def track(name: str) -> None:
            epoch = next(numbers[name])
            trackers[name].track_epoch(epoch, {}, model=training.model, weights="copy")

        def pace() -> None:
            for tracker in trackers.values():
                tracker._snapshots.drain()
            training.step()

        calls: dict[str, Call] = {name: partial(track, name) for name in trackers}
        in_turns(calls, 2, pace=pace)
        taken = in_turns(calls, epochs, pace=pace, scale=1e3)
        for tracker in trackers.values():
            tracker.close()
    name = f"stall per epoch, copy, {million}M parameters, 95 % frozen, reused"
    peer = ("all read", taken["read"])
    return row(name, "ms", taken["reused"], peer, "ratio <= 0.25", COPIED)
