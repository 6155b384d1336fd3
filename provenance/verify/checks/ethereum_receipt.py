"""What an Ethereum receipt's evidence proves without a node; part of check (7).

The evidence of a receipt, ``0x`` hex where bytes are meant::

    {"type": "ethereum", "chain_id": int, "contract": address|null,
     "transaction": {"id": hash, "index": int, "raw": hex},
     "receipt": {"status": int, "gas_used": int, "logs": [...]},
     "block": {"hash": hash, "number": int, "timestamp": int, "header": {...},
               "header_rlp": hex|null},
     "receipt_proof": {"index": int, "receipt_rlp": hex, "nodes": [hex, ...]},
     "transaction_proof": {"index": int, "nodes": [hex, ...]}}

The proofs are absent from receipts of earlier releases, where the node could not give them,
and where the header's fields do not hash to the block hash. The transaction, which hashes to
its id and carries the root, is always present; that the block holds it is then not proven.
``transaction_proof`` is of ``transaction.raw``; it is present where the receipt holds no event
of this project's contract. ``gas_used`` and ``header`` are for people; nothing here reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from provenance.errors import ProofError, TooLargeError
from provenance.formats.fields import Fields, Key
from provenance.formats.receipt import AnchorProof
from provenance.formats.record import Json
from provenance.proofs.ethereum import (
    MAX_HEADER_BYTES,
    MAX_INDEX,
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_VALUE_BYTES,
    Header,
    Proven,
    TrieProof,
    commits_to,
    parse_header,
    parse_transaction,
    verify_anchor,
)

RECEIPT_PROOF: Final = "receipt_proof"
TRANSACTION_PROOF: Final = "transaction_proof"
_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_ROOT: Final = slice(4, None)
"""Of the payload: what follows its tag."""


def has_proof(evidence: Mapping[str, Json]) -> bool:
    """Whether there is a path from the block's header."""
    return RECEIPT_PROOF in evidence or TRANSACTION_PROOF in evidence


def check_ethereum(anchor: AnchorProof, evidence: Mapping[str, Json]) -> str | None:
    """Check the transaction and the proofs, and that the rest of the evidence says the same.

    Returns:
        What is only stated, where there is no trie proof, as a sentence.

    Raises:
        FormatError: A field that is missing or of another type, or bytes that do not parse.
        ProofError: A step of ``verify_anchor`` that does not hold, or a field that says
            something else than what is proven.
    """
    fields = Fields(evidence, "evidence")
    block, stated = fields.object("block"), fields.object("transaction")
    contract = None if evidence.get("contract") is None else _bytes(fields, "contract", 20)
    raw = _bytes(stated, "raw", MAX_VALUE_BYTES)
    if not has_proof(evidence):
        _check_transaction(anchor, fields, raw, contract)
        _check_stated(anchor, fields, block)
        return (
            f"that block {anchor.block_hash} of height {anchor.height} and its time hold the "
            "transaction is only stated: there is no trie proof"
        )
    receipt = sent = None
    if RECEIPT_PROOF in evidence:
        proof = fields.object(RECEIPT_PROOF)
        receipt = _trie_proof(proof, _bytes(proof, "receipt_rlp", MAX_VALUE_BYTES))
    if TRANSACTION_PROOF in evidence:
        sent = _trie_proof(fields.object(TRANSACTION_PROOF), raw)
    header = _bytes(block, "header_rlp", MAX_HEADER_BYTES)
    proven = verify_anchor(header, anchor.payload[_ROOT], contract, receipt, sent)
    _check_transaction(anchor, fields, raw, contract)
    index = receipt.index if receipt else sent.index if sent else 0
    _same(stated, "index", index)
    of_block = proven.header
    check_block(anchor, _shown(of_block.hash), of_block.timestamp, of_block.number)
    _check_header(block, of_block)
    _check_receipt(fields, proven)
    return None


def _check_transaction(
    anchor: AnchorProof, evidence: Fields, raw: bytes, contract: bytes | None
) -> None:
    transaction = parse_transaction(raw)
    txid = _shown(transaction.hash)
    if txid != anchor.transaction_id:
        raise ProofError(f"the transaction in it is {txid}, not {anchor.transaction_id}")
    _same(evidence.object("transaction"), "id", txid)
    _same(evidence, "chain_id", transaction.chain_id)
    if not commits_to(transaction, contract, anchor.payload[_ROOT]):
        raise ProofError("the transaction's calldata does not carry the root")


def _check_stated(anchor: AnchorProof, evidence: Fields, block: Fields) -> None:
    """What the evidence says of the block, where nothing proves it: all the same thing."""
    if block.raw.get("header_rlp") is not None:
        _check_header(block, parse_header(_bytes(block, "header_rlp", MAX_HEADER_BYTES)))
    check_block(anchor, block.raw.get("hash"), block.integer("timestamp"), block.raw.get("number"))
    _same(evidence.object("receipt"), "status", 1)


def check_block(anchor: AnchorProof, digest: object, timestamp: int, number: object) -> None:
    """Hold a receipt's block against the one in its evidence, whose time is its own, whatever a
    contract says of an earlier store. Raises ProofError: names what differs."""
    if anchor.block_hash is None or anchor.block_hash != digest:
        raise ProofError(f"the block in it is {digest}, not {anchor.block_hash}")
    if not isinstance(number, int) or anchor.height != number:
        raise ProofError(f"the block in it is number {number}, not {anchor.height}")
    if anchor.block_time != timestamp:
        raise ProofError(
            f"the block in it is of time {timestamp}, the receipt says {anchor.block_time}"
        )


def _check_header(block: Fields, header: Header) -> None:
    _same(block, "hash", _shown(header.hash))
    _same(block, "number", header.number)
    _same(block, "timestamp", header.timestamp)


def _check_receipt(evidence: Fields, proven: Proven) -> None:
    if proven.receipt is None:
        return
    receipt = evidence.object("receipt")
    _same(receipt, "status", proven.receipt.status)
    logs = [
        {
            "address": _shown(log.address),
            "topics": [_shown(topic) for topic in log.topics],
            "data": _shown(log.data),
        }
        for log in proven.receipt.logs
    ]
    if receipt.raw.get("logs") != logs:
        raise ProofError("evidence.receipt.logs are not those of the proven receipt")


def _trie_proof(proof: Fields, value: bytes) -> TrieProof:
    index = proof.integer("index", 0, MAX_INDEX)
    nodes = proof.raw.get("nodes")
    if isinstance(nodes, list) and len(nodes) > MAX_NODES:
        raise TooLargeError(f"evidence.{proof.path}.nodes: {len(nodes)}, at most {MAX_NODES}")
    read = proof.items("nodes", lambda items, at: _bytes(items, at, MAX_NODE_BYTES))
    return TrieProof(index, value, read)


def _same(fields: Fields, key: str, proven: int | str) -> None:
    stated = fields.raw.get(key)
    if stated != proven or isinstance(stated, bool):
        path = fields.path_of(key)
        raise ProofError(f"evidence.{path} is {str(stated)[:80]}, the proof leads to {proven}")


def _bytes(fields: Fields, key: Key, limit: int) -> bytes:
    """Bytes from ``0x`` and pairs of lower- or upper-case hex digits (addresses are mixed)."""
    value = fields.raw.get(key)
    if isinstance(value, str) and len(value) > 2 + 2 * limit:
        raise TooLargeError(f"evidence.{fields.path_of(key)}: more than {limit} bytes")
    return bytes.fromhex(fields.matching(key, _HEX, "0x and pairs of hex digits")[2:])


def _shown(data: bytes) -> str:
    return "0x" + data.hex()
