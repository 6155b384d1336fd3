"""Files that survive a crash: written whole or not at all, and on the disk on return.

What each call promises when the process is killed, or the power cut, at any point of it:

* :func:`create`, :func:`replace`, :func:`replacing`: the name has what it had before, or all
  of the new bytes; never a part of them. After the return it has the new bytes.
* :func:`append_lines`: the lines that were there before stay. Of the new ones the first are there
  whole, the next cut off, the others not at all; after the return all are there whole.
* :func:`lock`, :func:`locked`: the kernel lets go of a lock however its process ends.

New bytes lie under a temporary name, ``.<name>.<hex>.partial``, until they are synced. What
fails with an exception deletes it; a kill can leave one behind, which nothing reads. Folders
must exist. A name that is a symbolic link is itself replaced, not the file it points to.

Every function but :func:`errors_of` and :func:`read_as`, which are for callers, raises OSError
alone, with ``strerror`` in words for a user. POSIX only: rename(2), link(2), fsync(2) on folders,
flock(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, TypeVar

from provenance.errors import FormatError, InputError

_T = TypeVar("_T")

PRIVATE: Final = 0o600
"""Mode of a file that its owner alone reads."""
PUBLIC: Final = 0o666
"""Mode of a file that others may read, as far as the umask lets them."""

_LEAST_ROOM: Final = 64 * 1024
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

_FALLOC_FL_KEEP_SIZE: Final = 1
_POLL_S: Final = 0.01
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextlib.contextmanager
def errors_of(path: object, done: str) -> Iterator[None]:
    """What the system refuses is an InputError: ``path`` cannot be ``read`` or ``written``, why."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be {done}: {error.strerror or error}") from error


@contextlib.contextmanager
def read_as(path: object, kind: str) -> Iterator[None]:
    """That a file which a user names does not decode is an InputError: it is no ``kind``."""
    try:
        yield
    except FormatError as error:
        why = str(error).removeprefix(str(path)).lstrip(": ")
        raise InputError(f"{path}: cannot be read as {kind}: {why}") from error


def create(path: Path, data: bytes) -> bool:
    """Make a private file where there is none; of several processes that try, one succeeds.

    Returns:
        False where the name is taken, but not by a folder: what has it stays untouched, and is
        durable too.
    """
    temporary = _beside(path)
    try:
        with open(os.open(temporary, _NEW, PRIVATE), "wb") as file:
            file.write(data)
            _sync(file)
        os.link(temporary, path)  # fails where the name exists, unlike rename
        created = True
    except FileExistsError:
        created = False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)  # also where another process made it and died before this
    return created


def replace(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a file, in the place of one that may be there; see :func:`replacing`."""
    with replacing(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """An empty file, to read and write, that takes the name when the block ends.

    Where the block raises, or the disk does not take all of it, the name keeps what it had.
    """
    temporary = _beside(path)
    try:
        with open(os.open(temporary, _NEW, mode), "w+b") as file:
            yield file
            _sync(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def append_lines(path: Path, *lines: bytes) -> None:
    """Add lines to a journal, by one write(2); the file is made where it is missing.

    The write begins with a newline too, so that a line that a crash cut off does not swallow
    these. :func:`read_lines` skips the empty lines between.

    Args:
        lines: Without a newline in them, and of a form that tells a whole line from a part of
            one, as a JSON object is.
    """
    if any(b"\n" in line for line in lines):
        raise OSError(errno.EINVAL, "a line of a journal has no newline in it")
    data = b"\n" + b"".join(line + b"\n" for line in lines)
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    sync_directory(path.parent)


def read_lines(path: Path) -> list[bytes]:
    """The lines of a journal, oldest first; none where there is no file.

    Any of them may be one that a crash cut off, not the last alone: the reader skips what
    does not decode.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [line for line in data.split(b"\n") if line]


def read_regular(path: Path, most: int) -> bytes:
    """The first bytes of a regular file, so many at most; OSError where it is none: of a pipe, a
    reader would wait."""
    with _regular(path) as (file, _):
        return file.read(most)


def read_given(path: Path, kind: str, most: int, decode: Callable[[bytes, str], _T]) -> _T:
    """What a file holds that a user names, decoded; ``InputError`` where it cannot be read or is no
    ``kind``. ``decode`` gets up to ``most`` + 1 bytes and the path, for its messages."""
    with errors_of(path, "read"):
        data = read_regular(path, most + 1)
    with read_as(path, kind):
        return decode(data, str(path))


def read_private(path: Path, max_bytes: int, *, follow_symlinks: bool = True) -> bytes:
    """Read a regular file that only its owner may read or write.

    Raises:
        FileNotFoundError: There is none.
        PermissionError: Its mode lets others in; the text says how to mend that.
        OSError: Not a regular file, larger than ``max_bytes``, or a link where none may be.
    """
    with _regular(path, 0 if follow_symlinks else os.O_NOFOLLOW) as (file, mode):
        if mode & 0o077:
            problem = f"it has mode {stat.S_IMODE(mode):04o}, expected 0600: chmod 600 {path}"
            raise PermissionError(errno.EPERM, problem, str(path))
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes", str(path))
    return data


@contextlib.contextmanager
def _regular(path: Path, flags: int = 0) -> Iterator[tuple[IO[bytes], int]]:
    """A regular file to read, and its mode."""
    with opened(path, os.O_RDONLY | os.O_NONBLOCK | flags) as descriptor:  # of a pipe, at once
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            yield file, mode


def mode_below(path: Path, private: Path) -> int:
    """:data:`PRIVATE` for what lies in a private folder, else :data:`PUBLIC`."""
    return PRIVATE if path.resolve().is_relative_to(private.resolve()) else PUBLIC


def make_folders(path: Path, mode: int = PUBLIC) -> None:
    """Make a folder, and those above it that are missing, for files of a mode: nobody but the
    owner enters where that is :data:`PRIVATE`."""
    missing = [each for each in path.parents if not each.exists()]
    for folder in (*reversed(missing), path):
        folder.mkdir(mode | (mode & 0o444) >> 2, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make a folder's entries durable: files made, renamed or deleted in it."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = PRIVATE) -> Iterator[int]:
    """A descriptor by open(2), closed when the block ends."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False, wait_s: float | None = None) -> None:
    """Take flock(2) on an open file, until the last copy of its descriptor is closed.

    Args:
        shared: Beside other shared locks, instead of alone.
        wait_s: Seconds to wait for another holder at most; None for as long as it takes.

    Raises:
        BlockingIOError: Another one still holds it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    if wait_s is None:
        return fcntl.flock(descriptor, kind)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_S)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait_s: float | None = None) -> Iterator[int]:
    """Hold :func:`lock` on a file, made empty where it is missing, or on a folder; yields its
    descriptor."""
    folder = path.is_dir()
    flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
    with opened(path, flags) as descriptor:
        lock(descriptor, shared=shared, wait_s=wait_s)
        yield descriptor


def is_locked(path: Path) -> bool:
    """Whether somebody holds :func:`lock` on a file, not shared; False where there is none."""
    try:
        with opened(path, os.O_RDONLY) as descriptor:
            lock(descriptor, shared=True, wait_s=0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a fork may have a copy
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still lies under its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _libc_fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function


_FALLOCATE = _libc_fallocate()


def preallocate(descriptor: int, size: int, least: int) -> int:
    """fallocate(2) with FALLOC_FL_KEEP_SIZE: ``size`` bytes, or less where the disk has less.

    ``os.posix_fallocate`` would move the end of the file, where O_APPEND writes.

    Returns:
        The bytes that are kept for this file; 0 where there is no room for ``least``; -1
        where the file system cannot, and goes without.
    """
    while _FALLOCATE is not None:
        if _FALLOCATE(descriptor, _FALLOC_FL_KEEP_SIZE, 0, size) == 0:
            return size
        if ctypes.get_errno() not in NO_SPACE:
            break
        if size < 2 * least:
            return 0
        size //= 2
    return -1


def require_room(folder: Path) -> None:
    """Write something and take it away again. Raises OSError: nothing can be written there, or
    hardly anything."""
    path = temporary_path(folder / "room")
    try:
        replace(path, bytes(_LEAST_ROOM))
    finally:
        path.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A new hidden name beside a path, so on its file system: for a folder to be renamed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _beside(path: Path) -> Path:
    """A temporary name for a file; IsADirectoryError where the path is a folder's."""
    if path.is_dir():
        problem = "is a folder, expected a file's name"
        raise IsADirectoryError(errno.EISDIR, problem, str(path))
    return temporary_path(path)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
