"""The in-toto statement of a bundle, read by a stranger: written from docs/FORMAT.md, 10.4.

Imports nothing of the program that it checks. It raises where a claim does not hold.
"""

from __future__ import annotations

import json
from typing import Any

from formats import CONTROL, canonical, need, parse, sha256


def check_statement(
    data: bytes,
    run: dict[str, Any],
    bodies: dict[str, Any],
    files: dict[str, bytes],
    key: str | None,
) -> str | None:
    """A statement may say less than the records, never anything else; how the run ended, where it
    leaves that out.

    Args:
        bodies: Of the records that are here, by path.
        key: The ledger's, which begins with its name; None where none is known.
    """
    statement = parse(data)
    need(canonical(statement) == data, "not in canonical form")
    need(statement["_type"] == "https://in-toto.io/Statement/v1", "no in-toto statement")
    need(statement["predicateType"] == "https://slsa.dev/provenance/v1", "another predicate")
    build = statement["predicate"]["buildDefinition"]
    need(build["buildType"] == "urn:ml-provenance:training-run:v1", "another build type")
    config = bodies.get("training/config", {})
    seals = []
    for entry in run["entries"]:
        label = entry["phase"] + ("" if entry["epoch"] is None else f"-{entry['epoch']}")
        digest = {"mth_sha256": entry["root"]}
        seals.append({"name": "run", "digest": digest, "annotations": {"seal": label}})
    state = statement["subject"][0]["annotations"].pop("state", None)
    left_out = _state(state, run, bodies)
    need(statement["subject"][0] == seals[-1], "its first subject is not the newest run root")
    for item in [*statement["subject"][1:], *build.get("resolvedDependencies", [])]:
        if item["name"] == "code":
            commit = {"digest": {"gitCommit": config["code"]["commit"]}}
            dirty = {"annotations": {"dirty": config["code"]["dirty"]}}
            need(item == {"name": "code"} | commit | dirty, "another commit")
        elif item["name"] != "parent model":
            body = bodies[item["name"]]
            algorithm, _, value = body["root"].partition(":")
            need(item["digest"] == {algorithm.replace("-", "_"): value}, "another content")
            need(item["annotations"]["algorithm"] == body["algorithm"], "another algorithm")
    if build["externalParameters"]:
        need(build["externalParameters"] == config, "another configuration")
    origin = key.split("+")[0] if key else None
    _details(statement["predicate"]["runDetails"], run, files, origin)
    return left_out


def _state(state: str | None, run: dict[str, Any], bodies: dict[str, Any]) -> str | None:
    """One that an end states; with an end of every process, and of every rank, there is one."""
    ends = [record for record in run["records"] if record["kind"] == "run.end"]
    states = {bodies[end["path"]].get("state", "finished") for end in ends}
    need(state is None or state in states, "another end")
    sizes = [bodies[r["path"]].get("world_size") for r in run["records"]
             if r["kind"] == "config" and r["path"] in bodies]  # fmt: skip
    running = {r["producer"] for r in run["records"]} - {end["producer"] for end in ends}
    whole = not running and sizes[:1] == [len({end["rank"] for end in ends})]
    known = {"finished", "pruned", "failed", "interrupted", "closed"}
    open_ = state is None and whole and states <= known
    return "how the run ended is left out" if open_ else None


def _details(
    details: dict[str, Any], run: dict[str, Any], files: dict[str, bytes], origin: str | None
) -> None:
    need(origin is None or details["builder"] == {"id": f"https://{origin}"}, "another builder")
    tree = ("data/", "model/", "training/")
    times = [
        record["ts"]
        for record in run["records"]
        if record["kind"] in CONTROL or record["path"].startswith(tree)
    ]
    known = {"invocationId": run["run"], "startedOn": min(times), "finishedOn": max(times)}
    stated = details["metadata"]
    need("invocationId" in stated and stated.items() <= known.items(), "of another run or time")
    for item in details.get("byproducts", []):
        anchor = json.loads(files[item["name"]])["anchor"]
        expected = {
            "name": item["name"],
            "mediaType": "application/json",
            "digest": {"sha256": sha256(files[item["name"]]).hex()},
            "annotations": {name: anchor[name] for name in ("network", "transaction_id")},
        }
        need(item == expected, "another receipt")
