"""Pending OpenTimestamps proofs, completed from the ledger's database.

A bundle is made and written anew, whole or not at all, under these conditions: it
is as its manifest says; every seal and record it has is in the database, unchanged; and what
it withholds is withheld again. A bundle of selected records stays one: what the run has
recorded since is withheld as well, but for control records. A pending proof of a head whose
anchor a later one made needless is left out: nothing would complete it.

A lone ``.ots`` file is extended: its pending attestation is of a run root or a ledger root,
and the receipt of that root knows the way to the block. Other attestations stay.

Nothing that goes wrong with one path concerns the others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from provenance import files as whole_files
from provenance.bootstrap import reading
from provenance.bundle.attachments.opentimestamps import (
    BITCOIN,
    calendar_uri,
    from_ledger_root,
    from_run_root,
)
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MANIFEST, SUMS
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
    ProofError,
    ProvenanceError,
    UnavailableError,
)
from provenance.evidence.disclosure import withhold_like
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.opentimestamps.file import MAX_FILE_BYTES, TimestampFile
from provenance.formats.opentimestamps.tree import Bitcoin, Pending, Timestamp
from provenance.formats.receipt import Receipt
from provenance.ports.store import LedgerStore
from provenance.ports.values import LedgerEntry
from provenance.settings import Settings
from provenance.verify.catalogue import RECORDS
from provenance.verify.checks.receipts import check_evidence
from provenance.verify.verifier import verify

SUFFIX: Final = ".ots"
_UNTOUCHED: Final = "nothing was changed"


class Upgrade(StrEnum):
    """What became of a path."""

    UPGRADED = "upgraded"
    """Proofs were completed; others may still be pending."""
    PENDING = "pending"
    COMPLETE = "complete"
    """It was before."""
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    """The database could not be asked."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """One path's result.

    Attributes:
        completed: Proofs that were pending and are complete now.
        pending: Proofs that still are.
        problem: Why it failed.
    """

    path: str
    status: Upgrade
    completed: int = 0
    pending: int = 0
    problem: str | None = None


def exit_code(results: Iterable[Upgraded]) -> int:
    """1 where a path failed, 3 where the database was not reached, else 0."""
    seen = {result.status for result in results}
    if Upgrade.FAILED in seen:
        return IntegrityError.exit_code
    return UnavailableError.exit_code if Upgrade.UNREACHABLE in seen else 0


def upgrade(
    settings: Settings, paths: Iterable[Path], progress: Callable[[Path], None] = lambda path: None
) -> Iterator[Upgraded]:
    """Complete what can be completed; a result for each path, as it is done.

    Args:
        paths: Bundle folders or zips, and ``.ots`` files.
        progress: Told of each path before it is looked at.
    """
    deployment = _Deployment(settings)
    try:
        for path in paths:
            progress(path)
            try:
                yield deployment.upgrade(path)
            except ProvenanceError as error:
                down = isinstance(error, UnavailableError)
                status = Upgrade.UNREACHABLE if down else Upgrade.FAILED
                yield Upgraded(str(path), status, problem=str(error))
            except OSError as error:
                problem = error.strerror or type(error).__name__
                yield Upgraded(str(path), Upgrade.FAILED, problem=problem)
    finally:
        deployment.opened.close()


class _Deployment:
    """The database, opened when first needed, and asked once where it is down."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.opened = ExitStack()
        self._down: UnavailableError | None = None

    @cached_property
    def store(self) -> LedgerStore:
        if self._down is not None:
            raise self._down.with_traceback(None)
        try:
            return self.opened.enter_context(reading.opened_store(self.settings, "upgrade"))
        except UnavailableError as error:
            self._down = error
            raise

    def upgrade(self, path: Path) -> Upgraded:
        if path.is_dir() or path.suffix.lower() == ".zip":
            inner = path / "evidence"  # a report's folder
            lone = not (path / MANIFEST).exists() and (inner / MANIFEST).exists()
            return self._bundle(inner if lone else path)
        if path.suffix.lower() == SUFFIX:
            return self._file(path)
        raise InputError(f"found neither a bundle nor an {SUFFIX} file")

    # --- bundles -------------------------------------------------------------------------

    def _bundle(self, path: Path) -> Upgraded:
        old = read_bundle(path)
        changed = [f for f in verify(old, None, now=0.0).findings if f.check == RECORDS]
        if changed:
            first = changed[0]
            raise IntegrityError(f"{first.file or first.subject} {first.problem}; {_UNTOUCHED}")
        was_pending, was_complete = _proofs(old.attachments)
        key = reading.ledger_key(self.settings)
        new = self._like(old, from_store(self.store, old.run, key))
        files = bundle_files(new, ots=any(n.startswith("records/") for n in old.attachments))
        pending, complete = _proofs(files)
        if was_complete - complete:
            lost = min(was_complete - complete)
            raise IntegrityError(
                f"{lost} is complete, and the database has no final receipt for it; {_UNTOUCHED}"
            )
        completed = len(complete - was_complete)
        if completed:
            write_files(files, path)
            return Upgraded(str(path), Upgrade.UPGRADED, completed, len(pending))
        if was_pending:
            return Upgraded(str(path), Upgrade.PENDING, pending=len(was_pending))
        return Upgraded(str(path), Upgrade.COMPLETE)

    @staticmethod
    def _like(old: RunEvidence, new: RunEvidence) -> RunEvidence:
        """The new evidence as the bundle has it; the database may only add to the story.

        Raises:
            IntegrityError: It tells another.
        """
        entries = {entry.index: entry.root for entry in new.entries}
        digests = {record.digest for record in new.records}
        other = f"the database has another; {_UNTOUCHED}"
        for entry in old.entries:
            if entries.get(entry.index) != entry.root:
                was = f"its ledger entry {entry.index} is {entry.root.hex()}"
                raise IntegrityError(f"{was}, {other}")
        for record in old.records:
            if record.digest not in digests:
                raise IntegrityError(f"its record {record.path} is {record.digest.hex()}, {other}")
        if old.vkey is not None and new.vkey not in (None, old.vkey):
            raise IntegrityError(f"its ledger key is {old.vkey}, {other}")
        return replace(withhold_like(new, old), vkey=old.vkey or new.vkey)

    # --- files ---------------------------------------------------------------------------

    def _file(self, path: Path) -> Upgraded:
        for folder in path.absolute().parents:
            if all((folder / name).is_file() for name in (MANIFEST, SUMS, "run.json")):
                raise InputError(f"is part of the bundle {folder}; upgrade that")
        if path.exists() and not path.is_file():
            raise InputError("is no file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        proof = TimestampFile.decode(data)
        ends = set(proof.timestamp.walk())
        waiting = [(message, end) for message, end in ends if isinstance(end, Pending)]
        timestamp, known = proof.timestamp, 0
        for message, attestation in waiting:
            entry_and_size = self._entry_of(message)
            if entry_and_size is None:
                continue
            known += 1
            more = self._continuation(message, entry_and_size)
            if more is not None:
                ours = attestation.uri == calendar_uri(self.settings.origin)
                timestamp = timestamp.extend(more, attestation if ours else None)
        if timestamp != proof.timestamp:
            _replace(path, TimestampFile(timestamp, proof.hashed_with).encode())
            done = set(timestamp.walk()) - ends
            return Upgraded(str(path), Upgrade.UPGRADED, completed=len(done))
        if any(isinstance(attestation, Bitcoin) for _, attestation in ends):
            return Upgraded(str(path), Upgrade.COMPLETE)
        if not known:
            waiting_for = min((message.hex() for message, _ in waiting), default="nothing")
            raise ProofError(f"is pending at {waiting_for}, which this ledger does not know")
        return Upgraded(str(path), Upgrade.PENDING, pending=known)

    def _entry_of(self, root: bytes) -> tuple[LedgerEntry, int | None] | None:
        """The entry to look for receipts at, and the head's size where the root is a head's.

        The last entry under a head has its receipt from that very head.
        """
        with self.store.snapshot() as tx:
            entry = tx.entry_of_root(root)
            if entry is not None:
                return entry, None
            head = tx.head_of_root(root)
            under = tx.entries(first=head.size - 1, end=head.size) if head else ()
            if head and not under:  # its last entry is an outcome
                under = tx.entries(end=head.size)[-1:]
            return (under[0], head.size) if head and under else None

    def _continuation(
        self, root: bytes, entry_and_size: tuple[LedgerEntry, int | None]
    ) -> Timestamp | None:
        """The way from a root to a block; None while there is no final receipt."""
        entry, size = entry_and_size
        with self.store.snapshot() as tx:
            rows = [row for row in tx.receipts(entry.run) if row.index == entry.index]
        for row in rows:
            receipt = Receipt.decode(row.document.encode())
            final = receipt.anchor.state == "final" and receipt.anchor.network == BITCOIN
            if not final or size not in (None, receipt.ledger.size):
                continue
            receipt.verify_inclusion()
            check_evidence(receipt.anchor, receipt.evidence)
            more = from_run_root(receipt) if size is None else from_ledger_root(receipt)
            if more.message == root:
                return more
        return None


def _proofs(files: Mapping[str, bytes]) -> tuple[set[str], set[str]]:
    """Names of the proofs that are pending, and of those that are complete.

    Raises:
        FormatError: One that does not decode; names it.
    """
    pending: set[str] = set()
    complete: set[str] = set()
    for name, data in files.items():
        if not name.endswith(SUFFIX):
            continue
        try:
            ends = TimestampFile.decode(data).timestamp.walk()
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None
        done = any(isinstance(attestation, Bitcoin) for _, attestation in ends)
        (complete if done else pending).add(name)
    return pending, complete


def _replace(path: Path, data: bytes) -> None:
    """Replace the bytes of a file, or of the file that a link points to."""
    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode)
    with whole_files.replacing(target) as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
