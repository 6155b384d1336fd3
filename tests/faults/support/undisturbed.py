"""What a run's roots are when nothing goes wrong: its spool, through one process, in order."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from uuid import UUID

from provenance.capture.ship.loop import Shipper
from provenance.formats.note import SignerKey
from provenance.ledger.ingest import drain
from provenance.ledger.seal import SealPolicy, seal_ready
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from tests.faults.support import checker

SIGNER = SignerKey.from_private_bytes("undisturbed", b"\x09" * 32)


def undisturbed_roots(kept: Path, run: UUID) -> dict[str, str]:
    """Ship a copy of ``<kept>/<run>`` into an empty database and seal it.

    A run without an end is sealed with what is there, as after the grace.
    """
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "spool"
        spool.mkdir()
        shutil.copytree(kept / str(run), spool / str(run))
        store = SqlStore.open(f"sqlite:///{folder}/ledger.db")
        transport = MemoryTransport()
        policy = SealPolicy((), SIGNER, 60.0)
        now = time.time()
        try:
            with Shipper(
                spool, transport, ledger_keys=lambda: [SIGNER.verifier.public_bytes]
            ) as shipper:
                while shipper.run_once().events:
                    drain(transport, store, policy, "one", lambda: now)
            with store.transaction() as tx:
                seal_ready(tx, run, policy, now + 3600)
                return checker.named_roots(tx.entries(run))
        finally:
            store.close()
