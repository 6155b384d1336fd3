"""scikit-learn: one line records a fit, its data, its score and the fitted estimator.

python examples/sklearn_fit.py [BASE_DIR]
"""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

from provenance.integrations.sklearn import record_fit


def main(base_dir: str = "artifacts") -> None:
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16.0, labels, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2)
    record_fit(search, x[:400], y[:400], test=(x_test, y_test), name="digits", base_dir=base_dir)
    print(search.best_params_)


if __name__ == "__main__":
    main(*sys.argv[1:])
