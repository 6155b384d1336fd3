"""``provenance events parked``: what ingest would not take, and why; and to forget it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from provenance.app.runs import find_run
from provenance.bootstrap import reading, sending
from provenance.cli.output import out, print_json, print_table, settings_of
from provenance.errors import UsageError
from provenance.ports.values import Parked
from provenance.settings import Settings


def parked(arguments: argparse.Namespace) -> int:
    """Parked events, oldest first, of one run where one is named."""
    settings = settings_of(arguments, secrets=False)
    run = find_run(settings, arguments.run_id) if arguments.run_id else None
    if arguments.forget:
        return _forget(arguments, settings, run)
    store = reading.open_store(settings)
    rows: list[dict[str, Any]] = []
    if store is not None:
        with store.snapshot() as tx:
            rows = [_row(event) for event in tx.parked(run)]
        store.close()
    if arguments.json:
        print_json({"parked": rows})
        return 0
    print_table(
        ("parked at", "run", "bytes", "id", "reason"),
        [
            (row["parked_at"], row["run_id"], row["bytes"], row["id"][:16], row["reason"])
            for row in rows
        ],
    )
    if rows:
        out.print()
    out.print(f"{len(rows)} parked" if rows else "nothing is parked")
    return 0


def _forget(arguments: argparse.Namespace, settings: Settings, run: UUID | None) -> int:
    """Delete parked events, of one run where one is named: only their count is told."""
    if run is None and not arguments.all:
        raise UsageError("--forget: found no run, expected RUN, or --all for those of every run")
    forgotten, existing = 0, reading.open_store(settings)
    if existing is not None:
        existing.close()
        store = sending.open_store(settings)
        with store.transaction() as tx:
            forgotten = tx.forget_parked(run)
        store.close()
    if arguments.json:
        print_json({"forgotten": forgotten})
    else:
        out.print(f"{forgotten} forgotten")
    return 0


def _row(event: Parked) -> dict[str, Any]:
    moment = datetime.fromtimestamp(event.parked_at, UTC)
    return {
        "id": event.id,
        "run_id": None if event.run is None else str(event.run),
        "reason": event.reason,
        "parked_at": moment.strftime("%Y-%m-%d %H:%M:%SZ"),
        "bytes": len(event.payload),
    }
