"""A ledger that is thrown away and begun anew with the same keys, after it was anchored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provenance.bootstrap import sending
from provenance.cli import main
from provenance.errors import LedgerForkError
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
    with pytest.raises(LedgerForkError, match="behind: its ledger has 0 entries"):
        record(config, base, RUN)
    (base / "ledger.key.head").unlink()
    record(config, base, RUN)
    capsys.readouterr()
    assert main(["fsck", *flags]) == 1
    assert "FOUND chain-orphan ethereum 0x" in capsys.readouterr().out


def test_a_contracts_roots_and_a_list_of_transactions_tell_a_fork_from_growth(
    config: Path, contract: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the sender of the configured key, by whoever stored in the contract, and by id."""
    base = tmp_path / "base"
    flags = ["--config", str(config), "--base-dir", str(base), "--json"]

    def compared(source: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["log", "compare", str(base), source, *flags])
        return code, json.loads(capsys.readouterr().out)

    record(config, base, OTHER)
    sources = ["ethereum", f"ethereum:{contract}"]
    for source in sources:
        assert compared(source)[0] == 0
    for path in base.glob("ledger.db*"):
        path.unlink()
    (base / "ledger.key.head").unlink()
    record(config, base, RUN)
    for source in sources:
        code, document = compared(source)
        assert (code, document["result"]) == (1, "fork")
        (orphan,) = document["orphans"]
    listed = tmp_path / "transactions"
    listed.write_text(orphan["transaction_id"] + "\n")
    code, document = compared(str(listed))
    assert (code, document["result"]) == (3, "unknown"), "alone it may be of another ledger"
    assert "none of these roots" in document["lines"][0]
