"""``autolog``: what the frameworks' own functions record once it is called, and leave alone."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import provenance
from provenance.errors import ConfigError, InputError
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import autologged, framework
from tests.support.paths import ROOT
from tests.support.spooled import bodies, kinds, spooled

pytestmark = pytest.mark.slow  # its frameworks take seconds to load

FACTORY = HashFactory("blake3")
X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
PARAMETERS = {"objective": "binary:logistic", "nthread": 1}


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    framework("sklearn", "sklearn")
    with autologged(tmp_path):
        yield tmp_path


def runs(base: Path) -> int:
    found = kinds(spooled(base))
    assert found.count("run.end") == found.count("config")
    return found.count("config")


def test_a_fit_is_recorded(base: Path) -> None:
    from sklearn.svm import SVC

    model = SVC(C=2.0)
    assert model.fit(X, y=Y) is model
    events = spooled(base)
    data = bodies(events, Kind.DATA_TRAIN)[0]["root"]
    assert data == dataset_digest((X, Y), FACTORY).as_fields()["root"]
    assert bodies(events, Kind.STATE)[0]["root"] == state_digest(model, FACTORY).as_fields()["root"]
    config = bodies(events, Kind.CONFIG)[0]
    assert (config["group"], config["training"]["parameters"]["C"]) == ("auto", 2.0)
    assert bodies(events, Kind.METRICS)[0]["metrics"]["training_score"] == model.score(X, Y)


def test_a_search_over_a_pipeline_is_one_run(base: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2, n_jobs=2).fit(X, Y)
    assert runs(base) == 1
    events = spooled(base)
    assert bodies(events, Kind.RESULTS)[0]["results"]["candidates_total"] == 2
    name = "GridSearchCV(Pipeline(StandardScaler, LogisticRegression))"
    assert bodies(events, Kind.CONFIG)[0]["name"] == name


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_cross_validation_is_one_run_with_the_scores_of_its_folds(
    base: Path, jobs: int | None
) -> None:
    from sklearn import model_selection
    from sklearn.svm import SVC

    scores = model_selection.cross_val_score(SVC(), X, Y, cv=3, n_jobs=jobs)
    events = spooled(base)
    assert runs(base) == 1
    assert bodies(events, Kind.CONFIG)[0]["name"] == "cross_validate(SVC)"
    assert kinds(events).count("data.train") == 1
    folds = [body["metrics"]["test_score"] for body in bodies(events, Kind.METRICS)]
    assert folds == scores.tolist()
    assert bodies(events, Kind.RESULTS)[0]["results"]["test_score"] == pytest.approx(scores.mean())
    model_selection.cross_val_predict(SVC(), X, Y, cv=2)
    assert runs(base) == 2
    with pytest.raises(ValueError, match="fits failed"):
        model_selection.cross_validate(SVC(C=-1), X, Y)
    assert [body["state"] for body in bodies(spooled(base), Kind.RUN_END)][-1] == "failed"


def test_a_study_whose_objective_validates_is_a_run_for_each_trial(base: Path) -> None:
    optuna = framework("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    def objective(trial: Any) -> float:
        return float(cross_val_score(SVC(C=trial.suggest_float("C", 0.1, 1)), X, Y, cv=2).mean())

    optuna.create_study().optimize(objective, n_trials=4, n_jobs=2)
    assert runs(base) == 4


def test_a_run_has_the_name_of_what_is_trained(base: Path) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.naive_bayes import GaussianNB

    for model in (RandomForestClassifier(2), CalibratedClassifierCV(GaussianNB(), cv=2)):
        model.fit(X, Y)
    names = [config["name"] for config in bodies(spooled(base), Kind.CONFIG)]
    assert names == ["RandomForestClassifier", "CalibratedClassifierCV(GaussianNB)"]


def test_what_predicts_only_once_it_is_fitted_is_a_training(base: Path) -> None:
    from sklearn.ensemble import StackingClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    GridSearchCV(GaussianNB(), {}, scoring=["accuracy", "f1"], refit=False, cv=2).fit(X, Y)
    StackingClassifier([("a", GaussianNB())], cv=2).fit(X, Y)
    assert runs(base) == 2


def test_estimators_that_are_fitted_in_a_pool_of_threads_are_their_ensembles(base: Path) -> None:
    from joblib import parallel_backend
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    members = [("a", LogisticRegression()), ("b", GaussianNB())]
    with parallel_backend("threading", n_jobs=2):
        VotingClassifier(members, n_jobs=2).fit(X, Y)
    assert runs(base) == 1


def test_fits_of_several_threads_are_runs_of_their_own(base: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    both = threading.Barrier(2)

    class Waiting(GaussianNB):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            both.wait(30)
            return super().fit(x, y)

    with ThreadPool(2) as pool:
        pool.map(lambda _: Waiting().fit(X, Y), range(2))
    assert runs(base) == 2


def test_what_prepares_data_is_no_training_and_what_clusters_is(base: Path) -> None:
    from sklearn.cluster import DBSCAN, KMeans
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    StandardScaler().fit_transform(X)
    assert runs(base) == 0
    labels = make_pipeline(StandardScaler(), KMeans(2, random_state=0)).fit_predict(X)
    assert len(labels) == 60
    assert runs(base) == 1
    DBSCAN().fit_predict(X)
    assert runs(base) == 2
    assert not hasattr(make_pipeline(StandardScaler()), "fit_predict")


def test_a_training_is_what_it_is_without(base: Path) -> None:
    from sklearn.linear_model import SGDClassifier

    def drawn() -> Any:
        np.random.seed(3)
        model = SGDClassifier(max_iter=5, tol=None).fit(X, Y)
        return model.coef_.tolist(), np.random.rand()

    recorded = drawn()
    provenance.autolog(disable=True)
    assert drawn() == recorded


def test_what_a_fit_raises_is_raised_and_a_wrong_call_as_ever(base: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ValueError, match="one class"):
        LogisticRegression().fit(X, np.zeros(60))
    assert bodies(spooled(base), Kind.RUN_END)[0]["reason"] == "ValueError"
    with pytest.raises(TypeError, match="unexpected keyword"):
        LogisticRegression().fit(X, Y, nothing=1)
    assert runs(base) == 1


def test_recording_that_fails_ends_no_training(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.linear_model import LogisticRegression

    import provenance.integrations.sklearn as integration

    def fails(*_: object) -> Any:
        raise ZeroDivisionError("no record")

    monkeypatch.setattr(integration, "_data", fails)
    monkeypatch.setattr(integration, "_results", fails)
    assert hasattr(LogisticRegression().fit(X, Y), "coef_")
    monkeypatch.setattr(integration, "recorded_fit", fails)
    monkeypatch.setattr(integration, "Recorder", fails)
    monkeypatch.setattr("provenance.autologging.Recorder", fails)
    assert hasattr(LogisticRegression().fit(X, Y), "coef_")
    assert "no record" in capsys.readouterr().err


def test_twice_is_once_and_disabled_is_as_it_was(base: Path, tmp_path: Path) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.svm import SVC

    provenance.autolog(base_dir=tmp_path / "other")
    SVC().fit(X, Y)
    assert (runs(base), runs(tmp_path / "other")) == (0, 1)

    class Later(SVC):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            return super().fit(x, y)

    recorded = SVC.fit, Later.fit
    provenance.autolog(disable=True)
    provenance.autolog(disable=True)
    assert SVC.fit is not recorded[0]
    assert "provenance" not in SVC.fit.__code__.co_filename
    assert "provenance" not in Later.fit.__code__.co_filename.rpartition("/")[2]
    assert "__init_subclass__" not in vars(BaseEstimator)
    SVC().fit(X, Y)
    assert runs(tmp_path / "other") == 1


@pytest.mark.slow
def test_disabled_puts_back_what_was_there(tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from sklearn import model_selection
    from sklearn.svm import SVC

    names = ("xgboost", "lightgbm", "catboost", "lightning.pytorch", "transformers", "keras")
    modules = [framework(name, name.partition(".")[0]) for name in names]
    owners = [SVC, SVC.__mro__[-2], model_selection, model_selection._validation, *modules]
    owners += [modules[3].Trainer, modules[4].Trainer, modules[5].Model, modules[2].CatBoost]
    before, finders = [dict(vars(owner)) for owner in owners], list(sys.meta_path)
    with autologged(tmp_path):
        assert (
            sum(dict(vars(owner)) != kept for owner, kept in zip(owners, before, strict=True)) > 6
        )
    for owner, kept in zip(owners, before, strict=True):
        assert dict(vars(owner)) == kept, owner
    assert sys.meta_path == finders


def test_an_estimator_is_pickled_as_ever(base: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    model = pickle.loads(pickle.dumps(GaussianNB().fit(X, Y)))
    provenance.autolog(disable=True)
    assert (model.predict(X) == pickle.loads(pickle.dumps(model)).predict(X)).all()


def test_a_class_of_the_users_that_goes_to_another_process_records_nothing_there(
    base: Path, tmp_path: Path
) -> None:
    cloudpickle = framework("cloudpickle", "mlflow")  # as joblib's workers get such a class
    from sklearn.naive_bayes import GaussianNB

    class Own(GaussianNB):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            return super().fit(x, y)

    written = tmp_path / "own.pickle"
    written.write_bytes(cloudpickle.dumps((Own(), X, Y)))
    source = (
        "import pickle, sys; model, x, y = pickle.load(open(sys.argv[1], 'rb'));"
        "model.fit(x, y).predict(x); import provenance.autologging as a; assert a._active is None"
    )
    worker: list[str | Path] = [sys.executable, "-c", source, written]
    search = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(worker, check=True, timeout=120, cwd=tmp_path, env=search)
    assert runs(base) == 0
    assert not (tmp_path / "artifacts").exists()
    pickle.loads(written.read_bytes())[0].fit(X, Y)
    assert runs(base) == 1


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such\.json"):
        provenance.autolog(config="no-such.json")
    with pytest.raises(InputError, match="every_n_epochs"):
        provenance.autolog(every_n_epochs=0)
    with pytest.raises(TypeError, match="nothing"):
        provenance.autolog(nothing=1)


def test_xgboost_its_estimators_and_its_own_callback(base: Path) -> None:
    xgboost = framework("xgboost")
    from provenance.integrations.xgboost import ProvenanceCallback

    data, other = xgboost.DMatrix(X, label=Y), xgboost.DMatrix(X[:9], label=Y[:9])
    booster = xgboost.train(PARAMETERS, data, 2, evals=[(other, "other")], verbose_eval=False)
    events = spooled(base)
    assert kinds(events).count("data.test") == 1
    expected = state_digest(booster, FACTORY).as_fields()["root"]
    assert bodies(events, Kind.STATE)[0]["root"] == expected
    xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y)
    assert runs(base) == 2
    xgboost.train(PARAMETERS, data, 2, callbacks=[ProvenanceCallback(train=data, base_dir=base)])
    assert runs(base) == 3
    with pytest.raises(ValueError, match="Unknown|invalid|objective"):
        xgboost.train({"objective": "nothing"}, data, 2)
    assert bodies(spooled(base), Kind.RUN_END)[-1]["reason"].startswith("XGBoostError")


def test_lightgbm_and_its_estimators(base: Path) -> None:
    lightgbm = framework("lightgbm")
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    train, valid = lightgbm.Dataset(X, Y), lightgbm.Dataset(X[:30], Y[:30], weight=Y[:30] + 1.0)
    for keep in (False, True):
        booster = lightgbm.train(
            parameters, train, 4, valid_sets=valid, keep_training_booster=keep,
            callbacks=[lightgbm.early_stopping(1, verbose=False)],
        )  # fmt: skip
    events = spooled(base)
    assert runs(base) == 2
    expected = dataset_digest((X, Y), FACTORY).as_fields()["root"]
    assert bodies(events, Kind.DATA_TRAIN)[0]["root"] == expected
    named = [part["name"] for part in bodies(events, Kind.DATA_TEST)[0]["parts"]]
    assert named == ["data", "label", "weight"]
    root = state_digest(booster, FACTORY).as_fields()["root"]
    assert root in [body["root"] for body in bodies(events, Kind.STATE)]
    lightgbm.LGBMRegressor(n_estimators=2, verbosity=-1, n_jobs=1).fit(X, Y)
    assert runs(base) == 3


def test_catboost(base: Path) -> None:
    catboost = framework("catboost")
    model = catboost.CatBoostClassifier(
        2, verbose=0, allow_writing_files=False, thread_count=1
    ).fit(X, Y)
    events = spooled(base)
    assert runs(base) == 1
    assert bodies(events, Kind.STATE)[0]["root"] == state_digest(model, FACTORY).as_fields()["root"]


def test_frameworks_that_are_imported_later_are_recorded(tmp_path: Path) -> None:
    framework("xgboost")
    source = (
        "import provenance, sys; provenance.autolog(base_dir=sys.argv[1]);"
        "assert not {'sklearn', 'xgboost', 'torch'} & sys.modules.keys();"
        "import numpy; from sklearn.naive_bayes import GaussianNB; import xgboost;"
        "x = numpy.arange(12.0).reshape(6, 2); y = [0, 1] * 3;"
        "GaussianNB().fit(x, y);"
        "xgboost.train({'nthread': 1}, xgboost.DMatrix(x, y), 1);"
        "assert 'exec_module' not in vars(xgboost.__spec__.loader)"
    )
    subprocess.run([sys.executable, "-c", source, tmp_path], check=True, timeout=120, cwd=ROOT)
    assert runs(tmp_path) == 2


def test_the_example_runs(tmp_path: Path) -> None:
    framework("sklearn", "sklearn")
    framework("xgboost")
    try:
        run_example("autolog", tmp_path)
    finally:
        importlib.import_module("provenance.autologging").autolog(disable=True)
    assert runs(tmp_path) == 2
