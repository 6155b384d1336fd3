"""Runs whose process has its host attested, by a TPM or by paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from provenance.bundle.writer import bundle_files
from provenance.capture.ship.loop import Shipper
from provenance.evidence.run_evidence import RunEvidence
from provenance.settings.beyond.host import TpmSettings
from provenance.stores.memory_transport import MemoryTransport
from provenance.tracker import ProvenanceTracker
from provenance.verify.report import VerificationReport
from tests.support import stranger
from tests.support.beyond.paper_tpm import event_log
from tests.support.verify_world import OWN, World

BOOT = [(0, b"firmware"), (4, b"boot loader"), (7, b"secure boot")]
LOG = event_log(BOOT)
QUIET: Callable[[], object] = lambda: None  # noqa: E731


class Verified:
    """A run's evidence, and what both verifiers say of it."""

    def __init__(self, world: World, evidence: RunEvidence) -> None:
        self.world, self.evidence = world, evidence

    def report(self, **trust: Any) -> VerificationReport:
        return self.world.verify(self.evidence, trust=replace(OWN, **trust))

    def line(self, **trust: Any) -> str:
        report = self.report(**trust)
        assert report.findings == ()
        [line] = [each for each in report.verdict.rests_on if each.startswith("host of ")]
        return line.partition(": ")[2]

    @property
    def stranger(self) -> Any:
        return stranger.load().Bundle(bundle_files(self.evidence))


def trained(base: Path, tpm: TpmSettings, between: Callable[[], object] = QUIET) -> Verified:
    """A run on a host with this TPM, shipped when it has begun and when it has ended."""
    (base / "event_log").write_bytes(LOG)
    own = {"ak": tpm.ak, "tcti": tpm.tcti}
    host = {"tpm": own, "event_log": str(base / "event_log"), "image": "sha256:ab"}
    return recorded(base, host, between)


def recorded(
    base: Path, host: Mapping[str, object], between: Callable[[], object] = QUIET
) -> Verified:
    """As :func:`trained`, with these settings of the host."""
    tracker, transport = ProvenanceTracker(base, {"host": host}), MemoryTransport()
    tracker.store_merkle_on_blockchain_before_training({"epochs": 1})
    ship(tracker, transport)
    between()
    tracker.track_epoch(1, {"loss": 0.5})
    tracker.store_merkle_on_blockchain_after_training({"accuracy": 0.9})
    ship(tracker, transport)
    world = World(names=())
    world.ingest(*(each.payload for each in transport.read("worker", 1000)))
    return Verified(world, world.evidence(tracker.run))


def ship(tracker: ProvenanceTracker, transport: MemoryTransport) -> None:
    with Shipper(tracker.spool_dir, transport) as shipper:
        shipper.run_once()
