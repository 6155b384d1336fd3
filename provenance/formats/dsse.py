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
from typing import Final, Protocol, TypeVar

from provenance.errors import FormatError, InputError, TooLargeError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.formats.producers.keyless import (
    BUNDLE_TYPE,
    MAX_BUNDLE_BYTES,
    Keyless,
    Leaf,
    account,
    open_material,
)
from provenance.formats.record import Json

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
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

    def only_digest(self, algorithm: str, file: str) -> bytes:
        """The 32 bytes of its one digest; ``FormatError`` where it is of another algorithm."""
        return Fields.of(dict(self.digest), file).only(algorithm).hex(algorithm, 32)


@dataclass(frozen=True, slots=True)
class AccountSignature:
    """An account's, by a certificate of Sigstore: docs/FORMAT.md, section 10.6.

    Attributes:
        signature: ECDSA with SHA-256, DER, over the statement's PAE.
        material: ``verificationMaterial`` of its Sigstore bundle.
    """

    leaf: Leaf
    signature: bytes
    material: Mapping[str, Json] = field(repr=False)

    @classmethod
    def read(cls, signed: Fields, material: Fields) -> AccountSignature:
        """Of an object with ``sig``, and a bundle's material; ``FormatError``."""
        where = f"{material.file}: {material.path}"
        try:
            size = len(canonical_json(material.raw))
        except InputError as error:
            raise FormatError(f"{where}: {error}") from error
        if size > MAX_BUNDLE_BYTES:
            raise TooLargeError(f"{where} of {size} bytes, at most {MAX_BUNDLE_BYTES}")
        return cls(open_material(material), _base64(signed, "sig"), material.raw)

    @property
    def signer(self) -> str:
        """``ci@example.org, by https://accounts.google.com``: nobody checked the certificate."""
        return account(self.leaf.name, self.leaf.issuer)

    def bundle(self, payload: bytes) -> Keyless:
        """As a Sigstore bundle v0.3 with an envelope of its own around the statement."""
        signed: dict[str, Json] = {"sig": base64.b64encode(self.signature).decode("ascii")}
        bundle = {
            "mediaType": BUNDLE_TYPE,
            "dsseEnvelope": _envelope(payload, [signed]),
            "verificationMaterial": dict(self.material),
        }
        return Keyless(self.leaf.name, self.leaf.issuer, canonical_json(bundle))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope (DSSE v1.0.2, envelope.md) around a statement, with signatures of several.

    Attributes:
        signatures: By who signed: 64 bytes of an Ed25519 key (as hex), or an account's (by
            :attr:`AccountSignature.signer`).
    """

    payload: bytes
    signatures: Mapping[str, bytes | AccountSignature]

    def encode(self) -> bytes:
        """The JSON text, signatures in the order of who signed."""
        signatures = list[Json]()
        for signer in sorted(self.signatures):
            made = self.signatures[signer]
            raw = made if isinstance(made, bytes) else made.signature
            signed: dict[str, Json] = {"sig": base64.b64encode(raw).decode("ascii")}
            if isinstance(made, bytes):
                signed["keyid"] = signer
            else:
                signed["verificationMaterial"] = dict(made.material)
            signatures.append(signed)
        return canonical_json(_envelope(self.payload, signatures))

    @classmethod
    def decode(cls, data: bytes, file: str) -> Envelope:
        """Read an envelope, whoever wrote it; ``FormatError``. No signature is checked."""
        top = Fields.parse(data, file).only("payload", "payloadType", "signatures")
        top.one_of("payloadType", (PAYLOAD_TYPE,))
        signatures: dict[str, bytes | AccountSignature] = {}
        for each in top.objects("signatures"):
            made: bytes | AccountSignature
            if "verificationMaterial" in each.raw:
                material = each.only("sig", "verificationMaterial").object("verificationMaterial")
                made = AccountSignature.read(each, material)
                key, signer = "verificationMaterial", made.signer
            else:
                key, made = "keyid", _base64(each.only("keyid", "sig"), "sig")
                signer = each.matching(key, _KEY, "an Ed25519 key, 64 lower-case hex digits")
            if signer in signatures:
                each.refuse(key, "each signer once")
            signatures[signer] = made
        return cls(_base64(top, "payload"), signatures)

    @classmethod
    def from_bundle(cls, data: bytes, file: str) -> Envelope:
        """Of a Sigstore bundle v0.3 around a statement, by an account, whoever wrote its JSON;
        ``FormatError``. The signature is not checked."""
        top = Fields.parse(data, file).only("mediaType", "dsseEnvelope", "verificationMaterial")
        top.version(BUNDLE_TYPE, "mediaType")
        envelope = top.object("dsseEnvelope", "payload", "payloadType", "signatures")
        envelope.one_of("payloadType", (PAYLOAD_TYPE,))
        signed = envelope.objects("signatures", "keyid", "sig")
        if len(signed) != 1:
            envelope.refuse("signatures", "one signature")
        made = AccountSignature.read(signed[0], top.object("verificationMaterial"))
        return cls(_base64(envelope, "payload"), {made.signer: made})

    def check(self, signer: str, file: str) -> None:
        """That a signature verifies: by the key, or by that of an account's certificate, which is
        not checked; ``BadSignatureError``."""
        made = self.signatures[signer]
        if isinstance(made, bytes):
            verify_signature(bytes.fromhex(signer), made, pae(self.payload), file)
        else:
            made.leaf.verify(made.signature, pae(self.payload), f"{file}: {signer}")


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

    def fields(self, predicate_type: str, file: str) -> Fields:
        """The predicate, of that type; ``FormatError``."""
        if self.predicate_type != predicate_type:
            found = self.predicate_type[:60]
            raise FormatError(f"{file}: found a statement {found!r}, expected {predicate_type}")
        return Fields.of(dict(self.predicate), file)


class Encoded(Protocol):
    """What has one form as bytes."""

    def encode(self) -> bytes:
        """That form."""


E = TypeVar("E", bound=Encoded)


def in_one_form(made: E, data: bytes, file: str) -> E:
    """What was read of a statement; ``FormatError`` where the bytes are not what it writes."""
    if made.encode() != data:
        raise FormatError(f"{file}: is not the one form of such a statement")
    return made


def _envelope(payload: bytes, signatures: Sequence[Json]) -> dict[str, Json]:
    return {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": list(signatures),
    }


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
            "dsseEnvelope": _envelope(
                payload, [{"keyid": "", "sig": base64.b64encode(signature).decode("ascii")}]
            ),
        }
    )
