"""The ledger's guard: no head is signed that another, signed before, contradicts.

A database that was restored, emptied or swapped is shorter than what its key has signed: going on
would sign a second history. So the newest signed head is kept apart from the database as well, in
a file beside the key and in Redis, each a C2SP tlog-checkpoint that counts only under the key's
signature. The networks show roots without their size: one under our key that the database does not
know pauses that network (``fork``, :mod:`provenance.anchor.pauses`).

Nothing is signed, ingested or anchored while one of them contradicts the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from provenance import files
from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    LedgerForkError,
    UnavailableError,
)
from provenance.formats.checkpoint import Head, open_head
from provenance.formats.note import SignerKey
from provenance.log import get_logger
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.transport import EventTransport
from provenance.ports.values import HeadRow

SUCCEED = "begin a successor: provenance ledger succeed"
RECOVER = f"bring back what is missing: provenance ledger recover; or {SUCCEED}"

_log = get_logger("provenance.ledger")


@dataclass(slots=True)
class LedgerGuard:
    """Remembers what was signed, and compares.

    Attributes:
        path: The file of the newest signed head.
        transport: Redis; None where it is not to be asked.
        networks: Whose pauses count.
        hold: A file that a backup has (:mod:`provenance.operations.backup`) and its original has
            not: while it is there, nobody said that this is the newest.
    """

    signer: SignerKey
    path: Path
    transport: Callable[[], EventTransport] | None = None
    networks: tuple[str, ...] = ()
    hold: Path | None = None
    _signed: list[HeadRow] = field(default_factory=list, repr=False)

    def check(self, store: LedgerStore) -> None:
        """:meth:`compare`, and remember the database's newest head where it is newer."""
        last, known = self._compared(store)
        kept = min((head.size for head in known.values()), default=0)
        if last is not None and kept < last.size and self._read(last.note):
            self._remember(last)

    def compare(self, store: LedgerStore) -> HeadRow | None:
        """Compare the database with all that is remembered; returns its newest head.

        Raises:
            LedgerForkError: It lacks, or contradicts, what this key signed; or another key signed
                its newest head; or a network shows a root under our key that it does not know; or
                it was restored, and nobody said that nothing is missing.
            UnavailableError: Redis or the database cannot be asked.
        """
        return self._compared(store)[0]

    def _compared(self, store: LedgerStore) -> tuple[HeadRow | None, Mapping[str, Head]]:
        """The database's newest head, and those that are remembered, which it has."""
        known = self.remembered()
        with store.snapshot() as tx:
            for where, head in known.items():
                _compare(tx, head, where)
            last = tx.head()
            if last is not None and not known and self._read(last.note) is None:
                raise LedgerForkError(
                    f"the ledger's newest head (size {last.size}) is not signed by the key "
                    f"{self.signer.verifier.vkey}: put the ledger's own key back, or {SUCCEED}"
                )
            for name in self.networks:
                row = tx.network(name)
                if row is not None and row.forked:
                    raise LedgerForkError(f"{row.paused}; else {RECOVER}")
        if self.hold is not None and self.hold.exists():
            raise LedgerForkError(
                f"{self.hold}: this is a copy of a deployment, of {last.size if last else 0} "
                "entries, and nobody said that the original signed no more. Hold a newer bundle, a "
                "monitor's head or a network against it (provenance log compare), bring back what "
                "is missing (provenance ledger recover), then: provenance ledger confirm"
            )
        return last, known

    def remembered(self) -> Mapping[str, Head]:
        """The newest heads that this key signed, by where they are kept. Raises LedgerForkError:
        the file holds something else."""
        heads = {str(self.path): self._in_file()}
        if self.transport is not None:
            note = self.transport().newest_head(self._key_id())
            heads["Redis"] = None if note is None else self._read(note)
        return {where: head for where, head in heads.items() if head is not None}

    @contextmanager
    def transaction(self, store: LedgerStore, run: UUID | None) -> Iterator[LedgerTx]:
        """A transaction that may append; what it signed is remembered once it is committed: a head
        that nobody can have may be signed again otherwise."""
        self._signed.clear()
        with store.transaction(run) as tx:
            yield tx
        if self._signed:
            self._remember(self._signed.pop())

    def admit(self, tx: LedgerTx) -> None:
        """Before a signature, under the ledger's lock. Raises LedgerForkError: the database lacks
        what the file says was signed."""
        known = self._in_file()
        if known is not None:
            _compare(tx, known, str(self.path))

    def signed(self, head: HeadRow) -> None:
        """Note a head that :meth:`transaction` is to remember."""
        self._signed[:] = [head]

    def _remember(self, head: HeadRow) -> None:
        """Keep a committed head where it is newer. What cannot be written now, the next one is."""
        problem = None
        try:
            with files.locked(self.path.with_name(self.path.name + ".lock")):
                known = self._in_file()
                if known is None or known.size < head.size:
                    files.replace(self.path, head.note.encode())
        except OSError as error:
            problem = f"{self.path}: {error.strerror}"
        if self.transport is not None:
            with suppress(UnavailableError):
                self.transport().remember_head(self._key_id(), head.size, head.note)
        if problem is not None:
            _log.warning("signed head not kept", size=head.size, problem=problem)

    def _in_file(self) -> Head | None:
        try:
            note = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LedgerForkError(f"{self.path}: cannot be read: {error}") from error
        head = self._read(note)
        if head is None:
            raise LedgerForkError(
                f"{self.path}: holds no head that the key {self.signer.verifier.vkey} signed; put "
                f"the ledger's own key back, or {SUCCEED}"
            )
        return head

    def _read(self, note: str) -> Head | None:
        """What the note says under this key's signature; None where it has none."""
        with suppress(FormatError, InputError, BadSignatureError):
            return open_head(note, self.signer.verifier)
        return None

    def _key_id(self) -> str:
        return self.signer.verifier.public_bytes.hex()


def _compare(tx: LedgerTx, known: Head, where: str) -> None:
    last = tx.head()
    size = 0 if last is None else last.size
    if size < known.size:
        raise LedgerForkError(
            f"the database is behind: its ledger has {size} entries, and this key signed a head of "
            f"{known.size} ({where}). Nothing is signed until it is whole again: {RECOVER}"
        )
    found = differing(tx, known)
    if found is not None:
        raise LedgerForkError(
            f"the database has another history: at size {known.size} it has {found}, and this key "
            f"signed root {known.root.hex()} ({where}). Nothing is signed: put the "
            f"ledger's own database back, or {SUCCEED}"
        )


def differing(tx: LedgerTx, known: Head) -> str | None:
    """What the database has in the place of a head that was signed; None where it has that."""
    row = tx.head(known.size)
    if row is None:
        return "no head"
    return None if row.root == known.root else f"root {row.root.hex()}"
