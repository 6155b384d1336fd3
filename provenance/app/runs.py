"""What the database has about the run that a user's words name."""

from __future__ import annotations

from provenance.bootstrap import reading
from provenance.errors import IntegrityError
from provenance.evidence import from_database
from provenance.evidence.run_evidence import RunEvidence
from provenance.settings import Settings


def evidence_of(settings: Settings, run: str, team: str | None = None) -> RunEvidence:
    """What the database has about a run: an id, 8 or more of its first or last digits, ``latest``.
    ``team``: as :class:`~provenance.evidence.from_database.LedgerView` takes it.

    Raises UnknownRunError, StoreUnavailable; IntegrityError: a row of it is damaged."""
    with reading.opened_store(settings, f"run {run}") as store:
        label = getattr(store, "label", "database") if team is None else "database"
        key = reading.ledger_key(settings)
        try:
            named = from_database.find_run(store, run)
            return from_database.from_store(store, named, key, label, team)
        except from_database.DAMAGED as error:
            raise IntegrityError(f"{label}: run {run} cannot be read: {error}") from error
