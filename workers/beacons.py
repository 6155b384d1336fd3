"""The newest block of each network, for seeds that nobody could know before it.

It runs on the network's own queue, as confirming does. Nobody waits for it: what it cannot find out
is a line of the log, and the block before stands.
"""

from __future__ import annotations

import time

from provenance.app.health import anchor_queue
from provenance.bootstrap import sending
from provenance.errors import ProvenanceError
from provenance.proofs.beacon import NETWORKS, sign_beacon
from workers import resources
from workers.app import app, settings
from workers.dispatch import ring
from workers.telemetry import log

EVERY_S = 30.0
_rung_at = 0.0


def ring_all() -> None:
    """Ask each network that has time for its newest block, now and then."""
    global _rung_at
    now = time.monotonic()
    if _rung_at and now - _rung_at < EVERY_S:
        return
    _rung_at = now
    for network in settings().blockchain.networks:
        if network in NETWORKS:
            ring(publish, anchor_queue(network), network)


@app.task(name="workers.beacons.publish", send_events=False)  # type: ignore[untyped-decorator]  # Celery has no types
def publish(network: str) -> None:
    """Publish one network's newest block under the ledger's key."""
    try:
        block = resources.network(network).newest_block()
        if block is not None:
            signed = sign_beacon(block, sending.ledger_signer(settings()))
            resources.transport().publish_beacon(network, signed)
    except ProvenanceError as error:
        log.warning("beacon.left", network=network, problem=str(error))
