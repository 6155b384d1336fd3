"""Outcomes of later verifications, read by a stranger: from docs/FORMAT.md, section 10.12.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

from typing import Any

from evidence import keccak256
from formats import canonical, hashes_of, included, need, parse, sha256, unhex

RECORD = {"v", "at", "failed", "ledger", "networks", "number", "outcome", "root", "run", "software"}
WORDS = {"verified", "anchored", "consistent", "failed"}


def whole(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**63


def digest(record: dict[str, Any]) -> bytes:
    """The entry of the ledger that a record is hashed to."""
    need(set(record) == RECORD and type(record["v"]) is int and record["v"] == 1, "its keys")
    need(len(canonical(record)) <= 4096, "more than 4,096 bytes")
    failed, word = record["failed"], record["outcome"]
    need(word in WORDS and all(whole(each, 1) for each in failed), "its outcome")
    need(failed == sorted(set(failed)) and bool(failed) == (word == "failed"), "its failed checks")
    unhex(record["root"], 32)
    need(whole(record["number"], 1) and whole(record["at"]), "its numbers")
    need(all(each is None or whole(each) for each in record["networks"].values()), "its heights")
    for name in ("ledger", "software"):
        need(1 <= len(record[name]) <= 200, f"its {name}")
        need(all(" " <= letter <= "~" for letter in record[name]), f"its {name}")
    return bytes(sha256(canonical(record)))


def check_outcomes(
    data: bytes,
    run: dict[str, Any],
    heads: dict[int, bytes],
    key: str | None,
    receipts: list[dict[str, Any]],
) -> str:
    """How often the run was verified again, and how it came out: the ledger owner's word."""
    need(len(data) <= 1 << 20, "more than 1 MiB")
    document = parse(data)
    need(canonical(document) == data, "not in canonical form")
    need(set(document) == {"v", "size", "outcomes"}, "other keys")
    need(type(document["v"]) is int and document["v"] == 1, "another version")
    size, items = document["size"], document["outcomes"]
    need(1 <= len(items) <= 400 and size in heads, "of no head, or too many")
    seals = {entry["root"]: entry["index"] for entry in reversed(run["entries"])}
    blocks = [(each["ledger"]["size"], each["anchor"]["block_time"]) for each in receipts
              if each["anchor"]["network"] in ("ethereum", "bitcoin")]  # fmt: skip
    before, first = -1, items[0]["record"]["number"]
    for number, item in enumerate(items, first):
        need(set(item) == {"index", "proof", "record"}, "other keys of an outcome")
        record, index = item["record"], item["index"]
        need(record["run"] == run["run"] and record["number"] == number, "of another run or place")
        need(key is None or record["ledger"] == key, "of another ledger")
        need(whole(index) and seals[record["root"]] < index > before, "its entry")
        before = index
        need(included(digest(record), index, size, hashes_of(item["proof"]))[0] == heads[size],
             f"entry {index} is not in the ledger")  # fmt: skip
        need(all(size <= index or record["at"] <= time + 3 * 3600 for size, time in blocks),
             "of a time behind its block")  # fmt: skip
    told = [item["record"] for item in items]
    words = ", ".join(record["outcome"] for record in told[-3:])
    return f"verified again {told[-1]['number']} times: {words}"


def examples(look: Any) -> None:
    """Those of the document."""
    text = look.exact("outcome")
    record = parse(text)
    need(canonical(record) == text, "the outcome is not canonical")
    need(digest(record) == look.hex("outcome-entry"), "the outcome's entry")
    need(record["root"] == look.hex("run-root-after").hex(), "the outcome's root")
    need(record["ledger"] == look.json("keys")["ledger_vkey"], "the outcome's ledger")
    registrar = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")
    selector = keccak256(b"attest(address,bytes32,uint8)")[:4]
    words = (registrar.rjust(32, b"\0"), look.hex("run-root-after"), b"\1".rjust(32, b"\0"))
    need(look.hex("attest-call") == selector + b"".join(words), "the attestation's call")
