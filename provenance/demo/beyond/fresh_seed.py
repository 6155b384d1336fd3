"""A run draws its seed from blocks that nobody could know before, and is anchored after it."""

from __future__ import annotations

import time

from provenance.app.verify import verify_run
from provenance.capture.ship.beacons import load_beacons
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError, NetworkUnavailable

NEEDS = ("bitcoin",)
_WITHIN_S = 60.0


def walk(stage: Stage) -> str:
    """Draw, train for an epoch, wait for the anchor, verify on the node."""
    tracker = stage.tracker()
    deadline = time.monotonic() + _WITHIN_S
    while not load_beacons(tracker.spool_dir):
        if time.monotonic() > deadline:
            raise NetworkUnavailable("no block came into the spool")
        time.sleep(0.2)
    seed = tracker.fresh_seed()
    tracker.track_epoch(1, {"loss": 0.5})
    tickets = tracker.store_merkle_on_blockchain_after_training({"loss": 0.5})
    stage.wait([tickets["bitcoin"]])
    report = verify_run(stage.settings, tracker.run_id)
    window = next((note.problem for note in report.notices if note.subject == "seeds"), "")
    if report.findings or "happened between" not in window:
        raise IntegrityError(f"run {tracker.run}: {window or 'no seed is there'}")
    return f"seed {seed}: {window}"
