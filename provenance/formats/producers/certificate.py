"""Certificates: which key a producer signs with, and who stands behind a run.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

The run's Ed25519 key (RFC 8032) signs nothing but certificates. Each producer (process) has a
key of its own::

    certificate = run (16) || run's public key (32) || producer (16) || producer's public key (32)
                  || rank (u32, big-endian) || signature (64)                        164 bytes
    signature   = by the run's key, over "ml-provenance/producer/v1" 00 || the 100 bytes before it

An identity (a person's or a team's key) may sign the run's first statement, that this is the
key of this run::

    identity    = 01 || identity's public key (32) || signature (64)                 97 bytes
                | 02 || Sigstore bundle (:mod:`~provenance.formats.producers.keyless`)
    signature   = by the identity's key, over
                  "ml-provenance/identity/v1" 00 || run (16) || run's public key (32)

The run id commits to the run's key (:mod:`~provenance.formats.producers.run_id`), so neither can
be made for somebody else's run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import FormatError, InputError, UnknownVersionError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.producers.keyless import MAX_BUNDLE_BYTES, Keyless, open_bundle
from provenance.formats.producers.run_id import check_run_id

PRODUCER_CONTEXT: Final = b"ml-provenance/producer/v1\0"
IDENTITY_CONTEXT: Final = b"ml-provenance/identity/v1\0"
CERTIFICATE_BYTES: Final = 164
IDENTITY_BYTES: Final = 97
MAX_IDENTITY_BYTES: Final = 1 + MAX_BUNDLE_BYTES
MAX_RANK: Final = 2**32 - 1
_ED25519: Final = 1
SIGSTORE: Final = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """A producer's key, under the run's; made by :func:`certify`, checked by :meth:`decode`.

    Attributes:
        run_key, producer_key: Ed25519 public keys, 32 bytes.
        producer: 16 bytes.
        rank: The process's number among the run's trainers.
        signature: 64 bytes.
    """

    run: UUID
    run_key: bytes
    producer: bytes
    producer_key: bytes
    rank: int
    signature: bytes

    def encode(self) -> bytes:
        """The 164 bytes."""
        return self._body() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Read a certificate: its run id commits to the run's key, which signed it.

        Raises:
            FormatError: Not 164 bytes, or a run id of another key.
            BadSignatureError: The run's key did not sign it.
        """
        if len(data) != CERTIFICATE_BYTES:
            raise FormatError(f"certificate of {len(data)} bytes, expected {CERTIFICATE_BYTES}")
        certificate = cls(
            run=UUID(bytes=data[:16]),
            run_key=data[16:48],
            producer=data[48:64],
            producer_key=data[64:96],
            rank=int.from_bytes(data[96:100], "big"),
            signature=data[100:],
        )
        check_run_id(certificate.run, certificate.run_key)
        verify_signature(
            certificate.run_key,
            certificate.signature,
            PRODUCER_CONTEXT + certificate._body(),
            "certificate",
        )
        return certificate

    def _body(self) -> bytes:
        rank = self.rank.to_bytes(4, "big")
        return self.run.bytes + self.run_key + self.producer + self.producer_key + rank


def certify(
    run: UUID, run_key: Ed25519PrivateKey, producer: bytes, producer_key: bytes, rank: int
) -> Certificate:
    """The run's key vouches for a producer's.

    Raises:
        InputError: A rank or a length that the format cannot hold.
    """
    if not 0 <= rank <= MAX_RANK or len(producer) != 16 or len(producer_key) != 32:
        raise InputError(
            f"certificate: rank {rank}, producer of {len(producer)} bytes, key of "
            f"{len(producer_key)} bytes; expected 0 to {MAX_RANK}, 16 and 32"
        )
    public = run_key.public_key().public_bytes_raw()
    unsigned = Certificate(run, public, producer, producer_key, rank, bytes(64))
    signature = run_key.sign(PRODUCER_CONTEXT + unsigned._body())
    return Certificate(run, public, producer, producer_key, rank, signature)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed a run: an Ed25519 public key (32 bytes), or a name that Sigstore certified.

    Whose key it is, the reader's pins say; whether the certificate is Sigstore's, its trusted root.
    """

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
    """Check an identity's signature of a run; of Sigstore no trusted root is asked here.

    Raises:
        FormatError, UnknownVersionError: Not the bytes of an identity.
        BadSignatureError: It did not sign this run and key.
    """
    statement = identity_statement(run, run_key)
    if data[:1] == bytes([SIGSTORE]):
        return Identity(keyless=open_bundle(data[1:], statement))
    if len(data) != IDENTITY_BYTES:
        raise FormatError(f"identity of {len(data)} bytes, expected {IDENTITY_BYTES}")
    if data[0] != _ED25519:
        raise UnknownVersionError(f"identity of type {data[0]}, expected 1 or 2")
    verify_signature(data[1:33], data[33:], statement, "identity")
    return Identity(data[1:33])
