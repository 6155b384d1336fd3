"""One head on Ethereum and Bitcoin, and Ethereum's own check of Bitcoin's proof: real nodes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.bundle.reader import read_bundle
from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.cli import main
from provenance.errors import ProvenanceError, WrongNetworkError
from provenance.settings import BitcoinSettings, EthereumSettings, load
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.regtest import Regtest
from tests.support.verify_world import World, story

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A base directory with one run, final on both chains, its bundle and its command line."""

    base: Path
    config: Path
    bundle: Path
    contract: str
    view: str

    def run(self, *words: str) -> int:
        return main([*words, "--base-dir", str(self.base), "--config", str(self.config)])


@pytest.fixture(scope="module")
def deployment(
    anvil_chain: Anvil, bitcoin_settings: BitcoinSettings, tmp_path_factory: Any
) -> Deployment:
    folder = tmp_path_factory.mktemp("cross")
    regtest = Regtest(bitcoin_settings)
    coins = regtest.rich_wallet()
    node = EthereumSettings(url=anvil_chain.url, private_key=KEYS[0], confirmations=2)
    contract, _ = deploy(node)
    node = structs.replace(node, contract_address=contract)
    ethereum = {"url": node.url, "private_key": KEYS[0], "contract_address": contract}
    bitcoin = {"url": coins.url, "network": "regtest", "cookie_file": str(coins.cookie_file)}
    networks = {
        "networks": ["ethereum", "bitcoin"],
        "ethereum": {**ethereum, "confirmations": 2},
        "bitcoin": {**bitcoin, "wallet": coins.wallet, "confirmations": 3},
    }
    config = folder / "config.json"
    config.write_text(json.dumps({"blockchain": networks}))
    settings = load(config, folder / "artifacts")
    world: Any = World(names=("ethereum", "bitcoin"))
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = dataclasses.replace(world.policy, signer=sending.ledger_signer(settings))
    world.networks = {"ethereum": EthereumInterface(node), "bitcoin": BitcoinInterface(coins)}
    world.ingest(world.batch(story(2)))
    for _ in range(3):
        world.anchor()
        anvil_chain.mine(3)
        regtest.mine(3)
    world.store.close()
    for network in world.networks.values():
        network.close()
    view, _ = deploy(node, "BitcoinAnchor")
    made = Deployment(settings.base_dir, config, folder / "bundle", contract, view)
    assert made.run("bundle", "latest", "-o", str(made.bundle)) == 0
    return made


Capture = pytest.CaptureFixture[str]


def test_ethereum_confirms_what_bitcoin_carries(deployment: Deployment, capsys: Capture) -> None:
    for subject in ("latest", str(deployment.bundle)):
        confirm = ("contract", "confirm", subject, "--view", deployment.view)
        assert deployment.run(*confirm) == 0
        line = capsys.readouterr().out
        assert deployment.run(*confirm, "--json") == 0
        (head,) = json.loads(capsys.readouterr().out)["heads"]
        receipts = [file.decoded for file in read_bundle(deployment.bundle).receipts]
        (mined,) = {r.anchor for r in receipts if getattr(r, "anchor").network == "bitcoin"}  # noqa: B009
        assert head["block_hash"] == mined.block_hash
        assert head["time"] == mined.block_time
        assert "MLP1".encode().hex() + head["root"] == mined.payload.hex()
        assert (head["register"], head["seals"]) == (deployment.contract, ["before", "after"])
        assert head["headers"] == 3
        assert head["work"] == 6
        assert f"Ethereum chain 31337 confirms: bitcoin (regtest) block {mined.block_hash}" in line
        assert f"carries root {head['root']} under 3 headers of 2^2.6 hashes, and the" in line


def test_the_two_networks_tell_one_head_and_a_time(deployment: Deployment, capsys: Capture) -> None:
    assert deployment.run("verify", "latest", "--cross") == 0
    shown = capsys.readouterr().out
    assert deployment.run("verify", "latest", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["seal"] for row in report["cross"]] == ["before", "after"]
    for row in report["cross"]:
        times = [anchor["time"] + anchor["slack"] for anchor in row["anchors"]]
        assert (row["heads"], row["shown"]) == ("same", True)
        assert row["not_after"] == min(times)
        assert row["by"].startswith("ethereum (chain 31337")
        assert {anchor["slack"] for anchor in row["anchors"]} == {12.0, 7200.0}
    assert "after: head 2 on bitcoin (regtest), ethereum (chain 31337, contract 0x" in shown
    check = next(check for check in report["checks"] if check["number"] == 9)
    assert check["status"] == "passed"
    assert check["detail"] in " ".join(shown.split())
