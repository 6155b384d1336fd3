"""Emitter: a training process's only way to state something. One write(2) an event.

Promises, to the training loop:

* :meth:`Emitter.emit` MUST NOT raise but for what it is asked to refuse, wait for a socket, sync a
  disk or grow without bound. What goes wrong is counted in ``errors`` and named in ``last_error``.
* An event whose ``emit`` returned True survives the death of the process.
* What cannot be recorded leaves a ``gap`` event that says so, and one line in the log.

A process has one producer: 16 random bytes and a sequence from 0. A child of ``fork`` gets
its own at its first event, and never touches its parent's. Threads share the producer under
a lock whose owner does nothing but the write; measured alone it is 5 % of an ``emit``.
"""

from __future__ import annotations

import atexit
import operator
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance.capture.ending import at_child_exit
from provenance.capture.spool import refuse_network_file_system, refused
from provenance.capture.spool_writer import SEGMENT_BYTES, SpoolWriter
from provenance.errors import InputError, ProvenanceError, TooLargeError
from provenance.formats.record import MAX_SAFE_INTEGER, Kind, normalise
from provenance.log import get_logger

log = get_logger("provenance")
_STEPS = Kind.STEPS  # a member is looked up in 60 ns by Python 3.11, a global in 2
_SCALARS = frozenset({float, int, str, bool, type(None)})
_TEXT = frozenset({str})
_PLAIN_DEPTH = 4
_MAX_DEFERRED = 1024
_MAX_SAID = 1000
_LIVE: weakref.WeakSet[Emitter] = weakref.WeakSet()


class Emitter:
    """Writes a run's events to its spool; ends as nobody holds it, or with the interpreter.

    Args:
        spool_dir: ``<base_dir>/spool``, on a local disk.
        rank: This process's number among the run's ``world_size`` trainers, from 0.
        restored: Called where somebody deleted the run's folder, or what is in it; must not hold
            the emitter, and may raise OSError.

    Attributes:
        producer: 16 bytes that name this process; another value in a forked child.
        alone: While it is held no other thread states anything.
        last_error: The newest failure in one line.

    Raises:
        InputError: The folder cannot be made, or is on a network file system.
        SpoolUnavailable: The disk takes none.
    """

    _writer: SpoolWriter | None = None
    _closed = False
    _names: tuple[str, ...] = ()
    """Those of the newest numbers, which are texts."""

    def __init__(
        self,
        spool_dir: Path,
        run: UUID,
        rank: int = 0,
        world_size: int = 1,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        restored: Callable[[], object] = bool,
    ) -> None:
        self._renew()
        run_dir = spool_dir / str(run)
        refuse_network_file_system(run_dir)
        try:
            run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise refused(f"{run_dir}: cannot spool events there", error) from error
        self.run, self.rank, self.world_size = run, rank, world_size
        self._said: set[str] = set()
        """Problems of what no record carries."""
        self._options: dict[str, Any] = {"segment_bytes": segment_bytes, "restored": restored}
        self._run_dir = run_dir
        self._open_writer()
        _LIVE.add(self)

    def _renew(self) -> None:
        """Begin anew: what was here belongs to the parent of this process."""
        # Re-entrant: a signal handler may emit while this thread is inside emit.
        self.alone = threading.RLock()
        self._busy = False
        self._deferred: list[tuple[Kind, int | None, dict[str, Any]]] = []
        self._refused = self._errors = 0
        self.last_error: str | None = None
        self.producer = secrets.token_bytes(16)
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def _open_writer(self) -> SpoolWriter:
        """The writer of this process."""
        if self._writer is None:
            whose = (self._run_dir, self.run, self.producer, self.rank, self.world_size)
            self._writer = SpoolWriter(*whose, **self._options)
            at_child_exit(self.close, 10)
        return self._writer

    def __del__(self) -> None:
        self.close("exit", "closed")

    def counts(self) -> dict[str, int]:
        """Events ``written`` to the spool, ``held`` in memory for room on the disk, and ``dropped``
        (the disk was full beyond the ring, or the emitter closed); ``errors``: those that could not
        be recorded as they were given, and other failures."""
        writer, errors = self._writer, self._errors
        if writer is None:
            return {"written": 0, "held": 0, "dropped": self._refused, "errors": errors}
        dropped = self._refused + writer.lost
        return {
            "written": writer.next_seq, "held": writer.held, "dropped": dropped, "errors": errors,
        }  # fmt: skip

    def lost(
        self,
        what: str,
        epoch: int | None,
        error: ProvenanceError | None,
        *,
        part: object = False,
        once: bool = False,
    ) -> None:
        """Count what a caller gave and no record carries, if anything, leave a gap that says
        ``what``, and one line in the log for each problem.

        Args:
            part: Whether the rest of it is recorded.
            once: One gap for each problem, too.
        """
        if error is None:
            return
        self._note(error)
        problem, happened = str(error), "recorded in part" if part else "not recorded"
        said = problem in self._said
        if not said:
            where = {} if epoch is None else {"epoch": epoch}
            log.warning(f"{what} {happened}", problem=problem, **where, run=str(self.run))
        if len(self._said) < _MAX_SAID:
            self._said.add(problem)
        if not (said and once):
            reason = f"{what} {happened}: {problem}"
            self.emit(Kind.GAP, epoch, {"dropped": 1, "reason": reason, "what": what})

    def emit(
        self, kind: Kind, epoch: int | None, fields: Mapping[str, Any], *, refuse: bool = False
    ) -> bool:
        """State something. True: it is with the kernel and survives this process.

        Args:
            refuse: Raise ``InputError`` of what is too large for a record, and leave no gap.
        """
        try:
            with self.alone:
                if self._busy:
                    return self._defer(kind, epoch, fields)
                self._busy = True
                try:
                    written = self._append(kind, epoch, fields, refuse)
                    self._append_deferred()
                finally:
                    self._busy = False
                return written
        # The one guard of this kind: whatever fails here must not end a training.
        except Exception as error:
            if refuse and isinstance(error, InputError):
                raise
            self._note(error)
            return False

    def emit_metrics(self, kind: Kind, number: int, metrics: object, plain: bool = False) -> bool:
        """State the metrics of an epoch, or of a step (``Kind.STEPS``), where that takes no more
        than packing and a write.

        False: nothing was stated, since ``metrics`` are more than texts with ints, floats or
        bools, or this is no moment for it; :meth:`emit` has a way for each. With ``plain`` they
        are a mapping as :func:`normalise` gives it, and may be more.
        """
        stated = False
        try:
            if type(metrics) is not dict:
                return False
            if not plain:
                # Types, checked in C: what is no number but adds up like one, the packer refuses.
                names = (*metrics,)
                if names != self._names:
                    "".join(names)
                    self._names = names
                sum(metrics.values())
            with self.alone:
                writer = self._writer
                if self._busy or self._closed or writer is None:
                    return False
                self._busy = True
                try:
                    if kind is _STEPS:
                        writer.append_step(time.time_ns(), number, metrics)
                    else:
                        writer.append(kind, number, time.time_ns(), {"metrics": metrics})
                    stated = True
                    if self._deferred:
                        self._append_deferred()
                finally:
                    self._busy = False
        except Exception as error:  # noqa: BLE001  as in emit; a value's own __radd__ may raise anything
            if stated:
                self._note(error)
        return stated

    def flush(self) -> bool:
        """Write what waits in memory and sync; True where everything is on the disk."""
        with self.alone:
            if self._busy or self._writer is None:
                return self._writer is None
            return self._writer.flush()

    def close(self, reason: str = "completed", state: str = "finished") -> bool:
        """End the producer with ``run.end``, once; True where that is with the kernel. Inside an
        interrupted emit (signal handler) it is left to the exit.

        ``state``: one of :data:`provenance.formats.record.END_STATES`."""
        with self.alone:
            if self._busy:
                return False
            self._closed = True
            if self._writer is None:
                return True
            plain = str(normalise(str(reason)[:500]))
            return self._writer.finish(time.time_ns(), plain, state)

    def _append(
        self, kind: Kind, epoch: int | None, fields: Mapping[str, Any], refuse: bool = False
    ) -> bool:
        if self._closed:
            self._refused += 1
            return False
        writer = self._writer or self._open_writer()
        now = time.time_ns()
        try:
            if epoch is not None and type(epoch) is not int:
                epoch = int(operator.index(epoch))
            if type(fields) is dict and _is_plain(fields):
                try:
                    return writer.append(kind, epoch, now, fields)
                except (ValueError, OverflowError):
                    pass  # a surrogate or an integer beyond 64 bits: normalise has a form for it
            plain = normalise(fields, kind.value)
            if not isinstance(plain, dict):
                raise InputError(f"{kind.value}: found {type(fields).__name__}, expected a mapping")
            return writer.append(kind, epoch, now, plain)
        except (ProvenanceError, TypeError, ValueError, OverflowError) as error:
            if refuse and isinstance(error, TooLargeError):
                raise InputError(str(error)) from error
            self._note(error)
            reason = f"{kind} not recorded: {self.last_error}"
            log.warning(reason, run=str(self.run))
            lost = {"dropped": 1, "reason": reason, "what": kind.value}
            known = type(epoch) is int and abs(epoch) <= MAX_SAFE_INTEGER
            writer.append(Kind.GAP, epoch if known else None, now, lost)
            return False

    def _append_deferred(self) -> None:
        while self._deferred:
            self._append(*self._deferred.pop(0))

    def _defer(self, kind: Kind, epoch: int | None, fields: Mapping[str, Any]) -> bool:
        if len(self._deferred) < _MAX_DEFERRED:
            self._deferred.append((kind, epoch, dict(fields)))
        else:
            self._refused += 1
        return False

    def _note(self, error: Exception) -> None:
        self._errors += 1
        self.last_error = f"{type(error).__name__}: {error}".splitlines()[0][:500]


def _is_plain(fields: dict[str, Any], depth: int = 0) -> bool:
    """True for mappings of strings to scalars, which :func:`normalise` would leave alone."""
    if not _TEXT.issuperset(map(type, fields)):
        return False
    if _SCALARS.issuperset(map(type, fields.values())):
        return True
    return depth < _PLAIN_DEPTH and all(
        _is_plain(value, depth + 1) if type(value) is dict else type(value) in _SCALARS
        for value in fields.values()
    )


def _renew_in_child() -> None:
    for emitter in list(_LIVE):
        emitter._renew()


def _close_at_exit() -> None:
    for emitter in list(_LIVE):
        emitter.close("exit", "closed")


os.register_at_fork(after_in_child=_renew_in_child)
atexit.register(_close_at_exit)
