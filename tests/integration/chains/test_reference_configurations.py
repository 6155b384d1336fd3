"""The configurations of the reference design run as they stand: only their URLs are ours."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from provenance.chains.manager import BlockchainManager
from provenance.settings import load

pytestmark = pytest.mark.nodes


@pytest.mark.parametrize("name", ["blockchain_config.json", "training_config.json"])
def test_a_root_is_anchored_on_each_network_it_names(
    name: str, ethereum_url: str, ipfs_url: str, tmp_path: Path
) -> None:
    document = json.loads(Path("tests/vectors/settings", name).read_text("utf-8"))
    document["blockchain"]["ethereum"]["rpc_url"] = ethereum_url
    document["blockchain"]["ipfs"]["url"] = ipfs_url
    path = tmp_path / name
    path.write_text(json.dumps(document), encoding="utf-8")
    manager = BlockchainManager(load(path, tmp_path / "artifacts"))
    root = os.urandom(32)
    ids = manager.store_merkle_hash(root)
    assert list(ids) == ["ipfs", "ethereum"], manager.last_errors
    assert manager.last_errors == {}
    deadline = time.monotonic() + 60
    while not all(manager.verify_merkle_hash(root, ids).values()):
        assert time.monotonic() < deadline, manager.get_transaction_info(ids)
        time.sleep(0.25)
    manager.close()
