"""What networks leave behind, read by a stranger: written from docs/FORMAT.md, sections 8 to 10.

Imports nothing of the program that it checks. Every function raises ValueError where
something does not hold.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from formats import need, sha256, unhex

LIMITS = {"main": 0x1D00FFFF, "test": 0x1D00FFFF, "testnet4": 0x1D00FFFF,
          "signet": 0x1E0377AE, "regtest": 0x207FFFFF}  # fmt: skip


def double(data: bytes) -> bytes:
    return bytes(sha256(sha256(data)))


# --- IPFS --------------------------------------------------------------------------------


def raw_cid(block: bytes) -> str:
    """CIDv1, codec raw, SHA-256, in base32."""
    return "b" + base64.b32encode(b"\x01\x55\x12\x20" + sha256(block)).decode().lower().rstrip("=")


# --- Bitcoin -----------------------------------------------------------------------------


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        need(0 <= size <= len(self.data) - self.at, "bytes end too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def compact(self) -> int:
        first = self.take(1)[0]
        if first < 0xFD:
            return first
        width = 2 << (first - 0xFD)
        value = int.from_bytes(self.take(width), "little")
        need(value >= {2: 0xFD, 4: 1 << 16, 8: 1 << 32}[width], "a size in a longer form")
        return value

    def varuint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            need(shift <= 70, "a number that is too long")
            if byte < 0x80:
                return value

    def end(self) -> None:
        need(self.at == len(self.data), "bytes after the end")


def stripped(raw: bytes) -> tuple[bytes, list[bytes]]:
    """A transaction without its witness, and its output scripts."""
    read = Reader(raw)
    version = read.take(4)
    witness = raw[4:6] == b"\x00\x01"
    read.take(2 if witness else 0)
    start = read.at
    inputs = read.compact()
    for _ in range(inputs):
        read.take(36)
        read.take(read.compact())
        read.take(4)
    scripts = []
    for _ in range(read.compact()):
        read.take(8)
        scripts.append(read.take(read.compact()))
    core = raw[start : read.at]
    for _ in range(inputs if witness else 0):
        for _ in range(read.compact()):
            read.take(read.compact())
    core = version + core + read.take(4)
    read.end()
    need(inputs and scripts, "a transaction without inputs or outputs")
    return core, scripts


def pushed(script: bytes) -> bytes | None:
    """What OP_RETURN with a single push carries."""
    if script[:1] != b"\x6a" or len(script) < 2:
        return None
    head = {0x4C: 3, 0x4D: 4}.get(script[1], 2)
    size = script[1] if head == 2 else int.from_bytes(script[2:head], "little")
    fits = size == len(script) - head and (head > 2 or script[1] < 0x4C)
    return script[head:] if fits else None


def check_work(header: bytes, chain: str) -> None:
    def target(bits: int) -> int:
        need(not bits & 0x800000, "a negative target")
        shift = 8 * ((bits >> 24) - 3)
        return (bits & 0x7FFFFF) << shift if shift > 0 else (bits & 0x7FFFFF) >> -shift

    need(len(header) == 80 and chain in LIMITS, "no block header of a known chain")
    found = target(int.from_bytes(header[72:76], "little"))
    need(0 < found <= target(LIMITS[chain]), "the target is out of range")
    need(int.from_bytes(double(header), "little") <= found, "the proof of work fails")


def merkle_block_leaves(raw: bytes) -> tuple[bytes, list[bytes]]:
    """BIP 37: the header, and the transactions that its tree proves."""
    read = Reader(raw)
    header, total = read.take(80), struct.unpack("<I", read.take(4))[0]
    need(0 < total <= 16_666, "too many transactions")
    hashes = [read.take(32) for _ in range(min(read.compact(), total + 1))]
    flags = read.take(read.compact())
    read.end()
    bits = [byte >> at & 1 for byte in flags for at in range(8)]
    used, found, left = 0, [], list(reversed(hashes))

    def node(height: int, index: int) -> bytes:
        nonlocal used
        need(used < len(bits), "the tree ends early")
        match = bits[used]
        used += 1
        if height == 0 or not match:
            need(left, "the tree ends early")
            value = left.pop()
            if match:
                found.append(value)
            return value
        one = two = node(height - 1, 2 * index)
        if 2 * index + 1 < (total + (1 << height - 1) - 1) >> height - 1:
            two = node(height - 1, 2 * index + 1)
            need(one != two, "two equal siblings")
        return double(one + two)

    root = node((total - 1).bit_length(), 0)
    need(root == header[36:68], "the tree does not lead to the header's root")
    need(not left and (used + 7) // 8 == len(flags) and not any(bits[used:]), "bits left over")
    return header, found


def check_bitcoin(anchor: dict[str, Any], evidence: dict[str, Any]) -> None:
    core, scripts = stripped(unhex(evidence["transaction"]))
    txid = double(core)
    need(txid[::-1].hex() == anchor["transaction_id"], "another transaction")
    need(unhex(anchor["payload"]) in map(pushed, scripts), "no OP_RETURN of the payload")
    header = unhex(evidence["header"])
    check_work(header, evidence["chain"])
    proven, leaves = merkle_block_leaves(unhex(evidence["merkle_block"]))
    need(proven == header and len(core) != 64, "the Merkle block is of another header")
    need(txid in leaves, "the transaction is not in the block")
    need(double(header)[::-1].hex() == anchor["block_hash"], "another block hash")
    need(int.from_bytes(header[68:72], "little") == anchor["block_time"], "another time")
    need(evidence["height"] == anchor["height"], "another height")


# --- Ethereum ----------------------------------------------------------------------------

_ROUNDS = [0x01, 0x8082, 0x800000000000808A, 0x8000000080008000, 0x808B, 0x80000001,
           0x8000000080008081, 0x8000000000008009, 0x8A, 0x88, 0x80008009, 0x8000000A,
           0x8000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
           0x8000000000008002, 0x8000000000000080, 0x800A, 0x800000008000000A,
           0x8000000080008081, 0x8000000000008080, 0x80000001, 0x8000000080008008]  # fmt: skip


def keccak256(data: bytes) -> bytes:
    """Keccak with rate 136 and padding 01: not SHA3-256."""

    def turn(lane: int, by: int) -> int:
        return (lane << by | lane >> 64 - by) & (1 << 64) - 1

    padding = bytearray(136 - len(data) % 136)
    padding[0], padding[-1] = 0x01, padding[-1] | 0x80
    padding[0] |= 0x80 if len(padding) == 1 else 0
    data = data + padding
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(data), 136):
        for at in range(17):
            word = data[start + 8 * at : start + 8 * at + 8]
            lanes[at % 5][at // 5] ^= int.from_bytes(word, "little")
        for constant in _ROUNDS:
            c = [a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] for a in lanes]
            d = [c[x - 1] ^ turn(c[(x + 1) % 5], 1) for x in range(5)]
            lanes = [[lane ^ d[x] for lane in lanes[x]] for x in range(5)]
            x, y, current = 1, 0, lanes[1][0]
            for at in range(24):
                x, y = y, (2 * x + 3 * y) % 5
                current, lanes[x][y] = lanes[x][y], turn(current, (at + 1) * (at + 2) // 2 % 64)
            for y in range(5):
                row = [lanes[x][y] for x in range(5)]
                for x in range(5):
                    lanes[x][y] = row[x] ^ ~row[(x + 1) % 5] & row[(x + 2) % 5]
            lanes[0][0] ^= constant
    return b"".join(lanes[at % 5][at // 5].to_bytes(8, "little") for at in range(4))


def rlp(data: bytes) -> Any:
    """One item: bytes, or a list of items."""
    item, rest = _rlp(data)
    need(not rest, "bytes after the item")
    return item


def _rlp(data: bytes) -> tuple[Any, bytes]:
    need(data, "an item is missing")
    first, start = data[0], 1
    if first < 0x80:
        return data[:1], data[1:]
    base = 0xC0 if first >= 0xC0 else 0x80
    size = first - base
    if size > 55:
        start = 1 + size - 55
        size = int.from_bytes(data[1:start], "big")
        need(size > 55 and data[1], "a length in a longer form")
    need(len(data) >= start + size, "an item ends too early")
    body, rest = data[start : start + size], data[start + size :]
    if base == 0x80:
        need(size != 1 or start > 1 or body[0] >= 0x80, "a byte in a longer form")
        return body, rest
    items = []
    while body:
        item, body = _rlp(body)
        items.append(item)
    return items, rest


def trie_value(root: bytes, index: int, nodes: list[bytes]) -> bytes:
    """What a block's trie holds at an index (Yellow Paper, appendix D)."""
    digits = index.to_bytes((index.bit_length() + 7) // 8, "big")
    key = digits if 0 < index < 0x80 else bytes([0x80 + len(digits)]) + digits
    path, link, left = key.hex(), root, list(reversed(nodes))
    while True:
        node = link
        if isinstance(link, bytes):
            need(left and keccak256(left[-1]) == link, "a node of the trie does not hash")
            node = rlp(left.pop())
        if len(node) == 17:
            if not path:
                value = node[16]
                break
            link, path = node[int(path[0], 16)], path[1:]
            continue
        need(len(node) == 2, "a node of another size")
        prefix, kind = node[0].hex(), node[0][0] >> 4
        prefix = prefix[1 if kind & 1 else 2 :]
        need(kind < 4 and path.startswith(prefix), "the trie leads elsewhere")
        link, path = node[1], path[len(prefix) :]
        if kind >= 2:
            need(not path, "the trie leads elsewhere")
            value = node[1]
            break
    need(not left and isinstance(value, bytes) and value, "nodes of the trie are left over")
    return bytes(value)


def check_ethereum(anchor: dict[str, Any], evidence: dict[str, Any]) -> str | None:
    """Returns what is not proven."""

    def data(text: Any) -> bytes:
        need(isinstance(text, str) and text[:2] == "0x", "no 0x hex")
        return bytes(unhex(text[2:]))

    raw, root = data(evidence["transaction"]["raw"]), unhex(anchor["payload"])[4:]
    need("0x" + keccak256(raw).hex() == anchor["transaction_id"], "another transaction")
    sent = rlp(raw[1:])
    need(raw[0] == 2 and int.from_bytes(sent[0], "big") == evidence["chain_id"], "another chain")
    contract = evidence["contract"] and data(evidence["contract"].lower())
    stores = ["4d4c5031"] if contract is None else ["2acf9f93", "727dec84"]
    fits = len(sent[7]) == 36 if contract is None else sent[5] == contract
    calls = fits and sent[7][:4].hex() in stores and sent[7][4:36] == root
    need(calls, "the calldata does not carry the root")
    if "receipt_proof" not in evidence and "transaction_proof" not in evidence:
        block, stated = evidence["block"], (anchor["block_hash"], anchor["height"])
        need((block["hash"], block["number"]) == stated, "another block")
        return "no trie proof: that the block holds the transaction is for a node to say"
    header = data(evidence["block"]["header_rlp"])
    need("0x" + keccak256(header).hex() == anchor["block_hash"], "another block")
    fields, event, included = rlp(header), False, False
    need(int.from_bytes(fields[8], "big") == anchor["height"], "another height")
    need(int.from_bytes(fields[11], "big") == anchor["block_time"], "another time")
    if "receipt_proof" in evidence:
        proof = evidence["receipt_proof"]
        bill = data(proof["receipt_rlp"])
        found = trie_value(fields[5], proof["index"], [data(n) for n in proof["nodes"]])
        need(found == bill, "another receipt")
        status, _, _, logs = rlp(bill if bill[0] >= 0xC0 else bill[1:])
        need(status == b"\x01", "the transaction failed")
        stored = keccak256(b"HashStored(bytes32,address,uint64,string)")
        event = any(log[0] == contract and log[1][:2] == [stored, root] for log in logs)
    if "transaction_proof" in evidence:
        proof = evidence["transaction_proof"]
        found = trie_value(fields[4], proof["index"], [data(n) for n in proof["nodes"]])
        need(found == raw, "another transaction in the block")
        included = True
    need(event or included, "the block does not carry the root")
    return None


# --- OpenTimestamps ----------------------------------------------------------------------

OTS_MAGIC = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
_HASHES = {0x02: "sha1", 0x03: "ripemd160", 0x08: "sha256"}


def ots_attestations(raw: bytes) -> tuple[bytes, list[tuple[bytes, bytes, bytes]]]:
    """The digest a proof starts at, and each attestation: message, tag, payload."""
    read = Reader(raw)
    need(read.take(31) == OTS_MAGIC and read.varuint() == 1, "no OpenTimestamps proof")
    need(read.take(1) == b"\x08", "not of a SHA-256 digest")
    digest = read.take(32)
    found: list[tuple[bytes, bytes, bytes]] = []
    _ots_node(read, digest, found, 0)
    read.end()
    return digest, found


def _ots_node(
    read: Reader, message: bytes, found: list[tuple[bytes, bytes, bytes]], depth: int
) -> None:
    need(depth < 256, "a walk that is too long")
    tag = read.take(1)[0]
    while tag == 0xFF:
        _ots_item(read, read.take(1)[0], message, found, depth)
        tag = read.take(1)[0]
    _ots_item(read, tag, message, found, depth)


def _ots_item(
    read: Reader, tag: int, message: bytes, found: list[tuple[bytes, bytes, bytes]], depth: int
) -> None:
    if tag == 0x00:
        found.append((message, read.take(8), read.take(read.varuint())))
        return
    if tag in (0xF0, 0xF1):
        argument = read.take(read.varuint())
        message = message + argument if tag == 0xF0 else argument + message
    else:
        need(tag in _HASHES, f"operation {tag:02x} is not one that this program writes")
        message = hashlib.new(_HASHES[tag], message).digest()
    need(len(message) <= 4096, "a message that is too long")
    _ots_node(read, message, found, depth + 1)
