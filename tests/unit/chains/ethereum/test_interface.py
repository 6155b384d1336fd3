"""What needs no node: construction, refusals, and signing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from provenance.chains.ethereum.interface import EthereumInterface
from provenance.chains.ethereum.node import EthereumNode
from provenance.errors import (
    ConfigError,
    InputError,
    MissingExtraError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.ports.network import Network
from provenance.ports.values import Draft, SignedVersion, anchor_payload
from provenance.settings import EthereumSettings
from tests.support.nodes.rpc_stub import http_server, send

# The test vector of EIP-1559 tooling: the first account of the "test test ... junk" mnemonic.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SENDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
ROOT = bytes(range(1, 33))
NOWHERE = "http://127.0.0.1:1"


def interface(**changes: object) -> EthereumInterface:
    return EthereumInterface(EthereumSettings(url=NOWHERE, **{"private_key": KEY, **changes}))  # type: ignore[arg-type]  # keyword arguments of several types


def draft(**changes: object) -> Draft:
    fields = {
        "chain_id": 31337,
        "nonce": None,
        "to": SENDER,
        "data": "0x" + anchor_payload(ROOT).hex(),
        "gas": 30_000,
        "max_fee": 3_000_000_000,
        "max_priority_fee": 1_000_000_000,
        "contract": None,
        "block": 1,
    }
    return Draft("ethereum", anchor_payload(ROOT), {**fields, **changes})  # type: ignore[dict-item]  # keyword arguments of several types


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-32601, "Method not found"),
        (-32602, "invalid method eth_maxPriorityFeePerGas"),
        (-32000, "rpc method is unsupported"),
        (-32001, "the method eth_maxPriorityFeePerGas is not whitelisted"),
        (-32090, "Method not allowed on free tier"),
    ],
)
def test_a_tip_that_the_node_does_not_tell_is_one_gwei(code: int, words: str) -> None:
    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        error = {"code": code, "message": words}
        document = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error}
        send(request, json.dumps(document).encode())

    with http_server(answer) as url:
        assert EthereumNode(EthereumSettings(url=url)).tip() == 10**9


def test_it_is_a_network() -> None:
    network: Network = interface()
    assert (network.name, network.uses_nonce, network.confirmations) == ("ethereum", True, 12)
    network.close()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"url": "http://node.example:8545"}, "blockchain.ethereum.url"),
        ({"private_key": "your_private_key"}, "blockchain.ethereum.private_key"),
        ({"private_key": KEY[:-1]}, "blockchain.ethereum.private_key"),
        ({"private_key": "0x" + "00" * 32}, "blockchain.ethereum.private_key"),
        ({"private_key": "0x" + "ff" * 32}, "blockchain.ethereum.private_key"),
        ({"contract_address": "0x1234"}, "blockchain.ethereum.contract_address"),
        (
            {"contract_address": SENDER.replace("F39", "f39").replace("aad", "AAD")},
            "blockchain.ethereum.contract_address",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_unusable_settings_name_their_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EthereumInterface(EthereumSettings(**{"url": NOWHERE, **changes}))  # type: ignore[arg-type]  # keyword arguments of several types
    assert caught.value.key == key
    secret = changes.get("private_key")
    if isinstance(secret, str):
        assert secret not in "".join(traceback.format_exception(caught.value))


def test_addresses_are_checksummed() -> None:
    network = interface(contract_address=SENDER.lower())
    assert network.contract == SENDER
    assert network.sender == SENDER


def test_repr_shows_neither_key_nor_path() -> None:
    network = EthereumInterface(EthereumSettings(url=NOWHERE + "/v3/topsecret", private_key=KEY))
    assert "topsecret" not in repr(network)
    assert KEY[2:] not in repr(network)


def test_signing_is_deterministic_and_local() -> None:
    network = interface()  # no node listens there
    first, again = network.sign(draft(), 5), network.sign(draft(), 5)
    assert first == again
    assert first.raw[0] == 2
    assert re.fullmatch(r"0x[0-9a-f]{64}", first.transaction_id)
    assert (first.key, first.nonce, first.fee) == (SENDER, 5, 3_000_000_000)
    assert first.payload == anchor_payload(ROOT)
    assert "data" not in first.detail
    assert first.detail["nonce"] == 5
    assert network.sign(draft(), 6).transaction_id != first.transaction_id
    assert network.sign(draft(chain_id=1), 5).transaction_id != first.transaction_id


def test_a_replacement_keeps_its_nonce() -> None:
    network = interface()
    assert network.sign(draft(nonce=4), None).nonce == 4
    assert network.sign(draft(nonce=4), 4).nonce == 4
    with pytest.raises(InputError, match="keeps nonce 4"):
        network.sign(draft(nonce=4), 5)
    with pytest.raises(InputError, match="needs a nonce"):
        network.sign(draft(), None)


def test_without_a_key_nothing_is_signed() -> None:
    network = interface(private_key=None)
    assert network.sender is None
    for call in (
        lambda: network.sign(draft(), 1),
        lambda: network.draft(anchor_payload(ROOT)),
        network.next_nonce,
        lambda: network.store_hash(ROOT),
        network.deploy_contract,
    ):
        with pytest.raises(ConfigError, match="private_key"):
            call()


def test_without_a_contract_there_is_nothing_to_ask() -> None:
    network = interface()
    for call in (
        lambda: network.verify_hash(ROOT),
        lambda: network.get_hash_info(ROOT),
        lambda: network.verify_inclusion(ROOT, ROOT, 0, 1, ()),
    ):
        with pytest.raises(ConfigError, match="contract_address"):
            call()


@pytest.mark.parametrize("payload", [b"", ROOT, b"MLP2" + ROOT, anchor_payload(ROOT) + b"x"])
def test_only_anchor_payloads_are_drafted(payload: bytes) -> None:
    with pytest.raises(InputError, match="MLP1"):
        interface().draft(payload)


@pytest.mark.parametrize("text", ["", "0x12", "QmFoo", "0x" + "g" * 64, "ab" * 32])
def test_lookup_refuses_what_is_no_transaction_id(text: str) -> None:
    with pytest.raises(RejectedError, match="not an Ethereum transaction id"):
        interface().lookup(text)


def test_a_version_without_its_facts_is_refused() -> None:
    with pytest.raises(InputError, match="chain_id"):
        interface().broadcast(SignedVersion("ethereum", b"", "0x" + "ab" * 32, b"\x02"))


def test_every_method_says_that_no_node_is_there() -> None:
    network = interface(contract_address=SENDER)
    version = network.sign(draft(), 5)
    for call in (
        network.identity,
        network.next_nonce,
        lambda: network.draft(anchor_payload(ROOT)),
        lambda: network.draft(anchor_payload(ROOT), version),
        lambda: network.broadcast(version),
        lambda: network.observe(version),
        lambda: network.lookup(version.transaction_id),
        lambda: network.store_hash(ROOT),
        lambda: network.verify_hash(ROOT),
        lambda: network.get_hash_info(ROOT),
        lambda: network.verify_inclusion(ROOT, ROOT, 0, 1, ()),
        network.deploy_contract,
    ):
        with pytest.raises(NetworkUnavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
            call()


def isolated(program: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(path)} if path else None
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False
    )


def test_the_module_imports_nothing_heavy() -> None:
    done = isolated(
        "import sys, provenance.chains.ethereum.interface;"
        "print([m for m in ('web3', 'eth_account', 'requests', 'rlp') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("library", ["web3", "eth_account", "rlp", "trie"])
def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == library or name.startswith("provenance.chains.ethereum."):
            monkeypatch.delitem(sys.modules, name)
    import provenance.chains.ethereum as package

    for name in ("contract", "node", "trie", "responses", "rpc", "libs", "fees", "errors"):
        monkeypatch.delattr(package, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"^{library} is .*ml-provenance\[ethereum\]"):
        interface()
