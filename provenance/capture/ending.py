"""How the process ends, told to the trackers that are open then; which state a run gets of that:
docs/lifecycle.md.

An exception's message is never kept: it may hold data. ``sys.excepthook`` and ``sys.exit`` are
wrapped once, note what they see and go on as they would. What a run records after that shows that
the process went on, and the note is forgotten.

A signal's handler is set where the handler is the default one, by the main thread alone, while a
tracker is open. It ends the trackers in a thread of its own (the interrupted thread may be inside
of a lock), then sends the signal again with the default action. Python runs handlers between two
steps of the main thread: one that is inside of a library's call ends when that returns, or by
SIGKILL. A handler that was set later and calls this one decides itself what follows. A child of
``fork`` has the default action.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

GOES_ON: Final = ("failed", "interrupted", "closed")
"""Those after which the run may be started again under its id."""
SIGNAL_S: Final = 20.0
"""Seconds for the weights that are still being hashed: Slurm (KillWait) and Kubernetes
(terminationGracePeriodSeconds) send SIGKILL 30 s after SIGTERM."""


class Ending(NamedTuple):
    """A state of :data:`provenance.formats.record.END_STATES` and why, in a word or two."""

    state: str
    reason: str


class Endable(Protocol):
    """A tracker, as far as it is ended here."""

    @property
    def written(self) -> int:
        """Events that the training stated so far, not what is hashed behind it."""

    def end(self, ending: Ending, within_s: float | None = None) -> None:
        """End the run's producer; not an error where it has ended."""


EXIT: Final = Ending("closed", "exit")
_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
finished_here: Final[set[tuple[UUID, int]]] = set()
"""Runs that this process has ended for good, with its rank."""
_open: weakref.WeakSet[Any] = weakref.WeakSet()
_noted: tuple[Ending, dict[int, int]] | None = None
_by_signal: Ending | None = None
_owner = 0
_hooked = False


def ending_of(kind: type[BaseException], value: BaseException | None) -> Ending:
    """What an exception that leaves the training means for its run."""
    if issubclass(kind, KeyboardInterrupt):
        return Ending("interrupted", "SIGINT")
    if issubclass(kind, SystemExit):
        code = getattr(value, "code", None)
        if code is None or code == 0:
            return EXIT
        return Ending("failed", f"SystemExit: {code if isinstance(code, int) else 1}")
    if kind.__name__ == "TrialPruned" and kind.__module__.startswith("optuna"):
        return Ending("pruned", kind.__name__)
    return Ending("failed", kind.__name__)


def watch(tracker: Endable, *, signals: bool) -> None:
    """End the tracker with the process, where nobody does before.

    Args:
        signals: Also by a signal whose handler is the default one.
    """
    global _hooked, _owner, _by_signal
    if _owner != os.getpid():  # the parent's trackers are not this process's to end
        _open.clear()
        _owner, _by_signal = os.getpid(), None
    if not _hooked:
        _hooked = True
        _chain_hooks()
        atexit.register(_end_at_exit)
    _open.add(tracker)
    if signals and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _on_signal)


def at_child_exit(close: Callable[[str, str], object], priority: int) -> None:
    """Have ``close("exit", "closed")`` called as a child of multiprocessing leaves: by os._exit,
    past atexit. Of two the one of the higher priority comes first."""
    # Whoever is such a child has these modules already.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, close, args=(EXIT.reason, EXIT.state), exitpriority=priority)


def forget(tracker: Endable) -> None:
    """The tracker has ended; behind the last one the signals have their default handlers again."""
    _open.discard(tracker)
    if not _open and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)


def _chain_hooks() -> None:
    previous_hook, previous_exit = sys.excepthook, sys.exit

    @functools.wraps(previous_hook)
    def excepthook(
        kind: type[BaseException], value: BaseException, trace: TracebackType | None
    ) -> object:
        _note(ending_of(kind, value))
        return previous_hook(kind, value, trace)

    @functools.wraps(previous_exit)
    def leave(*status: Any) -> object:
        if threading.current_thread() is threading.main_thread():
            _note(ending_of(SystemExit, SystemExit(*status)))
        return previous_exit(*status)

    sys.excepthook = excepthook
    sys.exit = leave  # type: ignore[assignment]  # typed as never returning, as the one it calls


def _note(ending: Ending) -> None:
    global _noted
    if not hasattr(sys, "ps1"):  # at a prompt an exception ends nothing
        _noted = ending, {id(tracker): tracker.written for tracker in list(_open)}


def released(tracker: Endable) -> Ending:
    """How the run of a tracker ends that nobody holds any more."""
    return _noted_of(tracker) or Ending("closed", "released")


def _noted_of(tracker: Endable) -> Ending | None:
    """What was noted, where the tracker has recorded nothing since."""
    if _noted is not None and _noted[1].get(id(tracker), -1) >= tracker.written:
        return _noted[0]
    return None


def _end_at_exit() -> None:
    for tracker in list(_open):
        tracker.end(_by_signal or _noted_of(tracker) or EXIT)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _by_signal
    own = os.getpid() == _owner
    if own:
        _by_signal = Ending("interrupted", signal.Signals(number).name)
    if signal.getsignal(number) is not _on_signal:
        return
    signal.signal(number, signal.SIG_DFL)
    thread = threading.Thread(target=_end_and_die, args=(number, own), name="provenance-end")
    try:
        thread.start()
    except RuntimeError:  # no more threads
        _end_and_die(number, own)


def _end_and_die(number: int, own: bool) -> None:
    try:
        for tracker in list(_open) if own else ():
            tracker.end(_by_signal or EXIT, SIGNAL_S)
    finally:
        os.kill(os.getpid(), number)
