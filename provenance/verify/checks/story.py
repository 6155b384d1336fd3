"""Beside the checks: how the run ended, where it was started again, which run it continues, and
whether *before* can say anything about the time before training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.evidence.story import Lineage, Restart, RunState, lineage, state_of
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import NAMED, stretches
from provenance.verify.catalogue import COMPLETE, CONTENT, NETWORKS, PREFIX
from provenance.verify.findings import Findings
from provenance.verify.report import NetworkCheck


def run_state(evidence: RunEvidence, now: float, lost_after_s: float) -> RunState:
    """Where the run stands; of a bundle, which grows no more, as its ledger left it."""
    records = [item.record for item in evidence.digested]
    if evidence.source.kind == "bundle":
        lost_after_s = float("inf")
    return state_of(records, evidence.entries, now, lost_after_s)


def check_gaps(records: Collection[Record], findings: Findings) -> None:
    """Events that were dropped are missing; weights that could not be hashed leave open what they
    were, and nothing else."""
    epochs = set[int]()
    for record in records:
        if record.kind is not Kind.GAP:
            continue
        dropped, reason = record.body.get("dropped"), record.body.get("reason")
        if record.body.get("what") == "weights":
            epochs |= {-1 if record.epoch is None else record.epoch}
            continue
        name = f"{record.producer.hex()[:8]}-{record.seq}"
        problem = f"{dropped} events were dropped: {reason}"
        findings.fail(COMPLETE, f"control/{name}", problem)
    if epochs:
        lines = stretches((epoch, "") for epoch in sorted(epochs) if epoch >= 0)
        where = ", ".join(stretch for stretch, _ in lines[:NAMED]) or "at the end"
        more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        findings.unchecked(COMPLETE, f"weights were not recorded: {where}{more}")


def note_restarts(restarts: Sequence[Restart], findings: Findings) -> None:
    """A line for each process that went on where another one had stopped."""
    for restart in restarts:
        subject = f"rank {restart.rank}, process {restart.number}"
        findings.notice(COMPLETE, subject, restart.line)


def note_lineage(evidence: RunEvidence, findings: Findings) -> Lineage | None:
    """The run that this one continues; None where it names none."""
    found = lineage([item.record for item in evidence.digested], evidence.parent)
    if found is not None:
        findings.notice(CONTENT, "parent", found.line)
    return found


def note_late_before(
    evidence: RunEvidence, networks: Mapping[str, Mapping[str, NetworkCheck]], findings: Findings
) -> None:
    """Say where *before* was made or anchored no earlier than what came behind it."""
    first, later = evidence.entries[:1], evidence.entries[1:]
    if not later or first[0].phase is not Phase.BEFORE:
        return
    nothing = "so it proves nothing about the time before training"
    last = later[-1]
    if first[0].created_at == last.created_at:
        problem = f"was sealed together with {seal_label(last)}, after training: {nothing}"
        findings.notice(PREFIX, "before", problem)
        return
    same = [name for name, seals in networks.items() if _same(seals, "before", seal_label(last))]
    if same and len(same) == sum("before" in seals for seals in networks.values()):
        where = ", ".join(sorted(same))
        problem = f"one anchor on {where} has it and {seal_label(last)}: {nothing}"
        findings.notice(NETWORKS, "before", problem)


def _same(seals: Mapping[str, NetworkCheck], one: str, other: str) -> bool:
    first, last = seals.get(one), seals.get(other)
    if first is None or last is None or first.transaction_id is None:
        return False
    return first.transaction_id == last.transaction_id
