"""Records of weights: their roots, and shards of an epoch (sections 3.3 and 11, steps 2, 6)."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from formats import mth, need, unhex


def check_state(record: dict[str, Any]) -> None:
    """The root of a record of weights is that of the tensors that it states."""
    body = record["body"]
    if record["kind"] not in ("model.weights", "state") or "tensors" not in body:
        return
    tensors = sorted(body["tensors"], key=lambda tensor: tensor["name"].encode())
    names = {tensor["name"] for tensor in tensors}
    need(len(names) == len(tensors) == body.get("tensor_count", len(names)), "another tensor_count")
    told = [tensor["digest"].partition(":") for tensor in tensors]
    need({name for name, _, _ in told} <= {body["algorithm"]}, "digests of another algorithm")
    root = mth([unhex(digits) for _, _, digits in told]).hex()
    need(body["root"] == f"mth-sha256:{root}", "its root is not that of its tensors")


def check_tensor(shards: dict[int, dict[str, Any]]) -> str | None:
    """What is wrong with what the ranks state of one tensor of which they have shards."""
    whole, digests = None, dict[tuple[tuple[int, int], ...], str]()
    for rank, tensor in shards.items():
        own, size = tensor.get("shard", {}), tensor["shape"]
        place = own.get("offset", [0] * len(size)), own.get("global_shape", size)
        if not len(size) == len(place[0]) == len(place[1]) or any(
            type(n) is not int or n < 0 for n in [*size, *place[0], *place[1]]
        ):
            return f"rank {rank} has no place"
        if whole not in (None, (tensor["dtype"], place[1])):
            return "ranks have different tensors"
        whole = tensor["dtype"], place[1]
        box = tuple((at, at + n) for at, n in zip(place[0], size, strict=True))
        if any(end > most for (_, end), most in zip(box, place[1], strict=True)):
            return f"rank {rank} has more than there is"
        if digests.setdefault(box, tensor["digest"]) != tensor["digest"]:
            return "ranks diverged"
    # No two boxes meet, and they hold as many elements as there are.
    boxes = [box for box in digests if all(end > at for at, end in box)]
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            if all(a < d and c < b for (a, b), (c, d) in zip(box, other, strict=True)):
                return "shards overlap"
    held = sum(prod(end - at for at, end in box) for box in boxes)
    return None if whole and held == prod(whole[1]) else "no rank has all of it"


def check_epochs(
    records: list[dict[str, Any]], bodies: dict[str, Any]
) -> Iterator[tuple[str, bool]]:
    """Lines, and whether each is a problem or something that cannot be seen."""
    epochs: dict[int, dict[int, dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: (r["ts"], r["producer"], r["seq"])):
        if record["kind"] == "state" and record["path"].startswith("training/"):
            epochs.setdefault(record["epoch"], {})[record["rank"]] = record
    for epoch, ranks in sorted(epochs.items()):
        known = {k: bodies[r["path"]].get("tensors", []) for k, r in ranks.items()
                 if r["path"] in bodies}  # fmt: skip
        shared = {t["name"] for own in known.values() for t in own if "shard" in t}
        if shared and len(known) < len(ranks):
            yield f"epoch {epoch}: shards are withheld", False
            continue
        for name in sorted(shared):
            own = {k: t for k, tensors in known.items() for t in tensors if t["name"] == name}
            if told := check_tensor(own):
                yield f"epoch {epoch}: tensor {name}: {told}", True
