"""Runs whose records commit to numbers, brought home in this process."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance import ProvenanceTracker
from provenance.cli import main
from tests.support.home import brought_home

HIDDEN = {"metrics": ["test_accuracy", "epsilon", "samples", "data.train.count"], "scale": 6}
ACCURACY = 0.931234
ROWS = 6_007
DATA = {"x": np.zeros((ROWS, 3), np.uint8), "y": np.arange(ROWS, dtype="<i4")}


def tracker_of(
    base: Path, commitments: dict[str, Any] = HIDDEN, checkpoint_every: int = 1
) -> ProvenanceTracker:
    """A run's tracker."""
    options = {"store_epoch_checkpoints": True, "checkpoint_every": checkpoint_every}
    quiet = {"signal_handlers": False, "announce_run": False}
    blockchain = {"storage_options": options}
    return ProvenanceTracker(base, {"commitments": commitments, "blockchain": blockchain, **quiet})


def recorded(
    base: Path,
    commitments: dict[str, Any] = HIDDEN,
    accuracy: float = ACCURACY,
    again: dict[str, Any] | None = None,
) -> str:
    """A run of two epochs in the spool, each with a checkpoint, or the last with other metrics
    again; its id."""
    tracker = tracker_of(base, commitments, checkpoint_every=1 if again is None else 9)
    tracker.track_data(DATA)
    tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
    for epoch in (1, 2):
        metrics = {"loss": 0.5, "test_accuracy": accuracy - (2 - epoch) * 0.1}
        history = [{"noise_multiplier": 1.1, "sample_rate": 0.01, "steps": 100 * epoch}]
        budget = {"epsilon": 1.512345, "delta": 1e-5, "accountant": "rdp", "history": history}
        tracker.track_epoch(epoch, metrics, privacy=budget)
    if again is not None:
        tracker.track_epoch(2, again)
    tracker.track_step(7, {"test_accuracy": 0.771234, "loss": 0.4})
    tracker.store_merkle_on_blockchain_after_training(
        {"test_accuracy": accuracy, "samples": 60_123, "words": "good"}
    )
    return tracker.run_id


def forms(value: float) -> list[bytes]:
    """How the bytes of a number could stand somewhere."""
    text = repr(value).encode()
    return [text, text[2:], struct.pack(">d", value), struct.pack("<d", value)]


Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with two finished runs of one accuracy."""
    base = tmp_path_factory.mktemp("zk")
    made = recorded(base), recorded(base)
    brought_home(base)
    (base / "runs").write_text("\n".join(made))
    return base


@pytest.fixture
def runs(base: Path) -> list[str]:
    return (base / "runs").read_text().split()


@pytest.fixture
def command(base: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command on that deployment: its exit code and JSON."""

    def run(*words: object) -> tuple[int, dict[str, Any]]:
        code = main([*map(str, words), "--base-dir", str(base), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run
