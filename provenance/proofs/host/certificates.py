"""Certificates of TPMs' attestation keys (X.509, RFC 5280), followed to roots that a reader pins.

The key's own certificate says by its extended key usage that it is such a key:
``tcg-kp-AIKCertificate``, 2.23.133.8.3 (TCG EK Credential Profile, annex). Without it any key of
that issuer could pass for one of a TPM. No revocation list is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provenance.errors import FormatError, ProofError
from provenance.proofs.host.tpm import PublicKey

AIK: Final = x509.ObjectIdentifier("2.23.133.8.3")


def certified_by(
    certificates: Sequence[bytes], key: PublicKey, roots: Iterable[x509.Certificate], at: datetime
) -> str | None:
    """The subject of the pinned root that stands behind a key; None where none of them does.

    Args:
        certificates: DER, the key's own first, each issued by the next.
        at: With a time zone: when the key was used, as its record says.

    Raises:
        FormatError: No certificates.
        ProofError: They are of another key, or do not hold.
    """
    if not certificates:
        return None
    try:
        chain = [x509.load_der_x509_certificate(each) for each in certificates]
        usages = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"tpm: certificates: {error}") from error
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([])
    raw = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*raw) != key.public_bytes(*raw):
        raise ProofError("tpm: certificates: the first is of another key than the quote's")
    if AIK not in usages:
        raise ProofError("tpm: certificates: the first is not an attestation key's (2.23.133.8.3)")
    for each in chain:
        if not each.not_valid_before_utc <= at <= each.not_valid_after_utc:
            until = f"{each.not_valid_before_utc:%Y-%m-%d} to {each.not_valid_after_utc:%Y-%m-%d}"
            raise ProofError(f"tpm: certificates: valid {until}, the quote is of {at:%Y-%m-%d}")
    for own, issuer in pairwise(chain):
        if not _issued(own, issuer):
            name = own.subject.rfc4514_string()[:100]
            raise ProofError(f"tpm: certificates: {name} is not issued by the next one")
    for root in roots:
        if chain[-1] == root or _issued(chain[-1], root):
            return root.subject.rfc4514_string()[:100]
    return None


def _issued(own: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        own.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
