"""Lightning: a logger records data, weights, hyperparameters and metrics of each fit.

python examples/lightning_logger.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from provenance.integrations.lightning import ProvenanceLogger


class Regression(lightning.LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"])


def main(base_dir: str = "artifacts") -> None:
    data = DataLoader(TensorDataset(torch.randn(256, 8), torch.randn(256, 1)), 32)
    trainer = lightning.Trainer(max_epochs=3, logger=ProvenanceLogger(base_dir=base_dir))
    trainer.fit(Regression(), data)


if __name__ == "__main__":
    main(*sys.argv[1:])
