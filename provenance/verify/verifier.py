"""Verification of one run: from its records to the chains, step by step.

The same list is printed in the report and by ``provenance verify --explain``
(:data:`CHECKS`); the code is tagged with the numbers.

1. records match their digests and their producers' signatures
2. leaves, epochs and roots recompute
3. before is a prefix of after
4. nothing announced is missing
5. heads are signed by the ledger
6. roots are in the ledger, and the ledger only grew
7. receipts hold
8. each network has the anchor
9. networks agree
10. content matches the recorded digests
11. files for other tools hold
12. privacy budgets add up
13. what was not checked is said
14. zero-knowledge proofs hold
15. hosts attest where it ran

A check that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from provenance.approvals.statement import APPROVALS
from provenance.evidence import disclosure
from provenance.evidence.run_evidence import RunEvidence, seal_label, uncollected
from provenance.evidence.story import LOST_AFTER_S, RunState
from provenance.formats.note import VerifierKey
from provenance.formats.record import Kind
from provenance.formats.run_tree.walk import RunWalk
from provenance.ports.network import Network
from provenance.verify.approvals import check_approvals
from provenance.verify.catalogue import (
    ANCHOR_LIMIT,
    APPROVAL_LIMIT,
    CHECKS,
    CLAIMED_TIMES,
    COMPLETE,
    ETHEREUM_HEADERS,
    HEADER_SOURCE,
    ITEM_SETS,
    LIMITS,
    NETWORK_LIMITS,
    NOBODY_KNOWN,
    Check,
    Status,
)
from provenance.verify.checks.attachments import check_attachments
from provenance.verify.checks.beyond.host import LIMIT as HOST_LIMIT
from provenance.verify.checks.beyond.host import check_host
from provenance.verify.checks.beyond.outcomes import check_outcomes
from provenance.verify.checks.beyond.proofs import check_proofs
from provenance.verify.checks.beyond.roll import OTHERS, check_roll
from provenance.verify.checks.beyond.seeds import check_seeds
from provenance.verify.checks.beyond.timelocks import check_timelock
from provenance.verify.checks.completeness import check_completeness
from provenance.verify.checks.content import (
    check_content,
    check_item_sets,
    check_states,
    note_left_out,
    note_not_recorded,
)
from provenance.verify.checks.ledger import check_heads, check_ledger, ledger_key
from provenance.verify.checks.networks import check_agreement, check_networks
from provenance.verify.checks.privacy import check_privacy
from provenance.verify.checks.receipts import check_receipts
from provenance.verify.checks.records import check_records, check_statements
from provenance.verify.checks.reused import check_reused
from provenance.verify.checks.story import check_lineage, late_before, run_state
from provenance.verify.checks.trees import check_prefixes, check_trees
from provenance.verify.findings import Findings, counted
from provenance.verify.headers import HeaderSource
from provenance.verify.nodes import Nodes
from provenance.verify.report import NetworkCheck, Seal, VerificationReport, metrics_of
from provenance.verify.trust import PinnedKey, Trust
from provenance.verify.verdict import judge

__all__ = ["CHECKS", "Check", "verify"]

NOBODY = Trust()
"""No pins: only what every release knows by itself."""


@uncollected()
def verify(
    evidence: RunEvidence,
    networks: Mapping[str, Network] | None,
    *,
    verifier_key: VerifierKey | None = None,
    content: Mapping[str, object] | None = None,
    unavailable: Mapping[str, str] | None = None,
    headers: HeaderSource | None = None,
    nodes: Nodes | None = None,
    trust: Trust = NOBODY,
    parent: VerificationReport | None = None,
    now: float,
    lost_after_s: float = LOST_AFTER_S,
) -> VerificationReport:
    """Check all there is about a run.

    Args:
        networks: Real networks to ask, by name; None asks nobody (receipts only).
        verifier_key: The key that the evidence must be signed by, which the caller knows
            from elsewhere; None takes the evidence's own, which ``trust`` may pin.
        content: Data and weights at hand, by slot: ``data/train``, ``data/test``,
            ``model/weights``, ``training/epoch/3/state``; values as ``track_data`` and
            ``track_model`` take them.
        unavailable: Networks that could not even be set up, with the reason.
        headers: Bitcoin block headers that the caller trusts to be the chain's.
        nodes: What was asked for other runs, instead of ``networks`` and ``unavailable``.
        trust: What the reader pins; the verdict rests on nothing else.
        parent: What verifying the run found that this one is to continue; None compares with what
            the database has of that run, unverified.
        now: Unix time of the report.
        lost_after_s: A run that gave no sign of life for so long is lost.

    Returns:
        The report; nothing about the evidence raises.

    Raises:
        ConfigError: ``trust.sigstore_root`` is no trusted root.
    """
    findings = Findings(evidence)
    if nodes is None and networks is not None:
        nodes = Nodes(networks, unavailable)
    digested = evidence.digested
    signed = {p.producer: {each.count for each in p.statements} for p in evidence.producers}
    for item in evidence.records:
        if item.kind is Kind.HOST:  # a quote is over the chain before it
            signed.setdefault(item.producer, set()).add(item.seq)
    walk = RunWalk(evidence.run, digested, evidence.entries, signed)
    records = check_records(evidence, findings)  # (1)
    check_statements(evidence, walk, trust, findings)
    recomputed = check_trees(evidence, digested, walk, findings)  # (2)
    check_prefixes(evidence, walk, findings)  # (3)
    state = run_state(evidence, now, lost_after_s)
    check_completeness(evidence, digested, state, findings)  # (4)
    if verifier_key is not None and trust.key_pinned_by(verifier_key) is None:
        trust = trust.also(Trust(ledger_keys=(PinnedKey(verifier_key, "the caller"),)))
    key = ledger_key(evidence, verifier_key, trust, findings)
    heads = check_heads(evidence, key, trust.witnesses, findings)  # (5)
    check_ledger(evidence, heads, findings)  # (6)
    runs_before = check_roll(evidence, state, heads, findings)
    receipts = check_receipts(evidence, key, heads, findings)  # (7)
    again = check_outcomes(evidence, key, heads, receipts, now, findings)
    approved, unapproved = check_approvals(evidence, key, trust, findings)  # (8)
    anchors, roots = check_networks(evidence, receipts, nodes, headers, trust, unapproved, findings)
    cross = check_agreement(evidence, receipts, anchors, roots, findings)  # (9)
    unsaid = check_seeds(evidence, records, anchors, nodes, headers, trust, findings)
    check_content(records, content, findings)  # (10)
    check_states(records, findings)
    check_item_sets(records, findings)
    check_reused(records, findings)
    note_not_recorded(records, findings)
    note_left_out(records, findings)
    continued = check_lineage(evidence, records, parent, findings)
    check_attachments(evidence, findings)  # (11)
    locked = check_timelock(evidence, findings)
    check_privacy(records, findings)  # (12)
    check_proofs(evidence, findings)  # (14)
    hosts = check_host(evidence, records, walk, trust, findings)  # (15)
    if hosts:
        unsaid.append(HOST_LIMIT)
    online = nodes is not None
    pinned = trust.key_pinned_by(key) is not None
    others = [*([] if runs_before is None else [OTHERS]), *again, *locked, *unsaid]
    not_checked = _limits(
        evidence, state, online, pinned, content, anchors, others, findings
    )  # (13)
    return VerificationReport(
        run=evidence.run,
        standing=findings.standing,
        state=state,
        lineage=continued,
        runs_before=runs_before,
        verdict=judge(findings, trust, key, anchors, [*approved, *hosts]),
        checked_at=now,
        online=online,
        checks=findings.results(),
        findings=tuple(findings.problems),
        notices=tuple(findings.notices),
        seals=tuple(
            Seal(seal_label(entry), entry.index, entry.root, entry.created_at, entry.root == root)
            for entry, root in zip(evidence.entries, recomputed, strict=True)
        ),
        networks=anchors,
        cross=cross,
        metrics=metrics_of(records),
        not_checked=tuple(not_checked),
        evidence=evidence,
    )


def _limits(
    evidence: RunEvidence,
    state: RunState,
    online: bool,
    pinned: bool,
    content: Mapping[str, object] | None,
    networks: Mapping[str, Mapping[str, NetworkCheck]],
    others: list[str],
    findings: Findings,
) -> list[str]:
    lines = [CLAIMED_TIMES, *disclosure.limits(evidence), *others]
    if evidence.vkey is not None and not pinned:
        lines.append(
            "Whose key signs the heads: it was taken from the evidence itself. Compare with the "
            f"key that the ledger's owner publishes: {evidence.vkey}"
        )
    if not online and networks:
        lines.append("The networks themselves: no node was asked, only receipts were checked.")
        if any(check.status == "receipt" for check in networks.get("bitcoin", {}).values()):
            lines.append(HEADER_SOURCE)
        if any(check.status == "stated" for check in networks.get("ethereum", {}).values()):
            lines.append(ETHEREUM_HEADERS)
    if content is None:
        lines.append("Data and weights against their recorded digests: they were not at hand.")
    lines += [
        f"({result.check.number}) {result.check.title}: {result.detail}"
        for result in findings.results()
        if result.status is Status.UNCHECKED
    ]
    if findings.item_sets:
        lines.append(f"{ITEM_SETS}: {', '.join(findings.item_sets)}")
    if evidence.state != "sealed" and not findings.failed(COMPLETE):
        is_open = state.state == "running"
        stopped = f"What else the run had to do: it stopped, {state.line}, and may go on."
        lines.append("The rest of the run: it is still open." if is_open else stopped)
    if unsealed := len(evidence.under_no_root):
        what = counted(unsealed, "record")
        lines.append(f"What no root has yet: {what}, under a producer's signature alone.")
    if any(name.startswith(APPROVALS) for name in evidence.attachments):
        lines.append(APPROVAL_LIMIT)
    lines.append(ANCHOR_LIMIT)
    lines += [NETWORK_LIMITS[name] for name in networks if name in NETWORK_LIMITS]
    if (late := late_before(evidence, networks)) is not None:
        lines.append(late)
    if findings.standing is None:
        lines.append(NOBODY_KNOWN)
    elif findings.standing.unchecked is not None:
        lines.append(f"Who ran it: {findings.standing.line}")
    findings.count(LIMITS, f"{counted(len(lines), 'thing')} listed as not checked")
    return lines
