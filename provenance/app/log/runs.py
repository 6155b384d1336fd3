"""``provenance log runs``: the roll of a ledger, wherever it is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    IntegrityError,
    ProofError,
    UnknownRunError,
)
from provenance.evidence.from_database import DAMAGED
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey
from provenance.formats.tlog.tiles import CHECKPOINT
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState
from provenance.roll.from_database import Progress, roll_of
from provenance.roll.from_tiles import read_roll
from provenance.roll.roll import FILE, MAX_BYTES, Roll
from provenance.roll.statistics import RunsBefore, runs_before
from provenance.settings import Settings
from provenance.verify.verdict import PUBLIC

MAX_TOLD: Final = 300
"""Runs of a database whose reports say how many began before: each is read for each report."""
_WORD: Final = (
    "rests on: the head's root, for the entries and whose they are; states, names and results are"
    " the database's word, and the bundle itself is checked by: provenance verify {}"
)


@dataclass(frozen=True, slots=True)
class ToldRoll:
    """A roll and what it rests on.

    Attributes:
        head: The signed head that its entries give; None of a database.
        key: That signed the head; None where none is known.
        word: What of it is said by somebody and shown by nothing, a line for people; None where
            the list is the reader's own.
        anchored: Of ledger indexes, the network and block time of the first anchor that covers
            them: the entry was made before. Of a database alone.
        unanchored: How many outcomes of later verifications are under no head that a chain has.
            Of a database alone.
    """

    source: str
    roll: Roll
    head: Head | None = None
    key: VerifierKey | None = None
    word: str | None = None
    anchored: Mapping[int, tuple[str, float]] | None = None
    unanchored: int | None = None

    def run(self, text: str) -> UUID:
        """The run that a full id, 8 or more of its first or last digits, or ``latest`` names.
        Raises UnknownRunError: none, or several."""
        if text == "latest" and self.roll.runs:
            return max(self.roll.runs, key=lambda item: (item.entries[:1], item.run.int)).run
        digits = text.lower().replace("-", "")
        found = [
            item.run
            for item in self.roll.runs
            if len(digits) >= 8
            and digits in (item.run.hex[: len(digits)], item.run.hex[-len(digits) :])
        ]
        if len(found) != 1:
            expected = "expected a run's id, 8 or more of its first or last digits, or latest"
            told = f"run {text}: found {len(found)} in {self.source}, {expected}"
            raise UnknownRunError(told)
        return found[0]


def from_database(
    settings: Settings, *, described: bool, progress: Progress = lambda done, total: None
) -> ToldRoll:
    """The deployment's own; ``described`` and ``progress`` as :func:`roll_of`. Raises
    StoreUnavailable; IntegrityError: a row is damaged."""
    with reading.opened_store(settings, "log runs") as store, store.snapshot() as tx:
        size, now = tx.ledger_size(), time.time()
        try:
            roll = roll_of(
                tx, size, now, settings.lost_after_s, described=described, progress=progress
            )
        except DAMAGED as error:
            raise IntegrityError(f"the list of runs cannot be read: {error}") from error
        key = reading.ledger_key(settings)
        bare = unanchored(tx, roll)
        return ToldRoll("database", roll, key=key, anchored=_anchored(tx, roll), unanchored=bare)


def from_source(text: str, key: VerifierKey | None) -> ToldRoll:
    """That of a folder or URL of tiles, or of a bundle.

    Args:
        key: The ledger's, as the reader knows it; None believes the one that a bundle brings.

    Raises:
        InputError: It is neither, or the bundle has no roll.
        BadSignatureError: Its head is signed by another key.
        FormatError, ProofError: A file is not of its form, or does not hold.
        NetworkUnavailable
    """
    from provenance.app.log.sources import note_text, tiles_at  # who verifies loads no HTTP

    read = tiles_at(text)
    if read is not None:
        note = note_text(f"{text}: {CHECKPOINT}", read(CHECKPOINT, MAX_NOTE_BYTES))
        head = _head(f"{text}: {CHECKPOINT}", note, key)
        try:
            return ToldRoll(text, read_roll(read, head), head, key)
        except (FormatError, ProofError) as error:
            raise type(error)(f"{text}: {error}") from error
    evidence = read_bundle(Path(text))
    data = evidence.attachments.get(FILE)
    if data is None:
        raise InputError(f"{text}: has no {FILE}; write one with: provenance bundle RUN --runs")
    roll = Roll.decode(data, f"{text}: {FILE}")
    if key is None and evidence.vkey is not None:
        key = VerifierKey.from_vkey(evidence.vkey)
    note = next((item.note for item in evidence.heads if item.size == roll.size), "")
    if not note:
        raise ProofError(f"{text}: {FILE}: no head of size {roll.size} is in the bundle")
    head = _head(f"{text}: head {roll.size}", note, key)
    try:
        roll.check(head.root)
    except ProofError as error:
        raise ProofError(f"{text}: {FILE}: {error}") from error
    return ToldRoll(text, roll, head, key, _WORD.format(text))


def told_before(settings: Settings, run: UUID) -> RunsBefore | None:
    """How many runs began before one, as the database says; None where it has more than
    :data:`MAX_TOLD` runs, which are for ``log runs`` alone, or another run's rows are damaged,
    which holds up no report but its own. Raises StoreUnavailable."""
    with reading.opened_store(settings, f"run {run}") as store, store.snapshot() as tx:
        if tx.run_counts()[0] > MAX_TOLD:
            return None
        try:
            roll = roll_of(tx, tx.ledger_size(), time.time(), settings.lost_after_s)
        except (IntegrityError, *DAMAGED):
            return None
    return runs_before(roll, run)


def with_roll(settings: Settings, evidence: RunEvidence) -> RunEvidence:
    """A run's evidence with the roll up to its newest head. Raises InputError: the roll is larger
    than a bundle takes, or the run is under no head; StoreUnavailable."""
    size = max((head.size for head in evidence.heads), default=0)
    if size == 0:
        raise InputError(f"run {evidence.run}: is under no head of the ledger yet")
    with reading.opened_store(settings, "bundle") as store, store.snapshot() as tx:
        data = roll_of(tx, size, time.time(), settings.lost_after_s).encode()
    if len(data) > MAX_BYTES:
        raise InputError(
            f"--runs: {len(data)} bytes, a bundle takes {MAX_BYTES}; give the tiles that "
            "'provenance log export' writes instead"
        )
    return replace(evidence, attachments={**evidence.attachments, FILE: data})


def _head(name: str, note: str, key: VerifierKey | None) -> Head:
    """A signed head; without a key its signature is not verified."""
    try:
        return open_head(note, key) if key is not None else parse_note(note).head
    except (BadSignatureError, FormatError, IntegrityError) as error:
        raise type(error)(f"{name}: {error}") from error


def unanchored(tx: LedgerTx, roll: Roll) -> int:
    """How many outcomes lie behind the newest head that a chain has."""
    upto = max(tx.reach(name, (AnchorState.CONFIRMED, AnchorState.FINAL)) for name in PUBLIC)
    return sum(index >= upto for item in roll.runs for index in item.outcomes)


def _anchored(tx: LedgerTx, roll: Roll) -> dict[int, tuple[str, float]]:
    """The earliest block over each run's first entry."""
    times = sorted(
        (row.size, row.block_time, row.network)
        for row in tx.anchors(states=(AnchorState.CONFIRMED, AnchorState.FINAL))
        if row.block_time is not None
    )
    found: dict[int, tuple[str, float]] = {}
    first = sorted((item.entries[0] for item in roll.runs if item.entries), reverse=True)
    best: tuple[float, str] | None = None
    for index in first:
        while times and times[-1][0] > index:
            _, at, network = times.pop()
            best = min(best, (at, network)) if best else (at, network)
        if best is not None:
            found[index] = (best[1], best[0])
    return found
