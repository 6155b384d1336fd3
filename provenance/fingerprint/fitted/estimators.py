"""What a fitted estimator is: its arrays as tensors, and all the rest of it as one text.

WARNING: FROZEN FORMAT, as in tensors.py: names and the text are part of the digests. No I/O, no
clock, no randomness. scikit-learn is never imported here.

An estimator is what ``pickle`` keeps of it (``object.__reduce_ex__``, protocol 4): every attribute
of it and of each object in it, whatever its name, fitted or a hyperparameter, Python's or compiled.
Arrays of numbers and of texts, and fitted floats (attributes that end in ``_``), are tensors by
dotted name. The tensor `STRUCTURE` (U8, its bytes, so that a safetensors file can hold it) is
compact JSON in UTF-8: a list of the objects, the estimator first, each as ::

    {"new": class, "args": [...], "state": {attribute: value, ...}, "items": [...], "pairs": [...]}

with ``call`` for ``new`` where another function than ``cls.__new__`` makes it, ``setter`` where one
takes the state, and without what is empty. null, true, false, texts and integers below 2**53 are
themselves. All else is a list::

    ["tensor", name]                         ["object", position in the list]
    ["int", hexadecimal]                     ["float", repr]          ["bytes", hexadecimal]
    ["list", ...]     ["tuple", ...]         ["set", ..., sorted]     ["frozenset", ..., sorted]
    ["dict", [key, value], ..., sorted]      ["global", module, qualified name]
    ["numpy", dtype, hexadecimal]            a scalar
    ["array", dtype, shape, ...]             objects, items in row-major order
    ["raw", dtype, value]                    bytes; times, as the tensor of their integers
    ["fields", dtype, [name, value], ...]    a structured array
    ["masked", data, mask, fill value]       nothing of what is masked
    [class, array, attributes]               an array of a class of its own
    ["sparse", class, shape, data, indices, indptr]      as CSR, sorted, without duplicates
    ["xgboost", tensor]   ["lightgbm", tensor, best iteration]
    ["catboost", class, tensor, or its options where it is not trained]
    ["random", class]                        a generator of random numbers, without its state
    [{"new": ...}]                           an object without attributes

Left out is what says how the training ran and not what came of it: `_APART`, `_APART_OF`. What
cannot be told completely is refused by name: a lambda, a class defined in a function, an open file.

Over 400 lines: one walk that writes one text, whose grammar is above.
"""

from __future__ import annotations

import copyreg
import json
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from random import Random
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    Array,
    RawTensor,
    encode_text,
    is_array,
    load_numpy,
    raw_bytes,
    raw_float,
    raw_text,
    type_name,
)
from provenance.fingerprint.fitted.boosters import OF, best_iteration, booster_tensor, library_of

STRUCTURE: Final = "structure"
MAX_DEPTH: Final = 64
"""Levels of containers within one object."""
MAX_VALUES: Final = 20_000_000
"""Values that are no texts: a list counts each time that another names it."""

_APART: Final = frozenset({
    "n_jobs", "nthread", "nthreads", "num_threads", "thread_count", "verbose", "verbosity",
    "_sklearn_version",
})  # fmt: skip
"""Attributes of any estimator that do not count."""
_APART_OF: Final = {
    "sklearn": frozenset({
        "memory", "pre_dispatch", "n_threads", "_n_threads", "_init_prev_time", "_iter_prev_time",
    }),
    "sklearn.neural_network": frozenset({"_optimizer"}),  # moments of the gradients
    "sklearn.feature_extraction": frozenset({"_stop_words_id"}),  # an address
    "sklearn.preprocessing._label": frozenset({"_cached_dict"}),  # made when it is first used
    "lightgbm": frozenset({"random_state"}),
    "xgboost": frozenset({"callbacks", "random_state"}),
} | dict.fromkeys(
    # None of these draws random numbers once it is fitted.
    (
        "sklearn.calibration", "sklearn.cluster", "sklearn.covariance", "sklearn.ensemble",
        "sklearn.gaussian_process", "sklearn.kernel_approximation", "sklearn.linear_model",
        "sklearn.manifold", "sklearn.model_selection", "sklearn.multiclass",
        "sklearn.multioutput", "sklearn.neighbors", "sklearn.preprocessing",
        "sklearn.random_projection", "sklearn.svm", "sklearn.tree",
        "sklearn.decomposition._fastica", "sklearn.decomposition._kernel_pca",
        "sklearn.decomposition._pca", "sklearn.decomposition._truncated_svd",
        "sklearn.neural_network._multilayer_perceptron",
    ),
    frozenset({"random_state", "_random_seed"}),
)  # fmt: skip
"""More that do not count, by the package of the class."""
_OPTIONS: Final = frozenset({"_other_params", "kwargs"})
"""Attributes of XGBoost's and LightGBM's estimators that hold further hyperparameters."""
_SEARCH: Final = "sklearn.model_selection._search"
_TIMES: Final = frozenset(
    f"{of}_{what}_time" for of in ("mean", "std") for what in ("fit", "score")
)
"""Keys of ``cv_results_`` that do not count."""
_TREE: Final = {
    "left_child": "children_left", "right_child": "children_right", "values": "value",
    "nodes": "",
}  # fmt: skip
"""Names of a tree's arrays, as its properties have them, by those of its state."""
_TENSORS: Final = frozenset({"torch", "jax", "jaxlib", "cupy", "tensorflow"})
"""Packages whose arrays are their elements alone."""
# What `__reduce_ex__` raises for an object that cannot be pickled.
_NOT_PICKLED: Final = (
    TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError, OSError,
    pickle.PicklingError,
)  # fmt: skip

Json = Any


def estimator_values(model: Any) -> tuple[list[tuple[str, object]], dict[str, Json]]:
    """The tensors of a fitted estimator by name, `STRUCTURE` among them, and what they cover.

    The name of an array is the shortest way to it by attributes, keys and indices, such as
    ``steps.1.1.coef_``; of several, the first by the attributes' names. Raises InputError: it is
    not fitted, or something in it cannot be told completely: the message names the attribute and
    the type found."""
    _check_fitted(model)
    walk = _Walk()
    walk.run(model)
    package = type(model).__module__.partition(".")[0]
    of = ["fitted attributes", "hyperparameters", *sorted(walk.boosters)]
    adapter = package if package in OF else "sklearn"
    return walk.values, {"adapter": adapter, "of": of}


def _check_fitted(model: Any) -> None:
    validation = sys.modules.get("sklearn.utils.validation")
    base = getattr(sys.modules.get("sklearn.base"), "BaseEstimator", None)
    if validation is None or base is None or not isinstance(model, base):
        return
    try:
        validation.check_is_fitted(model)
    except sys.modules["sklearn.exceptions"].NotFittedError as error:
        raise InputError(f"model: {type_name(model)} is not fitted, and has no tensors") from error
    except (AttributeError, TypeError, ValueError) as error:
        found = f"model: {type_name(model)} does not tell whether it is fitted"
        raise InputError(f"{found}: {str(error)[:200].partition(chr(10))[0]}") from error


class _Walk:
    """The objects of an estimator, breadth first; the short way to an array names it."""

    def __init__(self) -> None:
        self.values: list[tuple[str, object]] = []
        self.boosters: set[str] = set()
        self._count = 0
        self._names = {STRUCTURE}
        self._known: dict[int, tuple[int, object]] = {}  # holds them: an id is theirs as long
        self._queue: list[tuple[object, tuple[Any, ...], str]] = []
        self._np = load_numpy()
        self._by_kind: dict[type, Callable[[Any, str, int], Json]] = {
            int: lambda value, *_: value if abs(value) < 1 << 53 else ["int", hex(value)],
            float: lambda value, *_: ["float", repr(value)],
            bytes: lambda value, *_: ["bytes", value.hex()],
            list: self._sequence,
            tuple: self._sequence,
            set: self._set,
            frozenset: self._set,
            dict: self._dict,
            type: self._global,
            FunctionType: self._global,
            BuiltinFunctionType: self._builtin,
            ModuleType: lambda value, *_: ["global", value.__name__, ""],
        }

    def run(self, model: object) -> None:
        self._told(model, "", 0)
        objects = []
        for value, reduced, path in self._queue:  # grows
            objects.append(self._object(value, reduced, path, 0))
        text = json.dumps(objects, ensure_ascii=False, separators=(",", ":"))
        data = encode_text(text, "model")
        self.values.append((STRUCTURE, raw_bytes(STRUCTURE, "U8", (len(data),), [data])))

    def _told(self, value: Any, path: str, depth: int) -> Json:
        """The JSON of a value; its arrays become tensors, its objects wait for their turn."""
        kind = value.__class__
        if value is None or kind is str or kind is bool:
            return value
        if depth > MAX_DEPTH:
            raise InputError(f"model: {path!r} is nested deeper than {MAX_DEPTH} levels")
        self._count += 1
        if self._count > MAX_VALUES:
            raise InputError(f"model: {path[:80]!r}: more than {MAX_VALUES} values in all")
        tell = self._by_kind.get(kind)
        if tell is None:
            tell = self._by_kind[kind] = self._teller(kind, value)
        return tell(value, path, depth)

    def _teller(self, kind: Any, value: object) -> Callable[[Any, str, int], Json]:
        np, random = self._np, self._np.random
        if issubclass(kind, np.ma.MaskedArray):
            return self._masked
        if issubclass(kind, np.ndarray):
            return self._array
        if issubclass(kind, np.generic):
            return self._scalar
        generators = Random | random.RandomState | random.Generator | random.BitGenerator
        if issubclass(kind, generators) or type_name(value) == "torch._C.Generator":
            return lambda value, *_: ["random", type_name(value)]
        if issubclass(kind, type):
            return self._global
        if kind.__module__.startswith("scipy.sparse") and hasattr(value, "tocsr"):
            return self._sparse
        if library_of(kind):
            return self._booster
        packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
        if packages & _TENSORS and is_array(value):
            return lambda value, path, _: self._tensor(path, value)
        return self._reference

    # --- plain values ------------------------------------------------------------------------

    def _sequence(self, value: Any, path: str, depth: int) -> Json:
        told = [self._told(item, _joined(path, i), depth + 1) for i, item in enumerate(value)]
        return [value.__class__.__name__, *told]

    def _set(self, value: Any, path: str, depth: int) -> Json:
        return [value.__class__.__name__, *sorted((self._key(i, path) for i in value), key=_text)]

    def _dict(self, value: Any, path: str, depth: int) -> Json:
        return ["dict", *self._pairs(value.items(), path, depth)]

    def _pairs(
        self, items: Iterable[tuple[Any, Any]], path: str, depth: int, ordered: bool = False
    ) -> list[Json]:
        keyed = [(self._key(key, path), item) for key, item in items]
        if not ordered:
            keyed.sort(key=lambda pair: _text(pair[0]))
        return [[key, self._told(item, _joined(path, key), depth + 1)] for key, item in keyed]

    def _key(self, value: Any, path: str) -> Json:
        """The JSON of a key, or of an item of a set: without objects, since those have a position
        by their order."""
        if value.__class__ is str or (value.__class__ is int and abs(value) < 1 << 53):
            return value
        inner = _Walk()
        told = inner._told(value, path, 0)
        if inner.values or inner._queue:
            raise InputError(
                f"model: {path!r}: found {type_name(value)} as a key or in a set, expected a text,"
                " number, or another plain value"
            )
        return told

    def _scalar(self, value: Any, path: str, depth: int) -> Json:
        if value.dtype.kind not in "biufcmMSU" or value.dtype.char in "gG":
            raise self._unknown(value, path)
        dtype = value.dtype.newbyteorder("<")
        return ["numpy", dtype.str, value.astype(dtype).tobytes().hex()]

    def _builtin(self, value: Any, path: str, depth: int) -> Json:
        owner = value.__self__
        if isinstance(owner, ModuleType) or owner is None:
            return self._global(value, path, depth)
        return self._reference(value, path, depth)  # a method of an object

    def _global(self, value: Any, path: str, depth: int, name: str = "") -> Json:
        """A function or class that is found by its name, as pickle finds it."""
        qualified = name or getattr(value, "__qualname__", "")
        module = getattr(value, "__module__", None)
        for where in (module,) if module else ("builtins", "numpy", "scipy.special"):
            found: Any = sys.modules.get(where)
            for part in qualified.split("."):
                found = getattr(found, part, None)
            if found is value:
                return ["global", where, qualified]
        raise InputError(
            f"model: {path!r}: found {type_name(value)} {qualified or value!r}, which its module"
            " does not have by that name: a digest cannot cover it; define it at the module's top"
        )

    # --- arrays ------------------------------------------------------------------------------

    def _tensor(self, name: str, value: object) -> Json:
        used, count = name, 1
        while used in self._names:
            count += 1
            used = f"{name}~{count}"
        self._names.add(used)
        if isinstance(value, RawTensor):
            value = value._replace(name=used)
        self.values.append((used, value))
        return ["tensor", used]

    def _array(self, array: Array, path: str, depth: int) -> Json:
        kind, plain = array.__class__, self._np.ndarray
        if kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__:
            return self._reference(array, path, depth)
        told = self._plain_array(self._np.asarray(array), path, depth)
        if kind in (plain, self._np.memmap):
            return told
        attributes = self._told(object.__getstate__(array), path, depth + 1)
        return [self._global(kind, path, depth), told, *([attributes] if attributes else [])]

    def _plain_array(self, array: Array, path: str, depth: int) -> Json:
        dtype, kind = array.dtype, array.dtype.kind
        if dtype.names is not None:
            told = [[name, self._told(array[name], _joined(path, name), depth)]
                    for name in dtype.names]  # fmt: skip
            return ["fields", str(dtype.newbyteorder("<")), *told]
        if kind == "U" or (kind in "OT" and all(type(item) is str for item in array.flat)):
            return self._tensor(path, raw_text(path, [str(i) for i in array.flat], array.shape))
        if kind in "OT":
            told = [self._told(i, _joined(path, n), depth + 1) for n, i in enumerate(array.flat)]
            return ["array", "object", list(array.shape), *told]
        if kind in "mM":
            little = dtype.newbyteorder("<")
            return ["raw", little.str, self._tensor(path, array.astype(little).view("<i8"))]
        if kind == "S" or dtype.type is self._np.void:
            return ["raw", dtype.str, ["bytes", array.tobytes().hex()], list(array.shape)]
        return self._tensor(path, array)

    def _masked(self, array: Array, path: str, depth: int) -> Json:
        if array is self._np.ma.masked:
            return ["global", "numpy.ma", "masked"]
        kind = self._np.ma.MaskedArray
        more = vars(array).keys() - vars(kind(0)).keys() or array._optinfo
        if array.__class__ is not kind or array.baseclass is not self._np.ndarray or more:
            raise InputError(
                f"model: {path!r}: found {type_name(array)} of {array.baseclass.__name__}, with a"
                " class or attributes of its own; expected a masked array without"
            )
        mask, fill = self._np.ma.getmaskarray(array), array.fill_value
        data = self._np.array(array.data)
        data[mask] = self._np.zeros((), data.dtype)[()] if data.dtype.kind != "O" else None
        return [
            "masked",
            self._array(data, path, depth),
            self._array(mask, _joined(path, "mask"), depth),
            self._told(getattr(fill, "item", lambda: fill)(), _joined(path, "fill_value"), depth),
        ]

    def _sparse(self, value: Any, path: str, depth: int) -> Json:
        if len(value.shape) > 2:
            return self._reference(value, path, depth)
        rows = value.tocsr(copy=True)
        rows.sum_duplicates()
        parts = [self._array(getattr(rows, key), _joined(path, key), depth)
                 for key in ("data", "indices", "indptr")]  # fmt: skip
        return ["sparse", type_name(value), list(map(int, value.shape)), *parts]

    # --- objects -----------------------------------------------------------------------------

    def _booster(self, value: Any, path: str, depth: int) -> Json:
        library = library_of(value.__class__) or ""
        if library == "catboost" and not value.is_fitted():  # as a hyperparameter
            options = {k: v for k, v in value._init_params.items() if k not in _APART}
            return [library, self._global(type(value), path, depth), self._dict(options, path, 0)]
        self.boosters.add(f"{library} {OF[library]}")
        told = [library, self._tensor(path, booster_tensor(path, value, library))]
        if library == "lightgbm":
            told.append(best_iteration(value))
        if library == "catboost":
            told.insert(1, self._global(type(value), path, depth))
        return told

    def _reference(self, value: Any, path: str, depth: int) -> Json:
        if (known := self._known.get(id(value))) is not None:
            return ["object", known[0]]
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except _NOT_PICKLED as error:
            raise self._unknown(value, path) from error
        if isinstance(reduced, str):
            return self._global(value, path, depth, reduced)
        if not (isinstance(reduced, tuple) and 2 <= len(reduced) <= 6):
            raise self._unknown(value, path)
        if value.__class__.__module__ == "sklearn.utils._bunch":
            reduced = (*reduced[:2], None, *reduced[3:])  # its `__setstate__` drops it
        own: Any = type(value).__reduce__
        if own in (set.__reduce__, frozenset.__reduce__):  # in no order
            reduced = (reduced[0], (set(value),), *reduced[2:])
        if isinstance(value, partial):  # no attributes are None until they are asked for
            reduced = (*reduced[:2], (*reduced[2][:3], reduced[2][3] or None))
        state, items, pairs = (*reduced[2:], None, None, None)[:3]
        if not isinstance(state, dict) and items is None and pairs is None:
            return [self._object(value, reduced, path, depth + 1)]
        position = len(self._queue)
        self._known[id(value)] = position, value
        self._queue.append((value, reduced, path))
        return ["object", position]

    def _object(self, value: Any, reduced: tuple[Any, ...], path: str, depth: int) -> Json:
        made, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
        told: dict[str, Json] = {}
        if made is copyreg.__newobj__:  # type: ignore[attr-defined]  # pickle's own
            told["new"], args = self._global(args[0], path, depth), args[1:]
        else:
            told["call"] = self._told(made, _joined(path, "call"), depth)
        if args:
            told["args"] = self._sequence(args, _joined(path, "args"), depth)[1:]
        if isinstance(state, dict):
            told["state"] = self._state(value, state, path)
        elif state is not None:
            state = _lasting(value, state)
            told["state"] = self._told(state, path, depth)
        if setter is not None:
            told["setter"] = self._told(setter, path, depth)
        if items is not None and (listed := list(items)):
            told["items"] = self._sequence(listed, path, depth)[1:]
        if pairs is not None and (listed := list(pairs)):
            told["pairs"] = self._pairs(listed, path, depth, isinstance(value, OrderedDict))
        return told

    def _state(self, owner: Any, state: Mapping[str, Any], path: str) -> Json:
        kind = owner.__class__
        if not all(type(key) is str for key in state):
            return self._dict(state, path, 0)
        left_out, is_search = _left_out(kind)
        names = _TREE if kind.__module__ == "sklearn.tree._tree" else {}
        told: dict[str, Json] = {}
        for key in sorted(state):
            value = state[key]
            if key in left_out:
                continue
            name = _joined(path, names.get(key, key))
            if names and key == "nodes":
                told[key] = self._nodes(value, path)
            elif value.__class__ in (float, self._np.float64) and key.endswith("_"):
                told[key] = self._tensor(name, raw_float(name, float(value)))
            elif isinstance(value, dict) and (
                (is_search and key == "cv_results_") or (key in _OPTIONS and left_out)
            ):
                apart = _TIMES if is_search else left_out
                kept = {k: v for k, v in value.items() if k not in apart}
                told[key] = self._dict(kept, name, 0)
            else:
                told[key] = self._told(value, name, 0)
        return told

    def _nodes(self, nodes: Array, path: str) -> Json:
        """The nodes of a compiled tree by field, under the names of its properties."""
        return ["fields", str(nodes.dtype.newbyteorder("<"))] + [
            [field, self._tensor(_joined(path, _TREE.get(field, field)), nodes[field])]
            for field in nodes.dtype.names
        ]

    def _unknown(self, value: object, path: str) -> InputError:
        return InputError(
            f"model: {path!r}: found {type_name(value)}, expected what pickle keeps: a digest"
            " cannot cover it"
        )


@lru_cache(maxsize=256)
def _left_out(kind: Any) -> tuple[frozenset[str], bool]:
    """Which attributes of a class do not count, and whether it is a search of scikit-learn."""
    if not hasattr(kind, "get_params"):
        return frozenset(), False
    names, module = _APART, kind.__module__
    for package, more in _APART_OF.items():
        if module == package or module.startswith(package + "."):
            names |= more
    search = any(base.__module__.startswith(_SEARCH) for base in kind.__mro__)
    return names | {"refit_time_"} if search else names, search


def _lasting(value: Any, state: Any) -> Any:
    """The state of scikit-learn's KDTree and BallTree without how often they were asked, and of
    SciPy's without the addresses of its nodes."""
    if any(base.__module__ == "scipy.spatial._ckdtree" for base in type(value).__mro__):
        return state[1:]
    if not (type(value).__module__.startswith("sklearn.neighbors.") and isinstance(state, tuple)):
        return state
    counts = (*value.get_tree_stats(), value.get_n_calls())
    if state[7:11] != counts:
        raise InputError(f"model: found {type_name(value)} of an unknown release of scikit-learn")
    return (*state[:7], *state[11:])


def _text(told: Json) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _joined(path: str, key: Json) -> str:
    name = key if type(key) is str else _text(key)
    return f"{path}.{name}" if path else name
