"""in-toto statements, DSSE envelopes and sigstore bundles, as bytes.

docs/FORMAT.md, section 10.4. A statement (in-toto Attestation Framework, Statement v1) is written
as RFC 8785 JSON. What is signed is its pre-authentication encoding (DSSE v1.0.2, protocol.md); the
signature travels in a sigstore bundle v0.3 (sigstore/protobuf-specs, ``sigstore_bundle.proto``).
Its ``hint`` is, as OpenSSF Model Signing has it, the SHA-256 as hex of the public key's PEM text
(SubjectPublicKeyInfo, with its final newline).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from provenance.errors import TooLargeError
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.formats.note import encode_base64
from provenance.formats.record import Json

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_STATEMENT_BYTES: Final = 16 * 1024**2
MAX_SUBJECTS: Final = 10_000

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: digests as lower-case hex by algorithm, at least one."""

    name: str
    digest: Mapping[str, str]
    annotations: Mapping[str, Json] = field(default_factory=dict)

    def as_json(self) -> dict[str, Json]:
        """The JSON object; empty annotations are left out."""
        made: dict[str, Json] = {"name": self.name, "digest": dict(self.digest)}
        if self.annotations:
            made["annotations"] = dict(self.annotations)
        return made


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope (DSSE v1.0.2, envelope.md) around a statement, with a signature of each of
    several Ed25519 keys. ``signatures``: 64 bytes by ``keyid``, the public key as hex."""

    payload: bytes
    signatures: Mapping[str, bytes]

    def encode(self) -> bytes:
        """The JSON text, signatures in the order of their keys."""
        return canonical_json(
            {
                "payload": encode_base64(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [
                    {"keyid": key, "sig": encode_base64(signature)}
                    for key, signature in sorted(self.signatures.items())
                ],
            }
        )

    @classmethod
    def decode(cls, data: bytes, file: str) -> Envelope:
        """Read an envelope, whoever wrote it; ``FormatError``. No signature is checked."""
        top = Fields.parse(data, file).only("payload", "payloadType", "signatures")
        top.one_of("payloadType", (PAYLOAD_TYPE,))
        signatures: dict[str, bytes] = {}
        for each in top.objects("signatures", "keyid", "sig"):
            key = each.matching("keyid", _KEY, "an Ed25519 key, 64 lower-case hex digits")
            if key in signatures:
                each.refuse("keyid", "each key once")
            signatures[key] = _base64(each, "sig")
        return cls(_base64(top, "payload"), signatures)


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement; ``predicate`` is whatever ``predicate_type`` (a URI) says."""

    subjects: Sequence[Subject]
    predicate_type: str
    predicate: Mapping[str, Json]

    def encode(self) -> bytes:
        """Canonical bytes; ``TooLargeError`` over 16 MiB, ``InputError`` for what has none."""
        data = canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [subject.as_json() for subject in self.subjects],
                "predicateType": self.predicate_type,
                "predicate": dict(self.predicate),
            }
        )
        if len(data) > MAX_STATEMENT_BYTES:
            raise TooLargeError(f"statement of {len(data)} bytes, at most {MAX_STATEMENT_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Statement:
        """Read what `encode` writes, and nothing else, or ``FormatError``; no claim in it is
        checked."""
        top = Fields.parse_canonical(
            data, "statement", STATEMENT_TYPE, key="_type", limit=MAX_STATEMENT_BYTES
        ).only("_type", "predicate", "predicateType", "subject")
        subjects = top.items("subject", _subject)
        if not 0 < len(subjects) <= MAX_SUBJECTS:
            raise TooLargeError(
                f"statement: {len(subjects)} subjects, expected 1 to {MAX_SUBJECTS}"
            )
        return cls(subjects, top.text("predicateType"), top.object("predicate").raw)


def _base64(fields: Fields, key: str) -> bytes:
    try:
        return base64.b64decode(fields.text(key), validate=True)
    except ValueError:
        fields.refuse(key, "base64")


def _subject(subjects: Fields, at: int) -> Subject:
    subject = subjects.object(at, "name", "digest", "annotations")
    digest = subject.mapping(
        "digest", lambda digest, name: digest.matching(name, _HEX, "lower-case hex")
    )
    if not digest:
        subject.refuse("digest", "at least one digest")
    annotations = subject.optional("annotations", subject.object)
    return Subject(subject.text("name"), digest, annotations.raw if annotations else {})


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that a DSSE signature is over: the texts, each behind its length in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_hint(public_pem: bytes) -> str:
    """Which key signed: SHA-256 as hex of its PEM text."""
    return hashlib.sha256(public_pem).hexdigest()


def sigstore_bundle(payload: bytes, signature: bytes, hint: str) -> bytes:
    """A sigstore bundle v0.3 around a statement's bytes, as JSON; the signature is over
    ``pae(payload)``, for ECDSA in DER, and ``hint`` is `key_hint`."""
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": encode_base64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": "", "sig": encode_base64(signature)}],
            },
        }
    )
