"""Optuna: each trial is a run, with its parameters, reports, weights and end.

python examples/optuna_trials.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from provenance.integrations.optuna import record_trials, recorder_of

X, Y = load_digits(return_X_y=True)


def objective(trial: optuna.Trial) -> float:
    model = SGDClassifier(alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True), random_state=0)
    recorder_of(trial).begin(train=(X, Y), structure=model)
    for epoch in range(1, 4):
        model.partial_fit(X, Y, classes=range(10))
        score = float(model.score(X, Y))
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    recorder_of(trial).weights(epoch, model)
    return score


def main(base_dir: str = "artifacts") -> None:
    study = optuna.create_study(study_name="digits", direction="maximize")
    study.optimize(record_trials(objective, base_dir=base_dir), n_trials=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
