"""A node that lies: every forged answer is refused and never becomes "mined"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from eth_abi import encode

from provenance.chains.ethereum.fees import GWEI
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.errors import (
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.ports.values import Observation, Place, SignedVersion, anchor_payload
from provenance.settings import EthereumSettings
from tests.support.nodes.ethereum_chain import KEYS, Anvil, Liar, Refuse

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes

ROOT = bytes(range(1, 33))
OTHER = "0x" + "12" * 32
STRANGER = "0x" + "12" * 20


@pytest.fixture
def network(liar: Liar, contract: str) -> Iterator[EthereumInterface]:
    network = EthereumInterface(
        EthereumSettings(
            url=liar.url, private_key=KEYS[0], contract_address=contract, confirmations=2
        )
    )
    yield network
    network.close()


@pytest.fixture
def version(network: EthereumInterface) -> SignedVersion:
    """An anchor that is truly on the chain, with another transaction beside it."""
    signed = network.sign(network.draft(anchor_payload(ROOT)), network.next_nonce())
    network.broadcast(signed)
    deadline = time.monotonic() + 10
    while network.observe(signed).place is Place.PENDING and time.monotonic() < deadline:
        time.sleep(0.02)  # anvil answers before it mines
    assert network.observe(signed).root == ROOT
    return signed


def with_(**changes: Any) -> Callable[[list[Any], Any], Any]:
    """Forge fields of the first object that is asked for."""
    return lambda params, true: {**true, **changes}


def in_log(**changes: Any) -> Callable[[list[Any], Any], Any]:
    return lambda params, true: {**true, "logs": [{**log, **changes} for log in true["logs"]]}


LIES: list[tuple[str, str, Callable[[list[Any], Any], Any]]] = [
    ("another transaction", "eth_getTransactionByHash", with_(hash=OTHER)),
    ("another root", "eth_getTransactionByHash", with_(input="0x" + (b"MLP1" + ROOT).hex())),
    ("another target", "eth_getTransactionByHash", with_(to=STRANGER)),
    ("another sender", "eth_getTransactionByHash", with_(**{"from": STRANGER})),
    ("another block of the transaction", "eth_getTransactionByHash", with_(blockHash=OTHER)),
    ("another transaction's receipt", "eth_getTransactionReceipt", with_(transactionHash=OTHER)),
    ("a receipt from another block", "eth_getTransactionReceipt", with_(blockNumber="0x1")),
    ("a receipt of another sender", "eth_getTransactionReceipt", with_(**{"from": STRANGER})),
    ("a receipt of another target", "eth_getTransactionReceipt", with_(to=STRANGER)),
    ("a status of its own", "eth_getTransactionReceipt", with_(status="0x7")),
    ("another's log", "eth_getTransactionReceipt", in_log(transactionHash=OTHER)),
    (
        "an event of another time",
        "eth_getTransactionReceipt",
        in_log(data="0x" + encode(["uint64", "string"], [1, ""]).hex()),
    ),
    ("an event that does not decode", "eth_getTransactionReceipt", in_log(data="0x01")),
    ("no such block", "eth_getBlockByNumber", lambda params, true: None),
    ("another block", "eth_getBlockByNumber", with_(hash=OTHER)),
    ("the block of another height", "eth_getBlockByNumber", with_(number="0x1")),
    ("a block without it", "eth_getBlockByNumber", with_(transactions=[OTHER])),
    ("an empty block", "eth_getBlockByNumber", with_(transactions=[])),
    ("a block of no shape", "eth_getBlockByNumber", lambda params, true: "0x1"),
    ("a head below the block", "eth_blockNumber", lambda params, true: "0x1"),
    ("a head of no number", "eth_blockNumber", lambda params, true: None),
]


@pytest.mark.parametrize(("method", "forge"), [each[1:] for each in LIES], ids=[x[0] for x in LIES])
def test_a_forged_answer_is_refused(
    network: EthereumInterface,
    version: SignedVersion,
    liar: Liar,
    method: str,
    forge: Callable[[list[Any], Any], Any],
) -> None:
    seen = network.observe(version)
    liar.forge[method] = forge
    calls: tuple[Callable[[], object], ...] = (
        lambda: network.observe(version),
        lambda: network.lookup(version.transaction_id),
        lambda: network.evidence(version, seen) and network.observe(version),
    )
    for call in calls:
        with pytest.raises(LyingNodeError):
            call()


def test_a_contradiction_that_passes_is_a_block_that_arrived(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    """A reorg between two questions looks like a lie once, and not twice."""
    true_one = network.observe(version)
    calls: list[object] = []

    def once(params: list[Any], true: Any) -> Any:
        calls.append(params)
        return {**true, "blockHash": OTHER, "logs": []} if len(calls) == 1 else true

    liar.forge["eth_getTransactionReceipt"] = once
    assert network.observe(version) == true_one
    assert len(calls) == 2


def test_another_chain_id_is_refused_at_any_moment(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    network.identity()
    liar.forge["eth_chainId"] = lambda params, true: "0x1"
    for call in (
        network.identity,
        lambda: network.draft(anchor_payload(ROOT)),
        lambda: network.broadcast(version),
        lambda: network.observe(version),
        lambda: network.lookup(version.transaction_id),
    ):
        with pytest.raises(WrongNetworkError, match="chain id 1, expected 31337"):
            call()


def test_a_genesis_that_changes_is_another_chain(network: EthereumInterface, liar: Liar) -> None:
    network.identity()
    liar.forge["eth_getBlockByNumber"] = with_(hash=OTHER)
    with pytest.raises(WrongNetworkError, match="genesis"):
        network.identity()


def test_a_client_made_while_another_chain_answered_takes_the_right_one_up(
    network: EthereumInterface, liar: Liar
) -> None:
    liar.forge["eth_chainId"] = lambda params, true: "0x539"
    assert network.identity().fields["chain_id"] == 1337
    liar.forge.clear()
    with pytest.raises(WrongNetworkError, match="chain id 31337, expected 1337"):
        network.identity()
    with pytest.raises(WrongNetworkError, match="chain id 31337, expected 1337"):
        network.draft(anchor_payload(ROOT))
    assert network.identity().fields["chain_id"] == 31337
    network.draft(anchor_payload(ROOT))


def test_a_receipt_that_is_gone_is_no_confirmation(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    seen = network.observe(version)
    liar.forge["eth_getTransactionReceipt"] = lambda params, true: None
    assert network.observe(version) == Observation(Place.PENDING)
    with pytest.raises(NetworkUnavailable, match="is not in block"):
        network.evidence(version, seen)


def test_a_revert_is_never_a_root(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    liar.forge["eth_getTransactionReceipt"] = with_(status="0x0")
    seen = network.observe(version)
    assert (seen.place, seen.root) == (Place.FAILED, None)


@pytest.mark.parametrize(
    "forge",
    [
        with_(logs=[]),
        in_log(address=STRANGER),
        in_log(topics=[OTHER]),
    ],
    ids=["no event", "a stranger's event", "another event"],
)
def test_without_our_event_the_contract_is_asked(
    network: EthereumInterface,
    version: SignedVersion,
    liar: Liar,
    forge: Callable[[list[Any], Any], Any],
) -> None:
    true_one = network.observe(version)
    liar.forge["eth_getTransactionReceipt"] = forge
    assert network.observe(version) == true_one
    liar.forge["eth_call"] = lambda params, true: "0x"
    assert network.observe(version) == replace(true_one, root=None)
    nothing = encode(["bool", "address", "uint64", "uint64", "string"], [False, STRANGER, 0, 0, ""])
    liar.forge["eth_call"] = lambda params, true: "0x" + nothing.hex()
    assert network.observe(version) == replace(true_one, root=None)
    liar.forge["eth_call"] = lambda params, true: "0x1234"
    with pytest.raises(LyingNodeError, match="does not decode"):
        network.observe(version)
    later = encode(
        ["bool", "address", "uint64", "uint64", "string"], [True, STRANGER, 0, 2**40, ""]
    )
    liar.forge["eth_call"] = lambda params, true: "0x" + later.hex()
    with pytest.raises(LyingNodeError, match="stored later"):
        network.observe(version)


def test_a_version_found_at_the_second_look_is_no_conflict(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    answers: list[object] = []

    def late(params: list[Any], true: Any) -> Any:
        answers.append(params)
        return None if len(answers) == 1 else true

    liar.forge["eth_getTransactionByHash"] = late
    assert network.observe(version).root == ROOT


def echoed(answer: Any, params: Any, true: Any) -> Any:
    return answer


def test_an_echo_of_another_hash_is_refused(network: EthereumInterface, liar: Liar) -> None:
    signed = network.sign(network.draft(anchor_payload(ROOT)), network.next_nonce())
    for echo in (OTHER, None, 5, signed.transaction_id.upper()):
        liar.forge["eth_sendRawTransaction"] = partial(echoed, echo)
        with pytest.raises(LyingNodeError, match="another hash came back"):
            network.broadcast(signed)


def test_refusals_of_a_sent_transaction(
    network: EthereumInterface, version: SignedVersion, liar: Liar
) -> None:
    def refuse(message: str) -> Callable[[list[Any], Any], Any]:
        def forger(params: list[Any], true: Any) -> Any:
            raise Refuse(-32000, message)

        return forger

    for message in ("already known", "nonce too low: next nonce 9, tx nonce 3"):
        liar.forge["eth_sendRawTransaction"] = refuse(message)
        network.broadcast(version)
    liar.forge["eth_getTransactionByHash"] = lambda params, true: None
    with pytest.raises(NonceUsedError):
        network.broadcast(version)
    liar.forge["eth_sendRawTransaction"] = refuse("txpool is full")
    with pytest.raises(NetworkUnavailable):
        network.broadcast(version)
    liar.forge["eth_sendRawTransaction"] = refuse("nonce too low")
    with pytest.raises(NonceUsedError):
        network.store_hash(OTHER.encode()[:32])


def test_a_node_without_the_tip_method(network: EthereumInterface, liar: Liar) -> None:
    def missing(params: list[Any], true: Any) -> Any:
        raise Refuse(-32601, "the method eth_maxPriorityFeePerGas does not exist")

    liar.forge["eth_maxPriorityFeePerGas"] = missing
    assert network.draft(anchor_payload(ROOT)).fields["max_priority_fee"] == GWEI


def test_a_chain_without_a_base_fee(network: EthereumInterface, liar: Liar) -> None:
    liar.forge["eth_getBlockByNumber"] = with_(baseFeePerGas=None)
    with pytest.raises(WrongNetworkError, match="base fee"):
        network.draft(anchor_payload(ROOT))


def test_a_node_that_is_syncing_is_not_asked_further(
    network: EthereumInterface, liar: Liar
) -> None:
    liar.forge["eth_syncing"] = lambda params, true: {"currentBlock": "0x5", "highestBlock": "0x9"}
    with pytest.raises(NetworkUnavailable, match="syncing: block 0x5 of 0x9"):
        network.identity()


@pytest.mark.parametrize("code", [-39001, -32602, None])
def test_a_chain_without_the_finalized_tag_is_not_final(
    liar: Liar, version: SignedVersion, code: int | None
) -> None:
    network = EthereumInterface(EthereumSettings(url=liar.url, use_finalized=True, confirmations=1))

    def no_tag(params: list[Any], true: Any) -> Any:
        if params[0] != "finalized":
            return true
        if code is None:
            return None
        raise Refuse(code, "no tag")

    liar.forge["eth_getBlockByNumber"] = no_tag
    seen = network.observe(version)
    assert (seen.root, seen.final) == (ROOT, False)
    network.close()


def test_a_receipt_that_comes_late_is_waited_for(
    network: EthereumInterface, liar: Liar, chain: Anvil
) -> None:
    asked: list[object] = []

    def late(params: list[Any], true: Any) -> Any:
        asked.append(params)
        if len(asked) == 1:
            raise Refuse(-32000, "transaction indexing is in progress")
        return None if len(asked) == 2 else true

    liar.forge["eth_getTransactionReceipt"] = late
    network.store_hash(ROOT)
    assert len(asked) == 3


def test_a_deployment_is_checked(liar: Liar) -> None:
    settings = EthereumSettings(url=liar.url, private_key=KEYS[1])
    liar.forge["eth_getCode"] = lambda params, true: "0x00"
    with pytest.raises(LyingNodeError, match="other code than ours"):
        deploy(settings)
    liar.forge["eth_getTransactionReceipt"] = with_(contractAddress=None)
    with pytest.raises(LyingNodeError, match="names no contract"):
        deploy(settings)
    liar.forge["eth_getTransactionReceipt"] = with_(status="0x0")
    with pytest.raises(RejectedError, match="mined and failed"):
        deploy(settings)
