"""A compliance report, read by a stranger: written from docs/FORMAT.md, 10.9.

Imports nothing of the program that it checks. It raises where something does not hold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from formats import canonical, need, parse, sha256, unbase64, unhex

OWN = "statement.dsse.json"
TYPE = "application/vnd.in-toto+json"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
WORD = re.compile(r"[a-z0-9.-]{1,64}")
OUTCOMES = ("verified", "anchored", "consistent", "failed")


def report_files(folder: Path) -> dict[str, bytes]:
    """The files of a report's folder, which holds nothing else."""
    found = sorted(folder.iterdir())
    regular = all(path.is_file() and not path.is_symlink() for path in found)
    need(regular, "the folder has what is no regular file")
    return {path.name: path.read_bytes() for path in found}


def check_report(files: dict[str, bytes], run: dict[str, Any], signer: str | None) -> str | None:
    """Whether the files are as they were signed, about this run; what stays open.

    Args:
        run: The bundle's ``run.json``, which was checked.
        signer: The key that must have signed, as hex; None where none is known.
    """
    need(OWN in files and len(files[OWN]) <= 64 * 1024, f"no {OWN}")
    envelope = parse(files[OWN])
    need(canonical(envelope) == files[OWN], "the envelope is not in canonical form")
    need(set(envelope) == {"payload", "payloadType", "signatures"}, "other keys in the envelope")
    need(envelope["payloadType"] == TYPE, "another type of payload")
    payload = unbase64(envelope["payload"])
    keys = [each["keyid"] for each in envelope["signatures"]]
    need(keys == sorted(set(keys)), "the keys are not in their order, each once")
    for each in envelope["signatures"]:
        need(set(each) == {"keyid", "sig"}, "other keys in a signature")
        message = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(payload), payload)
        Ed25519PublicKey.from_public_bytes(unhex(each["keyid"], 32)).verify(
            unbase64(each["sig"]), message
        )
    need(signer is None or signer in keys, "the key that you know did not sign")
    check_statement(payload, files, run)
    if not keys:
        return "is not signed"
    return None if signer else f"is signed by {', '.join(keys)}, which you did not name"


def check_statement(payload: bytes, files: dict[str, bytes], run: dict[str, Any]) -> None:
    told = parse(payload)
    need(canonical(told) == payload, "the statement is not in canonical form")
    need(set(told) == {"_type", "predicate", "predicateType", "subject"}, "other keys")
    need(told["_type"] == "https://in-toto.io/Statement/v1", "no in-toto statement")
    need(told["predicateType"] == "urn:ml-provenance:compliance:v1", "another predicate")
    stated = told["predicate"]
    names = {"run", "framework", "version", "table_sha256", "outcome"}
    need(set(stated) == names, "other keys in the predicate")
    need(stated["run"] == run["run"], "is about another run")
    need(stated["outcome"] in OUTCOMES, "an unknown outcome")
    need(all(WORD.fullmatch(stated[n]) for n in ("framework", "version")), "the table's name")
    unhex(stated["table_sha256"], 32)
    first, *others = told["subject"]
    roots = {
        entry["phase"] + ("" if entry["epoch"] is None else f"-{entry['epoch']}"): entry["root"]
        for entry in run["entries"]
    }
    label = first["annotations"]["seal"]
    need(label in roots, "is about a seal that the run has not")
    expected = {"mth_sha256": roots[label]}
    need(first == {"name": "run", "digest": expected, "annotations": {"seal": label}},
         "is about another root")  # fmt: skip
    named = [each["name"] for each in others]
    need(0 < len(named) <= 32 and named == sorted(set(named)), "its files are not in their order")
    need(all(NAME.fullmatch(name) and name != OWN for name in named), "a name that no file has")
    for each in others:
        need(set(each) == {"name", "digest"} and set(each["digest"]) == {"sha256"}, "other keys")
        data = files.get(each["name"])
        need(data is not None, f"{each['name']} is missing")
        assert data is not None
        need(len(data) <= 64 << 20, f"{each['name']} is too large")
        need(sha256(data).hex() == each["digest"]["sha256"], f"{each['name']} was changed")
    need(set(files) == {OWN, *named}, "the folder has other files")
