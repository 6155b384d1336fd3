"""What the checker says: findings by kind, what it looked at, and what it could not look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class FindingKind(StrEnum):
    """Every kind of finding; the table in :mod:`provenance.fsck.checker` says what each means."""

    SPOOL_TRUNCATED = "spool-truncated"
    SPOOL_DAMAGED = "spool-damaged"
    STREAM_DAMAGED = "stream-damaged"
    EVENT_MISSING = "event-missing"
    EVENT_DIFFERS = "event-differs"
    SEQ_HOLE = "seq-hole"
    GAP = "gap"
    EQUIVOCATION = "equivocation"
    EQUIVOCATION_UNSIGNED = "equivocation-unsigned"
    PARKED = "parked"

    ROW_UNREADABLE = "row-unreadable"
    ROW_ORPHAN = "row-orphan"
    RECORD_DIGEST = "record-digest"
    RECORD_UNREADABLE = "record-unreadable"
    RECORD_PLACE = "record-place"
    RUN_KEY = "run-key"
    RUN_IDENTITY = "run-identity"
    CERTIFICATE = "certificate"
    STATEMENT = "statement"
    PRODUCER_COUNTERS = "producer-counters"
    KEPT_STATE = "kept-state"
    ACKNOWLEDGEMENT = "acknowledgement"
    RUN_STATE = "run-state"
    RUN_INCOMPLETE = "run-incomplete"
    RUN_NOT_SEALED = "run-not-sealed"

    ENTRY_ROOT = "entry-root"
    ENTRY_SEAL = "entry-seal"
    ENTRY_MISSING = "entry-missing"
    LEDGER_LEVEL = "ledger-level"
    HEAD_MISSING = "head-missing"
    HEAD_ROOT = "head-root"
    HEAD_NOTE = "head-note"
    HEAD_SIGNATURE = "head-signature"
    HEAD_FRONTIER = "head-frontier"
    HEAD_INCONSISTENT = "head-inconsistent"

    ANCHOR_MISSING = "anchor-missing"
    ANCHOR_ROOT = "anchor-root"
    ANCHOR_STATE = "anchor-state"
    ANCHOR_STALLED = "anchor-stalled"
    LEASE_STUCK = "lease-stuck"
    VERSION_DIFFERS = "version-differs"
    NONCE_GAP = "nonce-gap"
    NETWORK_PAUSED = "network-paused"
    RECEIPT_INVALID = "receipt-invalid"
    RECEIPT_MISSING = "receipt-missing"

    CHAIN_IDENTITY = "chain-identity"
    CHAIN_DAMAGED = "chain-damaged"
    CHAIN_MISSING = "chain-missing"
    CHAIN_SHALLOW = "chain-shallow"
    CHAIN_ROOT = "chain-root"
    CHAIN_DOUBLED = "chain-doubled"
    CHAIN_ORPHAN = "chain-orphan"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: what kind, where, and what was found instead."""

    kind: FindingKind
    subject: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return {"kind": self.kind.value, "subject": self.subject, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class FsckReport:
    """All that came out.

    Attributes:
        checked: How many of each thing were looked at.
        unchecked: What could not be looked at, one line each.
    """

    checked: Mapping[str, int]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 clean, 1 with findings, 3 where something could not be checked and none was found."""
        if self.findings:
            return 1
        return 3 if self.unchecked else 0

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values: ``checked``, ``findings``, ``unchecked``."""
        return {
            "checked": dict(self.checked),
            "findings": [finding.as_dict() for finding in self.findings],
            "unchecked": list(self.unchecked),
        }


@dataclass(slots=True)
class Notebook:
    """Where the checks write what they find."""

    checked: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to what was looked at."""
        self.checked[what] = self.checked.get(what, 0) + number

    def add(self, findings: Iterable[Finding]) -> None:
        """Take what a check yields; the same finding twice is one."""
        known = set(self.findings)
        for finding in findings:
            if finding not in known:
                known.add(finding)
                self.findings.append(finding)

    def report(self) -> FsckReport:
        """What came out, in the order in which it was found."""
        return FsckReport(dict(self.checked), tuple(self.findings), tuple(self.unchecked))


def event_name(run: UUID, producer: bytes, seq: int, last: int | None = None) -> str:
    """How an event, or a row of them up to ``last``, is named as a subject."""
    upto = "" if last is None or last == seq else f"-{last}"
    return f"{run}/{producer.hex()}/{seq}{upto}"


def holes(known: Collection[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """First and last number of each row of numbers from ``start`` below ``end`` that are missing.

    It costs what is known, however far the two lie apart: a row may state any number.
    """
    at = start
    for number in [*sorted(n for n in known if start <= n < end), end]:
        if number > at:
            yield at, number - 1
        at = number + 1
