"""The networks a head can be anchored on, one file each; imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provenance.chains.bitcoin.interface import BitcoinInterface
    from provenance.chains.ethereum.interface import EthereumInterface
    from provenance.chains.ipfs import IPFSInterface
    from provenance.chains.manager import BlockchainManager

__all__ = ["BitcoinInterface", "BlockchainManager", "EthereumInterface", "IPFSInterface"]

_HOMES = {
    "BitcoinInterface": "bitcoin.interface",
    "BlockchainManager": "manager",
    "EthereumInterface": "ethereum.interface",
    "IPFSInterface": "ipfs",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
