"""One line, and each training of the common frameworks is recorded.

python examples/autolog.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import xgboost
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

import provenance


def main(base_dir: str = "artifacts") -> None:
    provenance.autolog(base_dir=base_dir, group="digits")
    x, y = load_digits(return_X_y=True)
    RandomForestClassifier(10, random_state=0).fit(x, y)
    matrix = xgboost.DMatrix(x, label=y)
    xgboost.train({"objective": "multi:softmax", "num_class": 10, "nthread": 1}, matrix, 3)


if __name__ == "__main__":
    main(*sys.argv[1:])
