"""Check (6), of a roll that a bundle brings: every entry of the ledger, each of one run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from provenance.errors import FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.run_summary import moved_on
from provenance.evidence.story import RunState
from provenance.formats.checkpoint import Head
from provenance.formats.json_text import canonical_json
from provenance.formats.record import END_STATES, Kind, Record
from provenance.formats.tlog import outcome
from provenance.ports.listing import RunSummary
from provenance.roll.roll import FILE, Roll, RolledRun, data_digest, with_records
from provenance.roll.statistics import RunsBefore, runs_before
from provenance.verify.catalogue import LEDGER
from provenance.verify.findings import Findings

OTHERS: Final = (
    "What the roll says of other runs, but that they are in the ledger: how they ended, their "
    "seeds and results are the database's word. Ask for their bundles."
)
_TOLD: Final = (Kind.CONFIG, Kind.DATA_TRAIN, Kind.RESULTS, Kind.METRICS, Kind.STEPS)


def check_roll(
    evidence: RunEvidence, state: RunState, heads: Mapping[int, Head], findings: Findings
) -> RunsBefore | None:
    """How many runs began before this one, where the evidence has a roll that holds.

    Args:
        state: How this run ended, as its records say.
    """
    data = evidence.attachments.get(FILE)
    if data is None:
        return None
    try:
        roll = Roll.decode(data)
        head = heads.get(roll.size)
        if head is None:
            raise ProofError(f"its size is {roll.size}, expected that of a head that holds")
        roll.check(head.root)
        row = next((item for item in roll.runs if item.run == evidence.run), None)
        stated = () if row is None else row.entries
        own = tuple(entry.index for entry in evidence.entries if entry.index < roll.size)
        if stated != own:
            raise ProofError(f"has entries {list(stated)} of this run, run.json has {list(own)}")
        again = () if row is None else row.outcomes
        if lacking := sorted(set(_outcomes(evidence, roll.size)) - set(again)):
            raise ProofError(f"lacks entry {lacking[0]}, an outcome of this run")
        if row is not None and (other := _differs(row, evidence, state)) is not None:
            raise ProofError(f"says of this run another {other} than its records give")
    except (FormatError, ProofError) as error:
        findings.fail(LEDGER, FILE, str(error), FILE)
        return None
    return runs_before(roll, evidence.run)


def _outcomes(evidence: RunEvidence, size: int) -> list[int]:
    """Indexes of the outcomes that the evidence brings, below a size."""
    data = evidence.attachments.get(outcome.FILE)
    shown = [] if data is None else outcome.ShownOutcomes.decode(data).outcomes
    return [item.index for item in shown if item.index < size]


def _differs(row: RolledRun, evidence: RunEvidence, state: RunState) -> str | None:
    """What a roll says of this run that its records do not; withheld ones leave it open."""
    told = [r for r in evidence.records if r.kind in _TOLD]
    open_kinds = {r.kind for r in told if not isinstance(r.decoded, Record)}
    records = [r.decoded for r in told if isinstance(r.decoded, Record)]
    configs = [r for r in records if r.kind is Kind.CONFIG]
    if Kind.CONFIG not in open_kinds:
        blank, own = (
            RolledRun(row.run, (), row.state),
            (row.config, canonical_json(dict(row.seeds))),
        )
        given = [with_records(blank, [each]) for each in configs] or [blank]
        if own not in [(each.config, canonical_json(dict(each.seeds))) for each in given]:
            return "config or seeds"
        names = {moved_on(RunSummary(row.run), [each], ()).name for each in configs} or {None}
        if row.name not in (names - {None} or names):
            return "name"
    if Kind.DATA_TRAIN not in open_kinds and row.data != data_digest(records):
        return "data"
    if state.state not in END_STATES:
        return None  # it went on between the two
    if row.state != state.state:
        return "state"
    return None if _has_results(row, records, open_kinds) else "results"


def _has_results(row: RolledRun, records: Sequence[Record], open_kinds: Collection[Kind]) -> bool:
    """Whether the numbers are those of a ``results`` record, else of the newest metrics."""
    stated = [r for r in records if r.kind is Kind.RESULTS and r.body.get("results")]
    kinds = {Kind.RESULTS} if stated else {Kind.RESULTS, Kind.METRICS, Kind.STEPS}
    if kinds & {*open_kinds}:
        return True
    if not stated:
        newest = max((r.epoch or 0 for r in records if r.kind is Kind.METRICS), default=0)
        stated = [r for r in records if r.kind is Kind.METRICS and (r.epoch or 0) == newest]
        stated = stated or [r for r in records if r.kind is Kind.STEPS]
    given = [moved_on(RunSummary(row.run), [each], ()).numbers for each in stated] or [{}]
    return canonical_json(dict(row.results)) in [canonical_json(dict(each)) for each in given]
