"""XGBoost: a callback records data, configuration, evaluations and the booster.

python examples/xgboost_callback.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from provenance.integrations.xgboost import ProvenanceCallback


def main(base_dir: str = "artifacts") -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    train, test = xgboost.DMatrix(x, label=y), xgboost.DMatrix(x_test, label=y_test)
    xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
        train,
        num_boost_round=10,
        evals=[(train, "train"), (test, "test")],
        verbose_eval=False,
        callbacks=[ProvenanceCallback(train=train, test=test, base_dir=base_dir, name="cancer")],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
