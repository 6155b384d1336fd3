"""What the checker says: findings by kind, what it looked at, and what it could not look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from uuid import UUID

from provenance.formats.fields import as_json


class FindingKind(StrEnum):
    """Every kind of finding, with what it says and of what; ``kind(subject, detail)`` is one."""

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name.lower().replace("_", "-")

    def __call__(self, subject: str, detail: str) -> Finding:
        """A finding of this kind."""
        return Finding(self, subject, detail)

    SPOOL_TRUNCATED = auto()  # a segment ends inside an event, and nobody writes it any more
    SPOOL_DAMAGED = auto()  # bytes of a segment that hold no readable event
    STREAM_DAMAGED = auto()  # a stream entry that is no signed batch
    EVENT_MISSING = auto()  # an event in the spool is in neither database nor stream, nor parked
    EVENT_DIFFERS = auto()  # the spool or stream has another value for an event than the database
    # numbers of a producer that are nowhere, below ones that are known, signed or announced, or a
    # run.end that announces another number than its own
    SEQ_HOLE = auto()
    GAP = auto()  # a trainer states that it had to drop events
    EQUIVOCATION = auto()  # a producer signed a second value for an event
    EQUIVOCATION_UNSIGNED = auto()  # a second value that the producer did not sign
    PARKED = auto()  # something that ingest refused

    ROW_UNREADABLE = auto()  # a row with values of the wrong type
    ROW_ORPHAN = auto()  # a row of a run, entry, head or anchor that is not there
    RECORD_DIGEST = auto()  # a leaf that is not the SHA-256 of its record
    RECORD_UNREADABLE = auto()  # stored bytes that are no record
    RECORD_PLACE = auto()  # a record stored under another run, producer, number, kind, epoch, rank
    # the run's public key is not the one that its id commits to, or that its configuration record
    # states
    RUN_KEY = auto()
    # an identity that did not sign the run (the trusted root behind one by Sigstore is not asked
    # here: provenance verify does)
    RUN_IDENTITY = auto()
    CERTIFICATE = auto()  # a producer whose key the run's key did not certify as it is stored
    STATEMENT = auto()  # records that are not what their producer signed, or that nobody signed
    PRODUCER_COUNTERS = auto()  # a producer's counters or chain are not those of its records
    # an archived run whose file is missing or another, or which has records in the database too
    ARCHIVE = auto()
    # what the database keeps to make seals from (marks, due_checkpoints, run_trees, ends and marks
    # of producers, chains and times of records) or to find heads (heads.cosigned), and that
    # records, entries and notes do not give
    KEPT_STATE = auto()
    ACKNOWLEDGEMENT = auto()  # one in Redis that the ledger's key did not sign, or of other records
    RUN_STATE = auto()  # sealed without an after entry, or the other way round
    RUN_INCOMPLETE = auto()  # a run that was sealed with events missing
    RUN_NOT_SEALED = auto()  # all that a seal needs is there, and it was not made

    ENTRY_ROOT = auto()  # a ledger entry that is not the root of its run's records
    ENTRY_SEAL = auto()  # a ledger entry that no seal record asks for in this way
    # an entry that is no seal and whose record of a later verification is gone, or another
    OUTCOME = auto()
    ENTRY_MISSING = auto()  # an index of the ledger without an entry
    LEDGER_LEVEL = auto()  # a kept hash of the ledger's levels that its entries do not give
    HEAD_MISSING = auto()  # a size of the ledger without a head
    HEAD_ROOT = auto()  # a head that is not the root of the entries below it
    HEAD_NOTE = auto()  # a signed note that states something else than the head
    HEAD_SIGNATURE = auto()  # a head that the ledger's key did not sign
    HEAD_FRONTIER = auto()  # a stored frontier that does not lead to its head
    HEAD_INCONSISTENT = auto()  # a head that does not extend the one before it

    # the database lacks, or contradicts, a head that the ledger's key signed, which is kept apart
    LEDGER_HISTORY = auto()

    # a final root that was signed for a network without the approval that is asked for it
    ANCHOR_UNAPPROVED = auto()
    ANCHOR_MISSING = auto()  # an entry that is to be anchored and that no row covers
    ANCHOR_ROOT = auto()  # an anchor of another root than the head at its size
    ANCHOR_STATE = auto()  # a state that the rest of the database or the network contradicts
    ANCHOR_STALLED = auto()  # a row that nobody takes up
    LEASE_STUCK = auto()  # a lease that nobody will end
    VERSION_DIFFERS = auto()  # stored bytes of a transaction that are not for their anchor
    NONCE_GAP = auto()  # a nonce that no row holds, below ones that rows hold
    NETWORK_PAUSED = auto()  # a network on which nothing is sent until somebody acts
    RECEIPT_INVALID = auto()  # a receipt that does not verify, or is not for its entry and anchor
    RECEIPT_MISSING = auto()  # an entry under a final anchor, without a receipt

    CHAIN_IDENTITY = auto()  # the node serves another chain than the one heads were anchored on
    CHAIN_DAMAGED = auto()  # a line of the local anchor file that does not hold
    CHAIN_MISSING = auto()  # an anchor that is confirmed or final, and in no block
    CHAIN_SHALLOW = auto()  # an anchor that is final, and not as deep as that takes
    CHAIN_ROOT = auto()  # a transaction that carries another root than its anchor
    CHAIN_DOUBLED = auto()  # one head, more than one anchor of ours
    CHAIN_ORPHAN = auto()  # an anchor of ours that no row knows


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: what kind, where, and what was found instead."""

    kind: FindingKind
    subject: str
    detail: str


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
        return 1 if self.findings else 3 if self.unchecked else 0

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values: ``checked``, ``findings``, ``unchecked``."""
        document: dict[str, object] = as_json(self)
        return document


@dataclass(slots=True)
class Notebook:
    """Where the checks write what they find, in this order, the same finding once."""

    checked: dict[str, int]
    unchecked: list[str] = field(default_factory=list)
    findings: dict[Finding, None] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        """Add to what was looked at."""
        self.checked[what] = self.checked.get(what, 0) + number

    def add(self, findings: Iterable[Finding]) -> None:
        """Take what a check yields."""
        self.findings |= dict.fromkeys(findings)

    def report(self) -> FsckReport:
        """What came out."""
        return FsckReport(self.checked, tuple(self.findings), tuple(self.unchecked))


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
