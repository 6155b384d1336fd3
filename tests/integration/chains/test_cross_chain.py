"""One head on Ethereum and Bitcoin, and Ethereum's own check of Bitcoin's proof: real nodes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from provenance.bootstrap import sending
from provenance.bundle.reader import read_bundle
from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.ethereum.bitcoin_view import proof_of
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.cli import main
from provenance.errors import ProofError, WrongNetworkError
from provenance.formats.receipt import Receipt
from provenance.settings import BitcoinSettings, EthereumSettings, load
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.regtest import Regtest
from tests.support.paths import VECTORS
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
    coins = regtest.wallet("0.05")
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


def bitcoin_receipt(bundle: Path) -> Receipt:
    """That of the last seal."""
    receipts = [file.decoded for file in read_bundle(bundle).receipts]
    found = [r for r in receipts if isinstance(r, Receipt) and r.anchor.network == "bitcoin"]
    return found[-1]


def test_ethereum_confirms_what_bitcoin_carries(deployment: Deployment, capsys: Capture) -> None:
    for subject in ("latest", str(deployment.bundle)):
        confirm = ("contract", "confirm", subject, "--view", deployment.view)
        assert deployment.run(*confirm) == 0
        line = capsys.readouterr().out
        assert deployment.run(*confirm, "--json") == 0
        (head,) = json.loads(capsys.readouterr().out)["heads"]
        mined = bitcoin_receipt(deployment.bundle).anchor
        assert head["block_hash"] == mined.block_hash
        assert head["time"] == mined.block_time
        assert b"MLP1".hex() + head["root"] == mined.payload.hex()
        assert (head["register"], head["seals"]) == (deployment.contract, ["before", "after"])
        assert head["headers"] == 3
        assert head["work"] == 2.58
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
    assert check["detail"].startswith("2 seals on several networks; after: head 2 on bitcoin")
    assert check["detail"].partition("; ")[2] in shown.splitlines()


def test_the_command_deploys_the_contract(deployment: Deployment, capsys: Capture) -> None:
    assert deployment.run("contract", "deploy", "--bitcoin-view") == 0
    deployed, hint = capsys.readouterr().out.splitlines()
    view = deployed.split()[2]
    assert hint == f"provenance contract confirm RUN --view {view}"
    assert deployment.run("contract", "confirm", "latest", "--view", view) == 0
    capsys.readouterr()
    assert deployment.run("contract", "deploy", "--bitcoin-view", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"bitcoin_view", "transaction_id"}


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--view", "0x12"), 2, "--view: found '0x12', expected 0x and 40 hex digits"),
        (("--view", "0x" + "12" * 20), 2, "no contract lies at 0x1212"),
        (("--view", "CONTRACT"), 2, "other code than BitcoinAnchor's lies at 0x"),
        (("--view", "VIEW", "--least-work", "300"), 2, "--least-work: found 300, expected 0 to"),
        (
            ("--view", "VIEW", "--least-work", "40"),
            1,
            "refuses bitcoin (regtest) TRANSACTION: ethereum: the headers took 6 hashes, "
            "expected 1099511627776 at least",
        ),
    ],
)
def test_what_cannot_be_confirmed_is_one_line(
    deployment: Deployment, words: tuple[str, ...], code: int, line: str, capsys: Capture
) -> None:
    places = {"CONTRACT": deployment.contract, "VIEW": deployment.view}
    words = tuple(places.get(word, word) for word in words)
    id = bitcoin_receipt(deployment.bundle).anchor.transaction_id
    line = line.replace("TRANSACTION", id)
    assert deployment.run("contract", "confirm", "latest", *words) == code
    told = capsys.readouterr()
    assert line in told.out + told.err
    assert len((told.out + told.err).splitlines()) == 1


def test_only_a_register_of_our_code_is_asked(deployment: Deployment) -> None:
    """And it must hold the root: another one of the same code is empty."""
    ethereum = load(deployment.config, deployment.base).blockchain.ethereum
    assert ethereum is not None
    empty, _ = deploy(ethereum)
    receipt = bitcoin_receipt(deployment.bundle)
    root, proof = receipt.ledger.root, proof_of(receipt.evidence)
    network = EthereumInterface(ethereum)
    try:
        ask = partial(network.confirm_bitcoin, deployment.view)
        assert ask(None, root, proof, 1).registered is None
        assert ask(deployment.contract, root, proof, 1).registered is not None
        with pytest.raises(ProofError, match=f"register {empty.lower()} does not hold root"):
            ask(empty, root, proof, 1)
        with pytest.raises(WrongNetworkError, match="other code than MLProvenance's lies at"):
            ask(deployment.view, root, proof, 1)
    finally:
        network.close()


def test_evidence_that_does_not_hold_is_not_asked_about(
    deployment: Deployment, tmp_path: Path, capsys: Capture
) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(deployment.bundle, forged)
    path = forged / "receipts" / "after-bitcoin.json"
    path.write_bytes(path.read_bytes().replace(b'"depth":', b'"depth":1'))
    assert deployment.run("contract", "confirm", str(forged), "--view", deployment.view) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "after-bitcoin" in line


def test_a_run_without_a_bitcoin_receipt_has_nothing_to_confirm(
    deployment: Deployment, capsys: Capture
) -> None:
    bundle = str(VECTORS / "bundle-v1-ranks.zip")
    assert deployment.run("contract", "confirm", bundle, "--view", deployment.view) == 2
    assert "found no Bitcoin receipt, expected one at least" in capsys.readouterr().err


def test_a_register_that_the_evidence_names_must_be_ours(
    deployment: Deployment, capsys: Capture
) -> None:
    """A bundle of another deployment on a chain of the same id: its contract is not here."""
    bundle = str(VECTORS / "bundle-v1.zip")
    assert deployment.run("contract", "confirm", bundle, "--view", deployment.view) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other code than MLProvenance's lies at 0x5f5f5f" in line


def test_on_another_chain_no_register_is_asked(
    deployment: Deployment, new_anvil: Callable[..., Anvil], tmp_path: Path, capsys: Capture
) -> None:
    """Bitcoin's proof holds on any chain, and the line says what was left out."""
    node = EthereumSettings(url=new_anvil("--chain-id", "5").url, private_key=KEYS[0])
    view, _ = deploy(node, "BitcoinAnchor")
    config = tmp_path / "config.json"
    elsewhere = dataclasses.replace(deployment, config=config)
    for chain, code in ((5, 0), (1, 2)):
        ethereum = {"url": node.url, "chain_id": chain}
        config.write_text(json.dumps({"blockchain": {"ethereum": ethereum}}))
        confirm = ("contract", "confirm", str(deployment.bundle), "--view", view)
        assert elsewhere.run(*confirm) == code
    told = capsys.readouterr()
    assert "before, after: Ethereum chain 5 confirms: bitcoin (regtest) block" in told.out
    assert "no receipt of this head on that chain, so no register was asked" in told.out
    assert "serves chain id 5, expected 1" in told.err
