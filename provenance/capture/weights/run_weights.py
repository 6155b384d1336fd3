"""The weights that a run records: those before training, and each epoch's in the background."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from provenance.capture.emitter import Emitter
from provenance.capture.weights.live_weights import watch
from provenance.capture.weights.snapshot import Snapshotter, translated
from provenance.capture.weights.weight_file import WeightFile
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import Kind
from provenance.log import get_logger

if TYPE_CHECKING:
    from provenance.capture.weights.frozen import FrozenDigests
    from provenance.settings import Settings

log = get_logger("provenance")


class RunWeights:
    """Reads, hashes and records the weights of one process of a run.

    Args:
        emitter: What records them.
        factory: Content hash.

    Attributes:
        snapshots: What hashes in the background.
        hashed: How many records of epochs' weights, and gaps instead of them, came from it.
    """

    def __init__(self, emitter: Emitter, settings: Settings, factory: HashFactory) -> None:
        self._emitter, self._factory = emitter, factory
        self._algorithm, self._digests = settings.hash_algorithm, settings.weight_digests
        self.snapshots = Snapshotter(self._hash_state, at_once=self._hashed_on_device)
        self.hashed = 0
        self._reading: set[int] = set()
        """Epochs whose weights a call reads at this moment."""
        self._frozen: FrozenDigests | None = None
        if self._digests.reuse_frozen:
            from provenance.capture.weights import frozen

            self._frozen = frozen.FrozenDigests(self._digests.recheck_share, factory)

    def watch(self) -> None:
        """Know the model's optimizer steps from now on."""
        watch(self.snapshots)

    def before(self, model: object) -> tuple[dict[str, Any] | None, Callable[[], object]]:
        """What a record states of the weights before training, None of a rank outside of the
        model's mesh; and what to call once it is recorded. Raises InputError: no tensors in it."""
        from provenance.fingerprint.shards import held_state

        held = held_state(model)
        if held is None:
            return None, bool
        reading = None if self._frozen is None else self._frozen.reading(None, held.state)
        if reading is None:
            return held.placed(self._hash_state(held.state)), bool
        return held.placed(reading.fields(held.state)), reading.keep

    def epoch(self, epoch: int, model: object, mode: str | None) -> None:
        """Record an epoch's weights as they are now; what cannot be hashed becomes a gap, and so
        does what an interrupt, or the end of the process, keeps from being read.

        Args:
            mode: As ``track_epoch`` takes ``weights``.
        """
        self._reading.add(epoch)
        try:
            self._take(epoch, model, mode)
        except BaseException as error:  # such as Ctrl-C's
            if epoch in self._reading:
                self.lost(epoch, InputError(f"not read before {type(error).__name__}"))
            raise
        finally:
            self._reading.discard(epoch)

    def _take(self, epoch: int, model: object, mode: str | None) -> None:
        from provenance.fingerprint.model_state import trained_state
        from provenance.fingerprint.shards import held_state

        place = self._emitter.rank, self._emitter.world_size
        try:
            held = held_state(model, self._digests.ranks, *place, epoch)
            only = self._digests.trainable_only
            if held is not None and only and not isinstance(model, str | os.PathLike):
                held = held._replace(state=trained_state(held.state))
        # A model's state_dict() may raise anything, and training goes on.
        except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
            self.lost(epoch, translated(error))
            return
        if held is None:
            return
        reading = None if self._frozen is None else self._frozen.reading(epoch, held.state)

        def done(fields: dict[str, Any]) -> None:
            self._emitter.emit(Kind.STATE, epoch, held.placed(fields), refuse=True)
            self.hashed += 1
            if reading is not None and reading.keep():
                problem = "frozen weights were written past autograd; from now on all are read"
                log.warning(problem, epoch=epoch, run=str(self._emitter.run))

        self.snapshots.submit(
            held.state,
            done,
            mode,
            lambda error: self.lost(epoch, error),
            None if reading is None else reading.fields,
            tuple if reading is None else reading.settle,
        )

    def close(self, within_s: float | None) -> None:
        """Wait for what is being hashed; what is not after ``within_s`` becomes a gap."""
        if not self.snapshots.close(within_s):
            lost = {"dropped": 1, "reason": "weights not hashed before the end", "what": "weights"}
            self._emitter.emit(Kind.GAP, None, lost)
        while self._reading:  # in another thread, by a call that this end interrupts
            self.lost(self._reading.pop(), InputError("not read before the end"))

    def lost(self, epoch: int, error: ProvenanceError) -> None:
        """Leave a gap that says why an epoch's weights are not recorded."""
        self._emitter.lost("weights", epoch, error)
        self.hashed += 1

    def _hash_state(self, state: object) -> dict[str, Any]:
        from provenance.fingerprint.tensors import state_digest

        if isinstance(state, str | os.PathLike):
            return WeightFile.at(state).digest(self._algorithm, here=True)
        if isinstance(state, WeightFile):
            return state.digest(self._algorithm)
        return state_digest(state, self._factory).as_fields()

    def _hashed_on_device(self, model: object) -> bool:
        if "torch" not in sys.modules:
            return False
        from provenance.fingerprint.tensors import hashed_on_device

        return hashed_on_device(model, self._factory)
