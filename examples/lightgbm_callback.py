"""LightGBM: a callback records data, parameters, evaluations and the booster.

python examples/lightgbm_callback.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import lightgbm
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from provenance.integrations.lightgbm import ProvenanceCallback


def main(base_dir: str = "artifacts") -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    train, test = lightgbm.Dataset(x, y), lightgbm.Dataset(x_test, y_test)
    recording = ProvenanceCallback(train=(x, y), test=(x_test, y_test), base_dir=base_dir)
    lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        train,
        num_boost_round=50,
        valid_sets=[test],
        callbacks=[lightgbm.early_stopping(3, verbose=False), recording],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
