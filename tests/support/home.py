"""Spools brought home in this process: shipped, sealed, anchored on the local network, verified."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from provenance.ledger.ingest import drain
from provenance.ledger.seal import seal_ready
from provenance.settings import load
from provenance.stores.memory_transport import MemoryTransport
from provenance.verify.report import VerificationReport
from tests.faults.support.by_hand import anchor


def brought_home(*bases: Path) -> dict[UUID, VerificationReport]:
    """Each run of the spools below ``bases``, verified in a deployment at the first of them.

    What has not ended is sealed as after the grace.
    """
    settings = load(None, bases[0])
    store, policy, transport = (
        sending.open_store(settings),
        sending.seal_policy(settings),
        MemoryTransport(),
    )
    assert store is not None
    for base in bases:
        with Shipper(base / "spool", transport) as shipper:
            while shipper.run_once().events:
                pass
    drain(transport, store, policy, "one", time.time)
    with store.transaction() as tx:
        runs = [row.run for row in tx.runs()]
        for run in runs:
            seal_ready(tx, run, policy, time.time() + policy.grace_s)
    store.close()
    anchor(settings)
    return {run: verify_run(settings, str(run)) for run in runs}
