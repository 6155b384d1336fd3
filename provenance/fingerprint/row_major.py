"""The elements of an array as bytes, little-endian and row-major: in place, or copied by pieces.

WARNING: FROZEN FORMAT, as in arrays.py. No I/O, no clock, no randomness. NumPy is imported only
where an array has to be copied.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from provenance.errors import InputError

COPY_BYTES: Final = 4 << 20
"""A non-contiguous or big-endian array is copied in pieces of at most this many bytes."""
_TILE: Final = 256
"""Rows, and columns, of a transposed array that are copied at once: a tile stays in the cache."""
_TILE_BYTES: Final = 64 << 10
_ARENA = threading.local()
"""The thread's two halves of COPY_BYTES: one is filled while the other is hashed."""

Array = Any
"""An ndarray; not named as such, since NumPy need not be installed."""


def whole(array: Array) -> memoryview:
    """The elements of a contiguous little-endian array, or of any buffer, as a view of bytes."""
    if not hasattr(array, "reshape"):
        return memoryview(array).cast("B")
    return memoryview(array.reshape(-1).view("u1"))


def row_major(array: Array) -> Iterator[memoryview]:
    """The elements of ``array``, little-endian and row-major, as views of bytes.

    One view of the memory itself where it lies so; else copies of at most ``COPY_BYTES``, the
    next one made by a thread while the caller hashes this one: a piece holds until the next is
    asked for.
    """
    if array.size == 0:
        return
    swapped, pieces = is_swapped(array.dtype), cut(array, COPY_BYTES)
    if array.flags.c_contiguous and not swapped:
        yield whole(array)
        return
    target = array.dtype.newbyteorder("<") if swapped else array.dtype
    import numpy

    # An iterator within an iterator finds none here, and makes its own.
    halves = _ARENA.__dict__.pop("halves", None) or [numpy.empty(COPY_BYTES, "u1") for _ in "ab"]

    def copied(half: Array, piece: Array) -> memoryview:
        used = half[: piece.nbytes]
        _copy(used.view(target).reshape(piece.shape), piece)
        return memoryview(used)

    def ahead(half: Array, piece: Array) -> Callable[[], memoryview]:
        try:
            return copier.submit(copied, half, piece).result
        except RuntimeError:  # a thread does not start once the interpreter shuts down
            return partial(copied, half, piece)

    try:
        with ThreadPoolExecutor(1, "provenance-copy") as copier:
            waiting: Callable[[], memoryview] = partial(copied, halves[0], next(pieces))
            for turn, piece in enumerate(pieces, 1):
                ready = waiting()
                waiting = ahead(halves[turn % 2], piece)
                yield ready
            yield waiting()
    finally:
        _ARENA.halves = halves


def is_swapped(dtype: Any) -> bool:
    """True for a dtype of NumPy that is big-endian."""
    order: str = dtype.byteorder
    return order == ">" or (order == "=" and sys.byteorder == "big")


def cut(array: Array, most: int) -> Iterator[Array]:
    """An array, or tensor, cut along its first axes, in order, into at most ``most`` bytes each."""
    if array.nbytes <= most:
        yield array
        return
    step = most // (array.nbytes // len(array))
    for start in range(0, len(array), max(1, step)):
        yield from cut(array[start : start + step] if step else array[start], most)


def _copy(target: Array, source: Array) -> None:
    """Copy; a transposed array tile by tile, each through a small buffer, so that every line
    of its memory is read once and strides of a power of two do not evict each other."""
    if source.ndim > 2 and source[0].nbytes >= _TILE_BYTES:
        for part, original in zip(target, source, strict=True):
            _copy(part, original)
    elif source.ndim == 2 and abs(source.strides[0]) < abs(source.strides[1]):
        import numpy

        buffer = numpy.empty((_TILE, _TILE + 16), target.dtype)
        for top in range(0, source.shape[0], _TILE):
            for left in range(0, source.shape[1], _TILE):
                tile = source[top : top + _TILE, left : left + _TILE]
                turned = buffer[: tile.shape[1], : tile.shape[0]]
                turned[:] = tile.T
                target[top : top + _TILE, left : left + _TILE] = turned.T
    else:
        target[...] = source


def check_mapped(name: str, array: Any) -> None:
    """Refuse a map of a file that was cut off: reading it would end the process (SIGBUS)."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and (size := mapped.size()) < len(mapped):
        raise InputError(
            f"tensor {name!r}: its file {array.filename!s} was cut off to {size} bytes while "
            f"{len(mapped)} of it were mapped"
        )
