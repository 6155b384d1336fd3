"""Several networks of one seal (section 8.5), and Bitcoin's proof on Ethereum (8.6)."""

from __future__ import annotations

from typing import Any

import evidence as chain
from formats import need

SLACK = {"ethereum": 12, "bitcoin": 7200}


def agreement(
    entries: list[dict[str, Any]], receipts: list[dict[str, Any]]
) -> tuple[dict[int, float], list[str]]:
    """The latest moment of each entry that two networks have, by index; and what does not fit.

    ``receipts`` are those that hold, in their order.
    """
    first: dict[tuple[int, str], dict[str, Any]] = {}
    for receipt in receipts:
        first.setdefault((receipt["ledger"]["index"], receipt["anchor"]["network"]), receipt)
    latest, problems = {}, []
    for entry in entries:
        index = entry["index"]
        own = [receipt for (of, _), receipt in first.items() if of == index]
        if len(own) < 2:
            continue
        bounds = [
            receipt["anchor"]["block_time"] + SLACK[receipt["anchor"]["network"]]
            for receipt in first.values()
            if receipt["anchor"]["network"] in SLACK and receipt["ledger"]["size"] > index
        ]
        if bounds:
            latest[index] = min(bounds)
        timed = [r["anchor"] for r in own if r["anchor"]["network"] in SLACK]
        behind = [a["block_time"] - SLACK[a["network"]] - a["confirmed_at"] for a in timed]
        ahead = [a["block_time"] + SLACK[a["network"]] - entry["created_at"] for a in timed]
        if len(timed) > 1 and max(behind) > min(ahead):
            problems.append(f"entry {index}: no clock fits the times of its blocks")
    return latest, problems


def word(data: bytes, at: int) -> int:
    need(at % 32 == 0 and at + 32 <= len(data), "an ABI word")
    return int.from_bytes(data[at : at + 32], "big")


def blob(data: bytes, at: int) -> bytes:
    """Dynamic bytes of the Solidity ABI: length, bytes, zeros up to a whole word."""
    size = word(data, at)
    end = at + 32 + size
    need(end <= len(data) and not any(data[end : end + -size % 32]), "ABI bytes")
    return data[at + 32 : end]


def check_view(call: bytes, answer: bytes) -> bytes:
    """``anchored`` and its answer, worked out; returns the root."""
    selector = b"anchored(bytes32,(bytes,uint256,bytes32[],bytes),uint256)"
    need(call[:4] == chain.keccak256(selector)[:4], "the selector")
    data = call[4:]
    root, at, least = data[:32], word(data, 32), word(data, 64)
    proof = data[at:]
    raw, index, headers = blob(proof, word(proof, 0)), word(proof, 32), blob(proof, word(proof, 96))
    listed = word(proof, 64)
    count = word(proof, listed)
    path = [proof[listed + 32 * n + 32 : listed + 32 * n + 64] for n in range(count)]
    core, scripts = chain.stripped(raw)
    need(core == raw and len(raw) != 64, "the form without witness")
    carried = [script[2:] for script in scripts if script[:6] == b"\x6a\x24MLP1"]
    need(carried == [b"MLP1" + root], "one payload, of the root")
    need(headers and len(headers) % 80 == 0 and count <= 15 and index < 2**count, "the proof")
    node = chain.double(raw)
    for level, sibling in enumerate(path):
        right = index >> level & 1
        need(not (right and sibling == node), "two equal siblings")
        node = chain.double(sibling + node if right else node + sibling)
    need(node == headers[36:68], "the Merkle root")
    work, before = 0, None
    for start in range(0, len(headers), 80):
        header = headers[start : start + 80]
        need(before is None or header[4:36] == before, "a header that builds on the one before")
        before = chain.double(header)
        bits = int.from_bytes(header[72:76], "little")
        need(bits >> 24 <= 32 and not bits & 0x800000, "bits")
        target = (bits & 0x7FFFFF) * 256 ** (bits >> 24) // 256**3
        need(0 < target >= int.from_bytes(before, "little"), "work")
        work += (2**256 - 1 - target) // (target + 1) + 1
    need(work >= least, "enough work")
    time = int.from_bytes(headers[68:72], "little")
    block = chain.double(headers[:80])[::-1]
    need(answer == block + time.to_bytes(32, "big") + work.to_bytes(32, "big"), "the answer")
    return root
