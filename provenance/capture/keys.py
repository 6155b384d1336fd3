"""The run's keys, in ``<spool>/<run>/run.key`` beside its segments.

The Ed25519 key (RFC 8032) signs the run's batches; the salt key makes the records' salts.
Both are made when the run starts, serve every rank on the host, and are deleted when the
run is sealed: from then on nobody can add to its story. The file is JSON::

    {"v": 1, "run": UUID, "ed25519": 64 hex (the seed), "salt": 64 hex}
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.errors import InputError
from provenance.formats.fields import Fields

KEY_FILE = "run.key"
KEY_VERSION = 1
_MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RunKeys:
    """A run's keys; ``repr`` shows neither. ``salt`` is 32 bytes."""

    run: UUID
    private_key: Ed25519PrivateKey = field(repr=False)
    salt: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """32 bytes: what the config record states and what ingest holds batches against."""
        return self.private_key.public_key().public_bytes_raw()


def create_run_keys(run_dir: Path, run: UUID) -> RunKeys:
    """Make the run's keys, or read those that another rank has made first.

    The file appears under its name complete, synced and with mode 0600, or not at all.

    Raises:
        InputError: The folder cannot be written, or an existing file is unusable.
    """
    path = run_dir / KEY_FILE
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            files.create(path, _encode(run))
    except OSError as error:
        raise InputError(f"{run_dir}: cannot keep the run's key there: {error.strerror}") from error
    keys = load_run_keys(run_dir)
    if keys.run != run:
        raise InputError(f"{path}: is the key of run {keys.run}, expected {run}")
    return keys


def load_run_keys(run_dir: Path) -> RunKeys:
    """Read the run's keys.

    Raises:
        InputError: No such file, not a regular file, or one that others may read.
        FormatError, UnknownVersionError: Its content is not a key file.
    """
    path = run_dir / KEY_FILE
    try:
        return _decode(files.read_private(path, _MAX_KEY_BYTES, follow_symlinks=False), path)
    except OSError as error:
        raise InputError(f"{path}: cannot read the run's key: {error.strerror}") from error


def delete_run_keys(run_dir: Path) -> None:
    """Delete the key file; not an error where it is gone already."""
    path = run_dir / KEY_FILE
    if path.exists():
        path.unlink(missing_ok=True)
        files.sync_directory(run_dir)


def _encode(run: UUID) -> bytes:
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    value = {
        "v": KEY_VERSION,
        "run": str(run),
        "ed25519": seed.hex(),
        "salt": secrets.token_hex(32),
    }
    return json.dumps(value).encode() + b"\n"


def _decode(data: bytes, path: Path) -> RunKeys:
    fields = Fields.parse(data, str(path), private=True)
    fields.version(KEY_VERSION)
    private_key = Ed25519PrivateKey.from_private_bytes(fields.hex("ed25519", 32))
    return RunKeys(fields.uuid("run"), private_key, fields.hex("salt", 32))
