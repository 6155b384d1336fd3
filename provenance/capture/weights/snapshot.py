"""Snapshotter: hashes weights beside the training instead of in its way.

============  ==============================================================================
mode          what the caller's thread does
============  ==============================================================================
stall-free    nothing but note where a module's parameters lie; an optimizer's step waits until
              they are hashed (:mod:`provenance.capture.weights.live_weights`)
copy          copies the tensors to host memory, into the arena of the epoch before
sync          hashes; a file is read here, or by another process, for which it waits
              (:mod:`provenance.capture.weights.weight_file`)
file          notes which file it is, which is read later, and not to change until then
============  ==============================================================================

While there is work, one daemon thread hashes and calls back, one snapshot after the other. There is
one arena: where it is in use, or too many snapshots wait, the caller hashes, so that memory stays
bounded.

Weights that a CUDA device hashes are hashed at the call in every mode: that takes less time than to
copy them (:mod:`provenance.fingerprint.cuda.device`).

Nothing is raised into training: what fails is counted and handed to ``on_error``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, Generic, NamedTuple, TypeVar

from provenance.capture.weights.live_weights import LiveWeights, live_weights, watch
from provenance.capture.weights.weight_file import WeightFile
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.arrays import RawTensor
from provenance.fingerprint.fitted.boosters import copy_of_model
from provenance.fingerprint.model_state import ModelState, model_state

T = TypeVar("T")
MODES: Final = ("stall-free", "copy", "sync", "file")
IDLE_S = 5.0
"""The thread ends after so long without work: a tracker that nobody closes keeps none."""
_MAX_WAITING = 8
_CHANGED = "they changed outside an optimizer's step while they were hashed; copied from now on"
_LIVE: weakref.WeakSet[Snapshotter[Any]] = weakref.WeakSet()


def check_mode(mode: str, model: object) -> None:
    """Refuse a mode that does not fit. Raises InputError: not one of ``MODES``; ``file`` for what
    is no path, or ``copy`` for one."""
    is_path = isinstance(model, str | os.PathLike)
    if mode not in MODES or (mode != "sync" and (mode == "file") != is_path):
        expected = "file or sync for a path, else stall-free, copy or sync"
        raise InputError(f"weights: found {mode!r}, expected {expected}")


def copy_of(model: object, arena: object = None, skip: Collection[str] = ()) -> ModelState:
    """A copy of a model's tensors that later training steps do not change, for a content digest.

    Tensors go to host memory one by one.

    Args:
        arena: An earlier copy; its tensors of the same shape and type are written over.
        skip: Names that are left out.

    Raises:
        InputError: As ``model_state``.
        Whatever the model's own copy raises.
    """
    state = model_state(model)
    spare = arena if isinstance(arena, ModelState) else {}
    copies = {
        name: _copy(value, spare.get(name)) for name, value in state.items() if name not in skip
    }
    return state.holding(copies)


def _copy(value: Any, arena: object) -> object:
    if isinstance(value, RawTensor):
        return value
    torch: Any = sys.modules.get("torch")
    numpy: Any = sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        if isinstance(arena, torch.Tensor) and _key(arena) == _key(value):
            return arena.copy_(value.detach())
        return value.detach().to("cpu", copy=True)
    known = numpy is not None and type(value) is type(arena) is numpy.ndarray
    if known and _key(arena) == _key(value):
        numpy.copyto(arena, value)
        return arena
    if hasattr(value, "__array__") and callable(getattr(value, "copy", None)):
        return value.copy()
    return copy_of_model(value)


def _key(array: Any) -> tuple[object, ...]:
    return array.shape, array.dtype, getattr(array, "layout", None)


class _Job(NamedTuple, Generic[T]):
    """A snapshot to hash: of a live module, in the arena, or as it was given."""

    hash_fn: Callable[[Any], T]
    state: object
    on_done: Callable[[T], object]
    on_error: Callable[[ProvenanceError], object] | None
    live: LiveWeights | None = None
    in_arena: bool = False


class Snapshotter(Generic[T]):
    """Hashes snapshots of models in the background.

    Args:
        hash_fn: From a model, its copy or a :class:`WeightFile` to whatever the callback wants.
        on_error: Called with what could not be hashed or reported.
        at_once: Tells of which models the caller hashes rather than copies.
    """

    def __init__(
        self,
        hash_fn: Callable[[Any], T],
        on_error: Callable[[ProvenanceError], object] | None = None,
        at_once: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._hash, self._on_error, self._at_once = hash_fn, on_error, at_once
        self._closed = False
        self._trust_steps = True
        self._arena: object = None
        self.renew()
        _LIVE.add(self)

    def renew(self) -> None:
        """Begin anew in a forked child: thread and waiting copies are the parent's."""
        self.errors = 0
        self.inline = 0
        """Snapshots that the caller had to hash itself."""
        self._changed = threading.Condition()
        self._waiting: deque[_Job[T]] = deque()
        self._hashing = False
        self._hashed: LiveWeights | None = None
        """Hashed, and to be looked at: by a thread that waits here, and so writes to no weights,
        or by the hashing one a moment later."""
        self._live = 0
        """Snapshots of live modules that are not hashed yet."""
        self._arena_used = False
        self._thread: threading.Thread | None = None

    def submit(
        self,
        model: object,
        on_done: Callable[[T], object],
        mode: str | None = None,
        on_error: Callable[[ProvenanceError], object] | None = None,
        hash_fn: Callable[[Any], T] | None = None,
        skip: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Take a snapshot now; ``on_done`` gets its hash, soon.

        Args:
            model: What ``hash_fn`` takes, or the path of a file.
            mode: One of ``MODES``; None: ``sync`` for a path, which may be overwritten as soon as
                this returns, ``copy`` for the rest.
                ``stall-free`` of what no known optimizer trains is ``copy``.
            on_error: Instead of the one for all.
            hash_fn: The same.
            skip: Asked before a copy for the names of tensors that ``hash_fn`` does not need.
        """
        if mode == "stall-free":
            watch(self)
        if mode is None and isinstance(model, str | os.PathLike):
            mode = "sync"
        on_error = on_error or self._on_error
        given = _Job(hash_fn or self._hash, model, on_done, on_error)
        try:
            job = self._take(given, mode, skip)
        except ProvenanceError as error:
            self._failed(error, on_error)
            return
        # A model's own copy may raise anything; hashing it in place needs none.
        except Exception:  # noqa: BLE001  whatever it is must not reach the caller
            self._arena = job = None
        if job is not None and mode != "sync":
            with self._changed:
                if not self._closed and len(self._waiting) < _MAX_WAITING and self._start():
                    self._waiting.append(job)
                    self._changed.notify_all()
                    return
        if job is not None and job.live is not None:
            self._give_back(live=True)
            job = None
        self.inline += 1
        self._work(job or given)

    def settle(self) -> None:
        """Wait until no live module is read any more: called before its optimizer's step."""
        if self._live:
            self._wait(lambda: self._live == 0, None)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until every snapshot is hashed and reported; False where time ran out."""
        return self._wait(lambda: not (self._waiting or self._hashing), timeout)

    def _wait(self, over: Callable[[], bool], timeout: float | None) -> bool:
        def looked() -> bool:
            self._look()
            return over()

        with self._changed:
            return self._changed.wait_for(looked, timeout)

    def _look(self) -> None:
        if self._hashed is not None:
            self._hashed.look()
            self._hashed = None
            self._live -= 1
            self._changed.notify_all()

    def close(self, timeout: float | None = None) -> bool:
        """Drain, and let the thread go. What comes later is hashed by the caller."""
        drained = self.drain(timeout)
        with self._changed:
            self._closed = True
            self._arena = None
            self._changed.notify_all()
        return drained

    def _take(
        self, given: _Job[T], mode: str | None, skip: Callable[[], Collection[str]]
    ) -> _Job[T] | None:
        """A snapshot that may wait; None where the caller is to hash the model itself."""
        model = given.state
        if isinstance(model, str | os.PathLike):
            return given._replace(state=WeightFile.at(model))
        if mode == "sync" or self._closed or self._at_once(model):
            return None
        if mode == "stall-free" and self._trust_steps:
            with self._changed:
                self._live += 1  # from here on steps wait
            live = None
            try:
                live = live_weights(model)
            finally:
                if live is None:
                    self._give_back(live=True)
            if live is not None:
                return given._replace(state=live.state, live=live)
        with self._changed:
            if self._arena_used:
                return None
            self._arena_used = True
        try:
            self._arena = copy_of(model, self._arena, skip())
        except BaseException:
            self._give_back(arena=True)
            raise
        return given._replace(state=self._arena, in_arena=True)

    def _give_back(self, *, live: bool = False, arena: bool = False) -> None:
        with self._changed:
            self._live -= live
            self._arena_used = self._arena_used and not arena
            self._changed.notify_all()

    def _start(self) -> bool:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="provenance-snapshot", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter ends
                thread.start()
                self._thread = thread
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    if not self._changed.wait(IDLE_S) and not self._waiting:
                        self._thread = None
                        return
                job = self._waiting.popleft()
                self._hashing = True
            try:
                self._work(job)
            finally:
                del job
                with self._changed:
                    self._hashing = False
                    self._changed.notify_all()

    def _work(self, job: _Job[T]) -> None:
        try:
            try:
                result = job.hash_fn(job.state)
                if job.live is not None:
                    self._check(job.live)
            finally:
                live = job.live is not None and job.live.moved is None
                self._give_back(live=live, arena=job.in_arena)
            job.on_done(result)
        # Guards the training, like the emitter's: a model's code may raise anything.
        except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
            self._failed(translated(error), job.on_error)

    def _check(self, live: LiveWeights) -> None:
        with self._changed:
            self._hashed = live
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._hashed is None, live.grace_s())
            self._look()
        if live.moved:
            self._trust_steps = False
            raise InputError(_CHANGED)

    def _failed(
        self, error: ProvenanceError, on_error: Callable[[ProvenanceError], object] | None
    ) -> None:
        self.errors += 1
        if on_error is not None:
            with contextlib.suppress(Exception):
                on_error(error)


def translated(error: Exception) -> ProvenanceError:
    """What a model's own code raised, as an error of this project in one line."""
    if isinstance(error, ProvenanceError):
        return error
    return InputError(f"{type(error).__name__}: {error}".splitlines()[0][:500])


def _renew_in_child() -> None:
    for snapshotter in list(_LIVE):
        snapshotter.renew()


os.register_at_fork(after_in_child=_renew_in_child)
