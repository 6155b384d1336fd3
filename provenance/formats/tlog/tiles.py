"""The ledger as C2SP tlog-tiles: files that any web server can serve.

docs/FORMAT.md, section 10.3; source: https://c2sp.org/tlog-tiles. A hash of level 0 is a leaf hash;
one of level L + 1 is the RFC 6962 root over the 256 hashes of a full tile of level L. Full tiles
that were ever published are never written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from provenance.formats.merkle import MAX_SIZE, KeptTree

CHECKPOINT: Final = "checkpoint"
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 2**TILE_HEIGHT
MAX_LEVEL: Final = 63
MAX_ENTRY_BYTES: Final = 65_535
ENTRIES: Final = "entries"
ACCOUNTS: Final = "accounts"


@dataclass(frozen=True, slots=True)
class Tile:
    """Place and width of one file: a tile of hashes, or a bundle of entries.

    Args:
        level: 0 to 63; None for a bundle of entries.
        index: Within the level, from 0.
        width: Hashes or entries, 1 to 256.

    Raises:
        ValueError: one of them is out of its range.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        level = 0 if self.level is None else self.level
        if not (0 <= level <= MAX_LEVEL and self.index >= 0 and 0 < self.width <= TILE_WIDTH):
            raise ValueError(f"no tile {self.index} of width {self.width} at level {level}")

    @property
    def full(self) -> bool:
        """Whether nothing will be added to it: it never changes."""
        return self.width == TILE_WIDTH

    @property
    def path(self) -> str:
        """Where it is served, below the ledger's prefix."""
        level = ENTRIES if self.level is None else self.level
        rest, number = divmod(self.index, 1000)
        name = f"{number:03}"
        while rest:
            rest, number = divmod(rest, 1000)
            name = f"x{number:03}/{name}"
        partial = "" if self.full else f".p/{self.width}"
        return f"tile/{level}/{name}{partial}"


def accounts_path(tile: Tile) -> str:
    """Where the accounts of a bundle of entries are served (:mod:`.account`), which are no part of
    the specification: as that bundle, under another name."""
    return tile.path.replace(ENTRIES, ACCOUNTS, 1)


def tiles(size: int) -> Iterator[Tile]:
    """All files of a ledger of ``size`` entries but the checkpoint, those of level 0 first."""
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"no ledger has {size} entries")
    yield from _row(None, size)
    level = 0
    while size:
        yield from _row(level, size)
        level, size = level + 1, size // TILE_WIDTH


def _row(level: int | None, count: int) -> Iterator[Tile]:
    full, width = divmod(count, TILE_WIDTH)
    yield from (Tile(level, index) for index in range(full))
    if width:
        yield Tile(level, full, width)


class TiledLedger:
    """The bytes of every tile of one ledger.

    Args:
        tree: Over the entries, wherever its subtrees are kept.
        entries: Those from an index up to another one, as they were logged, each at most
            65,535 bytes; run roots have 32.
    """

    def __init__(self, tree: KeptTree, entries: Callable[[int, int], Sequence[bytes]]) -> None:
        self.tree = tree
        self._entries = entries

    def data(self, tile: Tile) -> bytes:
        """The bytes of a tile; ``ValueError`` where there is none, or an entry is too long."""
        first = tile.index * TILE_WIDTH
        end = first + tile.width
        height = (tile.level or 0) * TILE_HEIGHT
        if end > self.tree.size >> height:
            raise ValueError(f"no tile {tile.path} in a ledger of {self.tree.size}")
        if tile.level is not None:
            return b"".join(self.tree.read([(height, number) for number in range(first, end)]))
        part = self._entries(first, end)
        for at, entry in enumerate(part, first):
            if len(entry) > MAX_ENTRY_BYTES:
                raise ValueError(f"entry {at} has {len(entry)} bytes, a bundle takes 65,535")
        return b"".join(len(entry).to_bytes(2, "big") + entry for entry in part)
