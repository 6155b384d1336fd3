"""A loop of plain PyTorch: data, model and hyperparameters once, then a line an epoch.

python examples/pytorch_loop.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

from provenance import ProvenanceTracker

EPOCHS, LEARNING_RATE = 3, 0.1


def main(base_dir: str = "artifacts") -> None:
    x = torch.randn(256, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)

    with ProvenanceTracker(base_dir) as tracker:
        tracker.track_data(data)
        tracker.track_model(model)
        tracker.store_merkle_on_blockchain_before_training({"lr": LEARNING_RATE})
        for epoch in range(EPOCHS):
            for inputs, targets in DataLoader(data, 32, shuffle=True):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
            tracker.track_epoch(epoch, {"loss": loss.detach()}, model=model)
        tracker.store_merkle_on_blockchain_after_training({"loss": loss.detach()})


if __name__ == "__main__":
    main(*sys.argv[1:])
