"""Content digests of tensors and model states, independent of the framework.

WARNING: FROZEN FORMAT. These digests are written into records that an auditor recomputes
in ten years. Add a version; never change what an existing one means. No clock and no
randomness; only `state_digest_file` does I/O: it reads the file that it is given.

::

    tensor digest = H(header || little-endian row-major elements)      see arrays.py
    state root    = MTH(tensor digests, sorted by the UTF-8 bytes of the tensors' names)

H is the content hash (`HashFactory`), MTH the Merkle Tree Hash of RFC 6962 (SHA-256), whose
leaf data are the tensor digests' bytes: so one tensor of a state can be proven alone. A torch
``state_dict``, the safetensors file saved from it and the same arrays in NumPy have the same
digest. Tied weights count once for each name that they have.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    Array,
    RawTensor,
    from_package,
    is_array,
    is_resident,
    kind_of,
    load_numpy,
    raw_float,
    raw_tensor,
    raw_text,
    small_tensor,
    tensor_header,
    type_name,
)
from provenance.fingerprint.cuda import device
from provenance.fingerprint.hashers import THREADED_BYTES, Digest, HashFactory
from provenance.fingerprint.weight_files import npz_tensors_file, safetensors_tensors_file
from provenance.formats import merkle

ROOT_ALGORITHM: Final = "mth-sha256"
"""How a root is written: ``mth-sha256:<hex>``, 32 bytes."""

MAX_DEPTH: Final = 32
"""Levels of nested dicts, lists and estimators that are searched for tensors."""

# What an estimator keeps of its training beside the model: gradients' moments, random state.
_NOT_THE_MODEL: Final = frozenset({"_optimizer", "_random_state"})
# sklearn.tree's compiled Tree has no __dict__; its arrays are these properties.
_TREE_ARRAYS: Final = (
    "children_left", "children_right", "feature", "threshold", "impurity",
    "n_node_samples", "weighted_n_node_samples", "value", "missing_go_to_left",
)  # fmt: skip


class TensorDigest(NamedTuple):
    """The digest of one tensor.

    Args:
        name: Its name within the state.
        dtype: Element type by its safetensors name, such as ``BF16``.
        shape: Elements along each axis; empty for a scalar.
        nbytes: Size of the elements in bytes.
        algorithm: Content hash.
        value: ``H(header || elements)``; as many bytes as the algorithm has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    algorithm: str
    value: bytes

    @property
    def digest(self) -> Digest:
        """``H(header || elements)`` with its algorithm."""
        return Digest(self.algorithm, self.value)

    def as_fields(self) -> dict[str, Any]:
        """The tensor as plain JSON values: name, dtype, shape and digest."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "digest": str(self.digest),
        }


@dataclass(frozen=True, slots=True)
class StateDigest:
    """The digest of a model state.

    Args:
        root: Merkle Tree Hash over the tensor digests; 32 bytes.
        algorithm: Content hash of the tensor digests.
        tensors: The tensors, sorted by the UTF-8 bytes of their names.
        tied: The names of each tensor in memory that has several. It is no part of the digest:
            a file of the same state has none.
    """

    root: bytes
    algorithm: str
    tensors: tuple[TensorDigest, ...]
    tied: tuple[tuple[str, ...], ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{ROOT_ALGORITHM}:{self.root.hex()}"

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors' elements together."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def leaves(self) -> list[bytes]:
        """Leaf data of the tree, in order, for an inclusion proof of one tensor."""
        return [tensor.value for tensor in self.tensors]

    def as_fields(self) -> dict[str, Any]:
        """The state as plain JSON values (str, int, list), for a record."""
        tied = {"tied": [list(names) for names in self.tied]} if self.tied else {}
        return {
            **tied,
            "algorithm": self.algorithm,
            "root": str(self),
            "tensor_count": len(self.tensors),
            "parameter_count": self.parameter_count,
            "bytes": self.nbytes,
            "tensors": [tensor.as_fields() for tensor in self.tensors],
        }


def tensor_digest(name: str, value: object, factory: HashFactory | None = None) -> TensorDigest:
    """The digest of one array of any framework.

    Args:
        name: The name that goes into the digest.
        value: ndarray, torch tensor, or an object with ``__array__`` or ``__dlpack__``; any
            shape and strides.
        factory: Content hash; blake3 when left out.

    Raises:
        InputError: no dense array of numbers; the message names the tensor and its dtype.
    """
    return _digests([(name, value)], factory or HashFactory())[0]


def state_digest(
    model: object,
    factory: HashFactory | None = None,
    known: Mapping[str, TensorDigest] = MappingProxyType({}),
) -> StateDigest:
    """The digest of a model's state. Tensors are read, and moved to the CPU, one by one.

    Args:
        model: One of

            - a mapping or sequence of arrays; nested ones are named ``outer.inner``
            - an object with ``state_dict()``, such as ``torch.nn.Module``
            - an estimator in the manner of scikit-learn: its fitted arrays by attribute, such
              as ``coefs_.0``
            - one array, which then has the name ``""``
            - the path of a ``.safetensors`` or ``.npz`` file
        factory: Content hash; blake3 when left out.
        known: Digests of tensors in memory by name, which are not read, and need not be there.

    Raises:
        InputError: no tensors, two tensors of one name, or something that is no tensor.
        FormatError: a file that does not decode.
    """
    used = factory or HashFactory()
    if isinstance(model, str | os.PathLike):
        return state_digest_file(model, used)
    pairs = _sorted_values(model, some=not known)
    if not known:
        return _state(_digests(pairs, used), used, _tied(pairs))
    digests = _digests([pair for pair in pairs if pair[0] not in known], used)
    return _state(sorted([*digests, *known.values()]), used, _tied(pairs))


def hashed_on_device(model: object, factory: HashFactory) -> bool:
    """True where all of a model's tensors lie on CUDA devices that hash them: sooner than they
    could be copied.

    Raises:
        InputError: As `state_digest`.
    """
    return device.in_use() and all(
        is_resident(value) and device.usable(value.device, factory)
        for _, value in _sorted_values(model)
    )


def state_tensors(model: object) -> Iterator[RawTensor]:
    """The tensors of a model as :func:`state_digest` takes it, sorted by name; those of a file as
    they lie there, each to be read before the next is asked for.

    Raises:
        InputError, FormatError: As `state_digest`.
    """
    if isinstance(model, str | os.PathLike):
        yield from _file_tensors(os.fspath(model))
        return
    for name, value in _sorted_values(model):
        yield _raw(name, value)


def state_digest_file(
    path: str | os.PathLike[str], factory: HashFactory | None = None
) -> StateDigest:
    """The digest of the tensors in a ``.safetensors`` or ``.npz`` file, without torch.

    A safetensors file is mapped into memory, not read into it.

    Raises:
        InputError: missing file, another kind of file, no tensors.
        FormatError: it does not decode; the message says where.
    """
    where, used = os.fspath(path), factory or HashFactory()
    tensors = ((raw.name, raw) for raw in _file_tensors(where))
    digests = sorted(_digests(tensors, used))  # by name: they differ
    if not digests:
        raise InputError(f"model file {where!r}: no tensors, expected at least one")
    return _state(digests, used)


def _file_tensors(where: str) -> Iterator[RawTensor]:
    if where.endswith(".safetensors"):
        return safetensors_tensors_file(where)
    if where.endswith(".npz"):
        return npz_tensors_file(where)
    raise InputError(f"model file {where!r}: expected a name in .safetensors or .npz")


def _state(
    digests: list[TensorDigest], factory: HashFactory, tied: tuple[tuple[str, ...], ...] = ()
) -> StateDigest:
    root = merkle.root([tensor.value for tensor in digests])
    return StateDigest(root, factory.algorithm, tuple(digests), tied)


def _digests(tensors: Iterable[tuple[str, Any]], factory: HashFactory) -> list[TensorDigest]:
    """``H(header || elements)`` of each: a small one in one call, large ones by one hasher."""
    digests: list[TensorDigest] = []
    made = partial(tuple.__new__, TensorDigest)  # half the time of its own constructor
    algorithm, digest_of, threaded = factory.algorithm, factory.one_by_one(), None
    resident = device.resident_digests(tensors, factory) if isinstance(tensors, list) else {}
    for name, tensor in tensors:
        if resident and name in resident:
            dtype, shape, nbytes, value = resident[name]
        elif (small := small_tensor(tensor)) is not None:
            dtype, shape, nbytes, data = small
            value = digest_of(b"".join((tensor_header(name, dtype, shape), data)))
        else:
            raw = _raw(name, tensor)
            dtype, shape, nbytes = raw.dtype, raw.shape, raw.nbytes
            hasher = factory.new(nbytes, threaded)
            if nbytes >= THREADED_BYTES:
                threaded = hasher
            raw.feed(hasher.update)
            value = hasher.digest()
        digests.append(made((name, dtype, shape, nbytes, algorithm, value)))
    return digests


def _raw(name: str, value: object) -> RawTensor:
    return value if isinstance(value, RawTensor) else raw_tensor(name, value)


def _sorted_values(model: object, some: bool = True) -> list[tuple[str, Array]]:
    """Names and values by the UTF-8 bytes of the names, which sort as their code points do."""
    pairs = sorted(named_values(model), key=itemgetter(0))
    if some and not pairs:
        raise InputError(f"model: {type_name(model)} has no tensors, expected at least one")
    for (name, _), (other, _) in pairwise(pairs):
        if name == other:
            raise InputError(f"model: two tensors have the name {name!r}")
    return pairs


def _tied(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """The names of each tensor that has several: one array, or one memory of torch's that is
    read in one way."""
    places = [
        value.data_ptr() if kind_of(value.__class__) == "tensor" else id(value)
        for _, value in pairs
    ]
    if len(set(places)) == len(places):
        return ()
    names: dict[object, list[str]] = {}
    for place, (name, value) in zip(places, pairs, strict=True):
        read: tuple[object, ...] = ()
        if kind_of(value.__class__) == "tensor":
            read = (value.device, value.dtype, value.shape, value.stride(), value.nbytes or name)
        names.setdefault((place, *read), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def named_values(model: object) -> list[tuple[str, object]]:
    """The tensors of a model in memory, or what stands in their place, each with its name."""
    found: list[tuple[str, object]] = []
    if is_array(model):
        found.append(("", model))
    elif callable(getattr(model, "state_dict", None)):
        _tree(found, model.state_dict(), "", 0)  # type: ignore[attr-defined]  # a module, by its method
    elif isinstance(model, Mapping | list | tuple):
        _tree(found, model, "", 0)
    elif callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        found += _attributes(model, "", type(model).__module__.partition(".")[0], ())
    else:
        raise InputError(
            f"model: found {type_name(model)}, expected a mapping of names to arrays, a module with"
            " state_dict(), a fitted estimator, or the path of a .safetensors or .npz file"
        )
    return found


def _tree(found: list[tuple[str, object]], value: object, path: str, depth: int) -> None:
    """Add what is in nested mappings and sequences; what is no array is refused later."""
    if depth > MAX_DEPTH:
        raise InputError(f"model: {path!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        items: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        found.append((path, value))
        return
    item: Any
    for key, item in items:
        if key.__class__ is not str and not isinstance(key, str | int):
            raise InputError(f"model: {path!r} has a key {key!r}, expected a name")
        name = f"{path}.{key}" if path else str(key)
        if _is_nested(item.__class__):
            _tree(found, item, name, depth + 1)
        else:
            found.append((name, item))


@lru_cache(maxsize=256)
def _is_nested(kind: Any) -> bool:
    return issubclass(kind, Mapping | list | tuple) and kind is not RawTensor


def _attributes(
    owner: object, path: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    """Arrays among an estimator's attributes, and in what it is made of, by dotted name.

    Attributes that end in ``_`` (fitted, by scikit-learn's convention) may be plain floats.
    """
    if id(owner) in above or len(above) > MAX_DEPTH:
        return
    np = load_numpy()
    for key, value in sorted(getattr(owner, "__dict__", {}).items()):
        name = _joined(path, key)
        if key in _NOT_THE_MODEL:
            continue
        if isinstance(value, np.number):
            yield name, value
        elif isinstance(value, float) and key.endswith("_"):
            yield name, raw_float(name, value)
        else:
            yield from _fitted(value, name, package, (*above, id(owner)))


def _fitted(
    value: object, name: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    if isinstance(value, load_numpy().ndarray):
        yield from _fitted_array(value, name, package, above)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _fitted(item, _joined(name, str(key)), package, above)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _fitted(item, _joined(name, str(index)), package, above)
    elif from_package(value, "sklearn.tree._tree"):
        for key in _TREE_ARRAYS:
            if (array := getattr(value, key, None)) is not None:
                yield _joined(name, key), array
    elif from_package(value, "scipy.sparse"):
        raise InputError(f"tensor {name!r}: found {type_name(value)}, expected a dense array")
    elif from_package(value, package) or callable(getattr(value, "get_params", None)):
        yield from _attributes(value, name, package, above)


def _fitted_array(
    array: Array, name: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    """An estimator's array: numbers, a structure by field, texts (classes), or estimators."""
    if array.dtype.names is not None:
        for field in array.dtype.names:
            yield from _fitted_array(array[field], _joined(name, field), package, above)
    elif array.dtype.kind in "UO" and all(isinstance(item, str) for item in array.flat):
        yield name, raw_text(name, [str(item) for item in array.flat], array.shape)
    elif array.dtype.kind == "O":
        for index, item in enumerate(array.flat):
            yield from _fitted(item, _joined(name, str(index)), package, above)
    else:
        yield name, array


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
