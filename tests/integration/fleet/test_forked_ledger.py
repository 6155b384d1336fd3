"""A ledger that is thrown away and begun anew with the same keys, after it was anchored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provenance.bootstrap import sending
from provenance.cli import main
from provenance.settings import load
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.verify_world import OTHER, RUN, World, story

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes


@pytest.fixture
def config(chain: Anvil, contract: str, tmp_path: Path) -> Path:
    ethereum = {
        "url": chain.url,
        "chain_id": 31337,
        "confirmations": 1,
        "private_key": KEYS[0],
        "contract_address": contract,
    }
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {"blockchain": {"enabled": True, "networks": ["ethereum"], "ethereum": ethereum}}
        )
    )
    return path


def record(config: Path, base: Path, run: Any) -> None:
    """A run, sealed and anchored."""
    settings = load(config, base)
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    world.ingest(world.batch(story(), run=run))
    world.anchor()
    world.store.close()


def test_a_ledger_begun_anew_is_found_by_what_it_had_anchored(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    flags = ["--config", str(config), "--base-dir", str(base)]
    record(config, base, OTHER)
    assert main(["fsck", *flags]) == 0
    for path in base.glob("ledger.db*"):
        path.unlink()
    record(config, base, RUN)
    capsys.readouterr()
    assert main(["fsck", *flags]) == 1
    assert "FOUND chain-orphan ethereum 0x" in capsys.readouterr().out
