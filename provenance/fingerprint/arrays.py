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

import math
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import rfc8785

from provenance.errors import InputError, MissingExtraError
from provenance.fingerprint.hashers import HashFactory

FORMAT_VERSION: Final = 1
COPY_BYTES: Final = 4 << 20
"""A non-contiguous or big-endian array is copied in pieces of at most this many bytes."""

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


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor, ready to be hashed.

    Args:
        name: Its name within the state.
        dtype: Element type, such as ``F32``.
        shape: Elements along each axis; empty for a scalar.
        nbytes: Bytes that ``chunks`` yields in all.
        chunks: Yields the elements, little-endian and row-major, in order, uncopied where
            they already lie so in memory.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    chunks: Callable[[], Iterator[memoryview | bytes]]

    def feed(self, update: Callable[[memoryview | bytes], object]) -> None:
        """Pass header and elements to a hasher's ``update``."""
        update(tensor_header(self.name, self.dtype, self.shape))
        for chunk in self.chunks():
            update(chunk)

    def digest(self, factory: HashFactory) -> bytes:
        """``H(header || elements)``; as many bytes as the algorithm has."""
        hasher = factory.new(self.nbytes)
        self.feed(hasher.update)
        return hasher.digest()


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of ``value``.

    Raises:
        InputError: a text that is not Unicode (a lone surrogate).
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise InputError(f"cannot be written as canonical JSON: {error}: {value!r}") from error


@lru_cache(maxsize=4096)
def tensor_header(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a tensor: 4 bytes little-endian length, then RFC 8785 JSON."""
    return _framed({"dtype": dtype, "name": name, "shape": list(shape), "v": FORMAT_VERSION})


def block_header(
    name: str, dtype: str, shape: Sequence[int], rows: tuple[int, int], nulls: int
) -> bytes:
    """The header of rows ``rows[0]`` to ``rows[1]`` (excluded) of an array of ``shape``."""
    return _framed(
        {
            "dtype": dtype,
            "name": name,
            "nulls": nulls,
            "rows": list(rows),
            "shape": list(shape),
            "v": FORMAT_VERSION,
        }
    )


def _framed(fields: dict[str, Any]) -> bytes:
    text = canonical(fields)
    return struct.pack("<I", len(text)) + text


def load_numpy() -> Any:
    """The numpy module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import numpy
    except ImportError as error:
        raise MissingExtraError("numpy", "torch") from error
    return numpy


def is_torch_tensor(value: object) -> bool:
    """True for a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: object) -> bool:
    """True for what `raw_tensor` takes, by its interface; not for tables and their columns."""
    if is_torch_tensor(value):
        return True
    if from_package(value, "pandas") or from_package(value, "pyarrow"):
        return False
    has_dtype = hasattr(value, "dtype") and hasattr(value, "shape")
    known = ("__array__", "__array_interface__", "__dlpack__")
    return hasattr(value, "__array_interface__") or (
        has_dtype and any(hasattr(value, name) for name in known)
    )


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


def raw_tensor(name: str, value: object) -> RawTensor:
    """Any framework's array as a `RawTensor`; contiguous little-endian memory is not copied.

    Args:
        name: Its name within the state.
        value: ndarray, torch tensor (moved to the CPU when it is elsewhere), or an object with
            ``__array__``, ``__array_interface__`` or ``__dlpack__``. Any shape and strides.

    Raises:
        InputError: no array, or one that is sparse, quantized, masked or of an element type
            without a name here; the message names the tensor and what was found.
    """
    array, dtype = array_view(name, value)
    shape = tuple(int(size) for size in array.shape)
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return RawTensor(name, dtype, shape, nbytes, lambda: row_major(array))


def array_view(name: str, value: object) -> tuple[Array, str]:
    """Any framework's array as an ndarray over the same memory, and its dtype name.

    Element types that NumPy lacks come as integers of the same width. Errors: `raw_tensor`.
    """
    if is_torch_tensor(value):
        return _torch_array(name, value)
    array = _numpy_array(name, value)
    dtype = DTYPE_NAMES.get(array.dtype.name)
    if dtype is None:
        raise _bad_dtype(name, str(array.dtype))
    return array, dtype


def raw_bytes(name: str, dtype: str, shape: tuple[int, ...], chunks: Sequence[bytes]) -> RawTensor:
    """A `RawTensor` whose elements are written out already."""
    return RawTensor(name, dtype, shape, sum(map(len, chunks)), lambda: iter(chunks))


def raw_float(name: str, value: float) -> RawTensor:
    """A Python float as an F64 scalar."""
    return raw_bytes(name, "F64", (), [struct.pack("<d", value)])


def raw_text(name: str, items: Sequence[str], shape: tuple[int, ...]) -> RawTensor:
    """Texts as a `RawTensor` of dtype UTF8: the lengths, then the texts.

    Raises:
        InputError: a text that is not Unicode.
    """
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


def row_major(array: Array) -> Iterator[memoryview]:
    """The elements of ``array``, little-endian and row-major, as views of bytes.

    One view of the memory itself where it lies so; else copies of at most ``COPY_BYTES``.
    """
    if array.size == 0:
        return
    order = array.dtype.byteorder
    swapped = order == ">" or (order == "=" and sys.byteorder == "big")
    if array.flags.c_contiguous and not swapped:
        yield memoryview(array.reshape(-1).view("u1"))
    elif array.nbytes <= COPY_BYTES:
        target = array.dtype.newbyteorder("<") if swapped else array.dtype
        yield memoryview(array.astype(target, order="C").reshape(-1).view("u1"))
    else:
        row_bytes = array.nbytes // len(array)
        step = max(1, COPY_BYTES // row_bytes)
        for start in range(0, len(array), step):
            yield from row_major(array[start] if step == 1 else array[start : start + step])


def _numpy_array(name: str, value: object) -> Array:
    if not is_array(value):
        raise InputError(f"tensor {name!r}: found {type_name(value)}, expected an array of numbers")
    np = load_numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"tensor {name!r}: found a masked array, expected one without a mask")
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(
            f"tensor {name!r}: {type_name(value)} does not give its elements: {error}"
        ) from error


def _torch_array(name: str, tensor: Any) -> tuple[Array, str]:
    """`array_view` of a torch tensor; bf16, fp8 and the rest go by an integer view."""
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        raise InputError(f"tensor {name!r}: found layout {tensor.layout}, expected a dense tensor")
    dtype = DTYPE_NAMES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.is_quantized:
        raise _bad_dtype(name, str(tensor.dtype))
    if tensor.is_meta:
        raise InputError(f"tensor {name!r}: found device meta (no data), expected data")
    if from_package(tensor, "torch.distributed"):
        raise InputError(
            f"tensor {name!r}: found {type_name(tensor)}, expected a whole tensor: gather it first"
        )
    dense = tensor.detach().resolve_conj().resolve_neg().cpu()
    if not dtype.startswith("C"):
        integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        dense = dense.view(integers[ITEM_BYTES[dtype]])
    load_numpy()
    return dense.numpy(), dtype


def _bad_dtype(name: str, found: str) -> InputError:
    return InputError(
        f"tensor {name!r}: found dtype {found}, expected one of {', '.join(DTYPE_NAMES)}"
    )
