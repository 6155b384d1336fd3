"""Chains on paper: blocks that hold one anchor, made from nothing, the same bytes every time.

Their evidence is what the real networks give, to the byte: a regtest block with its proof of
work, an Ethereum block with its tries, a raw IPFS block. What is on no real chain is only
that nobody mined them. For golden files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import rlp
from eth_account import Account
from eth_utils.crypto import keccak

from provenance.chains.ethereum.contract import HASH_STORED, store_call
from provenance.chains.ethereum.responses import header_rlp, read_block
from provenance.chains.ethereum.trie import prove
from provenance.formats.record import Json
from provenance.ports.values import Draft, Identity, Observation, Place, SignedVersion
from provenance.proofs.beacon import Beacon
from provenance.proofs.bitcoin import display, double_sha256, verify_anchor
from provenance.proofs.ethereum import verify_anchor as verify_ethereum
from provenance.proofs.ipfs.cid import raw_cid

TIME = 1_760_000_600
REGTEST_BITS = 0x207FFFFF
DEPTH = 6
CONTRACT = bytes.fromhex("5f" * 20)
ETHEREUM_KEY = "0x" + "45" * 32
CHAIN_ID = 31337


@dataclass
class PaperChain:
    """One block for each anchor, at once and for good."""

    name: str = ""
    confirmations: int = DEPTH
    uses_nonce: bool = False

    heights: dict[str, int] = field(default_factory=dict)

    def newest_block(self) -> Beacon | None:
        """No seed is drawn here."""
        return None

    def depth_of(self, block: Beacon) -> int:
        """It has no blocks but those of anchors."""
        return 0

    def identity(self) -> Identity:
        return Identity(self.name, {"chain_id": CHAIN_ID}, None, None, None)

    def next_nonce(self) -> int:
        return 0

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        return Draft(self.name, payload, {})

    def broadcast(self, version: SignedVersion) -> None:
        self.heights.setdefault(version.transaction_id, 101 + len(self.heights))

    def observe(self, version: SignedVersion) -> Observation:
        raise NotImplementedError

    def lookup(self, transaction_id: str) -> Observation:
        return Observation(Place.UNKNOWN)

    def close(self) -> None: ...


# --- Bitcoin -----------------------------------------------------------------------------


def block_header(previous: bytes, root: bytes, time: int) -> bytes:
    nonce = 0
    while True:
        raw = struct.pack("<I32s32sIII", 0x20000000, previous, root, time, REGTEST_BITS, nonce)
        if double_sha256(raw)[31] < 0x7F:
            return raw
        nonce += 1


def partial_tree(ids: list[bytes], wanted: int) -> tuple[bytes, bytes]:
    """BIP 37: the Merkle root, and the message behind the header that proves one leaf."""
    levels = [ids]
    while len(levels[-1]) > 1:
        row = levels[-1] + levels[-1][-1:] * (len(levels[-1]) % 2)
        levels.append([double_sha256(a + b) for a, b in zip(row[::2], row[1::2], strict=True)])
    bits: list[int] = []
    hashes: list[bytes] = []

    def walk(height: int, index: int) -> None:
        hit = wanted >> height == index
        bits.append(int(hit))
        if height == 0 or not hit:
            hashes.append(levels[height][index])
            return
        walk(height - 1, 2 * index)
        if 2 * index + 1 < len(levels[height - 1]):
            walk(height - 1, 2 * index + 1)

    walk(len(levels) - 1, 0)
    flags = bytearray((len(bits) + 7) // 8)
    for at, bit in enumerate(bits):
        flags[at // 8] |= bit << at % 8
    message = struct.pack("<IB", len(ids), len(hashes)) + b"".join(hashes)
    return levels[-1][0], message + bytes([len(flags)]) + bytes(flags)


class PaperBitcoin(PaperChain):
    """A regtest block of five transactions, ours the fourth, and five headers on top."""

    def __init__(self) -> None:
        super().__init__("bitcoin")

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        script = b"\x6a\x24" + draft.payload
        change = b"\x00\x14" + b"\x22" * 20
        outputs = (
            b"\x02"
            + struct.pack("<q", 0) + bytes([len(script)]) + script
            + struct.pack("<q", 99_990_000) + bytes([len(change)]) + change
        )  # fmt: skip
        body = b"\x01" + b"\x11" * 32 + bytes(4) + b"\x00" + b"\xfd\xff\xff\xff" + outputs
        witness = b"\x02" + bytes([71]) + b"\x30" * 71 + bytes([33]) + b"\x02" * 33
        raw = struct.pack("<I", 2) + b"\x00\x01" + body + witness + bytes(4)
        txid = display(double_sha256(struct.pack("<I", 2) + body + bytes(4)))
        return SignedVersion("bitcoin", draft.payload, txid, raw, key="paper")

    def observe(self, version: SignedVersion) -> Observation:
        block = self._block(version)
        return Observation(
            Place.MINED,
            version.payload[4:],
            display(double_sha256(block["header"])),
            self.heights[version.transaction_id],
            DEPTH,
            final=True,
            block_time=float(TIME + self.heights[version.transaction_id]),
        )

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        block = self._block(version)
        verify_anchor(
            version.raw, block["merkle_block"], block["header"], version.payload, "regtest"
        )
        return {
            "type": "bitcoin",
            "chain": "regtest",
            "transaction_id": version.transaction_id,
            "transaction": version.raw.hex(),
            "merkle_block": block["merkle_block"].hex(),
            "header": block["header"].hex(),
            "block_hash": seen.block_hash,
            "height": seen.height,
            "headers": [each.hex() for each in block["above"]],
        }

    def _block(self, version: SignedVersion) -> dict[str, Any]:
        height = self.heights[version.transaction_id]
        txid = bytes.fromhex(version.transaction_id)[::-1]
        ids = [double_sha256(f"other {height} {at}".encode()) for at in range(4)]
        root, tree = partial_tree([*ids[:3], txid, ids[3]], 3)
        header = block_header(double_sha256(b"below %d" % height), root, TIME + height)
        above = [header]
        for at in range(1, DEPTH):
            previous = double_sha256(above[-1])
            above.append(block_header(previous, double_sha256(previous), TIME + height + at))
        return {"header": header, "merkle_block": header + tree, "above": above[1:]}


# --- Ethereum ----------------------------------------------------------------------------


class PaperEthereum(PaperChain):
    """A block of three transactions, ours the second, that stores the root in a contract."""

    def __init__(self) -> None:
        super().__init__("ethereum")
        self.signer = Account.from_key(ETHEREUM_KEY)

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        fields = {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": len(self.heights),
            "maxPriorityFeePerGas": 10**9,
            "maxFeePerGas": 2 * 10**9,
            "gas": 120_000,
            "to": CONTRACT,
            "value": 0,
            "data": store_call(draft.payload[4:], ""),
            "accessList": [],
        }
        raw = bytes(self.signer.sign_transaction(fields).raw_transaction)
        return SignedVersion(
            "ethereum",
            draft.payload,
            "0x" + keccak(raw).hex(),
            raw,
            key=self.signer.address,
            detail={"chain_id": CHAIN_ID, "contract": "0x" + CONTRACT.hex()},
        )

    def observe(self, version: SignedVersion) -> Observation:
        block = self._block(version)
        return Observation(
            Place.MINED,
            version.payload[4:],
            block["hash"],
            block["number"],
            DEPTH,
            final=True,
            block_time=float(block["timestamp"]),
        )

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        block = self._block(version)
        proof = block["proof"]
        verify_ethereum(block["header"], version.payload[4:], CONTRACT, proof, None)
        return {
            "type": "ethereum",
            **version.detail,
            "transaction": {
                "id": version.transaction_id,
                "index": proof.index,
                "raw": "0x" + version.raw.hex(),
            },
            "receipt": {"status": 1, "gas_used": 45_511, "logs": block["logs"]},
            "block": {
                "hash": block["hash"],
                "number": block["number"],
                "timestamp": block["timestamp"],
                "header": block["fields"],
                "header_rlp": "0x" + block["header"].hex(),
            },
            "receipt_proof": {
                "index": proof.index,
                "receipt_rlp": "0x" + proof.value.hex(),
                "nodes": ["0x" + node.hex() for node in proof.nodes],
            },
        }

    def _block(self, version: SignedVersion) -> dict[str, Any]:
        number = self.heights[version.transaction_id]
        time = TIME + 12 * number
        sender = bytes.fromhex(self.signer.address[2:])
        topics = [HASH_STORED, version.payload[4:], bytes(12) + sender]
        told = time.to_bytes(32, "big") + (64).to_bytes(32, "big") + bytes(32)
        ours = [b"\x01", 66_511, bytes(256), [[CONTRACT, topics, told]]]
        receipts = [
            rlp.encode([b"\x01", 21_000, bytes(256), []]),
            b"\x02" + rlp.encode(ours),
            b"\x02" + rlp.encode([b"", 90_000, bytes(256), []]),
        ]
        root, proof = prove([bytes(each) for each in receipts], 1)
        fields = {
            "parentHash": "0x" + keccak(b"below %d" % number).hex(),
            "sha3Uncles": "0x" + keccak(rlp.encode([])).hex(),
            "miner": "0x" + "00" * 20,
            "stateRoot": "0x" + keccak(b"state %d" % number).hex(),
            "transactionsRoot": "0x" + keccak(b"transactions %d" % number).hex(),
            "receiptsRoot": "0x" + root.hex(),
            "logsBloom": "0x" + "00" * 256,
            "difficulty": "0x0",
            "number": hex(number),
            "gasLimit": hex(30_000_000),
            "gasUsed": hex(90_000),
            "timestamp": hex(time),
            "extraData": "0x",
            "mixHash": "0x" + "00" * 32,
            "nonce": "0x" + "00" * 8,
            "baseFeePerGas": hex(10**9),
        }
        raw = bytes(rlp.encode([bytes.fromhex(_even(v)) for v in _trimmed(fields)]))
        hash_ = "0x" + keccak(raw).hex()
        block = read_block({**fields, "hash": hash_, "transactions": []}, "block")
        assert header_rlp(block) == raw
        return {
            "hash": hash_,
            "number": number,
            "timestamp": time,
            "fields": dict(block.header),
            "header": raw,
            "proof": proof,
            "logs": [
                {
                    "address": "0x" + CONTRACT.hex(),
                    "topics": ["0x" + topic.hex() for topic in topics],
                    "data": "0x" + told.hex(),
                }
            ],
        }


_NUMBERS = ("difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas")


def _trimmed(fields: dict[str, str]) -> list[str]:
    return [v[2:].lstrip("0") if name in _NUMBERS else v[2:] for name, v in fields.items()]


def _even(digits: str) -> str:
    return "0" * (len(digits) % 2) + digits


# --- IPFS --------------------------------------------------------------------------------


class PaperIpfs(PaperChain):
    """A raw block, which is there."""

    def __init__(self) -> None:
        super().__init__("ipfs", confirmations=1)

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        return SignedVersion("ipfs", draft.payload, str(raw_cid(draft.payload)), draft.payload)

    def observe(self, version: SignedVersion) -> Observation:
        return Observation(Place.MINED, version.payload[4:], depth=1, final=True)

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        return {
            "type": "ipfs",
            "transaction_id": version.transaction_id,
            "block": version.payload.hex(),
        }
