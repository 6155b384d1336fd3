"""Speed of a state digest against plain SHA-256 over the same memory, in the same run.

    python tests/benchmarks/bench_digest.py [--mib 512] [--repeat 3] [--json]

Prints GB/s (10**9 bytes) of the fastest repeat for each. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.tensors import state_digest


def fastest(repeat: int, nbytes: int, action: Callable[[], object]) -> float:
    """GB/s of the fastest of ``repeat`` runs."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return nbytes / best / 1e9


def measure(mib: int, repeat: int) -> dict[str, float]:
    """GB/s by what was run; the state is ``mib`` MiB of float32 in tensors of 16 MiB."""
    count = max(1, mib // 16)
    buffer = np.random.default_rng(0).integers(0, 256, count << 24, dtype=np.uint8)
    tensors = buffer.view(np.float32).reshape(count, 2048, 2048)
    state = {f"layers.{i}.weight": tensors[i] for i in range(count)}
    small = {f"t{i}": piece for i, piece in enumerate(np.split(tensors.reshape(-1), 1024 * count))}
    turned = {name: tensor.T for name, tensor in state.items()}
    view = buffer.data

    results = {"plain sha256": fastest(repeat, buffer.nbytes, lambda: hashlib.sha256(view))}
    for algorithm in DIGEST_SIZES:
        factory = HashFactory(algorithm)
        results[f"state {algorithm}"] = fastest(
            repeat if algorithm == "blake3" else 1,
            buffer.nbytes,
            lambda factory=factory: state_digest(state, factory),  # type: ignore[misc]  # the base class has no types
        )
    blake3 = HashFactory()
    results["state blake3, tensors of 16 KiB"] = fastest(
        repeat, buffer.nbytes, lambda: state_digest(small, blake3)
    )
    results["state blake3, transposed"] = fastest(1, buffer.nbytes, lambda: state_digest(turned))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the last line is the ratio that matters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=512, help="size of the state in MiB")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the fastest counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    results = measure(options.mib, options.repeat)
    ratio = results["state blake3"] / results["plain sha256"]
    if options.json:
        rounded = {name: round(value, 3) for name, value in results.items()}
        report = {"gb_per_s": rounded, "ratio": round(ratio, 2), "cpus": os.cpu_count()}
        print(json.dumps({"benchmark": "digest", "mib": options.mib, **report}))
        return 0
    for name, value in results.items():
        print(f"{name:<34}{value:8.2f} GB/s")
    print(f"state blake3 / plain sha256: {ratio:.1f}x on {os.cpu_count()} CPUs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
