"""A block made by hand around one anchor, and the receipt document that speaks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import rlp
from eth_abi import encode
from eth_utils import keccak

from provenance.chains.ethereum.trie import prove
from provenance.formats.receipt import AnchorProof
from provenance.proofs.ethereum import HASH_STORED, STORE_HASH, TrieProof

ROOT = bytes(range(1, 33))
PAYLOAD = b"MLP1" + ROOT
CONTRACT = b"\xcc" * 20
SENDER = b"\x5e" * 20
TIME = 1_700_000_000
NUMBER = 19_000_000
STORE = STORE_HASH + encode(["bytes32", "string"], [ROOT, ""])


def event(
    address: bytes = CONTRACT, topics: Sequence[bytes] = (), when: int = TIME
) -> list[object]:
    """A log, by default the contract's ``HashStored`` of the root."""
    told = list(topics) or [HASH_STORED, ROOT, bytes(12) + SENDER]
    return [address, told, encode(["uint64", "string"], [when, ""])]


def receipt(*logs: list[object], status: object = 1, kind: int = 2) -> bytes:
    body = bytes(rlp.encode([status, 21_000, bytes(256), list(logs)]))
    return (bytes([kind]) if kind else b"") + body


def transaction(
    calldata: bytes = STORE, to: bytes = CONTRACT, chain_id: int = 1, kind: int = 2
) -> bytes:
    fields = [chain_id, 7, 10**9, 5 * 10**9, 80_000, to, 0, calldata, [], 1, 2**255, 2**254]
    return bytes([kind]) + bytes(rlp.encode(fields))


def header(transactions_root: bytes, receipts_root: bytes, **changes: object) -> bytes:
    """As after the Prague fork; ``changes`` by position (``f8`` is the number)."""
    fields: list[object] = [
        b"\x01" * 32, b"\x02" * 32, b"\x03" * 20, b"\x04" * 32, transactions_root, receipts_root,
        bytes(256), 0, NUMBER, 30_000_000, 63_000, TIME, b"extra", b"\x06" * 32, bytes(8),
        10**9, b"\x07" * 32, 0, 0, b"\x08" * 32, b"\x09" * 32,
    ]  # fmt: skip
    for name, value in changes.items():
        fields[int(name[1:])] = value
    return bytes(rlp.encode(fields))


@dataclass
class Block:
    """``count`` transactions, ours at ``index``; the others' bytes do not matter."""

    bill: bytes = field(default_factory=lambda: receipt(event()))
    raw: bytes = field(default_factory=transaction)
    index: int = 2
    count: int = 5
    contract: bytes | None = CONTRACT
    changes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bills = [receipt(status=at % 2) for at in range(self.count)]
        raws = [transaction(bytes([at % 256]) * 40, SENDER) for at in range(self.count)]
        bills[self.index], raws[self.index] = self.bill, self.raw
        receipts_root, self.receipt = prove(bills, self.index)
        transactions_root, self.transaction = prove(raws, self.index)
        self.header = header(transactions_root, receipts_root, **self.changes)

    def anchor(self, **changes: Any) -> AnchorProof:
        fields: dict[str, Any] = {
            "network": "ethereum",
            "state": "final",
            "transaction_id": "0x" + keccak(self.raw).hex(),
            "payload": PAYLOAD,
            "height": NUMBER,
            "block_hash": "0x" + keccak(self.header).hex(),
            "depth": 12,
            "block_time": float(TIME),
            "confirmed_at": float(TIME + 200),
        }
        return AnchorProof(**{**fields, **changes})

    def evidence(self, *, bill: bool = True, sent: bool = True) -> dict[str, Any]:
        body = self.bill[1:] if self.bill[0] < 0xC0 else self.bill
        logs = rlp.decode(body)[3]
        told: dict[str, Any] = {
            "type": "ethereum",
            "chain_id": 1,
            "contract": None if self.contract is None else "0x" + self.contract.hex(),
            "transaction": {
                "id": "0x" + keccak(self.raw).hex(),
                "index": self.index,
                "raw": "0x" + self.raw.hex(),
            },
            "receipt": {
                "status": 1,
                "gas_used": 21_000,
                "logs": [
                    {
                        "address": "0x" + address.hex(),
                        "topics": ["0x" + topic.hex() for topic in topics],
                        "data": "0x" + data.hex(),
                    }
                    for address, topics, data in logs
                ],
            },
            "block": {
                "hash": "0x" + keccak(self.header).hex(),
                "number": NUMBER,
                "timestamp": TIME,
                "header": {},
                "header_rlp": "0x" + self.header.hex(),
            },
        }
        if bill:
            told["receipt_proof"] = {
                **shown(self.receipt),
                "receipt_rlp": "0x" + self.bill.hex(),
            }
        if sent:
            told["transaction_proof"] = shown(self.transaction)
        return told


def shown(proof: TrieProof) -> dict[str, Any]:
    return {"index": proof.index, "nodes": ["0x" + node.hex() for node in proof.nodes]}


def calldata_block(**changes: Any) -> Block:
    """An anchor without a contract."""
    raw = transaction(PAYLOAD, SENDER)
    return Block(**{"bill": receipt(), "raw": raw, "contract": None, **changes})


def repeated_block(**changes: Any) -> Block:
    """A store of what somebody had stored before: it succeeds and leaves no event."""
    return Block(**{"bill": receipt(), **changes})
