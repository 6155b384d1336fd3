"""Bitcoin evidence as a regtest node gives it, made without a node: for tests that need none."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from provenance.evidence.run_evidence import ReceiptFile, RunEvidence
from provenance.formats.receipt import Receipt
from provenance.ports.values import AnchorState
from provenance.proofs.bitcoin import CHAINS, display, double_sha256, parse_transaction

BITS = 0x207FFFFF
TIME = 1_700_000_000
GENESIS = bytes.fromhex(
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "dae5494dffff7f2002000000"
)
"""Regtest's first block (Bitcoin Core ``kernel/chainparams.cpp``)."""


def transaction(payload: bytes, inputs: int = 1, mark: int = 0) -> bytes:
    """A segwit transaction with an OP_RETURN of the payload and a change output."""
    body = bytes([inputs])
    for at in range(inputs):
        body += hashlib.sha256(bytes([mark, at])).digest() + struct.pack("<I", at)
        body += b"\0" + b"\xfd\xff\xff\xff"
    script = b"\x6a" + bytes([len(payload)]) + payload
    change = b"\x00\x14" + b"\x11" * 20
    body += b"\x02" + struct.pack("<q", 0) + bytes([len(script)]) + script
    body += struct.pack("<q", 9_999) + bytes([len(change)]) + change
    witness = (b"\x02\x47" + b"\x30" * 71 + b"\x21" + b"\x02" * 33) * inputs
    return b"\2\0\0\0\0\1" + body + witness + struct.pack("<I", 100)


def mined(merkle_root: bytes, previous: bytes = bytes(32), time: int = TIME) -> bytes:
    """A header with regtest's work done."""
    nonce = 0
    while True:
        raw = struct.pack("<I32s32sIII", 4, previous, merkle_root, time, BITS, nonce)
        if int.from_bytes(double_sha256(raw), "little") <= CHAINS["regtest"].limit:
            return raw
        nonce += 1


def merkle_block(txids: Sequence[bytes], index: int) -> tuple[bytes, bytes]:
    """Header and ``merkleblock`` message (BIP 37) that prove one of the transactions."""
    levels = [list(txids)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = [(below[i], below[min(i + 1, len(below) - 1)]) for i in range(0, len(below), 2)]
        levels.append([double_sha256(left + right) for left, right in pairs])
    flags: list[bool] = []
    hashes: list[bytes] = []

    def walk(height: int, at: int) -> None:
        parent = index >> height == at
        flags.append(parent)
        if height == 0 or not parent:
            hashes.append(levels[height][at])
            return
        walk(height - 1, 2 * at)
        if 2 * at + 1 < len(levels[height - 1]):
            walk(height - 1, 2 * at + 1)

    walk(len(levels) - 1, 0)
    header = mined(levels[-1][0])
    packed = bytearray((len(flags) + 7) // 8)
    for at, flag in enumerate(flags):
        packed[at // 8] |= flag << at % 8
    message = header + struct.pack("<I", len(txids)) + bytes([len(hashes)]) + b"".join(hashes)
    return header, message + bytes([len(packed)]) + bytes(packed)


@dataclass(frozen=True)
class Block:
    """A block with one transaction that anchors ``payload``."""

    payload: bytes
    height: int
    total: int = 5
    inputs: int = 1

    def bitcoin(self, receipt: Receipt, final: bool = True) -> Receipt:
        """The receipt as Bitcoin's."""
        raw = transaction(self.payload, self.inputs)
        txid = parse_transaction(raw).txid
        mark = self.height.to_bytes(8, "big")
        others = [hashlib.sha256(mark + bytes([i % 256, i // 256])) for i in range(self.total - 1)]
        at = self.total // 2
        txids = [other.digest() for other in others]
        txids.insert(at, txid)
        header, message = merkle_block(txids, at)
        block_hash = display(double_sha256(header))
        return replace(
            receipt,
            anchor=replace(
                receipt.anchor,
                network="bitcoin",
                state="final" if final else "confirmed",
                transaction_id=display(txid),
                height=self.height,
                block_hash=block_hash,
                block_time=float(TIME),
            ),
            evidence={
                "type": "bitcoin",
                "chain": "regtest",
                "transaction_id": display(txid),
                "transaction": raw.hex(),
                "merkle_block": message.hex(),
                "header": header.hex(),
                "block_hash": block_hash,
                "height": self.height,
                "headers": [],
            },
        )


def with_bitcoin(
    evidence: RunEvidence, *, final: bool = True, total: int = 5, inputs: int = 1
) -> RunEvidence:
    """The evidence, with what its network ``bitcoin`` gave made Bitcoin's."""
    receipts = []
    for file in evidence.receipts:
        receipt = Receipt.decode(file.data)
        if receipt.anchor.network == "bitcoin":
            block = Block(receipt.anchor.payload, 1000 + receipt.ledger.size, total, inputs)
            receipt = block.bitcoin(receipt, final)
        receipts.append(ReceiptFile(file.name, receipt.encode()))
    told = {r.ledger.size: r for r in map(_decode, receipts) if r.anchor.network == "bitcoin"}
    anchors = []
    for anchor in evidence.anchors:
        if anchor.network == "bitcoin" and anchor.size in told:
            seen = told[anchor.size].anchor
            state = AnchorState.FINAL if final else AnchorState.CONFIRMED
            anchor = replace(
                anchor, state=state, transaction_id=seen.transaction_id, height=seen.height
            )
        anchors.append(anchor)
    return replace(evidence, receipts=tuple(receipts), anchors=tuple(anchors))


def _decode(file: ReceiptFile) -> Receipt:
    return Receipt.decode(file.data)
