"""``provenance events parked``: what ingest would not take, and why; to retry and to forget it."""

from __future__ import annotations

import argparse
from contextlib import closing, suppress
from typing import Any
from uuid import UUID

from provenance.app.base_directory import known_base
from provenance.bootstrap import reading, sending
from provenance.cli.output import answer, print_table, settings_of, when
from provenance.errors import BadSignatureError, FormatError, UnknownRunError, UsageError
from provenance.evidence.from_database import find_run
from provenance.formats.producers.batch import open_batch
from provenance.formats.record import Record
from provenance.ports.store import LedgerStore
from provenance.ports.values import Parked
from provenance.settings import Settings

_COLUMNS = ("parked at", "run", "producer", "what", "bytes", "id", "reason")


def parked(arguments: argparse.Namespace) -> int:
    """Parked batches and events, oldest first, of one run where one is named."""
    settings = known_base(settings_of(arguments, secrets=False))
    option = "retry" if arguments.retry else "forget" if arguments.forget else None
    if option and not (arguments.run_id or arguments.all):
        raise UsageError(f"--{option}: found no run, expected RUN, or --all for those of every run")
    run = None
    if arguments.run_id:
        with reading.opened_store(settings, f"run {arguments.run_id}") as store:
            run = _run(store, arguments.run_id)
    existing = reading.open_store(settings)
    rows: list[dict[str, Any]] = []
    if existing is not None:
        with closing(existing), existing.snapshot() as tx:
            rows = [_row(event) for event in tx.parked(run)]
    if option:
        return (_retry if option == "retry" else _forget)(arguments, settings, run, bool(existing))
    if not arguments.json:
        cells = ("parked_at", "run_id", "producer", "what", "bytes")
        table = [(*(r[c] for c in cells), r["id"][:16], r["reason"]) for r in rows]
        print_table(_COLUMNS, table)
    lines = ["", f"{len(rows)} parked"] if rows else ["nothing is parked"]
    return answer(arguments, {"parked": rows}, *lines)


def _run(store: LedgerStore, text: str) -> UUID:
    """Also one that nothing was taken of."""
    try:
        return find_run(store, text)
    except UnknownRunError:
        with suppress(ValueError), store.snapshot() as tx:
            if tx.parked(run := UUID(text)):
                return run
        raise


def _forget(
    arguments: argparse.Namespace, settings: Settings, run: UUID | None, existing: bool
) -> int:
    """Delete them: only their count is told."""
    forgotten = 0
    if existing:
        with closing(sending.open_store(settings)) as store, store.transaction() as tx:
            forgotten = tx.forget_parked(run)
    return answer(arguments, {"forgotten": forgotten}, f"{forgotten} forgotten")


def _retry(
    arguments: argparse.Namespace, settings: Settings, run: UUID | None, existing: bool
) -> int:
    """Put batches into the stream again; what is refused again is parked again.

    A single event came in a batch that was taken, and is signed by nobody alone: it stays.
    """
    again: list[Parked] = []
    left = 0
    if existing:
        with closing(sending.open_store(settings)) as store, store.transaction() as tx:
            rows = tx.parked(run)
            again = [event for event in rows if _what(event)[0] == "batch"]
            left = len(rows) - len(again)
            if again:
                # The stream has them before the database forgets: ingest waits for the commit.
                tx.forget_parked(ids=[event.id for event in again])
                sending.open_transport(settings).append([event.payload for event in again])
    stay = f"; {left} stay: no batches, which alone can be sent again" if left else ""
    document = {"sent_again": len(again), "left": left}
    return answer(arguments, document, f"{len(again)} batches are in the stream again{stay}")


def _row(event: Parked) -> dict[str, Any]:
    what, run, producer = _what(event)
    return {
        "id": event.id,
        "run_id": None if run is None else str(run),
        "producer": None if producer is None else producer.hex(),
        "what": what,
        "reason": event.reason,
        "parked_at": when(event.parked_at),
        "bytes": len(event.payload),
    }


def _what(event: Parked) -> tuple[str, UUID | None, bytes | None]:
    """A batch, an event of one, or bytes that are neither; its run and its producer."""
    with suppress(FormatError, BadSignatureError):
        certificate = open_batch(event.payload).certificate
        return "batch", certificate.run, certificate.producer
    with suppress(FormatError):
        record = Record.decode(event.payload)
        return "event", event.run or record.run, record.producer
    return "bytes", event.run, None
