"""Train a small classifier, record it, and save it: python train.py MODEL_FOLDER [CONFIG]"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from provenance import ProvenanceTracker

EPOCHS = 3


def main(folder: str, config: str | None = None) -> None:
    chance = np.random.default_rng()
    x = chance.normal(size=(200, 4))
    y = (x @ [1.0, -2.0, 0.5, 1.5] > 0).astype("float64")
    weights = {"weight": chance.normal(size=4)}
    tracker = ProvenanceTracker(os.environ.get("PROVENANCE_BASE_DIR", "artifacts"), config)
    tracker.track_data((x[:160], y[:160]), (x[160:], y[160:]))
    tracker.track_model(weights)
    tracker.store_merkle_on_blockchain_before_training({"epochs": EPOCHS})
    for epoch in range(1, EPOCHS + 1):
        guess = 1 / (1 + np.exp(-x[:160] @ weights["weight"]))
        weights["weight"] -= 0.05 * x[:160].T @ (guess - y[:160]) / 160
        accuracy = float(((x[160:] @ weights["weight"] > 0) == y[160:]).mean())
        tracker.track_epoch(epoch, {"accuracy": accuracy}, model=weights)
    tracker.store_merkle_on_blockchain_after_training({"accuracy": accuracy})
    Path(folder).mkdir()
    save_file(weights, Path(folder) / "model.safetensors")
    print(tracker.run_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
