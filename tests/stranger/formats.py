"""Formats read by a stranger: written from docs/FORMAT.md, from nothing else.

Imports nothing of the program that it checks. Every function raises where something does
not hold.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BEFORE = {"data.train", "data.test", "model.architecture", "model.weights", "config"}
LAST = ("results", "steps", "artifact", "note", "seed", "host")
ANYWHERE = tuple(f"training/{name}" for name in ("epoch/", *LAST))
LEAVES = BEFORE | {"state", "metrics", "privacy"} | set(LAST)
CONTROL = {"run.seal", "run.end", "gap"}


def need(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def unhex(text: Any, size: int | None = None) -> bytes:
    count = "*" if size is None else f"{{{size}}}"
    need(isinstance(text, str) and re.fullmatch(f"([0-9a-f]{{2}}){count}", text), "no lower hex")
    return bytes.fromhex(text)


def hashes_of(texts: Any) -> list[bytes]:
    need(isinstance(texts, list), "no list of hashes")
    return [unhex(text, 32) for text in texts]


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "no canonical base64")
    return data


def lines(document: dict[str, Any]) -> bytes:
    """The form of an index (9.1): a key, or the item of a list, on each line."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    def listed(value: Any) -> str:
        items = ",\n".join(map(text, value)) if isinstance(value, list) else ""
        return f"[\n{items}\n]" if items else text(value)

    keys = ",\n".join(f"{text(key)}:{listed(document[key])}" for key in sorted(document))
    return f"{{\n{keys}\n}}\n".encode()


# --- canonical JSON (section 1) ----------------------------------------------------------


def parse(data: bytes) -> Any:
    def whole(text: str) -> int | float:
        return int(text) if abs(int(text)) < 2**53 else float(int(text))

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "an object has a key twice")
        return dict(pairs)

    return json.loads(data.decode("utf-8"), parse_int=whole, object_pairs_hook=once)


def canonical(value: Any) -> bytes:
    """RFC 8785."""
    return _text(value).encode("utf-8")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """ECMAScript Number::toString."""
    need(abs(value) < float("inf"), "a number that is not finite")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{point - 1:+d}"
    return ("-" if value < 0 else "") + text


# --- Merkle trees (section 4) ------------------------------------------------------------


def leaf(data: bytes) -> bytes:
    return sha256(b"\x00" + data)


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def mth(entries: list[bytes]) -> bytes:
    if len(entries) < 2:
        return leaf(entries[0]) if entries else sha256(b"")
    split = 1 << (len(entries) - 1).bit_length() - 1
    return node(mth(entries[:split]), mth(entries[split:]))


def included(entry: bytes, index: int, size: int, proof: list[bytes]) -> tuple[bytes, bytes]:
    """RFC 9162, 2.1.3.2: the root, and the bytes whose SHA-256 it is."""
    need(type(index) is int and type(size) is int and 0 <= index < size, "no such entry")
    at, last, last_bytes = index, size - 1, b"\x00" + entry
    for sibling in proof:
        need(last, "the proof is too long")
        running = sha256(last_bytes)
        if at & 1 or at == last:
            last_bytes = b"\x01" + sibling + running
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            last_bytes = b"\x01" + running + sibling
        at, last = at >> 1, last >> 1
    need(last == 0, "the proof is too short")
    return sha256(last_bytes), last_bytes


def grew(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> None:
    """RFC 9162, 2.1.4.2."""
    need(0 < old <= new, "sizes that cannot be")
    if old == new:
        need(not proof and old_root == new_root, "the ledger changed")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else proof
    need(path, "the proof is empty")
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    mine = theirs = path[0]
    for sibling in path[1:]:
        need(last, "the proof is too long")
        if at & 1 or at == last:
            mine, theirs = node(sibling, mine), node(sibling, theirs)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            theirs = node(theirs, sibling)
        at, last = at >> 1, last >> 1
    need(last == 0 and (mine, theirs) == (old_root, new_root), "the ledger did not only grow")


# --- the run tree (section 5) ------------------------------------------------------------


def sort_key(record: dict[str, Any]) -> tuple[Any, ...]:
    return (record["rank"], record["ts"], record["producer"], record["seq"], record["digest"])


def seal_marks(records: list[dict[str, Any]], bodies: dict[str, dict[str, Any]]) -> list[Any]:
    """``(phase, epoch, producer, seq)`` in order of (ts, producer, seq)."""
    marks = []
    for record in sorted(records, key=lambda r: (r["ts"], r["producer"], r["seq"])):
        body = bodies.get(record["path"], {}) if record["kind"] == "run.seal" else {}
        phase, epoch = body.get("phase"), body.get("epoch")
        whole = type(epoch) is int and 0 <= epoch < 2**53
        if (phase == "checkpoint" and whole) or (phase in ("before", "after") and epoch is None):
            marks.append((phase, epoch, record["producer"], record["seq"]))
    first: dict[Any, int] = {}
    for phase, epoch, producer, seq in marks:
        first[phase, epoch, producer] = min(seq, first.get((phase, epoch, producer), seq))
    return [mark for mark in marks if first[mark[:3]] == mark[3]]


class Trees:
    """The trees at a run's seals, each from the one before: an epoch is looked at once."""

    def __init__(self, records: list[dict[str, Any]], marks: list[Any]) -> None:
        leader = next((m for m in marks if m[0] == "before"), None)
        enders = {m[2] for m in marks if m[0] == "after"} | ({leader[2]} if leader else set())
        self.slots: dict[str, list[str]] = {}
        self.waiting: dict[int, list[dict[str, Any]]] = {}
        self.closing: dict[str, list[str]] = {kind: [] for kind in LAST}
        self.free: list[tuple[str, int]] = []
        for record in sorted(records, key=sort_key):
            kind, producer = record["kind"], record["producer"]
            if kind in BEFORE:  # rule 2
                if leader is not None and producer == leader[2] and record["seq"] < leader[3]:
                    slot = "/".join(kind.split(".")) if "." in kind else f"training/{kind}"
                    self.slots.setdefault(slot, []).append(record["digest"])
            elif kind in LAST:  # rules 5 and 6
                if kind != "results" or producer in enders:
                    self.closing[kind].append(record["digest"])
                if kind != "results":
                    self.free.append((producer, record["seq"]))
            elif kind in LEAVES:
                self.waiting.setdefault(record["epoch"], []).append(record)
        self.ahead = sorted(self.waiting, reverse=True)
        self.tops = [self._pair("data", ("train", "test")),
                     self._pair("model", ("architecture", "weights"))]  # fmt: skip
        self.full: list[tuple[int, bytes]] = []
        self.highest, self.last = -1, ""
        self._append(*self._entries("training/config"))

    def seal(self, phase: str, epoch: int | None, covered: dict[str, int]) -> dict[str, int]:
        """Go on to a seal; what a checkpoint has to state as its coverage."""
        order = ("before", "checkpoint", "after")
        forward = (order.index(phase), -1 if epoch is None else epoch)
        need(forward > (order.index(self.last or "before"), self.highest) or not self.last,
             f"what was sealed is no prefix at {phase}")  # fmt: skip
        self.last, self.highest = phase, max(self.highest, -1 if epoch is None else epoch)
        coverage: dict[str, int] = {}
        while self.ahead and (phase == "after" or self.ahead[-1] <= self.highest):  # rule 3
            number = self.ahead.pop()
            for record in self.waiting[number]:
                producer, seq = record["producer"], record["seq"]
                if phase == "after" or seq < covered.get(producer, 0):  # rule 4
                    slot = f"training/epoch/{number}/{record['kind']}"
                    self.slots.setdefault(slot, []).append(record["digest"])
                    coverage[producer] = max(seq + 1, coverage.get(producer, 0))
            kinds = ("state", "metrics", "privacy")
            if any(f"training/epoch/{number}/{kind}" in self.slots for kind in kinds):
                self._append(self._pair(f"training/epoch/{number}", kinds))
        for producer, seq in self.free if phase == "checkpoint" else ():  # rule 6
            if seq < covered.get(producer, 0):
                coverage[producer] = max(seq + 1, coverage.get(producer, 0))
        if phase == "after":
            for kind, digests in self.closing.items():
                self.slots[f"training/{kind}"] = digests
                self._append(*self._entries(f"training/{kind}"))
        return coverage

    def root(self, producers: bytes) -> bytes:
        training = self.full[-1][1] if self.full else mth([])
        for _, left in reversed(self.full[:-1]):
            training = node(left, training)
        return mth([*self.tops, training, producers])

    def places(self) -> dict[str, str]:
        """Each leaf's digest by path."""
        found: dict[str, str] = {}
        for slot, digests in self.slots.items():
            single = slot in ("training/config", *(f"training/{kind}" for kind in LAST))
            for at, digest in enumerate(digests):
                found[slot if single and not at else f"{slot}/{at}"] = digest
        return found

    def _append(self, *entries: bytes) -> None:
        """``full``: height and root of each complete subtree, largest first."""
        for entry in entries:
            height, value = 0, leaf(entry)
            while self.full and self.full[-1][0] == height:
                value = node(self.full.pop()[1], value)
                height += 1
            self.full.append((height, value))

    def _entries(self, slot: str) -> list[bytes]:
        return [bytes.fromhex(digest) for digest in self.slots.get(slot, [])]

    def _pair(self, top: str, names: Iterable[str]) -> bytes:
        return mth([mth(self._entries(f"{top}/{name}")) for name in names])


# --- signed notes (section 7) ------------------------------------------------------------


WEAK = {
    "00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}  # fmt: skip
"""Keys that anybody can sign for."""


def verify_signature(key: bytes, signature: bytes, message: bytes) -> None:
    need((key[:31] + bytes([key[31] & 127])).hex() not in WEAK, "a key that anybody signs for")
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def read_note(note: str, vkey: str | None) -> tuple[int, bytes]:
    """Size and root of a checkpoint that the key signed."""
    need(note.endswith("\n") and len(note) <= 1_000_000, "the note does not end")
    text, separator, block = note.rpartition("\n\n")
    need(separator, "the note has no signatures")
    origin, size, root, *_ = [*text.split("\n"), "", "", ""]
    need(re.fullmatch("0|[1-9][0-9]{0,18}", size) and len(unbase64(root)) == 32, "no checkpoint")
    good = 0
    for line in block.split("\n")[:-1]:
        match = re.fullmatch("— ([^ +]+) ([^ ]+)", line)
        need(match, "a line that is no signature")
        assert match
        blob = unbase64(match[2])
        if vkey is None:
            continue
        name, key_id, encoded = vkey.split("+", 2)
        key = unbase64(encoded)
        need(key[:1] == b"\x01" and len(key) == 33, "no Ed25519 verifier key")
        need(sha256(name.encode() + b"\n" + key)[:4].hex() == key_id, "the key id is another")
        if (match[1], blob[:4].hex()) == (name, key_id):
            verify_signature(key[1:], blob[4:], f"{text}\n".encode())
            need(origin == name, "the head is of another ledger")
            good += 1
    need(good or vkey is None, "not signed by the ledger's key")
    return int(size), unbase64(root)


# --- the local file (section 8) ----------------------------------------------------------


def check_local(anchor: dict[str, Any], told: dict[str, Any], key: str | None) -> None:
    line = parse(told["line"].encode())
    need(canonical(line) == told["line"].encode() and line["v"] == 1, "not in canonical form")
    need(line["payload"] == anchor["payload"], "the line carries another payload")
    need(anchor["transaction_id"] == "local:" + sha256(unhex(line["payload"], 36)).hex()[:32],
         "another id")  # fmt: skip
    signature, public = unhex(line.pop("signature"), 64), unhex(told["public_key"], 32)
    need(not key or unbase64(key.split("+", 2)[2])[1:] == public, "of another key")
    digest, ts = sha256(told["line"].encode()).hex(), datetime.fromisoformat(line["ts"])
    stated = (anchor["height"], anchor["block_hash"], anchor["block_time"])
    need(stated == (line["seq"], digest, ts.timestamp()), "another line or time")
    message = b"ml-provenance/local/v1\0" + canonical(line)
    verify_signature(public, signature, message)


# --- salts and tensors (sections 1 and 3) ------------------------------------------------


def salt(key: bytes, producer: bytes, seq: int) -> bytes:
    return hmac.new(key, producer + seq.to_bytes(8, "big"), hashlib.sha256).digest()


def tensor_header(name: str, dtype: str, shape: list[int]) -> bytes:
    text = canonical({"dtype": dtype, "name": name, "shape": shape, "v": 1})
    return len(text).to_bytes(4, "little") + text


def content_digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == "blake3":
        import blake3

        return bytes(blake3.blake3(data).digest())
    return hashlib.new(algorithm.replace("-", "_"), data).digest()


def tensor_digest(algorithm: str, name: str, dtype: str, shape: list[int], data: bytes) -> str:
    """``data``: the elements, little-endian and row-major."""
    whole = tensor_header(name, dtype, shape) + data
    return f"{algorithm}:{content_digest(algorithm, whole).hex()}"


def state_root(tensors: list[dict[str, Any]]) -> str:
    """Over name and digest of each tensor, as a state record lists them."""
    ordered = sorted(tensors, key=lambda tensor: tensor["name"].encode())
    digests = [bytes.fromhex(tensor["digest"].partition(":")[2]) for tensor in ordered]
    return "mth-sha256:" + mth(digests).hex()
