"""Opacus: the engine with its delta is an epoch's privacy budget.

python examples/opacus_privacy.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import torch
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from provenance import ProvenanceTracker


def main(base_dir: str = "artifacts") -> None:
    x = torch.randn(256, 8)
    data, model = TensorDataset(x, x.sum(1, keepdim=True)), torch.nn.Linear(8, 1)
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=DataLoader(data, 32), noise_multiplier=1.1, max_grad_norm=1.0,
    )  # fmt: skip
    with ProvenanceTracker(base_dir) as tracker:
        tracker.track_data(data)
        tracker.track_model(model)
        for epoch in range(2):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
            tracker.track_epoch(epoch, {"loss": loss.item()}, privacy=(engine, 1e-4))
        tracker.store_merkle_on_blockchain_after_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
