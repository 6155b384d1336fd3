"""Accelerate: `log_with` takes the tracker; what is logged with an epoch is an epoch.

python examples/accelerate_loop.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from provenance.integrations.accelerate import AccelerateTracker


def main(base_dir: str = "artifacts") -> None:
    x = torch.randn(256, 8)
    data, model = TensorDataset(x, x.sum(1, keepdim=True)), torch.nn.Linear(8, 1)
    recording = AccelerateTracker(model=model, train=data, base_dir=base_dir)
    accelerator = Accelerator(log_with=recording)
    accelerator.init_trackers("regression", config={"lr": 0.1})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, 32))
    for epoch in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
        accelerator.log({"epoch": epoch, "loss": loss.item()})
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
