"""Openings: what a run's commitments are of, in ``<base>/openings/<run>.jsonl``, mode 0600.

One JSON object a line; a number that is shipped again may stand there twice::

    {"blinding": 64 hex, "point": 66 hex, "value": int}

They outlive the run's key, and are the owner's to keep: without them nothing can be proved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance import files
from provenance.errors import FormatError, InputError, ProofError
from provenance.formats.fields import Fields
from provenance.proofs.bulletproofs.commitment import LEAST, MOST, Opening

_MAX_BYTES: Final = 1 << 30
_WRITER: Final = "the run's shipper wrote: without it nothing can be proved"


def openings_path(base_dir: Path, run: UUID) -> Path:
    """Where a run's openings lie."""
    return base_dir / "openings" / f"{run}.jsonl"


def keep_openings(path: Path, openings: Iterable[Opening]) -> None:
    """Add openings to the file; durable on return. Raises OSError: they cannot be written."""
    lines = (
        {
            "blinding": opening.blinding.to_bytes(32, "big").hex(),
            "point": opening.commitment.format().hex(),
            "value": opening.value,
        }
        for opening in openings
    )
    files.make_folders(path.parent, files.PRIVATE)
    files.append_lines(path, *(json.dumps(line).encode() for line in lines))


def find_opening(base_dir: Path, run: UUID, point: bytes) -> Opening:
    """The opening of a commitment of 33 bytes. Raises InputError: no such file, one that others
    may read, or one that does not have it."""
    path = openings_path(base_dir, run)
    try:
        lines = files.read_private(path, _MAX_BYTES).splitlines()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError(f"{path}: {problem}, expected the file that {_WRITER}") from error
    sought = point.hex().encode()
    for line in lines:
        if sought in line:
            with suppress(FormatError, ProofError):  # a line that a crash cut off, or a damaged one
                fields = Fields.parse(line, str(path), private=True)
                blinding = int.from_bytes(fields.hex("blinding", 32), "big")
                opening = Opening(fields.integer("value", LEAST, MOST), blinding)
                if opening.commitment.format() == point:
                    return opening
    problem = f"has no opening of {point.hex()[:16]}..., expected the one that {_WRITER}"
    raise InputError(f"{path}: {problem}")
