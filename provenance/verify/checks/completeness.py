"""Check (4): what was announced against what is here.

Worked out from the records alone: a producer's sequence numbers, what its ``run.end``
announces (the number of events before it, which is its own ``seq``), the ranks that the
configuration names. Check (1) holds these records against what their producers signed. What
the database says (that a run was sealed incomplete) is believed only where it is bad news.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import NAMED
from provenance.formats.run_tree.selection import (
    DigestedRecord,
    absent_ranks,
    announced_ranks,
    misannounced,
)
from provenance.verify.catalogue import COMPLETE
from provenance.verify.checks.epochs import check_epochs
from provenance.verify.findings import Findings

UNANNOUNCED = "ended unannounced (no signed run.end)"


def check_completeness(
    evidence: RunEvidence, digested: Collection[DigestedRecord], findings: Findings
) -> None:
    """Report holes, ranks that did not end, gaps, equivocations, refused and late records.

    A withheld record that stands under no root could be a gap: then the question stays open.
    """
    records = [item.record for item in digested]
    _notice_oddities(evidence, records, findings)
    ranks = _ranks(evidence, records)
    missing = _missing(records, ranks)
    check_epochs(evidence, ranks, findings)
    if not any(entry.phase is Phase.AFTER for entry in evidence.entries):
        findings.unchecked(COMPLETE, "the run has no after seal yet")
    else:
        for line in missing:
            findings.fail(COMPLETE, "run", line)
        if evidence.incomplete and not missing:
            findings.fail(COMPLETE, "run", f"was sealed incomplete: {evidence.incomplete}")
        for record in records:
            if record.kind is Kind.GAP:
                name = f"{record.producer.hex()[:8]}-{record.seq}"
                dropped, reason = record.body.get("dropped"), record.body.get("reason")
                problem = f"{dropped} events were dropped: {reason}"
                findings.fail(COMPLETE, f"control/{name}", problem)
        if any(item.withheld and item.kind is Kind.CONFIG for item in evidence.records):
            findings.unchecked(
                COMPLETE, "the configuration is withheld: how many ranks there were is not seen"
            )
        loose = sum(item.withheld and item.place != "tree" for item in evidence.records)
        if loose:
            what = "1 withheld record is" if loose == 1 else f"{loose} withheld records are"
            findings.unchecked(
                COMPLETE, f"{what} under no root, and what it is only its content tells"
            )
    producers = {record.producer for record in records}
    findings.count(COMPLETE, f"{len(records)} events of {len(producers)} producers")


def holes(records: Collection[Record]) -> list[tuple[bytes, int, int]]:
    """``(producer, first, last)`` of each run of missing sequence numbers; ``run.end``
    announces the number of events before it."""
    seqs_of: dict[bytes, set[int]] = {}
    for record in records:
        seqs_of.setdefault(record.producer, set()).add(record.seq)
    announced = {r.producer: r.body.get("events") for r in records if r.kind is Kind.RUN_END}
    missing = []
    for producer, seqs in sorted(seqs_of.items()):
        end = announced.get(producer)
        upto = max(max(seqs) + 1, end if isinstance(end, int) else 0)
        marks = [-1, *sorted(seqs), upto]
        missing += [
            (producer, low + 1, high - 1) for low, high in pairwise(marks) if high - low > 1
        ]
    return missing


def _ranks(evidence: RunEvidence, records: Sequence[Record]) -> int:
    """How many the configuration announces; where it is withheld, those that are here."""
    if any(item.withheld and item.kind is Kind.CONFIG for item in evidence.records):
        return 1 + max(record.rank for record in records)
    return announced_ranks(records)


def _missing(records: Sequence[Record], ranks: int) -> list[str]:
    lines = []
    for producer, first, last in holes(records):
        events = f"event {first} is" if first == last else f"events {first} to {last} are"
        lines.append(f"producer {producer.hex()[:8]}: {events} missing")
    ends = [record for record in records if record.kind is Kind.RUN_END]
    for end in ends:
        announced = end.body.get("events")
        if misannounced(end):
            lines.append(
                f"producer {end.producer.hex()[:8]}: run.end is event {end.seq} and announces "
                f"{str(announced)[:40]} events before it"
            )
    ended = {record.rank for record in ends if record.rank < ranks}
    absent, more = absent_ranks(ranks, ended, NAMED)
    lines += [f"rank {rank}: {UNANNOUNCED}" for rank in absent]
    if more:
        lines.append(f"{more} more ranks: {UNANNOUNCED}")
    return lines


def _notice_oddities(evidence: RunEvidence, records: Sequence[Record], findings: Findings) -> None:
    for other in evidence.equivocations:
        findings.notice(
            COMPLETE,
            f"equivocation {other.producer.hex()[:8]}-{other.seq}",
            f"the producer signed a second value for event {other.seq}, "
            f"SHA-256 {other.digest.hex()}; the first that arrived stands",
        )
    ended = {(r.producer, r.rank) for r in records if r.kind is Kind.RUN_END}
    ranks = {rank for _, rank in ended}
    for producer, rank in sorted({(r.producer, r.rank) for r in records} - ended):
        if rank in ranks:  # another process of the rank has ended: a restart, a forked child
            findings.notice(
                COMPLETE, f"producer {producer.hex()[:8]}", f"{UNANNOUNCED}, rank {rank}"
            )
    for parked in evidence.parked:
        findings.notice(COMPLETE, f"refused {parked.id[:16]}", parked.reason)
    for item in evidence.records:
        if item.place == "late":
            findings.notice(
                COMPLETE,
                item.path,
                f"{item.kind.value} record that came after its seal, under no root",
                item.path,
            )
    twice: dict[tuple[int | None, int], list[str]] = {}
    for item in evidence.records:
        if item.kind is Kind.METRICS and item.place == "tree":
            twice.setdefault((item.epoch, item.rank), []).append(item.path)
    for (epoch, rank), paths in twice.items():
        if len(paths) > 1:
            many = f"rank {rank} recorded it {len(paths)} times"
            findings.notice(COMPLETE, f"epoch {epoch}", many)
