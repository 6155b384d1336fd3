"""The digests of an item set in a file: 32 bytes each, ascending, none twice.

Digests are sorted in memory, ``RUN_DIGESTS`` at a time. Where there are more, each such run goes to
a file, and the runs are merged one first byte after another: a 256th of all is in memory, since
keyed digests spread evenly.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenance.errors import InputError
from provenance.fingerprint.data.progress import Progress
from provenance.formats.item_set import LEAF_DIGESTS, leaf_count
from provenance.formats.merkle import (
    HASH_SIZE,
    LEAF_PREFIX,
    NODE_PREFIX,
    KeptTree,
    Subtree,
    node_hash,
)

RUN_DIGESTS: Final = 1 << 21
"""Sorted at a time: 64 MiB."""
_BLOCK: Final = 12
"""Height of the subtrees that are hashed in one piece: 4096 leaves."""
_LEAF_BYTES: Final = LEAF_DIGESTS * HASH_SIZE

Digests = NDArray[np.bytes_]


class _Run(NamedTuple):
    """A sorted file, and where in it the digests of each first byte begin: 257 numbers."""

    file: IO[bytes]
    starts: NDArray[np.int64]


class DigestSorter:
    """Takes digests in any order and writes them as a set; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._buffer = bytearray()
        self._runs: list[Future[_Run]] = []
        self._pool = self._open.enter_context(ThreadPoolExecutor(1))

    def __enter__(self) -> DigestSorter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, digests: bytes) -> None:
        """More digests, 32 bytes each."""
        self._buffer += digests
        if len(self._buffer) >= RUN_DIGESTS * HASH_SIZE:
            full, self._buffer = self._buffer, bytearray()
            if self._runs:  # one is sorted while the next is hashed, no more
                self._runs[-1].result()
            self._runs.append(self._pool.submit(self._spill, full))

    def write(self, file: IO[bytes]) -> int:
        """Write all digests, ascending, each once; how many there are."""
        if not self._runs:
            return _put(file, _ascending(np.frombuffer(self._buffer, "S32")))
        if self._buffer:
            self._runs.append(self._pool.submit(self._spill, self._buffer))
        runs = [run.result() for run in self._runs]
        buckets = (self._pool.submit(_bucket, runs, first) for first in range(256))
        return sum(_put(file, bucket.result()) for bucket in buckets)

    def _spill(self, digests: bytearray) -> _Run:
        file = self._open.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115  closed with the sorter
        ascending = _ascending(np.frombuffer(digests, "S32"))
        _put(file, ascending)
        file.flush()
        counts = np.bincount(ascending.view(np.uint8)[::HASH_SIZE], minlength=256)
        return _Run(file, np.concatenate([[0], np.cumsum(counts)]))


def _ascending(digests: Digests, *, of_runs: bool = False) -> Digests:
    """Sorted as bytes, and so as big-endian numbers, each once; ``of_runs`` that ascend: merged."""
    ordered = np.sort(digests, kind="stable" if of_runs else "quicksort")
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered if new.all() else ordered[new]


def _put(file: IO[bytes], digests: Digests) -> int:
    file.write(digests.data.cast("B") if len(digests) else b"")
    return len(digests)


def _bucket(runs: Sequence[_Run], first: int) -> Digests:
    """The digests with a first byte, of all runs."""
    parts = []
    for run in runs:
        start, end = int(run.starts[first]), int(run.starts[first + 1])
        data = os.pread(run.file.fileno(), (end - start) * HASH_SIZE, start * HASH_SIZE)
        parts.append(np.frombuffer(data, "S32"))
    return _ascending(np.concatenate(parts), of_runs=True)


class SortedFile(KeptTree):
    """A file of a set's digests, and the tree over its leaves, which is hashed from it anew."""

    def __init__(self, file: IO[bytes], name: str, progress: Progress) -> None:
        self._file, self._name, self._progress = file, name, progress
        nbytes = os.fstat(file.fileno()).st_size
        if nbytes % HASH_SIZE:
            raise InputError(f"{name}: found {nbytes} bytes, expected digests of {HASH_SIZE}")
        self.digests = nbytes // HASH_SIZE
        super().__init__(leaf_count(self.digests), self._subtrees)
        progress.part("item set", self.size)

    def digest(self, place: int) -> bytes:
        """The digest at a place; 32 bytes."""
        return self._read(place * HASH_SIZE, HASH_SIZE)

    def leaf(self, index: int) -> bytes:
        """Leaf data: the digests of a leaf, one after another."""
        return self._read(index * _LEAF_BYTES, _LEAF_BYTES)

    def place(self, digest: bytes) -> int:
        """Where a digest is, or would be: how many are below it."""
        low, high = 0, self.digests
        while low < high:
            middle = (low + high) // 2
            if self.digest(middle) < digest:
                low = middle + 1
            else:
                high = middle
        return low

    def _subtrees(self, wanted: Sequence[Subtree]) -> list[bytes]:
        return [self._subtree(height, number) for height, number in wanted]

    def _subtree(self, height: int, number: int) -> bytes:
        if height > _BLOCK:
            halves = (self._subtree(height - 1, 2 * number + at) for at in (0, 1))
            return node_hash(*halves)
        count, sha256 = 1 << height, hashlib.sha256
        data = self._read(number * count * _LEAF_BYTES, count * _LEAF_BYTES)
        leaves = range(0, len(data), _LEAF_BYTES)
        self._progress.add(len(leaves))
        level = [sha256(LEAF_PREFIX + data[at : at + _LEAF_BYTES]).digest() for at in leaves]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [sha256(NODE_PREFIX + left + right).digest() for left, right in pairs]
        return level[0]

    def _read(self, at: int, count: int) -> bytes:
        data = os.pread(self._file.fileno(), count, at)
        if len(data) < min(count, self.digests * HASH_SIZE - at):
            raise InputError(f"{self._name}: was cut off while it was read")
        return data
