"""Sigstore bundles by which a run's identity signs without a key of its own.

docs/FORMAT.md, section 2.3. A certificate for a key that is used once names an account (subject
alternative name) and who vouches for it (the OpenID Connect issuer); the bundle is canonical JSON
(RFC 8785), at most 16 KiB, version 0.3 with one message signature.

What is checked here needs no trust: form, the leaf's ECDSA signature, and that nothing in the
log entry contradicts its checkpoint. Whether the leaf is Sigstore's, a trusted root alone says
(:mod:`provenance.sigstore_root`).

Sources: https://github.com/sigstore/protobuf-specs (sigstore_bundle.proto),
https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md, C2SP tlog-checkpoint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from provenance.errors import BadSignatureError, FormatError
from provenance.formats.checkpoint import parse_note
from provenance.formats.fields import Fields
from provenance.formats.note import decode_base64

MAX_BUNDLE_BYTES: Final = 16 * 1024
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
"""Fulcio's extension that names the issuer, a DER UTF8String."""
_FILE: Final = "identity"
_MAX_NAME: Final = 1000
_BAD_CERTIFICATE: Final = (
    ValueError,
    TypeError,  # a name whose value is of another type than its attribute's
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


def account(name: str, issuer: str) -> str:
    """``ci@example.org, by https://accounts.google.com``."""
    return f"{name}, by {issuer}"


@dataclass(frozen=True, slots=True)
class Keyless:
    """Whom a bundle's certificate names: an e-mail address or URI, and its issuer's URL."""

    name: str
    issuer: str
    bundle: bytes = field(repr=False)

    @property
    def label(self) -> str:
        """The account, in words."""
        return account(self.name, self.issuer)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Whom a certificate names, and the key that it is for."""

    name: str
    issuer: str
    key: EllipticCurvePublicKey = field(repr=False)

    def verify(self, signature: bytes, message: bytes, file: str) -> None:
        """Raises BadSignatureError: the key did not sign the message (ECDSA with SHA-256, DER)."""
        try:
            self.key.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature as error:
            problem = "the signature does not fit its certificate"
            raise BadSignatureError(f"{file}: {problem}") from error


def open_bundle(bundle: bytes, message: bytes) -> Keyless:
    """Read a bundle, or ``FormatError``; ``BadSignatureError`` where the leaf did not sign the
    message."""
    top = Fields.parse_canonical(
        bundle, _FILE, BUNDLE_TYPE, key="mediaType", limit=MAX_BUNDLE_BYTES
    ).only("mediaType", "messageSignature", "verificationMaterial")
    signed = top.object("messageSignature", "messageDigest", "signature")
    digest = signed.object("messageDigest", "algorithm", "digest")
    digest.one_of("algorithm", ["SHA2_256"])
    if _base64(digest, "digest") != hashlib.sha256(message).digest():
        raise BadSignatureError(f"{_FILE}: the bundle signs another message than this run's")
    leaf = open_material(top.object("verificationMaterial"))
    leaf.verify(_base64(signed, "signature"), message, _FILE)
    return Keyless(leaf.name, leaf.issuer, bundle)


def open_material(material: Fields) -> Leaf:
    """The certificate of a bundle's ``verificationMaterial``, whose form is checked;
    ``FormatError``."""
    _check_entry(material)
    der = _base64(material.object("certificate", "rawBytes"), "rawBytes")
    where = f"{material.file}: certificate"
    try:
        leaf = x509.load_der_x509_certificate(der)
        key, found = leaf.public_key(), leaf.extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = found.get_extension_for_oid(ISSUER).value
    except _BAD_CERTIFICATE as error:
        raise FormatError(f"{where}: {str(error)[:200]}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise FormatError(f"{where}: expected an ECDSA key on P-256")
    return Leaf(_name(names, where), _text(issuer, where), key)


def _check_entry(material: Fields) -> None:
    """What verifiers of bundles read and do not compare: a byte changed there would go unseen."""
    entries = material.objects("tlogEntries")
    if len(entries) != 1:
        raise FormatError(f"{material.file}: tlogEntries: found {len(entries)}, expected 1")
    entry, proof = entries[0], entries[0].object("inclusionProof")
    proof.items("hashes", _base64)
    _base64(entry, "canonicalizedBody")
    _base64(entry.object("logId"), "keyId")
    _base64(proof, "rootHash")
    if "inclusionPromise" in entry.raw:
        _base64(entry.object("inclusionPromise"), "signedEntryTimestamp")
    note = parse_note(proof.object("checkpoint", "envelope").text("envelope"))
    if proof.text("treeSize") != str(note.head.size):
        proof.refuse("treeSize", f"{note.head.size}, the checkpoint's")
    # Rekor's origin is its name, or that and " - " and the tree's number.
    if note.head.origin.partition(" - ")[0] not in {each.name for each in note.signatures}:
        raise FormatError(
            f"{material.file}: the checkpoint's origin is none of those who signed it"
        )


def _name(names: x509.SubjectAlternativeName, where: str) -> str:
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier)
    if len(names) != 1 or not isinstance(names[0], kinds):
        raise FormatError(f"{where}: expected one name, an e-mail address or a URI")
    return _printable(str(names[0].value), where)


def _text(extension: x509.ExtensionType, where: str) -> str:
    """The issuer: a UTF8String of at most 255 bytes."""
    value = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    at = 3 if value[1:2] == b"\x81" else 2
    if value[:1] != b"\x0c" or len(value) <= at or value[at - 1] != len(value) - at:
        raise FormatError(f"{where}: issuer: expected a UTF8String")
    return _printable(value[at:].decode(errors="replace"), where)


def _printable(text: str, where: str) -> str:
    if not text.isprintable() or len(text) > _MAX_NAME:
        raise FormatError(f"{where}: found the name {text[:40]!a}, expected text")
    return text


def _base64(fields: Fields, key: str | int) -> bytes:
    return decode_base64(fields.text(key), f"{fields.file}: {fields.path_of(key)}")
