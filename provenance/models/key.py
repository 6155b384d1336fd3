"""The EC private key that signs models: a PEM file with mode 0600, encrypted or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from provenance import files
from provenance.errors import InputError
from provenance.formats.dsse import key_hint

PASSPHRASE: Final = "PROVENANCE_SIGNING_PASSPHRASE"  # noqa: S105  a name
"""Environment variable with the passphrase of an encrypted key."""

MAX_KEY_BYTES: Final = 64 * 1024
CURVES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""Hash by curve, as sigstore's and OpenSSF Model Signing's verifiers have it."""

_EXPECTED: Final = "expected an EC key of P-256, P-384 or P-521"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, ready to sign; its secret is in no repr."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public_pem(self) -> bytes:
        """SubjectPublicKeyInfo as PEM: what verifiers are given."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def hint(self) -> str:
        """SHA-256 as hex of `public_pem`."""
        return key_hint(self.public_pem)

    def sign(self, message: bytes) -> bytes:
        """ECDSA in DER, with the hash that belongs to the curve; it verifies."""
        algorithm = ec.ECDSA(CURVES[self.private.curve.name])
        signature = self.private.sign(message, algorithm)
        self.private.public_key().verify(signature, message, algorithm)
        return signature


def read_signing_key(path: Path, passphrase: str | None = None) -> SigningKey:
    """The key in a file, opened with the passphrase where it is encrypted. ``InputError``:
    unreadable, open to others, no EC private key in PEM of a known curve, or another passphrase. No
    message holds a secret."""
    with files.errors_of(path, "read"):
        data = files.read_private(path, MAX_KEY_BYTES)
    try:
        key: object = load_pem_private_key(data, None)
    except TypeError:
        key = _decrypted(path, data, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(_no_key(path, data)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        raise InputError(f"{path}: found a private key of type {kind}, {_EXPECTED}")
    if key.curve.name not in CURVES:
        raise InputError(f"{path}: found an EC key of curve {key.curve.name}, {_EXPECTED}")
    return SigningKey(key)


def _decrypted(path: Path, data: bytes, passphrase: str | None) -> object:
    if not passphrase:
        raise InputError(f"{path}: is encrypted; set {PASSPHRASE}")
    try:
        return load_pem_private_key(data, passphrase.encode("utf-8", "surrogateescape"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: does not open with {PASSPHRASE}") from error


def _no_key(path: Path, data: bytes) -> str:
    if b"PUBLIC KEY-----" in data:
        return f"{path}: holds a public key, expected the private one"
    if b"PRIVATE KEY-----" in data:
        return f"{path}: holds a private key that does not decode, {_EXPECTED}"
    return f"{path}: holds no private key in PEM, {_EXPECTED}"
