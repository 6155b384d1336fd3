"""What the owner of an item set keeps of it: the digests, and the key that they are made with.

::

    <base_dir>/items/<run>/<split>.key       64 hex digits and a newline, mode 0600
    <base_dir>/items/<run>/<split>.digests   32 bytes a digest, ascending, mode 0600

They lie outside of the spool, which is emptied as the run is brought home. Nothing else has them:
without the key nobody can say which item a digest is of, and without the digests nothing can be
proven of the set.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import UUID

from provenance import files
from provenance.errors import InputError
from provenance.fingerprint.data.items import ItemReader
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.elements import element_bytes
from provenance.formats.item_set import ItemSet, Split, key_commitment
from provenance.items.sorted_file import DigestSorter, SortedFile

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ItemFolder:
    """Where the item sets of one run lie."""

    base_dir: Path
    run: UUID

    def path(self, split: Split, what: str) -> Path:
        """Of the ``key`` or the ``digests`` of a split."""
        return self.base_dir / "items" / str(self.run) / f"{split}.{what}"

    def record(self, split: Split, data: object) -> ItemSet:
        """Read the items of a dataset and keep their set in the place of an earlier one of the run
        and split, under the same key. ``InputError``: as `ItemReader.digests` raises it, or the
        folder takes nothing."""
        with ItemWriter(self, split) as writer:
            for digests in writer.reader.digests(data):
                writer.add_digests(digests)
            return writer.finish()

    def key(self, split: Split) -> bytes:
        """The item key. ``InputError``: it is lost, or others may read it."""
        path = self.path(split, "key")
        with files.errors_of(path, "read"):
            text = files.read_private(path, 2 * KEY_BYTES + 1)
        try:
            key = bytes.fromhex(text.decode())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise InputError(f"{path}: is no item key, expected {2 * KEY_BYTES} hex digits")
        return key

    @contextmanager
    def opened(self, split: Split) -> Iterator[SortedFile]:
        """The digests. ``InputError``: they are lost, or no such file."""
        path = self.path(split, "digests")
        with files.errors_of(path, "read"), path.open("rb") as file, Progress() as progress:
            yield SortedFile(file, str(path), progress)


class ItemWriter:
    """Takes the items of one dataset; a context manager. What was kept stays until `finish`."""

    def __init__(self, folder: ItemFolder, split: Split) -> None:
        self._folder, self._split = folder, split
        self._open = ExitStack()

    def __enter__(self) -> ItemWriter:
        kept, key = (self._folder.path(self._split, what) for what in ("digests", "key"))
        with ExitStack() as opened, files.errors_of(kept.parent, "written"):
            files.make_folders(kept.parent, files.PRIVATE)
            files.create(key, secrets.token_hex(KEY_BYTES).encode() + b"\n")
            self._key = self._folder.key(self._split)
            self._progress = opened.enter_context(Progress())
            self.reader = ItemReader(self._key, self._progress)
            self._sorter = opened.enter_context(DigestSorter(kept.parent))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, item: object, where: str) -> None:
        """One item; ``InputError`` names ``where`` it is if it has no canonical bytes."""
        self.add_digests(self.reader.of_items([element_bytes(item, where)]))

    def add_digests(self, digests: bytes) -> None:
        """Items by their digests, 32 bytes each, as the reader makes them."""
        with files.errors_of(self._folder.path(self._split, "digests"), "written"):
            self._sorter.add(digests)

    def finish(self) -> ItemSet:
        """Keep the set of all items; once, within the block."""
        kept = self._folder.path(self._split, "digests")
        with files.errors_of(kept, "written"), files.replacing(kept) as file:
            size = self._sorter.write(file)
            file.flush()
            root = SortedFile(file, str(kept), self._progress).root()
        count, form = self.reader.count, self.reader.form or None
        return ItemSet(root, size, count, key_commitment(self._key), form)
