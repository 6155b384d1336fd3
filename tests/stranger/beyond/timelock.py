"""Time locks, read by a stranger: from docs/FORMAT.md, section 14.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from formats import canonical, hashes_of, need, parse, sha256, unhex

LOCK = {"v", "run", "root", "after", "threshold", "records", "ephemeral", "approvers", "sealed"}
POWERS = [1]
for _ in range(254):
    value = POWERS[-1]
    POWERS.append(value ^ value << 1 ^ (0x11B if value & 0x80 else 0))
LOGARITHMS = {value: at for at, value in enumerate(POWERS)}
LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-")


def times(*factors: int) -> int:
    """A product in the field of AES, by logarithms to the base 3."""
    if not all(factors):
        return 0
    return POWERS[sum(LOGARITHMS[each] for each in factors) % 255]


def combine(shares: dict[int, bytes]) -> bytes:
    """The value at 0 of the polynomials through the shares."""
    secret = bytearray(len(next(iter(shares.values()))))
    for x, share in shares.items():
        factor = 1
        for other in shares:
            if other != x:
                factor = times(factor, other, POWERS[-LOGARITHMS[other ^ x] % 255])
        for at, byte in enumerate(share):
            secret[at] ^= times(byte, factor)
    return bytes(secret)


def whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def read_lock(data: bytes) -> dict[str, Any]:
    need(len(data) <= 1 << 20, "more than 1 MiB")
    lock = parse(data)
    need(canonical(lock) == data and set(lock) == LOCK, "another form")
    need(type(lock["v"]) is int and lock["v"] == 1, "another version")
    after, people = lock["after"], lock["approvers"]
    need(set(after) == {"network", "chain", "height"}, "keys of its height")
    need(after["network"] in ("bitcoin", "ethereum") and whole(after["height"], 1, 2**63 - 1),
         "its height")  # fmt: skip
    chain = after["chain"]
    need(chain and set(chain) <= {"chain_id", "chain", "genesis"}, "its chain")
    need(1 <= len(people) <= 16 and whole(lock["threshold"], 1, len(people)), "its approvers")
    for each in people:
        need(set(each) == {"name", "key", "share"}, "keys of an approver")
        need(1 <= len(each["name"]) <= 64 and LETTERS.issuperset(each["name"]), "a name")
        unhex(each["key"], 32), unhex(each["share"], 48)
    records = hashes_of(lock["records"])
    need(1 <= len(records) <= 4000 and len(set(records)) == len(records), "its records")
    unhex(lock["root"], 32), unhex(lock["ephemeral"], 32)
    need(str(UUID(lock["run"])) == lock["run"], "its run")
    sealed = base64.b64decode(lock["sealed"], validate=True)
    need(base64.b64encode(sealed).decode() == lock["sealed"] and len(sealed) > 15, "base64")
    return lock  # type: ignore[no-any-return]


def unlock(data: bytes, shares: list[bytes]) -> list[bytes]:
    lock, given = read_lock(data), {}
    for text in shares:
        share = parse(text)
        need(canonical(share) == text and set(share) == {"v", "lock", "index", "share"}, "a share")
        need(share["lock"] == sha256(data).hex(), "a share of another lock")
        given[share["index"]] = unhex(share["share"], 32)
    need(len(given) == lock["threshold"], "too few shares, or too many")
    sealed = base64.b64decode(lock.pop("sealed"))
    text = ChaCha20Poly1305(combine(given)).decrypt(bytes(12), sealed, canonical(lock))
    records = []
    while text:
        end = 4 + int.from_bytes(text[:4], "big")
        records.append(text[4:end])
        text = text[end:]
    need([sha256(each).hex() for each in records] == lock["records"], "other records")
    return records


def check_lock(data: bytes, run: dict[str, Any], _: object) -> str:
    """Which records are locked, and until when."""
    lock = read_lock(data)
    need(lock["run"] == run["run"] and lock["root"] == run["entries"][-1]["root"], "of another run")
    places = {record["digest"] for record in run["records"] if record["withheld"]}
    need(places.issuperset(lock["records"]), "a record that is not withheld here")
    after = lock["after"]
    until = f"{len(lock['records'])} records locked until {after['network']} {after['height']}"
    return f"{until}, as who made the bundle says"


def examples(look: Any) -> None:
    """Those of the document."""
    shares = [look.exact(f"timelock-share-{at}") for at in (1, 3)]
    [record] = unlock(look.exact("timelock"), shares)
    need(record == look.exact("record").rstrip(b"\n"), "the locked record")
