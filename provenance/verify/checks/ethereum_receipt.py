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
its id and carries the root, is there always; that the block holds it is then not proven.
``transaction_proof`` is of ``transaction.raw``, and there where the receipt holds no event
of ours. ``gas_used`` and ``header`` are for people; nothing here reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from provenance.errors import FormatError, ProofError, TooLargeError
from provenance.formats.receipt import AnchorProof
from provenance.formats.record import Json
from provenance.proofs.ethereum import (
    MAX_HEADER_BYTES,
    MAX_INDEX,
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_VALUE_BYTES,
    Proven,
    TrieProof,
    commits_to,
    parse_header,
    parse_transaction,
    verify_anchor,
)

RECEIPT_PROOF: Final = "receipt_proof"
TRANSACTION_PROOF: Final = "transaction_proof"
_ROOT: Final = slice(4, None)
"""Of the payload: what follows its tag."""


def has_proof(evidence: Mapping[str, Json]) -> bool:
    """Whether there is a path from the block's header."""
    return RECEIPT_PROOF in evidence or TRANSACTION_PROOF in evidence


def check_ethereum(anchor: AnchorProof, evidence: Mapping[str, Json]) -> str | None:
    """Check the transaction and the proofs, and that the rest of the evidence says the same.

    Returns:
        What is not proven for want of a proof, as a sentence.

    Raises:
        FormatError: A field that is missing or of another type, or bytes that do not parse.
        ProofError: A step of ``verify_anchor`` that does not hold, or a field that says
            something else than what is proven.
    """
    block, told = _object(evidence, "block"), _object(evidence, "transaction")
    contract = evidence.get("contract")
    address = None if contract is None else _data(contract, "contract", 20)
    raw = _data(told.get("raw"), "transaction.raw", MAX_VALUE_BYTES)
    if not has_proof(evidence):
        _check_transaction(anchor, evidence, raw, address)
        _check_stated(anchor, evidence, block, contract is not None)
        return (
            f"that block {anchor.block_hash} of height {anchor.height} and its time hold the "
            "transaction is only stated: there is no trie proof"
        )
    receipt = sent = None
    if RECEIPT_PROOF in evidence:
        proof = _object(evidence, RECEIPT_PROOF)
        receipt = _trie_proof(
            proof,
            RECEIPT_PROOF,
            _data(proof.get("receipt_rlp"), f"{RECEIPT_PROOF}.receipt_rlp", MAX_VALUE_BYTES),
        )
    if TRANSACTION_PROOF in evidence:
        sent = _trie_proof(_object(evidence, TRANSACTION_PROOF), TRANSACTION_PROOF, raw)
    proven = verify_anchor(
        _data(block.get("header_rlp"), "block.header_rlp", MAX_HEADER_BYTES),
        anchor.payload[_ROOT],
        address,
        receipt,
        sent,
    )
    _check_transaction(anchor, evidence, raw, address)
    index = (receipt or sent or _NOTHING).index
    _same("transaction.index", told.get("index"), index)
    # Somebody may have stored the root before us; the time is then that of the first store.
    first_elsewhere = contract is not None and not proven.event
    _check_block(anchor, block, proven, first_elsewhere)
    _check_receipt(evidence, proven)
    return None


def unproven_time(anchor: AnchorProof, evidence: Mapping[str, Json]) -> str | None:
    """Where the time of a receipt that holds is not that of its own block: both."""
    block_time = _object(evidence, "block").get("timestamp")
    if anchor.block_time == block_time:
        return None
    return (
        f"its time {anchor.block_time} is that of an earlier store of the root, which only a node "
        f"can show; its own block is of {block_time}"
    )


def _check_transaction(
    anchor: AnchorProof, evidence: Mapping[str, Json], raw: bytes, contract: bytes | None
) -> None:
    transaction = parse_transaction(raw)
    txid = _shown(transaction.hash)
    if txid != anchor.transaction_id:
        raise ProofError(f"the transaction in it is {txid}, not {anchor.transaction_id}")
    _same("transaction.id", _object(evidence, "transaction").get("id"), txid)
    _same("chain_id", evidence.get("chain_id"), transaction.chain_id)
    if not commits_to(transaction, contract, anchor.payload[_ROOT]):
        raise ProofError("the transaction's calldata does not carry the root")


def _check_stated(
    anchor: AnchorProof, evidence: Mapping[str, Json], block: Mapping[str, Json], contract: bool
) -> None:
    """What the evidence says of the block, where nothing proves it: all the same thing."""
    number, timestamp = block.get("number"), block.get("timestamp")
    raw = block.get("header_rlp")
    if raw is not None:
        header = parse_header(_data(raw, "block.header_rlp", MAX_HEADER_BYTES))
        _same("block.hash", block.get("hash"), _shown(header.hash))
        _same("block.number", number, header.number)
        _same("block.timestamp", timestamp, header.timestamp)
    if anchor.block_hash is None or anchor.block_hash != block.get("hash"):
        raise ProofError(f"the block in it is {block.get('hash')}, not {anchor.block_hash}")
    if not isinstance(number, int) or anchor.height != number:
        raise ProofError(f"the block in it is number {number}, not {anchor.height}")
    _check_time(anchor, timestamp, contract)
    _same("receipt.status", _object(evidence, "receipt").get("status"), 1)


def _check_block(
    anchor: AnchorProof, block: Mapping[str, Json], proven: Proven, first_elsewhere: bool
) -> None:
    header = proven.header
    if anchor.block_hash != _shown(header.hash):
        raise ProofError(f"the block in it is {_shown(header.hash)}, not {anchor.block_hash}")
    _same("block.hash", block.get("hash"), _shown(header.hash))
    _same("block.number", block.get("number"), header.number)
    _same("block.timestamp", block.get("timestamp"), header.timestamp)
    if anchor.height != header.number:
        raise ProofError(f"the block in it is number {header.number}, not {anchor.height}")
    _check_time(anchor, header.timestamp, first_elsewhere)


def _check_time(anchor: AnchorProof, timestamp: Json, first_elsewhere: bool) -> None:
    when = anchor.block_time
    if not isinstance(timestamp, int) or isinstance(timestamp, bool):
        raise FormatError("evidence.block.timestamp is no integer")
    if when is None or when > timestamp or (when < timestamp and not first_elsewhere):
        raise ProofError(f"the block in it is of time {timestamp}, the receipt says {when}")


def _check_receipt(evidence: Mapping[str, Json], proven: Proven) -> None:
    if proven.receipt is None:
        return
    told = _object(evidence, "receipt")
    _same("receipt.status", told.get("status"), proven.receipt.status)
    logs = [
        {
            "address": _shown(log.address),
            "topics": [_shown(topic) for topic in log.topics],
            "data": _shown(log.data),
        }
        for log in proven.receipt.logs
    ]
    if told.get("logs") != logs:
        raise ProofError("evidence.receipt.logs are not those of the proven receipt")


_NOTHING: Final = TrieProof(0, b"", ())


def _trie_proof(proof: Mapping[str, Json], name: str, value: bytes) -> TrieProof:
    index, nodes = proof.get("index"), proof.get("nodes")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= MAX_INDEX:
        raise FormatError(f"evidence.{name}.index is no integer from 0 to {MAX_INDEX}")
    if not isinstance(nodes, list):
        raise FormatError(f"evidence.{name}.nodes is no list")
    if len(nodes) > MAX_NODES:
        raise TooLargeError(f"evidence.{name}.nodes: {len(nodes)}, at most {MAX_NODES}")
    return TrieProof(
        index,
        value,
        tuple(_data(each, f"{name}.nodes[{at}]", MAX_NODE_BYTES) for at, each in enumerate(nodes)),
    )


def _same(name: str, stated: Json, proven: int | str) -> None:
    if stated != proven or isinstance(stated, bool):
        raise ProofError(f"evidence.{name} is {str(stated)[:80]}, the proof leads to {proven}")


def _object(evidence: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = evidence.get(name)
    if not isinstance(value, dict):
        raise FormatError(f"evidence.{name} is no object")
    return value


def _data(value: Json, name: str, limit: int) -> bytes:
    """Bytes from ``0x`` and pairs of lower- or upper-case hex digits (addresses are mixed)."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise FormatError(f"evidence.{name} is no 0x hex")
    if len(value) > 2 + 2 * limit:
        raise TooLargeError(f"evidence.{name}: more than {limit} bytes")
    try:
        data = bytes.fromhex(value[2:])
    except ValueError:
        raise FormatError(f"evidence.{name} is no 0x hex") from None
    if len(value) != 2 + 2 * len(data):  # fromhex skips spaces
        raise FormatError(f"evidence.{name} is no 0x hex")
    return data


def _shown(data: bytes) -> str:
    return "0x" + data.hex()
