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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from provenance import files
from provenance.errors import InputError
from provenance.fingerprint.data.items import ItemReader
from provenance.fingerprint.data.progress import Progress
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
        kept = self.path(split, "digests")
        with files.errors_of(kept.parent, "written"):
            files.make_folders(kept.parent, files.PRIVATE)
            fresh = secrets.token_hex(KEY_BYTES).encode() + b"\n"
            files.create(self.path(split, "key"), fresh)
        key = self.key(split)
        with (
            files.errors_of(kept, "written"),
            Progress() as progress,
            DigestSorter(kept.parent) as sorter,
            files.replacing(kept) as file,
        ):
            reader = ItemReader(key, progress)
            for digests in reader.digests(data):
                sorter.add(digests)
            size = sorter.write(file)
            file.flush()
            root = SortedFile(file, str(kept), progress).root()
        return ItemSet(root, size, reader.count, key_commitment(key), reader.form or None)

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
