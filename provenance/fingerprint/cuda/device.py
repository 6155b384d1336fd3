"""Weights that lie on a CUDA device: hashed there, with the digest that the host has for them.

======================  ====================================================================
read where              what
======================  ====================================================================
on the device           blake3: a kernel (:mod:`~provenance.fingerprint.cuda.blake3_kernel`)
                        reads each tensor in place; 32 bytes of each come to the host
by pinned buffers       where that does not go (another content hash, no triton, an old device,
                        anything that its compiler or driver raises), and tensors that are not
                        contiguous and larger than COPY_BYTES: see host_copy.py
======================  ====================================================================

**Order.** Kernels and copies are queued on the calling thread's current stream, like torch's own
operations: they read what was queued before, and what the thread queues later comes after. The
call returns when the digests are there, so no event has to outlive it and an optimizer's next step
finds nobody reading. So a snapshot hashes such weights at the call in every mode
(:func:`~provenance.fingerprint.tensors.hashed_on_device`): to copy them would hold the training
up for longer. A tensor that another stream writes to is ordered by the caller, as for ``cpu()``.

**Memory** on the device, for the time of a call: 48 bytes for each KiB of a group of tensors
(GROUP_BYTES, or the largest tensor), and copies of at most COPY_BYTES, of a group's tensors that
are not contiguous, or whose address is odd.

**Trust.** Before the first use of a device its kernel hashes a known message; where the CPU's
digest differs, or anything is raised, the host reads the weights from then on, and one line of the
log in the life of the process says why.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from provenance.fingerprint.arrays import Array, dense_tensor, is_resident, tensor_header
from provenance.fingerprint.hashers import HashFactory
from provenance.log import get_logger

GROUP_BYTES: Final = 1 << 30
"""From so many bytes on a group of tensors is hashed; one tensor may have more."""
COPY_BYTES: Final = 256 << 20
CAPABILITY: Final = (8, 0)
"""Compute capability that triton supports (its README, "Compatibility")."""

log = get_logger("provenance")
_devices: dict[Any, bool] = {}
"""Those that were tried, and whether they have the CPU's digests."""
_told = False


class ResidentDigest(NamedTuple):
    """A tensor's dtype name, shape, bytes and ``H(header || elements)``."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    value: bytes


def in_use() -> bool:
    """True where this process has used a CUDA device."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def usable(device: Any, factory: HashFactory) -> bool:
    """True where a device hashes as the CPU does; the first call tries it, and compiles."""
    if factory.algorithm != "blake3":
        _tell(f"the content hash is {factory.algorithm}, expected blake3")
        return False
    if device not in _devices:
        _devices[device] = _passes(device)
    return _devices[device]


def resident_digests(
    tensors: Iterable[tuple[str, Array]], factory: HashFactory
) -> dict[str, ResidentDigest]:
    """The digests, by name, of those tensors that were hashed on their device."""
    found: dict[str, ResidentDigest] = {}
    if not in_use():
        return found
    group = _Group(found)
    for name, value in tensors:
        if is_resident(value) and usable(value.device, factory):
            dense, dtype = dense_tensor(name, value)
            group.add(name, dtype, dense)
    group.hash()
    return found


class _Group:
    """Tensors of one device that are hashed together, into ``found``."""

    def __init__(self, found: dict[str, ResidentDigest]) -> None:
        self._found = found
        self._clear(None)

    def _clear(self, device: Any) -> None:
        self._device, self._nbytes, self._copied = device, 0, 0
        self._tensors: list[tuple[str, str, bytes, Any]] = []

    def add(self, name: str, dtype: str, tensor: Any) -> None:
        """Hash what is there, where it is enough or of another device; then take this."""
        plain = tensor.is_contiguous() and tensor.data_ptr() % 4 == 0
        copied = 0 if plain else tensor.nbytes
        if copied > COPY_BYTES:
            return
        if (
            tensor.device != self._device
            or self._nbytes + tensor.nbytes > GROUP_BYTES
            or self._copied + copied > COPY_BYTES
        ):
            self.hash()
            self._clear(tensor.device)
        self._nbytes += tensor.nbytes
        self._copied += copied
        header = tensor_header(name, dtype, tuple(tensor.shape))
        self._tensors.append((name, dtype, header, tensor))

    def hash(self) -> None:
        """Hash the group on its device; a device that fails is not used again."""
        if not self._tensors or not _devices[self._device]:
            return
        try:
            values = _hashed([(header, tensor) for *_, header, tensor in self._tensors])
        # A compiler or driver may raise anything; the host has the same digest.
        except Exception as error:  # noqa: BLE001  whatever it is must not reach the training
            _devices[self._device] = False
            _tell(_line(error))
            return
        for (name, dtype, _, tensor), value in zip(self._tensors, values, strict=True):
            shape = tuple(tensor.shape)
            self._found[name] = ResidentDigest(dtype, shape, tensor.nbytes, value)


def _hashed(messages: list[tuple[bytes, Any]]) -> list[bytes]:
    """The kernel's digests of header and elements, of tensors on one device."""
    from provenance.fingerprint.cuda.blake3_kernel import Message, digests

    torch: Any = sys.modules["torch"]
    device = messages[0][1].device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        laid = [(header, _laid(torch, tensor)) for header, tensor in messages]
        return digests([Message(head, at.data_ptr(), at.nbytes) for head, at in laid], device)


def _laid(torch: Any, tensor: Any) -> Any:
    """The tensor, or a copy of it, row-major from an address that a word may have."""
    if tensor.is_contiguous() and tensor.data_ptr() % 4 == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _passes(device: Any) -> bool:
    """Whether messages of several chunks, with headers that end anywhere in a word, have the
    CPU's digests."""
    torch: Any = sys.modules["torch"]
    try:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
            major, minor = torch.cuda.get_device_capability(device)
            _tell(f"compute capability {major}.{minor}, expected {CAPABILITY[0]}.{CAPABILITY[1]}")
            return False
        elements = torch.arange(5119, device=device).remainder(251).to(torch.uint8)
        headers = [bytes(range(size)) for size in (3, 4, 5, 6)]
        found = _hashed([(header, elements) for header in headers])
        data = bytes(elements.cpu().numpy())
        expected = [HashFactory().digest(header + data).value for header in headers]
    # As above.
    except Exception as error:  # noqa: BLE001  whatever it is must not reach the training
        _tell(_line(error))
        return False
    if found != expected:
        _tell("the kernel's digest of a known message is not the CPU's")
    return found == expected


def _line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "triton":
        return "triton is missing: pip install 'ml-provenance[gpu]'"
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _tell(reason: str) -> None:
    """One line in the life of the process."""
    global _told
    if not _told:
        _told = True
        log.warning("weights on a CUDA device are hashed by the host", reason=reason)
