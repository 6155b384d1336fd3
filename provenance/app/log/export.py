"""The ledger as a folder of C2SP tlog-tiles, for any web server, with an account of each entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provenance import files
from provenance.app.log.proofs import stated_head
from provenance.app.log.sources import reading_later
from provenance.errors import FormatError, InputError, IntegrityError, ProofError
from provenance.formats.checkpoint import Head, parse_note
from provenance.formats.merkle import HASH_SIZE, KeptTree, root_of_hashes
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey
from provenance.formats.tlog.account import MAX_ACCOUNT_BYTES, Account, pack, unpack
from provenance.formats.tlog.outcome import Outcome
from provenance.formats.tlog.tiles import (
    CHECKPOINT,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TiledLedger,
    accounts_path,
    tiles,
)
from provenance.ports.store import LedgerStore
from provenance.roll.accounts import accounts

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What :func:`export` left in the folder: tiles written now, and those that were there; and how
    many entries have no account (:mod:`provenance.formats.tlog.account`)."""

    head: Head
    written: int
    kept: int
    checkpoint_written: bool
    unaccounted: int


def export(
    store: LedgerStore,
    folder: Path,
    key: VerifierKey | None,
    progress: Progress = lambda step, done, total: None,
) -> Exported:
    """Write the ledger as C2SP tlog-tiles for static hosting; the checkpoint comes last.

    A folder of an earlier export is only added to: nothing that was served changes, but the
    checkpoint. Everything there is compared before anything is written. Partial tiles of
    earlier checkpoints stay. Without the ledger's key the head's signature is not verified.

    Raises:
        InputError: The ledger is empty; the folder holds another ledger, or a later state of
            this one; it cannot be written.
        IntegrityError: The ledger does not recompute to its head.
        StoreUnavailable
    """

    def entries(first: int, end: int) -> list[bytes]:
        with store.snapshot() as tx:
            return list(tx.roots(first, end))

    with store.snapshot() as tx:
        if tx.head() is None:
            raise InputError("the ledger is empty: there is no signed head to export")
    with _locked(folder):
        with store.snapshot() as tx:
            row = tx.head()
            if row is None:
                raise IntegrityError("the ledger has lost its heads; run: provenance fsck")
        tree, note = KeptTree(row.size, reading_later(store)), row.note
        head, ledger = stated_head(row, tree.root(), key), TiledLedger(tree, entries)
        every = list(tiles(ledger.tree.size))
        missing = []
        for done, tile in enumerate(every, 1):
            if not _is_written(folder / tile.path, _checked(ledger, tile)):
                missing.append(tile)
            progress("comparing", done, len(every))
        told = [tile for tile in every if tile.level is None]
        known = [_kept_accounts(folder, tile, entries) for tile in told]
        stale = _check_checkpoint(folder / CHECKPOINT, head, note, ledger)
        for done, tile in enumerate(missing, 1):
            path = folder / tile.path
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, ledger.data(tile), files.PUBLIC)
            progress("writing", done, len(missing))
        unaccounted = 0
        for done, (tile, own) in enumerate(zip(told, known, strict=True), 1):
            unaccounted += (own or _write_accounts(folder, tile, store)).count(None)
            progress("accounting", done, len(told))
        if stale:
            files.replace(folder / CHECKPOINT, note.encode(), files.PUBLIC)
    return Exported(head, len(missing), len(every) - len(missing), stale, unaccounted)


def _kept_accounts(
    folder: Path, tile: Tile, entries: Callable[[int, int], list[bytes]]
) -> list[Account | Outcome | None] | None:
    """The accounts that an earlier export wrote, which must be of these entries; None without."""
    path, first = folder / accounts_path(tile), tile.index * TILE_WIDTH
    try:
        with path.open("rb") as file:
            data = file.read(tile.width * (MAX_ACCOUNT_BYTES + 2) + 1)
    except FileNotFoundError:
        return None
    try:
        own = unpack(data, tile.width, accounts_path(tile))
        for index, root in enumerate(entries(first, first + tile.width), first):
            if (account := own[index - first]) is not None:
                account.verify(index, root)
    except (FormatError, ProofError) as error:
        raise InputError(f"{path}: {error}; nothing was written") from error
    return own


def _write_accounts(folder: Path, tile: Tile, store: LedgerStore) -> list[Account | Outcome | None]:
    path, first = folder / accounts_path(tile), tile.index * TILE_WIDTH
    made = accounts(store, first, first + tile.width)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, pack(made), files.PUBLIC)
    return made


def _checked(ledger: TiledLedger, tile: Tile) -> bytes:
    """The bytes of a tile; its hashes have to lead to those of the levels above."""
    data = ledger.data(tile)
    if tile.level is not None:
        hashes = [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
        first, height = tile.index * TILE_WIDTH, tile.level * TILE_HEIGHT
        above = ledger.tree.hash(first << height, first + tile.width << height)
        if root_of_hashes(hashes) != above:
            raise IntegrityError(
                f"{tile.path}: the ledger's entries and levels differ; run: provenance fsck"
            )
    return data


def _is_written(path: Path, data: bytes) -> bool:
    """Whether a file is there; one that differs stops the export."""
    try:
        with path.open("rb") as file:
            existing = file.read(len(data) + 1)
    except FileNotFoundError:
        return False
    if existing != data:
        raise InputError(
            f"{path}: differs from this ledger's: the folder is of another ledger, or the file "
            "is damaged; nothing was written"
        )
    return True


def _check_checkpoint(path: Path, head: Head, note: str, ledger: TiledLedger) -> bool:
    """Whether the checkpoint is to be written; one that the ledger does not extend stops it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_NOTE_BYTES + 1)
    except FileNotFoundError:
        return True
    try:
        existing = parse_note(data.decode()).head
    except (UnicodeDecodeError, FormatError, InputError) as error:
        raise InputError(f"{path}: is no checkpoint ({error}); nothing was written") from error
    if existing.origin != head.origin:
        problem = f"is of ledger {existing.origin!r}"
    elif existing.size > head.size:
        problem = f"is of size {existing.size}, and this ledger has only {head.size} entries"
    elif ledger.tree.root(existing.size) != existing.root:
        problem = f"has another root at size {existing.size}: the folder is of another ledger"
    else:
        return data != note.encode()
    raise InputError(f"{path}: {problem}; nothing was written")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made and locked: two exports take turns."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder):
            yield
    except OSError as error:
        where = error.filename or folder
        raise InputError(f"{where}: cannot be used: {error.strerror}") from error
