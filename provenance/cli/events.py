"""``provenance events parked``: what ingest would not take, and why; and to forget it."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any
from uuid import UUID

from provenance.app.base_directory import known_base
from provenance.bootstrap import reading, sending
from provenance.cli.output import answer, print_table, settings_of, when
from provenance.errors import UsageError
from provenance.evidence.from_database import find_run
from provenance.ports.values import Parked
from provenance.settings import Settings


def parked(arguments: argparse.Namespace) -> int:
    """Parked events, oldest first, of one run where one is named."""
    settings = known_base(settings_of(arguments, secrets=False))
    run = None
    if arguments.run_id:
        with reading.opened_store(settings, f"run {arguments.run_id}") as known:
            run = find_run(known, arguments.run_id)
    if arguments.forget:
        return _forget(arguments, settings, run)
    store = reading.open_store(settings)
    rows: list[dict[str, Any]] = []
    if store is not None:
        with closing(store), store.snapshot() as tx:
            rows = [_row(event) for event in tx.parked(run)]
    if not arguments.json:
        table = [(r["parked_at"], r["run_id"], r["bytes"], r["id"][:16], r["reason"]) for r in rows]
        print_table(("parked at", "run", "bytes", "id", "reason"), table)
    lines = ["", f"{len(rows)} parked"] if rows else ["nothing is parked"]
    return answer(arguments, {"parked": rows}, *lines)


def _forget(arguments: argparse.Namespace, settings: Settings, run: UUID | None) -> int:
    """Delete parked events, of one run where one is named: only their count is told."""
    if run is None and not arguments.all:
        raise UsageError("--forget: found no run, expected RUN, or --all for those of every run")
    forgotten, existing = 0, reading.open_store(settings)
    if existing is not None:
        existing.close()
        with closing(sending.open_store(settings)) as store, store.transaction() as tx:
            forgotten = tx.forget_parked(run)
    return answer(arguments, {"forgotten": forgotten}, f"{forgotten} forgotten")


def _row(event: Parked) -> dict[str, Any]:
    return {
        "id": event.id,
        "run_id": None if event.run is None else str(event.run),
        "reason": event.reason,
        "parked_at": when(event.parked_at),
        "bytes": len(event.payload),
    }
