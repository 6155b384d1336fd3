"""Item sets and proofs about items (section 3.6).

``python tests/stranger/items.py BUNDLE PROOF FILE...`` says whether a proof shows what it claims of
items, each the bytes of one in a file of its own. Beside the standard library it needs ``blake3``.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

from formats import canonical, leaf, mth, need, node, parse, sha256, tensor_header, unbase64, unhex

SET = {"v", "root", "size", "count", "key", "form"}
PROOF = {"v", "run", "split", "record", "claim", "key", "leaves", "digests", "siblings"}


def whole(value: Any, least: int, most: int = 2**63 - 1) -> int:
    need(type(value) is int and least <= value <= most, "no whole number, or out of range")
    return int(value)


def check_set(record: dict[str, Any]) -> None:
    """What a record of data states of its items."""
    body = record["body"]
    if record["kind"] not in ("data.train", "data.test") or "items" not in body:
        return
    items = body["items"]
    need(set(items) == SET and canonical(items["v"]) == b"1", "items: other fields or version")
    count = whole(items["count"], 0)
    need(count == body["count"], "items: another count than the record's")
    whole(items["size"], min(count, 1), count)
    prefix, _, root = items["root"].partition(":")
    need(prefix == "mth-sha256", "items: another root")
    unhex(root, 32), unhex(items["key"], 32)
    if items["form"] is not None:
        need(1 <= len(items["form"]) <= 64, "items: a form of no nodes, or too many")
    for own in items["form"] or ():
        need(set(own) == {"name", "dtype", "shape"}, "items: a node of other fields")
        need(type(own["name"]) is type(own["dtype"]) is str, "items: a node without name or type")
        [whole(size, 0) for size in own["shape"]]


def hashes(text: str) -> list[bytes]:
    data = unbase64(text)
    need(len(data) % 32 == 0, "no hashes of 32 bytes")
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def root_of(shown: dict[int, bytes], first: int, end: int, siblings: list[bytes]) -> bytes:
    """The root of the leaves from ``first`` on; what has none that is shown is the next sibling."""
    at = sorted(shown)
    if bisect_left(at, first) == bisect_left(at, end):
        need(siblings, "siblings are missing")
        return siblings.pop(0)
    if end - first == 1:
        return bytes(leaf(shown[first]))
    middle = first + (1 << (end - first - 1).bit_length() - 1)
    left = root_of(shown, first, middle, siblings)
    return bytes(node(left, root_of(shown, middle, end, siblings)))


def claimed(data: bytes, run: str, bodies: dict[str, Any], items: list[bytes]) -> list[bool]:
    """Whether a proof's claim holds of each item; ``ValueError`` where the proof does not hold.

    ``bodies``: digest and body of each of the run's records, by path.
    """
    from blake3 import blake3

    proof = parse(data)
    need(canonical(proof) == data and set(proof) == PROOF, "no proof in canonical form")
    need(canonical(proof["v"]) == b"1" and proof["run"] == run, "another version, or run")
    need(proof["claim"] in ("in", "not-in") and proof["split"] in ("train", "test"), "no claim")
    path, body = "", dict[str, Any]()
    for place, (digest, stated) in bodies.items():
        if digest == proof["record"]:
            path, body = place, stated
    need(path.startswith(f"data/{proof['split']}/") and "items" in body, "no such record")
    own, key = body["items"], unhex(proof["key"], 32)
    commitment = sha256(b"ml-provenance/item-key/v1\0" + key).hex()
    need(commitment == own["key"], "another key")
    size, digests, places = own["size"], hashes(proof["digests"]), list[int]()
    shown: dict[int, bytes] = {}
    leaves = -(-size // 4)
    last = -1
    for at in proof["leaves"]:
        need(type(at) is int and last < at < leaves, "leaves that are none, or out of order")
        end = min(4 * at + 4, size)
        shown[at] = b"".join(digests[len(places) : len(places) + end - 4 * at])
        places += range(4 * at, end)
        last = at
    need(len(digests) == len(places), "more or fewer digests than the leaves have")
    need(sorted(set(digests)) == digests, "digests that do not ascend")
    siblings = hashes(proof["siblings"])
    root = root_of(shown, 0, leaves, siblings) if leaves else sha256(b"")
    need(not siblings and f"mth-sha256:{root.hex()}" == own["root"], "another root")
    found = []
    for item in items:
        digest = blake3(item, key=key).digest()
        at = bisect_left(digests, digest)
        is_in = at < len(digests) and digests[at] == digest
        below = places[at - 1] if at else -1
        above = places[at] if at < len(places) else size
        absent = not is_in and above == below + 1
        found.append(is_in if proof["claim"] == "in" else absent)
    return found


def element(text: bytes, label: int) -> bytes:
    """``{"text": ..., "label": ...}``: a dict, then its values by key."""
    digest: bytes = sha256(
        tensor_header("[]", "DICT", [2])
        + tensor_header('["label"]', "I64", []) + label.to_bytes(8, "little")
        + tensor_header('["text"]', "UTF8", []) + len(text).to_bytes(8, "little") + text
    )  # fmt: skip
    return digest


def item_sets(look: Any) -> None:
    """The worked examples."""
    from blake3 import blake3

    key = bytes([8]) * 32
    head = tensor_header("[]", "U8", [2])
    need(look.hex("item") == head + bytes([0, 1]), "the item")
    data = look.exact("item-record")
    record = parse(data)
    need(canonical(record) == data, "the record is not canonical")
    check_set(record)
    rows = [head + bytes([2 * at, 2 * at + 1]) for at in range(6)]
    digests = sorted(blake3(row, key=key).digest() for row in rows)
    root = mth([b"".join(digests[:4]), b"".join(digests[4:])])
    need(record["body"]["items"]["root"] == f"mth-sha256:{root.hex()}", "the set's root")
    bodies = {"data/train/0": (sha256(data).hex(), record["body"])}
    proof, asked = look.exact("item-proof"), [head + bytes([9, 9]), *rows]
    found = claimed(proof, look.json("keys")["run"], bodies, asked)
    need(found == [True, *[False] * 6], "the proof about items")


def main(arguments: list[str]) -> int:
    from verify import Bundle, load

    bundle = Bundle(load(Path(arguments[0])))
    records = [r for r in bundle.run["records"] if r["path"] in bundle.bodies]
    bodies = {r["path"]: (r["digest"], bundle.bodies[r["path"]]) for r in records}
    items = [Path(name).read_bytes() for name in arguments[2:]]
    try:
        need(not bundle.problems, "the bundle does not hold")
        found = claimed(Path(arguments[1]).read_bytes(), bundle.run["run"], bodies, items)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        print(f"{arguments[1]}: {error}")
        return 1
    print(f"{sum(found)} of {len(found)} as claimed")
    return 0 if found and all(found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
