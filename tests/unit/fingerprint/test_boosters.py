"""What the digest of a gradient booster covers: its library's serialisation, alone or in others."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingRegressor, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from provenance.capture.weights.snapshot import copy_of
from provenance.errors import InputError
from provenance.fingerprint.fitted.boosters import booster_values
from provenance.fingerprint.fitted.estimators import estimator_values
from provenance.fingerprint.tensors import state_digest
from tests.support.frameworks import framework

pytestmark = pytest.mark.slow  # its frameworks take seconds to load

LIBRARIES = ("xgboost", "lightgbm", "catboost")
Array = Any


def data(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.random((60, 3))
    return x, (x[:, 0] + rng.normal(0, 0.2, 60) > 0.5).astype(int)


def classifier(library: str, **options: Any) -> Any:
    return _model(library, "Classifier", options)


def regressor(library: str, **options: Any) -> Any:
    return _model(library, "Regressor", options)


def _model(library: str, kind: str, options: dict[str, Any]) -> Any:
    module = framework(library)
    if library == "xgboost":
        return getattr(module, f"XGB{kind}")(**{"n_estimators": 3, "n_jobs": 1} | options)
    if library == "lightgbm":
        own = {"n_estimators": 3, "n_jobs": 1, "verbose": -1, "min_child_samples": 2}
        return getattr(module, f"LGBM{kind}")(**own | options)
    own = {"iterations": 3, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    return getattr(module, f"CatBoost{kind}")(**own | options)


def booster(library: str, seed: int = 0) -> Any:
    """As the library's own interface makes it."""
    module = framework(library)
    x, y = data(seed)
    if library == "xgboost":
        return module.train({"nthread": 1}, module.DMatrix(x, y), 3)
    if library == "lightgbm":
        options = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}
        return module.train(options, module.Dataset(x, y), 3)
    options = {"iterations": 3, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    return module.CatBoost(options).fit(x, y)


FORMS: dict[str, Any] = {
    "booster": lambda library, seed: booster(library, seed),
    "classifier": lambda library, seed: classifier(library).fit(*data(seed)),
    "regressor": lambda library, seed: regressor(library).fit(*data(seed)),
    "pipeline": lambda library, seed: make_pipeline(StandardScaler(), classifier(library)).fit(
        *data(seed)
    ),
    "voting": lambda library, seed: VotingClassifier(
        [("a", classifier(library)), ("b", LogisticRegression())]
    ).fit(*data(seed)),
    "stacking": lambda library, seed: StackingRegressor(
        [("a", regressor(library)), ("b", Ridge())], cv=2
    ).fit(*data(seed)),
    "calibrated": lambda library, seed: CalibratedClassifierCV(classifier(library), cv=2).fit(
        *data(seed)
    ),
    "several outputs": lambda library, seed: MultiOutputRegressor(regressor(library)).fit(
        data(seed)[0], np.c_[data(seed)[1], 1 - data(seed)[1]]
    ),
    "other target": lambda library, seed: TransformedTargetRegressor(
        regressor(library), func=np.log1p, inverse_func=np.expm1
    ).fit(*data(seed)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_one_digest_a_model(library: str, form: str) -> None:
    make = FORMS[form]
    model, again, other = make(library, 0), make(library, 0), make(library, 1)
    digest = state_digest(model)
    assert state_digest(again) == digest
    assert state_digest(other).root != digest.root
    assert state_digest(pickle.loads(pickle.dumps(model))) == digest
    assert state_digest(copy.deepcopy(model)) == digest
    assert state_digest(copy_of(model)) == digest


SETTINGS: dict[str, dict[str, list[Any]]] = {
    "xgboost": {
        "n_estimators": [1, 2, 4], "max_depth": [1, 3], "booster": ["gbtree", "dart"],
        "objective": ["reg:squarederror", "reg:absoluteerror", "reg:logistic", "count:poisson"],
        "base_score": [None, 0.3, 0.6], "rate_drop": [0.0, 0.6], "num_parallel_tree": [1, 2],
        "missing": [np.nan, 0.0], "max_cat_to_onehot": [1, 9], "reg_lambda": [0.0, 1.0],
    },
    "lightgbm": {
        "n_estimators": [1, 2, 4], "max_depth": [1, 3], "boosting_type": ["gbdt", "dart", "rf"],
        "objective": ["regression", "huber", "poisson", "cross_entropy"], "drop_rate": [0.1, 0.9],
        "boost_from_average": [True, False], "linear_tree": [True, False],
        "use_missing": [True, False], "max_cat_to_onehot": [1, 9], "reg_lambda": [0.0, 1.0],
    },
    "catboost": {
        "iterations": [1, 2, 4], "depth": [1, 3], "nan_mode": ["Min", "Max"],
        "loss_function": ["RMSE", "MAE", "Quantile:alpha=0.9", "Poisson"],
        "grow_policy": ["SymmetricTree", "Depthwise", "Lossguide"], "one_hot_max_size": [1, 9],
        "boost_from_average": [None, False], "l2_leaf_reg": [0.1, 3.0],
    },
}  # fmt: skip
FIXED: dict[str, dict[str, Any]] = {
    "xgboost": {"enable_categorical": True, "verbosity": 0},
    "lightgbm": {"subsample": 0.8, "subsample_freq": 1, "min_child_samples": 2},
    "catboost": {"cat_features": ["colour"]},
}


def table(seed: int) -> tuple[Array, Array]:
    """A column with missing values and zeros, one without, and one of categories."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (80, 2))
    x[rng.random(80) < 0.3, 0], x[rng.random(80) < 0.2, 0] = np.nan, 0.0
    colour = rng.integers(0, 4, 80)
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "colour": pd.Categorical(colour.astype(str))})
    signal = np.isnan(x[:, 0]) + 2.0 * (colour % 2) + x[:, 1] + rng.normal(0, 0.1, 80)
    return frame, 1 / (1 + np.exp(-signal))


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=60)
@given(st.data())
def test_models_that_predict_otherwise_have_other_digests(
    library: str, draw: st.DataObject
) -> None:
    """Of a training and one with another value of one setting, and of each trained again."""
    own = {name: draw.draw(st.sampled_from(values)) for name, values in SETTINGS[library].items()}
    name = draw.draw(st.sampled_from(sorted(own)))
    changed = draw.draw(st.sampled_from(SETTINGS[library][name]))

    def trained(options: dict[str, Any]) -> Any:
        models = [bare(library, FIXED[library] | options) for _ in range(2)]
        assert state_digest(models[0]) == state_digest(models[1])
        return models[0]

    model, other = trained(own), trained(own | {name: changed})
    root, told = state_digest(model).root, predicted(library, model)
    assert predicted(library, other) == told or state_digest(other).root != root
    change_leaves(library, model)
    assert predicted(library, model) != told or own.get("linear_tree")  # its leaves are lines
    assert state_digest(model).root != root


def bare(library: str, options: dict[str, Any]) -> Any:
    """A booster, whose digest has no hyperparameters beside its own serialisation."""
    model = regressor(library, **options).fit(*table(0))
    if library == "catboost":
        return model
    return model.get_booster() if library == "xgboost" else model.booster_


def predicted(library: str, model: Any) -> bytes:
    """By a copy: CatBoost's model keeps what it predicted with first."""
    copied, x = pickle.loads(pickle.dumps(model)), table(1)[0]
    if library == "xgboost":
        x = framework(library).DMatrix(x, enable_categorical=True)
    return np.asarray(copied.predict(x)).tobytes()


def change_leaves(library: str, model: Any) -> None:
    """Of the first tree; of CatBoost, of all. LightGBM's change places: it states the sizes too."""
    if library == "lightgbm":
        outputs = [model.get_leaf_output(0, leaf) for leaf in (1, 0)]
        for leaf, output in enumerate(outputs):
            model.set_leaf_output(0, leaf, output)
    elif library == "catboost":
        model.set_leaf_values(model.get_leaf_values() + 1)
    else:
        document = json.loads(model.save_raw("json"))
        trees = document["learner"]["gradient_booster"]
        tree = trees.get("gbtree", trees)["model"]["trees"][0]
        ends = [left == -1 for left in tree["left_children"]]  # there a leaf, not a threshold
        tree["split_conditions"] = list(np.add(tree["split_conditions"], ends))
        model.load_model(bytearray(json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("library", "more"),
    [
        ("xgboost", {"n_jobs": 2, "verbosity": 0}),
        ("xgboost", {"random_state": 3}),
        ("lightgbm", {"n_jobs": 2, "verbose": -2}),
        ("lightgbm", {"random_state": 3}),
        ("catboost", {"thread_count": 2, "logging_level": "Silent", "verbose": None}),
    ],
)
def test_how_the_training_ran_does_not_count(library: str, more: dict[str, Any]) -> None:
    model, other = classifier(library).fit(*data(0)), classifier(library, **more).fit(*data(0))
    assert np.array_equal(model.predict_proba(data(1)[0]), other.predict_proba(data(1)[0]))
    assert state_digest(model).root == state_digest(other).root


def test_the_threshold_of_catboost_counts() -> None:
    model, x = classifier("catboost").fit(*data(0)), data(1)[0]
    before, labels = state_digest(model), model.predict(x)
    model.set_probability_threshold(0.9)
    assert not np.array_equal(model.predict(x), labels)
    assert state_digest(model).root != before.root


def test_covers_says_of_what() -> None:
    for library, of in zip(LIBRARIES, ("save_raw", "model_to_string", "cbm"), strict=True):
        assert booster_values(booster(library))[1] == {"adapter": library, "of": [of]}
    fitted = ["fitted attributes", "hyperparameters"]
    boosted = classifier("xgboost").fit(*data(0))
    expected = {"adapter": "xgboost", "of": [*fitted, "xgboost save_raw"]}
    assert estimator_values(boosted)[1] == expected
    pipeline = make_pipeline(classifier("catboost")).fit(*data(0))
    expected = {"adapter": "sklearn", "of": [*fitted, "catboost cbm"]}
    assert estimator_values(pipeline)[1] == expected


def test_the_best_iteration_of_lightgbm_counts_and_is_copied(tmp_path: Path) -> None:
    model, x = classifier("lightgbm").fit(*data(0)), data(1)[0]
    bare, whole = model.booster_, model.predict_proba(x)
    for one in (model, bare, make_pipeline(model)):
        bare.best_iteration = -1
        before = state_digest(one)
        bare.best_iteration = 3  # of three: early stopping that came for the last time
        assert np.array_equal(model.predict_proba(x), whole)
        assert state_digest(one) == before
        bare.best_iteration = 2
        assert not np.array_equal(model.predict_proba(x), whole)
        assert state_digest(one).root != before.root
        assert state_digest(copy_of(one)) == state_digest(one)
    assert booster_values(bare)[1]["of"] == ["model_to_string", "best_iteration"]


FILES = [
    ("xgboost", "m.json"), ("xgboost", "m.ubj"), ("lightgbm", "m.txt"), ("catboost", "m.cbm"),
]  # fmt: skip


@pytest.mark.parametrize(("library", "name"), FILES)
def test_a_file_has_the_digest_of_its_booster(library: str, name: str, tmp_path: Path) -> None:
    model, path = booster(library), tmp_path / name
    model.save_model(str(path))
    assert state_digest(path) == state_digest(model)


def test_a_file_of_xgboosts_classifier_is_its_booster(tmp_path: Path) -> None:
    model = classifier("xgboost").fit(*data(0))
    model.save_model(tmp_path / "m.json")
    assert state_digest(tmp_path / "m.json") == state_digest(model.get_booster())


@pytest.mark.parametrize(("library", "name"), FILES)
def test_another_file_is_refused(library: str, name: str, tmp_path: Path) -> None:
    framework(library)
    path = tmp_path / name
    with pytest.raises(InputError, match=rf"model file '.*{name}': found no file"):
        state_digest(path)
    path.write_text("{}")
    with pytest.raises(InputError, match=rf"{name}': {library} cannot read it: .") as got:
        state_digest(path)
    assert "\n" not in str(got.value)


@pytest.mark.slow
def test_a_file_that_ends_or_fills_its_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    booster("lightgbm").save_model(path)
    path.write_text(path.read_text().replace("left_child=", "left_child=9 "))
    with pytest.raises(
        InputError, match=r"m\.txt': lightgbm cannot read it: its reader ended with SIG"
    ):
        state_digest(path)
    path = tmp_path / "m.json"
    booster("xgboost").save_model(path)
    text = path.read_text().replace('"num_class":"0"', '"num_class":"2000000000"')
    path.write_text(text)
    with pytest.raises(InputError, match=r"m\.json': xgboost cannot read it: std::bad_alloc"):
        state_digest(path)


def test_what_is_not_trained_is_refused() -> None:
    with pytest.raises(InputError, match=r"xgboost\.core\.Booster 'model'"):
        state_digest(framework("xgboost").Booster())
    with pytest.raises(InputError, match=r"catboost.*'model' is not trained"):
        state_digest(classifier("catboost"))
    for library in ("xgboost", "lightgbm"):
        with pytest.raises(InputError, match="is not fitted"):
            state_digest(classifier(library))
    with pytest.raises(InputError, match="found object, expected a booster"):
        booster_values(object())
