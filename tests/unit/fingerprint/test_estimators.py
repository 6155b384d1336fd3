"""What the digest of an estimator covers: all that pickle keeps of it, by name.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
import numpy.ma.mrecords
import polars as pl
import pytest
import scipy.sparse
import scipy.spatial
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KDTree, KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    MultiLabelBinarizer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)

from provenance.errors import InputError
from provenance.fingerprint.fitted import estimators
from provenance.fingerprint.fitted.estimators import STRUCTURE, estimator_values
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest, tensor_digest

SHA = HashFactory("sha256")
X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)


def structure(model: Any) -> list[Any]:
    raw: Any = dict(estimator_values(model)[0])[STRUCTURE]
    assert (raw.dtype, raw.shape) == ("U8", (len(raw.memory),))
    objects: list[Any] = json.loads(raw.memory)
    return objects


class Metres(np.ndarray):
    """An array with an attribute, which pickle forgets."""

    unit = "m"


class Unit(float):
    unit = "m"


class Stateful:
    def __init__(self, **state: object) -> None:
        self.state = state

    def __getstate__(self) -> dict[object, object]:
        return {1: self.state, "a": 2}


def metres(unit: str) -> Any:
    array = np.ones(2).view(Metres)
    array.unit = unit
    return array


def number(unit: str) -> Any:
    value = Unit(1.0)
    value.unit = unit
    return value


class Reduced:
    """Pickled in a way of its own."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Names(set[int]):
    """A set of its own class."""


class Estimator:
    """The least that counts as an estimator."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def fit(self) -> None: ...

    def get_params(self) -> dict[str, object]:
        return {}


def names_of(model: Any) -> set[str]:
    return {tensor.name for tensor in state_digest(model).tensors}


def test_arrays_by_attribute_and_the_rest_in_one_text() -> None:
    with pytest.warns(Warning, match="converge"):
        model = MLPClassifier((3,), max_iter=5, random_state=0).fit(X, np.array(["no", "yes"])[Y])
    digest = state_digest(model, SHA)
    by_name = {tensor.name: tensor for tensor in digest.tensors}
    assert {"coefs_.0", "coefs_.1", "intercepts_.0", "loss_", STRUCTURE} <= set(by_name)
    assert not [name for name in by_name if name.startswith("_optimizer")]
    assert by_name["coefs_.0"] == tensor_digest("coefs_.0", model.coefs_[0], SHA)
    assert by_name["classes_"].dtype == "UTF8"
    assert by_name["loss_"].dtype == "F64"
    (told, *_) = structure(model)
    assert told["new"] == ["global", type(model).__module__, "MLPClassifier"]
    assert told["state"]["activation"] == "relu"
    assert told["state"]["coefs_"] == ["list", ["tensor", "coefs_.0"], ["tensor", "coefs_.1"]]
    model.coefs_[1][0, 0] += 1e-9
    assert state_digest(model, SHA).root != digest.root


def test_names_in_pipelines_forests_and_boosting() -> None:
    pipeline = make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y)
    assert {"steps.0.1.mean_", "steps.1.1.coef_", "steps.1.1.intercept_"} <= names_of(pipeline)
    forest = RandomForestClassifier(2, random_state=0).fit(X, Y)
    assert {"estimators_.0.tree_.threshold", "estimators_.1.tree_.value"} <= names_of(forest)
    assert "estimators_.0.tree_.children_left" in names_of(forest)
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    assert "_predictors.0.0.nodes.value" in names_of(boosted)


def test_covers_says_of_what() -> None:
    assert estimator_values(Ridge().fit(X, Y))[1] == {
        "adapter": "sklearn",
        "of": ["fitted attributes", "hyperparameters"],
    }


def categories(*values: object) -> Any:
    return OneHotEncoder().fit(np.array([[value] for value in values], dtype=object))


def spline(scale: int) -> Any:
    column = np.array([[0.0], [1.0], [2.0], [3.0]]) * scale
    return SplineTransformer(n_knots=3, degree=1, knots="quantile").fit(column)


def search(grid: list[float | None]) -> Any:
    parameters = [{"C": grid}, {"fit_intercept": [True, False]}]  # masks in cv_results_
    return GridSearchCV(LogisticRegression(), parameters, cv=2).fit(X, Y)


DIFFERENT: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vocabulary": lambda: (TfidfVectorizer().fit(["aa bb"]), TfidfVectorizer().fit(["xx yy"])),
    "names of features": lambda: (
        DictVectorizer().fit([{"a": 1}]),
        DictVectorizer().fit([{"c": 1}]),
    ),
    "None among texts": lambda: (categories("a", "b", None), categories("q", "r", None)),
    "NaN among texts": lambda: (categories("a", np.nan), categories("q", np.nan)),
    "integers as objects": lambda: (categories(1, 2, 3), categories(7, 8, 9)),
    "splines": lambda: (spline(1), spline(10)),
    "columns": lambda: tuple(
        ColumnTransformer([("s", StandardScaler(), [c])]).fit(np.zeros((2, 2))) for c in (0, 1)
    ),
    "neighbours": lambda: (
        KNeighborsClassifier(1).fit(X, Y),
        KNeighborsClassifier(50).fit(X, Y),
    ),
    "threshold": lambda: (Binarizer().fit(X), Binarizer(threshold=0.5).fit(X)),
    "functions": lambda: (FunctionTransformer(np.log1p), FunctionTransformer(np.expm1)),
    "search": lambda: (search([1.0, 0.1]), search([1.0, 0.2])),
    "texts and bytes": lambda: (Estimator(a="61"), Estimator(a=b"a")),
    "number and bool": lambda: (Estimator(a=1), Estimator(a=True)),
    "number and text": lambda: (Estimator(a=1), Estimator(a="1")),
    "list and tuple": lambda: (Estimator(a=[1]), Estimator(a=(1,))),
    "times": lambda: (
        Estimator(a=np.array(["2026-01-01"], "M8[D]")),
        Estimator(a=np.array(["2026-01-01"], "M8[s]")),
    ),
    "masks": lambda: (
        Estimator(a=np.ma.masked_array([1, 2], [False, True])),
        Estimator(a=np.ma.masked_array([1, 2], [True, False])),
    ),
    "days": lambda: (
        Estimator(a=datetime.date(2026, 1, 1)),
        Estimator(a=datetime.date(2026, 1, 2)),
    ),
    "which is which": lambda: (Estimator(a=np.ones(1)), Estimator(b=np.ones(1))),
    "attributes of an array": lambda: (Estimator(a=metres("m")), Estimator(a=metres("km"))),
    "attributes of a number": lambda: (Estimator(a_=number("m")), Estimator(a_=number("km"))),
    "keys of a state that are no texts": lambda: (
        Estimator(a=Stateful(b=1)),
        Estimator(a=Stateful(b=2)),
    ),
    "numbers of eight bits": lambda: (
        Estimator(a=np.ones(2, "u1").view(ml_dtypes.float8_e4m3fn)),
        Estimator(a=np.ones(2, "u1").view(ml_dtypes.float8_e5m2)),
    ),
    "name of a column": lambda: (
        Estimator(a=pl.Series("a", [1])),
        Estimator(a=pl.Series("b", [1])),
    ),
    "sparse of three axes": lambda: (
        Estimator(a=scipy.sparse.coo_array(np.full((2, 2, 2), 1))),
        Estimator(a=scipy.sparse.coo_array(np.full((2, 2, 2), 2))),
    ),
    "what takes a state": lambda: (
        Estimator(a=Reduced(Reduced, (), 1, None, None, np.add)),
        Estimator(a=Reduced(Reduced, (), 1, None, None, np.subtract)),
    ),
    "an array of arrays": lambda: (
        Estimator(a=np.array([np.ones(1), None], dtype=object)),
        Estimator(a=np.array([None, np.ones(1)], dtype=object)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_differs_has_another_digest(make: Callable[[], tuple[Any, Any]]) -> None:
    one, other = make()
    assert state_digest(one).root != state_digest(other).root


def by_threads(threads: int) -> Any:
    """As two machines with so many threads would fit it."""
    clusters, boosted = KMeans(2, random_state=0), HistGradientBoostingClassifier(max_iter=1)
    model = make_pipeline(clusters, boosted).fit(X, Y)
    clusters._n_threads = boosted._bin_mapper.n_threads = threads
    return model


def asked(value: Any) -> Any:
    assert vars(value) == {}
    return value


def searched(seconds: float) -> Any:
    found = search([1.0, 0.1])
    found.refit_time_ = found.cv_results_["mean_fit_time"][0] = seconds
    return found


SAME: dict[str, Callable[[], tuple[Any, Any]]] = {
    "threads": lambda: (
        RandomForestClassifier(4, random_state=0, n_jobs=1).fit(X, Y),
        RandomForestClassifier(4, random_state=0, n_jobs=2, verbose=0).fit(X, Y),
    ),
    "threads of the machine": lambda: (by_threads(1), by_threads(2)),
    "time of day": lambda: (
        GaussianMixture(random_state=0).fit(X),
        GaussianMixture(random_state=0, verbose=2).fit(X),
    ),
    "threads of a part": lambda: tuple(
        make_pipeline(KNeighborsClassifier(n_jobs=jobs)).fit(X, Y) for jobs in (None, 1)
    ),
    "seed that draws nothing": lambda: (
        LogisticRegression(random_state=0).fit(X, Y),
        LogisticRegression(random_state=1).fit(X, Y),
    ),
    "addresses": lambda: (
        Estimator(a=scipy.spatial.KDTree(X)),
        Estimator(a=scipy.spatial.KDTree(X)),
    ),
    "random numbers of torch": lambda: (
        Estimator(a=torch.Generator().manual_seed(0)),
        Estimator(a=torch.Generator().manual_seed(1)),
    ),
    "random numbers of Python": lambda: (Estimator(a=Random(0)), Estimator(a=Random(1))),
    "generator": lambda: tuple(
        RandomForestClassifier(2, random_state=np.random.RandomState(0)).fit(X, Y) for _ in "ab"
    ),
    "times of a search": lambda: (searched(1.0), searched(2.0)),
    "order of a dict": lambda: (Estimator(a={"x": 1, "y": 2}), Estimator(a={"y": 2, "x": 1})),
    "order of a set": lambda: (
        Estimator(a={"x", "y", 1, None}),
        Estimator(a={None, 1, "y", "x"}),
    ),
    "order of a set of its own class": lambda: (
        Estimator(a=Names([0, 8])),
        Estimator(a=Names([8, 0])),
    ),
    "what a mask hides": lambda: (
        Estimator(a=np.ma.masked_array([1, 2], [False, True])),
        Estimator(a=np.ma.masked_array([1, 3], [False, True])),
    ),
    "attributes of a partial that were asked for": lambda: (
        Estimator(a=functools.partial(abs)),
        Estimator(a=asked(functools.partial(abs))),
    ),
    "order of the elements": lambda: (
        Estimator(a=np.arange(6).reshape(2, 3)),
        Estimator(a=np.asfortranarray(np.arange(6).reshape(2, 3))),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
def test_what_is_equal_has_one_digest(make: Callable[[], tuple[Any, Any]]) -> None:
    one, other = make()
    assert state_digest(one).root == state_digest(other).root


def test_sparse_matrices_count_by_their_elements() -> None:
    dense = np.array([[0.0, 2.0], [3.0, 0.0]])
    twice = scipy.sparse.coo_matrix(([1.0, 1.0, 3.0], ([0, 0, 1], [1, 1, 0])), (2, 2))
    one = state_digest(Estimator(coef_=scipy.sparse.coo_matrix(dense)))
    assert one == state_digest(Estimator(coef_=twice))
    assert one.root != state_digest(Estimator(coef_=scipy.sparse.coo_matrix(dense.T))).root
    assert {tensor.name for tensor in one.tensors} == {
        "coef_.data", "coef_.indices", "coef_.indptr", STRUCTURE
    }  # fmt: skip
    assert twice.nnz == 3  # as it was


def test_questions_to_a_model_do_not_change_it() -> None:
    neighbours = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y)
    labels = MultiLabelBinarizer().fit([{"a"}, {"b"}])
    before = [state_digest(model) for model in (neighbours, labels)]
    neighbours.predict(X), labels.transform([{"a"}])
    assert [state_digest(model) for model in (neighbours, labels)] == before


def test_objects_that_refer_to_each_other() -> None:
    inner, tree = Estimator(w_=np.ones(2)), KDTree(X)
    outer = Estimator(inner=inner, table_={"a": np.zeros(1), 3: np.ones(1)}, n_=3, tree=tree)
    inner.__dict__["parent"] = outer
    outer.__dict__["parts_"] = np.array([inner, None], dtype=object)
    objects = structure(outer)
    assert objects[0]["state"]["inner"] == ["object", 1]
    assert objects[1]["state"] == {"parent": ["object", 0], "w_": ["tensor", "inner.w_"]}
    assert objects[0]["state"]["parts_"] == ["array", "object", [2], ["object", 1], None]
    assert {"inner.w_", "table_.a", "table_.3", "tree.0", STRUCTURE} <= names_of(outer)


@pytest.mark.slow
def test_a_long_chain_of_objects() -> None:
    last = Estimator(w_=np.ones(1))
    chain = last
    for _ in range(2000):
        chain = Estimator(next=chain)
    before = state_digest(chain).root
    last.w_ += 1  # type: ignore[attr-defined]
    assert state_digest(chain).root != before


def test_two_arrays_of_one_name_are_told_apart() -> None:
    one = Estimator(**{"a": {"b": np.ones(1)}, "a.b": np.zeros(1)})
    assert names_of(one) == {"a.b", "a.b~2", STRUCTURE}
    other = Estimator(**{"a": {"b": np.zeros(1)}, "a.b": np.ones(1)})
    assert state_digest(one).root != state_digest(other).root
    assert names_of(Estimator(structure=np.ones(1))) == {STRUCTURE, f"{STRUCTURE}~2"}


def iter_of_nothing() -> Any:
    yield from ()


def local_class() -> Any:
    class Local:
        pass

    return Local()


def deep() -> Any:
    made: list[Any] = []
    for _ in range(100):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (lambda x: x, r"'parts_\.0': found function '<lambda>'"),
        (local_class(), r"'parts_\.0': found type 'local_class\.<locals>\.Local'"),
        (threading.Lock(), r"'parts_\.0': found _thread\.lock"),
        (iter_of_nothing(), r"'parts_\.0': found generator"),
        (deep(), r"'parts_\.0.*' is nested deeper than 64 levels"),
        (
            np.ma.masked_array([1.0]).view(np.ma.mrecords.MaskedRecords),
            r"'parts_\.0': found numpy\.ma\.mrecords\.MaskedRecords",
        ),
        (Reduced(Estimator), r"'parts_\.0': found .*Reduced, expected what pickle keeps"),
        (np.longdouble(1), r"'parts_\.0': found numpy\.longdouble"),
        (np.array([1], np.longdouble), r"'parts_\.0': found dtype (float128|longdouble)"),
        ({Estimator(a=1)}, r"'parts_\.0': found .*Estimator as a key or in a set"),
        ("\ud800", "text that is not Unicode"),
    ],
    ids=range(11),
)
def test_what_cannot_be_told_is_refused_by_name(value: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        state_digest(Estimator(parts_=[value]))
    with pytest.raises(InputError, match="found _io"), open(os.devnull) as file:
        state_digest(Estimator(file=file))


@pytest.mark.parametrize(
    "model", [LinearRegression(), make_pipeline(LinearRegression()), VotingClassifier([])]
)
def test_an_estimator_that_is_not_fitted_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match=f"{type(model).__name__} is not fitted"):
        state_digest(model)


def test_what_does_not_tell_whether_it_is_fitted_is_refused() -> None:
    class Bare(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __sklearn_is_fitted__(self) -> bool:
            raise AttributeError("no\nlines")

        def fit(self) -> None: ...

    with pytest.raises(InputError, match="Bare does not tell whether it is fitted: no$"):
        state_digest(Bare())


def test_lists_in_lists_end(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled: list[object] = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    monkeypatch.setattr(estimators, "MAX_VALUES", 1000)
    with pytest.raises(InputError, match=r"'a\.0.*': more than 1000 values in all"):
        state_digest(Estimator(a=doubled))


def test_unfitted_and_needs_no_fit() -> None:
    assert names_of(Binarizer()) == {STRUCTURE}
