"""An accuracy that nobody sees is proved to be at least 0.9; the proof of more is refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from provenance.app.runs import evidence_of
from provenance.app.verify import verify_run
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.tracker import ProvenanceTracker
from provenance.verify.catalogue import PROVED
from provenance.zk.prove import find_number, prove

NEEDS = ()


def walk(stage: Stage) -> str:
    """A short run that hides its accuracy; a proof, and one of a bound that was changed."""
    hidden = {"commitments": {"metrics": ["test_accuracy"]}}
    config = json.loads(stage.config.read_text("utf-8")) | hidden
    tracker = ProvenanceTracker(stage.settings.base_dir, config)
    tracker.track_epoch(1, {"loss": 0.2, "test_accuracy": 0.9312})
    tracker.store_merkle_on_blockchain_after_training({})
    run, path = stage.sealed(tracker.run_id), stage.scratch / "accuracy.json"
    number = find_number(evidence_of(stage.settings, run), "test_accuracy")
    proved = prove(number, stage.settings.base_dir, at_least="0.9")
    path.write_bytes(proved.encode())
    report = verify_run(stage.settings, run, offline=True, proofs=[path])
    shown = [notice.problem for notice in report.notices if notice.check == PROVED]
    if report.findings or not shown:
        raise IntegrityError(f"{path}: {report.findings or 'nothing is proved'}")
    begun = time.perf_counter()
    proved.verify()
    took_ms = (time.perf_counter() - begun) * 1e3
    more = replace(proved, statement=replace(proved.statement, at_least=950_000))
    path.write_bytes(more.encode())
    if not verify_run(stage.settings, run, offline=True, proofs=[path]).findings:
        raise IntegrityError(f"{path}: a bound that was changed passes, expected a finding")
    size = f"{len(proved.proof)} bytes, checked in {took_ms:.0f} ms"
    return f"run {run}: {shown[0]}: {size}; refused as a proof of at least 0.95"
