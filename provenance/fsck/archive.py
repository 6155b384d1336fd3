"""Records of an archived run, read anew from the file that its row names."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Final

from provenance.errors import FormatError, IntegrityError
from provenance.formats.fields import Fields
from provenance.fsck.rows import ArchivedRow, RecordRow

_KEYS: Final = (
    "path", "kind", "epoch", "rank", "producer", "seq", "ts", "digest", "withheld",
)  # fmt: skip


def read_records(folder: Path | None, row: ArchivedRow) -> list[RecordRow]:
    """By producer and number, without the chains that a database keeps.

    Raises:
        IntegrityError: There is no such file, or it is another one than was written.
    """
    expected = f"expected SHA-256 {row.digest.hex()} of {row.size} bytes"
    if folder is None:
        raise IntegrityError(f"no archive.folder is configured, {expected}")
    path = folder / row.digest.hex()[:2] / f"{row.digest.hex()}.zip"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}, {expected}") from None
    found = hashlib.sha256(data).digest()
    if (found, len(data)) != (row.digest, row.size):
        problem = f"found SHA-256 {found.hex()} of {len(data)} bytes"
        raise IntegrityError(f"{path}: {problem}, {expected}")
    try:
        records = _records(data, row)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, FormatError) as error:
        raise IntegrityError(f"{path}: is no bundle: {error}") from None
    if len(records) != row.records:
        raise IntegrityError(f"{path}: has {len(records)} records, expected {row.records}")
    return records


def _records(data: bytes, row: ArchivedRow) -> list[RecordRow]:
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        index = Fields.parse(bundle.read("run.json"), "run.json")
        records = [
            RecordRow(
                run=row.run,
                producer=item.hex("producer", 16),
                seq=item.integer("seq"),
                kind=item.text("kind"),
                epoch=item.maybe("epoch", item.integer),
                rank=item.integer("rank"),
                ts=item.text("ts"),
                digest=item.hex("digest", 32),
                data=bundle.read(f"records/{item.text('path')}.json"),
                chain=None,
            )
            for item in index.objects("records", *_KEYS)
        ]
    return sorted(records, key=lambda record: (record.producer, record.seq))
