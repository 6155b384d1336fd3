"""A chain in memory whose node gives the evidence that the real network would give.

Beside :mod:`tests.vectors.paper_chains`, which is for golden files, this one has the faults,
forks and mempool of :class:`MemoryNetwork`: only ids, block hashes and evidence are real ones.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from functools import cache
from typing import Any

import rlp
from eth_utils.crypto import keccak

from provenance.chains.ethereum.trie import prove
from provenance.formats.note import SignerKey
from provenance.formats.record import Json, canonical_json, timestamp
from provenance.ports.values import Draft, Observation, Place, SignedVersion
from provenance.proofs.bitcoin import display, double_sha256, parse_transaction
from provenance.proofs.ipfs.cid import raw_cid
from provenance.proofs.local_file import LOCAL_CONTEXT, local_transaction_id
from tests.support.nodes import bitcoin_evidence
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork, MemoryTransaction


def paper_node(name: str, chain_id: int, signer: SignerKey | None = None) -> MemoryNetwork:
    """A node of a new chain; one of no known kind is a :class:`MemoryNetwork`.

    Args:
        signer: The ledger's key, which signs the lines of ``local``.
    """
    chain = MemoryChain(chain_id=chain_id)
    if name == "bitcoin":
        return PaperBitcoin(chain, name=name)
    if name == "ethereum":
        return PaperEthereum(chain, name=name)
    if name == "ipfs":
        return PaperIpfs(chain, name=name)
    if name == "local" and signer is not None:
        node = PaperLocal(chain, name=name)
        node.signer = signer
        return node
    return MemoryNetwork(chain, name=name)


class _PaperNode(MemoryNetwork):
    def transaction_id(self, raw: bytes, payload: bytes) -> str:
        raise NotImplementedError

    def at(self, seen: Observation, raw: bytes, payload: bytes) -> Observation:
        """A mined transaction as the real network would show it."""
        raise NotImplementedError

    def proof(self, raw: bytes, payload: bytes, seen: Observation) -> dict[str, Json]:
        raise NotImplementedError

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        made = super().sign(draft, nonce)
        return replace(made, transaction_id=self.transaction_id(made.raw, made.payload))

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        super().evidence(version, seen)
        return self.proof(version.raw, version.payload, seen)

    def _parse(self, raw: bytes) -> MemoryTransaction:
        parsed = super()._parse(raw)
        found = replace(parsed, id=self.transaction_id(raw, parsed.payload))
        _RAW[found.id] = raw
        return found

    def _where(self, txid: str) -> Observation:
        seen = super()._where(txid)
        found = self.chain.find(txid)
        if seen.place is not Place.MINED or found is None:
            return seen
        return self.at(seen, _RAW[txid], found[1].payload)


_RAW: dict[str, bytes] = {}
"""What was broadcast, by id: a chain outlives its nodes."""


class PaperBitcoin(_PaperNode):
    """Regtest blocks of one transaction."""

    def transaction_id(self, raw: bytes, payload: bytes) -> str:
        return display(parse_transaction(_bitcoin_transaction(raw, payload)).txid)

    def at(self, seen: Observation, raw: bytes, payload: bytes) -> Observation:
        header, _ = self._block(seen, raw, payload)
        return replace(seen, block_hash=display(double_sha256(header)))

    def proof(self, raw: bytes, payload: bytes, seen: Observation) -> dict[str, Json]:
        there = self._where(self.transaction_id(raw, payload))
        header, message = _bitcoin_block(raw, payload, int(there.block_time or 0))
        return {
            "type": "bitcoin",
            "chain": "regtest",
            "transaction_id": self.transaction_id(raw, payload),
            "transaction": _bitcoin_transaction(raw, payload).hex(),
            "merkle_block": message.hex(),
            "header": header.hex(),
            "block_hash": seen.block_hash,
            "height": seen.height,
            "headers": [],
        }

    @staticmethod
    def _block(seen: Observation, raw: bytes, payload: bytes) -> tuple[bytes, bytes]:
        return _bitcoin_block(raw, payload, int(seen.block_time or 0))


@cache
def _bitcoin_transaction(raw: bytes, payload: bytes) -> bytes:
    script = b"\x6a" + bytes([len(payload)]) + payload
    body = b"\x01" + double_sha256(raw) + bytes(4) + b"\x00" + b"\xff" * 4
    body += b"\x01" + bytes(8) + bytes([len(script)]) + script
    return struct.pack("<I", 2) + body + bytes(4)


@cache
def _bitcoin_block(raw: bytes, payload: bytes, time: int) -> tuple[bytes, bytes]:
    txid = parse_transaction(_bitcoin_transaction(raw, payload)).txid
    header = bitcoin_evidence.mined(txid, double_sha256(raw), time)
    return header, header + struct.pack("<I", 1) + b"\x01" + txid + b"\x01\x01"


class PaperEthereum(_PaperNode):
    """Blocks of one transaction that carries the payload as calldata."""

    def transaction_id(self, raw: bytes, payload: bytes) -> str:
        return "0x" + keccak(self._transaction(raw, payload)).hex()

    def at(self, seen: Observation, raw: bytes, payload: bytes) -> Observation:
        header, _ = self._block(seen, raw, payload)
        return replace(seen, block_hash="0x" + keccak(header).hex())

    def proof(self, raw: bytes, payload: bytes, seen: Observation) -> dict[str, Json]:
        there = self._where(self.transaction_id(raw, payload))
        header, path = self._block(there, raw, payload)
        return {
            "type": "ethereum",
            "chain_id": self.chain.chain_id,
            "contract": None,
            "transaction": {
                "id": self.transaction_id(raw, payload),
                "index": 0,
                "raw": "0x" + self._transaction(raw, payload).hex(),
            },
            "receipt": {"status": 1, "gas_used": 21_000, "logs": []},
            "block": {
                "hash": seen.block_hash,
                "number": seen.height,
                "timestamp": int(seen.block_time or 0),
                "header": {},
                "header_rlp": "0x" + header.hex(),
            },
            "transaction_proof": {"index": 0, "nodes": ["0x" + node.hex() for node in path]},
        }

    def _transaction(self, raw: bytes, payload: bytes) -> bytes:
        fields: list[Any] = [
            *(self.chain.chain_id, 0, 10**9, 2 * 10**9, 30_000),
            *(keccak(raw)[:20], 0, payload, [], 0, 2**254, 2**253),
        ]
        return b"\x02" + bytes(rlp.encode(fields))

    def _block(
        self, seen: Observation, raw: bytes, payload: bytes
    ) -> tuple[bytes, tuple[bytes, ...]]:
        root, path = prove([self._transaction(raw, payload)], 0)
        fields: list[Any] = [
            *(keccak(raw), b"\x02" * 32, b"\x03" * 20, b"\x04" * 32, root, b"\x05" * 32),
            *(bytes(256), 0, seen.height or 0, 30_000_000, 21_000, int(seen.block_time or 0)),
            *(b"", b"\x06" * 32, bytes(8)),
        ]
        return bytes(rlp.encode(fields)), path.nodes


class PaperIpfs(_PaperNode):
    """Raw blocks."""

    def transaction_id(self, raw: bytes, payload: bytes) -> str:
        return str(raw_cid(payload))

    def at(self, seen: Observation, raw: bytes, payload: bytes) -> Observation:
        return replace(seen, block_hash=None, height=None, block_time=None)

    def proof(self, raw: bytes, payload: bytes, seen: Observation) -> dict[str, Json]:
        return {"type": "ipfs", "transaction_id": str(raw_cid(payload)), "block": payload.hex()}


class PaperLocal(_PaperNode):
    """Signed lines, each at the height of its block."""

    signer: SignerKey

    def transaction_id(self, raw: bytes, payload: bytes) -> str:
        return local_transaction_id(payload)

    def at(self, seen: Observation, raw: bytes, payload: bytes) -> Observation:
        return replace(seen, block_hash=hashlib.sha256(self._line(seen, payload)).hexdigest())

    def proof(self, raw: bytes, payload: bytes, seen: Observation) -> dict[str, Json]:
        return {
            "type": "local",
            "transaction_id": local_transaction_id(payload),
            "line": self._line(seen, payload).decode(),
            "public_key": self.signer.verifier.public_bytes.hex(),
        }

    def _line(self, seen: Observation, payload: bytes) -> bytes:
        fields: dict[str, Json] = {
            "v": 1,
            "seq": seen.height,
            "payload": payload.hex(),
            "ts": timestamp(int(seen.block_time or 0) * 10**9),
            "prev": "0" * 64,
        }
        fields["signature"] = self.signer.sign(LOCAL_CONTEXT + canonical_json(fields)).hex()
        return canonical_json(fields)
