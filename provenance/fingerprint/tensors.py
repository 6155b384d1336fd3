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
digest. An array that has several names (tied weights) counts once, by the first of them in the
order of their bytes; the others are its aliases.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    RawTensor,
    is_resident,
    raw_tensor,
    small_tensor,
    tensor_header,
)
from provenance.fingerprint.cuda import device
from provenance.fingerprint.fitted.boosters import SUFFIXES, booster_file
from provenance.fingerprint.hashers import THREADED_BYTES, Digest, HashFactory
from provenance.fingerprint.model_state import NOTHING, ModelState, model_state
from provenance.fingerprint.weight_files import npz_tensors_file, safetensors_tensors_file
from provenance.formats import merkle
from provenance.formats.record import Json

ROOT_ALGORITHM: Final = "mth-sha256"
"""How a root is written: ``mth-sha256:<hex>``, 32 bytes."""


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
        aliases: Other names that a tensor has, by its name: tied weights, and the names that
            files have for it. As all that follows it is no part of the digest.
        covers: What of the model the tensors are (`Named`).
        buffers: Tensors that the framework does not count as parameters.
        sizes: Elements of parameters that are several tensors here, by the name of the first.
    """

    root: bytes
    algorithm: str
    tensors: tuple[TensorDigest, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    covers: Mapping[str, Json] = field(default_factory=dict, compare=False)
    buffers: frozenset[str] = field(default=frozenset(), compare=False)
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{ROOT_ALGORITHM}:{self.root.hex()}"

    @property
    def parameter_count(self) -> int:
        """Elements of all parameters together, as the framework counts them; of what has none,
        such as a file, of all tensors."""
        return sum(self._elements(t) for t in self.tensors if t.name not in self.buffers)

    @property
    def buffer_count(self) -> int:
        """Elements of the tensors that are no parameters."""
        return sum(self._elements(t) for t in self.tensors if t.name in self.buffers)

    @property
    def element_count(self) -> int:
        """Elements of all tensors together."""
        return self.parameter_count + self.buffer_count

    def _elements(self, tensor: TensorDigest) -> int:
        return self.sizes.get(tensor.name, math.prod(tensor.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors' elements together."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def as_fields(self) -> dict[str, Any]:
        """The state as plain JSON values (str, int, list), for a record."""
        tensors = [tensor.as_fields() for tensor in self.tensors]
        if self.aliases:
            for item in tensors:
                if others := self.aliases.get(item["name"]):
                    item["aliases"] = list(others)
        return {
            "covers": dict(self.covers),
            "algorithm": self.algorithm,
            "root": str(self),
            "tensor_count": len(self.tensors),
            "parameter_count": self.parameter_count,
            "buffer_count": self.buffer_count,
            "bytes": self.nbytes,
            "tensors": tensors,
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
            - an estimator in the manner of scikit-learn: its arrays by attribute, such as
              ``coefs_.0``, and all the rest of it as one text, ``structure``
            - a booster of XGBoost, LightGBM or CatBoost
            - one array, which then has the name ``""``
            - the path of a file or folder (`model_files`), or of a booster's file (``.json``,
              ``.ubj``, ``.txt``, ``.cbm``)
        factory: Content hash; blake3 when left out.
        known: Digests of tensors in memory by name, which are not read, and need not be there.

    Raises:
        InputError: no tensors, two tensors of one name, or something that is no tensor, or that
            a digest cannot cover.
        FormatError: a file that does not decode.
    """
    used = factory or HashFactory()
    if isinstance(model, str | os.PathLike):
        return state_digest_file(model, used)
    if known and isinstance(model, Mapping) and not model:
        model = ModelState({})
    state = model_state(model)
    if not known:
        return _state(_digests(list(state.items()), used), used, state)
    digests = _digests([pair for pair in state.items() if pair[0] not in known], used)
    return _state(sorted([*digests, *known.values()]), used, state)


def hashed_on_device(model: object, factory: HashFactory) -> bool:
    """True where all of a model's tensors lie on CUDA devices that hash them: sooner than they
    could be copied."""
    return device.in_use() and all(
        is_resident(value) and device.usable(value.device, factory)
        for value in model_state(model).values()
    )


def state_tensors(model: object) -> Iterator[RawTensor]:
    """The tensors of a model as :func:`state_digest` takes it, sorted by name; those of a file as
    they lie there, each to be read before the next is asked for."""
    if isinstance(model, str | os.PathLike):
        yield from _file_tensors(os.fspath(model))
        return
    for name, value in model_state(model).items():
        yield _raw(name, value)


def state_digest_file(
    path: str | os.PathLike[str], factory: HashFactory | None = None
) -> StateDigest:
    """The digest of the weights in a file, or at the top of a folder (`model_files`); those of a
    ``.safetensors`` or ``.npz`` file need no framework, that of a booster its library.

    A safetensors file is mapped into memory, not read into it.

    Raises:
        InputError: missing file, another kind of file, no tensors, or several states.
        FormatError: it does not decode; the message says where.
    """
    where, used = os.fspath(path), factory or HashFactory()
    if not where.endswith((".safetensors", ".npz")) and not _is_booster(where):
        from provenance.fingerprint.model_files import the_state

        return state_digest(the_state(where), used)
    tensors = ((raw.name, raw) for raw in _file_tensors(where))
    digests = sorted(_digests(tensors, used))  # by name: they differ
    if not digests:
        raise InputError(f"model file {where!r}: no tensors, expected at least one")
    kind = os.path.splitext(where)[1].lstrip(".")
    covers: dict[str, Json] = {"adapter": f"{kind} file", "of": ["tensors"]}
    return _state(digests, used, ModelState(NOTHING, covers=covers))


def _is_booster(where: str) -> bool:
    return where.endswith(tuple(SUFFIXES)) and not where.endswith(".index.json")  # of shards


def _file_tensors(where: str) -> Iterator[RawTensor]:
    if where.endswith(".safetensors"):
        return safetensors_tensors_file(where)
    if where.endswith(".npz"):
        return npz_tensors_file(where)
    if _is_booster(where):
        return iter(booster_file(where))
    from provenance.fingerprint.model_files import the_state

    return state_tensors(the_state(where))


def _state(digests: list[TensorDigest], factory: HashFactory, state: ModelState) -> StateDigest:
    root = merkle.root([tensor.value for tensor in digests])
    about = (state.aliases, state.covers, state.buffers, state.sizes)
    return StateDigest(root, factory.algorithm, tuple(digests), *about)


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
