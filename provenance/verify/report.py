"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from uuid import UUID

from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.fields import as_json
from provenance.formats.record import Json
from provenance.verify.catalogue import RECORDS, Check, Status

Outcome = Literal["verified", "failed", "unchecked"]
NetworkStatus = Literal["verified", "failed", "pending", "unreachable", "not configured", "receipt"]
EXIT_CODES: Mapping[str, int] = {"verified": 0, "failed": 1, "unchecked": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold.

    Attributes:
        check: Number of the check.
        subject: What it is about: a record's path, a seal, ``after on ethereum``.
        problem: One line.
        file: The file in the bundle, where the evidence is one.
        path: The record's path in the run tree, where it is about a record.
    """

    check: int
    subject: str
    problem: str
    file: str | None = None
    path: str | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's status and one line of detail: what was counted, or why it was not done."""

    check: Check
    status: Status
    detail: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**self.check.as_dict(), "status": self.status.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Seal:
    """One run root in the ledger. ``label``: ``before``, ``checkpoint-10``, ``after``."""

    label: str
    index: int
    root: bytes
    sealed_at: float
    recomputed: bool

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "seal": self.label,
            "index": self.index,
            "root": self.root.hex(),
            "sealed_at": self.sealed_at,
            "recomputed": self.recomputed,
        }


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """One seal on one network.

    Attributes:
        status: ``verified``: a node shows it, or the headers that the auditor brought
            have its block. ``receipt``: the receipt holds, no node was
            asked. ``pending``: not (deep enough) in a block yet. ``unreachable``: a node was
            asked and gave no usable answer. ``not configured``: no node to ask. ``failed``.
        size: The anchored head's size.
        time: The block's, in Unix seconds.
    """

    network: str
    seal: str
    status: NetworkStatus
    transaction_id: str | None = None
    size: int | None = None
    root: bytes | None = None
    block_hash: str | None = None
    height: int | None = None
    depth: int = 0
    time: float | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        values = asdict(self) | {"root": self.root.hex() if self.root else None}
        return {name: value for name, value in values.items() if name not in ("network", "seal")}


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One metrics record; ``values`` as recorded, nested names joined with dots."""

    path: str
    epoch: int
    rank: int
    values: Mapping[str, Json]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "path": self.path,
            "epoch": self.epoch,
            "rank": self.rank,
            "metrics": dict(self.values),
        }


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All that came out. ``notices`` are facts a reader should see that fail nothing."""

    run: UUID
    outcome: Outcome
    checked_at: float
    online: bool
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    notices: tuple[Finding, ...]
    seals: tuple[Seal, ...]
    networks: Mapping[str, Mapping[str, NetworkCheck]]
    """By network, then by seal label."""
    tree: Mapping[str, object] | None
    """The run tree at the newest seal, as ``MLProvenanceMerkleTree.as_dict``."""
    metrics: tuple[EpochMetrics, ...]
    not_checked: tuple[str, ...]
    evidence: RunEvidence = field(repr=False)
    identity: bytes | None = None
    """Ed25519 key (32 bytes) of who stands behind the run, checked; None where nobody does."""

    @property
    def exit_code(self) -> int:
        """0 verified, 1 failed, 3 something could not be checked."""
        return EXIT_CODES[self.outcome]

    @property
    def roots(self) -> dict[str, str]:
        """Run root as hex by seal label, in the order of the ledger."""
        return {seal.label: seal.root.hex() for seal in self.seals}

    def check_rows(self) -> list[tuple[str, str, str]]:
        """Number, title and status of each check, for a table."""
        return [
            (f"({r.check.number})", r.check.title, f"{r.status.value}: {r.detail}")
            for r in self.checks
        ]

    def network_rows(self) -> list[tuple[str, str, str, str | None, int | None, int | None]]:
        """Network, seal, status, transaction id, block height and depth, for a table."""
        return [
            (
                network,
                label,
                seal.status if seal.reason is None else f"{seal.status} ({seal.reason})",
                seal.transaction_id,
                seal.height,
                seal.depth or None,
            )
            for network, seals in self.networks.items()
            for label, seal in seals.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values: hashes as hex, times in Unix seconds."""
        evidence = self.evidence
        return {
            "v": 1,
            "run_id": str(self.run),
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "checked_at": self.checked_at,
            "online": self.online,
            "source": {"kind": evidence.source.kind, "where": evidence.source.where},
            "public_key": evidence.public_key.hex(),
            "identity": self.identity and self.identity.hex(),
            "state": evidence.state,
            "incomplete": evidence.incomplete,
            "ledger_key": evidence.vkey,
            "ledger_claims": as_json(evidence.ledger),
            "roots": self.roots,
            "seals": [seal.as_dict() for seal in self.seals],
            "checks": [result.as_dict() for result in self.checks],
            "findings": [finding.as_dict() for finding in self.findings],
            "notices": [notice.as_dict() for notice in self.notices],
            "networks": {
                name: {label: seal.as_dict() for label, seal in seals.items()}
                for name, seals in self.networks.items()
            },
            "not_checked": list(self.not_checked),
            "metrics": [row.as_dict() for row in self.metrics],
            "records": [
                {
                    "path": record.path,
                    "kind": record.kind.value,
                    "epoch": record.epoch,
                    "rank": record.rank,
                    "digest": record.digest.hex(),
                    "bytes": None if record.data is None else len(record.data),
                    "file": record.file,
                    "withheld": record.withheld,
                }
                for record in evidence.records
            ],
            "tree": self.tree,
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came out for one run: its report without tree, metrics and records.

    ``report`` is None where the run could not be read; ``problem`` says why then.
    """

    run: UUID
    outcome: Outcome
    report: VerificationReport | None
    problem: str | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What does not hold."""
        if self.report is not None:
            return self.report.findings
        if self.outcome == "failed":
            return (Finding(RECORDS, "run", f"cannot be read: {self.problem}"),)
        return ()

    @property
    def exit_code(self) -> int:
        """As of a single verification."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, object]:
        """For JSON: the keys that a single report has, but for the large ones."""
        document: dict[str, object] = {
            "run_id": str(self.run),
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "findings": [finding.as_dict() for finding in self.findings],
        }
        if self.report is None:
            return document | {"not_checked": [] if self.findings else [self.problem]}
        report = self.report
        return document | {
            "state": report.evidence.state,
            "roots": report.roots,
            "checks": [
                {"number": r.check.number, "status": r.status.value, "detail": r.detail}
                for r in report.checks
            ],
            "notices": [notice.as_dict() for notice in report.notices],
            "networks": {
                name: {label: seal.as_dict() for label, seal in seals.items()}
                for name, seals in report.networks.items()
            },
            "not_checked": list(report.not_checked),
        }


@dataclass(slots=True)
class Totals:
    """Counts over all runs."""

    runs: int = 0
    outcomes: dict[Outcome, int] = field(
        default_factory=lambda: {"verified": 0, "failed": 0, "unchecked": 0}
    )
    findings: int = 0

    def add(self, result: RunResult) -> None:
        """Count one run."""
        self.runs += 1
        self.outcomes[result.outcome] += 1
        self.findings += len(result.findings)

    @property
    def exit_code(self) -> int:
        """The worst: 1 failed, else 3 something could not be checked, else 0."""
        if self.outcomes["failed"]:
            return EXIT_CODES["failed"]
        return EXIT_CODES["unchecked" if self.outcomes["unchecked"] else "verified"]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        counts: dict[str, object] = {"runs": self.runs, "findings": self.findings}
        return counts | dict(self.outcomes) | {"exit_code": self.exit_code}
