"""Ethereum evidence: a block header, and what its tries prove of one transaction.

:func:`verify_anchor` is what an offline auditor runs:

1. The header's RLP parses (Yellow Paper section 4.3; later forks append fields), and its
   keccak-256 is the block hash.
2. Where there is a receipt: its Merkle-Patricia proof (Yellow Paper appendix D; key: the RLP
   of the index) leads from the header's ``receiptsRoot`` to exactly those bytes.
3. The receipt (EIP-2718 types 0 to 4) states success, status 1 (EIP-658).
4. The receipt holds the contract's event ``HashStored`` of the root. Otherwise
5. the transaction of the same index is proven under ``transactionsRoot`` and commits to the
   root: its calldata is the 36-byte payload, or ``storeHash`` of the root to the contract, with
   or without signatures (:mod:`~provenance.proofs.multisig.ethereum`). So
   it is for an anchor without a contract, and where somebody stored the root before.

It does not say that the block is on the chain: a header is only as good as where it is from.
The event does not name its transaction; that it is the receipt's, steps 2 and 4 do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from provenance.errors import FormatError, ProofError, TooLargeError
from provenance.formats.keccak import keccak256
from provenance.proofs import rlp
from provenance.proofs.multisig.ethereum import STORE_SIGNED
from provenance.proofs.rlp import Item
from provenance.proofs.secp256k1 import recover

MAX_HEADER_BYTES: Final = 16 * 1024
"""A header has about 600; chains with authorities put lists of them into its extra data."""
MAX_VALUE_BYTES: Final = 16 * 1024
"""Of a proven receipt or transaction."""
MAX_NODE_BYTES: Final = MAX_VALUE_BYTES + 1024
MAX_NODES: Final = 16
"""Of a path. The key of a block's 2^24th transaction has 8 nibbles."""
MAX_PATH_BYTES: Final = 32 * 1024
"""Of all nodes of a path."""
MAX_INDEX: Final = 2**24 - 1

HASH_STORED: Final = bytes.fromhex(
    "29d4dc06d18afc28c7aeaf637e61675390403eeb1ce5e5d03632998f55ce876e"
)
"""keccak-256 of ``HashStored(bytes32,address,uint64,string)``: the event's first topic."""
STORE_HASH: Final = bytes.fromhex("2acf9f93")
"""First 4 bytes of keccak-256 of ``storeHash(bytes32,string)``."""
PAYLOAD_TAG: Final = b"MLP1"

_HASH: Final = 32
_ADDRESS: Final = 20
_BLOOM: Final = 256
_HEADER_FIELDS: Final = 15
_BRANCH: Final = 17
_MAX_TOPICS: Final = 4
_TYPES: Final = (1, 2, 3, 4)
_EIP1559: Final = 2
_EIP1559_FIELDS: Final = 12


@dataclass(frozen=True, slots=True)
class Header:
    """What of a block header is used; ``timestamp`` in Unix seconds."""

    hash: bytes
    number: int
    timestamp: int
    transactions_root: bytes
    receipts_root: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """One event: 20-byte address, up to 4 topics of 32 bytes, data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction; ``status`` is 1 for success, 0 for failure."""

    type: int
    status: int
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class Transaction:
    """An EIP-1559 transaction; ``hash`` is its id. ``to`` is None where it creates a contract."""

    hash: bytes
    chain_id: int
    nonce: int
    to: bytes | None
    calldata: bytes


@dataclass(frozen=True, slots=True)
class TrieProof:
    """That ``value`` lies at ``index`` of a block's trie: the nodes from the root down. A node
    shorter than 32 bytes lies inside its parent and is not listed."""

    index: int
    value: bytes
    nodes: tuple[bytes, ...]


def parse_header(raw: bytes) -> Header:
    """Read a block header and hash it; fields of later forks are not looked at."""
    fields = _list(rlp.decode(raw, "block header", MAX_HEADER_BYTES), "block header")
    if len(fields) < _HEADER_FIELDS:
        raise FormatError(f"block header: {len(fields)} fields, expected {_HEADER_FIELDS} or more")
    return Header(
        hash=keccak256(raw),
        transactions_root=_bytes(fields[4], "block header: transactionsRoot", _HASH),
        receipts_root=_bytes(fields[5], "block header: receiptsRoot", _HASH),
        number=_integer(fields[8], "block header: number"),
        timestamp=_integer(fields[11], "block header: timestamp"),
    )


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt as it lies in the trie (EIP-2718 types 1 to 4, or untyped; EIP-658)."""
    kind, body = _envelope(raw, "receipt")
    fields = _list(rlp.decode(body, "receipt", MAX_VALUE_BYTES), "receipt", 4)
    status = _integer(fields[0], "receipt: status")
    if status not in (0, 1):
        raise FormatError(f"receipt: status {status}, expected 0 or 1")
    _integer(fields[1], "receipt: cumulative gas")
    _bytes(fields[2], "receipt: bloom", _BLOOM)
    logs = []
    for item in _list(fields[3], "receipt: logs"):
        address, topics, data = _list(item, "receipt: log", 3)
        told = tuple(_bytes(t, "receipt: topic", _HASH) for t in _list(topics, "receipt: topics"))
        if len(told) > _MAX_TOPICS:
            raise FormatError(f"receipt: {len(told)} topics, at most {_MAX_TOPICS}")
        where = _bytes(address, "receipt: address", _ADDRESS)
        logs.append(Log(where, told, _bytes(data, "receipt: data")))
    return Receipt(kind, status, tuple(logs))


def parse_transaction(raw: bytes) -> Transaction:
    """Read a signed EIP-1559 transaction, the only type that anchors are sent as. Its signature is
    not checked; that a block holds it is proof that the network did."""
    kind, body = _envelope(raw, "transaction")
    if kind != _EIP1559:
        raise FormatError(f"transaction of type {kind}, expected {_EIP1559}")
    decoded = rlp.decode(body, "transaction", MAX_VALUE_BYTES)
    fields = _list(decoded, "transaction", _EIP1559_FIELDS)
    to = _bytes(fields[5], "transaction: to")
    if len(to) not in (0, _ADDRESS):
        raise FormatError(f"transaction: to of {len(to)} bytes, expected {_ADDRESS} or none")
    return Transaction(
        hash=keccak256(raw),
        chain_id=_integer(fields[0], "transaction: chain id"),
        nonce=_integer(fields[1], "transaction: nonce"),
        to=to or None,
        calldata=_bytes(fields[7], "transaction: calldata"),
    )


def sender_of(raw: bytes) -> str:
    """The address that signed a transaction: ``0x`` and 40 lower-case hex digits. What was
    signed is ``02 || RLP(all fields but the signature)`` (EIP-1559), an address the last 20
    bytes of the public key's keccak-256 (Yellow Paper appendix F). ``FormatError`` where no key
    can have signed."""
    parse_transaction(raw)
    fields = _list(rlp.decode(raw[1:], "transaction", MAX_VALUE_BYTES), "transaction", 12)
    odd = _integer(fields[9], "transaction: parity")
    r, s = (int.from_bytes(_bytes(field, "transaction: signature"), "big") for field in fields[10:])
    if odd > 1:
        raise FormatError(f"transaction: parity {odd} of the signature, expected 0 or 1")
    signed = keccak256(raw[:1] + rlp.encode(tuple(fields[:9])))
    return "0x" + keccak256(recover(signed, r, s, bool(odd)))[12:].hex()


def verify_trie(root: bytes, proof: TrieProof, what: str) -> None:
    """Check that the trie with ``root`` holds ``value`` at ``index``; raises as `trie_value`."""
    if not 0 <= proof.index <= MAX_INDEX:
        raise FormatError(f"{what} proof: index {proof.index}, expected 0 to {MAX_INDEX}")
    value = trie_value(root, rlp.encode_index(proof.index), proof.nodes, what)
    if value != proof.value:
        raise ProofError(f"{what} proof: at index {proof.index} lies another {what}")


def trie_value(root: bytes, key: bytes, nodes: Sequence[bytes], what: str) -> bytes:
    """What a Merkle-Patricia trie holds under a key; all nodes must be used, from the root
    (keccak-256 of the first) down. ``ProofError`` where they lead to no value, ``FormatError``
    where one does not decode."""
    if len(nodes) > MAX_NODES or sum(map(len, nodes)) > MAX_PATH_BYTES:
        most = f"{MAX_NODES} nodes of {MAX_PATH_BYTES} bytes together"
        raise TooLargeError(f"{what} proof: at most {most}")
    path = [nibble for byte in key for nibble in (byte >> 4, byte & 15)]
    waiting = list(reversed(nodes))
    link: Item = root
    while True:
        node = _resolve(link, waiting, len(waiting) == len(nodes), what)
        if len(node) == _BRANCH:
            if not path:
                return _found(node[16], waiting, what)
            link, path = node[path[0]], path[1:]
            continue
        prefix, is_leaf = _hex_prefix(_bytes(node[0], f"{what} proof: path"), what)
        if path[: len(prefix)] != prefix or (is_leaf and len(path) != len(prefix)):
            raise ProofError(f"{what} proof: it leads to another index")
        if is_leaf:
            return _found(node[1], waiting, what)
        if not prefix:
            raise FormatError(f"{what} proof: an extension over nothing")
        link, path = node[1], path[len(prefix) :]


def _resolve(link: Item, waiting: list[bytes], first: bool, what: str) -> tuple[Item, ...]:
    """The node that a link leads to: the next of the list by its hash, or the link itself."""
    if isinstance(link, bytes):
        if len(link) != _HASH:
            raise ProofError(f"{what} proof: it leads to an empty place")
        if not waiting:
            raise ProofError(f"{what} proof: it ends above the value")
        raw = waiting.pop()
        if keccak256(raw) != link:
            raise ProofError(f"{what} proof: a node does not hash to {link.hex()}")
        if len(raw) < _HASH and not first:
            raise FormatError(f"{what} proof: a node of {len(raw)} bytes outside its parent")
        link = rlp.decode(raw, f"{what} proof: node", MAX_NODE_BYTES)
    node = _list(link, f"{what} proof: node")
    if len(node) not in (2, _BRANCH):
        raise FormatError(f"{what} proof: a node of {len(node)} items, expected 2 or {_BRANCH}")
    return node


def _found(value: Item, waiting: list[bytes], what: str) -> bytes:
    if waiting:
        raise ProofError(f"{what} proof: {len(waiting)} nodes are left over")
    found = _bytes(value, f"{what} proof: value")
    if not found:
        raise ProofError(f"{what} proof: it leads to an empty place")
    return found


def _hex_prefix(path: bytes, what: str) -> tuple[list[int], bool]:
    """Nibbles, and whether they are a leaf's (Yellow Paper appendix C)."""
    if not path or path[0] >> 4 > 3 or (path[0] >> 4 in (0, 2) and path[0] & 15):
        raise FormatError(f"{what} proof: a path that is not hex-prefix encoded")
    nibbles = [nibble for byte in path for nibble in (byte >> 4, byte & 15)]
    return nibbles[1 if nibbles[0] & 1 else 2 :], nibbles[0] >= 2


def commits_to(transaction: Transaction, contract: bytes | None, root: bytes) -> bool:
    """Whether the calldata is the payload, or stores the root in the contract."""
    if contract is None:
        return transaction.calldata == PAYLOAD_TAG + root
    stores = transaction.calldata[:4] in (STORE_HASH, STORE_SIGNED)
    return transaction.to == contract and stores and transaction.calldata[4:36] == root


@dataclass(frozen=True, slots=True)
class Proven:
    """What :func:`verify_anchor` found. ``receipt`` and ``transaction`` as far as there are
    proofs of them; ``event``: the receipt holds ``HashStored`` of the root."""

    header: Header
    receipt: Receipt | None
    transaction: Transaction | None
    event: bool


def verify_anchor(
    header: bytes,
    root: bytes,
    contract: bytes | None,
    receipt: TrieProof | None,
    transaction: TrieProof | None,
) -> Proven:
    """Check that a block holds an anchor of ``root``; steps (1) to (5). ``FormatError`` for
    bytes that do not parse, ``ProofError`` for a step that does not hold. ``contract`` is 20
    bytes, None where the root went out as plain calldata; one of ``receipt`` and ``transaction``
    must be there."""
    block = parse_header(header)  # (1)
    bill = sent = None
    if receipt is not None and transaction is not None and receipt.index != transaction.index:
        both = f"receipt {receipt.index} and transaction {transaction.index}"
        raise ProofError(f"{both} are not of one index")
    if receipt is not None:
        verify_trie(block.receipts_root, receipt, "receipt")  # (2)
        bill = parse_receipt(receipt.value)
        if bill.status != 1:  # (3)
            raise ProofError("the transaction failed: its receipt states status 0")
    stored = (contract, (HASH_STORED, root))
    event = any(
        (log.address, log.topics[:2]) == stored for log in (bill.logs if bill else ())
    )  # (4)
    if transaction is not None:
        verify_trie(block.transactions_root, transaction, "transaction")  # (5)
        sent = parse_transaction(transaction.value)
    if not event and sent is None:
        raise ProofError(
            "the receipt holds no HashStored of the root, and no transaction is proven"
        )
    if not event and sent is not None and not commits_to(sent, contract, root):
        raise ProofError("the transaction's calldata does not carry the root")
    return Proven(block, bill, sent, event)


def _envelope(raw: bytes, what: str) -> tuple[int, bytes]:
    """Type and body (EIP-2718); type 0 is what has no type byte."""
    if raw[:1] >= b"\xc0":
        return 0, raw
    if raw and raw[0] in _TYPES:
        return raw[0], raw[1:]
    raise FormatError(f"{what} of an unknown type: it begins with {raw[:1].hex() or 'nothing'}")


def _list(item: Item, what: str, size: int | None = None) -> tuple[Item, ...]:
    if isinstance(item, bytes):
        raise FormatError(f"{what} is a string, expected a list")
    if size is not None and len(item) != size:
        raise FormatError(f"{what}: {len(item)} items, expected {size}")
    return item


def _bytes(item: Item, what: str, size: int | None = None) -> bytes:
    if not isinstance(item, bytes):
        raise FormatError(f"{what} is a list, expected a string")
    if size is not None and len(item) != size:
        raise FormatError(f"{what} has {len(item)} bytes, expected {size}")
    return item


def _integer(item: Item, what: str) -> int:
    digits = _bytes(item, what)
    if len(digits) > 8 or digits[:1] == b"\x00":
        raise FormatError(f"{what} is no integer of up to 8 bytes")
    return int.from_bytes(digits, "big")
