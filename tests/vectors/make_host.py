"""The example of a host's record, for docs/FORMAT.md, section 2.5."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

from provenance.proofs.host.evidence import HostEvidence, qualifying_data
from tests.support.beyond.paper_tpm import KEY, certificate, der, event_log, quote

BOOT = b"secure boot"


def host_example(run: UUID, run_key: bytes, chain: bytes) -> dict[str, Any]:
    """The body of a record at a process's start; ``chain`` is the producer's before it."""
    extra = qualifying_data("start", run, run_key, chain)
    pcrs = {0: bytes(31) + b"\3", 7: sha256(bytes(32) + sha256(BOOT).digest()).digest()}
    own = quote(extra, pcrs, certificates=der(certificate("ak", KEY)))
    log = event_log([(7, BOOT)], locality=3)
    software = (("kernel", "6.12.0"), ("machine", "x86_64"))
    return HostEvidence("start", own, log, (), software).as_json()
