"""Real servers on loopback for trying things out: Redis, Ethereum, Bitcoin (regtest), IPFS.

``install`` brings the programs into ``.devnet/``, ``up`` starts them on free ports, ``status``
asks each of them, ``down`` ends them. They outlive the command that started them and keep their
data. Tests take ``Devnet(root, state_dir)``, or ``Devnet(root).running(ephemeral=True)``, for
servers of their own.

* ``servers``: the words and values. ``programs``: where a server's program is found.
* ``installer``, ``debian``: bringing the programs.
* ``nodes``: one class per kind of server. ``rpc``: speaking to them, and mining.
* ``supervisor``: :class:`Devnet`. ``state``: its state file. ``processes``: the small tools below.
* ``miner``: the process that mines on a timer.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from provenance_devnet.installer import install
from provenance_devnet.rpc import RpcRefused, bitcoin_rpc, mine_bitcoin, mine_ethereum
from provenance_devnet.servers import (
    BY_HAND,
    DEV_CHAIN_ADDRESS,
    DEV_CHAIN_KEY,
    NAMES,
    WALLET,
    InstallResult,
    Progress,
    ServerState,
    silent,
)
from provenance_devnet.supervisor import Devnet

__all__ = [
    "BY_HAND",
    "DEV_CHAIN_ADDRESS",
    "DEV_CHAIN_KEY",
    "NAMES",
    "WALLET",
    "Devnet",
    "InstallResult",
    "Progress",
    "RpcRefused",
    "ServerState",
    "bitcoin_rpc",
    "down",
    "install",
    "mine_bitcoin",
    "mine_ethereum",
    "silent",
    "status",
    "up",
]


def up(
    root: Path, only: Collection[str] | None = None, progress: Progress = silent
) -> list[ServerState]:
    """Starts the project folder's servers; see :meth:`Devnet.up`."""
    return Devnet(root).up(only, progress)


def down(
    root: Path, only: Collection[str] | None = None, progress: Progress = silent
) -> list[ServerState]:
    """Ends the project folder's servers; see :meth:`Devnet.down`."""
    return Devnet(root).down(only, progress)


def status(root: Path, only: Collection[str] | None = None) -> list[ServerState]:
    """Asks the project folder's servers; see :meth:`Devnet.status`."""
    return Devnet(root).status(only)
