"""One record under a run root, read by a stranger: written from docs/FORMAT.md, section 5.3.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

from typing import Any

from formats import ANYWHERE, hashes_of, included, need, unhex


def check_run_proof(proof: dict[str, Any], path: str, digest: str, root: str) -> None:
    need(set(proof) == {"v", "path", "leaf_digest", "levels"}, "no RunProof")
    need(type(proof["v"]) is int and proof["v"] == 1, "another version")
    need(proof["path"] == path and proof["leaf_digest"] == digest, "is of another record")
    value, child = unhex(digest, 32), path
    for level in proof["levels"]:
        need(set(level) == {"index", "size", "proof", "node_path"}, "other keys in a level")
        parts = child.split("/")
        flat = parts[0] == "training" and len(parts) == 3
        parent = "training" if flat else "/".join(parts[:-1])
        need(child and level["node_path"] == parent, "its levels are not those of the path")
        fixed = {"": ["data", "model", "training", "producers"], "data": ["train", "test"],
                 "model": ["architecture", "weights"]}.get(parent)  # fmt: skip
        if parent.startswith("training/epoch/") and parent.count("/") == 2:
            fixed = ["state", "metrics", "privacy"]
        if fixed:
            place = (fixed.index(parts[-1]), len(fixed))
            need((level["index"], level["size"]) == place, "is at another place of its parent")
        elif not child.startswith(ANYWHERE) or parent != "training":
            wanted = int(parts[-1]) if parts[-1].isdecimal() else 0
            need(level["index"] == wanted, "is at another place of its parent")
        hashes = hashes_of(level["proof"])
        value, child = included(value, level["index"], level["size"], hashes)[0], parent
    need(not child and value.hex() == root, "does not lead to the run root")
