"""Processes, locks and signals: the small tools that the rest of the devnet stands on.

Nothing here goes through a shell, and every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import AnyStr

from provenance import files
from provenance.errors import UnavailableError

BUSY_TRIES = 40

_PROC = Path("/proc")
_POLL = 0.05

# Children of this process, so that stopping one also reaps it (by pid).
_children: dict[int, subprocess.Popen[bytes]] = {}


class Interrupted(UnavailableError):
    """The caller was told to stop (Ctrl-C, SIGTERM) while a thread was waiting."""


def born(pid: int) -> str | None:
    """When the process started, as an opaque token; None when it is gone or a zombie.

    A pid alone is not an identity: the system hands it out again. Pid and token together are.
    """
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        return None
    if _PROC.is_dir():
        try:
            stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return None
        fields = stat.rsplit(")", 1)[1].split()
        return None if fields[0] in "ZX" else fields[19]
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = found.stdout.strip().partition(" ")
    return None if not state or state[0] == "Z" else started.strip()


def alive(pid: int, token: str) -> bool:
    """Whether that very process still runs."""
    return born(pid) == token


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> tuple[int, str]:
    """Starts a server in a session of its own, so that it outlives us; returns pid and token."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = _started(
            lambda: subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )
        )
    _children[process.pid] = process
    return process.pid, born(process.pid) or "gone"


def _started(start: Callable[[], subprocess.Popen[AnyStr]]) -> subprocess.Popen[AnyStr]:
    """A program written a moment ago is busy while a child that another thread forked then
    still holds it open for writing, that is until the child's own exec: execve(2), ETXTBSY."""
    for _ in range(BUSY_TRIES):
        try:
            return start()
        except OSError as error:
            if error.errno != errno.ETXTBSY:
                raise
            time.sleep(0.05)
    return start()


def stop(pid: int, token: str, grace: float) -> None:
    """Ends the process and all of its group: SIGTERM, and SIGKILL after ``grace`` seconds."""
    if alive(pid, token):
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while alive(pid, token) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if alive(pid, token) or pid in _children:
            _signal_group(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while alive(pid, token) and time.monotonic() < deadline:
            time.sleep(_POLL)
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Servers lead their own group (start_new_session); never signal a group that is not theirs.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def run_tool(
    argv: Sequence[str],
    *,
    deadline: float,
    cancel: threading.Event,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Runs a program to its end and returns what it printed.

    Raises:
        UnavailableError: It is not there, failed, or ran past ``deadline`` seconds.
        Interrupted: ``cancel`` was set meanwhile.
    """
    name = Path(argv[0]).name
    try:
        process = _started(
            lambda: subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        )
    except OSError as error:
        raise UnavailableError(f"{name} does not start: {error.strerror}") from error
    end = time.monotonic() + deadline
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if cancel.is_set():
                    raise Interrupted(f"{name} was interrupted") from None
                if time.monotonic() > end:
                    raise UnavailableError(
                        f"{name} had not finished after {deadline:.0f} s"
                    ) from None
    except BaseException:
        _signal_group(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode != 0:
        raise UnavailableError(
            f"{name} failed with status {process.returncode}: {_gist(output) or 'it said nothing'}"
        )
    return output


_COMPLAINT = re.compile(r"^(?:E: |npm (?:error|ERR!) )\s*(.+)")


def _gist(output: str) -> str:
    """The first complaints of apt or npm; of other programs the last lines."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [found[1] for line in said if (found := _COMPLAINT.match(line))]
    return " / ".join(complaints[:3] or said[-3:])


@contextlib.contextmanager
def file_lock(path: Path, wait_s: float) -> Iterator[None]:
    """Holds an exclusive lock between processes.

    Raises:
        UnavailableError: Another process held it for ``wait_s`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(path, wait_s=wait_s))
        except BlockingIOError as error:
            raise UnavailableError(
                f"another devnet command has held {path} for {wait_s:.0f} s"
            ) from error
        except OSError as error:
            raise UnavailableError(f"{path} cannot be locked: {error}") from error
        yield


@contextlib.contextmanager
def interruptible(*, once: bool = True) -> Iterator[None]:
    """Makes SIGTERM raise in the main thread as Ctrl-C does, so that clean-up code runs.

    With ``once`` only the first of either signal raises; later ones wait until the block is left,
    so that an impatient second Ctrl-C cannot cut the clean-up short. Handlers that the program
    installed itself stay as they are.
    """
    signals: list[int] = []

    def leave(number: int, frame: object) -> None:
        signals.append(number)
        if once and len(signals) > 1:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    with _handling(leave):
        yield


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM off while something is cleaned up."""
    with _handling(lambda number, frame: None):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in defaults}
    ours = [
        number
        for number, found in before.items()
        if found == defaults[number] or getattr(found, "__module__", "") == __name__
    ]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
