"""Arrays as bytes: names of element types, canonical headers, little-endian row-major views.

WARNING: FROZEN FORMAT. What is yielded here is what content digests are made of; a change
of any byte makes old digests unverifiable. No I/O, no clock, no randomness.

A *header* is the RFC 8785 (JSON Canonicalization Scheme) text of a small object, after its
length in bytes as 4 bytes little-endian. The header of a tensor is::

    {"dtype":"F32","name":"layer.weight","shape":[10,20],"v":1}

and that of a block of rows, so that one block can be proven alone::

    {"dtype":"F32","name":"x","nulls":0,"rows":[0,4096],"shape":[60000,28,28],"v":1}

Element types have the names of the safetensors format (https://github.com/huggingface/
safetensors, "Format"), and C128 beside its C64. A header is followed by the elements in row-major
order, each little-endian, without padding. Two more types hold what is no number::

    UTF8, BYTES: the length of each item in bytes (8 bytes little-endian each), then the items

torch is never imported here: it is looked up only when it is loaded already. NumPy is imported
when the first array comes. An array of another framework (JAX, CuPy, ...) is taken by
``__array__`` or ``__dlpack__``.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, NamedTuple

import rfc8785

from provenance.errors import InputError, MissingExtraError
from provenance.fingerprint.row_major import check_mapped, is_swapped, row_major, whole

FORMAT_VERSION: Final = 1
SMALL_BYTES: Final = 16 << 10
"""A tensor of at most this many bytes is joined to its header and hashed in one call."""
PINNED_BYTES: Final = 1 << 20
"""From this many bytes on a tensor comes from a CUDA device by pinned buffers."""

ITEM_BYTES: Final[dict[str, int]] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    "BOOL": 1, "C64": 8, "C128": 16,
}  # fmt: skip
"""Bytes of one element, by dtype name."""

DTYPE_NAMES: Final[dict[str, str]] = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    "bool": "BOOL", "complex64": "C64", "complex128": "C128",
}  # fmt: skip
"""dtype name by the name that NumPy (with ml_dtypes) and torch have for it."""

Array = Any
"""An ndarray; not named as such, since NumPy need not be installed."""


class RawTensor(NamedTuple):
    """One tensor, ready to be hashed.

    Args:
        name: Its name within the state.
        dtype: Element type, such as ``F32``.
        shape: Elements along each axis; empty for a scalar.
        nbytes: Bytes of the elements in all.
        memory: The elements, little-endian and row-major, where they lie so in memory: any
            contiguous buffer. None where they have to be copied or read.
        pieces: Yields them then, in order; each piece holds until the next is asked for.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    memory: Any = None
    pieces: Callable[[], Iterator[memoryview | bytes]] | None = None

    def chunks(self) -> Iterator[memoryview | bytes]:
        """The elements as bytes, in order; each chunk holds until the next is asked for."""
        if self.pieces is not None:
            yield from self.pieces()
        elif self.nbytes:
            yield whole(self.memory)

    def feed(self, update: Callable[[memoryview | bytes], object]) -> None:
        """Pass header and elements to a hasher's ``update``."""
        update(tensor_header(self.name, self.dtype, self.shape))
        for chunk in self.chunks():
            update(chunk)


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of ``value``. Raises InputError: a text that is not Unicode (a lone
    surrogate)."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise InputError(f"cannot be written as canonical JSON: {error}: {value!r}") from error


_quoted = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(maxsize=4096)
def tensor_header(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a tensor: 4 bytes little-endian length, then RFC 8785 JSON."""
    if max(shape, default=0) >= 1 << 53:
        raise InputError(f"tensor {name!r}: shape {shape}, expected sizes below 2**53")
    # RFC 8785 writes a text as json does, its keys in this order, and numbers without spaces.
    text = (
        f'{{"dtype":"{dtype}","name":{_quoted(name)},'
        f'"shape":[{",".join(map(str, shape))}],"v":{FORMAT_VERSION}}}'
    )
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"tensor {name!r}: a name that is not Unicode") from error
    return len(data).to_bytes(4, "little") + data


def block_header(
    name: str, dtype: str, shape: Sequence[int], rows: tuple[int, int], nulls: int
) -> bytes:
    """The header of rows ``rows[0]`` to ``rows[1]`` (excluded) of an array of ``shape``."""
    text = canonical({
        "dtype": dtype, "name": name, "nulls": nulls, "rows": list(rows), "shape": list(shape),
        "v": FORMAT_VERSION,
    })  # fmt: skip
    return struct.pack("<I", len(text)) + text


def load(module: str, extra: str = "") -> Any:
    """A module that one of our extras brings, or its own package. Raises MissingExtraError: it is
    not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        command = None if extra else f"pip install {package}"
        raise MissingExtraError(package, extra, command) from error


def load_numpy() -> Any:
    """The numpy module. Raises MissingExtraError: it is not installed."""
    return load("numpy", "torch")


def is_torch_tensor(value: object) -> bool:
    """True for a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_resident(value: Any) -> bool:
    """True for torch's own tensors in the memory of a CUDA device."""
    return kind_of(value.__class__) == "tensor" and bool(value.is_cuda)


def is_array(value: object) -> bool:
    """True for what `raw_tensor` takes, by its interface; not for tables and their columns."""
    if is_torch_tensor(value):
        return True
    if from_package(value, "pandas") or from_package(value, "pyarrow"):
        return False
    has_dtype = hasattr(value, "dtype") and hasattr(value, "shape")
    known = any(hasattr(value, name) for name in ("__array__", "__dlpack__"))
    return hasattr(value, "__array_interface__") or (has_dtype and known)


def from_package(value: object, package: str) -> bool:
    """True where the value's class, or one that it inherits from, is of ``package``."""
    return any(
        base.__module__ == package or base.__module__.startswith(package + ".")
        for base in type(value).__mro__
    )


def type_name(value: object) -> str:
    """The type as a message names it, such as ``torch.nn.Linear``."""
    module, name = type(value).__module__, type(value).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def raw_tensor(name: str, value: Any) -> RawTensor:
    """Any framework's array as a `RawTensor`; contiguous little-endian memory is not copied.

    Args:
        name: Its name within the state.
        value: ndarray, torch tensor (moved to the CPU when it is elsewhere), or an object with
            ``__array__``, ``__array_interface__`` or ``__dlpack__``, any shape and strides; a
            random key of JAX is its data.

    Raises:
        InputError: no array, or one that is sparse, quantized, masked or of an element type
            without a name here; the message names the tensor and what was found.
    """
    if is_resident(value) and value.nbytes >= PINNED_BYTES:
        from provenance.fingerprint.cuda.host_copy import host_pieces

        dense, dtype = dense_tensor(name, value)
        shape = tuple(dense.shape)
        return RawTensor(name, dtype, shape, dense.nbytes, None, lambda: host_pieces(dense))
    array, dtype = array_view(name, value)
    if array.flags.c_contiguous and _numpy_dtype(array.dtype)[1]:
        return RawTensor(name, dtype, array.shape, array.nbytes, array)
    return RawTensor(name, dtype, array.shape, array.nbytes, None, lambda: row_major(array))


def small_tensor(value: Any) -> tuple[str, tuple[int, ...], int, Any] | None:
    """dtype, shape, size in bytes and elements of an ndarray, or of a torch tensor on the CPU,
    of at most `SMALL_BYTES` whose elements lie as they are hashed. None for all else, which
    `raw_tensor` takes or refuses: this is its short way for the many small tensors of a model.
    """
    kind = kind_of(value.__class__)
    if kind == "numpy":
        (dtype, plain), size = _numpy_dtype(value.dtype), value.nbytes
        if plain and dtype and size <= SMALL_BYTES and value.flags.c_contiguous:
            return dtype, value.shape, size, value
    elif (
        kind == "tensor"
        and value.is_cpu
        and (dtype := _strided_dtype(value.dtype, value.layout)) is not None
        and (size := value.nbytes) <= SMALL_BYTES
        and value.is_contiguous()
        and not value.is_neg()
        and (address := value.data_ptr())  # 0: of a transform, which has no memory
    ):
        return dtype, tuple(value.shape), size, _window(size)(address)
    return None


def array_view(name: str, value: Any) -> tuple[Array, str]:
    """Any framework's array as an ndarray over the same memory, and its dtype name.

    Element types that NumPy lacks come as integers of the same width. Errors: `raw_tensor`.
    """
    kind = kind_of(value.__class__)
    if kind in ("tensor", "shard", "subclass"):
        return _torch_array(name, value, kind)
    array = value if kind == "numpy" else _numpy_array(name, value)
    if (dtype := _numpy_dtype(array.dtype)[0]) is None:
        raise _bad_dtype(name, str(array.dtype))
    return array, dtype


def raw_bytes(name: str, dtype: str, shape: tuple[int, ...], chunks: Sequence[bytes]) -> RawTensor:
    """A `RawTensor` whose elements are written out already."""
    data = b"".join(chunks)
    return RawTensor(name, dtype, shape, len(data), data)


def raw_float(name: str, value: float) -> RawTensor:
    """A Python float as an F64 scalar."""
    return raw_bytes(name, "F64", (), [struct.pack("<d", value)])


def raw_text(name: str, items: Sequence[str], shape: tuple[int, ...]) -> RawTensor:
    """Texts as a `RawTensor` of dtype UTF8: the lengths, then the texts. Raises InputError: a text
    that is not Unicode."""
    return raw_bytes(name, "UTF8", shape, var_chunks([encode_text(item, name) for item in items]))


def encode_text(text: str, where: str) -> bytes:
    """UTF-8 of a text; `InputError` naming ``where`` it is for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: text that is not Unicode: {text[:40]!r}") from error


def var_chunks(items: Sequence[bytes]) -> list[bytes]:
    """Items of any length: each length as 8 bytes little-endian, then the items."""
    return [struct.pack(f"<{len(items)}q", *map(len, items)), b"".join(items)]


@lru_cache(maxsize=256)
def _numpy_dtype(dtype: Any) -> tuple[str | None, bool]:
    """Its name here, if it has one, and whether it is little-endian."""
    return DTYPE_NAMES.get(dtype.name), not is_swapped(dtype)


@lru_cache(maxsize=256)
def _strided_dtype(dtype: Any, layout: Any) -> str | None:
    """Name of an element type of torch in a dense layout, if it is not complex: those may be
    conjugated by a flag alone."""
    name = _torch_dtype(dtype)[0]
    dense = layout is sys.modules["torch"].strided and sys.byteorder == "little"
    return name if dense and name is not None and name[0] != "C" else None


@lru_cache(maxsize=256)
def _window(size: int) -> Callable[[int], Any]:
    """From an address to a view of ``size`` bytes there."""
    return (ctypes.c_char * size).from_address


@lru_cache(maxsize=256)
def kind_of(kind: Any) -> str:
    """What a class is: ``numpy``; ``tensor`` (torch's own), ``shard`` (of torch.distributed),
    ``subclass`` (of a torch tensor); or ``other``."""
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        if kind in (torch.Tensor, torch.nn.Parameter):
            return "tensor"
        inner = any(base.__module__.startswith("torch.distributed") for base in kind.__mro__)
        return "shard" if inner else "subclass"
    numpy = sys.modules.get("numpy")
    return "numpy" if numpy is not None and kind is numpy.ndarray else "other"


def _numpy_array(name: str, value: object) -> Array:
    if not is_array(value):
        raise InputError(f"tensor {name!r}: found {type_name(value)}, expected an array of numbers")
    np = load_numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"tensor {name!r}: found a masked array, expected one without a mask")
    try:
        if isinstance(value, np.memmap):
            check_mapped(name, value)
        if str(getattr(value, "dtype", "")).startswith("key<"):  # of JAX
            value = sys.modules["jax"].random.key_data(value)
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError, LookupError) as error:
        raise _unreadable(name, value, error) from error


def dense_tensor(name: str, tensor: Any, kind: str = "tensor") -> tuple[Any, str]:
    """A torch tensor without gradient and lazy bits, where it lies, and its dtype name.

    Errors: `raw_tensor`.
    """
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        raise InputError(f"tensor {name!r}: found layout {tensor.layout}, expected a dense tensor")
    dtype, _ = _torch_dtype(tensor.dtype)
    if dtype is None or tensor.is_quantized:
        raise _bad_dtype(name, str(tensor.dtype))
    in_memory = kind == "tensor" and tensor.is_cpu and tensor.nbytes
    if tensor.is_meta or (in_memory and not tensor.data_ptr()):
        found = "device meta" if tensor.is_meta else "a transform's tensor"
        raise InputError(f"tensor {name!r}: found {found} (no data), expected data")
    if kind == "shard":
        raise InputError(
            f"tensor {name!r}: found {type_name(tensor)}, expected a whole tensor: gather it first"
        )
    dense = tensor.detach()
    if dense.is_conj() or dense.is_neg():
        dense = dense.resolve_conj().resolve_neg()
    return dense, dtype


def _torch_array(name: str, tensor: Any, kind: str) -> tuple[Array, str]:
    """`array_view` of a torch tensor; bf16, fp8 and the rest go by an integer view."""
    dense, dtype = dense_tensor(name, tensor, kind)
    if not dense.is_cpu:
        dense = dense.cpu()
    _, integer = _torch_dtype(dense.dtype)
    if integer is not None:
        dense = dense.view(integer)
    load_numpy()
    try:
        return dense.numpy(), dtype
    except (RuntimeError, TypeError) as error:  # a subclass of several tensors
        raise _unreadable(name, tensor, error) from error


@lru_cache(maxsize=256)
def _torch_dtype(dtype: Any) -> tuple[str | None, Any]:
    """Its name here, and the integers of the same width where NumPy lacks it."""
    torch = sys.modules["torch"]
    name = DTYPE_NAMES.get(str(dtype).removeprefix("torch."))
    if name is None or not name.startswith(("BF", "F8", "U")):
        return name, None
    return name, {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[ITEM_BYTES[name]]


def _unreadable(name: str, value: object, error: Exception) -> InputError:
    found = f"tensor {name!r}: {type_name(value)} does not give its elements"
    return InputError(f"{found}: {str(error).strip().partition(chr(10))[0][:200]}")


def _bad_dtype(name: str, found: str) -> InputError:
    found = f"tensor {name!r}: found dtype {found}"
    return InputError(f"{found}, expected one of {', '.join(DTYPE_NAMES)}")
