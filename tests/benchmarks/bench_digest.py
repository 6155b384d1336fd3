"""Speed of state digests beside raw blake3 over the same tensors.

Raw blake3 gets a thread for each processor from 1 MiB on, one below, and each tensor's bytes
without a header, a name or a tree. GB are 10**9 bytes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from provenance.fingerprint.arrays import tensor_header
from provenance.fingerprint.tensors import state_digest, state_digest_file
from tests.benchmarks.measure import Call, in_turns
from tests.benchmarks.table import Row, missing, row

State = dict[str, Any]


HEADER_FIRST = (
    "a tensor's header stands before its elements, so blake3 takes 1, 2, 4 ... KiB of them before "
    "as many at once as it can: raw blake3 after a header is as fast as this"
)


def raw_blake3(arrays: Iterable[Any], header: bytes = b"") -> Call:
    """One hash of each contiguous array's bytes, after a header where one is given."""
    views = [memoryview(array).cast("B") for array in arrays]
    threads = [blake3.AUTO if len(view) >= 1 << 20 else 1 for view in views]

    def action() -> None:
        for view, most in zip(views, threads, strict=True):
            hasher = blake3(header, max_threads=most)
            hasher.update(view)
            hasher.digest()

    return action


def plain_sha256(state: State) -> Call:
    """One hash of each array's bytes."""
    return lambda: [hashlib.sha256(array).digest() for array in state.values()]


def hashes_alone(state: State) -> Call:
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


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table; the mixed state has 1 GiB, quick 64 MiB."""
    mib, repeat = (64, 3) if quick else (1024, 9)
    state = mixed(mib)
    label = f"state digest, {mib} MiB in 300 tensors"
    raw = ("raw blake3", raw_blake3(state.values()))
    yield gigabytes(label, state, raw, repeat, "ratio >= 0.95", HEADER_FIRST)
    header = tensor_header("layers.0.weight", "F32", (1024, 1024))
    after = ("raw blake3 after a header", raw_blake3(state.values(), header))
    yield gigabytes(label, state, after, repeat, None)
    yield gigabytes(label, state, ("sha256", plain_sha256(state)), 3, "ratio >= 1")
    yield from saved(state, repeat)
    yield on_device(state, repeat)
    del state, raw, after

    small = {f"layers.{at}.bias": array.copy() for at, array in enumerate(numbers(3000, 256))}
    for label, convert in small_states():
        tensors = {name: convert(array) for name, array in small.items()}
        calls: dict[str, Call] = {
            "ours": partial(state_digest, tensors),
            "peer": hashes_alone(small),
        }
        taken = in_turns(calls, 5 * repeat, scale=1e6 / len(small))
        peer = ("the hashes alone", taken["peer"])
        why = "the hashes alone take the peer's time; the rest is a name, a header and a view each"
        yield row(f"state digest, {label}, each", "us", taken["ours"], peer, "value <= 3", why)

    wide = numbers(8192, 16384)
    peer_call = ("raw blake3, contiguous", raw_blake3([wide[:4096]]))
    for label, array in (("half of each row", wide[:, :8192]), ("transposed", wide[:4096].T)):
        label = f"state digest, 256 MiB non-contiguous, {label}"
        why = (
            "each byte is copied by one core while others hash: the memory of the machine bounds it"
        )
        yield gigabytes(label, {"w": array}, peer_call, repeat, "value >= 3", why)


def gigabytes(
    label: str, state: State, peer: tuple[str, Call], repeat: int, bar: str | None, why: str = ""
) -> Row:
    """A row in GB/s, after one call of each to warm up."""
    nbytes = sum(array.nbytes for array in state.values())
    calls = {"ours": lambda: state_digest(state), "peer": peer[1]}
    in_turns(calls, 1)
    taken = in_turns(calls, repeat)
    ours, theirs = ([nbytes / 1e9 / one for one in taken[name]] for name in calls)
    return row(label, "GB/s", ours, (peer[0], theirs), bar, why)


def on_device(state: State, repeat: int) -> Row:
    """The state on a CUDA device, beside a copy of it to the host and its digest there."""
    label = "state digest on a CUDA device"
    if not find_spec("torch"):
        return missing(label, "pip install torch")
    import torch

    if not torch.cuda.is_available():
        return missing(label, "needs a CUDA device")
    tensors = {name: torch.from_numpy(array).cuda() for name, array in state.items()}

    def by_the_host() -> None:
        state_digest({name: tensor.cpu() for name, tensor in tensors.items()})

    return gigabytes(label, tensors, ("copied to the host first", by_the_host), repeat, None)


def saved(state: State, repeat: int) -> Iterator[Row]:
    """The state as a safetensors file, beside what signs models."""
    label = "state digest of a safetensors file"
    if not find_spec("safetensors") or not find_spec("model_signing"):
        yield missing(label, "pip install safetensors model-signing")
        return
    from model_signing.hashing import Config
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        signing: Any = Config()  # type: ignore[no-untyped-call]  # no types
        path = Path(folder, "model.safetensors")
        save_file(state, path)
        calls = {"ours": lambda: state_digest_file(path), "peer": lambda: signing.hash(folder)}
        in_turns(calls, 1)
        taken = in_turns(calls, repeat)
        size = path.stat().st_size / 1e9
    ours, theirs = ([size / one for one in taken[name]] for name in calls)
    yield row(label, "GB/s", ours, ("model_signing, sha256", theirs))


def small_states() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Label, and how to make a tensor of an array."""
    yield "3,000 arrays of 1 KiB, NumPy", lambda array: array
    if find_spec("torch") is not None:
        import torch

        yield "3,000 tensors of 1 KiB, torch", torch.from_numpy
