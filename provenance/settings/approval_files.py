"""Files of approvals, and what the section ``trust`` needs of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from provenance import files
from provenance.errors import ConfigError, FormatError, InputError, ProvenanceError
from provenance.formats.approval import (
    MAX_BYTES,
    TrustApproval,
    count,
    day,
    has_expired,
)
from provenance.formats.dsse import Envelope
from provenance.formats.record import Json
from provenance.settings.approvals import ApprovalSettings


def read_approval(path: Path) -> Envelope:
    """An approval's file; ``InputError``."""
    return files.read_given(path, "an approval", MAX_BYTES, _envelope)


def _envelope(data: bytes, path: str) -> Envelope:
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes")
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
        signed = count(rule.by, envelope, str(path))
        if len(signed.names) < rule.at_least:
            who = ", ".join(signed.names) or "nobody"
            wrong = "".join(f"; {text}" for text in signed.problems)
            problem = f"approved by {who}; expected {rule.wanted}{wrong}"
    if problem is not None:
        raise ConfigError("approvals.trust", f"{path}: {problem}", source)
