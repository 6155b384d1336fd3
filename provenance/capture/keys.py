"""The run's keys: all of them come from one seed, kept beside the run's segments.

The seed is the run's Ed25519 private key (RFC 8032). It certifies producers; their keys and the
salt key are derived from it, so that a rank on another host needs nothing else::

    producer's private key = HKDF-SHA256(seed, info "ml-provenance/producer/v1" 00 || producer)
    salt key               = HKDF-SHA256(seed, info "ml-provenance/salt/v1")       32 bytes each

(RFC 5869, no salt.) The seed is made when the run starts and deleted when the run is sealed: from
then on nobody can add to its story. It lies in ``<spool>/<run>/run.key``, JSON::

    {"v": 1, "run": UUID, "seed": 64 hex, "identity": 194 hex or null, "sigstore": text or null,
     "commitments": {"metrics": [text], "scale": int, "hide": boolean} or null}

``identity`` is what an identity's key signed for this run, and no secret
(:mod:`provenance.formats.producers.certificate`). ``sigstore`` is set where the shipper is to sign
by Sigstore (:mod:`provenance.capture.ship.keyless`): the path of the token's file, or empty.
``commitments`` says which numbers the shipper hides behind commitments: it lies here, because a
shipper that did not know of it would send them, and without this file sends nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import to_builtins

from provenance import files
from provenance.capture.spool import refused
from provenance.errors import InputError, ProvenanceError
from provenance.formats.fields import Fields, as_json
from provenance.formats.producers.certificate import (
    IDENTITY_BYTES,
    PRODUCER_CONTEXT,
    Certificate,
    certify,
    check_run_id,
    run_id,
    sign_identity,
)
from provenance.settings.key_files import IDENTITY, read_seed
from provenance.settings.values import CommitmentSettings

KEY_FILE = "run.key"
KEY_VERSION = 1
_SALT_INFO = b"ml-provenance/salt/v1"
_BLINDING_INFO = b"ml-provenance/blinding/v1"
_MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RunKeys:
    """A run's id and seed (32 bytes); ``repr`` does not show the seed.

    Attributes:
        identity: The bytes by which somebody stands behind the run; None if nobody does.
        sigstore: The token's file for a signature by Sigstore, empty for the token that the
            environment has; None where none is asked for.
        commitments: The numbers that records commit to; None where there are none.
    """

    run: UUID
    seed: bytes = field(repr=False)
    identity: bytes | None = field(default=None, repr=False)
    sigstore: str | None = None
    commitments: CommitmentSettings | None = None

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The run's key; it signs certificates."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public_key(self) -> bytes:
        """32 bytes: what the run id commits to and the config record states."""
        return self.private_key.public_key().public_bytes_raw()

    @property
    def salt(self) -> bytes:
        """The key of the records' salts, 32 bytes."""
        return _derive(self.seed, _SALT_INFO)

    @property
    def blinding(self) -> bytes:
        """The key of the commitments' blindings, 32 bytes."""
        return _derive(self.seed, _BLINDING_INFO)

    def producer(self, producer: bytes, rank: int) -> tuple[Certificate, Ed25519PrivateKey]:
        """A producer's certificate and private key; ``producer`` is its 16 bytes."""
        key = Ed25519PrivateKey.from_private_bytes(_derive(self.seed, PRODUCER_CONTEXT + producer))
        public = key.public_key().public_bytes_raw()
        return certify(self.run, self.private_key, producer, public, rank), key


def new_run_keys() -> RunKeys:
    """The id and seed of a run that starts now."""
    seed = secrets.token_bytes(32)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return RunKeys(run_id(public, time.time_ns() // 1_000_000), seed)


def keep_run_keys(run_dir: Path, keys: RunKeys) -> RunKeys:
    """Put the run's keys beside its segments, or read those that another rank has put there. Raises
    InputError: the folder cannot be written, or an existing file is unusable, or commits to other
    numbers than these keys do."""
    path = run_dir / KEY_FILE
    try:
        make_key_file(path, keys)
    except ProvenanceError:
        with suppress(OSError):  # it has something, which stays
            run_dir.rmdir()
        raise
    kept = load_run_keys(run_dir)
    if kept.run != keys.run:
        raise InputError(f"{path}: is the key of run {kept.run}, expected {keys.run}")
    if keys.commitments not in (None, kept.commitments):
        found, expected = kept.commitments or "no commitments", keys.commitments
        raise InputError(f"{path}: found {found}, expected {expected}, as this configuration says")
    return kept


def make_key_file(path: Path, keys: RunKeys) -> bool:
    """Write a file of a run's keys, mode 0600, whole or not at all; False where there is one
    already, which stays. Raises InputError, SpoolUnavailable: it cannot be written."""
    commitments = {"commitments": to_builtins(keys.commitments)}
    data = json.dumps({"v": KEY_VERSION, **as_json(keys), **commitments}).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return not path.exists() and files.create(path, data)
    except OSError as error:
        where = error.filename or path
        raise refused(f"{where}: cannot keep the run's key there", error) from error


def signed_by_identity(keys: RunKeys, path: Path) -> RunKeys:
    """The keys with the signature of the identity whose seed (64 hex digits) lies there. Raises
    ConfigError: the file is unreadable, open to others, or not a key."""
    seed = read_seed(path, IDENTITY)
    signature = sign_identity(keys.run, keys.public_key, Ed25519PrivateKey.from_private_bytes(seed))
    return replace(keys, identity=signature)


def load_run_keys(run_dir: Path) -> RunKeys:
    """Read the run's keys. Raises InputError: no such file, not a regular file, or one that others
    may read; FormatError, UnknownVersionError: its content is not a key file."""
    return read_key_file(run_dir / KEY_FILE)


def read_key_file(path: Path) -> RunKeys:
    """Read a file of a run's keys, wherever it lies; errors as :func:`load_run_keys`."""
    try:
        data = files.read_private(path, _MAX_KEY_BYTES, follow_symlinks=False)
    except OSError as error:
        raise InputError(f"{path}: cannot read the run's key: {error.strerror}") from error
    fields = Fields.parse(data, str(path), private=True)
    fields.version(KEY_VERSION)
    fields.only("v", "run", "seed", "identity", "sigstore", "commitments")
    identity = fields.maybe("identity", lambda key: fields.hex(key, IDENTITY_BYTES))
    sigstore = fields.maybe("sigstore", fields.text)
    commitments = fields.raw.get("commitments") and _commitments(fields.object("commitments"))
    keys = RunKeys(fields.uuid("run"), fields.hex("seed", 32), identity, sigstore, commitments)
    check_run_id(keys.run, keys.public_key)
    return keys


def _commitments(fields: Fields) -> CommitmentSettings:
    fields.only("metrics", "scale", "hide")
    names = fields.items("metrics", Fields.text)
    return CommitmentSettings(names, fields.integer("scale", most=12), fields.boolean("hide"))


def delete_run_keys(run_dir: Path) -> None:
    """Delete the key file; not an error where it is gone already."""
    path = run_dir / KEY_FILE
    if path.exists():
        path.unlink(missing_ok=True)
        files.sync_directory(run_dir)


def _derive(seed: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=info).derive(seed)
