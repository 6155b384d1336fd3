"""Files of approvals, who of the persons of a rule signed one, and what the section ``trust`` needs
of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from provenance import files
from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    InputError,
    ProvenanceError,
    UnavailableError,
    UsageError,
)
from provenance.formats.approval import (
    MAX_BYTES,
    TrustApproval,
    day,
    has_expired,
)
from provenance.formats.dsse import AccountSignature, Envelope
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.settings.approvals import ApprovalSettings
from provenance.sigstore_root import certify

ROOT_KEY = "approvals.sigstore_root"


@dataclass(frozen=True, slots=True)
class Count:
    """How many of the persons of a rule signed.

    Attributes:
        names: Who did, in order.
        problems: What is the matter with signatures of others of them.
        unchecked: Whose certificates cannot be checked here; they do not count.
    """

    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def count(rule: ApprovalSettings, envelope: Envelope, file: str, root_key: str = ROOT_KEY) -> Count:
    """Who of the persons signed an envelope; signatures of others do not count. ``root_key``: where
    the rule's trusted root is from."""
    names, problems, unchecked = list[str](), list[str](), list[str]()
    for signer, name in sorted(rule.signers.items(), key=lambda item: item[1]):
        if signer in envelope.signatures:
            try:
                check_signer(rule, envelope, signer, file, root_key)
                names.append(name)
            except BadSignatureError as error:
                problems.append(f"{error}, as {name}")
            except (UsageError, UnavailableError) as error:
                unchecked.append(name)
                problems.append(f"{name} is not checked: {error}")
    problems += filter(None, map(rule.other_issuer, sorted(envelope.signatures)))
    return Count(tuple(names), tuple(problems), tuple(unchecked))


def check_signer(
    rule: ApprovalSettings, envelope: Envelope, signer: str, file: str, root_key: str = ROOT_KEY
) -> None:
    """That a signature verifies, an account's up to the rule's trusted root.

    Raises:
        BadSignatureError: It does not.
        MissingExtraError, ConfigError, UnavailableError: A certificate cannot be checked here.
    """
    envelope.check(signer, file)
    made = envelope.signatures[signer]
    if isinstance(made, AccountSignature):
        try:
            certify(made.bundle(envelope.payload), rule.sigstore_root, root_key)
        except BadSignatureError as error:
            raise BadSignatureError(f"{file}: {error}") from error


def read_approval(path: Path) -> Envelope:
    """An approval's file, or a Sigstore bundle around its statement; ``InputError``."""
    return files.read_given(path, "an approval", MAX_BYTES, _envelope)


def _envelope(data: bytes, path: str) -> Envelope:
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes")
    if "mediaType" in Fields.parse(data, path).raw:
        return Envelope.from_bundle(data, path)
    return Envelope.decode(data, path)


def last_day(option: str | None) -> date | None:
    """What ``--until`` names, which has not passed; ``InputError``."""
    until = None if option is None else day(option)
    if option is not None and until is None:
        raise InputError(f"--until: found {option!r}, expected a day such as 2027-01-31")
    if until is not None and until < datetime.now(UTC).date():
        raise InputError(f"--until: found {until}, expected a day that has not passed")
    return until


def require_approved(
    section: Mapping[str, Json], rule: ApprovalSettings, source: str | None
) -> None:
    """Of the section ``trust``, as it stands in the configuration: so many of the persons signed
    that it is as it is, in the file that ``approvals.trust`` names; ConfigError."""
    if (path := rule.trust) is None:
        return
    try:
        envelope = read_approval(path)
        found = TrustApproval.decode(envelope.payload, str(path))
        wanted = TrustApproval.of(section)
    except ProvenanceError as error:
        raise ConfigError("approvals.trust", str(error), source) from error
    problem = None
    if found.digest != wanted.digest:
        problem = f"approves another section trust (SHA-256 {found.digest.hex()[:16]})"
        problem += f"; expected {wanted.digest.hex()[:16]}"
    elif has_expired(found.until, time.time()):
        problem = f"expired after {found.until}"
    else:
        signed = count(rule, envelope, str(path))
        if len(signed.names) < rule.at_least:
            who = ", ".join(signed.names) or "nobody"
            wrong = "".join(f"; {text}" for text in signed.problems)
            problem = f"approved by {who}; expected {rule.wanted}{wrong}"
    if problem is not None:
        raise ConfigError("approvals.trust", f"{path}: {problem}", source)
