"""The example of a host's record, for docs/FORMAT.md, section 2.5."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

from provenance.proofs.host.evidence import HostEvidence, qualifying_data
from tests.support.beyond.paper_tpm import KEY, certificate, der, event_log, quote

BOOT = b"secure boot"


def host_example(run: UUID, run_key: bytes, chain: bytes, phase: str = "start") -> dict[str, Any]:
    """The body of a process's record; ``chain`` is the producer's before it."""
    extra, clock = (
        qualifying_data(phase, run, run_key, chain),
        3_600_000 + 60_000 * (phase == "end"),
    )
    pcrs = {0: bytes(31) + b"\3", 7: sha256(bytes(32) + sha256(BOOT).digest()).digest()}
    certificates = der(certificate("ak", KEY, days=36_500))
    own = quote(extra, pcrs, clock=clock, certificates=certificates)
    log = event_log([(7, BOOT)], locality=3) if phase == "start" else None
    software = (("kernel", "6.12.0"), ("machine", "x86_64"))
    return HostEvidence(phase, own, log, (), software).as_json()
