"""The devnet's process tools: identity, ends, deadlines, ports, locks, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provenance.app.processes import log_text
from provenance.errors import UnavailableError
from provenance_devnet import processes


def _python(code: str) -> list[str]:
    return [sys.executable, "-IS", "-c", code]


def _spawn(tmp_path: Path, code: str) -> tuple[int, str]:
    return processes.spawn(_python(code), {"FROM_TEST": "1"}, tmp_path / "log" / "it.log", tmp_path)


def _wait_for(path: Path, text: str) -> None:
    end = time.monotonic() + 10
    while text not in log_text(path):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_spawned_process_leads_its_own_session_and_logs(tmp_path: Path) -> None:
    code = "import os,time; print(os.environ['FROM_TEST'], flush=True); time.sleep(60)"
    pid, token = _spawn(tmp_path, code)
    try:
        assert os.getsid(pid) == pid != os.getsid(0)
        assert processes.alive(pid, token)
        assert not processes.alive(pid, "another start time")
        _wait_for(tmp_path / "log" / "it.log", "1")
    finally:
        processes.stop(pid, token, 5)
    assert not processes.alive(pid, token)
    assert processes.born(pid) is None
    processes.stop(pid, token, 5)  # again: nothing to do


@pytest.mark.slow
def test_stop_kills_what_ignores_sigterm_and_its_children(tmp_path: Path) -> None:
    code = (
        "import signal,subprocess,sys,time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-IS', '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, 'end', flush=True)\n"
        "time.sleep(60)\n"
    )
    pid, token = _spawn(tmp_path, code)
    log = tmp_path / "log" / "it.log"
    _wait_for(log, "end")
    child = int(log_text(log).split()[1])
    processes.stop(pid, token, 0.2)
    assert not processes.alive(pid, token)
    end = time.monotonic() + 5
    while processes.born(child) is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert processes.born(child) is None


def test_stop_leaves_a_reused_pid_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(_python("import time; time.sleep(60)"), start_new_session=True)
    try:
        processes.stop(other.pid, "1", 0.1)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stop_signals_only_the_process_when_it_leads_no_group() -> None:
    other = subprocess.Popen(_python("import time; time.sleep(60)"))
    token = processes.born(other.pid)
    assert token is not None
    reaper = threading.Thread(target=other.wait)
    reaper.start()
    processes.stop(other.pid, token, 5)
    reaper.join(5)
    assert other.returncode == -signal.SIGTERM


def test_identity_without_a_proc_filesystem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", Path("/nonexistent"))

    def listed(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, stdout=answer)

    monkeypatch.setattr(subprocess, "run", listed)
    answer = "Ss   Sun Nov 22 15:00:00 2026\n"
    assert processes.born(12345) == "Sun Nov 22 15:00:00 2026"
    answer = "Z    Sun Nov 22 15:00:00 2026\n"
    assert processes.born(12345) is None
    answer = ""
    assert processes.born(12345) is None


def test_a_tool_returns_what_it_printed(tmp_path: Path) -> None:
    said = processes.run_tool(
        _python("import os; print(os.getcwd(), os.environ['WITH'])"),
        deadline=10,
        cancel=threading.Event(),
        cwd=tmp_path,
        env={"WITH": "this"},
    )
    assert said.split() == [str(tmp_path), "this"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('a'); print('b'); print('c'); print('d'); raise SystemExit(3)", "b / c / d"),
        (
            "print('x\\nnpm error code E1\\nnpm error why\\ny'); raise SystemExit(1)",
            "code E1 / why",
        ),
        ("print('E: no such package'); raise SystemExit(1)", ": no such package"),
        ("raise SystemExit(1)", "it said nothing"),
    ],
)
def test_a_tool_that_fails_is_quoted(code: str, told: str) -> None:
    with pytest.raises(UnavailableError, match=r"failed with status") as caught:
        processes.run_tool(_python(code), deadline=10, cancel=threading.Event())
    assert str(caught.value).endswith(told)


@pytest.mark.slow
def test_a_tool_that_is_missing_late_or_interrupted() -> None:
    cancel = threading.Event()
    with pytest.raises(UnavailableError, match="no-such-tool does not start"):
        processes.run_tool(["/no-such-tool"], deadline=1, cancel=cancel)
    sleeper = _python("import time; time.sleep(60)")
    with pytest.raises(UnavailableError, match="had not finished after 0 s"):
        processes.run_tool(sleeper, deadline=0.1, cancel=cancel)
    cancel.set()
    with pytest.raises(processes.Interrupted):
        processes.run_tool(sleeper, deadline=60, cancel=cancel)


@pytest.mark.slow
def test_a_lock_is_exclusive_and_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "lock"

    def again() -> None:
        with processes.file_lock(path, 0.2):
            pass

    with processes.file_lock(path, 0.1), pytest.raises(UnavailableError, match="has held"):
        again()
    with processes.file_lock(path, 0.1):
        pass

    def broken(handle: int, how: int) -> None:
        raise OSError(38, "not implemented")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(UnavailableError, match="cannot be locked"), processes.file_lock(path, 1):
        pass


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    """A coverage tool may hold SIGTERM, and what others hold is left alone."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
def test_only_the_first_signal_raises_until_the_block_is_left() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def impatient() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), processes.interruptible():
        impatient()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.usefixtures("default_sigterm")
def test_sigterm_raises_and_clean_up_can_be_deaf() -> None:
    def told_twice() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            with processes.deaf():
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as caught, processes.interruptible(once=False):
        told_twice()
    assert caught.value.code == 128 + signal.SIGTERM


def test_other_threads_and_other_handlers_are_left_alone() -> None:
    seen: list[object] = []

    def elsewhere() -> None:
        with processes.interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with processes.interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_program_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    """As when another thread's child holds a fresh program open for a moment."""
    program = tmp_path / "fresh"
    program.write_text("#!/bin/sh\necho ready\n")
    program.chmod(0o755)
    writing = program.open("a")
    threading.Timer(0.3, writing.close).start()
    assert processes.run_tool([str(program)], deadline=10, cancel=threading.Event()) == "ready\n"
