"""The run that a user's words name, and what the database has about it."""

from __future__ import annotations

from uuid import UUID

from provenance.bootstrap import reading
from provenance.errors import IntegrityError
from provenance.evidence import from_database
from provenance.evidence.run_evidence import RunEvidence
from provenance.settings import Settings


def find_run(settings: Settings, text: str) -> UUID:
    """The run that a user's words name: an id, 8 or more of its first digits, ``latest``.

    Raises:
        UnknownRunError, StoreUnavailable
    """
    with reading.opened_store(settings, f"run {text}") as store:
        return from_database.find_run(store, text)


def evidence_of(settings: Settings, run: str) -> RunEvidence:
    """What the database has about a run; ``run`` as for :func:`find_run`.

    Raises:
        UnknownRunError, StoreUnavailable
        IntegrityError: A row of it is damaged.
    """
    with reading.opened_store(settings, f"run {run}") as store:
        label = getattr(store, "label", "database")
        key = reading.ledger_key(settings)
        try:
            return from_database.from_store(store, from_database.find_run(store, run), key, label)
        except from_database.DAMAGED as error:
            raise IntegrityError(f"{label}: run {run} cannot be read: {error}") from error
