"""Accounts and rolls, read by a stranger: written from docs/FORMAT.md, sections 10.7 and 10.8.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from formats import canonical, hashes_of, included, mth, need, parse, sha256, unhex

ACCOUNT = {"v", "run", "phase", "epoch", "producer", "count", "chain", "place", "tops", "last"}
RUN = {"run", "entries", "state", "name", "data", "config", "seeds", "results", "outcomes"}
STATES = {"finished", "pruned", "failed", "interrupted", "closed", "unknown", "running", "lost",
          "silent"}  # fmt: skip


def account_root(account: dict[str, Any]) -> bytes:
    """The entry that an account leads to."""
    need(set(account) == ACCOUNT and type(account["v"]) is int and account["v"] == 1, "keys")
    phase, epoch, last = account["phase"], account["epoch"], account["last"]
    need(phase in ("before", "checkpoint", "after"), "an unknown phase")
    need(type(epoch) is int if phase == "checkpoint" else epoch is None, "its epoch")
    producer, count = unhex(account["producer"], 16), account["count"]
    need(type(count) is int and count > 0, "its count")
    chain = unhex(account["chain"], 32)
    if last is not None:
        told = (last["run"], last["producer"], last["seq"])
        need(told == (account["run"], account["producer"], count - 1), "a record of another place")
        body = last["body"]
        mark = last["kind"] == "run.seal" and (body["phase"], body["epoch"]) == (phase, epoch)
        need(mark or (last["kind"] == "run.end" and phase == "after"), "not of its seal")
        chain = sha256(chain + sha256(canonical(last)))
    text = b"ml-provenance/statement/v1\0" + UUID(account["run"]).bytes + producer
    value = sha256(text + count.to_bytes(8, "big") + chain)
    place = account["place"]
    need(set(place) == {"index", "size", "proof"}, "keys of its place")
    value = included(value, place["index"], place["size"], hashes_of(place["proof"]))[0]
    return bytes(included(value, 3, 4, hashes_of(account["tops"]))[0])


def accounts(data: bytes, width: int) -> list[dict[str, Any] | None]:
    """The file of a tile's accounts."""
    found: list[dict[str, Any] | None] = []
    at = 0
    for _ in range(width):
        length = int.from_bytes(data[at : at + 2], "big")
        part = data[at + 2 : at + 2 + length]
        need(len(data) >= at + 2 + length, "ends in an account")
        account = parse(part) if part else None
        need(account is None or canonical(account) == part, "not in canonical form")
        found.append(account)
        at += 2 + length
    need(at == len(data), "bytes behind the last account")
    return found


def check_roll(data: bytes, run: dict[str, Any], heads: dict[int, bytes]) -> str:
    """What stays the database's word."""
    need(len(data) <= 1 << 20, "more than 1 MiB")
    roll = parse(data)
    need(canonical(roll) == data, "not in canonical form")
    need(set(roll) == {"v", "size", "entries", "runs"}, "other keys")
    need(type(roll["v"]) is int and roll["v"] == 1, "another version")
    entries = hashes_of(roll["entries"])
    need(type(roll["size"]) is int and roll["size"] == len(entries), "another size")
    need(mth(entries) == heads.get(roll["size"]), "its entries do not give a head's root")
    owner: dict[int, str] = {}
    seals: list[int] = []
    for item in roll["runs"]:
        need(set(item) == RUN and item["state"] in STATES, "other keys of a run")
        for part in ("entries", "outcomes"):
            need(item[part] == sorted(set(item[part])), f"{part} in another order")
        seals += item["entries"]
        for index in item["entries"] + item["outcomes"]:
            need(type(index) is int and index not in owner, "an entry of two runs")
            owner[index] = item["run"]
    need(set(owner) == set(range(roll["size"])), "an entry of no run")
    names = [item["run"] for item in roll["runs"]]
    need(len(set(names)) == len(names), "a run twice")
    own = [e["index"] for e in run["entries"] if e["index"] < roll["size"]]
    stated = [index for index in sorted(seals) if owner[index] == run["run"]]
    need(stated == own, "own run")
    return "what the roll says of other runs beside their entries"
