"""Run ids, certificates and identities: who signs for a run.

docs/FORMAT.md, sections 1 and 2.3. A run id is a UUID of version 8 (RFC 9562, section 5.8): 48 bits
of Unix milliseconds, then the first 74 bits of SHA-256(the run's Ed25519 public key). Whoever knows
one and not its private key cannot sign for it: another key with the same bits takes 2^74 tries.

The run's key signs nothing but certificates. Each producer (process) has a key of its own::

    certificate = run (16) || run's public key (32) || producer (16) || producer's public key (32)
                  || rank (u32, big-endian) || signature (64)                        164 bytes
    signature   = by the run's key, over "ml-provenance/producer/v1" 00 || the 100 bytes before it

An identity (a person's or a team's) may sign that this is the key of this run::

    identity    = 01 || identity's public key (32) || signature (64)                 97 bytes
                | 02 || Sigstore bundle (:mod:`~provenance.formats.producers.keyless`)
    signature   = by the identity's key, over
                  "ml-provenance/identity/v1" 00 || run (16) || run's public key (32)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import FormatError, InputError, UnknownVersionError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.producers.keyless import MAX_BUNDLE_BYTES, Keyless, open_bundle

PRODUCER_CONTEXT: Final = b"ml-provenance/producer/v1\0"
IDENTITY_CONTEXT: Final = b"ml-provenance/identity/v1\0"
_CERTIFICATE: Final = struct.Struct(">16s32s16s32sI64s")
CERTIFICATE_BYTES: Final = _CERTIFICATE.size
IDENTITY_BYTES: Final = 97
MAX_IDENTITY_BYTES: Final = 1 + MAX_BUNDLE_BYTES
MAX_RANK: Final = 2**32 - 1
MAX_MILLISECONDS: Final = 2**48 - 1
_ED25519: Final = 1
SIGSTORE: Final = 2


def run_id(public_key: bytes, milliseconds: int) -> UUID:
    """The id of a run with this Ed25519 public key (32 bytes), started at a Unix time."""
    if len(public_key) != 32:
        raise InputError(f"run key of {len(public_key)} bytes, expected 32")
    if not 0 <= milliseconds <= MAX_MILLISECONDS:
        raise InputError(f"run id: time {milliseconds} ms, expected 0 to {MAX_MILLISECONDS}")
    digest = int.from_bytes(hashlib.sha256(public_key).digest()[:10], "big") >> 6  # 74 bits
    value = milliseconds << 80 | 0x8 << 76 | (digest >> 62) << 64 | 0x2 << 62
    return UUID(int=value | digest & (2**62 - 1))


def check_run_id(run: UUID, public_key: bytes) -> None:
    """Refuse a run id of another key, with ``FormatError``."""
    if len(public_key) != 32 or run != run_id(public_key, run.int >> 80):
        key = public_key.hex()[:16]
        raise FormatError(
            f"run {run} does not commit to key {key}, expected a UUIDv8 made of the run's key"
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """A producer's key, under the run's; made by :func:`certify`, checked by :meth:`decode`. Keys
    are Ed25519 public keys of 32 bytes; producer 16 bytes, signature 64."""

    run: UUID
    run_key: bytes
    producer: bytes
    producer_key: bytes
    rank: int
    signature: bytes

    def encode(self) -> bytes:
        """The 164 bytes."""
        keys = (self.run_key, self.producer, self.producer_key)
        return _CERTIFICATE.pack(self.run.bytes, *keys, self.rank, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Read a certificate, or ``FormatError``: its run id commits to the run's key, which signed
        it (``BadSignatureError``)."""
        if len(data) != CERTIFICATE_BYTES:
            raise FormatError(f"certificate of {len(data)} bytes, expected {CERTIFICATE_BYTES}")
        run, *fields = _CERTIFICATE.unpack(data)
        certificate = cls(UUID(bytes=run), *fields)
        check_run_id(certificate.run, certificate.run_key)
        message = PRODUCER_CONTEXT + data[:-64]
        verify_signature(certificate.run_key, certificate.signature, message, "certificate")
        return certificate


def certify(
    run: UUID, run_key: Ed25519PrivateKey, producer: bytes, producer_key: bytes, rank: int
) -> Certificate:
    """The run's key vouches for a producer's; ``InputError`` for what the format cannot hold."""
    if not 0 <= rank <= MAX_RANK or len(producer) != 16 or len(producer_key) != 32:
        raise InputError(
            f"certificate: rank {rank}, producer of {len(producer)} bytes, key of "
            f"{len(producer_key)} bytes; expected 0 to {MAX_RANK}, 16 and 32"
        )
    public = run_key.public_key().public_bytes_raw()
    unsigned = Certificate(run, public, producer, producer_key, rank, bytes(64))
    signature = run_key.sign(PRODUCER_CONTEXT + unsigned.encode()[:-64])
    return replace(unsigned, signature=signature)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed a run: an Ed25519 public key (32 bytes), or a name that Sigstore certified."""

    key: bytes | None = None
    keyless: Keyless | None = None

    @property
    def label(self) -> str:
        """64 hex digits, or ``ci@example.org, by https://accounts.google.com``."""
        return self.keyless.label if self.keyless else (self.key or b"").hex()

    @property
    def short(self) -> str:
        """:attr:`label`, of a key the first 16 digits."""
        return self.label if self.keyless else self.label[:16]


def identity_statement(run: UUID, run_key: bytes) -> bytes:
    """What an identity signs; ``run_key`` is the run's public key."""
    return IDENTITY_CONTEXT + run.bytes + run_key


def sign_identity(run: UUID, run_key: bytes, identity: Ed25519PrivateKey) -> bytes:
    """An Ed25519 identity's 97 bytes for a run; ``run_key`` is the run's public key."""
    signature = identity.sign(identity_statement(run, run_key))
    return bytes([_ED25519]) + identity.public_key().public_bytes_raw() + signature


def open_identity(data: bytes, run: UUID, run_key: bytes) -> Identity:
    """Check an identity's signature of a run, or ``FormatError``; ``BadSignatureError`` where it
    did not sign this run and key. Of Sigstore no trusted root is asked here."""
    statement = identity_statement(run, run_key)
    if data[:1] == bytes([SIGSTORE]):
        return Identity(keyless=open_bundle(data[1:], statement))
    if len(data) != IDENTITY_BYTES:
        raise FormatError(f"identity of {len(data)} bytes, expected {IDENTITY_BYTES}")
    if data[0] != _ED25519:
        raise UnknownVersionError(f"identity of type {data[0]}, expected 1 or 2")
    verify_signature(data[1:33], data[33:], statement, "identity")
    return Identity(data[1:33])
