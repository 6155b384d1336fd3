"""Folders by CID: known blocks decode, and no block is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    FormatError,
    IntegrityError,
    ProvenanceError,
    TooLargeError,
    TruncatedError,
)
from provenance.proofs.ipfs import unixfs
from provenance.proofs.ipfs.cid import DAG_PB, SHA2_256, Cid, decode_cid, raw_cid
from provenance.proofs.ipfs.unixfs import decode_node, read_folder

DIRECTORY = b"\x08\x01"
EMPTY_FOLDER = bytes.fromhex("0a020801")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def binary(cid: Cid) -> bytes:
    multihash = b"\x12\x20" + cid.digest
    return multihash if cid.version == 0 else b"\x01" + varint(cid.codec) + multihash


class Blocks:
    """A store of blocks by CID, and what was asked of it."""

    def __init__(self) -> None:
        self.held: dict[Cid, bytes] = {}
        self.asked: list[Cid] = []

    def get(self, cid: Cid) -> bytes:
        self.asked.append(cid)
        return self.held[cid]

    def raw(self, data: bytes) -> Cid:
        self.held[raw_cid(data)] = data
        return raw_cid(data)

    def put(self, block: bytes, version: int = 1) -> Cid:
        cid = Cid(version, DAG_PB, SHA2_256, hashlib.sha256(block).digest())
        self.held[cid] = block
        return cid

    def node(self, data: bytes, links: list[tuple[str, Cid]], version: int = 1) -> Cid:
        body = b"".join(
            field(2, field(1, binary(cid)) + field(2, name.encode()) + field(3, 0))
            for name, cid in links
        )
        return self.put(body + field(1, data), version)

    def folder(self, entries: Mapping[str, Cid], version: int = 1) -> Cid:
        return self.node(DIRECTORY, sorted(entries.items()), version)

    def file(self, parts: list[tuple[Cid, int]], inline: bytes = b"", packed: bool = False) -> Cid:
        sizes = [size for _, size in parts]
        total = len(inline) + sum(sizes)
        data = field(1, 2) + (field(2, inline) if inline else b"") + field(3, total)
        if packed:
            data += field(4, b"".join(map(varint, sizes)))
        else:
            data += b"".join(field(4, size) for size in sizes)
        return self.node(data, [("", cid) for cid, _ in parts])


def test_the_empty_folder_is_the_one_everybody_knows() -> None:
    blocks = Blocks()
    assert str(blocks.put(EMPTY_FOLDER)) == (
        "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    )
    known = decode_cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
    assert blocks.put(EMPTY_FOLDER, version=0) == known
    assert read_folder(known, blocks.get) == {}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_files_of_several_layers_are_read(version: int, packed: bool) -> None:
    blocks = Blocks()
    one, two, three = blocks.raw(b"one"), blocks.raw(b"twotwo"), blocks.raw(b"3")
    middle = blocks.file([(one, 3), (two, 6)], packed=packed)
    large = blocks.file([(middle, 9), (three, 1), (one, 3)], packed=packed)
    old_leaf = blocks.node(field(1, 0) + field(2, b"old") + field(3, 3), [])
    inner = blocks.folder({"large": large, "old": old_leaf, "empty": blocks.raw(b"")}, version)
    root = blocks.folder({"inner": inner, "a": one, "none": blocks.put(EMPTY_FOLDER)}, version)
    assert read_folder(root, blocks.get) == {
        "a": b"one",
        "inner/large": b"onetwotwo3one",
        "inner/old": b"old",
        "inner/empty": b"",
    }


def test_a_file_with_bytes_of_its_own_before_its_parts() -> None:
    blocks = Blocks()
    file = blocks.file([(blocks.raw(b"tail"), 4)], inline=b"head ")
    assert read_folder(blocks.folder({"f": file}), blocks.get) == {"f": b"head tail"}


def test_shards_are_one_folder() -> None:
    blocks = Blocks()
    shard = field(1, 5) + field(2, b"\xff") + field(5, 0x22) + field(6, 256)
    deep = blocks.node(shard, [("0Ac.json", blocks.raw(b"c")), ("FFd", blocks.raw(b"d"))])
    top = blocks.node(shard, [("00", deep), ("A1a.json", blocks.raw(b"a")), ("A2", deep)])
    root = blocks.folder({"epoch": blocks.node(shard, [("00", deep), ("A1a", blocks.raw(b"a"))])})
    assert read_folder(root, blocks.get) == {
        "epoch/c.json": b"c",
        "epoch/d": b"d",
        "epoch/a": b"a",
    }
    with pytest.raises(FormatError, match="two entries named 'c.json'"):
        read_folder(top, blocks.get)
    with pytest.raises(FormatError, match="a shard that is a directory"):
        read_folder(blocks.node(shard, [("00", blocks.put(EMPTY_FOLDER))]), blocks.get)


@pytest.mark.parametrize("which", range(5))
def test_a_block_of_other_bytes_is_refused(which: int) -> None:
    blocks = Blocks()
    file = blocks.file([(blocks.raw(b"one"), 3), (blocks.raw(b"two"), 3)])
    root = blocks.folder({"folder": blocks.folder({"file": file})})
    assert read_folder(root, blocks.get) == {"folder/file": b"onetwo"}
    victim = blocks.asked[which]
    flipped = bytearray(blocks.held[victim])
    flipped[-1] ^= 1
    blocks.held[victim] = bytes(flipped)
    with pytest.raises(IntegrityError, match=f"{victim}: these are other bytes"):
        read_folder(root, blocks.get)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 2000])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    blocks = Blocks()
    with pytest.raises(FormatError, match="an entry named|too long"):
        read_folder(blocks.node(DIRECTORY, [(name, blocks.raw(b"x"))]), blocks.get)


def test_two_entries_of_one_name_are_refused() -> None:
    blocks = Blocks()
    root = blocks.node(DIRECTORY, [("a", blocks.raw(b"x")), ("a", blocks.raw(b"y"))])
    with pytest.raises(FormatError, match="two entries named 'a'"):
        read_folder(root, blocks.get)


def test_what_is_no_folder_is_said() -> None:
    blocks = Blocks()
    with pytest.raises(FormatError, match="is a file, expected a folder"):
        read_folder(blocks.raw(b"x"), blocks.get)
    with pytest.raises(FormatError, match="is a file, expected a folder"):
        read_folder(blocks.file([]), blocks.get)
    link = blocks.node(field(1, 4) + field(2, b"/etc/passwd"), [])
    with pytest.raises(FormatError, match="a: UnixFS: a symlink; a bundle has none"):
        read_folder(blocks.folder({"a": link}), blocks.get)
    meta = blocks.node(field(1, 3), [])
    with pytest.raises(FormatError, match="UnixFS: a metadata"):
        read_folder(meta, blocks.get)
    part = blocks.file([(blocks.put(EMPTY_FOLDER), 0)])
    with pytest.raises(FormatError, match="a: is a directory, expected a file"):
        read_folder(blocks.folder({"a": part}), blocks.get)


@pytest.mark.parametrize(
    "cid",
    [
        Cid(1, DAG_PB, 0x13, bytes(64)),
        Cid(1, DAG_PB, 0x00, b"inline"),
        Cid(1, DAG_PB, SHA2_256, bytes(20)),
        Cid(1, 0x71, SHA2_256, bytes(32)),
    ],
)
def test_other_hashes_and_codecs_are_refused_before_they_are_asked_for(cid: Cid) -> None:
    blocks = Blocks()
    with pytest.raises(FormatError, match="expected|is a file"):
        read_folder(cid, blocks.get)
    assert blocks.asked == []


def test_sizes_that_are_not_those_stated_are_refused() -> None:
    blocks = Blocks()
    one = blocks.raw(b"one")
    with pytest.raises(IntegrityError, match="f: a part of 3 bytes, stated as 4"):
        read_folder(blocks.folder({"f": blocks.file([(one, 4)])}), blocks.get)
    wrong = blocks.node(field(1, 2) + field(3, 9) + field(4, 3), [("", one)])
    with pytest.raises(IntegrityError, match="f: has 3 bytes, stated as 9"):
        read_folder(blocks.folder({"f": wrong}), blocks.get)
    unsized = blocks.node(field(1, 2) + field(3, 3), [("", one)])
    with pytest.raises(FormatError, match="f: 1 parts, sizes of 0"):
        read_folder(blocks.folder({"f": unsized}), blocks.get)


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Blocks()
    nest = blocks.folder({"f": blocks.raw(b"x")})
    for _ in range(unixfs.MAX_DEPTH - 1):
        nest = blocks.folder({"d": nest})
    assert len(read_folder(nest, blocks.get)) == 1
    for _ in range(2):
        nest = blocks.folder({"d": nest})
    with pytest.raises(TooLargeError, match="more than 32 layers deep"):
        read_folder(nest, blocks.get)
    chain = blocks.raw(b"x")
    for _ in range(unixfs.MAX_DEPTH + 1):
        chain = blocks.file([(chain, 1)])
    with pytest.raises(TooLargeError, match="layers deep"):
        read_folder(blocks.folder({"f": chain}), blocks.get)
    large = blocks.raw(bytes(unixfs.MAX_BLOCK_BYTES + 1))
    with pytest.raises(TooLargeError, match="a block of more than 2097152 bytes"):
        read_folder(blocks.folder({"f": large}), blocks.get)
    many = blocks.folder({f"f{at}": blocks.raw(b"same") for at in range(30)})
    monkeypatch.setattr(unixfs, "MAX_BLOCKS", 30)
    with pytest.raises(TooLargeError, match="more than 30 blocks"):
        read_folder(many, blocks.get)
    monkeypatch.undo()
    monkeypatch.setattr(unixfs, "MAX_BYTES", 100)
    with pytest.raises(TooLargeError, match="more than 100 bytes under one CID"):
        read_folder(many, blocks.get)
    monkeypatch.setattr(unixfs, "_MAX_LINKS", 20)
    with pytest.raises(TooLargeError, match="more than 20 links"):
        read_folder(many, blocks.get)


def test_a_small_graph_that_unfolds_without_end_stops_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty blocks, two to the thirtieth bytes."""
    blocks = Blocks()
    part, size = blocks.raw(b"12345678"), 8
    for _ in range(27):
        part, size = blocks.file([(part, size), (part, size)]), 2 * size
    monkeypatch.setattr(unixfs, "MAX_BYTES", 10_000)
    with pytest.raises(TooLargeError):
        read_folder(blocks.folder({"bomb": part}), blocks.get)
    assert len(blocks.asked) < 5_000
    empty = blocks.put(EMPTY_FOLDER)
    for _ in range(27):
        empty = blocks.folder({"a": empty, "b": empty})
    monkeypatch.setattr(unixfs, "MAX_BLOCKS", 2_000)
    with pytest.raises(TooLargeError, match="more than 2000 blocks"):
        read_folder(empty, blocks.get)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (b"", "no UnixFS data"),
        (b"\x0a", "ends inside a varint"),
        (b"\x0a\x05\x08", "runs over the end"),
        (b"\x0d\x00\x00\x00\x00", "wire type 5"),
        (field(1, DIRECTORY) * 2, "field 1 is unknown, double"),
        (field(3, b"") + field(1, DIRECTORY), "field 3 is unknown"),
        (field(2, 7) + field(1, DIRECTORY), "field 2 is unknown"),
        (field(1, b""), "type None is unknown"),
        (field(1, field(1, 9)), "type 9 is unknown"),
        (field(1, field(1, 2) + field(9, 1)), "UnixFS: field 9"),
        (field(1, field(1, 5)), "a shard with fanout None"),
        (field(1, field(1, 5) + field(6, 100)), "a shard with fanout 100"),
        (field(1, field(1, 5) + field(6, 2**40)), "a shard with fanout"),
        (field(2, b"") + field(1, DIRECTORY), "a link without a CID"),
        (field(2, field(1, b"\x01\x55")) + field(1, DIRECTORY), "CID"),
        (field(2, field(4, 1)) + field(1, DIRECTORY), "field 4 of a link"),
        (field(2, field(2, b"\xff")) + field(1, DIRECTORY), "not UTF-8"),
        (b"\x0a" + b"\x80" * 11, "a varint of more than 10 bytes"),
    ],
)
def test_blocks_that_do_not_decode_are_named(block: bytes, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        decode_node(block)
    blocks = Blocks()
    with pytest.raises(FormatError, match=f"a/b: .*{told}"):
        read_folder(blocks.folder({"a": blocks.folder({"b": blocks.put(block)})}), blocks.get)


def test_modes_and_times_are_passed_over() -> None:
    data = field(1, 1) + field(7, 0o755) + field(8, field(1, 1_700_000_000))
    assert decode_node(field(1, data)).links == ()


@given(st.binary(max_size=200))
def test_any_block_decodes_or_is_one_line(block: bytes) -> None:
    try:
        decode_node(block)
    except ProvenanceError as error:
        assert isinstance(error, FormatError)
        assert "\n" not in str(error)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}(/[a-z]{5,6}){0,2}", fullmatch=True), st.binary()))
def test_what_is_built_is_read(files: dict[str, bytes]) -> None:
    blocks = Blocks()

    def build(prefix: str) -> Cid:
        entries: dict[str, Cid] = {}
        for path, data in files.items():
            if not path.startswith(prefix):
                continue
            name, slash, _ = path[len(prefix) :].partition("/")
            if slash:
                entries[name] = build(f"{prefix}{name}/")
            elif name not in entries:
                marks = [*range(0, len(data), 7), len(data)]
                parts = [data[a:b] for a, b in pairwise(marks)]
                entries[name] = blocks.file([(blocks.raw(part), len(part)) for part in parts])
        return blocks.folder(entries)

    shadowed = {p for p in files for q in files if q.startswith(f"{p}/")}
    expected = {path: data for path, data in files.items() if path not in shadowed}
    assert read_folder(build(""), blocks.get) == expected


def test_truncation_is_told_as_such() -> None:
    with pytest.raises(TruncatedError):
        decode_node(EMPTY_FOLDER[:-1])
