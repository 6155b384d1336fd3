"""Beside the checks: how the run ended, where it was started again, which run it continues, and
whether *before* can say anything about the time before training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from provenance.errors import FormatError
from provenance.evidence.lineage import (
    Claim,
    Lineage,
    claims,
    contradiction,
    lineage,
    merged_alone,
    parents_of,
)
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.evidence.sharing import when
from provenance.evidence.story import Restart, RunState, state_of
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import NAMED, stretches
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import COMPLETE, CONTENT, HEADS, LEDGER
from provenance.verify.checks.networks import with_receipts
from provenance.verify.findings import Findings, counted
from provenance.verify.report import NetworkCheck, VerificationReport

_WEIGHTS: Final = "weights"
_FORMLESS: Final = frozenset({_WEIGHTS, *(kind.value for kind in Kind if kind.is_leaf)})
"""What a gap may be of that leaves events whole."""


def run_state(evidence: RunEvidence, now: float, lost_after_s: float) -> RunState:
    """Where the run stands; of a bundle, which grows no more, as its ledger left it."""
    records = [item.record for item in evidence.digested]
    if evidence.source.kind == "bundle":
        lost_after_s = float("inf")
    return state_of(records, evidence.entries, now, lost_after_s)


def check_gaps(records: Collection[Record], findings: Findings) -> None:
    """Events that were dropped are missing; weights that could not be hashed, and what else had no
    form as a record, leave open what they were, and nothing else: of such a gap a tracker says
    what it is of, and leaves one for each. Any other one is of dropped events."""
    epochs, formless = set[int](), dict[str, list[Record]]()
    lost_steps = 0
    for record in records:
        missing = record.body.get("missing") if record.kind is Kind.STEPS else None
        if type(missing) is int and missing > 0:
            lost_steps += missing
        elif missing is not None:
            findings.unchecked(COMPLETE, f"steps were lost on their way: {missing!r:.40}")
        if record.kind is not Kind.GAP:
            continue
        dropped, what = record.body.get("dropped"), record.body.get("what")
        if not isinstance(what, str) or what not in _FORMLESS or dropped is True or dropped != 1:
            name = f"{record.producer.hex()[:8]}-{record.seq}"
            of = "" if what is None else f" of {what!r:.40}"
            lost = "1 event was dropped" if dropped == 1 else f"{dropped!r:.40} events were dropped"
            findings.fail(COMPLETE, f"control/{name}", f"{lost}{of}: {_reason(record)}")
        elif what == _WEIGHTS:
            epochs |= {-1 if record.epoch is None else record.epoch}
        else:
            formless.setdefault(what, []).append(record)
    if lost_steps:
        findings.unchecked(COMPLETE, f"{lost_steps} steps were lost on their way")
    for what, gaps in sorted(formless.items()):
        reason = _reason(min(gaps, key=lambda gap: gap.order))
        first = "" if len(gaps) == 1 else "the first "
        findings.unchecked(COMPLETE, f"{counted(len(gaps), 'gap')} of {what}: {first}{reason}")
    if epochs:
        lines = stretches((epoch, "") for epoch in sorted(epochs) if epoch >= 0)
        where = ", ".join(stretch for stretch, _ in lines[:NAMED]) or "at the end"
        more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        findings.unchecked(COMPLETE, f"weights were not recorded: {where}{more}")


def _reason(gap: Record) -> str:
    """As the trainer gave it, quoted: it is no word of this verification."""
    reason = gap.body.get("reason")
    return repr(reason[:200] if isinstance(reason, str) else reason)


def note_restarts(restarts: Sequence[Restart], findings: Findings) -> None:
    """A line for each process that went on where another one had stopped."""
    for restart in restarts:
        subject = f"rank {restart.rank}, process {restart.number}"
        findings.notice(COMPLETE, subject, restart.line)


def check_lineage(
    evidence: RunEvidence,
    records: Mapping[str, Record],
    parent: VerificationReport | None,
    findings: Findings,
) -> Lineage | None:
    """The run that this one continues; None where it names none.

    Args:
        records: By path.
        parent: What verifying that run found, where the reader gave it: then a claim that does not
            hold is a finding. Else what the database has of it is compared, and said to be
            unverified.
    """
    own = [record for path, record in records.items() if not path.startswith("late/")]
    named = parents_of(own)
    claimed = _check_claims(own, findings)
    if parent is not None:
        _check_given(evidence, own, claimed, named, parent, findings)
    if parent is not None and str(parent.run) not in named:
        parent = None
    weights = evidence.parent
    if parent is not None:
        weights = _weights_of(parent)
    found = lineage(evidence.run, own, weights, None if parent is None else str(parent.run))
    if found is None:
        return None
    if parent is not None:
        _check_parent(evidence, claimed, parent.evidence, findings)
        line, matches = found.line, found.matches
        if matches is False and any(item.withheld for item in _weights(parent)):
            line, matches = f"{line}; of that run some are withheld", None
        elif matches is False and found.epoch is None:
            without = _without_weights(claimed, parent)
            line = f"{line}; it has no weights of {without}" if without else line
            matches = None if without else False
        line = f"{line}; that run was checked too: {parent.outcome}"
        found = found._replace(line=line, matches=matches, verified=parent.outcome == "verified")
        if found.matches is False:
            findings.fail(CONTENT, "parent", found.line)
        elif found.matches is None or not found.verified:
            findings.unchecked(CONTENT, f"parent: {found.line}")
        elif (order := _sealed_before(evidence, parent.evidence, found.epoch)) is not None:
            findings.notice(CONTENT, "parent", order)
        wrong = found.tensors and found.tensors.contradicts(found.role)
        if wrong:
            line = f"names itself {found.role} of run {found.run}: {wrong}"
            findings.fail(CONTENT, "parent", line)
    unverified = " (that run was not verified here: --parent)" if parent is None and weights else ""
    if not isinstance(weights, str):
        found = found._replace(line=f"{found.line}{unverified}")
    findings.notice(CONTENT, "parent", found.line)
    if found.tensors is not None:
        findings.notice(CONTENT, "parent's tensors", f"{found.tensors.line}{unverified}")
    return found


def _check_given(
    evidence: RunEvidence,
    own: list[Record],
    claimed: list[Claim],
    named: Collection[str],
    parent: VerificationReport,
    findings: Findings,
) -> None:
    """Whether the run that the reader gave is one that the records name, or made a model that they
    name, and holds itself."""
    if not parent.findings and not findings.failed(HEADS):
        fork = None if findings.failed(LEDGER) else _fork(evidence, parent.evidence)
        if fork is not None:
            findings.fail(LEDGER, "parent", fork)
    model = _model_of(claimed, parent) if parent.run != evidence.run else None  # none is its own
    if wrong := merged_alone(claimed):
        findings.fail(CONTENT, "parent", wrong)
    if parent.findings and (model or str(parent.run) in named):
        first = parent.findings[0]
        problem = f"run {parent.run} does not hold: ({first.check}) {first.subject}"
        findings.fail(CONTENT, "parent", f"{problem}: {first.problem}")
    elif model is not None:
        claim, epoch = model
        line = f"the model {claim.model!r} has the weights of epoch {epoch} of run {parent.run}"
        line = f"{line}; that run was checked too: {parent.outcome}"
        findings.notice(CONTENT, "parent", line)
        if wrong := contradiction(claim.role, own, _weights_of(parent), epoch):
            line = f"names itself {claim.role} of the model {claim.model!r}: {wrong}"
            findings.fail(CONTENT, "parent", line)
        if parent.outcome != "verified":
            findings.unchecked(CONTENT, f"parent: {line}")
    elif str(parent.run) not in named:
        if not named and any(r.withheld and r.kind is Kind.CONFIG for r in evidence.records):
            why = "the configuration is withheld, which names the run that this one continues"
            findings.unchecked(CONTENT, f"parent: {why}")
        else:
            names = " and ".join(map(repr, named)) or "no run"
            names = f"names {names} as the run that it continues"
            findings.fail(CONTENT, "parent", f"{names}; the run that was given is {parent.run}")


def _check_claims(own: Iterable[Record], findings: Findings) -> list[Claim]:
    """The parents that the configurations name, and what can be said of models without them."""
    named = list[Claim]()
    roots = [(r.body.get("root"), r.body.get("algorithm")) for r in own if r.kind is Kind.WEIGHTS]
    for record in own:
        try:
            named += claims(record) if record.kind is Kind.CONFIG else ()
        except FormatError as error:
            findings.unchecked(CONTENT, str(error))
    for claim in dict.fromkeys(named):
        if claim.model is not None:
            line = f"says that {claim.says} the model {claim.model!r}"
            if claim.weights is None:
                line += ", whose files were not at hand"
            else:
                same = (claim.weights, claim.algorithm) in roots
                line += f" with weights {claim.weights}"
                line += ", which are its initial weights" if same else ""
            findings.notice(CONTENT, "parent", line)
    return named


def _model_of(claimed: Iterable[Claim], parent: VerificationReport) -> tuple[Claim, int] | None:
    """Which model that is named has which epoch's weights of a run that was verified."""
    epochs = dict[str, int]()
    for item in _weights(parent):
        if item.kind is Kind.STATE and isinstance(record := item.decoded, Record):
            root = str(record.body.get("root"))
            epochs[root] = max(item.epoch or 0, epochs.get(root, 0))
    for claim in claimed:
        if claim.weights in epochs:
            return claim, epochs[claim.weights]
    return None


def _check_parent(
    evidence: RunEvidence, claimed: Iterable[Claim], parent: RunEvidence, findings: Findings
) -> None:
    """That a parent has the root by which it is named, and does not name this run in turn."""
    roots = {entry.root.hex() for entry in parent.entries}
    for claim in claimed:
        if claim.run == str(parent.run) and claim.root is not None and claim.root not in roots:
            line = f"names root {claim.root} of run {parent.run}, which has no such seal"
            findings.fail(CONTENT, "parent", line)
    theirs = (item.decoded for item in parent.records if item.kind is Kind.CONFIG)
    if str(evidence.run) in parents_of(r for r in theirs if isinstance(r, Record)):
        line = f"run {parent.run} names this run as a parent in turn: the claims go in a circle"
        findings.fail(CONTENT, "parent", line)


def _fork(evidence: RunEvidence, parent: RunEvidence) -> str | None:
    """How one key signed two histories, of which the two runs have one each; None where they could
    be in one ledger. The heads and entries of both hold."""
    if evidence.vkey is None or evidence.vkey != parent.vkey or evidence.run == parent.run:
        return None
    own, theirs = ({e.index: e.root for e in each.entries} for each in (evidence, parent))
    heads, others = evidence.signed_heads(), parent.signed_heads()
    for index in sorted(own.keys() & theirs.keys()):
        return f"the ledger forked: its entry {index} is a seal of this run and of run {parent.run}"
    for size in sorted(heads.keys() & others.keys()):
        if heads[size].head.root != others[size].head.root:
            roots = f"{heads[size].head.root.hex()} here, {others[size].head.root.hex()}"
            return f"the ledger forked: at size {size} its root is {roots} for run {parent.run}"
    return None


def _sealed_before(evidence: RunEvidence, parent: RunEvidence, epoch: int | None) -> str | None:
    """That the initial weights were in the ledger before those of the parent's epoch that they are;
    None where they were not, or the two runs have no ledger in common. A parent that goes on and
    asks for no checkpoint is such a one, too, so this fails nothing."""
    if evidence.vkey is None or evidence.vkey != parent.vkey:
        return None
    own = next((entry.index for entry in evidence.entries), None)
    theirs = next((entry.index for entry in parent.entries if _may_cover(entry, epoch)), None)
    if own is None or theirs is None or theirs < own:
        return None
    weights = "the weights before training" if epoch is None else f"the weights of epoch {epoch}"
    line = f"its initial weights were sealed (ledger entry {own}) before {weights} of that run were"
    return f"{line} (entry {theirs}): nothing shows that they were there first"


def _may_cover(entry: LedgerEntry, epoch: int | None) -> bool:
    """Whether a seal may be the first of an epoch's weights."""
    if epoch is None or entry.phase is Phase.AFTER:
        return True
    return entry.epoch is not None and entry.epoch >= epoch


def _weights(parent: VerificationReport) -> list[RecordFile]:
    """Those under the roots of a run that was verified."""
    kinds = (Kind.WEIGHTS, Kind.STATE)
    return [r for r in parent.evidence.records if r.place == "tree" and r.kind in kinds]


def _weights_of(parent: VerificationReport) -> list[Record]:
    decoded = (item.decoded for item in _weights(parent))
    return [record for record in decoded if isinstance(record, Record)]


def _without_weights(claimed: Iterable[Claim], parent: VerificationReport) -> str:
    """Which epochs of a parent that could be meant have records, and none of weights."""
    named = {claim.epoch for claim in claimed if claim.run == str(parent.run)}
    if None in named:
        named |= {item.epoch for item in parent.evidence.records if item.place == "tree"}
    weights = {item.epoch for item in _weights(parent)}
    without = sorted(named - weights, key=lambda epoch: epoch or 0)
    return f"{when(without[0])}{' and others' * (len(without) > 1)}" if without else ""


def late_before(
    evidence: RunEvidence, networks: Mapping[str, Mapping[str, NetworkCheck]]
) -> str | None:
    """Why *before* proves nothing about the time before training: it was made or anchored no
    earlier than something that came behind it; None where it was."""
    first, later = evidence.entries[:1], evidence.entries[1:]
    if not later or first[0].phase is not Phase.BEFORE:
        return None
    networks = with_receipts(networks)
    anchored = sum("before" in seals for seals in networks.values())
    for entry in later:
        label = seal_label(entry)
        same = [name for name, seals in networks.items() if _same(seals, "before", label)]
        if entry.created_at == first[0].created_at:
            how = f"it was sealed together with {label}"
        elif same and len(same) == anchored:
            how = f"one anchor on {', '.join(sorted(same))} has it and {label}"
        else:
            continue
        what = "That before was sealed before training"
        return f"{what}: {how}, so it proves nothing about that time."
    return None


def _same(seals: Mapping[str, NetworkCheck], one: str, other: str) -> bool:
    first, last = seals.get(one), seals.get(other)
    if first is None or last is None or first.transaction_id is None:
        return False
    return first.transaction_id == last.transaction_id
