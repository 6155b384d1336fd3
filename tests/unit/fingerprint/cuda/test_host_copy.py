"""Pinned buffers: the next piece is on its way while the last one is hashed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from provenance.fingerprint import arrays
from provenance.fingerprint.cuda import host_copy
from provenance.fingerprint.cuda.host_copy import BUFFER_BYTES, Buffers, host_pieces
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import tensor_digest

TENSORS = [
    ("one piece", torch.arange(9.0)),
    ("a scalar", torch.tensor(3, dtype=torch.int64)),
    ("none", torch.empty(0, 3)),
    ("pieces", torch.arange(1000, dtype=torch.int16).reshape(10, 100)),
    ("odd pieces", torch.arange(0, 251, dtype=torch.uint8).repeat(13)),
    ("transposed", torch.arange(600.0).reshape(20, 30).T),
    ("every second", torch.arange(600, dtype=torch.bfloat16)[::2]),
    ("rows wider than a buffer", torch.arange(2000.0).to(torch.complex128).reshape(2, 1000)),
]


@pytest.fixture(autouse=True)
def no_buffers_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_copy, "_KEPT", threading.local())


class Log(list[str]):
    """Buffers in plain memory, and what happened to them."""

    def buffers(self) -> Buffers:
        halves = [torch.empty(256, dtype=torch.uint8) for _ in "ab"]
        return Buffers(halves, self.queued)

    def queued(self, _device: object) -> Callable[[], object]:
        number = sum(line.startswith("queued") for line in self)
        self.append(f"queued {number}")
        return lambda: self.append(f"arrived {number}")


def test_a_piece_is_hashed_when_it_has_arrived_and_the_next_one_is_queued() -> None:
    log = Log()
    for number, piece in enumerate(host_pieces(torch.zeros(700, dtype=torch.uint8), log.buffers)):
        log.append(f"hashed {number}, {len(piece)}")
    assert log == [
        "queued 0", "queued 1", "arrived 0", "hashed 0, 256", "queued 2", "arrived 1",
        "hashed 1, 256", "arrived 2", "hashed 2, 188",
    ]  # fmt: skip


def test_buffers_are_kept_for_the_next_tensor() -> None:
    made: list[Buffers] = []

    def make() -> Buffers:
        made.append(Log().buffers())
        return made[-1]

    for _ in range(3):
        list(host_pieces(torch.ones(700, dtype=torch.uint8), make))
    assert len(made) == 1
    inner = [list(host_pieces(torch.ones(1), make)) for _ in host_pieces(torch.ones(1), make)]
    assert (len(inner), len(made)) == (1, 2), "a tensor within a tensor has its own"


def test_who_stops_early_leaves_no_copy_under_way() -> None:
    log = Log()
    pieces = host_pieces(torch.zeros(700, dtype=torch.uint8), log.buffers)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator
    assert log == ["queued 0", "queued 1", "arrived 0", "arrived 1"]


@pytest.mark.parametrize("tensor", [t for _, t in TENSORS], ids=[n for n, _ in TENSORS])
@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_the_digest_is_that_of_host_memory(
    tensor: torch.Tensor, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, factory = Log(), HashFactory(algorithm)
    expected = tensor_digest("w", tensor, factory)
    host_copy._KEPT.buffers = log.buffers()
    monkeypatch.setattr(arrays, "is_resident", lambda value: True)
    monkeypatch.setattr(arrays, "PINNED_BYTES", 0)
    monkeypatch.setattr("provenance.fingerprint.tensors.small_tensor", lambda value: None)
    assert tensor_digest("w", tensor, factory) == expected
    assert len(log) > 0, "it came by the buffers"


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory can be pinned here")
def test_memory_that_cannot_be_pinned_is_plain() -> None:
    halves = host_copy.pinned().halves
    assert [(half.nbytes, half.is_pinned()) for half in halves] == [(BUFFER_BYTES, False)] * 2
