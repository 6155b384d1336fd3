"""Files: whole or not at all, at every point where a call may be cut off; journals; locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provenance import files
from provenance.errors import InputError

OLD, NEW = b"old\n", b"new and longer\n"

WRITERS: dict[str, Callable[[Path], object]] = {
    "create": lambda path: files.create(path, NEW),
    "replace": lambda path: files.replace(path, NEW),
}
SYSTEM_CALLS = ("open", "fsync", "link", "replace")


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- whole or not at all ------------------------------------------------------------------


def test_a_new_file_is_private_and_has_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert files.create(path, NEW)
    assert path.read_bytes() == NEW
    assert mode_of(path) == 0o600
    assert names(tmp_path) == {"key"}


def test_create_leaves_what_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(OLD)
    assert not files.create(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == {"key"}


def test_create_does_not_write_through_a_dangling_link(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to(tmp_path / "elsewhere")
    assert not files.create(path, NEW)
    assert names(tmp_path) == {"key"}


@pytest.mark.parametrize("path", [".", "/", "folder", "folder/..", "link"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_is_no_place_for_a_file(
    writer: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    expected = f"^{path}: cannot be written: is a folder, expected a file's name$"
    with pytest.raises(InputError, match=expected), files.errors_of(path, "written"):
        WRITERS[writer](Path(path))
    assert names(tmp_path) == {"folder", "link"}


def test_of_many_creators_one_succeeds(tmp_path: Path) -> None:
    path, results = tmp_path / "key", []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        results.append((files.create(path, b"%d" % number), number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for created, number in results if created]
    assert path.read_bytes() == b"%d" % winner
    assert names(tmp_path) == {"key"}


def test_replace_takes_the_place_of_a_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.replace(path, OLD)
    assert (path.read_bytes(), mode_of(path)) == (OLD, 0o600)
    files.replace(path, NEW)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == {"state"}


def test_a_public_file_is_as_open_as_the_umask_lets_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.replace(tmp_path / "page", NEW, files.PUBLIC)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "page") == 0o640


def test_replace_takes_the_place_of_a_link_not_of_its_target(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "link"
    target.write_bytes(OLD)
    path.symlink_to(target)
    files.replace(path, NEW)
    assert not path.is_symlink()
    assert target.read_bytes() == OLD


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(NEW)
        raise KeyboardInterrupt
    assert path.read_bytes() == OLD
    assert names(tmp_path) == {"archive"}


def test_a_replacing_file_can_be_read_and_sought(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "archive") as file:
        file.write(b"____ body")
        file.seek(0)
        file.write(b"head")
        file.seek(0)
        assert file.read() == b"head body"
    assert (tmp_path / "archive").read_bytes() == b"head body"


@pytest.mark.parametrize("call", SYSTEM_CALLS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("existing", [None, OLD], ids=["new", "existing"])
def test_a_failure_at_any_system_call_leaves_old_or_new_and_no_temporary(
    writer: str, call: str, existing: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if existing is not None:
        path.write_bytes(existing)
    real: Callable[..., Any] = getattr(os, call)
    number = 0
    while True:  # the first call fails, then the second one, ...
        number += 1
        calls = 0

        def failing(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:  # noqa: B023  called within its round
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                WRITERS[writer](path)
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                break
        allowed = {existing, existing if writer == "create" and existing else NEW}
        assert (path.read_bytes() if path.exists() else None) in allowed
        assert names(tmp_path) <= {"file"}
    assert path.read_bytes() == (existing if writer == "create" and existing else NEW)


def test_a_failing_replace_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def failing(source: Path, target: Path) -> None:
        assert source.read_bytes() == NEW  # synced before it could get the name
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no"):
        files.replace(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_at_any_system_call_leaves_old_or_new(
    writer: str, call: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    script = (
        "import os, signal, sys; from pathlib import Path; from provenance import files\n"
        "def die(*a): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"os.{call} = die\n"
        f"files.{writer}(Path(sys.argv[1]), {NEW!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    if path.exists():
        assert path.read_bytes() == NEW
    assert all(name.endswith(".partial") for name in names(tmp_path) - {"file"})
    WRITERS[writer](path)  # what a kill left is in nobody's way
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("writer", WRITERS)
def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def traced(name: str) -> Callable[..., Any]:
        real: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any) -> Any:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            steps.append("sync folder" if is_folder else name)
            return real(*arguments)

        return call

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, traced(name))
    WRITERS[writer](tmp_path / "file")
    naming = "link" if writer == "create" else "replace"
    assert steps == ["fsync", naming, "sync folder"]


# --- journals -----------------------------------------------------------------------------


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert files.read_lines(path) == []
    files.append_lines(path, b'{"n":0}')
    files.append_lines(path, b'{"n":1}')
    assert files.read_lines(path) == [b'{"n":0}', b'{"n":1}']
    assert mode_of(path) == 0o600


@pytest.mark.parametrize("kept", range(len(b'\n{"n":1}\n') + 1))
def test_a_line_cut_off_anywhere_swallows_no_other(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    files.append_lines(path, b'{"n":0}')
    with path.open("ab") as file:
        file.write(b'\n{"n":1}\n'[:kept])
    files.append_lines(path, b'{"n":2}')
    lines = files.read_lines(path)
    assert (lines[0], lines[-1]) == (b'{"n":0}', b'{"n":2}')
    assert all(b'{"n":1}'.startswith(line) for line in lines[1:-1])


def test_a_short_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        files.append_lines(tmp_path / "journal", b'{"n":0}')


def test_a_line_with_a_newline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no newline"):
        files.append_lines(tmp_path / "journal", b"a\nb")
    assert names(tmp_path) == set()


# --- private files ------------------------------------------------------------------------


def test_a_private_file_is_read(tmp_path: Path) -> None:
    files.create(tmp_path / "key", NEW)
    assert files.read_private(tmp_path / "key", len(NEW)) == NEW
    with pytest.raises(OSError, match=f"more than {len(NEW) - 1} bytes"):
        files.read_private(tmp_path / "key", len(NEW) - 1)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601])
def test_a_file_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(NEW)
    path.chmod(mode)
    with pytest.raises(PermissionError) as refused:
        files.read_private(path, 100)
    assert f"mode {mode:04o}, expected 0600: chmod 600 {path}" in str(refused.value.strerror)


def test_what_is_no_regular_file_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_private(path, 100)
    with pytest.raises(FileNotFoundError):
        files.read_private(tmp_path / "absent", 100)


def test_a_link_is_followed_unless_forbidden(tmp_path: Path) -> None:
    files.create(tmp_path / "key", NEW)
    (tmp_path / "link").symlink_to("key")
    assert files.read_private(tmp_path / "link", 100) == NEW
    with pytest.raises(OSError, match="symbolic"):
        files.read_private(tmp_path / "link", 100, follow_symlinks=False)


# --- locks --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_keeps_others_out_until_the_block_ends(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lock" if kind == "file" else tmp_path
    with files.locked(path, wait_s=0):
        for shared in (False, True):
            with (
                pytest.raises(BlockingIOError),
                files.locked(path, shared=shared, wait_s=0),
            ):
                raise AssertionError
    with files.locked(path, wait_s=0):
        pass


def test_shared_locks_stand_beside_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, shared=True, wait_s=0), files.locked(path, shared=True, wait_s=0):
        with pytest.raises(BlockingIOError), files.locked(path, wait_s=0):
            raise AssertionError
    assert mode_of(path) == 0o600


@pytest.mark.parametrize("wait_s", [None, 10.0])
def test_a_lock_is_waited_for(wait_s: float | None, tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def later() -> None:
        with files.locked(path, wait_s=wait_s):
            order.append("second")

    with files.locked(path):
        thread = threading.Thread(target=later)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_waiting_ends(tmp_path: Path) -> None:
    began = time.monotonic()
    with files.locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", wait_s=0.05):
            raise AssertionError
    assert 0.05 <= time.monotonic() - began < 5


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from provenance import files\n"
        "with files.locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "lock"
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with files.locked(path, wait_s=0):
        pass


def test_a_process_forked_during_a_look_keeps_no_lock(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    real, child = fcntl.flock, 0

    def forked(descriptor: int, kind: int) -> None:
        nonlocal child
        real(descriptor, kind)
        if kind & fcntl.LOCK_SH and not (child := os.fork()):
            os.read(ours, 1)
            os._exit(0)

    path = tmp_path / "lock"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", forked)
        assert not files.is_locked(path)
    try:
        with files.locked(path, wait_s=0):
            """The child has a copy of the descriptor, and no lock."""
    finally:
        os.write(theirs, b"x")
        os.waitpid(child, 0)
