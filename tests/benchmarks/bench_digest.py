"""Speed of state digests against raw blake3 over the same tensors, alternately, in one run.

    python tests/benchmarks/bench_digest.py [--mib 1024] [--repeat 7] [--json]

Each row has the medians of both and the median of the ratios, pair by pair; a ratio above 1
is faster than the peer. ``met`` says whether the row's bar is met; nothing fails where it is not.
Raw blake3 gets a thread for each processor from 1 MiB on, one below, and each tensor's bytes
without a header, a name or a tree. GB are 10**9 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
from blake3 import blake3

from provenance.fingerprint.arrays import tensor_header
from provenance.fingerprint.tensors import state_digest

State = dict[str, Any]
Row = dict[str, Any]


def row(
    name: str, ours: Callable[[], object], peer: tuple[str, Callable[[], object]], repeat: int,
    unit: str, amount: float, bar: tuple[str, str, float],
) -> Row:  # fmt: skip
    """One row of the table.

    Args:
        name: What is measured.
        ours: The call that is measured.
        peer: Name of what it is measured against, and that call.
        repeat: How often both are called, in turn, after one call of each to warm up.
        unit: ``GB/s`` or ``us each``.
        amount: Bytes, or how many, one call hashes.
        bar: ``value`` or ``ratio``; ``>=`` or ``<=``; the number.
    """

    def seconds(action: Callable[[], object]) -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    ours(), peer[1]()
    pairs = [(seconds(ours), seconds(peer[1])) for _ in range(repeat)]
    value, peer_value = (
        amount / taken / 1e9 if unit == "GB/s" else taken / amount * 1e6
        for taken in (median(mine for mine, _ in pairs), median(theirs for _, theirs in pairs))
    )
    result: Row = {"name": name, "value": value, "unit": unit, "peer": peer[0]}
    result |= {"peer_value": peer_value, "ratio": median(theirs / mine for mine, theirs in pairs)}
    column, sign, least = bar
    met = result[column] >= least if sign == ">=" else result[column] <= least
    return result | {"bar": " ".join((column, sign, f"{least:g}")), "met": met}


def raw_blake3(arrays: Iterable[Any]) -> Callable[[], object]:
    """One hash of each contiguous array's bytes."""
    views = [memoryview(array).cast("B") for array in arrays]
    threads = [blake3.AUTO if len(view) >= 1 << 20 else 1 for view in views]
    return lambda: [
        blake3(view, max_threads=most).digest() for view, most in zip(views, threads, strict=True)
    ]


def hashes_alone(state: State) -> Callable[[], object]:
    """The hashes that a state digest cannot do without: blake3 of each header and tensor, and
    two SHA-256 for each leaf of the tree."""
    messages = [
        tensor_header(name, "F32", array.shape) + array.tobytes() for name, array in state.items()
    ]

    def action() -> None:
        for message in messages:
            leaf = hashlib.sha256(b"\0" + blake3(message).digest()).digest()
            hashlib.sha256(b"\1" + leaf + leaf).digest()

    return action


def numbers(*shape: int) -> Any:
    """Float32 of any bits."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, shape, dtype=np.uint32)
    return bits.view(np.float32)


def mixed(mib: int, count: int = 300) -> State:
    """``count`` tensors, their sizes spread evenly over four powers of ten."""
    weights = 10 ** np.random.default_rng(0).uniform(0, 4, count)
    elements = np.maximum(1, weights / weights.sum() * (mib << 18)).astype(int)
    pieces = np.split(numbers(int(elements.sum())), np.cumsum(elements)[:-1])
    return {f"layers.{at}.weight": piece for at, piece in enumerate(pieces)}


def measure(mib: int, repeat: int) -> list[Row]:
    """The rows; the mixed state has ``mib`` MiB."""
    state = mixed(mib)
    nbytes = sum(array.nbytes for array in state.values())
    label, ours = f"state of {mib} MiB in 300 tensors", lambda: state_digest(state)
    peer: tuple[str, Callable[[], object]] = ("raw blake3", raw_blake3(state.values()))
    rows = [row(label, ours, peer, repeat, "GB/s", nbytes, ("ratio", ">=", 0.95))]
    peer = ("sha256", lambda: [hashlib.sha256(array).digest() for array in state.values()])
    rows.append(row(label, ours, peer, 1, "GB/s", nbytes, ("ratio", ">=", 1)))

    small = {f"layers.{at}.bias": array.copy() for at, array in enumerate(numbers(3000, 256))}
    peer = ("the hashes alone", hashes_alone(small))
    for label, convert in small_states():
        tensors = {name: convert(array) for name, array in small.items()}
        ours = lambda tensors=tensors: state_digest(tensors)  # type: ignore[misc] # noqa: E731
        bar = ("value", "<=", 3.0)
        rows.append(row(label, ours, peer, 5 * repeat, "us each", len(small), bar))

    wide = numbers(8192, 16384)
    peer = ("raw blake3, contiguous", raw_blake3([wide[:4096]]))
    for label, array in (("half of each row", wide[:, :8192]), ("transposed", wide[:4096].T)):
        ours = lambda array=array: state_digest({"w": array})  # type: ignore[misc] # noqa: E731
        label, nbytes = f"256 MiB non-contiguous: {label}", array.nbytes
        rows.append(row(label, ours, peer, repeat, "GB/s", nbytes, ("value", ">=", 3)))
    return rows


def small_states() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Label, and how to make a tensor of an array."""
    yield "3,000 arrays of 1 KiB, NumPy", lambda array: array
    if find_spec("torch") is not None:
        import torch

        yield "3,000 tensors of 1 KiB, torch", torch.from_numpy


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the mixed state in MiB")
    parser.add_argument("--repeat", type=int, default=7, help="pairs, of which the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    rows = measure(options.mib, options.repeat)
    if options.json:
        rounded = [
            {key: round(item, 3) if isinstance(item, float) else item for key, item in row.items()}
            for row in rows
        ]
        print(json.dumps({"benchmark": "digest", "cpus": os.cpu_count(), "rows": rounded}))
        return 0
    for item in rows:
        print(
            f"{item['name']:<42}{item['value']:7.2f} {item['unit']:<8}"
            f"{item['peer']:<23}{item['peer_value']:7.2f}{item['ratio']:7.2f}x  "
            f"{item['bar']:<13} {'met' if item['met'] else 'NOT MET'}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
