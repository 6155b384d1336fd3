"""Bitcoin evidence: transaction, block header and the partial Merkle tree between them.

:func:`verify_anchor` is what an offline auditor runs:

1. The raw transaction parses, to its last byte (protocol documentation, BIP 144).
2. One of its outputs is ``OP_RETURN`` followed by one push of exactly the payload.
3. The 80-byte header's double SHA-256 is at most the target its ``bits`` state, and that
   target is not above the network's limit.
4. The ``merkleblock`` message (BIP 37) carries that very header, and its partial tree
   recomputes to the header's Merkle root with every bit and hash used.
5. The transaction's id is among the leaves the partial tree proves.

Hashes are in internal byte order here; :func:`display` reverses one for people and RPC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from provenance.errors import (
    FormatError,
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)

HEADER_BYTES = 80
MAX_TRANSACTION_BYTES = 4_000_000
MAX_BLOCK_TRANSACTIONS = 4_000_000 // 240
"""Consensus: 4,000,000 weight units, and a transaction has at least 60 bytes of weight 4."""
OP_RETURN = 0x6A
OP_PUSHDATA1 = 0x4C
OP_PUSHDATA2 = 0x4D
SEGWIT_MARKER = b"\x00\x01"


class ChainRules(NamedTuple):
    """What tells one chain from another. ``limit`` is the highest target ever allowed."""

    genesis: str
    limit: int


def target_of(bits: int) -> int:
    """The target that a header's ``bits`` state; 0 for a negative one."""
    exponent, mantissa = bits >> 24, bits & 0x007FFFFF
    if bits & 0x00800000:
        return 0
    return mantissa << (8 * (exponent - 3)) if exponent > 3 else mantissa >> (8 * (3 - exponent))


_CHAINS = (
    ("main", "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f", 0x1D00FFFF),
    ("test", "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943", 0x1D00FFFF),
    ("testnet4", "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043", 0x1D00FFFF),
    ("signet", "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6", 0x1E0377AE),
    ("regtest", "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", 0x207FFFFF),
)
CHAINS: Mapping[str, ChainRules] = MappingProxyType(
    {name: ChainRules(genesis, target_of(bits)) for name, genesis, bits in _CHAINS}
)
"""By the name ``getblockchaininfo`` gives; values from Bitcoin Core ``kernel/chainparams.cpp``."""


def double_sha256(data: bytes) -> bytes:
    """SHA-256 of SHA-256, 32 bytes in internal order."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def display(digest: bytes) -> str:
    """The hex people and RPC use: bytes reversed."""
    return digest[::-1].hex()


class OutPoint(NamedTuple):
    """An output by the id of its transaction (internal order) and its index."""

    txid: bytes
    vout: int

    @property
    def shown(self) -> str:
        """``txid:vout``, as people and RPC write it."""
        return f"{display(self.txid)}:{self.vout}"


class Output(NamedTuple):
    """``value`` in satoshi."""

    value: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A parsed transaction. ``stripped`` is the serialisation without witness; ``sequences`` and,
    where there is one, ``witness`` are by input."""

    inputs: tuple[OutPoint, ...]
    outputs: tuple[Output, ...]
    stripped: bytes
    size: int
    sequences: tuple[bytes, ...]
    witness: tuple[tuple[bytes, ...], ...]

    @property
    def txid(self) -> bytes:
        """Double SHA-256 of ``stripped``, internal order."""
        return double_sha256(self.stripped)

    @property
    def vsize(self) -> int:
        """Virtual bytes (BIP 141): a quarter of the weight, rounded up."""
        return (3 * len(self.stripped) + self.size + 3) // 4

    @property
    def data(self) -> tuple[bytes, ...]:
        """What each ``OP_RETURN`` output with a single push carries."""
        found = (_pushed(output.script) for output in self.outputs)
        return tuple(push for push in found if push is not None)


class Reader:
    """Reads bytes from the front; ``FormatError``, about ``what``, where they do not suffice."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.at = data, what, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > (rest := len(self.data) - self.at):
            where = f"{self.what}: {count} bytes needed at byte {self.at}"
            raise TruncatedError(f"{where}, found {rest}")
        self.at += count
        return self.data[self.at - count : self.at]

    def u32(self) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def size(self, limit: int) -> int:
        """A CompactSize, in its shortest form as consensus demands."""
        first = self.take(1)[0]
        if first < 0xFD:
            value = first
        else:
            width = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
            value = int.from_bytes(self.take(width), "little")
            if value < {2: 0xFD, 4: 0x10000, 8: 0x100000000}[width]:
                raise FormatError(f"{self.what}: a size that is not in its shortest form")
        if value > limit:
            raise TooLargeError(f"{self.what}: a size of {value}, at most {limit}")
        return value

    def end(self) -> None:
        """Refuse bytes that are left."""
        if self.at != len(self.data):
            raise TrailingBytesError(f"{self.what}: {len(self.data) - self.at} bytes after the end")


def parse_transaction(raw: bytes) -> Transaction:
    """Read a serialised transaction, with or without witness (BIP 144), or ``FormatError``."""
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise TooLargeError(f"transaction of {len(raw)} bytes, at most {MAX_TRANSACTION_BYTES}")
    reader = Reader(raw, "transaction")
    version = reader.take(4)
    segwit = raw[4:6] == SEGWIT_MARKER
    if segwit:
        reader.take(2)
    body = reader.at
    inputs, sequences = [], []
    for _ in range(reader.size(MAX_TRANSACTION_BYTES)):
        inputs.append(OutPoint(reader.take(32), reader.u32()))
        reader.take(reader.size(MAX_TRANSACTION_BYTES))
        sequences.append(reader.take(4))
    outputs = []
    for _ in range(reader.size(MAX_TRANSACTION_BYTES)):
        value = int.from_bytes(reader.take(8), "little", signed=True)
        outputs.append(Output(value, reader.take(reader.size(MAX_TRANSACTION_BYTES))))
    core = raw[body : reader.at]
    witness = [
        tuple(
            reader.take(reader.size(MAX_TRANSACTION_BYTES))
            for _ in range(reader.size(MAX_TRANSACTION_BYTES))
        )
        for _ in (inputs if segwit else ())
    ]
    locktime = reader.take(4)
    reader.end()
    if not inputs or not outputs:
        raise FormatError("transaction: no inputs or no outputs")
    return Transaction(
        tuple(inputs), tuple(outputs), version + core + locktime, len(raw), tuple(sequences),
        tuple(witness),
    )  # fmt: skip


def _pushed(script: bytes) -> bytes | None:
    if len(script) < 2 or script[0] != OP_RETURN:
        return None
    code, rest = script[1], script[2:]
    if code == OP_PUSHDATA1:
        code, rest = (rest[0], rest[1:]) if rest else (-1, rest)
    elif code == OP_PUSHDATA2:
        code, rest = int.from_bytes(rest[:2], "little"), rest[2:]
    elif code > OP_PUSHDATA1:
        return None
    return rest if len(rest) == code else None


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """A block header; hashes in internal order, ``time`` in Unix seconds."""

    hash: bytes
    previous: bytes
    merkle_root: bytes
    time: int
    bits: int


def parse_header(raw: bytes) -> BlockHeader:
    """Read an 80-byte header and hash it, or ``FormatError``."""
    reader = Reader(raw, "block header")
    reader.take(4)
    previous, merkle_root = reader.take(32), reader.take(32)
    time, bits, _nonce = reader.u32(), reader.u32(), reader.u32()
    reader.end()
    return BlockHeader(double_sha256(raw), previous, merkle_root, time, bits)


def check_work(header: BlockHeader, limit: int) -> None:
    """``ProofError`` unless the hash is at most the target, and the target at most ``limit``."""
    target = target_of(header.bits)
    if not 0 < target <= limit:
        raise ProofError(f"block {display(header.hash)}: its target is out of range")
    if int.from_bytes(header.hash, "little") > target:
        raise ProofError(f"block {display(header.hash)}: its hash is above its target")


@dataclass(frozen=True, slots=True)
class Proven:
    """A leaf that a partial Merkle tree proves. ``path`` leads up to the Merkle root in steps of
    ``double_sha256``: ``(True, hash)`` means that the sibling stands left of the running hash."""

    txid: bytes
    index: int
    path: tuple[tuple[bool, bytes], ...]


@dataclass(frozen=True, slots=True)
class MerkleBlock:
    """A ``merkleblock`` message (BIP 37), not yet checked: see :meth:`leaves`."""

    header: BlockHeader
    total: int
    hashes: tuple[bytes, ...]
    flags: bytes

    def leaves(self) -> tuple[Proven, ...]:
        """Walk the partial tree and return the leaves it proves; ``ProofError`` where it does not
        recompute to the header's Merkle root."""
        bits = iter([byte >> at & 1 for byte in self.flags for at in range(8)])
        hashes = iter(self.hashes)

        def node(height: int, index: int) -> tuple[bytes, list[Proven]]:
            """BIP 37's depth-first traversal: a node's hash, and the leaves proven below it."""
            matches = next(bits)
            if not height or not matches:
                value = next(hashes)
                return value, [Proven(value, index, ())] if matches else []
            left, found = node(height - 1, 2 * index)
            right, more = left, list[Proven]()
            if 2 * index + 1 < (self.total + (1 << height - 1) - 1) >> height - 1:
                right, more = node(height - 1, 2 * index + 1)
                if right == left:  # CVE-2012-2459
                    raise ProofError("merkleblock: two equal siblings")
            found = [replace(leaf, path=(*leaf.path, (False, right))) for leaf in found]
            found += [replace(leaf, path=(*leaf.path, (True, left))) for leaf in more]
            return double_sha256(left + right), found

        try:
            root, leaves = node(max(0, (self.total - 1).bit_length()), 0)
        except StopIteration:
            raise ProofError("merkleblock: it ends inside the tree") from None
        padding = list(bits)
        if len(padding) > 7 or next(hashes, None) is not None:
            raise ProofError("merkleblock: hashes or flag bits are left over")
        if any(padding):
            raise ProofError("merkleblock: padding bits are set")
        if root != self.header.merkle_root:
            raise ProofError("merkleblock: the tree does not recompute to the header's root")
        return tuple(leaves)


def parse_merkle_block(raw: bytes) -> MerkleBlock:
    """Read what ``gettxoutproof`` returns: header, transaction count, hashes, flag bytes."""
    reader = Reader(raw, "merkleblock")
    header = parse_header(reader.take(HEADER_BYTES))
    total = reader.u32()
    if not 0 < total <= MAX_BLOCK_TRANSACTIONS:
        expected = f"expected 1 to {MAX_BLOCK_TRANSACTIONS}"
        raise FormatError(f"merkleblock: {total} transactions, {expected}")
    hashes = tuple(reader.take(32) for _ in range(reader.size(total)))
    flags = reader.take(reader.size(4 * len(hashes)))
    reader.end()
    return MerkleBlock(header, total, hashes, flags)


def verify_anchor(
    transaction: bytes, merkle_block: bytes, header: bytes, payload: bytes, chain: str
) -> BlockHeader:
    """Check that a block of ``chain`` (of :data:`CHAINS`) holds a transaction with ``payload``;
    steps (1) to (5). ``FormatError`` for bytes that do not parse, ``ProofError`` for a step that
    does not hold. Whether the header is on the best chain is for the caller: it has a node, or
    headers."""
    if chain not in CHAINS:
        raise FormatError(f"Bitcoin chain {chain!r}, expected one of {', '.join(CHAINS)}")
    parsed = parse_transaction(transaction)  # (1)
    if payload not in parsed.data:  # (2)
        raise ProofError(f"transaction {display(parsed.txid)} does not carry the payload")
    block = parse_header(header)  # (3)
    check_work(block, CHAINS[chain].limit)
    proof = parse_merkle_block(merkle_block)  # (4)
    if proof.header.hash != block.hash:
        raise ProofError("merkleblock: it is for another block than the header")
    prove_inclusion(parsed, proof)  # (5)
    return block


def prove_inclusion(transaction: Transaction, proof: MerkleBlock) -> Proven:
    """The leaf of ``transaction`` in the proof, with its path to the Merkle root."""
    if len(transaction.stripped) == 64:  # CVE-2017-12842: it could be an inner node
        raise ProofError("transaction of 64 bytes, which a Merkle proof cannot tell from a node")
    for leaf in proof.leaves():
        if leaf.txid == transaction.txid:
            return leaf
    raise ProofError(f"merkleblock: transaction {display(transaction.txid)} is not in it")
