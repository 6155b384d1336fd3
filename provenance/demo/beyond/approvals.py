"""Two of three persons approve that a run is promoted, and that the final root of another goes on
Ethereum; one signature does neither."""

from __future__ import annotations

import json
import random
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import provenance
from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.app.verify import verify_run
from provenance.approvals import anchoring
from provenance.approvals.anchoring import AnchoringApprovals
from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.formats.approval import sign
from provenance.gate.approvals import approve, held
from provenance.ledger.ingest import drain
from provenance.ports.store import LedgerStore
from provenance.ports.values import AnchorState
from provenance.settings import Settings, load
from provenance.settings.approvals import ApprovalRule
from provenance.stores.memory_transport import MemoryTransport

NEEDS = ("ethereum",)
SENDER: Final = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
"""The dev chain's account 1, known to everybody: the fleet has account 0."""
Keys = dict[str, Ed25519PrivateKey]


def walk(stage: Stage) -> str:
    """Sign twice, count after each; then the same for an anchor."""
    keys: Keys = {name: Ed25519PrivateKey.generate() for name in ("alice", "bob", "carol")}
    by = {name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()}
    rule, until = ApprovalRule(2, by), datetime.now(UTC).date() + timedelta(30)
    path = stage.scratch / "approval.json"
    report = verify_run(stage.settings, stage.run)
    approve(report, partial(sign, key=keys["alice"]), until, path)
    if held(rule, report, [path], time.time()).outcome == "passed":
        raise IntegrityError(f"{path}: one signature passes, expected two")
    approve(report, partial(sign, key=keys["bob"]), until, path)
    both = held(rule, report, [path], time.time())
    if both.outcome != "passed":
        raise IntegrityError(f"{path}: {both.found}")
    promoted = f"promotion of root {report.seals[-1].root.hex()[:16]} {both.found}"
    return f"{promoted}; {_anchor(stage, keys, by, until)}"


def _anchor(stage: Stage, keys: Keys, by: dict[str, str], until: date) -> str:
    """Of a run of a deployment of its own, in this process."""
    ethereum = json.loads(stage.config.read_text())["blockchain"]["ethereum"]
    ethereum |= {"private_key": SENDER, "confirmations": 1}
    settings = load(
        {
            "origin": "ml-provenance.local/approved",
            "blockchain": {"networks": ["ethereum"], "ethereum": ethereum},
            "approvals": {"at_least": 2, "by": by, "networks": ["ethereum"]},
        },
        stage.scratch / "approved",
    )
    with closing(sending.open_store(settings)) as store:
        run = _record(settings, store)
        (approvals,) = sending.anchor_conditions(settings, "ethereum")
        assert isinstance(approvals, AnchoringApprovals)
        for count, name in enumerate(("alice", "bob"), 1):
            state = _pass(settings, store)
            if state is not AnchorState.HELD:
                raise IntegrityError(f"the final root is {state.value} with {count - 1} of 2")
            with store.transaction() as tx:
                row = anchoring.waiting(tx, "ethereum")
                assert row is not None
                envelope = anchoring.take(approvals, tx, row, until).envelope
                assert envelope is not None
                anchoring.add(approvals, tx, sign(envelope, keys[name]), name)
        deadline = time.monotonic() + 10
        while _pass(settings, store) is not AnchorState.FINAL and time.monotonic() < deadline:
            time.sleep(0.3)
    lines = verify_run(settings, run).verdict.rests_on
    line = next((line for line in lines if line.startswith("anchoring on ethereum")), None)
    if line is None:
        raise IntegrityError(f"run {run}: its final root is on Ethereum without approval")
    return f"{line}, held until the second"


def _record(settings: Settings, store: LedgerStore) -> str:
    """A short run, shipped and sealed."""
    quiet = {"announce_run": False, "blockchain": {"networks": ["local"]}}
    base: Path = settings.base_dir
    with provenance.run("approved", base_dir=base, settings=quiet) as run:
        run.log({"loss": 0.5}, epoch=1)
    policy, transport = sending.seal_policy(settings), MemoryTransport()
    keys = [policy.signer.verifier.public_bytes]
    with Shipper(base / "spool", transport, ledger_keys=lambda: keys) as shipper:
        shipper.run_once()
        drain(transport, store, policy, "walk", time.time)
    return run.id


def _pass(settings: Settings, store: LedgerStore) -> AnchorState:
    """What an anchoring worker and a confirming one do; the newest anchor's state."""
    network = sending.open_network(settings, "ethereum")
    conditions = sending.anchor_conditions(settings, "ethereum")
    how = (60.0, sending.retry_settings(settings, "ethereum"), random.random, conditions)
    publish(AnchorDelivery(store, network, time.time, f"walk {time.time_ns()}", *how))
    confirm(AnchorDelivery(store, network, time.time, f"walk {time.time_ns()}", *how), poll_s=0.2)
    network.close()
    with store.snapshot() as tx:
        return tx.anchors("ethereum")[-1].state
