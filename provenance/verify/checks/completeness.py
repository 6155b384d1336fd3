"""Check (4): what was announced against what is here.

Worked out from the records alone: a producer's sequence numbers, what its ``run.end``
announces (the number of events before it, which is its own ``seq``), the ranks that the
configuration names. Check (1) holds these records against what their producers signed. What
the database says (that a run was sealed incomplete) is believed only where it is bad news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.story import Restart, RunState, process_names, restarts, state_at
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import NAMED, named_ranks
from provenance.formats.run_tree.selection import (
    DigestedRecord,
    absent_ranks,
    announced_ranks,
    end_state,
    goes_on,
    misannounced,
    unannounced,
)
from provenance.verify.catalogue import COMPLETE
from provenance.verify.checks.epochs import check_epochs
from provenance.verify.checks.story import check_gaps, note_restarts
from provenance.verify.findings import Findings, counted

UNANNOUNCED = "ended unannounced (no signed run.end)"


def check_completeness(
    evidence: RunEvidence, digested: Collection[DigestedRecord], state: RunState, findings: Findings
) -> None:
    """Report holes, ranks that did not end, gaps, equivocations, refused and late records.

    A run that stopped without an after seal may go on, and what it announced be on its way: what
    is missing leaves the question open. So does a withheld record under no root, which could be a
    gap, and a sealed run of which a process has no end.
    """
    records = [item.record for item in digested]
    again = restarts(records)
    note_restarts(again, findings)
    _notice_oddities(evidence, records, state, again, findings)
    withheld = [item for item in evidence.records if item.withheld]
    no_config = any(item.kind is Kind.CONFIG for item in withheld)
    # Where the configuration is withheld, the ranks that are here count.
    ranks = 1 + max(r.rank for r in records) if no_config else announced_ranks(records)
    here = {record.rank for record in records}
    beyond = named_ranks(sorted(rank for rank in here if rank >= ranks))
    unknown = None if no_config else unannounced(records)
    if beyond or unknown:
        announced = unknown or f"the configuration announces {ranks}"
        findings.notice(COMPLETE, beyond or "run", announced)
    missing = list(_missing(records, ranks))
    check_epochs(evidence, ranks, findings)
    for line in _launches(records):
        findings.unchecked(COMPLETE, line)
    check_gaps(records, findings)
    sealed = any(entry.phase is Phase.AFTER for entry in evidence.entries)
    if sealed:
        for line in missing:
            findings.fail(COMPLETE, "run", line)
        if state.state == "lost":
            findings.unchecked(COMPLETE, f"the run is {state.line}: {_no_end(records, ranks)}")
    elif state.state in ("running", "lost"):
        lost = f"the run is {state.line}: {_no_end(records, ranks)}, and no after seal"
        still = "the run has no after seal yet"
        findings.unchecked(COMPLETE, lost if state.state == "lost" else still)
    elif missing:
        for line in missing:
            findings.unchecked(COMPLETE, f"the run has no after seal, and {line}")
    elif unsealed := len(evidence.under_no_root):
        what = "1 record is" if unsealed == 1 else f"{unsealed} records are"
        findings.unchecked(COMPLETE, f"the run has no after seal, and {what} under no root")
    if evidence.incomplete and not missing:
        findings.fail(COMPLETE, "run", f"was sealed incomplete: {evidence.incomplete}")
    if no_config:
        seen = "how many ranks there were is not seen"
        findings.unchecked(COMPLETE, f"the configuration is withheld: {seen}")
    loose = sum(item.place != "tree" for item in withheld)
    if loose:
        what = "1 withheld record is" if loose == 1 else f"{loose} withheld records are"
        why = "under no root, and what it is only its content tells"
        findings.unchecked(COMPLETE, f"{what} {why}")
    producers = {record.producer for record in records}
    events = counted(len(records), "event")
    findings.count(COMPLETE, f"{events} of {counted(len(producers), 'producer')}")


def _missing(records: Sequence[Record], ranks: int) -> Iterator[str]:
    name = process_names(records)
    seqs_of: dict[bytes, set[int]] = {}
    for record in records:
        seqs_of.setdefault(record.producer, set()).add(record.seq)
    ends = [record for record in records if record.kind is Kind.RUN_END]
    announced = {end.producer: end.body.get("events") for end in ends}
    for producer, seqs in sorted(seqs_of.items()):
        end = announced.get(producer)
        upto = max(max(seqs) + 1, end if isinstance(end, int) else 0)
        for low, high in pairwise([-1, *sorted(seqs), upto]):
            if high - low > 1:
                first, last = low + 1, high - 1
                events = f"event {first} is" if first == last else f"events {first} to {last} are"
                yield f"{name[producer]}: {events} missing"
    for record in ends:
        if misannounced(record):
            yield (
                f"{name[record.producer]}: run.end is event {record.seq} and "
                f"announces {str(record.body.get('events'))[:40]} events before it"
            )
    ended = {record.rank for record in ends if record.rank < ranks}
    absent, more = absent_ranks(ranks, ended, NAMED)
    yield from (f"rank {rank}: {UNANNOUNCED}" for rank in absent)
    if more:
        yield f"{more} more ranks: {UNANNOUNCED}"


def _no_end(records: Sequence[Record], ranks: int) -> str:
    """The ranks without a ``run.end``, announced ones and others; without one, a process of theirs
    that goes on is meant."""
    ended = {record.rank for record in records if record.kind is Kind.RUN_END}
    absent, more = absent_ranks(ranks, ended, NAMED)
    absent += sorted({record.rank for record in records if record.rank >= ranks} - ended)
    return f"no end of {named_ranks(absent, more)}" if absent else "a process has no end"


def _launches(records: Sequence[Record]) -> Iterator[str]:
    """That the run is of one of several ranks, which the others did not write to."""
    stated = [r.body.get("launch") for r in records if r.kind in (Kind.CONFIG, Kind.RESULTS)]
    for launch in stated:
        if isinstance(launch, dict):
            rank, size = launch.get("rank"), launch.get("world_size")
            which = f"rank {rank}" if isinstance(rank, int) else "one rank"
            of = size if isinstance(size, int) else "an unknown number"
            name = f"launch {str(launch.get('id') or 'without an id')[:16]}"
            yield (
                f"it is the run of {which} of {of} of {name} alone; the others could not write to "
                "it, and have runs of their own"
            )


def _notice_oddities(
    evidence: RunEvidence,
    records: Sequence[Record],
    state: RunState,
    again: Sequence[Restart],
    findings: Findings,
) -> None:
    name = process_names(records)
    told = {(restart.producer, seq) for restart in again for seq in restart.repeats}
    told_ends = {restart.before for restart in again}
    for other in evidence.equivocations:
        where = f"equivocation {other.producer.hex()[:8]}-{other.seq}"
        second = f"the producer signed a second value for event {other.seq}"
        stands = f"SHA-256 {other.digest.hex()}; the first that arrived stands"
        findings.notice(COMPLETE, where, f"{second}, {stands}")
    ended = {(r.producer, r.rank) for r in records if r.kind is Kind.RUN_END}
    ranks = {rank for _, rank in ended}
    for producer, rank in sorted({(r.producer, r.rank) for r in records} - ended):
        if rank in ranks and producer not in told_ends:  # another one of the rank has: a fork
            findings.notice(COMPLETE, name[producer], UNANNOUNCED)
    for record in (r for r in records if r.kind is Kind.RUN_END and goes_on(end_state(r))):
        if not goes_on(state.state) and record.producer not in told_ends:
            findings.notice(COMPLETE, name[record.producer], f"ended: {state_at(record).line}")
    tracked = {record.epoch for record in records if record.kind.is_epoch}
    for record in (r for r in records if r.kind is Kind.RESULTS):
        stated = record.body.get("epochs")
        if isinstance(stated, int) and stated > len(tracked):
            problem = f"results state {stated} epochs, records of {len(tracked)} are here"
            findings.notice(COMPLETE, name[record.producer], problem)
    silent = sorted(
        {r.rank for r in records if r.kind is Kind.RUN_END and r.seq == 0}
        - {r.rank for r in records if r.kind is not Kind.RUN_END}
    )
    if silent:
        findings.notice(COMPLETE, named_ranks(silent), "stated an end and nothing else")
    for parked in evidence.parked:
        findings.notice(COMPLETE, f"refused {parked.id[:16]}", repr(parked.reason))
    times: Counter[tuple[int | None, int]] = Counter()
    for item in evidence.records:
        if (item.producer, item.seq) in told:
            continue
        if item.place == "late":
            problem = f"{item.kind.value} record that came after its seal, under no root"
            findings.notice(COMPLETE, item.path, problem, item.path)
        elif item.kind is Kind.METRICS and item.place == "tree":
            times[item.epoch, item.rank] += 1
    for (epoch, rank), count in times.items():
        if count > 1:
            findings.notice(COMPLETE, f"epoch {epoch}", f"rank {rank} recorded it {count} times")
