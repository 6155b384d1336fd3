"""The k-of-n contract on a real anvil: what it stores, and what it and our code refuse."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from eth_utils.abi import abi_to_signature, function_signature_to_4byte_selector

from provenance.chains.ethereum.contract import MULTISIG
from provenance.chains.ethereum.interface import EthereumInterface
from provenance.chains.ethereum.multisig import (
    check_store,
    deploy_multisig,
    ordered,
    sign,
    store,
)
from provenance.chains.ethereum.node import EthereumNode
from provenance.errors import FormatError, InputError, ProofError, RejectedError, WrongNetworkError
from provenance.ports.values import Place
from provenance.proofs.multisig.ethereum import StoreRequest, read_call
from provenance.proofs.secp256k1 import N
from provenance.settings import EthereumSettings
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.owners import ETHEREUM_KEYS

pytest_plugins = ("tests.support.nodes.fixtures_ethereum",)
pytestmark = pytest.mark.nodes

OWNERS = ETHEREUM_KEYS
STRANGER = f"{0x5EED:064x}"
ERRORS = {
    "0x" + function_signature_to_4byte_selector(abi_to_signature(item)).hex(): item["name"]
    for item in MULTISIG.artifact["abi"]
    if item["type"] == "error"
}


def addresses(keys: Sequence[str]) -> list[str]:
    return [str(Account.from_key(key).address) for key in keys]


@pytest.fixture
def settings(chain: Anvil) -> EthereumSettings:
    return EthereumSettings(url=chain.url, private_key=KEYS[0], confirmations=1)


@pytest.fixture
def register(settings: EthereumSettings) -> str:
    address, _ = deploy_multisig(settings, addresses(OWNERS), 2)
    return address


@pytest.fixture
def request_(chain: Anvil, register: str) -> StoreRequest:
    now = int(chain.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    return StoreRequest(31337, bytes.fromhex(register[2:]), os.urandom(32), now + 3600)


def signed(request: StoreRequest, *keys: str) -> tuple[bytes, ...]:
    return ordered(request, [sign(request, key) for key in keys])


def refusal(chain: Anvil, register: str, calldata: bytes) -> str:
    """The custom error that a call ends in; the empty text where it succeeds."""
    call = {"from": addresses(KEYS)[0], "to": register, "data": "0x" + calldata.hex()}
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}
    message = urllib.request.Request(
        chain.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(message, timeout=30) as response:
        answer = json.load(response)
    return ERRORS[answer["error"]["data"][:10]] if "error" in answer else ""


def test_two_of_three_store_a_root_once(
    chain: Anvil, settings: EthereumSettings, register: str, request_: StoreRequest
) -> None:
    signatures = signed(request_, OWNERS[0], OWNERS[2])
    txid = store(settings, request_, signatures)
    network = EthereumInterface(EthereumSettings(url=chain.url, contract_address=register))
    assert network.verify_hash(request_.root)
    info = network.get_hash_info(request_.root)
    assert info.submitter == addresses(KEYS)[0]
    seen = network.lookup(txid)
    assert (seen.place, seen.root) == (Place.MINED, request_.root)
    assert seen.quorum is not None
    assert seen.quorum.threshold == 2
    assert list(seen.quorum.owners) == sorted(a.lower() for a in addresses(OWNERS))
    again = chain.send(
        {
            "from": addresses(KEYS)[1],
            "to": register,
            "data": "0x" + request_.calldata(signatures).hex(),
        }
    )
    receipt = chain.call("eth_getTransactionReceipt", again)
    assert (int(receipt["status"], 16), receipt["logs"]) == (1, [])
    assert network.get_hash_info(request_.root) == info
    with pytest.raises(RejectedError, match="stored already; nothing was sent"):
        store(settings, request_, signatures)


def test_what_is_signed_is_what_eth_account_signs(request_: StoreRequest) -> None:
    message = encode_typed_data(full_message=request_.typed_data())
    assert keccak(b"\x19" + message.version + message.header + message.body) == request_.digest()
    signature = sign(request_, OWNERS[1])
    assert "0x" + request_.signer(signature).hex() == addresses(OWNERS)[1].lower()
    calldata = request_.calldata(signed(request_, *OWNERS))
    assert read_call(31337, request_.contract, calldata) == (request_, signed(request_, *OWNERS))


Change = Callable[[StoreRequest], tuple[StoreRequest, Sequence[bytes]]]


def high_s(signature: bytes) -> bytes:
    s = N - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def swapped(request: StoreRequest) -> tuple[StoreRequest, Sequence[bytes]]:
    return request, signed(request, *OWNERS[:2])[::-1]


REFUSED: dict[str, tuple[Change, str, type[Exception], str | None]] = {
    "one signature": (
        lambda r: (r, signed(r, OWNERS[0])), "TooFewSignatures", RejectedError,
        "found 1 signatures, expected 2 of the 3 owners",
    ),
    "one owner twice": (
        lambda r: (r, [sign(r, OWNERS[0])] * 2), "SignersNotAscending", ProofError, "not distinct",
    ),
    "out of order": (swapped, "SignersNotAscending", ProofError, "in ascending order"),
    "a foreign signer": (
        lambda r: (r, signed(r, OWNERS[0], STRANGER)), "NotAnOwner", RejectedError,
        "signed and is no owner",
    ),
    "another root": (
        lambda r: (replace(r, root=bytes(31) + b"\1"), signed(r, *OWNERS[:2])), "", RejectedError,
        None,
    ),
    "other metadata": (
        lambda r: (replace(r, metadata=b"x"), signed(r, *OWNERS[:2])), "", RejectedError, None,
    ),
    "a later deadline": (
        lambda r: (replace(r, deadline=r.deadline + 1), signed(r, *OWNERS[:2])), "",
        RejectedError, None,
    ),
    "expired": (
        lambda r: ((old := replace(r, deadline=1_000)), signed(old, *OWNERS[:2])), "Expired",
        RejectedError, "expired",
    ),
    "the higher s": (
        lambda r: (r, [high_s(each) for each in signed(r, *OWNERS[:2])]), "BadSignature",
        FormatError, "above half",
    ),
    "64 bytes": (
        lambda r: (r, [each[:64] for each in signed(r, *OWNERS[:2])]), "BadSignature", FormatError,
        "found 64 bytes",
    ),
    "v of 0": (
        lambda r: (r, [each[:64] + b"\0" for each in signed(r, *OWNERS[:2])]), "BadSignature",
        FormatError, "found v 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_the_contract_and_before_sending(
    name: str, chain: Anvil, settings: EthereumSettings, register: str, request_: StoreRequest
) -> None:
    change, error, kind, words = REFUSED[name]
    request, signatures = change(request_)
    found = refusal(chain, register, request.calldata(signatures))
    # Of a changed statement the recovered signers are strangers, in some order.
    assert found == error or (not error and found in ("NotAnOwner", "SignersNotAscending"))
    with pytest.raises((kind, ProofError), match=words):
        check_store(EthereumNode(settings), request, signatures)
    assert refusal(chain, register, request_.calldata(signed(request_, *OWNERS[:2]))) == ""


def test_signatures_for_another_chain_or_contract_are_strangers_here(
    chain: Anvil, settings: EthereumSettings, register: str, request_: StoreRequest
) -> None:
    other, _ = deploy_multisig(settings, addresses(OWNERS), 2)
    for changes in ({"chain_id": 1}, {"contract": bytes.fromhex(other[2:])}):
        signatures = signed(replace(request_, **changes), *OWNERS[:2])
        found = refusal(chain, register, request_.calldata(signatures))
        assert found in ("NotAnOwner", "SignersNotAscending")
        with pytest.raises((RejectedError, ProofError)):
            check_store(EthereumNode(settings), request_, signatures)
    with pytest.raises(WrongNetworkError, match="serves chain id 31337, expected 1"):
        check_store(EthereumNode(settings), replace(request_, chain_id=1), ())
    nowhere = replace(request_, contract=bytes(19) + b"\1")
    with pytest.raises(WrongNetworkError, match="no MLProvenanceMultisig contract"):
        check_store(EthereumNode(settings), nowhere, ())


def test_owners_that_make_no_quorum_are_refused(settings: EthereumSettings) -> None:
    one, two, _ = addresses(OWNERS)
    for owners, threshold, words in (
        ([one, one], 1, "--owners: found 2, expected 1 to 16 that differ"),
        ([], 1, "--owners: found 0"),
        ([one, two], 3, "--threshold: found 3, expected 1 to 2"),
        ([one, two], 0, "--threshold: found 0"),
        ([one.swapcase().replace("0X", "0x")], 1, "EIP-55"),
        (["0x12"], 1, "40 hex digits"),
    ):
        with pytest.raises(InputError, match=words):
            deploy_multisig(settings, owners, threshold)


def test_the_gas_of_two_of_three(
    chain: Anvil, settings: EthereumSettings, register: str, request_: StoreRequest
) -> None:
    txid = store(settings, request_, signed(request_, *OWNERS[:2]))
    gas = int(chain.call("eth_getTransactionReceipt", txid)["gasUsed"], 16)
    _, creation = deploy_multisig(settings, addresses(OWNERS), 2)
    made = int(chain.call("eth_getTransactionReceipt", creation)["gasUsed"], 16)
    assert (gas // 1000, made // 1000) == (67, 1071)  # as docs/guides/multisig.md has them
