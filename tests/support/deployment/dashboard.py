"""A deployment with a few recorded runs, one of them hostile, and ``provenance serve`` on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from provenance import ProvenanceTracker
from provenance.app.processes import free_ports
from tests.support.home import brought_home

HOSTILE = "<script>alert('name')</script>\"'&\u202e\n"
"""A name, a tag, a note, a metric: whatever a trainer may write."""
WEIGHTS = {"w": np.ones((3, 2), np.float32)}


def trained(base: Path) -> list[UUID]:
    """Two runs: one, and one that continues it."""
    labels: Any = {"group": "sweep 7", "tags": ["baseline", "cifar"]}
    with ProvenanceTracker(base, name="resnet baseline", **labels) as parent:
        parent.track_data((np.ones((8, 2)), np.arange(8)), np.ones((3, 2)))
        parent.track_model(WEIGHTS)
        parent.store_merkle_on_blockchain_before_training({"lr": 0.1, "optimizer": {"name": "sgd"}})
        for epoch in range(1, 25):
            values = {"train_loss": 2.3 / epoch, "val_loss": 2.4 / epoch, "accuracy": 1 - 1 / epoch}
            parent.track_epoch(epoch, values, WEIGHTS)
        parent.store_merkle_on_blockchain_after_training({"accuracy": 0.94})
    child = ProvenanceTracker(base, parent=parent, name="resnet fine tune", tags=["cifar"])
    child.track_model(WEIGHTS)
    child.store_merkle_on_blockchain_before_training({"lr": 0.01, "optimizer": {"name": "sgd"}})
    for epoch in range(1, 13):
        budget = {"epsilon": epoch / 4, "delta": 1e-5}
        child.track_epoch(epoch, {"train_loss": 0.4 / epoch, "accuracy": 0.95}, privacy=budget)
    child.store_merkle_on_blockchain_after_training({"accuracy": 0.951})
    return [UUID(parent.run_id), UUID(child.run_id)]


def recorded(base: Path) -> list[UUID]:
    """Three runs, oldest first: those of :func:`trained`, and one that nobody may believe."""
    runs = trained(base)
    own: Any = {"name": HOSTILE, "tags": [HOSTILE], "group": HOSTILE, "notes": HOSTILE}
    with ProvenanceTracker(base, **own) as hostile:
        hostile.track_epoch(1, {HOSTILE: 1.0, "x" * 400: "y" * 400})
    runs.append(UUID(hostile.run_id))
    brought_home(base)
    return runs


@contextmanager
def served(base: Path, *arguments: str, before: str = "") -> Iterator[str]:
    """The URL of a server on a free port, without the last slash; ``before`` runs in it first."""
    (port,) = free_ports(1)
    code = f"import sys; from provenance import cli; {before or 'pass'}; sys.exit(cli.main())"
    words = ["serve", "--json", "--base-dir", str(base), "--port", str(port), *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told = ""
    while not told.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
        told += line
    try:
        yield str(json.loads(told)["url"]).rstrip("/")
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert said == "", said
