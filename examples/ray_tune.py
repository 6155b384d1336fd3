"""Ray Tune: each trial is a run of the experiment's group.

python examples/ray_tune.py [BASE_DIR]
"""

from __future__ import annotations

import sys
from typing import Any

from ray import tune
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from provenance.integrations.ray import ProvenanceCallback

X, Y = load_digits(return_X_y=True)


def train(config: dict[str, Any]) -> None:
    model = SGDClassifier(alpha=config["alpha"], random_state=0)
    for _ in range(3):
        model.partial_fit(X, Y, classes=range(10))
        tune.report({"score": float(model.score(X, Y))})


def main(base_dir: str = "artifacts") -> None:
    recording = ProvenanceCallback(base_dir=base_dir, train=(X, Y))
    space = {"alpha": tune.grid_search([1e-4, 1e-2])}
    tune.Tuner(train, param_space=space, run_config=tune.RunConfig(callbacks=[recording])).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
