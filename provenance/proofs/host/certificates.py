"""Certificates of the keys that attest hosts (X.509, RFC 5280), followed to roots that a reader
pins. No revocation list is asked for, and no constraint on names is looked at.

A TPM's attestation key is one by its certificate's extended key usage, ``tcg-kp-AIKCertificate``,
2.23.133.8.3 (TCG EK Credential Profile, annex): without it any key of that issuer could pass for
one. Reports of other hardware name theirs by extensions (:mod:`provenance.proofs.host.tdx`,
``sev_snp``, ``nvidia``).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from provenance.errors import BadSignatureError, FormatError, ProofError
from provenance.proofs.host.tpm import PublicKey

AIK: Final = x509.ObjectIdentifier("2.23.133.8.3")
_HASHES: Final[dict[type[ec.EllipticCurve], HashAlgorithm]] = {
    ec.SECP256R1: SHA256(),
    ec.SECP384R1: SHA384(),
}
_MALFORMED: Final = (
    ValueError,
    TypeError,  # a name whose value is of another type than its attribute's
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Attested:
    """What a report of confidential hardware attests, once it holds.

    Attributes:
        hardware: ``Intel TDX``, ``AMD SEV-SNP`` or ``NVIDIA GPU``.
        device: Which machine or GPU it is of, as hex.
        measured: What it measured, by the vendor's names for it.
        chain: Of the key that signed, its own first.
    """

    hardware: str
    device: str
    measured: Mapping[str, bytes]
    chain: Sequence[x509.Certificate]


def read_chain(certificates: Sequence[bytes], what: str) -> list[x509.Certificate]:
    """Certificates from DER; FormatError names ``what`` they are of."""
    return _read(lambda: [x509.load_der_x509_certificate(each) for each in certificates], what)


def read_pem(data: bytes, what: str) -> list[x509.Certificate]:
    """At least one certificate from PEM; as :func:`read_chain`."""
    return _read(lambda: x509.load_pem_x509_certificates(data), what)


def _read(load: Callable[[], list[x509.Certificate]], what: str) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():  # AMD's VCEKs have the serial number 0
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            chain = load()
            for each in chain:  # these read late, and may be malformed
                each.public_key(), each.extensions, each.subject, each.issuer
        return chain
    except _MALFORMED as error:
        raise FormatError(f"{what}: certificates: {error}") from error


def extension(certificate: x509.Certificate, oid: str, what: str) -> bytes:
    """The DER of an extension that only its vendor defines; ProofError where there is none."""
    try:
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
    except x509.ExtensionNotFound:
        raise ProofError(f"{what}: certificates: the first has no extension {oid}") from None
    return found.public_bytes()


def check_ecdsa(
    key: object, curve: type[ec.EllipticCurve], r: int, s: int, message: bytes, what: str
) -> None:
    """A signature by the hash that is as long as the curve's numbers.

    Raises:
        FormatError: The key is not on that curve.
        BadSignatureError: It did not sign.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curve):
        raise FormatError(f"{what}: the key is not on {curve.name}")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(_HASHES[curve]))
    except InvalidSignature:
        raise BadSignatureError(f"{what}: the key did not sign this") from None


def root_of(
    chain: Sequence[x509.Certificate],
    roots: Iterable[x509.Certificate],
    at: datetime,
    what: str,
    fingerprints: Collection[str] = (),
) -> x509.Certificate | None:
    """The pinned root that a chain ends in, or that issued its last; None where there is none.

    Args:
        chain: At least one, each issued by the next.
        at: With a time zone: when the key was used, as its record says.
        fingerprints: SHA-256 of roots' DER, as hex.

    Raises:
        ProofError: The chain does not hold.
    """
    for each in chain:
        if not each.not_valid_before_utc <= at <= each.not_valid_after_utc:
            until = f"{each.not_valid_before_utc:%Y-%m-%d} to {each.not_valid_after_utc:%Y-%m-%d}"
            raise ProofError(f"{what}: certificates: valid {until}, it is of {at:%Y-%m-%d}")
    for below, (own, issuer) in enumerate(pairwise(chain)):
        if not _issued(own, issuer, below):
            name = name_of(own)
            raise ProofError(f"{what}: certificates: {name} is not issued by the next one")
    last, below = chain[-1], len(chain) - 1
    if fingerprint(last) in fingerprints:
        return last
    return next((root for root in roots if last == root or _issued(last, root, below)), None)


def certified_by(
    certificates: Sequence[bytes], key: PublicKey, roots: Iterable[x509.Certificate], at: datetime
) -> str | None:
    """The subject of the pinned root that stands behind a TPM's key; None where none of them does.

    Args:
        certificates: DER, the key's own first, each issued by the next.
        at: As of :func:`root_of`.

    Raises:
        FormatError: No certificates.
        ProofError: They are of another key, or do not hold.
    """
    if not certificates:
        return None
    chain = read_chain(certificates, "tpm")
    try:
        usages = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([])
    raw = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*raw) != key.public_bytes(*raw):
        raise ProofError("tpm: certificates: the first is of another key than the quote's")
    if AIK not in usages:
        raise ProofError("tpm: certificates: the first is not an attestation key's (2.23.133.8.3)")
    root = root_of(chain, roots, at, "tpm")
    return None if root is None else name_of(root)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, as hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def key_of(certificate: x509.Certificate) -> str:
    """SHA-256 of its SubjectPublicKeyInfo, as hex: the same when a key is certified anew."""
    key = certificate.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def name_of(certificate: x509.Certificate) -> str:
    """Its common name, or else its subject."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = (names[0] if names else certificate.subject).rfc4514_string()[:100]
    return name if name.isprintable() else ascii(name)


def _issued(own: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """Whether a CA that may have so many CAs below it signed (RFC 5280, 6.1.4 (k) to (n))."""
    try:
        own.verify_directly_issued_by(issuer)
        ca = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (*_MALFORMED, InvalidSignature, x509.ExtensionNotFound):
        return False
    usages = (each.value for each in issuer.extensions)
    signs = all(own.key_cert_sign for own in usages if isinstance(own, x509.KeyUsage))
    return signs and ca.ca and (ca.path_length is None or below <= ca.path_length)
