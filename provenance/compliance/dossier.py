"""What a run's records say to each requirement of a framework.

Life of a dossier: the run is verified; each topic gathers its items from the evidence, and the
checks that it names say whether they are verified or recorded only; each requirement takes the
items of its topics. What no record says stays empty, under the name of what a person must write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any, Final

from provenance.compliance.framework import Framework, Requirement, load_framework
from provenance.compliance.retention import Retention, ai_act, record_times
from provenance.compliance.says import says
from provenance.compliance.topics import TOPICS, Topic
from provenance.errors import InputError
from provenance.evidence.run_evidence import receipt_name
from provenance.formats.fields import as_json
from provenance.formats.record import Kind
from provenance.verify.catalogue import NETWORK_LIMITS, Status
from provenance.verify.report import NetworkCheck, Seal, VerificationReport

MAX_ITEMS: Final = 4
"""Of one topic: the last ones; the bundle has all."""


class Support(StrEnum):
    """How far evidence carries: its checks passed; it is there, no more; there is none."""

    VERIFIED = "verified"
    RECORDED = "recorded only"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of evidence: where it lies in a bundle, its SHA-256 or root, and what it says."""

    file: str
    digest: str
    says: str
    support: Support


@dataclass(frozen=True, slots=True)
class TopicEvidence:
    """The items of a topic, and how many more there are."""

    topic: Topic
    items: tuple[Item, ...]
    more: int = 0

    @property
    def support(self) -> Support:
        """Verified where every item is."""
        if not self.items:
            return Support.NOTHING
        verified = all(item.support is Support.VERIFIED for item in self.items)
        return Support.VERIFIED if verified else Support.RECORDED


@dataclass(frozen=True, slots=True)
class Row:
    """A requirement with what speaks to it; ``absent`` are topics without any item."""

    requirement: Requirement
    evidence: tuple[TopicEvidence, ...]
    absent: tuple[str, ...]

    @property
    def support(self) -> Support:
        """Of all that there is; what is absent does not weigh, and is said beside."""
        supports = {each.support for each in self.evidence}
        if not supports:
            return Support.NOTHING
        return Support.VERIFIED if supports == {Support.VERIFIED} else Support.RECORDED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        need = self.requirement
        return {
            "id": need.id,
            "title": need.title,
            "text": need.text,
            "support": self.support.value,
            "evidence": [
                {
                    "topic": each.topic.title,
                    "support": each.support.value,
                    "items": as_json(each.items),
                    "more": each.more,
                    "proves": each.topic.proves if each.support is Support.VERIFIED else None,
                    "does_not_prove": each.topic.limits,
                }
                for each in self.evidence
            ],
            "not_recorded": list(self.absent),
            "to_write": list(need.write),
        }


@dataclass(frozen=True, slots=True)
class Dossier:
    """The rows of a framework for one run.

    Attributes:
        table_sha256: Of the framework's table, as hex.
        groups: Title, source and rows, in the table's order.
    """

    framework: Framework
    table_sha256: str
    report: VerificationReport = field(repr=False)
    groups: tuple[tuple[str, str, tuple[Row, ...]], ...]
    retention: tuple[Retention, ...]

    @property
    def seal(self) -> Seal:
        """The newest: whose root names the run's state."""
        return self.report.seals[-1]

    @property
    def rows(self) -> list[Row]:
        """Of all groups."""
        return [row for _, _, rows in self.groups for row in rows]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by their support."""
        found = [row.support for row in self.rows]
        return {support.value: found.count(support) for support in Support}

    @property
    def exit_code(self) -> int:
        """1 where the run does not verify; 0 otherwise: how far it does, the page says."""
        return 1 if self.report.outcome == "failed" else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        table, report = self.framework, self.report
        return {
            "v": 1,
            "framework": {
                "name": table.name,
                "title": table.title,
                "version": table.version,
                "edition": table.edition,
                "scope": table.scope,
                "table_sha256": self.table_sha256,
            },
            "run_id": str(report.run),
            "seal": self.seal.as_dict(),
            "outcome": report.outcome,
            "findings": as_json(report.findings),
            "rests_on": list(report.verdict.rests_on),
            "missing": list(report.verdict.missing),
            "not_checked": list(report.not_checked),
            "checked_at": report.checked_at,
            "counts": self.counts,
            "retention": [
                {**as_json(each), "until": each.until and each.until.isoformat()}
                for each in self.retention
            ],
            "groups": [
                {"title": title, "source": source, "rows": [row.as_dict() for row in rows]}
                for title, source, rows in self.groups
            ],
        }


def dossier_of(report: VerificationReport, name: str, placed_on: date | None = None) -> Dossier:
    """What a verified run says to a framework of `FRAMEWORKS`.

    Args:
        placed_on: When the system was placed on the market, or will be.

    Raises:
        InputError: The run has no seal yet.
    """
    if not report.seals:
        raise InputError(f"run {report.run}: found no seal, expected a run that was sealed")
    framework, digest = load_framework(name)

    @cache
    def gathered(topic: str) -> TopicEvidence:
        return _gather(topic, report)

    def row(requirement: Requirement) -> Row:
        found = [gathered(topic) for topic in requirement.topics]
        absent = tuple(each.topic.title for each in found if not each.items)
        return Row(requirement, tuple(each for each in found if each.items), absent)

    groups = tuple(
        (group.title, group.source, tuple(row(each) for each in group.requirements))
        for group in framework.groups
    )
    retention = ai_act(report, placed_on) if name == "eu-ai-act" else ()
    return Dossier(framework, digest, report, groups, retention)


def _gather(name: str, report: VerificationReport) -> TopicEvidence:
    topic = TOPICS[name]
    around: dict[str, Callable[[VerificationReport, Support], Iterator[Item]]] = {
        "log": _log, "root": _roots, "anchors": _anchors, "identity": _identity,
    }  # fmt: skip
    support = _support(report, topic)
    if name in around:
        return TopicEvidence(topic, tuple(around[name](report, support)))
    parent = report.lineage
    bad = {finding.path or finding.subject for finding in report.findings}
    records = [r for r in report.evidence.records if r.kind in topic.kinds]
    records.sort(key=lambda r: (r.epoch or 0, r.rank, r.path))
    said = [(r, line) for r in records if (line := says(r, topic, parent)) is not None]
    items = []
    for record, line in said[-MAX_ITEMS:]:
        fixed = record.place == "tree" and not record.withheld and record.path not in bad
        mine = support if fixed else Support.RECORDED
        items.append(Item(record.file, record.digest.hex(), line, mine))
    return TopicEvidence(topic, tuple(items), len(said[:-MAX_ITEMS]))


def _support(report: VerificationReport, topic: Topic) -> Support:
    statuses = {result.check.number: result.status for result in report.checks}
    passed = all(statuses[number] is Status.PASSED for number in topic.checks)
    return Support.VERIFIED if passed else Support.RECORDED


def _log(report: VerificationReport, support: Support) -> Iterator[Item]:
    records = report.evidence.records
    times = record_times(report.evidence)
    if times:
        processes = len({record.producer for record in records})
        gaps = sum(record.kind is Kind.GAP for record in records)
        each = "1 process" if processes == 1 else f"{processes} processes"
        says = f"{len(records)} records of {each}, {times[0]} to {times[-1]}"
        lost = f", {gaps} gaps" if gaps else ""
        root = report.seals[-1].root.hex()
        yield Item("records/", root, f"{says} by the trainer's clock{lost}", support)


def _ends(report: VerificationReport) -> list[Seal]:
    """The first seal and the last."""
    return list(dict.fromkeys([report.seals[0], report.seals[-1]]))


def _roots(report: VerificationReport, support: Support) -> Iterator[Item]:
    key = report.verdict.key or "not known here"
    for seal in _ends(report):
        says = f"run root at {seal.label}: entry {seal.index} of the ledger, key {key}"
        yield Item("run.json", seal.root.hex(), says, support)


def _anchors(report: VerificationReport, _support: Support) -> Iterator[Item]:
    receipts = {receipt.name: receipt for receipt in report.evidence.receipts}
    for seal in _ends(report):
        for network, seals in report.networks.items():
            check, receipt = seals.get(seal.label), receipts.get(receipt_name(seal.label, network))
            if check is not None and receipt is not None:
                proved = check.status == "verified" and network not in NETWORK_LIMITS
                yield Item(
                    receipt.file,
                    hashlib.sha256(receipt.data).hexdigest(),
                    _anchor(seal, check),
                    Support.VERIFIED if proved else Support.RECORDED,
                )


def _anchor(seal: Seal, check: NetworkCheck) -> str:
    block = f", block {check.height}" if check.height is not None else ""
    where = f"{check.chain.label}: {check.transaction_id or 'no transaction'}{block}"
    return f"root at {seal.label} on {where}: {check.status}"


def _identity(report: VerificationReport, _support: Support) -> Iterator[Item]:
    standing, data = report.standing, report.evidence.identity
    if standing is not None and data is not None:
        support = Support.VERIFIED if standing.trainer is not None else Support.RECORDED
        yield Item("run.json", hashlib.sha256(data).hexdigest(), standing.line, support)
