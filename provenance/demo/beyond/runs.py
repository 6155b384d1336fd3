"""A run is begun and dropped; whoever has the ledger's tiles alone sees it."""

from __future__ import annotations

from provenance.app.log.export import export
from provenance.app.log.runs import from_source
from provenance.bootstrap import reading
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError, ProofError
from provenance.formats.tlog.account import pack
from provenance.roll.accounts import accounts
from provenance.roll.roll import SILENT

NEEDS = ()


def walk(stage: Stage) -> str:
    """Begin a run and let it go, export the ledger, then give its entry to another run."""
    dropped = stage.tracker()
    stage.wait(dropped.store_merkle_on_blockchain_before_training({"seed": 1}).values())
    folder, key = stage.scratch / "tiles", reading.ledger_key(stage.settings)
    with reading.opened_store(stage.settings, "demo") as store:
        size = export(store, folder, key).head.size
        own = accounts(store, 0, size)
    dropped.close()
    told = from_source(str(folder), key)
    silent = [item.run for item in told.roll.runs if item.state == SILENT]
    if dropped.run not in silent:
        raise IntegrityError(f"run {dropped.run}: not shown as silent")
    path = next((folder / "tile/accounts").rglob(f"*.p/{size}"))
    at = next(item.entries[0] for item in told.roll.runs if item.run == dropped.run)
    own[at] = own[0]
    path.write_bytes(pack(own))
    try:
        from_source(str(folder), key)
    except ProofError:
        runs = f"{len(told.roll.runs)} runs in {size} entries, every entry accounted for"
        return f"{runs}; dropped run {dropped.run} shows, and no other account leads to its entry"
    raise IntegrityError(f"entry {at}: another run's account passes")
