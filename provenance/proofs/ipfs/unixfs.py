"""Folders and files of IPFS, read block by block from a CID that is all one trusts.

Every block is held against its CID before a byte of it is used. A ``raw`` block is a file's
bytes. A ``dag-pb`` block (ipld.io/specs/codecs/dag-pb) is a protobuf ``PBNode``::

    PBNode { Links: repeated PBLink = 2, Data: bytes = 1 }
    PBLink { Hash: bytes = 1, Name: string = 2, Tsize: uint64 = 3 }

whose ``Data`` is UnixFS version 1 (specs.ipfs.tech/unixfs)::

    Data { Type: enum = 1, Data: bytes = 2, filesize: uint64 = 3,
           blocksizes: repeated uint64 = 4, hashType: uint64 = 5, fanout: uint64 = 6,
           mode: uint32 = 7, mtime: message = 8 }

``Type`` is 0 raw, 1 directory, 2 file, 5 HAMT shard (a large directory over several blocks:
the first hex digits of a link's name are its place in the shard, the rest is the entry's
name). Links (4) and metadata (3) are refused, and so is every hash but SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from provenance.errors import FormatError, IntegrityError, TooLargeError, TruncatedError
from provenance.proofs.ipfs.cid import DAG_PB, RAW, SHA2_256, Cid, decode_cid

MAX_BLOCK_BYTES: Final = 2 * 1024**2
"""What IPFS nodes exchange (specs.ipfs.tech/bitswap-protocol)."""
MAX_BLOCKS: Final = 250_000
MAX_BYTES: Final = 512 * 1024**2
MAX_DEPTH: Final = 32
"""Folders, shards and layers of chunks below the root, together."""
_MAX_LINKS: Final = 20_000
_MAX_NAME: Final = 1024
_FILE_TYPES: Final = (0, 2)
_DIRECTORY: Final = 1
_SHARD: Final = 5
_TYPES: Final = {0: "raw", 1: "directory", 2: "file", 3: "metadata", 4: "symlink", 5: "shard"}

GetBlock = Callable[[Cid], bytes]


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a node; ``size`` is what the writer says that all below it takes."""

    cid: Cid
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded dag-pb block."""

    kind: int
    data: bytes
    size: int | None
    block_sizes: tuple[int, ...]
    fanout: int | None
    links: tuple[Link, ...]


def check_cid(cid: Cid) -> Cid:
    """The CID, where it is one of a raw or dag-pb block by SHA-256, or ``FormatError``."""
    if cid.function != SHA2_256 or len(cid.digest) != hashlib.sha256().digest_size:
        raise FormatError(f"{cid}: hash function {cid.function:#x}, expected SHA-256")
    if cid.codec not in (RAW, DAG_PB):
        raise FormatError(f"{cid}: codec {cid.codec:#x}, expected raw or dag-pb")
    return cid


def read_folder(root: Cid, get: GetBlock) -> dict[str, bytes]:
    """All files below a folder, by path; ``get`` fetches a block by its CID, which is checked here.
    ``IntegrityError`` for a block or size that is not as stated, else ``FormatError``."""
    walk = _Walk(get)
    walk.folder(root, "", 0)
    return walk.files


@dataclass(slots=True)
class _Walk:
    get: GetBlock
    files: dict[str, bytes] = field(default_factory=dict)
    blocks: int = 0
    total: int = 0

    def folder(self, cid: Cid, path: str, depth: int) -> None:
        if cid.codec != DAG_PB:
            raise FormatError(f"{path or cid}: is a file, expected a folder")
        node = self.node(cid, path)
        if node.kind not in (_DIRECTORY, _SHARD):
            raise FormatError(f"{path or cid}: is a {_TYPES[node.kind]}, expected a folder")
        self.entries(node, path, depth, set())

    def entries(self, node: Node, path: str, depth: int, seen: set[str]) -> None:
        """One folder's entries, or those of one of its shards."""
        self.check_depth(path, depth)
        digits = len(f"{(node.fanout or 1) - 1:x}") if node.kind == _SHARD else 0
        for link in node.links:
            name = link.name[digits:]
            if digits and not name:
                shard = self.node(link.cid, path)
                if shard.kind != _SHARD:
                    raise FormatError(f"{path or '.'}: a shard that is a {_TYPES[shard.kind]}")
                self.entries(shard, path, depth + 1, seen)
                continue
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise FormatError(f"{path or '.'}: an entry named {name[:80]!r}")
            if name in seen:
                raise FormatError(f"{path or '.'}: two entries named {name[:80]!r}")
            seen.add(name)
            self.entry(link.cid, f"{path}/{name}" if path else name, depth + 1)

    def entry(self, cid: Cid, path: str, depth: int) -> None:
        if cid.codec != DAG_PB:
            self.files[path] = self.leaf(cid, path)
            return
        node = self.node(cid, path)
        if node.kind in (_DIRECTORY, _SHARD):
            self.entries(node, path, depth, set())
        else:
            parts: list[bytes] = []
            self.chunks(node, path, depth, parts)
            self.files[path] = b"".join(parts)

    def chunks(self, node: Node, path: str, depth: int, parts: list[bytes]) -> int:
        """A file's bytes in order, appended to ``parts``; how many there are."""
        self.check_depth(path, depth)
        if node.kind not in _FILE_TYPES:
            raise FormatError(f"{path}: is a {_TYPES[node.kind]}, expected a file or folder")
        if len(node.block_sizes) != len(node.links):
            raise FormatError(f"{path}: {len(node.links)} parts, sizes of {len(node.block_sizes)}")
        self.count(len(node.data))
        parts.append(node.data)
        length = len(node.data)
        for link, stated in zip(node.links, node.block_sizes, strict=True):
            if link.cid.codec == DAG_PB:
                found = self.chunks(self.node(link.cid, path), path, depth + 1, parts)
            else:
                parts.append(self.leaf(link.cid, path))
                found = len(parts[-1])
            if found != stated:
                raise IntegrityError(f"{path}: a part of {found} bytes, stated as {stated}")
            length += found
        if node.size is not None and node.size != length:
            raise IntegrityError(f"{path}: has {length} bytes, stated as {node.size}")
        return length

    def leaf(self, cid: Cid, path: str) -> bytes:
        data = self.block(cid, path)
        self.count(len(data))
        return data

    def node(self, cid: Cid, path: str) -> Node:
        block = self.block(cid, path)
        try:
            return decode_node(block)
        except FormatError as error:
            raise type(error)(f"{path or cid}: {error}") from error

    def block(self, cid: Cid, path: str) -> bytes:
        self.blocks += 1
        if self.blocks > MAX_BLOCKS:
            raise TooLargeError(f"{path or cid}: more than {MAX_BLOCKS} blocks")
        block = self.get(check_cid(cid))
        if len(block) > MAX_BLOCK_BYTES:
            raise TooLargeError(f"{cid}: a block of more than {MAX_BLOCK_BYTES} bytes")
        if hashlib.sha256(block).digest() != cid.digest:
            raise IntegrityError(f"{cid}: these are other bytes than the CID's")
        return block

    def count(self, more: int) -> None:
        self.total += more
        if self.total > MAX_BYTES:
            raise TooLargeError(f"more than {MAX_BYTES} bytes under one CID")

    def check_depth(self, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise TooLargeError(f"{path[:120]}: more than {MAX_DEPTH} layers deep")


def decode_node(block: bytes) -> Node:
    """Read a dag-pb block that holds UnixFS; ``FormatError`` for metadata and links too."""
    links: list[Link] = []
    data: bytes | None = None
    for number, value in _fields(block):
        if number == 1 and isinstance(value, bytes) and data is None:
            data = value
        elif number == 2 and isinstance(value, bytes):
            links.append(_link(value))
            if len(links) > _MAX_LINKS:
                raise TooLargeError(f"dag-pb: more than {_MAX_LINKS} links")
        else:
            raise FormatError(f"dag-pb: field {number} is unknown, double, or of another type")
    if data is None:
        raise FormatError("dag-pb: no UnixFS data")
    return _unixfs(data, tuple(links))


def _link(data: bytes) -> Link:
    cid: Cid | None = None
    name, size = "", 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            cid = _binary_cid(value)
        elif number == 2 and isinstance(value, bytes) and len(value) <= _MAX_NAME:
            try:
                name = value.decode()
            except UnicodeDecodeError as error:
                raise FormatError("dag-pb: a link's name is not UTF-8") from error
        elif number == 3 and isinstance(value, int):
            size = value
        else:
            raise FormatError(f"dag-pb: field {number} of a link is unknown or too long")
    if cid is None:
        raise FormatError("dag-pb: a link without a CID")
    return Link(cid, name, size)


def _binary_cid(data: bytes) -> Cid:
    """A CID as bytes: version 0 is the bare multihash."""
    if data[:2] == b"\x12\x20" and len(data) == 34:
        return Cid(0, DAG_PB, SHA2_256, data[2:])
    return decode_cid("f" + data.hex())


def _unixfs(data: bytes, links: tuple[Link, ...]) -> Node:
    kind: int | None = None
    inline = b""
    size: int | None = None
    fanout: int | None = None
    sizes: list[int] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, bytes):
            inline = value
        elif number == 3 and isinstance(value, int):
            size = value
        elif number == 4 and isinstance(value, int):
            sizes.append(value)
        elif number == 4 and isinstance(value, bytes):
            at = 0
            while at < len(value):
                item, at = _varint(value, at)
                sizes.append(item)
        elif number == 6 and isinstance(value, int):
            fanout = value
        elif number not in (5, 7, 8):
            raise FormatError(f"UnixFS: field {number} is unknown or of another type")
    if kind not in _TYPES:
        raise FormatError(f"UnixFS: type {kind} is unknown")
    if _TYPES[kind] in ("metadata", "symlink"):
        raise FormatError(f"UnixFS: a {_TYPES[kind]}; a bundle has none")
    if kind == _SHARD and (fanout is None or not 8 <= fanout <= 1024 or fanout & (fanout - 1)):
        raise FormatError(f"UnixFS: a shard with fanout {fanout}")
    return Node(kind, inline if kind in _FILE_TYPES else b"", size, tuple(sizes), fanout, links)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Protobuf wire format: fields of type varint and bytes, nothing else."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value, at = _varint(data, at)
        if wire == 0:
            found.append((number, value))
        elif wire == 2:
            if at + value > len(data):
                raise TruncatedError("protobuf: a field runs over the end")
            found.append((number, data[at : at + value]))
            at += value
        else:
            raise FormatError(f"protobuf: wire type {wire}")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise TruncatedError("protobuf: it ends inside a varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise FormatError("protobuf: a varint of more than 10 bytes")
