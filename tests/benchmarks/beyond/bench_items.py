"""Item sets as they grow: recording them, a proof about one item and one about 10,000.

Items are rows of bytes that differ. The peer of recording is one keyed BLAKE3 a row, called from
Python, which no item can do without.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from blake3 import blake3

from provenance.items.folder import ItemFolder
from provenance.items.proving import StatedSet, check, prove
from tests.benchmarks.measure import seconds
from tests.benchmarks.table import Row, row

RUN, KEY = UUID(int=7), bytes(range(32))
ASKED = 10_000


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table; up to 10 million items, quick 100,000."""
    sizes = (10_000, 100_000) if quick else (100_000, 1_000_000, 10_000_000)
    for width, size in (*((16, size) for size in sizes), (784, sizes[-2])):
        yield from measured(size, width)


def rows_of_bytes(size: int, width: int, first: int = 0) -> Any:
    """Rows whose first bytes count them from ``first`` on, so that all differ."""
    made = np.zeros((size, width), np.uint8)
    made[:, :8] = np.arange(first, first + size, dtype="<u8").view(np.uint8).reshape(size, 8)
    return made


def hashes_alone(data: Any) -> None:
    """One keyed hash of each row."""
    hasher = blake3(key=KEY)
    for one in map(bytes, data):
        hasher.reset()
        hasher.update(one)
        hasher.digest()


def measured(size: int, width: int) -> Iterator[Row]:
    """What one set costs."""
    data, label = rows_of_bytes(size, width), f"{size:,} items of {width} bytes"
    with tempfile.TemporaryDirectory() as scratch:
        folder = ItemFolder(Path(scratch), RUN)
        begun, own = time.perf_counter(), time.thread_time()
        items = folder.record("train", data)
        taken, own = time.perf_counter() - begun, time.thread_time() - own
        alone = 10 * seconds(lambda: hashes_alone(data[: size // 10]))
        peer = ("the hashes alone", [size / 1e6 / alone])
        yield row(f"item set, {label}", "M items/s", [size / 1e6 / taken], peer)
        bar = "value >= 1" if width < 64 else None
        busy = f"item set, {label}, by its thread's CPU time"
        yield row(busy, "M items/s", [size / 1e6 / own], None, bar)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        most = f"item set, {label}, most memory, the data's {data.nbytes >> 20} MiB too"
        yield row(most, "MiB", [memory], None, "value <= 2048")
        if width > 16:
            return
        stated = StatedSet(RUN, "train", "data/train/0", bytes(32), items, is_table=False)
        for asked in (1, ASKED):
            others = rows_of_bytes(asked, width, first=size)
            named = [(str(at), other) for at, other in enumerate(others)]
            name = f"{asked:,} absent of {size:,} items"
            begun = time.perf_counter()
            _, proof = prove(stated, folder, "not-in", named)
            yield row(f"proof, {name}, made", "ms", [1e3 * (time.perf_counter() - begun)])
            assert proof is not None
            yield row(f"proof, {name}", "bytes", [len(proof.encode())])
            begun = time.perf_counter()
            assert check(stated, proof, named).holds
            yield row(f"proof, {name}, checked", "ms", [1e3 * (time.perf_counter() - begun)])
