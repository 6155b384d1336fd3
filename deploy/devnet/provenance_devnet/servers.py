"""The words of the devnet: the four servers, what is known of each, where it lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from provenance.app.processes import REDIS_BY_HAND
from provenance.errors import UsageError

NAMES = ("redis", "ethereum", "bitcoin", "ipfs")
CHAINS = ("ethereum", "bitcoin")

# Account 0 of the mnemonic "test test ... junk" that anvil, hardhat and every tutorial share.
# It is public on purpose: it MUST never hold anything of value, on any chain.
DEV_CHAIN_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
DEV_CHAIN_ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"

WALLET = "provenance"

# Told about a server that no route can bring; one line each.
BY_HAND: Mapping[str, str] = {
    "redis": REDIS_BY_HAND,
    "ethereum": "put anvil (from Foundry) or geth on PATH,"
    " or on Linux x86-64 install Node.js with npm and run: provenance devnet install",
    "bitcoin": "put bitcoind (Bitcoin Core or Bitcoin Knots) on PATH,"
    " or on Debian run: provenance devnet install",
    "ipfs": "put Kubo's ipfs on PATH,"
    " or on Linux x86-64 install Node.js with npm and run: provenance devnet install",
}

Progress = Callable[[str, str], None]
"""Called with a server's name and one line about what happens to it; from several threads."""


def silent(name: str, line: str) -> None:
    """The progress callback that says nothing."""


@dataclass(frozen=True)
class ServerState:
    """One server as it was found a moment ago.

    ``url`` is empty when the server is not up. ``detail`` holds what a client needs besides the
    address: ``chain_id`` and ``account`` (ethereum), ``cookie_file`` and ``wallet`` (bitcoin).
    ``problem`` is one line that says why ``running`` is false, and what to do.
    """

    name: str
    kind: str
    pid: int | None
    url: str
    detail: Mapping[str, str] = field(default_factory=dict)
    running: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class InstallResult:
    """What became of one server's installation.

    ``how`` is one of ``on PATH``, ``installed``, ``already installed`` and ``missing``; with the
    last, ``problem`` is one line that says what to install by hand.
    """

    name: str
    kind: str
    how: str
    path: Path | None
    seconds: float
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the server can be started."""
        return self.path is not None


def chosen(only: Collection[str] | None) -> tuple[str, ...]:
    """The servers that are meant, in the order of ``NAMES``.

    Raises:
        UsageError: A name that no server has.
    """
    if only is None:
        return NAMES
    unknown = sorted(set(only) - set(NAMES))
    if unknown:
        raise UsageError(f"devnet has no server named {unknown[0]!r}; it has: {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in only)


def home(root: Path) -> Path:
    """The devnet's folder of a project folder."""
    return root.absolute() / ".devnet"
