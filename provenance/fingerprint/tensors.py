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
from dataclasses import dataclass
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    Array,
    RawTensor,
    from_package,
    is_array,
    load_numpy,
    raw_float,
    raw_tensor,
    raw_text,
    type_name,
)
from provenance.fingerprint.hashers import Digest, HashFactory
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


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """The digest of one tensor.

    Args:
        name: Its name within the state.
        dtype: Element type by its safetensors name, such as ``BF16``.
        shape: Elements along each axis; empty for a scalar.
        digest: ``H(header || elements)``.
        nbytes: Size of the elements in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: Digest
    nbytes: int

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
    """

    root: bytes
    algorithm: str
    tensors: tuple[TensorDigest, ...]

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
        return [tensor.digest.value for tensor in self.tensors]

    def as_fields(self) -> dict[str, Any]:
        """The state as plain JSON values (str, int, list), for a record."""
        return {
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
    return _hashed(raw_tensor(name, value), factory or HashFactory())


def state_digest(model: object, factory: HashFactory | None = None) -> StateDigest:
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

    Raises:
        InputError: no tensors, two tensors of one name, or something that is no tensor.
        FormatError: a file that does not decode.
    """
    used = factory or HashFactory()
    if isinstance(model, str | os.PathLike):
        return state_digest_file(model, used)
    return _state(state_tensors(model), used)


def state_tensors(model: object) -> Iterator[RawTensor]:
    """The tensors of a model in memory, as :func:`state_digest` takes it, sorted by name.

    Raises:
        InputError: As `state_digest`.
    """
    values: dict[str, object] = {}
    for name, value in _named_values(model):
        if name in values:
            raise InputError(f"model: two tensors have the name {name!r}")
        values[name] = value
    if not values:
        raise InputError(f"model: {type_name(model)} has no tensors, expected at least one")
    for name in sorted(values, key=_utf8):
        yield _raw(name, values[name])


def state_digest_file(
    path: str | os.PathLike[str], factory: HashFactory | None = None
) -> StateDigest:
    """The digest of the tensors in a ``.safetensors`` or ``.npz`` file, without torch.

    A safetensors file is mapped into memory, not read into it.

    Raises:
        InputError: missing file, another kind of file, no tensors.
        FormatError: it does not decode; the message says where.
    """
    where = os.fspath(path)
    if where.endswith(".safetensors"):
        tensors = safetensors_tensors_file(where)
    elif where.endswith(".npz"):
        tensors = npz_tensors_file(where)
    else:
        raise InputError(f"model file {where!r}: expected a name in .safetensors or .npz")
    state = _state(tensors, factory or HashFactory())
    if not state.tensors:
        raise InputError(f"model file {where!r}: no tensors, expected at least one")
    return state


def _state(tensors: Iterable[RawTensor], factory: HashFactory) -> StateDigest:
    digests = sorted((_hashed(raw, factory) for raw in tensors), key=lambda t: _utf8(t.name))
    root = merkle.root([tensor.digest.value for tensor in digests])
    return StateDigest(root, factory.algorithm, tuple(digests))


def _hashed(raw: RawTensor, factory: HashFactory) -> TensorDigest:
    digest = factory.wrap(raw.digest(factory))
    return TensorDigest(raw.name, raw.dtype, raw.shape, digest, raw.nbytes)


def _raw(name: str, value: object) -> RawTensor:
    return value if isinstance(value, RawTensor) else raw_tensor(name, value)


def _utf8(name: str) -> bytes:
    """Sort key of a name. A lone surrogate sorts too; the header refuses it by name."""
    return name.encode("utf-8", "surrogatepass")


def _named_values(model: object) -> Iterator[tuple[str, object]]:
    if is_array(model):
        yield "", model
    elif callable(getattr(model, "state_dict", None)):
        yield from _tree(model.state_dict(), "", 0)  # type: ignore[attr-defined]  # a module, by its method
    elif isinstance(model, Mapping | list | tuple):
        yield from _tree(model, "", 0)
    elif callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        yield from _attributes(model, "", type(model).__module__.partition(".")[0], ())
    else:
        raise InputError(
            f"model: found {type_name(model)}, expected a mapping of names to arrays, a module with"
            " state_dict(), a fitted estimator, or the path of a .safetensors or .npz file"
        )


def _tree(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    """Arrays in nested mappings and sequences; what is neither becomes an InputError later."""
    if depth > MAX_DEPTH:
        raise InputError(f"model: {path!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise InputError(f"model: {path!r} has a key {key!r}, expected a name")
            yield from _tree(item, _joined(path, str(key)), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tree(item, _joined(path, str(index)), depth + 1)
    else:
        yield path, value


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
