"""Digests of frozen parameters, taken once and reused while nothing shows a write to them.

That a parameter's ``requires_grad`` is False at the call is a hint that nobody writes to it. Its
digest is reused while the parameter, its storage, the way it is read and autograd's count of its
in-place writes (``Tensor._version``) are what they were when the digest was taken. A module's
buffers are always read: a forward pass changes them. So is a parameter of a class of its own.

A write past autograd (``.data``, a NumPy view, shared memory, the replay of a CUDA graph) shows in
none of these. So each epoch hashes a share of the frozen parameters all the same, drawn by the
system's random numbers. Where one differs the hint was wrong: the epoch's state is read whole, its
record says which digests had become untrue, and the run reuses none from then on.

torch is never imported here: it is looked up where the training has it.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Mapping
from random import SystemRandom
from typing import Any, Final, NamedTuple

from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.model_state import model_state
from provenance.fingerprint.tensors import TensorDigest, state_digest

_RANDOM: Final = SystemRandom()


class _Entry(NamedTuple):
    """A digest, what was read for it, and the epoch whose record has it (None: before training).

    The references are weak, to hold no memory of a parameter that was replaced; an address alone
    would not do: the memory of one that is gone is soon another's.
    """

    parameter: weakref.ref[Any]
    storage: weakref.ref[Any]
    reading: tuple[object, ...]
    digest: TensorDigest
    epoch: int | None

    def is_of(self, parameter: Any, storage: Any, reading: tuple[object, ...]) -> bool:
        same = self.parameter() is parameter and self.storage() is storage
        return same and self.reading == reading


def _reading(parameter: Any) -> tuple[object, ...]:
    p = parameter
    shape = (p.data_ptr(), p.shape, p.stride(), p.dtype, p.device)
    return *shape, p.is_conj(), p.is_neg(), p._version


class FrozenDigests:
    """What a run knows of its frozen parameters.

    Args:
        share: Of what could be reused, how much each epoch hashes again, 0 to 1; at least one.
        factory: The run's content hash.
    """

    def __init__(self, share: float, factory: HashFactory) -> None:
        self.share, self.factory = share, factory
        self.entries: dict[str, _Entry] = {}
        self.suspect = self.ended = False
        """A hint was wrong: nothing is reused; and a record says so."""

    def reading(self, epoch: int | None, model: object) -> Reading | None:
        """How the model is read now; None for whole: it is no torch module, or reuse has ended.

        Args:
            epoch: None, for the weights before training, reads all.
            model: As ``track_epoch`` takes it.
        """
        torch = sys.modules.get("torch")
        if self.ended or torch is None or not isinstance(model, torch.nn.Module):
            return None
        # A model's own state_dict may raise anything; reading it whole says what.
        try:
            frozen = {
                name: value
                for name, value in model_state(model).items()
                if type(value) is torch.nn.Parameter
                and not (value.requires_grad or value.is_inference() or value.is_meta)
                and value.layout is torch.strided
            }
            return Reading(self, epoch, frozen)
        except Exception:  # noqa: BLE001  whatever it is must not reach the training
            return None


class Reading:
    """How one state is read: which digests are reused, and which of these are hashed again.

    ``frozen``: the module's frozen parameters, by their names in its state.
    """

    def __init__(self, memory: FrozenDigests, epoch: int | None, frozen: Mapping[str, Any]) -> None:
        self._memory, self._epoch = memory, epoch
        self._places: dict[str, tuple[Any, Any, tuple[object, ...]]] = {}
        self._reusable: dict[str, _Entry] = {}
        for name, value in frozen.items():
            storage, reading = value.untyped_storage(), _reading(value)
            self._places[name] = (weakref.ref(value), weakref.ref(storage), reading)
            entry = None if epoch is None else memory.entries.get(name)
            if entry is not None and entry.is_of(value, storage, reading):
                self._reusable[name] = entry
        most = len(self._reusable)
        count = min(most, max(1, math.ceil(memory.share * most)))
        drawn = _RANDOM.sample(list(self._reusable), count)
        self._drawn = {name: frozen[name].detach() for name in drawn}
        self._known: dict[str, TensorDigest] | None = None
        self._entries: dict[str, _Entry] = {}

    def settle(self) -> Mapping[str, TensorDigest]:
        """Hash the drawn ones, once; what needs no reading any more, none for a wrong hint.

        Raises:
            Whatever reading a tensor raises.
        """
        if self._known is None:
            known = {name: entry.digest for name, entry in self._reusable.items()}
            if self._drawn:
                again = state_digest(self._drawn, self._memory.factory).tensors
                if any(tensor.value != known[tensor.name].value for tensor in again):
                    self._memory.suspect = True
            self._known = {} if self._memory.suspect else known
        return self._known

    def fields(self, state: object) -> dict[str, Any]:
        """The fields of the state's record: ``StateDigest.as_fields()``, and what was reused.

        Args:
            state: The module, or its tensors by name as they were at the call, but for those
                that :meth:`settle` names.

        Raises:
            InputError: As ``state_digest``.
        """
        known = self.settle()
        digest = state_digest(state, self._memory.factory, known)
        fields = digest.as_fields()
        changed = []
        for tensor, item in zip(digest.tensors, fields["tensors"], strict=True):
            name, entry = tensor.name, self._reusable.get(tensor.name)
            if entry is not None and name in known and name not in self._drawn:
                item["read"] = entry.epoch
                self._entries[name] = entry
            elif name in self._places:
                self._entries[name] = _Entry(*self._places[name], tensor, self._epoch)
                if entry is not None and entry.digest.value != tensor.value:
                    changed.append(name)
        if self._reusable:
            fields["reused"] = {
                "tensors": len(known) and len(known) - len(self._drawn),
                "rechecked": len(self._drawn),
                "share": self._memory.share,
                **({} if known else {"changed": changed}),
            }
        return fields

    def keep(self) -> bool:
        """Remember what was read, once its record is written; True where reuse ends with it."""
        memory = self._memory
        ends = bool(self._reusable) and not (self._known or memory.ended)
        memory.entries, memory.ended = self._entries, memory.ended or ends
        return ends
