"""Answers of an Ethereum node, checked before they are believed.

A transaction is rebuilt from the fields the node names and must hash to the id that was
asked for (EIP-1559, EIP-2718), so its target, its calldata and its sender need no trust in
the node. Everything that does not fit raises LyingNodeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

import rlp
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from provenance.chains.ethereum.encoding import answered, encode_transaction
from provenance.chains.ethereum.libs import Account
from provenance.errors import LyingNodeError
from provenance.formats.record import Json
from provenance.proofs.ethereum import Log

_TYPE_2 = 2
_BAD_SIGNATURE = (BadSignature, ValidationError, ValueError, TypeError)
# Yellow Paper section 4.3, then EIP-1559, 4895, 4844, 4844, 4788, 7685: each fork appends.
_HEADER = (
    ("parentHash", 32), ("sha3Uncles", 32), ("miner", 20), ("stateRoot", 32),
    ("transactionsRoot", 32), ("receiptsRoot", 32), ("logsBloom", 256), ("difficulty", None),
    ("number", None), ("gasLimit", None), ("gasUsed", None), ("timestamp", None),
    ("extraData", 0), ("mixHash", 32), ("nonce", 8),
)  # fmt: skip
_HEADER_FORKS = (
    ("baseFeePerGas", None), ("withdrawalsRoot", 32), ("blobGasUsed", None),
    ("excessBlobGas", None), ("parentBeaconBlockRoot", 32), ("requestsHash", 32),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction whose fields hash to its id. ``raw`` is empty for types other than 2,
    which are not ours and not proven. Block fields are None while it waits in the pool."""

    id: str
    chain_id: int
    sender: bytes
    to: bytes | None
    input: bytes
    raw: bytes
    block_hash: str | None
    block_number: int | None
    index: int | None


def read_transaction(answer: object, txid: str) -> Transaction:
    """An answer of ``eth_getTransactionByHash``. Raises LyingNodeError: malformed, another
    transaction, or fields that do not hash to its id."""
    tx = answered(answer, "transaction").object("transaction")
    if tx.hash("hash") != txid:
        raise LyingNodeError(f"ethereum node: another transaction was sent for {txid}")
    sender, to, payload = tx.data("from", 20), tx.address("to"), tx.input()
    raw, chain_id = b"", 0
    if tx.quantity("type") == _TYPE_2:
        raw, chain_id = encode_transaction(tx.raw), tx.quantity("chainId")
        if "0x" + keccak(raw).hex() != txid:
            raise LyingNodeError(f"ethereum node: the fields of {txid} do not hash to it")
        try:
            signer = Account.recover_transaction(raw)
        except _BAD_SIGNATURE as error:
            problem = f"{txid} carries no valid signature ({type(error).__name__})"
            raise LyingNodeError(f"ethereum node: {problem}") from None
        if bytes.fromhex(str(signer)[2:]) != sender:
            raise LyingNodeError(f"ethereum node: {txid} was not signed by {tx.raw.get('from')}")
    block_hash = number = index = None
    if tx.raw.get("blockHash") is not None and tx.raw.get("blockNumber") is not None:
        block_hash = tx.hash("blockHash")
        number, index = tx.quantity("blockNumber"), tx.quantity("transactionIndex")
    return Transaction(txid, chain_id, sender, to, payload, raw, block_hash, number, index)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction. ``contract`` is set where it created one."""

    id: str
    block_hash: str
    block_number: int
    index: int
    sender: bytes
    to: bytes | None
    status: int
    gas_used: int
    gas_price: int | None
    """In wei, what was paid; None where the node does not say."""
    contract: bytes | None
    logs: tuple[Log, ...]


def read_receipt(answer: object, txid: str) -> Receipt:
    """An answer of ``eth_getTransactionReceipt``; its logs must name the same transaction. Raises
    LyingNodeError: malformed, or of another transaction."""
    receipt = answered(answer, "receipt").object("receipt")
    if receipt.hash("transactionHash") != txid:
        raise LyingNodeError(f"ethereum node: another transaction's receipt was sent for {txid}")
    block_hash, status = receipt.hash("blockHash"), receipt.quantity("status")
    if status not in (0, 1):
        raise LyingNodeError(f"ethereum node: receipt.status is {status}, expected 0 or 1")
    logs = []
    for log in receipt.objects("logs"):
        at = (log.hash("transactionHash"), log.hash("blockHash"))
        if at != (txid, block_hash) or log.raw.get("removed"):
            raise LyingNodeError(f"ethereum node: the receipt of {txid} holds a log of another")
        topics = tuple(log.all_data("topics", 32))
        logs.append(Log(log.data("address", 20), topics, log.data("data")))
    return Receipt(
        id=txid,
        block_hash=block_hash,
        block_number=receipt.quantity("blockNumber"),
        index=receipt.quantity("transactionIndex"),
        sender=receipt.data("from", 20),
        to=receipt.address("to"),
        status=status,
        gas_used=receipt.quantity("gasUsed"),
        gas_price=receipt.optional("effectiveGasPrice", receipt.quantity),
        contract=receipt.address("contractAddress"),
        logs=tuple(logs),
    )


@dataclass(frozen=True, slots=True)
class Block:
    """A block with the ids of its transactions; ``header`` is as the node wrote it."""

    hash: str
    number: int
    timestamp: int
    base_fee: int | None
    transactions: tuple[str, ...]
    header: Mapping[str, Json]


def read_block(answer: object, what: str) -> Block:
    """An answer of ``eth_getBlockByNumber`` or ``...ByHash`` without transaction bodies. Raises
    LyingNodeError: malformed."""
    block = answered(answer, what).object(what)
    named = [(name, block.raw.get(name)) for name, _ in _HEADER + _HEADER_FORKS]
    unpriced = block.raw.get("baseFeePerGas") is None
    return Block(
        hash=block.hash("hash"),
        number=block.quantity("number"),
        timestamp=block.quantity("timestamp"),
        base_fee=None if unpriced else block.quantity("baseFeePerGas"),
        transactions=tuple("0x" + txid.hex() for txid in block.all_data("transactions", 32)),
        header={name: str(value) for name, value in named if value is not None},
    )


def header_rlp(block: Block) -> bytes | None:
    """The block header's bytes, rebuilt; their keccak-256 is the block hash.

    None where they do not hash to it: a chain whose header has fields of its own.
    """
    header = answered(block.header, "header").object("header")
    known = list(takewhile(lambda field: field[0] in block.header, _HEADER + _HEADER_FORKS))
    if len(known) < len(_HEADER):
        return None
    try:
        parts = [header.quantity(n) if size is None else header.data(n, size) for n, size in known]
    except LyingNodeError:
        return None
    encoded = bytes(rlp.encode(parts))
    return encoded if "0x" + keccak(encoded).hex() == block.hash else None


def evidence(receipt: Receipt, block: Block) -> dict[str, Json]:
    """The ``receipt`` and ``block`` of a receipt document; bytes as ``0x`` hex."""
    header = header_rlp(block)
    header_document: dict[str, Json] = {
        "hash": block.hash,
        "number": block.number,
        "timestamp": block.timestamp,
        "header": dict(block.header),
        "header_rlp": None if header is None else "0x" + header.hex(),
    }
    if header is None:
        header_document["note"] = "this chain's header fields do not hash to the block hash"
    logs: list[Json] = [
        {
            "address": "0x" + log.address.hex(),
            "topics": ["0x" + topic.hex() for topic in log.topics],
            "data": "0x" + log.data.hex(),
        }
        for log in receipt.logs
    ]
    return {
        "receipt": {"status": receipt.status, "gas_used": receipt.gas_used, "logs": logs},
        "block": header_document,
    }
