"""SIGKILL at a chosen call: production code carries no fail points, so tests bring them.

Two ways. :func:`killed_at_call` forks and counts the child's calls into C that have an
effect outside the process (files, sockets, SQL), before and after each. Where strace(1) can
trace, :func:`strace` kills a program at one of its system calls, SQLite's own included.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

CALLS = frozenset({
    "open", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "truncate", "flock",
    "replace", "rename", "link", "unlink", "rmdir", "mkdir",
    "connect", "send", "sendall", "sendmsg", "recv", "recv_into",
    "execute", "executemany", "commit",
})  # fmt: skip

# Those that starting Python and importing leave alone, so that a number is one of the work.
SYSCALLS = {
    "ship": (
        "connect", "sendto", "recvfrom", "fdatasync", "fsync", "rename", "unlink", "rmdir",
        "flock", "ftruncate",
    ),
    "ingest": ("connect", "sendto", "recvfrom", "fdatasync", "pwrite64"),
    "anchor": ("fdatasync", "fsync", "pwrite64", "flock"),
}  # fmt: skip


def killed_at_call(work: Callable[[], Any], number: int) -> bool:
    """Fork and do ``work``; True where the child was killed at its ``number``-th point.

    Raises:
        AssertionError: It failed otherwise; the traceback is on stderr.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _arm(number)
            work()
            status = 0
        except BaseException:  # noqa: BLE001  the child ends here, whatever it is
            sys.setprofile(None)
            traceback.print_exc()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"ended with {code}"
    return code != 0


def points(work: Callable[[], Any]) -> int:
    """How many points an undisturbed ``work`` passes."""
    count = 0

    def look(frame: FrameType, event: str, what: Any) -> None:
        nonlocal count
        count += _is_point(event, what)

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _arm(number: int) -> None:
    left = number

    def look(frame: FrameType, event: str, what: Any) -> None:
        nonlocal left
        if _is_point(event, what):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


def _is_point(event: str, what: Any) -> bool:
    if event not in ("c_call", "c_return") or getattr(what, "__name__", "") not in CALLS:
        return False
    return not isinstance(what.__self__, str | bytes | io.BytesIO | io.StringIO)


def strace_works() -> bool:
    """Whether strace is here and may trace (containers often forbid ptrace(2))."""
    if shutil.which("strace") is None:
        return False
    tried = strace(["true"], "close", 1)
    return subprocess.run(tried, capture_output=True).returncode == -signal.SIGKILL


def strace(argv: Sequence[str], syscall: str, number: int) -> list[str]:
    """The command that runs ``argv`` and kills it at the ``number``-th call of a kind."""
    return [
        "strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={syscall}",
        "-e", f"inject={syscall}:signal=KILL:when={number}", *argv,
    ]  # fmt: skip


def main(what: str, config: str, base: str) -> None:
    """``python -m tests.faults.support.fail_points ship|ingest|anchor CONFIG BASE``, traced."""
    from provenance.settings import load
    from tests.faults.support import by_hand

    settings = load(config, base)
    if what == "anchor":
        by_hand.anchor(settings, lease_s=0.2)
    else:
        getattr(by_hand, what)(settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
