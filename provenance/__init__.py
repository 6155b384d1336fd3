"""Tamper-evident provenance for machine-learning training.

The walk of an event, front to back::

    ProvenanceTracker.track_epoch()       provenance.tracker
      -> one os.write into the spool      provenance.capture.emitter, provenance.capture.spool
      -> shipper: record, signed batch    provenance.capture.ship.loop, in provenance.app.ship
      -> Redis Stream                     provenance.stores.redis_streams
      -> hashing worker                   workers.hashing -> provenance.ledger.ingest
      -> run tree, run root, ledger head  provenance.ledger.seal, provenance.formats
      -> anchoring worker per network     workers.anchoring -> provenance.anchor, provenance.chains
      -> confirmations, receipts          workers.confirming -> provenance.anchor.confirm
      -> verifier, report                 provenance.verify

The public names below are imported when they are first used: importing this package, or
emitting events, pulls in no Celery, no web3, no SQL driver and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from provenance.autologging import autolog
    from provenance.chains.bitcoin.interface import BitcoinInterface
    from provenance.chains.ethereum.interface import EthereumInterface
    from provenance.chains.ipfs import IPFSInterface
    from provenance.chains.manager import BlockchainManager
    from provenance.fingerprint.hashers import Digest, HashFactory
    from provenance.formats.run_tree.tree import MerkleNode, MLProvenanceMerkleTree
    from provenance.running import run
    from provenance.tracker import ProvenanceTracker

__version__ = "0.1.0"

_PUBLIC = {
    "ProvenanceTracker": "provenance.tracker",
    "run": "provenance.running",
    "autolog": "provenance.autologging",
    "BlockchainManager": "provenance.chains.manager",
    "EthereumInterface": "provenance.chains.ethereum.interface",
    "BitcoinInterface": "provenance.chains.bitcoin.interface",
    "IPFSInterface": "provenance.chains.ipfs",
    "MLProvenanceMerkleTree": "provenance.formats.run_tree.tree",
    "MerkleNode": "provenance.formats.run_tree.tree",
    "HashFactory": "provenance.fingerprint.hashers",
    "Digest": "provenance.fingerprint.hashers",
}

__all__ = [
    "BitcoinInterface",
    "BlockchainManager",
    "Digest",
    "EthereumInterface",
    "HashFactory",
    "IPFSInterface",
    "MLProvenanceMerkleTree",
    "MerkleNode",
    "ProvenanceTracker",
    "__version__",
    "autolog",
    "run",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
