"""The parents of a run, and the tensors that two runs share (section 3.5)."""

from __future__ import annotations

import re
from typing import Any

from formats import need

ROLES = {"continues", "fine-tuned", "merged", "adapter-of", "quantised", "pruned"}
CLASSES = ("equal", "changed", "retyped", "reshaped", "renamed", "added", "removed")
ADAPTER = re.compile(r"(?:.*\.)?lora_(?:embedding_)?[AB](?:\..*)?")
State = dict[str, dict[str, Any]]


def read_parents(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are objects as section 3.5 has them."""
    stated = body.get("parent")
    items = stated if isinstance(stated, list) else [stated]
    need(len(items) <= 64, "too many parents")
    found = [item for item in items if isinstance(item, dict) and {"run", "model"} & set(item)]
    for item in found:
        need(item.get("role", "merged") in ROLES, "a role that is none")
        if "model" in item:
            need(set(item) <= {"model", "role", "algorithm", "weights"}, "other keys of a parent")
            need(re.fullmatch(r"[ -~]{1,200}", item["model"]), "no name of a model")
            root = item.get("weights", "mth-sha256:" + "0" * 64)
            need(re.fullmatch(r"mth-sha256:[0-9a-f]{64}", root), "no root of weights")
        else:
            need(re.fullmatch(r"[0-9a-f]{64}", item.get("root", "0" * 64)), "no run root")
    return found


def state_at(bundle: Any, epoch: int | None) -> State:
    kinds: dict[str, dict[int, Any]] = {"model.weights": {}, "state": {}}
    for record in sorted(bundle.run["records"], key=lambda r: (r["ts"], r["producer"], r["seq"])):
        in_tree = record["path"].startswith(("model/", "training/"))
        if in_tree and record["kind"] in kinds and record["epoch"] in (None, epoch):
            kinds[record["kind"]][record["rank"]] = bundle.bodies.get(record["path"], {})
    own = kinds["model.weights" if epoch is None else "state"]
    layers = [own]
    if any("only" in body.get("covers", {}) for body in own.values()):
        layers = [kinds["model.weights"], own]
    found: State = {}
    for layer in layers:
        for _, body in sorted(layer.items(), reverse=True):
            for tensor in body.get("tensors", []):
                shard = tensor.get("shard")
                at = f"{shard['offset']}{tensor['shape']}" if shard else ""
                whole = shard["global_shape"] if shard else tensor["shape"]
                found[tensor["name"] + at] = {"whole": whole, "at": at, **tensor}
    return found


def shared(child: State, parent: State) -> dict[str, list[str]]:
    """The names of each class."""
    found: dict[str, list[str]] = {name: [] for name in CLASSES}
    algorithms = {t["digest"].partition(":")[0] for t in [*child.values(), *parent.values()]}
    need(child and parent and len(algorithms) == 1, "no digests of one algorithm")
    names = [{tensor["name"] for tensor in state.values()} for state in (child, parent)]
    need(set(child) & set(parent) or not names[0] & names[1], "other shards")
    alone = sorted((name for name in parent if name not in child), key=str.encode)
    for name, own in sorted(child.items(), key=lambda item: item[0].encode()):
        other = parent.get(name)
        if other is None:
            known = [n for n in own.get("aliases", []) if n in alone]
            known += [n for n in alone if name in parent[n].get("aliases", [])]
            fields = ("whole", "at", "dtype")
            known = [n for n in known if all(own[k] == parent[n][k] for k in fields)]
            if known:
                alone.remove(known[0])
                found["renamed"].append(name)
            else:
                found["added"].append(name)
        elif own["digest"] == other["digest"]:
            found["equal"].append(name)
        else:
            kind = "retyped" if own["dtype"] != other["dtype"] else "changed"
            found["reshaped" if own["whole"] != other["whole"] else kind].append(name)
    return {**found, "removed": sorted(alone)}


def check_examples(named: list[dict[str, Any]], told: dict[str, Any]) -> None:
    """The two examples of section 3.5."""
    need(read_parents({"parent": named}) == named, "the parents")
    child, parent = (
        {t["name"]: {"whole": t["shape"], "at": "", **t} for t in told[side]}
        for side in ("child", "parent")
    )
    need(shared(child, parent) == told["shared"], "what the states share")


def last_epoch(bundle: Any) -> int | None:
    epochs = [r["epoch"] for r in bundle.run["records"]
              if r["kind"] == "state" and r["path"].startswith("training/")]  # fmt: skip
    return max(epochs, default=None)


def roots_of(bundle: Any, kind: str) -> dict[str, int | None]:
    """Roots of records of weights, with the last epoch that has each."""
    found: dict[str, int | None] = {}
    for record in sorted(bundle.run["records"], key=lambda r: r["epoch"] or 0):
        body = bundle.bodies.get(record["path"], {})
        if record["kind"] == kind and "root" in body:
            found[body["root"]] = record["epoch"]
    return found


def made_at(bundle: Any, root: str | None) -> int | None:
    """The last epoch of a run whose state has a root, of records in the run tree."""
    epochs = [r["epoch"] for r in bundle.run["records"]
              if r["kind"] == "state" and r["path"].startswith("training/")
              and bundle.bodies.get(r["path"], {}).get("root", "") == root]  # fmt: skip
    return max(epochs, default=None)


def begun_at(child: Any, parent: Any, role: str | None) -> int | None:
    """The epoch of the parent that is meant where none is named."""
    if role in (None, "continues", "fine-tuned"):
        begun, states = roots_of(child, "model.weights"), roots_of(parent, "state")
        if set(begun) & set(roots_of(parent, "model.weights")):
            return None
        same = [epoch for root, epoch in states.items() if root in begun]
        return max(same, key=lambda epoch: epoch or 0) if same else last_epoch(parent)
    epochs = {r["epoch"] for r in parent.run["records"] if r["kind"] == "state"}
    for epoch in [*sorted(epochs, reverse=True), None] if role == "adapter-of" else []:
        found = shared(state_at(child, None), state_at(parent, epoch))
        new, other = found["added"], [k for k in CLASSES[1:] if k != "added" and found[k]]
        if found["equal"] and not other and all(map(ADAPTER.fullmatch, new)):
            return int(epoch) if epoch is not None else None
    return last_epoch(parent)


def check_role(child: Any, parent: Any, role: str | None, epoch: int | None) -> str:
    """A line of what the two share; ValueError where a role cannot be."""
    found = shared(state_at(child, last_epoch(child)), state_at(parent, epoch))
    other = found["changed"] + found["retyped"] + found["reshaped"]
    need(role != "adapter-of" or not other, f"an adapter, and other tensors: {other}")
    new, kept = found["retyped"] + found["reshaped"] + found["added"], found["equal"]
    types = role != "quantised" or new or not kept + found["changed"]
    need(types, "quantised, and all types the same")
    same = kept and not other + found["renamed"] + found["removed"]
    need(role != "pruned" or not same, "pruned, and all tensors the same")
    adapters = sum(1 for name in found["added"] if ADAPTER.fullmatch(name))
    counts = ", ".join(f"{len(found[name])} {name}" for name in CLASSES)
    return f"parent: {counts}, {adapters} of an adapter"


def begins_elsewhere(child: Any, parent: Any, epochs: set[int | None]) -> bool:
    """Whether initial weights can be compared with each of some epochs, and no tensor is theirs."""
    for epoch in epochs:
        states = state_at(child, None), state_at(parent, epoch)
        found = shared(*states) if all(states) else {"changed": []}
        if not found["changed"] or found["equal"] + found["retyped"] + found["renamed"]:
            return False
    return True


def check_parent(child: Any, parent: Any) -> str:
    """A line of what the two share; ValueError of what cannot be."""
    bodies = [body for path, body in child.bodies.items() if path.startswith("training/config")]
    claims = [claim for body in bodies for claim in read_parents(body)]
    own = [claim for claim in claims if claim.get("run") == parent.run["run"]]
    only = [claim.get("role") for claim in claims if claims.count(claim) == len(claims)]
    need("merged" not in only, "merged of one parent")
    if not own and parent.run["run"] != child.run["run"]:
        for claim in claims:
            if (epoch := made_at(parent, claim.get("weights"))) is not None:
                other = claim.get("role") == "fine-tuned" and begins_elsewhere(
                    child, parent, {epoch}
                )
                need(not other, "fine-tuned, from other weights")
                check_role(child, parent, claim.get("role"), epoch)
                return f"parent: model {claim['model']} has the weights of epoch {epoch}"
    need(own, f"names no run {parent.run['run']} as a parent")
    roots = {entry["root"] for entry in parent.run["entries"]}
    need(all(claim.get("root") in {None, *roots} for claim in own), "a root that is no seal's")
    for path, body in parent.bodies.items():
        circle = path.startswith("training/config") and child.run["run"] in [
            claim.get("run") for claim in read_parents(body)
        ]
        need(not circle, "the claims go in a circle")
    role, epoch = own[0].get("role"), own[0].get("epoch")
    if epoch is None:
        epoch = begun_at(child, parent, role)
    line = check_role(child, parent, role, epoch)
    stated = own[0].get("epoch")
    epochs = {r["epoch"] for r in parent.run["records"] if r["path"].startswith("training/epoch/")}
    epochs = {stated} if stated is not None else {None, *epochs}
    other = role == "fine-tuned" and begins_elsewhere(child, parent, epochs)
    need(not other, "fine-tuned, from other weights")
    return line
