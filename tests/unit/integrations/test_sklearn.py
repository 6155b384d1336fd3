"""scikit-learn: real fits, and what a run says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.integrations.sklearn import record_fit
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

FACTORY = HashFactory("blake3")
X = np.random.default_rng(0).normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture(autouse=True)
def _installed() -> None:
    framework("sklearn", "sklearn")


def test_a_fit_is_recorded_from_its_data_to_its_score(tmp_path: Path) -> None:
    from sklearn.svm import SVC

    model = record_fit(SVC(C=2.5), X, Y, test=(X[:9], Y[:9]), base_dir=tmp_path, name="svc")
    events = spooled(tmp_path)
    assert kinds(events) == [
        "data.train", "data.test", "model.architecture", "config", "run.seal",
        "metrics", "state", "results", "run.seal", "run.end",
    ]  # fmt: skip
    (train,), (test,) = bodies(events, Kind.DATA_TRAIN), bodies(events, Kind.DATA_TEST)
    assert train["root"] == dataset_digest((X, Y), FACTORY).as_fields()["root"]
    assert test["root"] == dataset_digest((X[:9], Y[:9]), FACTORY).as_fields()["root"]
    (config,) = bodies(events, Kind.CONFIG)
    assert config["name"] == "svc"
    assert config["training"]["estimator"] == "sklearn.svm._classes.SVC"
    assert config["training"]["parameters"]["C"] == 2.5
    assert not {"not_recorded", "fit"} & config["training"].keys()
    score = model.score(X[:9], Y[:9])
    assert bodies(events, Kind.METRICS) == [{"metrics": {"test_score": score}}]
    assert bodies(events, Kind.RESULTS)[0]["results"]["test_score"] == score
    assert bodies(events, Kind.STATE)[0]["root"] == state_digest(model, FACTORY).as_fields()["root"]


def test_an_estimators_iterations_are_epochs(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((4,), max_iter=3, random_state=0)
    with pytest.warns(Warning, match="Maximum iterations"):
        record_fit(model, X, Y, base_dir=tmp_path)
    metrics = [body["metrics"] for body in bodies(spooled(tmp_path), Kind.METRICS)]
    assert [values["loss"] for values in metrics] == model.loss_curve_
    assert metrics[-1]["training_score"] == model.score(X, Y)


def test_a_search_is_one_run_with_its_candidates(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    record_fit(search, X, Y, base_dir=tmp_path)
    (results,) = bodies(spooled(tmp_path), Kind.RESULTS)
    found = results["results"]
    assert found["best_params"] == search.best_params_
    assert [each["params"] for each in found["candidates"]] == [{"C": 0.1}, {"C": 1.0}]
    scores = list(search.cv_results_["mean_test_score"])
    assert [each["mean_test_score"] for each in found["candidates"]] == scores


def test_weights_of_rows_are_data_and_no_labels_are_needed(tmp_path: Path) -> None:
    from sklearn.cluster import KMeans

    weights = np.ones(80)
    record_fit(KMeans(2), X, fit={"sample_weight": weights}, base_dir=tmp_path)
    events = spooled(tmp_path)
    (train,) = bodies(events, Kind.DATA_TRAIN)
    expected = dataset_digest({"X": X, "sample_weight": weights}, FACTORY).as_fields()
    assert train["root"] == expected["root"]
    assert "inertia" in bodies(events, Kind.RESULTS)[0]["results"]


def test_a_fit_that_raises_raises_and_its_run_says_so(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ValueError, match="one class"):
        record_fit(LogisticRegression(), X, np.zeros(80), base_dir=tmp_path)
    events = spooled(tmp_path)
    assert bodies(events, Kind.RUN_END)[0]["reason"] == "ValueError"
    assert "results" not in kinds(events)


class Odd:
    """An estimator whose every property is broken but ``fit``."""

    def fit(self, x: Any, y: Any) -> Odd:
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        raise ZeroDivisionError

    def score(self, x: Any, y: Any) -> float:
        raise ZeroDivisionError

    @property
    def best_score_(self) -> float:
        raise ZeroDivisionError


def test_no_fault_of_an_estimator_ends_its_training(tmp_path: Path) -> None:
    assert isinstance(record_fit(Odd(), X, Y, base_dir=tmp_path), Odd)
    assert kinds(spooled(tmp_path))[-2:] == ["run.seal", "run.end"]


def test_estimators_of_boosters_are_recorded_alike(tmp_path: Path) -> None:
    xgboost = framework("xgboost")
    model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1)
    fit = {"eval_set": [(X, Y), (X[:9], Y[:9])], "verbose": False}
    record_fit(model, X, Y, fit=fit, base_dir=tmp_path)
    events = spooled(tmp_path)
    names = [part["name"] for part in bodies(events, Kind.DATA_TEST)[0]["parts"]]
    assert names == ["0.X", "0.y", "1.X", "1.y"]
    losses = [body["metrics"]["validation_1-logloss"] for body in bodies(events, Kind.METRICS)]
    assert losses == model.evals_result()["validation_1"]["logloss"]


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    run_example("sklearn_fit", tmp_path)
    assert kinds(spooled(tmp_path))[-1] == "run.end"
