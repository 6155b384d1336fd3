"""The elements of a tensor on a CUDA device by way of two buffers of pinned host memory.

The copy of one piece runs while the caller hashes the one before. Copies are queued on the calling
thread's current stream, as torch's own are: behind whatever writes to the tensor there, and before
whatever the thread queues once it has the digest.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from provenance.fingerprint.row_major import cut

BUFFER_BYTES: Final = 16 << 20
_KEPT = threading.local()
"""The thread's buffers: to pin memory takes longer than to copy it."""


class Buffers(NamedTuple):
    """Two buffers, and how it is known that a copy has arrived.

    Args:
        halves: Two tensors of bytes in host memory, of one size.
        queued: Called after each copy is queued from a device; what it returns waits for it.
    """

    halves: list[Any]
    queued: Callable[[Any], Callable[[], object]]


def pinned() -> Buffers:
    """Two pinned buffers of BUFFER_BYTES, and events of CUDA. Plain ones where none can be pinned:
    slower, and no less right."""
    torch: Any = sys.modules["torch"]

    def half(pin: bool) -> Any:
        return torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=pin)

    def queued(device: Any) -> Callable[[], object]:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        wait: Callable[[], object] = event.synchronize
        return wait

    try:
        return Buffers([half(True), half(True)], queued)
    except RuntimeError:
        return Buffers([half(False), half(False)], queued)


def host_pieces(tensor: Any, make: Callable[[], Buffers] = pinned) -> Iterator[memoryview]:
    """The elements of a dense tensor, row-major, as views of bytes; each piece holds until the
    next is asked for. Any strides."""
    buffers: Buffers = _KEPT.__dict__.pop("buffers", None) or make()
    waiting: list[tuple[Callable[[], object], Any]] = []
    try:
        for turn, part in enumerate(cut(tensor, buffers.halves[0].nbytes)):
            half = buffers.halves[turn % 2][: part.nbytes]
            half.view(part.dtype).view(part.shape).copy_(part, non_blocking=True)
            waiting.append((buffers.queued(tensor.device), half))
            if turn:
                yield _arrived(*waiting.pop(0))
        yield _arrived(*waiting.pop())
    finally:
        for wait, _ in waiting:
            wait()
        _KEPT.buffers = buffers


def _arrived(wait: Callable[[], object], half: Any) -> memoryview:
    wait()
    return memoryview(half.numpy())
