"""Merkle-Patricia proofs for receipts, from what a node tells of a whole block.

A node gives no proof of a receipt; it gives all receipts of the block. They are encoded as
they lie in the trie (EIP-2718 types 0 to 4, EIP-658), the trie is built, and its root must be
the one in the block's header, which hashes to the block hash. So nothing of a proof rests on
the node's word but that the header is on the chain.

Where no proof can be made (a type of transaction that is not known here, a header that does
not hash, a node that has no such method or lies, a block that is too large) the reason is
logged, and the receipt goes without: a proof is for auditors, an anchor holds without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import rlp
import structlog
from eth_utils.crypto import keccak
from trie.hexary import HexaryTrie

from provenance.chains.ethereum.errors import MethodMissingError
from provenance.chains.ethereum.node import EthereumNode, Mined
from provenance.chains.ethereum.responses import (
    Block,
    data,
    header_rlp,
    listing,
    mapping,
    quantity,
)
from provenance.errors import LyingNodeError, ProvenanceError
from provenance.formats.record import Json
from provenance.proofs.ethereum import TrieProof, verify_anchor
from provenance.proofs.rlp import encode_index

MAX_BLOCK_RECEIPTS: Final = 5_000
"""Transactions of a block that is taken up; 2,857 fill one of 60 million gas. A trie of 1,500
takes half a second."""
MAX_SINGLE_RECEIPTS: Final = 1_000
"""The same where the node must be asked for each receipt by itself."""
MAX_GATHER_S: Final = 20.0
"""Longest time that single questions may take together: a third of the default lease."""

_log = structlog.get_logger("provenance.ethereum")
_T = TypeVar("_T")


class UnprovableError(Exception):
    """A proof that cannot be made, and why."""


def proofs(node: EthereumNode, found: Mined, contract: str | None, root: bytes) -> dict[str, Json]:
    """``receipt_proof`` and ``transaction_proof`` of an anchor's evidence; each as far as it
    could be made, and both together verified before they are given out.

    The transaction is proven where the receipt holds no event of ours: an anchor without a
    contract, or a root that somebody had stored before.

    Args:
        contract: Its address; None where the root is calldata. root: The ledger root.
    """
    block, index = found.block, found.receipt.index
    header = header_rlp(block)
    if header is None:
        return {}  # the evidence says so in a note
    if len(block.transactions) > MAX_BLOCK_RECEIPTS:
        _skip(found, f"block of {len(block.transactions)} transactions")
        return {}
    receipt = _attempt(found, lambda: _receipt_proof(node, block, index))
    target = None if contract is None else bytes.fromhex(contract[2:])
    if receipt is not None and target is not None:
        only = _attempt(found, lambda: _told(header, root, target, receipt, None), quiet=True)
        if only is not None:
            return only
    sent = _attempt(found, lambda: _transaction_proof(node, block, index))
    if sent is None:
        return {}
    return _attempt(found, lambda: _told(header, root, target, receipt, sent)) or {}


def _attempt(found: Mined, make: Callable[[], _T], *, quiet: bool = False) -> _T | None:
    """What is made; None, and a line in the log, where it cannot be."""
    try:
        return make()
    except (UnprovableError, ProvenanceError) as error:
        if not quiet:
            _skip(found, str(error))
        return None


def _skip(found: Mined, reason: str) -> None:
    _log.warning(
        "no trie proof for a receipt",
        transaction=found.transaction.id,
        block=found.block.number,
        reason=reason,
    )


def _told(
    header: bytes,
    root: bytes,
    contract: bytes | None,
    receipt: TrieProof | None,
    transaction: TrieProof | None,
) -> dict[str, Json]:
    verify_anchor(header, root, contract, receipt, transaction)
    told: dict[str, Json] = {}
    if receipt is not None:
        told["receipt_proof"] = {
            "index": receipt.index,
            "receipt_rlp": "0x" + receipt.value.hex(),
            "nodes": ["0x" + each.hex() for each in receipt.nodes],
        }
    if transaction is not None:
        told["transaction_proof"] = {
            "index": transaction.index,
            "nodes": ["0x" + each.hex() for each in transaction.nodes],
        }
    return told


def prove(values: Sequence[bytes], index: int) -> tuple[bytes, TrieProof]:
    """Root of the trie of a block's receipts or transactions, and the proof of one."""
    trie: Any = HexaryTrie({})
    for at, value in enumerate(values):
        trie[encode_index(at)] = value
    path = [bytes(rlp.encode(node)) for node in trie.get_proof(encode_index(index))]
    # Nodes under 32 bytes lie inside their parents.
    nodes = tuple(node for at, node in enumerate(path) if at == 0 or len(node) >= 32)
    return bytes(trie.root_hash), TrieProof(index, values[index], nodes)


# --- receipts ----------------------------------------------------------------------------


def _receipt_proof(node: EthereumNode, block: Block, index: int) -> TrieProof:
    answers = _receipts(node, block)
    encoded = []
    for at, (answer, txid) in enumerate(zip(answers, block.transactions, strict=True)):
        fields = mapping(answer, "receipt")
        place = (
            data(fields.get("transactionHash"), "receipt.transactionHash", 32).hex(),
            data(fields.get("blockHash"), "receipt.blockHash", 32).hex(),
            quantity(fields.get("transactionIndex"), "receipt.transactionIndex"),
        )
        if place != (txid[2:], block.hash[2:], at):
            raise LyingNodeError(f"ethereum node: another receipt was sent for {txid}")
        encoded.append(encode_receipt(fields))
    root, proof = prove(encoded, index)
    _require("receiptsRoot", root, block)
    return proof


def _receipts(node: EthereumNode, block: Block) -> list[object]:
    try:
        answer = node.rpc.call("eth_getBlockReceipts", hex(block.number))
    except MethodMissingError:
        return _single_receipts(node, block)
    answers = listing(answer, "eth_getBlockReceipts")
    if len(answers) != len(block.transactions):
        raise LyingNodeError(
            f"ethereum node: {len(answers)} receipts for the {len(block.transactions)} "
            f"transactions of block {block.number}"
        )
    return answers


def _single_receipts(node: EthereumNode, block: Block) -> list[object]:
    count = len(block.transactions)
    if count > MAX_SINGLE_RECEIPTS:
        raise UnprovableError(f"no eth_getBlockReceipts, and {count} transactions to ask for")
    deadline = time.monotonic() + MAX_GATHER_S
    answers = []
    for txid in block.transactions:
        if time.monotonic() > deadline:
            raise UnprovableError(
                f"no eth_getBlockReceipts, and {count} questions take over {MAX_GATHER_S:g} s"
            )
        answers.append(node.rpc.call("eth_getTransactionReceipt", txid))
    return answers


def encode_receipt(fields: Mapping[str, object]) -> bytes:
    """A receipt as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type, or a receipt from before EIP-658.
        LyingNodeError: Malformed.
    """
    kind = _kind(fields, "receipt")
    if "status" not in fields:
        raise UnprovableError("a receipt without status, from before EIP-658")
    logs = []
    for entry in listing(fields.get("logs"), "receipt.logs"):
        log = mapping(entry, "receipt.logs")
        topics = [data(t, "log.topics", 32) for t in listing(log.get("topics"), "log.topics")]
        logs.append([data(log.get("address"), "log.address", 20), topics, _data(log, "data")])
    body = [
        _number(fields, "status"),
        _number(fields, "cumulativeGasUsed"),
        data(fields.get("logsBloom"), "receipt.logsBloom", 256),
        logs,
    ]
    return _envelope(kind, body)


# --- transactions ------------------------------------------------------------------------

_LEGACY: Final = ("nonce", "gasPrice", "gas", "to", "value", "input", "v", "r", "s")
_SIGNATURE: Final = ("yParity", "r", "s")
_FEES: Final = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value")
_FIELDS: Final[Mapping[int, tuple[str, ...]]] = {
    0: _LEGACY,
    # EIP-2930
    1: ("chainId", *_LEGACY[:6], "accessList", *_SIGNATURE),
    # EIP-1559
    2: (*_FEES, "input", "accessList", *_SIGNATURE),
    # EIP-4844, as in a block: without blobs
    3: (
        *_FEES,
        "input",
        "accessList",
        "maxFeePerBlobGas",
        "blobVersionedHashes",
        *_SIGNATURE,
    ),
    # EIP-7702
    4: (*_FEES, "input", "accessList", "authorizationList", *_SIGNATURE),
}


def _transaction_proof(node: EthereumNode, block: Block, index: int) -> TrieProof:
    answer = node.rpc.call("eth_getBlockByNumber", hex(block.number), True)
    full = mapping(answer, f"block {block.number}")
    told = listing(full.get("transactions"), f"block {block.number}.transactions")
    if len(told) != len(block.transactions):
        raise LyingNodeError(f"ethereum node: block {block.number} has other transactions now")
    encoded = []
    for entry, txid in zip(told, block.transactions, strict=True):
        raw = encode_transaction(mapping(entry, "transaction"))
        if "0x" + keccak(raw).hex() != txid:
            raise LyingNodeError(f"ethereum node: the fields of {txid} do not hash to it")
        encoded.append(raw)
    root, proof = prove(encoded, index)
    _require("transactionsRoot", root, block)
    return proof


def encode_transaction(fields: Mapping[str, object]) -> bytes:
    """A signed transaction as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type. LyingNodeError: Malformed.
    """
    kind = _kind(fields, "transaction")
    return _envelope(kind, [_field(fields, name) for name in _FIELDS[kind]])


def _field(fields: Mapping[str, object], name: str) -> object:
    value = fields.get(name)
    if name == "to":
        return b"" if value is None else data(value, "transaction.to", 20)
    if name == "input":
        return data(fields.get("input", fields.get("data")), "transaction.input")
    if name == "accessList":
        return [
            [
                data(entry.get("address"), "accessList.address", 20),
                [data(k, "storageKeys", 32) for k in listing(entry.get("storageKeys"), name)],
            ]
            for entry in (mapping(each, name) for each in listing(value, name))
        ]
    if name == "blobVersionedHashes":
        return [data(each, name, 32) for each in listing(value, name)]
    if name == "authorizationList":
        return [
            [
                _number(entry, "chainId"),
                data(entry.get("address"), "authorizationList.address", 20),
                _number(entry, "nonce"),
                *_signature(entry),
            ]
            for entry in (mapping(each, name) for each in listing(value, name))
        ]
    if name == "yParity":
        return _signature(fields)[0]
    return _number(fields, name)


def _signature(fields: Mapping[str, object]) -> list[int]:
    parity = "yParity" if "yParity" in fields else "v"
    return [_number(fields, parity), _number(fields, "r"), _number(fields, "s")]


# --- both --------------------------------------------------------------------------------


def _kind(fields: Mapping[str, object], what: str) -> int:
    kind = quantity(fields.get("type", "0x0"), f"{what}.type")
    if kind not in _FIELDS:
        raise UnprovableError(f"a {what} of type {kind}, which is not known here")
    return kind


def _envelope(kind: int, body: list[object]) -> bytes:
    return (bytes([kind]) if kind else b"") + bytes(rlp.encode(body))


def _require(name: str, root: bytes, block: Block) -> None:
    if data(block.header.get(name), name, 32) != root:
        raise LyingNodeError(
            f"ethereum node: what it tells of block {block.number} has {name} 0x{root.hex()}, "
            f"its header has {block.header.get(name)}"
        )


def _number(fields: Mapping[str, object], name: str) -> int:
    return quantity(fields.get(name), name)


def _data(fields: Mapping[str, object], name: str) -> bytes:
    return data(fields.get(name), name)
