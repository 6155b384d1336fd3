"""Whatever pickle keeps of a fitted estimator is in its digest: one leaf changed anywhere deep in
it gives another digest or is refused, and a copy of any kind has the same one.

The seed is printed; ``PROVENANCE_MUTATION_SEED`` sets it.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import functools
import io
import os
import pickle
import random
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from provenance.errors import InputError
from provenance.fingerprint.fitted import estimators
from provenance.fingerprint.tensors import state_digest
from tests.property.fingerprint import test_estimators_property

SEED = int(os.environ.get("PROVENANCE_MUTATION_SEED", "0")) or random.SystemRandom().getrandbits(32)
LEAVES = 25
"""Leaves that are changed, of one model."""
LEFT_OUT = {
    "n_jobs", "nthread", "nthreads", "num_threads", "thread_count", "verbose", "verbosity",
    "_sklearn_version", "memory", "pre_dispatch", "n_threads", "_n_threads", "_init_prev_time",
    "_iter_prev_time", "callbacks", "random_state", "_random_seed", "_optimizer", "_stop_words_id",
    "_cached_dict", "refit_time_", "mean_fit_time", "std_fit_time", "mean_score_time",
    "std_score_time",
    "f_",  # of isotonic regression, which is made again when it is unpickled
}  # fmt: skip
"""docs/coverage/sklearn.md: these say how a training ran."""

WHOLE = (
    type, np.random.RandomState, np.random.Generator, functools.partial, pd.DataFrame, pd.Index,
    pd.Series, enum.Enum, scipy.sparse.sparray,
    scipy.sparse.spmatrix,
)  # fmt: skip
"""What is left alone inside, as all is that has a name of its own, such as functions."""
X = np.random.default_rng(0).normal(size=(40, 4))
Y = (X[:, 0] > 0).astype(int)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Slotted:
    __slots__ = ("inner", "scale")

    def __init__(self) -> None:
        self.scale, self.inner = 2.0, {"a": [1, np.arange(3.0)]}


class Reduced:
    """Its state is what it says, and an item for each of its keys."""

    def __init__(self, size: int = 3) -> None:
        self.size, self.table = size, {1: 2.0, "1": 3.0}

    def __reduce__(self) -> Any:
        return Reduced, (self.size,), {"table": self.table, 5: self.size}

    def __setstate__(self, state: Any) -> None:
        self.table = state["table"]


class Unit(float):
    """A number with an attribute."""

    unit = ""


class Tagged(np.ndarray):
    """As arrays with units are; pickle keeps these by its own ``__reduce__``."""

    unit: str

    def __array_finalize__(self, other: Any) -> None:
        self.unit = getattr(other, "unit", "m")

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        return *reduced[:2], (reduced[2], self.unit)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.unit = state[1]


def shifted(x: Any, by: float = 0.0) -> Any:
    return x + by


def metres() -> Any:
    unit = Unit(2.0)
    unit.unit = "m"
    return unit


class Odd(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator with a leaf of every kind."""

    def fit(self, x: Any, y: Any = None) -> Odd:
        self.fitted_ = True
        self.mixed = {1: 0.5, "1": 0.25, (2, "b"): [None], None: 3, b"k": b"x", Colour.RED: 1 + 2j}
        self.nested = np.array([{"a": np.ones(2)}, [1, (2, 3)], None, "x", 2**70], dtype=object)
        self.texts = np.array([["a", "bc"]])
        self.records = np.array([(1, 2.0, "a")], [("i", "i4"), ("f", ">f8"), ("t", "U2")])
        self.recarray = self.records.view(np.recarray)
        self.times = np.array(["2026-01-01", "NaT"], "M8[s]")
        self.masked = np.ma.masked_array([1.0, 2.0], [False, True])
        self.tagged = np.arange(2.0).view(Tagged)
        self.sets = {"a", 1, (2.5, None)}, frozenset({Colour.BLUE})
        self.dates = [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1)]
        self.numbers = [decimal.Decimal("1.10"), Colour.RED, range(3), slice(1, 2), np.float32(3)]
        self.metres_ = metres()
        self.slotted, self.reduced = Slotted(), Reduced()
        self.called = functools.partial(shifted, by=1.5)
        self.sparse = [
            getattr(scipy.sparse, f"{kind}_{form}")(np.eye(3))
            for kind in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
            for form in ("matrix", "array")
        ]
        self.frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])})
        self.index = pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", "t"])
        self.series = pd.Series([1.0, np.nan], index=pd.date_range("2026", periods=2), name="s")
        self.kinds = [
            OrderedDict(a=1, b=2), defaultdict(list, a=[1]), Counter("aab"), deque([1, 2], 3),
            bytearray(b"ab"), metres,
        ]  # fmt: skip
        return self

    def transform(self, x: Any) -> Any:
        return x


MODELS: dict[str, Callable[[], Any]] = {
    "odd": Odd,
    "pipeline": lambda: make_pipeline(StandardScaler(), Odd(), LogisticRegression()),
    "columns": lambda: ColumnTransformer(
        [("s", StandardScaler(), [0, 1]), ("o", OneHotEncoder(handle_unknown="ignore"), [2])],
        remainder="passthrough",
    ),
    "union": lambda: FeatureUnion([("o", Odd()), ("s", StandardScaler())]),
    "voting": lambda: VotingClassifier(
        [("t", DecisionTreeClassifier(random_state=0)), ("k", KNeighborsClassifier(3))],
        weights=[1, 2],
    ),
    "stacking": lambda: StackingClassifier([("k", KNeighborsClassifier())], cv=2),
    "calibrated": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2),
    "search": lambda: GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}, cv=2),
    "function": lambda: FunctionTransformer(shifted, kw_args={"by": 2.0}),
    "partial": lambda: FunctionTransformer(functools.partial(shifted, by=2.0)),
}  # fmt: skip


def fitted(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, Y)


# --- one leaf --------------------------------------------------------------------------------

Change = tuple[str, Callable[[], None]]
"""Where a leaf is, and what changes it."""


def other(value: Any) -> Any:
    """Another value of the same kind; `NotImplemented` where there is none here."""
    if value is None:
        return 0
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, Unit):
        changed = Unit(value)
        changed.unit = value.unit + "m"
        return changed
    if type(value) is int or isinstance(value, np.integer):
        return value + 1
    if type(value) in (float, complex) or isinstance(value, np.inexact):
        return value / 2 if value and np.isfinite(value) else type(value)(1)
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes | bytearray):
        return value + b"x"
    if isinstance(value, enum.Enum):
        return next(item for item in type(value) if item is not value)
    if isinstance(value, datetime.datetime):
        return value + datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return value * 2
    if isinstance(value, range):
        return range(value.stop + 1)
    if isinstance(value, slice):
        return slice(value.start, value.stop, 7)
    if type(value) in (set, frozenset):
        return value | {"another"}
    if isinstance(value, functools.partial):
        return functools.partial(value.func, **{**value.keywords, "another": 1})
    if value is metres:
        return shifted
    if type(value) is tuple:
        for at, item in enumerate(value):
            if (changed := other(item)) is not NotImplemented:
                return (*value[:at], changed, *value[at + 1 :])
    if isinstance(value, pd.DataFrame):
        return value.rename(columns={value.columns[0]: "another"})
    if isinstance(value, pd.MultiIndex):
        return value.set_names("another", level=1)
    if isinstance(value, pd.Series):
        return value.shift(1)
    if scipy.sparse.issparse(value) and value.dtype.kind == "f":
        return type(value)(value.toarray() * 2)
    return NotImplemented


def changes(value: Any, path: str, seen: set[int]) -> Iterator[Change]:
    """A change of each leaf below, in place."""
    if id(value) in seen or isinstance(value, WHOLE) or hasattr(value, "__qualname__"):
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield from of_array(value, path, seen)
        return
    items: list[tuple[Any, Any, Callable[[Any, Any], None]]] = []
    if isinstance(value, dict):
        items += [(k, v, value.__setitem__) for k, v in value.items()]
    elif isinstance(value, list | deque):
        items += [(k, v, value.__setitem__) for k, v in enumerate(value)]
    elif isinstance(value, tuple):
        items += [(k, v, None) for k, v in enumerate(value)]  # type: ignore[misc]  # what is in them
    names = {**getattr(value, "__dict__", {})}
    for kind in type(value).__mro__:
        slots = [name for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
        names |= {name: getattr(value, name) for name in slots if not name.startswith("__")}
    items += [(k, v, functools.partial(object.__setattr__, value)) for k, v in names.items()]
    for key, item, put in items:
        where = f"{path}.{key}"
        if key in LEFT_OUT:
            continue
        changed = other(item)
        if changed is not NotImplemented and put is not None:
            yield where, functools.partial(put, key, changed)
        yield from changes(item, where, seen)


def of_array(array: Any, path: str, seen: set[int]) -> Iterator[Change]:
    if isinstance(array, Tagged):
        yield f"{path}.unit", functools.partial(setattr, array, "unit", array.unit + "m")
    if isinstance(array, np.ma.MaskedArray):
        visible = np.flatnonzero(~np.ma.getmaskarray(array))
        if array.dtype.kind == "f" and len(visible):
            yield path, lambda: array.data.__setitem__(visible[0], array.data[visible[0]] + 1)
        return
    if array.dtype.names:
        for name in array.dtype.names:
            yield from of_array(np.asarray(array)[name], f"{path}.{name}", seen)
        return
    if not array.size or not array.flags.writeable:
        return
    at = (0,) * array.ndim
    if array.dtype.kind == "O":
        for place in np.ndindex(array.shape):
            if (changed := other(array[place])) is not NotImplemented:
                yield f"{path}[{place}]", functools.partial(array.__setitem__, place, changed)
            yield from changes(array[place], f"{path}[{place}]", seen)
    elif array.dtype.kind in "mM":
        yield path, functools.partial(array.__setitem__, at, array[at] + 1)
    elif array.dtype.kind == "U":
        yield path, functools.partial(array.__setitem__, at, "z" if array[at] != "z" else "y")
    elif (changed := other(array[at])) is not NotImplemented:
        yield path, functools.partial(array.__setitem__, at, changed)


def check(model: Any, chance: random.Random, most: int | None = LEAVES) -> None:
    kept = pickle.dumps(model)
    digest = state_digest(model).root
    count = len(list(changes(model, type(model).__name__, set())))
    drawn = range(count) if most is None else chance.sample(range(count), min(most, count))
    for at in drawn:
        again = pickle.loads(kept)
        where, change = list(changes(again, type(model).__name__, set()))[at]
        assert state_digest(again).root == digest, f"{where}: as it was unpickled"
        change()
        try:
            found = state_digest(again).root
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert found != digest, f"{where} does not count"


def copies(model: Any, folder: Path) -> Iterator[Any]:
    yield pickle.loads(pickle.dumps(model, 5))
    yield copy.deepcopy(model)
    joblib.dump(model, folder / "m.joblib")
    yield joblib.load(folder / "m.joblib", mmap_mode="r")
    yield joblib.load(io.BytesIO((folder / "m.joblib").read_bytes()))
    yield fitted(clone(model))


def test_what_is_left_out_is_left_out_here() -> None:
    assert estimators._APART.union(*estimators._APART_OF.values()) <= LEFT_OUT


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_leaf_of_a_model_counts(name: str, tmp_path: Path) -> None:
    print(f"PROVENANCE_MUTATION_SEED={SEED}")
    model = fitted(MODELS[name]())
    check(model, random.Random(f"{SEED} {name}"), None if name == "odd" else LEAVES)
    digest = state_digest(model).root
    assert [state_digest(other).root for other in copies(model, tmp_path)] == [digest] * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_leaves_of_every_estimator_count() -> None:
    print(f"PROVENANCE_MUTATION_SEED={SEED}")
    chance = random.Random(SEED)
    for name, kind in all_estimators():
        check(test_estimators_property.fitted(name, kind, 0), chance, 3)
