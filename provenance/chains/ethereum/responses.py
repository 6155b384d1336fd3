"""Answers of an Ethereum node, checked before they are believed.

A transaction is rebuilt from the fields the node names and must hash to the id that was
asked for (EIP-1559, EIP-2718), so its target, its calldata and its sender need no trust in
the node. Everything that does not fit raises LyingNodeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import rlp
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from provenance.chains.ethereum.encoding import (
    data,
    encode_transaction,
    listing,
    mapping,
    quantity,
)
from provenance.chains.ethereum.libs import Account
from provenance.errors import LyingNodeError
from provenance.formats.record import Json

_TYPE_2 = 2
_BAD_SIGNATURE = (BadSignature, ValidationError, ValueError, TypeError)
# Yellow Paper section 4.3, then EIP-1559, 4895, 4844, 4844, 4788, 7685: each fork appends.
_HEADER = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", 256),
    ("difficulty", None),
    ("number", None),
    ("gasLimit", None),
    ("gasUsed", None),
    ("timestamp", None),
    ("extraData", 0),
    ("mixHash", 32),
    ("nonce", 8),
)
_HEADER_FORKS = (
    ("baseFeePerGas", None),
    ("withdrawalsRoot", 32),
    ("blobGasUsed", None),
    ("excessBlobGas", None),
    ("parentBeaconBlockRoot", 32),
    ("requestsHash", 32),
)


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
    """An answer of ``eth_getTransactionByHash``.

    Raises:
        LyingNodeError: Malformed, another transaction, or fields that do not hash to its id.
    """
    fields = mapping(answer, "transaction")
    if _hash(fields.get("hash"), "transaction.hash") != txid:
        raise LyingNodeError(f"ethereum node: another transaction was sent for {txid}")
    sender = data(fields.get("from"), "transaction.from", 20)
    to = None if fields.get("to") is None else data(fields.get("to"), "transaction.to", 20)
    payload = data(fields.get("input", fields.get("data")), "transaction.input")
    raw, chain_id = b"", 0
    if quantity(fields.get("type"), "transaction.type") == _TYPE_2:
        chain_id = quantity(fields.get("chainId"), "transaction.chainId")
        raw = encode_transaction(fields)
        if "0x" + keccak(raw).hex() != txid:
            raise LyingNodeError(f"ethereum node: the fields of {txid} do not hash to it")
        try:
            signer = Account.recover_transaction(raw)
        except _BAD_SIGNATURE as error:
            raise LyingNodeError(
                f"ethereum node: {txid} carries no valid signature ({type(error).__name__})"
            ) from None
        if bytes.fromhex(str(signer)[2:]) != sender:
            raise LyingNodeError(f"ethereum node: {txid} was not signed by {fields.get('from')}")
    if fields.get("blockHash") is None or fields.get("blockNumber") is None:
        return Transaction(txid, chain_id, sender, to, payload, raw, None, None, None)
    return Transaction(
        txid,
        chain_id,
        sender,
        to,
        payload,
        raw,
        _hash(fields["blockHash"], "transaction.blockHash"),
        quantity(fields["blockNumber"], "transaction.blockNumber"),
        quantity(fields.get("transactionIndex"), "transaction.transactionIndex"),
    )


@dataclass(frozen=True, slots=True)
class Log:
    """One event of a receipt."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


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
    contract: bytes | None
    logs: tuple[Log, ...]


def read_receipt(answer: object, txid: str) -> Receipt:
    """An answer of ``eth_getTransactionReceipt``; its logs must name the same transaction.

    Raises:
        LyingNodeError: Malformed, or of another transaction.
    """
    fields = mapping(answer, "receipt")
    if _hash(fields.get("transactionHash"), "receipt.transactionHash") != txid:
        raise LyingNodeError(f"ethereum node: another transaction's receipt was sent for {txid}")
    block_hash = _hash(fields.get("blockHash"), "receipt.blockHash")
    status = quantity(fields.get("status"), "receipt.status")
    if status not in (0, 1):
        raise LyingNodeError(f"ethereum node: receipt.status is {status}, expected 0 or 1")
    logs = []
    for entry in listing(fields.get("logs"), "receipt.logs"):
        item = mapping(entry, "receipt.logs")
        if (
            _hash(item.get("transactionHash"), "log.transactionHash") != txid
            or _hash(item.get("blockHash"), "log.blockHash") != block_hash
            or item.get("removed")
        ):
            raise LyingNodeError(f"ethereum node: the receipt of {txid} holds a log of another")
        topics = listing(item.get("topics"), "log.topics")
        logs.append(
            Log(
                data(item.get("address"), "log.address", 20),
                tuple(data(topic, "log.topics", 32) for topic in topics),
                data(item.get("data"), "log.data"),
            )
        )
    to, contract = fields.get("to"), fields.get("contractAddress")
    return Receipt(
        id=txid,
        block_hash=block_hash,
        block_number=quantity(fields.get("blockNumber"), "receipt.blockNumber"),
        index=quantity(fields.get("transactionIndex"), "receipt.transactionIndex"),
        sender=data(fields.get("from"), "receipt.from", 20),
        to=None if to is None else data(to, "receipt.to", 20),
        status=status,
        gas_used=quantity(fields.get("gasUsed"), "receipt.gasUsed"),
        contract=None if contract is None else data(contract, "receipt.contractAddress", 20),
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
    """An answer of ``eth_getBlockByNumber`` or ``...ByHash`` without transaction bodies.

    Raises:
        LyingNodeError: Malformed.
    """
    fields = mapping(answer, what)
    base_fee = fields.get("baseFeePerGas")
    return Block(
        hash=_hash(fields.get("hash"), f"{what}.hash"),
        number=quantity(fields.get("number"), f"{what}.number"),
        timestamp=quantity(fields.get("timestamp"), f"{what}.timestamp"),
        base_fee=None if base_fee is None else quantity(base_fee, f"{what}.baseFeePerGas"),
        transactions=tuple(
            _hash(each, f"{what}.transactions")
            for each in listing(fields.get("transactions"), f"{what}.transactions")
        ),
        header={
            name: str(fields[name])
            for name, _ in _HEADER + _HEADER_FORKS
            if fields.get(name) is not None
        },
    )


def header_rlp(block: Block) -> bytes | None:
    """The block header's bytes, rebuilt; their keccak-256 is the block hash.

    None where they do not hash to it: a chain whose header has fields of its own.
    """
    parts: list[bytes | int] = []
    for position, (name, size) in enumerate(_HEADER + _HEADER_FORKS):
        value = block.header.get(name)
        if value is None:
            if position < len(_HEADER):
                return None
            break
        try:
            parts.append(quantity(value, name) if size is None else data(value, name, size))
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


def _hash(value: object, what: str) -> str:
    return "0x" + data(value, what, 32).hex()
