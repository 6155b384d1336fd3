"""What all approvals have in common: an in-toto statement in a DSSE envelope, signed by persons.

docs/FORMAT.md, section 10.6. Each person signs the same bytes, by an Ed25519 key or as an account
that Sigstore certifies, so that whoever adds a signature sees what the others signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.formats.dsse import Envelope, Statement, Subject, in_one_form, pae
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.formats.record import Json

PREDICATE_TYPE: Final = "urn:ml-provenance:approval:v1"
TRUST: Final = "trust"
MAX_BYTES: Final = 1024**2


def day(text: str) -> date | None:
    """Of ``2027-01-31``; None where it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def term(until: date | None) -> str:
    """``until 2027-01-31``."""
    return f"until {until}" if until else "for ever"


def has_expired(until: date | None, now: float) -> bool:
    """Whether the day is over, by UTC."""
    return until is not None and datetime.fromtimestamp(now, UTC).date() > until


def open_statement(data: bytes, file: str, purpose: str, *keys: str) -> tuple[Statement, Fields]:
    """The statement of an approval ``for`` a purpose, and its predicate, which has ``keys`` and
    ``until``; ``FormatError``."""
    statement = Statement.decode(data)
    fields = statement.fields(PREDICATE_TYPE, file)
    fields.one_of("for", (purpose,))
    return statement, fields.only("for", "until", *keys)


def until_of(fields: Fields) -> date | None:
    """The day of a predicate; what is none reads as None, which encodes otherwise."""
    return day(fields.maybe("until", fields.text) or "")


def sign(envelope: Envelope, key: Ed25519PrivateKey) -> Envelope:
    """With a person's signature beside those that are there."""
    signature = {key.public_key().public_bytes_raw().hex(): key.sign(pae(envelope.payload))}
    return Envelope(envelope.payload, {**envelope.signatures, **signature})


@dataclass(frozen=True, slots=True)
class TrustApproval:
    """That the section ``trust`` of a configuration is as it is, to the end of the day ``until``
    (UTC); None: for ever. docs/FORMAT.md, section 10.11.

    Attributes:
        digest: SHA-256 of the section in JCS (RFC 8785), 32 bytes.
    """

    digest: bytes
    until: date | None = None

    @classmethod
    def of(cls, section: Mapping[str, Json], until: date | None = None) -> TrustApproval:
        """Of a section as it stands in the file; ``InputError`` where JSON has no form for it."""
        return cls(hashlib.sha256(canonical_json(dict(section))).digest(), until)

    def encode(self) -> bytes:
        """The statement's bytes."""
        until = None if self.until is None else self.until.isoformat()
        subject = Subject(TRUST, {"sha256": self.digest.hex()})
        return Statement((subject,), PREDICATE_TYPE, {"for": TRUST, "until": until}).encode()

    @classmethod
    def decode(cls, data: bytes, file: str) -> TrustApproval:
        """Read what `encode` writes, and nothing else; ``FormatError``."""
        statement, fields = open_statement(data, file, TRUST)
        digest = statement.subjects[0].only_digest("sha256", file)
        return in_one_form(cls(digest, until_of(fields)), data, file)

    @property
    def line(self) -> str:
        """What is signed, in words."""
        return f"section trust with SHA-256 {self.digest.hex()}; {term(self.until)}"
