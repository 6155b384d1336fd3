"""A configuration that names the devnet's servers, and the contract on its dev chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provenance_devnet.servers import DEV_CHAIN_KEY, ServerState, home

CONFIG_NAME = "blockchain_config.json"
_ANCHORED = ("ethereum", "bitcoin", "ipfs")


def config_for(states: Sequence[ServerState], confirmations: int = 3) -> dict[str, Any]:
    """A configuration for the servers that run; the local file always beside them.

    The Ethereum key is the dev chain's account 0, known to everybody.
    """
    up = {state.name: state for state in states if state.running}
    retry = {"retry_base": 0.5, "retry_cap": 10, "timeout": 15}
    chain: dict[str, Any] = {"enabled": True, "networks": []}
    if "ethereum" in up:
        chain["ethereum"] = {
            "url": up["ethereum"].url,
            "chain_id": int(up["ethereum"].detail["chain_id"]),
            "confirmations": confirmations,
            "private_key": DEV_CHAIN_KEY,
            **retry,
        }
    if "bitcoin" in up:
        chain["bitcoin"] = {
            "url": up["bitcoin"].url,
            "network": "regtest",
            "cookie_file": up["bitcoin"].detail["cookie_file"],
            "wallet": up["bitcoin"].detail["wallet"],
            "confirmations": confirmations,
            **retry,
        }
    if "ipfs" in up:
        chain["ipfs"] = {"url": up["ipfs"].url, **retry}
    chain["networks"] = [*(name for name in _ANCHORED if name in chain), "local"]
    document: dict[str, Any] = {"blockchain": chain}
    if "redis" in up:
        document["redis_url"] = up["redis"].url
    return document


def write_config(root: Path, states: Sequence[ServerState]) -> Path:
    """``.devnet/blockchain_config.json``, for ``--config``."""
    document = config_for(states)
    if "ethereum" in document["blockchain"]:
        address = deployed_contract(root, document)
        document["blockchain"]["ethereum"]["contract_address"] = address
    path = home(root) / CONFIG_NAME
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def deployed_contract(root: Path, document: dict[str, Any]) -> str:
    """The contract's address on the dev chain; deployed now where its code is not there.

    Raises:
        NetworkUnavailable: The node does not answer.
    """
    from provenance.chains.ethereum.contract import DEPLOYED_BYTECODE
    from provenance.chains.ethereum.interface import deploy
    from provenance.chains.ethereum.node import EthereumNode
    from provenance.settings import load

    remembered = home(root) / "contract.json"
    ethereum = load(document).blockchain.ethereum
    assert ethereum is not None
    if remembered.exists():
        address = str(json.loads(remembered.read_text(encoding="utf-8"))["address"])
        node = EthereumNode(ethereum)
        try:
            if node.code(address) == DEPLOYED_BYTECODE:
                return address
        finally:
            node.close()
    address, _ = deploy(ethereum)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    remembered.write_text(json.dumps({"address": address}) + "\n", encoding="utf-8")
    return address
