"""What all approvals have in common: an in-toto statement in a DSSE envelope, signed by persons.

docs/FORMAT.md, section 10.6. Each person's Ed25519 key signs the same bytes, so that whoever adds a
signature sees what the others signed.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.errors import BadSignatureError, FormatError, InputError
from provenance.formats.dsse import Envelope, Statement, pae
from provenance.formats.ed25519 import verify_signature
from provenance.formats.fields import Fields
from provenance.settings.approvals import ApprovalRule

PREDICATE_TYPE: Final = "urn:ml-provenance:approval:v1"
MAX_BYTES: Final = 1024**2


def day(text: str) -> date | None:
    """Of ``2027-01-31``; None where it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def last_day(option: str | None) -> date | None:
    """What ``--until`` names, which has not passed; ``InputError``."""
    until = None if option is None else day(option)
    if option is not None and until is None:
        raise InputError(f"--until: found {option!r}, expected a day such as 2027-01-31")
    if until is not None and until < datetime.now(UTC).date():
        raise InputError(f"--until: found {until}, expected a day that has not passed")
    return until


def term(until: date | None) -> str:
    """``until 2027-01-31``."""
    return f"until {until}" if until else "for ever"


def has_expired(until: date | None, now: float) -> bool:
    """Whether the day is over, by UTC."""
    return until is not None and datetime.fromtimestamp(now, UTC).date() > until


def read(path: Path) -> Envelope:
    """An approval's file; ``InputError``, ``FormatError``."""
    with files.errors_of(path, "read"):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file, expected an approval")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes, expected an approval")
    return Envelope.decode(data, str(path))


def open_statement(data: bytes, file: str, purpose: str, *keys: str) -> tuple[Statement, Fields]:
    """The statement of an approval ``for`` a purpose, and its predicate, which has ``keys`` and
    ``until``; ``FormatError``."""
    statement = Statement.decode(data)
    if statement.predicate_type != PREDICATE_TYPE:
        found = statement.predicate_type[:60]
        raise FormatError(f"{file}: found a statement {found!r}, expected {PREDICATE_TYPE}")
    fields = Fields.of(dict(statement.predicate), file)
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
class Count:
    """How many of the persons of a rule signed.

    Attributes:
        names: Who did, in order.
        problems: What is the matter with signatures under their keys.
    """

    names: tuple[str, ...]
    problems: tuple[str, ...]


def count(by: Mapping[str, str], envelope: Envelope, file: str) -> Count:
    """Who of the persons (keys as hex by name) signed an envelope; keys of others do not count."""
    names, problems = list[str](), list[str]()
    for name, key in sorted(by.items()):
        if (signature := envelope.signatures.get(key)) is None:
            continue
        try:
            verify_signature(bytes.fromhex(key), signature, pae(envelope.payload), file)
            names.append(name)
        except BadSignatureError as error:
            problems.append(f"{error}, as {name}")
    return Count(tuple(names), tuple(problems))


def expected(rule: ApprovalRule) -> str:
    """``2 of alice, bob, carol``."""
    return f"{rule.at_least} of {', '.join(sorted(rule.by))}"
