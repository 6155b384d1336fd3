"""``provenance demo``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from provenance.cli.output import err, out, print_json, print_table
from provenance.demo.run import DemoOptions, run

DEFAULT_BASE = Path("artifacts")


def demo(arguments: argparse.Namespace) -> int:
    """Run it; 0 where every network verified, the tampering was found and no walk failed."""
    base = arguments.base_dir / "demo" if arguments.base_dir == DEFAULT_BASE else arguments.base_dir
    options = DemoOptions(
        base_dir=base,
        epochs=arguments.epochs,
        networks=tuple(arguments.networks.split(",")) if arguments.networks else None,
        timeout_s=arguments.timeout,
        beyond=arguments.beyond,
    )
    started = time.monotonic()
    with err.status("provenance demo") as status:

        def say(name: str, line: str) -> None:
            elapsed = time.monotonic() - started
            err.print(f"{elapsed:6.1f} s  {name:<16} {line}")
            status.update(f"{name}: working")

        document = run(options, say)
    if arguments.json:
        print_json(document)
    else:
        _print(document)
        since = "".join(f" --since-block {name}={n}" for name, n in document["since_block"].items())
        servers = "provenance devnet up; " if document["networks"].keys() - {"local"} else ""
        err.print(f"look again: {servers}provenance fsck --base-dir {base}{since}")
    verified = all(n["status"] == "verified" for n in document["networks"].values())
    clean = not document["fsck"]["findings"] and not document["fsck"]["unchecked"]
    found = document["tamper"]["detected"]
    walked = all(walk["status"] != "failed" for walk in document["beyond"].values())
    return 0 if document["chain_integrity"] and found and verified and clean and walked else 1


def _print(document: dict[str, Any]) -> None:
    out.print()
    out.print(f"run          {document['run_id']}")
    out.print(f"root before  {document['root_before']}")
    out.print(f"root after   {document['root_after']}")
    rows = [
        (name, network["status"], phase, network[phase])
        for name, network in document["networks"].items()
        for phase in ("before", "after")
    ]
    print_table(("network", "status", "seal", "transaction or CID"), rows)
    tamper = document["tamper"]
    if tamper["detected"]:
        out.print(f"tamper check: FAILED as it should: {tamper['record']}: {tamper['problem']}")
    else:
        out.print("tamper check: the changed record was NOT found")
    findings = document["fsck"]["findings"]
    for finding in findings:
        out.print(f"fsck: {finding['kind']} {finding['subject']}: {finding['detail']}")
    out.print(f"fsck: {'clean' if not findings else 'NOT clean'}")
    integrity = "verified" if document["chain_integrity"] else "NOT verified"
    out.print(f"chain integrity: {integrity}")
    for line in document["rests_on"]:
        out.print(f"  rests on: {line}")
    for name, walk in document["beyond"].items():
        out.print(f"{name}: {walk['status']}: {walk['line']}")
    out.print(f"report: {document['report_path']}")
