"""The archive: a folder of bundles as zips, each named by the SHA-256 of its bytes.

A file is written once and never changed: ``<folder>/ab/abcdef....zip``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from provenance import files
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files
from provenance.bundle.zip import pack
from provenance.errors import FormatError, InputError, IntegrityError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.ports.values import ArchivedRun, StoredRecord


class Archive:
    """The files of archived runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: bytes) -> Path:
        """Where a file lies."""
        return self.folder / digest.hex()[:2] / f"{digest.hex()}.zip"

    def write(self, evidence: RunEvidence, now: float) -> ArchivedRun:
        """Write a run's bundle; it is on the disk on return.

        Raises:
            InputError: It cannot be written.
        """
        packed = io.BytesIO()
        pack(bundle_files(evidence), packed)
        data = packed.getvalue()
        digest = hashlib.sha256(data).digest()
        path = self.path(digest)
        with files.errors_of(path, "written"):
            files.make_folders(path.parent, files.PRIVATE)
            files.replace(path, data)
            files.sync_directory(self.folder)
            files.sync_directory(self.folder.parent)
        return ArchivedRun(evidence.run, digest, len(data), len(evidence.records), now)

    def read(self, row: ArchivedRun) -> list[StoredRecord]:
        """A run's records, by producer and ``seq``, from the file that the row names.

        Raises:
            IntegrityError: It is missing, another file than was written, or none with all records.
        """
        path = self.path(row.digest)
        expected = f"expected SHA-256 {row.digest.hex()} of {row.size} bytes"
        try:
            with path.open("rb") as file:
                found, size = hashlib.file_digest(file, "sha256").digest(), file.tell()
        except OSError as error:
            problem = f"{path}: cannot be read: {error.strerror}, {expected}"
            raise IntegrityError(f"run {row.run}: archive file {problem}") from error
        if (found, size) != (row.digest, row.size):
            problem = f"{path}: found SHA-256 {found.hex()} of {size} bytes, {expected}"
            raise IntegrityError(f"run {row.run}: archive file {problem}")
        try:
            evidence = read_bundle(path)
        except (InputError, FormatError) as error:
            problem = f"{path}: is no bundle: {error}"
            raise IntegrityError(f"run {row.run}: archive file {problem}") from error
        empty = sum(item.data is None for item in evidence.records)
        if (evidence.run, len(evidence.records), empty) != (row.run, row.records, 0):
            problem = f"has {len(evidence.records)} records of run {evidence.run}"
            problem += f", {empty} without content" if empty else ""
            expected = f"expected {row.records} of run {row.run}, all with content"
            raise IntegrityError(f"run {row.run}: archive file {path}: {problem}, {expected}")
        return list(stored_records(evidence))

    def missing(self, rows: Iterable[ArchivedRun]) -> list[ArchivedRun]:
        """Those whose file is not there, or has another size: what it holds is not looked at."""
        return [row for row in rows if _size(self.path(row.digest)) != row.size]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def stored_records(evidence: RunEvidence) -> Iterator[StoredRecord]:
    """The records of a bundle that withholds none as the database had them, by producer and
    ``seq``."""
    chains: dict[bytes, tuple[int, bytes]] = {}
    for item in sorted(evidence.records, key=lambda item: (item.producer, item.seq)):
        assert item.data is not None
        start = (0, chain_start(evidence.run, item.producer))
        count, chain = chains.get(item.producer, start)
        if whole := item.seq == count:
            chain = chain_on(chain, [item.digest])
            chains[item.producer] = (count + 1, chain)
        yield StoredRecord(
            evidence.run,
            item.producer,
            item.seq,
            item.kind,
            item.epoch,
            item.rank,
            item.ts,
            item.digest,
            item.data,
            chain if whole else None,
        )
