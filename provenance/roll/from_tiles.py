"""The roll of a ledger, from its tiles and the accounts beside them: nobody's word is needed.

What a run recorded is not there: how it ended is, where its account says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from uuid import UUID

from provenance.errors import FormatError, InputError, ProofError
from provenance.formats import merkle
from provenance.formats.checkpoint import Head
from provenance.formats.record import Phase
from provenance.formats.tlog.account import MAX_ACCOUNT_BYTES, Account, unpack
from provenance.formats.tlog.outcome import Outcome
from provenance.formats.tlog.tiles import Tile, accounts_path, tiles
from provenance.roll.roll import SILENT, Roll, RolledRun

Read = Callable[[str, int], bytes]
"""A file by its path, at most so many bytes and one more; ``InputError`` where it is not there."""
_ENTRY_BYTES = 34
_SEALED = "unknown"
"""Of a run with an *after* seal that nothing says the end of."""


def read_roll(read: Read, head: Head) -> Roll:
    """All runs that the accounts name, held against every entry below a head.

    Raises:
        FormatError: A file is not of its form.
        ProofError: The entries are not the head's, or an account is of another entry.
    """
    roots: list[bytes] = []
    known: list[Account | Outcome | None] = []
    for tile in tiles(head.size):
        if tile.level is None:
            roots += _entries(read, tile)
            known += _accounts(read, tile)
    if merkle.root(roots) != head.root:
        raise ProofError(
            f"tile/entries: give root {merkle.root(roots).hex()}, not the checkpoint's"
        )
    own: dict[UUID, list[tuple[int, Account]]] = defaultdict(list)
    again: dict[UUID, list[int]] = defaultdict(list)
    unaccounted = []
    for index, (root, account) in enumerate(zip(roots, known, strict=True)):
        if account is None:
            unaccounted.append(index)
        else:
            account.verify(index, root)
            if isinstance(account, Outcome):
                again[account.run].append(index)
            else:
                own[account.run].append((index, account))
    runs = [_rolled(run, own[run], tuple(again[run])) for run in {**own, **again}]
    runs.sort(key=lambda item: item.order)
    return Roll(head.size, tuple(roots), tuple(runs), tuple(unaccounted))


def _rolled(run: UUID, seals: list[tuple[int, Account]], outcomes: tuple[int, ...]) -> RolledRun:
    after = [account for _, account in seals if account.phase is Phase.AFTER]
    state = (after[-1].end or _SEALED) if after else SILENT
    return RolledRun(run, tuple(index for index, _ in seals), state, outcomes=outcomes)


def _entries(read: Read, tile: Tile) -> list[bytes]:
    data = read(tile.path, tile.width * _ENTRY_BYTES)
    parts = [data[at : at + _ENTRY_BYTES] for at in range(0, len(data), _ENTRY_BYTES)]
    if len(data) != tile.width * _ENTRY_BYTES or any(part[:2] != b"\0\x20" for part in parts):
        raise FormatError(f"{tile.path}: expected {tile.width} entries of 32 bytes")
    return [part[2:] for part in parts]


def _accounts(read: Read, tile: Tile) -> list[Account | Outcome | None]:
    """None of them where there is no such file, as in an export of an earlier release."""
    path = accounts_path(tile)
    try:
        data = read(path, tile.width * (MAX_ACCOUNT_BYTES + 2))
    except InputError:
        return [None] * tile.width
    return unpack(data, tile.width, path)
