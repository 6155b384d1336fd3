"""MLflow: its run and this project's name each other, and its metrics are recorded.

python examples/mlflow_run.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import mlflow
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from provenance.integrations.mlflow import record_run


def main(base_dir: str = "artifacts") -> None:
    x, y = load_digits(return_X_y=True)
    model = SGDClassifier(random_state=0)
    with mlflow.start_run():
        mlflow.log_params(model.get_params())
        with record_run(train=(x, y), base_dir=base_dir) as recorder:
            for epoch in range(1, 4):
                model.partial_fit(x, y, classes=range(10))
                mlflow.log_metric("score", float(model.score(x, y)), step=epoch)
            recorder.epoch(epoch, {}, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
