"""Proofs from a node's answers: types, encodings, and what makes a receipt go without.

Over 400 lines: case by case, one file: `provenance/chains/ethereum/trie.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import rlp
import structlog
from eth_utils import keccak, to_checksum_address
from trie.hexary import HexaryTrie

from provenance.chains.ethereum import trie as module
from provenance.chains.ethereum.encoding import (
    UnprovableError,
    encode_receipt,
    encode_transaction,
)
from provenance.chains.ethereum.errors import MethodMissingError
from provenance.chains.ethereum.libs import Account
from provenance.chains.ethereum.node import EthereumNode, Mined
from provenance.chains.ethereum.responses import read_block, read_receipt, read_transaction
from provenance.chains.ethereum.trie import proofs
from provenance.errors import LyingNodeError, NetworkUnavailable
from provenance.proofs.ethereum import parse_receipt
from provenance.proofs.rlp import encode_index
from tests.support.nodes.ethereum_block import CONTRACT, PAYLOAD, ROOT, STORE, TIME, event

KEY = "0x" + "11" * 32
ADDRESS = "0x" + "22" * 20
BLOB = "0x01" + "44" * 31
Answers = dict[str, Any]


def sign(nonce: int, **fields: Any) -> tuple[bytes, dict[str, Any]]:
    """A signed transaction: its bytes, and how a node tells it."""
    common = {"nonce": nonce, "gas": 30_000, "value": 3, "to": ADDRESS, "data": b"\x01\x02"}
    if fields.get("to"):
        fields["to"] = to_checksum_address(fields["to"])
    signed = Account.sign_transaction({**common, **fields}, KEY)
    raw = bytes(signed.raw_transaction)
    fields = {**common, **fields}
    told: dict[str, Any] = {
        "hash": "0x" + keccak(raw).hex(),
        "type": hex(fields.get("type", 0)),
        "from": Account.from_key(KEY).address,
        "to": fields["to"],
        "input": "0x" + fields["data"].hex(),
        "v": hex(signed.v),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    names = ("nonce", "gas", "value", "chainId", "gasPrice")
    fees = ("maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas")
    told |= {name: hex(fields[name]) for name in (*names, *fees) if name in fields}
    if fields.get("type"):
        told["accessList"] = fields.get("accessList", [])
        told["yParity"] = told["v"]
    return raw, told


FEES = {"chainId": 1, "maxFeePerGas": 5 * 10**9, "maxPriorityFeePerGas": 10**9}
ACCESS = [{"address": ADDRESS, "storageKeys": ["0x" + "44" * 32, "0x" + "55" * 32]}]


def blob_transaction(nonce: int) -> tuple[bytes, dict[str, Any]]:
    """As it lies in a block, without its blobs; nothing checks the signature."""
    body = [
        1, nonce, 10**9, 5 * 10**9, 30_000, b"\x22" * 20, 0, b"", [], 10**9,
        [bytes.fromhex(BLOB[2:])], 1, 2**255, 2**254,
    ]  # fmt: skip
    raw = b"\x03" + bytes(rlp.encode(body))
    told = {
        **{name: hex(value) for name, value in FEES.items()},
        "hash": "0x" + keccak(raw).hex(),
        "type": "0x3",
        "nonce": hex(nonce),
        "gas": hex(30_000),
        "to": ADDRESS,
        "value": "0x0",
        "input": "0x",
        "accessList": [],
        "maxFeePerBlobGas": hex(10**9),
        "blobVersionedHashes": [BLOB],
        "yParity": "0x1",
        "r": hex(2**255),
        "s": hex(2**254),
    }
    return raw, told


def set_code_transaction(nonce: int) -> tuple[bytes, dict[str, Any]]:
    account = Account.from_key(KEY)
    allowed = account.sign_authorization({"chainId": 1, "address": ADDRESS, "nonce": 9})
    raw, told = sign(nonce, type=4, authorizationList=[allowed], **FEES)
    told["authorizationList"] = [
        {
            "chainId": "0x1",
            "address": ADDRESS,
            "nonce": "0x9",
            "yParity": hex(allowed.y_parity),
            "r": hex(allowed.r),
            "s": hex(allowed.s),
        }
    ]
    return raw, told


TRANSACTIONS = {
    "legacy without chain id": sign(1, gasPrice=10**9),
    "legacy": sign(2, gasPrice=10**9, chainId=1),
    "access list": sign(3, type=1, gasPrice=10**9, chainId=1, accessList=ACCESS),
    "fees": sign(4, type=2, accessList=ACCESS, **FEES),
    "blobs": blob_transaction(5),
    "set code": set_code_transaction(6),
    "creation": sign(7, to="", gasPrice=10**9, chainId=1),
}
TRANSACTIONS["creation"][1]["to"] = None


@pytest.mark.parametrize(("raw", "told"), TRANSACTIONS.values(), ids=list(TRANSACTIONS))
def test_a_transaction_of_each_type(raw: bytes, told: dict[str, Any]) -> None:
    assert encode_transaction(told) == raw
    if "yParity" in told:  # some nodes tell it as v alone
        older = {name: value for name, value in told.items() if name != "yParity"}
        assert encode_transaction({**older, "v": told["yParity"]}) == raw


def receipt_fields(told: dict[str, Any], at: int, *logs: Any, **changes: Any) -> dict[str, Any]:
    return {
        "transactionHash": told["hash"],
        "blockHash": None,
        "blockNumber": "0x9",
        "transactionIndex": hex(at),
        "from": told.get("from"),
        "to": told["to"],
        "contractAddress": None,
        "type": told["type"],
        "status": "0x1",
        "gasUsed": "0x5208",
        "cumulativeGasUsed": hex(21_000 * (at + 1)),
        "logsBloom": "0x" + "00" * 256,
        "logs": [
            {
                "address": "0x" + log[0].hex(),
                "topics": ["0x" + topic.hex() for topic in log[1]],
                "data": "0x" + log[2].hex(),
                "transactionHash": told["hash"],
            }
            for log in logs
        ],
        **changes,
    }


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_a_receipt_of_each_type(kind: int) -> None:
    fields = receipt_fields({"hash": "", "to": None, "type": hex(kind)}, 1, event())
    read = parse_receipt(encode_receipt(fields))
    assert (read.type, read.status, read.logs[0].address) == (kind, 1, CONTRACT)
    assert rlp.decode(encode_receipt(fields)[bool(kind) :])[1] == (42_000).to_bytes(2, "big")
    if kind == 0:
        del fields["type"]  # before EIP-2718
        assert parse_receipt(encode_receipt(fields)) == read


def test_what_has_no_known_encoding() -> None:
    fields = receipt_fields({"hash": "", "to": None, "type": "0x0"}, 1)
    with pytest.raises(UnprovableError, match="receipt of type 126"):
        encode_receipt({**fields, "type": "0x7e"})
    with pytest.raises(UnprovableError, match="before EIP-658"):
        encode_receipt({k: v for k, v in fields.items() if k != "status"})
    with pytest.raises(UnprovableError, match="transaction of type 100"):
        encode_transaction({"type": "0x64"})


# --- a block of each type, ours the last -------------------------------------------------


class Rpc:
    """A node's answers by method; one that is an exception is raised."""

    shown = "http://127.0.0.1:1"

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def call(self, method: str, *params: object) -> object:
        self.asked.append(method)
        answer = self.answers[method]
        if callable(answer):
            answer = answer(*params)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Node:
    def __init__(self, answers: Answers) -> None:
        self.rpc = Rpc(answers)


def world(
    *, calldata: bytes = STORE, logs: tuple[Any, ...] = (event(),), to: str = "0x" + CONTRACT.hex()
) -> tuple[Node, Mined]:
    """A block with a transaction of each type before ours."""
    ours = sign(10, type=2, to=to, data=calldata, **FEES)
    pairs = [*copy.deepcopy(list(TRANSACTIONS.values())), ours]
    index = len(pairs) - 1
    bills = [
        receipt_fields(told, at, *(logs if at == index else ()))
        for at, (_, told) in enumerate(pairs)
    ]
    roots = []
    for values in ([raw for raw, _ in pairs], [encode_receipt(bill) for bill in bills]):
        trie = HexaryTrie({})
        for at, value in enumerate(values):
            trie[encode_index(at)] = value
        roots.append("0x" + trie.root_hash.hex())
    fields = {
        "parentHash": "0x" + "01" * 32,
        "sha3Uncles": "0x" + "02" * 32,
        "miner": ADDRESS,
        "stateRoot": "0x" + "03" * 32,
        "transactionsRoot": roots[0],
        "receiptsRoot": roots[1],
        "logsBloom": "0x" + "00" * 256,
        "difficulty": "0x0",
        "number": "0x9",
        "gasLimit": hex(30_000_000),
        "gasUsed": "0x5208",
        "timestamp": hex(TIME),
        "extraData": "0x",
        "mixHash": "0x" + "04" * 32,
        "nonce": "0x0000000000000000",
        "baseFeePerGas": "0x7",
    }
    sizes = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}
    encoded = rlp.encode(
        [int(v, 16) if k in sizes else bytes.fromhex(v[2:]) for k, v in fields.items()]
    )
    hash_ = "0x" + keccak(encoded).hex()
    place = {"blockHash": hash_, "blockNumber": "0x9"}
    for at, (_, told) in enumerate(pairs):
        told |= {**place, "transactionIndex": hex(at)}
        bills[at]["blockHash"] = hash_
        for log in bills[at]["logs"]:
            log["blockHash"] = hash_
    block = {**fields, "hash": hash_, "transactions": [told["hash"] for _, told in pairs]}
    by_id = {bill["transactionHash"]: bill for bill in bills}
    node = Node(
        {
            "eth_getBlockReceipts": bills,
            "eth_getTransactionReceipt": by_id.get,
            "eth_getBlockByNumber": {**block, "transactions": [told for _, told in pairs]},
        }
    )
    mine = ours[1]
    found = Mined(
        read_transaction(mine, mine["hash"]),
        read_receipt(bills[index], mine["hash"]),
        read_block(block, "block"),
        9,
    )
    return node, found


def made(node: Node, found: Mined, contract: bool = True) -> dict[str, Any]:
    target = "0x" + CONTRACT.hex() if contract else None
    return cast(dict[str, Any], proofs(cast(EthereumNode, node), found, target, ROOT))


@pytest.fixture
def reasons() -> Any:
    """What the log says."""
    with structlog.testing.capture_logs() as lines:
        yield lambda: [line["reason"] for line in lines]


def test_an_event_needs_the_receipts_alone(reasons: Callable[[], list[str]]) -> None:
    node, found = world()
    told = made(node, found)
    assert list(told) == ["receipt_proof"]
    assert told["receipt_proof"]["index"] == 7
    assert node.rpc.asked == ["eth_getBlockReceipts"]
    assert reasons() == []


@pytest.mark.parametrize(
    ("options", "contract"),
    [
        ({"calldata": PAYLOAD, "logs": (), "to": ADDRESS}, False),
        ({"logs": ()}, True),
    ],
    ids=["calldata", "repeated"],
)
def test_without_an_event_the_transaction_is_proven_as_well(
    options: dict[str, Any], contract: bool, reasons: Callable[[], list[str]]
) -> None:
    told = made(*world(**options), contract)
    assert list(told) == ["receipt_proof", "transaction_proof"]
    assert reasons() == []


def test_a_node_without_block_receipts_is_asked_for_each() -> None:
    node, found = world()
    whole = made(node, found)
    node.rpc.answers["eth_getBlockReceipts"] = MethodMissingError("no such method")
    node.rpc.asked.clear()
    assert made(node, found) == whole
    assert node.rpc.asked == ["eth_getBlockReceipts"] + ["eth_getTransactionReceipt"] * 8


def no_bills(reason: str) -> Callable[[pytest.MonkeyPatch, Node], None]:
    def spoil(patch: pytest.MonkeyPatch, node: Node) -> None:
        node.rpc.answers["eth_getBlockReceipts"] = NetworkUnavailable(reason)

    return spoil


def forged(method: str, at: int, **changes: Any) -> Callable[[pytest.MonkeyPatch, Node], None]:
    def spoil(patch: pytest.MonkeyPatch, node: Node) -> None:
        answer = node.rpc.answers[method]
        entries = answer if isinstance(answer, list) else answer["transactions"]
        entries[at] = {**entries[at], **changes}

    return spoil


def limit(name: str, value: float) -> Callable[[pytest.MonkeyPatch, Node], None]:
    def spoil(patch: pytest.MonkeyPatch, node: Node) -> None:
        node.rpc.answers["eth_getBlockReceipts"] = MethodMissingError("no such method")
        patch.setattr(module, name, value)

    return spoil


def shorter(method: str) -> Callable[[pytest.MonkeyPatch, Node], None]:
    def spoil(patch: pytest.MonkeyPatch, node: Node) -> None:
        answer = node.rpc.answers[method]
        (answer if isinstance(answer, list) else answer["transactions"]).pop()

    return spoil


BILLS, FULL = "eth_getBlockReceipts", "eth_getBlockByNumber"
SPOILED: list[tuple[Callable[[pytest.MonkeyPatch, Node], None], str]] = [
    (no_bills("away"), "away"),
    (forged(BILLS, 0, status="0x0"), "has receiptsRoot 0x"),
    (forged(BILLS, 0, cumulativeGasUsed="0x1"), "has receiptsRoot 0x"),
    (forged(BILLS, 7, logs=[]), "has receiptsRoot 0x"),
    (forged(BILLS, 0, logsBloom="0x00"), "receipt.logsBloom"),
    (forged(BILLS, 1, transactionHash="0x" + "11" * 32), "another receipt was sent"),
    (forged(BILLS, 1, blockHash="0x" + "11" * 32), "another receipt was sent"),
    (forged(BILLS, 1, transactionIndex="0x3"), "another receipt was sent"),
    (forged(BILLS, 1, type="0x7e"), "a receipt of type 126, which is not known here"),
    (forged(BILLS, 1, type="0x1"), "has receiptsRoot 0x"),
    (shorter(BILLS), "7 receipts for the 8 transactions of block 9"),
    (limit("MAX_BLOCK_RECEIPTS", 7), "block of 8 transactions"),
    (limit("MAX_SINGLE_RECEIPTS", 7), "8 transactions to ask for"),
    (limit("MAX_ASKING_S", -1.0), "8 questions take over"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "says"), SPOILED, ids=[f"{s[1]}-{i}" for i, s in enumerate(SPOILED)]
)
def test_a_receipt_proof_that_cannot_be_made_is_logged(
    spoil: Callable[[pytest.MonkeyPatch, Node], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    reasons: Callable[[], list[str]],
) -> None:
    node, found = world()
    spoil(monkeypatch, node)
    told = made(node, found)
    assert "receipt_proof" not in told
    assert says in reasons()[0]
    # The transaction, which carries the root as well, may be proven all the same.
    assert list(told) in ([], ["transaction_proof"])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (forged(FULL, 2, gas="0x1"), "do not hash to it"),
        (forged(FULL, 2, accessList=None), "accessList"),
        (forged(FULL, 5, authorizationList=[{}]), "chainId"),
        (forged(FULL, 4, type="0x64"), "a transaction of type 100"),
        (shorter(FULL), "block 9 has other transactions now"),
    ],
)
def test_a_transaction_that_cannot_be_proven_is_logged(
    spoil: Callable[[pytest.MonkeyPatch, Node], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    reasons: Callable[[], list[str]],
) -> None:
    """Without it the receipt's proof would show nothing, so neither is told."""
    node, found = world(calldata=PAYLOAD, logs=(), to=ADDRESS)
    spoil(monkeypatch, node)
    assert made(node, found, contract=False) == {}
    assert says in reasons()[0]


def test_what_does_not_carry_the_root_is_not_told(reasons: Callable[[], list[str]]) -> None:
    node, found = world(calldata=b"", logs=())
    assert made(node, found) == {}
    assert "does not carry the root" in reasons()[0]


def test_a_header_of_another_shape_has_no_proof() -> None:
    node, found = world()
    other = read_block({**found.block.header, "hash": "0x" + "11" * 32, "transactions": []}, "b")
    assert made(node, Mined(found.transaction, found.receipt, other, 9)) == {}
    assert node.rpc.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("junk", [None, {}, [], [None] * 8, [{}] * 8, "0x", 5, [[]] * 8])
@pytest.mark.parametrize("method", [BILLS, FULL])
def test_any_answer_is_survived(method: str, junk: object) -> None:
    node, found = world(calldata=PAYLOAD, logs=(), to=ADDRESS)
    node.rpc.answers[method] = {"transactions": junk} if method == FULL else junk
    told = made(node, found, contract=False)
    assert "receipt_proof" not in told or method != BILLS
    node.rpc.answers[method] = junk
    made(node, found, contract=False)


def test_what_is_told_is_verified_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(*args: object) -> None:
        asked.append(args)
        raise LyingNodeError("no")

    monkeypatch.setattr(module, "verify_anchor", refuse)
    assert made(*world()) == {}
    assert len(asked) == 2
