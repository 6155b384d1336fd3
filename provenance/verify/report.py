"""What a verification found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from provenance.evidence.lineage import Lineage
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.run_summary import leaves
from provenance.evidence.story import OPEN, RunState
from provenance.formats.fields import as_json
from provenance.formats.record import Json, Kind, Record
from provenance.roll.statistics import RunsBefore
from provenance.verify.catalogue import RECORDS, Check, Status
from provenance.verify.cosigners import Cosigners
from provenance.verify.cross import CrossSeal
from provenance.verify.identity import Standing
from provenance.verify.trust import Chain

Outcome = Literal["failed", "consistent", "anchored", "verified"]
"""See :mod:`provenance.verify.verdict`."""
NetworkStatus = Literal[
    "verified", "failed", "pending", "unreachable", "not configured", "receipt", "stated"
]
EXIT_CODES: Mapping[str, int] = {"verified": 0, "failed": 1, "consistent": 3, "anchored": 3}
NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
CLAIMS = ("seals.sealed_at", "records.ts", "state", "incomplete")
"""What the deployment or the trainer states and nothing proves."""


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


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's status and one line of detail: what was counted, or why it was not done."""

    check: Check
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class Seal:
    """One run root in the ledger. ``label``: ``before``, ``checkpoint-10``, ``after``;
    ``sealed_at``, Unix seconds, is what the deployment states."""

    label: str
    index: int
    root: bytes
    sealed_at: float
    recomputed: bool

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        values = as_json(self)
        return {"seal": values.pop("label"), **values}


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """One seal on one network.

    Attributes:
        status: ``verified``: a node shows it on a pinned chain, or the headers or block hashes
            that the reader trusts have its block. ``receipt``: the receipt holds, no node was
            asked. ``stated``: the same, and nothing that nobody could make up stands behind
            its block; or nobody pinned the chain that has it. ``pending``: not (deep enough) in
            a block yet. ``unreachable``: no usable answer. ``not configured``: no node. ``failed``.
        chain: Where the anchor lies, as the evidence says.
        pinned_by: Who pinned that chain and its contract.
        shown_by: Who showed the block: ``by a node``, ``by headers``, ``by a block hash``.
        submitter: The address that signed the transaction, Ethereum's.
        cosigners: The owners that signed the anchor; None where one key did.
        size: The anchored head's size.
        depth: As the node or the headers show it; 0 where nobody did.
        time: The block's, in Unix seconds.
        claimed: No receipt is here: the deployment alone says that there is an anchor.
    """

    network: str
    seal: str
    status: NetworkStatus
    chain: Chain
    pinned_by: str | None = None
    shown_by: str | None = None
    submitter: str | None = None
    cosigners: Cosigners | None = None
    transaction_id: str | None = None
    size: int | None = None
    root: bytes | None = None
    block_hash: str | None = None
    height: int | None = None
    depth: int = 0
    time: float | None = None
    reason: str | None = None
    claimed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        chain, values = self.chain, dict(as_json(self))
        del values["seal"]
        return values | {
            "chain": chain.label,
            "chain_id": chain.id if self.network == "ethereum" else None,
            "network": chain.id if self.network == "bitcoin" else None,
            "contract": chain.contract,
            "work": None if chain.work is None else round(chain.work, 2),
        }


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One metrics record; ``values`` as recorded, nested names joined with dots."""

    path: str
    epoch: int
    rank: int
    values: Mapping[str, Json]

    @property
    def sealed(self) -> bool:
        """Whether a run root has it; else its producer's signature alone stands behind it."""
        return not self.path.startswith("unsealed/")

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        own = {"path": self.path, "epoch": self.epoch, "rank": self.rank, "sealed": self.sealed}
        return {**own, "metrics": dict(self.values)}


def metrics_of(records: Mapping[str, Record]) -> tuple[EpochMetrics, ...]:
    """Of records by path those of metrics, by epoch and rank; without late ones, which no root will
    ever have."""
    rows = []
    for path, record in records.items():
        if record.kind is not Kind.METRICS or record.epoch is None or path.startswith("late/"):
            continue
        stated = record.body.get("metrics")
        values = dict(leaves(stated)) if isinstance(stated, dict) else {}
        rows.append(EpochMetrics(path, record.epoch, record.rank, values))
    return tuple(sorted(rows, key=lambda row: (row.epoch, row.rank, row.path)))


def number(value: Json) -> float | None:
    """A recorded metric as a number; NaN and the infinities are written as strings."""
    if isinstance(value, str):
        return NON_FINITE.get(value)
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome and what it rests on (:mod:`provenance.verify.verdict`).

    Attributes:
        policy: The words that ``verified`` takes.
        own: Beside them, every anchor that the deployment asked for must be there.
        key, vkey: The ledger's, short and whole. key_pinned_by: Who pinned it.
        rests_on, missing: For people: what the outcome rests on; what ``verified`` lacks.
    """

    outcome: Outcome
    policy: tuple[str, ...]
    own: bool
    key: str | None
    vkey: str | None
    key_pinned_by: str | None
    rests_on: tuple[str, ...]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """What it rests on and what is missing, to stand right below the outcome."""
        return [
            *(f"rests on: {line}" for line in self.rests_on),
            *(f"missing:  {line}" for line in self.missing),
        ]


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All that came out. ``notices`` are facts a reader should see that fail nothing."""

    run: UUID
    verdict: Verdict
    checked_at: float
    online: bool
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    notices: tuple[Finding, ...]
    seals: tuple[Seal, ...]
    networks: Mapping[str, Mapping[str, NetworkCheck]]
    """By network, then by seal label."""
    cross: tuple[CrossSeal, ...]
    metrics: tuple[EpochMetrics, ...]
    not_checked: tuple[str, ...]
    evidence: RunEvidence = field(repr=False)
    standing: Standing | None = None
    """Who stands behind the run; None where nobody does."""
    state: RunState = OPEN
    """How the run ended, where it did."""
    lineage: Lineage | None = None
    """The run that it continues; None where it names none."""
    runs_before: RunsBefore | None = None
    """How many runs of its ledger began before it; None where nothing says which runs there are."""

    @property
    def tree(self) -> Mapping[str, object] | None:
        """The run tree at the newest seal, as ``MLProvenanceMerkleTree.as_dict``; made anew."""
        tree = newest_tree(self.evidence)
        return None if tree is None else tree.as_dict()

    @property
    def outcome(self) -> Outcome:
        """The verdict's word."""
        return self.verdict.outcome

    @property
    def exit_code(self) -> int:
        """0 verified, 1 failed, 3 anything between."""
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
        """Chain, seal, status, transaction id, block height and depth, for a table."""
        return [
            (
                seal.chain.label,
                label,
                seal.status if seal.reason is None else f"{seal.status} ({seal.reason})",
                seal.transaction_id,
                seal.height,
                seal.depth or None,
            )
            for seals in self.networks.values()
            for label, seal in seals.items()
        ]

    def summary(self) -> dict[str, Any]:
        """What a run among many shows: all but tree, metrics and records, as JSON values."""
        return {
            "run_id": str(self.run),
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "findings": as_json(self.findings),
            "verdict": as_json(self.verdict),
            "state": self.evidence.state,
            "ending": self.state._asdict(),
            "parent": self.lineage and self.lineage.as_dict(),
            "roots": self.roots,
            "checks": [
                {"number": r.check.number, "status": r.status.value, "detail": r.detail}
                for r in self.checks
            ],
            "notices": as_json(self.notices),
            "networks": {
                name: {label: seal.as_dict() for label, seal in seals.items()}
                for name, seals in self.networks.items()
            },
            "cross": as_json(self.cross),
            "not_checked": list(self.not_checked),
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values: hashes as hex, times in Unix seconds."""
        evidence = self.evidence
        return {
            "v": 1,
            **self.summary(),
            "checked_at": self.checked_at,
            "online": self.online,
            "source": as_json(evidence.source),
            "public_key": evidence.public_key.hex(),
            "identity": self.standing and self.standing.as_json(),
            "incomplete": evidence.incomplete,
            "ledger_key": evidence.vkey,
            "ledger_claims": evidence.ledger.as_json(),
            "runs_before": self.runs_before and self.runs_before.as_json(),
            "claims": list(CLAIMS),
            "seals": [seal.as_dict() for seal in self.seals],
            "checks": [
                {**as_json(r.check), "status": r.status.value, "detail": r.detail}
                for r in self.checks
            ],
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
        failed = Finding(RECORDS, "run", f"cannot be read: {self.problem}")
        return (failed,) if self.outcome == "failed" else ()

    @property
    def exit_code(self) -> int:
        """As of a single verification."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, object]:
        """For JSON: the keys that a single report has, but for the large ones."""
        if self.report is not None:
            return self.report.summary()
        return {
            "run_id": str(self.run),
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "findings": as_json(self.findings),
            "not_checked": [] if self.findings else [self.problem],
        }


@dataclass(slots=True)
class Totals:
    """Counts over all runs."""

    runs: int = 0
    outcomes: dict[Outcome, int] = field(
        default_factory=lambda: {"verified": 0, "anchored": 0, "consistent": 0, "failed": 0}
    )
    findings: int = 0

    def add(self, result: RunResult) -> None:
        """Count one run."""
        self.runs += 1
        self.outcomes[result.outcome] += 1
        self.findings += len(result.findings)

    @property
    def exit_code(self) -> int:
        """The worst: 1 failed, else 3 where not all are verified, else 0."""
        if self.outcomes["failed"]:
            return EXIT_CODES["failed"]
        return EXIT_CODES["verified" if self.outcomes["verified"] == self.runs else "consistent"]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        counts: dict[str, object] = {"runs": self.runs, "findings": self.findings}
        return counts | dict(self.outcomes) | {"exit_code": self.exit_code}
