"""Tickets: what the two ``store_*`` calls hand back, one per network."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from provenance.errors import ProvenanceError
from provenance.formats.record import Phase
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import LedgerEntry
from provenance.settings import Settings

POLL_S = 0.25
REFUSED = "the run was sealed before: what this process recorded is refused, and under no root"


@dataclass(frozen=True, slots=True)
class TicketState:
    """One reading. ``status``: ``pending`` until the root is in the ledger, then the
    anchor's state, or ``unknown`` where this process cannot read the database."""

    status: str
    transaction_id: str | None = None
    root: str | None = None
    reason: str | None = None


class Ticket:
    """The promise that a run root is anchored on one network.

    Reading it asks the ledger database, never a network and never Redis. Without the
    ``workers`` extra, or before the workers have run, it is ``pending``. Where the run was sealed
    before anything of this process came, it is ``failed``: all of it was refused. So it is where
    the deployment that sealed the run anchors on no such network.

    Args:
        producer: Names this process, 16 bytes; None asks for the run alone.
    """

    def __init__(
        self,
        settings: Settings,
        run: UUID,
        phase: Phase,
        network: str,
        producer: bytes | None = None,
    ) -> None:
        self._settings, self._producer = settings, producer
        self.run_id, self.phase, self.network = str(run), phase.value, network

    @property
    def status(self) -> str:
        """``pending``, ``due``, ``held``, ``signed``, ``sent``, ``confirmed``, ``final``,
        ``failed``; ``held``: persons are waited for, as :meth:`as_dict` says."""
        return self._read().status

    @property
    def transaction_id(self) -> str | None:
        """The transaction id or CID, once it is known."""
        return self._read().transaction_id

    def wait(self, timeout: float = 60.0) -> str:
        """Wait until the anchor is confirmed, final or failed, at most ``timeout`` seconds.

        Returns:
            The status at the end; whichever it is, nothing is raised.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status
            if status in ("confirmed", "final", "failed") or time.monotonic() >= deadline:
                return status
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))

    def as_dict(self) -> dict[str, Any]:
        """``status``, ``transaction_id``, ``root``, ``reason`` of one reading."""
        return asdict(self._read())

    def __repr__(self) -> str:
        return f"Ticket({self.network}, {self.phase}, run {self.run_id})"

    def _read(self) -> TicketState:
        from provenance.bootstrap import reading

        try:
            store = reading.open_store(self._settings)
            if store is None:
                return TicketState("pending")
            with closing(store):
                run, phase = UUID(self.run_id), Phase(self.phase)
                return read_ticket(store, run, phase, self.network, self._producer)
        except ProvenanceError as error:
            return TicketState("unknown", reason=str(error))


def read_ticket(
    store: LedgerStore, run: UUID, phase: Phase, network: str, producer: bytes | None = None
) -> TicketState:
    """The state of the anchor that covers a seal's ledger entry on a network."""
    with store.snapshot() as tx:
        own = None if producer is None else tx.producer(run, producer)
        if producer is not None and (own is None or not own.highest):
            row_of_run = tx.run(run)
            if row_of_run is None or row_of_run.state == "open":
                return TicketState("pending")
            return TicketState("failed", reason=REFUSED)
        entry = next((e for e in tx.entries(run) if e.phase is phase), None)
        return TicketState("pending") if entry is None else anchor_state(tx, entry, network)


def anchor_state(tx: LedgerTx, entry: LedgerEntry, network: str) -> TicketState:
    """The state of the anchor that covers a ledger entry on a network."""
    from provenance.evidence.from_database import anchor_fact

    root, row = entry.root.hex(), tx.covering(network, entry.index)
    if row is None:  # a seal makes its anchors in its own transaction
        reason = f"this deployment has no network {network}" if entry.anchor else None
        return TicketState("failed" if entry.anchor else "pending", root=root, reason=reason)
    return TicketState(row.state.value, anchor_fact(tx, row).transaction_id, root, row.reason)
