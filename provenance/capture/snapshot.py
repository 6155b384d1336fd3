"""Snapshotter: hashes weights beside the training instead of in its way.

Life of a snapshot: the caller's thread copies the tensors to host memory; one daemon thread
hashes the copy and calls back. At most one copy waits while another is hashed: where a third
comes, the caller hashes it itself, so that memory stays bounded. A callback may therefore
come from either thread, and in any order.

Nothing is raised into training: what fails is counted and handed to ``on_error``.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from provenance.errors import InputError, ProvenanceError

T = TypeVar("T")
_MAX_DEPTH = 32
_LIVE: weakref.WeakSet[Snapshotter[Any]] = weakref.WeakSet()


def copy_of(model: object) -> object:
    """A copy that later training steps do not change, for a content digest.

    Tensors go to host memory one by one; mappings, sequences and the ``state_dict()`` of a
    module are copied element by element, an estimator whole.

    Raises:
        Whatever the model's own copy raises.
    """
    state = getattr(model, "state_dict", None)
    if callable(state) and not isinstance(model, type):
        return _copy(state(), 0)
    return _copy(model, 0)


def _copy(value: object, depth: int) -> object:
    if depth > _MAX_DEPTH or value is None or isinstance(value, str | bytes | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, depth + 1) for item in value]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if hasattr(value, "__array__") and callable(getattr(value, "copy", None)):
        return value.copy()  # type: ignore[attr-defined]  # known by its methods
    return copy.deepcopy(value)


class Snapshotter(Generic[T]):
    """Hashes snapshots of models in the background.

    Args:
        hash_fn: From a model or its copy to whatever the callback wants.
        on_error: Called with what could not be hashed or reported.
    """

    def __init__(
        self, hash_fn: Callable[[Any], T], on_error: Callable[[ProvenanceError], None] | None = None
    ) -> None:
        self._hash, self._on_error = hash_fn, on_error
        self._closed = False
        self.renew()
        _LIVE.add(self)

    def renew(self) -> None:
        """Begin anew in a forked child: thread and waiting copies are the parent's."""
        self.errors = 0
        self.inline = 0
        """Snapshots that the caller had to hash itself."""
        self._changed = threading.Condition()
        self._waiting: tuple[object, Callable[[T], object]] | None = None
        self._hashing = False
        self._thread: threading.Thread | None = None

    def submit(self, model: object, on_done: Callable[[T], object]) -> None:
        """Take a snapshot now; ``on_done`` gets its hash, soon."""
        with self._changed:
            free = self._waiting is None and not self._closed
        if free:
            try:
                taken = copy_of(model)
            # A model's own copy may raise anything; hashing it in place needs none.
            except Exception:  # noqa: BLE001  whatever it is must not reach the caller
                free = False
        if free:
            with self._changed:
                # Another thread may have come first while this one copied.
                if self._waiting is None and not self._closed and self._start():
                    self._waiting = (taken, on_done)
                    self._changed.notify_all()
                    return
        self.inline += 1
        self._work(model, on_done)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until every snapshot is hashed and reported; False where time ran out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._waiting is not None or self._hashing:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Drain, and let the thread go. What comes later is hashed by the caller."""
        drained = self.drain(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return drained

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
                while self._waiting is None:
                    if self._closed:
                        return
                    self._changed.wait()
                (taken, on_done), self._waiting = self._waiting, None
                self._hashing = True
            try:
                self._work(taken, on_done)
            finally:
                del taken, on_done  # frees the copy before the next one is awaited
                with self._changed:
                    self._hashing = False
                    self._changed.notify_all()

    def _work(self, model: object, on_done: Callable[[T], object]) -> None:
        try:
            on_done(self._hash(model))
        # Guards the training, like the emitter's: a model's code may raise anything.
        except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
            self.errors += 1
            if self._on_error is not None:
                with contextlib.suppress(Exception):
                    self._on_error(_translated(error))


def _translated(error: Exception) -> ProvenanceError:
    if isinstance(error, ProvenanceError):
        return error
    return InputError(f"{type(error).__name__}: {error}".splitlines()[0][:500])


def _renew_in_child() -> None:
    for snapshotter in list(_LIVE):
        snapshotter.renew()


os.register_at_fork(after_in_child=_renew_in_child)
