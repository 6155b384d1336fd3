"""Every estimator of scikit-learn: where two give different outputs, their digests differ; where
they are one model, so are their digests. None is refused."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any, Final

import numpy as np
import pytest
import scipy.sparse
import sklearn.experimental.enable_halving_search_cv
import sklearn.experimental.enable_iterative_imputer  # noqa: F401  they enable
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from provenance.fingerprint.tensors import state_digest

ROWS: Final = 30
WORDS: Final = (["aa bb", "bb cc", "aa cc"], ["xx yy", "yy zz", "xx zz"])
SMALL: Final = {
    "n_features": 16, "n_estimators": 2, "max_iter": 10, "n_init": 1, "cv": 2, "n_components": 2,
    "perplexity": 3, "random_state": 0, "max_trials": 5, "max_subpopulation": 20, "thresholds": 5,
}  # fmt: skip
"""For every estimator that has such a parameter."""
OWN: Final[dict[str, dict[str, Any]]] = {
    "ColumnTransformer": {"transformers": [("s", StandardScaler(), [0])]},
    "FeatureUnion": {"transformer_list": [("s", StandardScaler())]},
    "GridSearchCV": {"estimator": Ridge(), "param_grid": {"alpha": [1, 2]}},
    "HalvingGridSearchCV": {"estimator": Ridge(), "param_grid": {"alpha": [1, 2]}},
    "HalvingRandomSearchCV": {"estimator": Ridge(), "param_distributions": {"alpha": [1, 2]}},
    "LinearDiscriminantAnalysis": {"n_components": 1},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "OneVsOneClassifier": {"estimator": LinearSVC()},
    "OneVsRestClassifier": {"estimator": LinearSVC()},
    "OrthogonalMatchingPursuitCV": {"max_iter": 2},
    "OutputCodeClassifier": {"estimator": LinearSVC()},
    "PatchExtractor": {"patch_size": (2, 2), "max_patches": 3},
    "Pipeline": {"steps": [("a", StandardScaler()), ("b", LogisticRegression())]},
    "PLSSVD": {"n_components": 1},
    "RandomizedSearchCV": {
        "estimator": Ridge(), "param_distributions": {"alpha": [1, 2]}, "n_iter": 2,
    },
    "RegressorChain": {"estimator": Ridge()},
    "SparseCoder": {"dictionary": np.eye(4)},
    "SpectralBiclustering": {"n_components": 3},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SequentialFeatureSelector": {"n_features_to_select": 1},
    "StackingClassifier": {"estimators": [("a", LogisticRegression()), ("b", GaussianNB())]},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(3))]},
    "TSNE": {"max_iter": 250},
    "VotingClassifier": {"estimators": [("a", LogisticRegression()), ("b", GaussianNB())]},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(3))]},
}  # fmt: skip
OUTPUTS: Final = (
    "predict", "predict_proba", "decision_function", "transform", "score_samples",
    "inverse_transform",
)  # fmt: skip
RUNS: Final = {"n_jobs": 2, "verbose": 3}
"""How it runs: never part of a digest."""


def data(name: str, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.random((ROWS, 4))
    y = (x[:, 0] + rng.normal(0, 0.2, ROWS) > 0.5).astype(int)
    marks = "abcd" if seed % 2 else "bcqr"
    if name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        return WORDS[seed % 2] * 10, None
    if name in ("DictVectorizer", "FeatureHasher"):
        return [{marks[0]: 1.0, "z": f"t{i % 2}"} for i in range(ROWS)], None
    if name in ("LabelEncoder", "LabelBinarizer"):
        return [marks[i % 4] for i in range(ROWS)], None
    if name == "MultiLabelBinarizer":
        return [set(marks[i % 3 :]) for i in range(ROWS)], None
    if name in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        none: Any = None
        return np.where(x > 0.5, marks[0], np.where(x > 0.2, none, marks[1])).astype(object), y
    if name == "PatchExtractor":
        return rng.random((3, 5, 5)), None
    if name == "KernelCenterer":
        return x @ x.T, None
    if name == "IsotonicRegression":
        return x[:, 0], y.astype(float)
    if name in ("CategoricalNB", "ComplementNB"):
        return np.floor(x * 3), y
    if name.startswith(("MultiOutput", "MultiTask", "PLS", "CCA")) or name.endswith("Chain"):
        return x, np.c_[y, x[:, 1] > 0.5].astype(int)
    return x, y + 1 if name == "GammaRegressor" else y


def fitted(name: str, kind: Any, seed: int) -> Any:
    x, y = data(name, seed)
    if name == "FrozenEstimator":
        return kind(LogisticRegression().fit(x, y))
    known = inspect.signature(kind.__init__).parameters
    options: dict[str, Any] = {key: value for key, value in SMALL.items() if key in known}
    if "estimator" in known and known["estimator"].default is inspect.Parameter.empty:
        options["estimator"] = LogisticRegression()
    np.random.seed(0)
    model = kind(**(options | copy.deepcopy(OWN.get(name, {}))))
    return model.fit(x) if y is None else model.fit(x, y)


def outputs(name: str, model: Any) -> list[Any]:
    """What its methods make of other data; or of what it does not take, which error."""
    found = []
    for method in OUTPUTS:
        try:
            np.random.seed(0)
            found.append(plain(getattr(model, method)(data(name, 5)[0])))
        except Exception as error:  # noqa: BLE001  whatever a hyperparameter leads to
            found.append(type(error).__name__)
    return found


def plain(value: Any) -> Any:
    """What `==` compares, NaN too."""
    if scipy.sparse.issparse(value):
        return plain(value.toarray())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return value.shape, value.dtype.str, np.ascontiguousarray(value).tobytes()
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def changed(value: Any) -> list[Any]:
    """Other values of a hyperparameter."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * 2 + 0.1]
    return []


def problems(name: str, kind: Any) -> list[str]:
    model, again, other = (fitted(name, kind, seed) for seed in (0, 0, 1))
    digest, found = state_digest(model), []
    if state_digest(again) != digest:
        found.append("fitted again: another digest")
    if state_digest(pickle.loads(pickle.dumps(model))) != digest:
        found.append("pickled: another digest")
    given = outputs(name, model)
    if state_digest(model) != digest:
        found.append("used: another digest")
    if state_digest(other).root == digest.root and outputs(name, other) != given:
        found.append("other data, other outputs, the same digest")
    varied = copy.deepcopy(model)
    if state_digest(varied) != digest:
        found.append("copied: another digest")
    for key, value in varied.get_params(deep=False).items():
        for new in [RUNS[key]] if key in RUNS else changed(value):
            varied.__dict__[key] = new
            same = state_digest(varied).root == digest.root
            if key in RUNS and not same:
                found.append(f"{key}: another digest")
            elif key not in RUNS and same and outputs(name, varied) != given:
                found.append(f"{key}: other outputs, the same digest")
            varied.__dict__[key] = value
    return [f"{name}: {problem}" for problem in found]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_digest_tells_every_estimator_apart_and_none_is_refused() -> None:
    kinds = all_estimators()
    assert len(kinds) > 180
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        found = [problem for name, kind in kinds for problem in problems(name, kind)]
    assert found == []
