"""What a head that waits for approval costs: ``python -m tests.unit.approvals.cost``."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import mkdtemp

from provenance.formats.approval import TrustApproval
from provenance.formats.dsse import Envelope
from provenance.settings.approval_files import count
from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.unit.approvals.world import ApprovalWorld, run_id, signed


def world(runs: int) -> ApprovalWorld:
    made = ApprovalWorld()
    for number in range(runs):
        made.head(final=run_id(number))
    return made


def main() -> None:
    for runs in (1, 100, 1000):
        made = world(runs)
        began = time.perf_counter()
        made.publish()
        backlog = time.perf_counter() - began
        made.add(signed(made.take(), "alice"))
        began = time.perf_counter()
        made.publish()
        again, size = time.perf_counter() - began, len(signed(made.take(), "bob").encode())
        line = f"{runs} heads: first pass {backlog * 1e3:.0f} ms, next {again * 1e3:.1f} ms"
        print(f"{line}; envelope {size} bytes")
    account()


def account() -> None:
    """What the signature of one account adds."""
    sigstore, folder = Sigstore(), Path(mkdtemp())
    root = sigstore.trusted_root(folder / "root.json")
    rule = ApprovalSettings(1, {"ci": TrustedIdentity(WHO, ISSUER)}, sigstore_root=root)
    payload = TrustApproval.of({}).encode()
    signed = Envelope.from_bundle(sigstore.sign_statement(payload), "bundle")
    size = len(signed.encode()) - len(Envelope(payload, {}).encode())
    count(rule, signed, "bundle")  # which loads sigstore
    began = time.perf_counter()
    for _ in range(100):
        assert count(rule, signed, "bundle").names
    print(f"an account: {size} bytes, counted in {(time.perf_counter() - began) * 10:.1f} ms")


if __name__ == "__main__":
    main()
