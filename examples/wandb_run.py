"""Weights & Biases: its run and this project's name each other, and what it logs is recorded.

WANDB_MODE=offline python examples/wandb_run.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import wandb
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from provenance.integrations.wandb import record_run


def main(base_dir: str = "artifacts") -> None:
    x, y = load_digits(return_X_y=True)
    model = SGDClassifier(random_state=0)
    with (
        wandb.init(project="digits", config=model.get_params()) as run,
        record_run(run, train=(x, y), base_dir=base_dir) as recorder,
    ):
        for epoch in range(1, 4):
            model.partial_fit(x, y, classes=range(10))
            score = float(model.score(x, y))
            run.log({"score": score})
            recorder.epoch(epoch, {"score": score}, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
