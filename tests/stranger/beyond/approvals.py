"""Who approved that a final root is anchored, read by a stranger: docs/FORMAT.md, 10.6 and 10.10.

Imports nothing of the program that it checks. It raises where a claim does not hold.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from formats import canonical, need, parse, unbase64, unhex, verify_signature
from producers import check_material

NAME = re.compile(r"approvals/[A-Za-z0-9_-]{1,64}-[0-9]{1,19}\.json")
PREDICATE = {"for", "ledger", "network", "chain", "head", "since", "until"}
CHAIN = {"chain_id", "chain", "genesis"}


def open_envelope(data: bytes) -> tuple[bytes, list[str], list[str]]:
    """What is signed, the keys of all signatures, which verify, and the accounts whose
    certificates' keys signed: the certificates are not checked."""
    need(len(data) <= 1 << 20, "too large")
    envelope = parse(data)
    need(set(envelope) == {"payload", "payloadType", "signatures"}, "no envelope")
    kind = "application/vnd.in-toto+json"
    need(envelope["payloadType"] == kind, "another payload type")
    payload = unbase64(envelope["payload"])
    keys, accounts = list[str](), list[str]()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    for each in envelope["signatures"]:
        signature = unbase64(each["sig"])
        if set(each) == {"sig", "verificationMaterial"}:
            material = each["verificationMaterial"]
            need(len(canonical(material)) <= 16384, "a certificate's material over 16 KiB")
            accounts.append(check_material(material, signature, message))
        else:
            need(set(each) == {"keyid", "sig"}, "other keys of a signature")
            verify_signature(unhex(each["keyid"], 32), signature, message)
            keys.append(each["keyid"])
    signers = [*keys, *accounts]
    need(signers and len(set(signers)) == len(signers), "nobody signed it, or somebody twice")
    return payload, keys, accounts


def check_approval(
    name: str,
    data: bytes,
    run: dict[str, Any],
    heads: dict[int, bytes],
    receipts: list[dict[str, Any]],
    key: str | None,
) -> tuple[list[str], list[str]]:
    """The keys that signed, and the accounts that are said to have: they count for nobody.

    Args:
        heads: Root of the ledger by size.
        receipts: Those of the run.
        key: The ledger's; None where none is known.
    """
    payload, keys, accounts = open_envelope(data)
    stated = parse(payload)
    need(canonical(stated) == payload, "not in canonical form")
    need(set(stated) == {"_type", "subject", "predicateType", "predicate"}, "no statement")
    need(stated["_type"] == "https://in-toto.io/Statement/v1", "no in-toto statement")
    need(stated["predicateType"] == "urn:ml-provenance:approval:v1", "another predicate")
    told, subjects = stated["predicate"], stated["subject"]
    need(set(told) == PREDICATE and told["for"] == "anchoring", "approves something else")
    need(set(told["head"]) == {"size", "root"} and set(told["chain"]) <= CHAIN, "other keys")
    for value in told["chain"].values():
        need(isinstance(value, str) or (type(value) is int and value >= 0), "another chain value")
    size, since = told["head"]["size"], told["since"]
    need(type(size) is int and type(since) is int and 0 <= since < size, "no sizes")
    need(name == f"approvals/{told['network']}-{size}.json", "is of another head or network")
    need(told["until"] is None or date.fromisoformat(told["until"]).isoformat() == told["until"],
         "no day")  # fmt: skip
    need(0 < len(subjects) <= 4000, "too many runs, or none")
    need(all(set(item) == {"name", "digest"} for item in subjects), "other keys of a run")
    final = next(entry for entry in run["entries"] if entry["phase"] == "after")
    own = {"name": run["run"], "digest": {"mth_sha256": final["root"]}}
    need(own in subjects, "does not name this run's final root")
    need(since <= final["index"] < size, "this run's entry is not among those it makes final")
    need(key is None or told["ledger"] == key, "is of another ledger")
    root = unhex(told["head"]["root"], 32)
    need(heads.get(size, root) == root, "is of another root at that size")
    for receipt in receipts:
        if (receipt["anchor"]["network"], receipt["phase"]) == (told["network"], "after"):
            shown = {n: receipt["evidence"].get(n) for n in told["chain"]}
            need(all(shown[n] in (None, told["chain"][n]) for n in shown), "is of another chain")
    return keys, accounts
