"""Two of three persons approve that a run is promoted; one signature does not do."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.app.verify import verify_run
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.gate.approvals import approve, held
from provenance.settings.approvals import ApprovalRule

NEEDS = ()


def walk(stage: Stage) -> str:
    """Sign twice, count after each."""
    keys = {name: Ed25519PrivateKey.generate() for name in ("alice", "bob", "carol")}
    rule = ApprovalRule(
        at_least=2,
        by={name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()},
    )
    path, until = stage.scratch / "approval.json", datetime.now(UTC).date() + timedelta(30)
    report = verify_run(stage.settings, stage.run)
    approve(report, keys["alice"], until, path)
    if held(rule, report, [path], time.time()).outcome == "passed":
        raise IntegrityError(f"{path}: one signature passes, expected two")
    approve(report, keys["bob"], until, path)
    both = held(rule, report, [path], time.time())
    if both.outcome != "passed":
        raise IntegrityError(f"{path}: {both.found}")
    return f"promotion of root {report.seals[-1].root.hex()[:16]} {both.found}, until {until}"
