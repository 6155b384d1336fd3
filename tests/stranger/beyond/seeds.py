"""Seeds drawn from blocks, read by a stranger: written from docs/FORMAT.md, section 2.4.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import evidence as chain
from formats import need, sha256, unhex


def block_hash(block: dict[str, Any]) -> bytes:
    need(set(block) == {"network", "chain", "height", "header"}, "other keys of a block")
    need(type(block["height"]) is int and isinstance(block["chain"], str), "its place")
    raw = unhex(block["header"])
    if block["network"] == "bitcoin":
        need(len(raw) == 80, "no header of Bitcoin")
        chain.check_work(raw, block["chain"])
        return bytes(chain.double(raw))
    need(block["network"] == "ethereum", "an unknown network")
    items = chain.rlp(raw)
    need(int.from_bytes(items[8], "big") == block["height"], "its header is of another block")
    return bytes(chain.keccak256(raw))


def seed_of(run: str, body: dict[str, Any]) -> int:
    hashes = b"".join(map(block_hash, body["blocks"]))
    draw = body["draw"].to_bytes(4, "big")
    return int.from_bytes(
        sha256(b"ml-provenance/seed/v1\0" + UUID(run).bytes + draw + hashes)[:4], "big"
    )


def check_seeds(
    run: str, records: list[dict[str, Any]], bodies: dict[str, Any]
) -> list[tuple[str, bool]]:
    """Lines, each with whether it is a problem."""
    told: list[tuple[str, bool]] = []
    draws: dict[str, int] = {}
    own = [record for record in records if record["kind"] == "seed"]
    for record in sorted(own, key=lambda record: (record["producer"], record["seq"])):
        path, body = record["path"], bodies.get(record["path"])
        if body is None:
            told.append((f"{path}: a seed that is withheld", False))
            continue
        try:
            need(set(body) - {"problem"} == {"seed", "draw", "blocks"}, "other keys of a seed")
            need(type(body["seed"]) is int and 0 <= body["seed"] < 2**32, "no seed")
            need(type(body["draw"]) is int and body["draw"] < 2**32, "no draw")
            need(body["draw"] > draws.get(record["producer"], -1), "a draw behind a later one")
            draws[record["producer"]] = body["draw"]
            names = [block["network"] for block in body["blocks"]]
            need(names == sorted(set(names)), "blocks in another order")
            if names:
                need(seed_of(run, body) == body["seed"], "its blocks give another seed")
            told.append((f"{path}: {'its blocks' if names else 'a random seed'}", False))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            told.append((f"{path}: {error}", True))
    return told
