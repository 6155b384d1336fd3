"""Merkle-Patricia proofs for receipts, from a node's answers for a whole block.

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
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import rlp
from eth_utils.crypto import keccak
from trie.hexary import HexaryTrie

from provenance.chains.ethereum.encoding import (
    Answer,
    UnprovableError,
    answered,
    data,
    encode_receipt,
    encode_transaction,
)
from provenance.chains.ethereum.errors import MethodMissingError
from provenance.chains.ethereum.node import EthereumNode, Mined
from provenance.chains.ethereum.responses import Block, header_rlp
from provenance.errors import LyingNodeError, ProvenanceError
from provenance.formats.record import Json
from provenance.log import get_logger
from provenance.proofs.ethereum import TrieProof, verify_anchor
from provenance.proofs.rlp import encode_index

MAX_BLOCK_RECEIPTS: Final = 5_000
"""Transactions of a block that is taken up; 2,857 fill one of 60 million gas. A trie of 1,500
takes half a second."""
MAX_SINGLE_RECEIPTS: Final = 1_000
"""The same where the node must be asked for each receipt by itself."""
MAX_ASKING_S: Final = 20.0
"""Longest time that single questions may take together: a third of the default lease."""

_log = get_logger("provenance.ethereum")
_T = TypeVar("_T")


def proofs(node: EthereumNode, mined: Mined, contract: str | None, root: bytes) -> dict[str, Json]:
    """``receipt_proof`` and ``transaction_proof`` of an anchor's evidence; each as far as it
    could be made, and both together verified before they are given out.

    The transaction is proven where the receipt holds no event of ours: an anchor without a
    contract, or a root that somebody had stored before.

    Args:
        contract: Its address; None where the root is calldata. root: The ledger root.
    """
    block, index = mined.block, mined.receipt.index
    header = header_rlp(block)
    if header is None:
        return {}  # the evidence says so in a note
    if len(block.transactions) > MAX_BLOCK_RECEIPTS:
        _skip(mined, f"block of {len(block.transactions)} transactions")
        return {}
    receipt = _attempt(mined, lambda: _receipt_proof(node, block, index))
    target = None if contract is None else bytes.fromhex(contract[2:])
    if receipt is not None and target is not None:
        only = _attempt(mined, lambda: _document(header, root, target, receipt, None), quiet=True)
        if only is not None:
            return only
    sent = _attempt(mined, lambda: _transaction_proof(node, block, index))
    if sent is None:
        return {}
    return _attempt(mined, lambda: _document(header, root, target, receipt, sent)) or {}


def _attempt(mined: Mined, make: Callable[[], _T], *, quiet: bool = False) -> _T | None:
    """What is made; None, and a line in the log, where it cannot be."""
    try:
        return make()
    except (UnprovableError, ProvenanceError) as error:
        if not quiet:
            _skip(mined, str(error))
        return None


def _skip(mined: Mined, reason: str) -> None:
    _log.warning(
        "no trie proof for a receipt",
        transaction=mined.transaction.id,
        block=mined.block.number,
        reason=reason,
    )


def _document(
    header: bytes,
    root: bytes,
    contract: bytes | None,
    receipt: TrieProof | None,
    transaction: TrieProof | None,
) -> dict[str, Json]:
    verify_anchor(header, root, contract, receipt, transaction)
    document: dict[str, Json] = {}
    if receipt is not None:
        document["receipt_proof"] = {
            "index": receipt.index,
            "receipt_rlp": "0x" + receipt.value.hex(),
            "nodes": ["0x" + node.hex() for node in receipt.nodes],
        }
    if transaction is not None:
        document["transaction_proof"] = {
            "index": transaction.index,
            "nodes": ["0x" + node.hex() for node in transaction.nodes],
        }
    return document


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
    for at, (receipt, txid) in enumerate(zip(answers, block.transactions, strict=True)):
        place = (receipt.hash("transactionHash"), receipt.hash("blockHash"))
        if (*place, receipt.quantity("transactionIndex")) != (txid, block.hash, at):
            raise LyingNodeError(f"ethereum node: another receipt was sent for {txid}")
        encoded.append(encode_receipt(receipt.raw))
    root, proof = prove(encoded, index)
    _require("receiptsRoot", root, block)
    return proof


def _receipts(node: EthereumNode, block: Block) -> Sequence[Answer]:
    try:
        answer = node.rpc.call("eth_getBlockReceipts", hex(block.number))
    except MethodMissingError:
        return _single_receipts(node, block)
    answers = answered(answer, "receipts").objects("receipts")
    if len(answers) != len(block.transactions):
        raise LyingNodeError(
            f"ethereum node: {len(answers)} receipts for the {len(block.transactions)} "
            f"transactions of block {block.number}"
        )
    return answers


def _single_receipts(node: EthereumNode, block: Block) -> Sequence[Answer]:
    count = len(block.transactions)
    if count > MAX_SINGLE_RECEIPTS:
        raise UnprovableError(f"no eth_getBlockReceipts, and {count} transactions to ask for")
    deadline = time.monotonic() + MAX_ASKING_S
    answers = []
    for txid in block.transactions:
        if time.monotonic() > deadline:
            raise UnprovableError(
                f"no eth_getBlockReceipts, and {count} questions take over {MAX_ASKING_S:g} s"
            )
        answer = node.rpc.call("eth_getTransactionReceipt", txid)
        answers.append(answered(answer, "receipt").object("receipt"))
    return answers


# --- transactions ------------------------------------------------------------------------


def _transaction_proof(node: EthereumNode, block: Block, index: int) -> TrieProof:
    answer = node.rpc.call("eth_getBlockByNumber", hex(block.number), True)
    entries = answered(answer, "block").object("block").objects("transactions")
    if len(entries) != len(block.transactions):
        raise LyingNodeError(f"ethereum node: block {block.number} has other transactions now")
    encoded = []
    for entry, txid in zip(entries, block.transactions, strict=True):
        raw = encode_transaction(entry.raw)
        if "0x" + keccak(raw).hex() != txid:
            raise LyingNodeError(f"ethereum node: the fields of {txid} do not hash to it")
        encoded.append(raw)
    root, proof = prove(encoded, index)
    _require("transactionsRoot", root, block)
    return proof


def _require(name: str, root: bytes, block: Block) -> None:
    if data(block.header.get(name), name, 32) != root:
        raise LyingNodeError(
            f"ethereum node: what it tells of block {block.number} has {name} 0x{root.hex()}, "
            f"its header has {block.header.get(name)}"
        )
