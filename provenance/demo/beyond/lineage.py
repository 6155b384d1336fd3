"""A base model, its fine-tune, and an adapter of that: which tensors each has of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.lineage.walk import lineage_graph
from provenance.tracker import ProvenanceTracker

NEEDS = ()
Weights = Mapping[str, Any]


def walk(stage: Stage) -> str:
    """Three short runs, each naming the one before as its parent."""
    chance = np.random.default_rng(0)
    shapes = {"embed.weight": (16, 8), "fc.weight": (8, 8), "fc.bias": (8,), "out.weight": (2, 8)}
    base = {name: chance.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    tuned = {**base, "fc.bias": base["fc.bias"] + 1, "out.weight": base["out.weight"] * 2}
    adapter = {"fc.lora_A.weight": np.ones((2, 8), "f4"), "fc.lora_B.weight": np.ones((8, 2), "f4")}
    first = _trained(stage, base, base, None)
    second = _trained(stage, base, tuned, {"source": first, "role": "fine-tuned"})
    last = _trained(
        stage, tuned | adapter, tuned | adapter, {"source": second, "role": "adapter-of"}
    )
    graph, _ = lineage_graph(stage.settings, last)
    lines = []
    for edge in reversed(graph.edges):
        if edge.tensors is None or edge.matches is not True:
            raise IntegrityError(f"run {edge.child}: {edge.line}")
        lines.append(f"{edge.role} {edge.parent[-8:]}: {edge.tensors.line.rpartition(': ')[2]}")
    if graph.problems or len(lines) != 2:
        raise IntegrityError(f"run {last}: {', '.join(graph.problems) or graph.edges}")
    return f"run {last}: {'; '.join(lines)}"


def _trained(stage: Stage, initial: Weights, weights: Weights, parent: object) -> str:
    """The id of a run of one epoch, sealed."""
    tracker = ProvenanceTracker(stage.settings.base_dir, stage.config, parent=parent)
    tracker.track_model(initial)
    tracker.track_epoch(1, {"loss": 0.5}, model=weights)
    tracker.store_merkle_on_blockchain_after_training({})
    return stage.sealed(tracker.run_id)
