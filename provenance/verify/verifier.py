"""Verification of one run: from its records to the chains, step by step.

The same list is printed in the report and by ``provenance verify --explain``
(:data:`CHECKS`); the code is tagged with the numbers.

1. records match their digests
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
12. what was not checked is said

A check that fails does not stop the others. A tree is recomputed from the digests that
stand for the records, so that one changed record is one finding, and not one at every node
above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from provenance.errors import FormatError, InputError, ProofError
from provenance.evidence import disclosure
from provenance.evidence.placement import coverage_problem, place_records, tree_at
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.formats.cosignature import WitnessKey
from provenance.formats.note import VerifierKey
from provenance.formats.record import CONTROL_KINDS, Kind, Record, record_digest
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.ports.network import Network
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import (
    ANCHOR_LIMITS,
    CHECKS,
    COMPLETE,
    CONTENT,
    CONTROL_RECORDS,
    ETHEREUM_HEADERS,
    HEADER_SOURCE,
    LIMITS,
    NETWORK_LIMITS,
    PREFIX,
    RECORD_SIGNATURES,
    RECORDS,
    TREES,
    Check,
    Status,
)
from provenance.verify.checks.attachments import check_attachments
from provenance.verify.checks.completeness import check_completeness
from provenance.verify.checks.content import check_content
from provenance.verify.checks.ledger import check_heads, check_ledger, ledger_key
from provenance.verify.checks.networks import check_networks, check_receipts, decoded_receipts
from provenance.verify.findings import Notes
from provenance.verify.headers import HeaderSource
from provenance.verify.metrics import metrics_of
from provenance.verify.nodes import Nodes
from provenance.verify.report import NetworkCheck, Outcome, Seal, VerificationReport

if TYPE_CHECKING:
    from provenance.verify.cache import Held

__all__ = ["CHECKS", "Check", "verify", "verify_again"]


def verify(
    evidence: RunEvidence,
    networks: Mapping[str, Network] | None,
    *,
    verifier_key: VerifierKey | None = None,
    content: Mapping[str, object] | None = None,
    unavailable: Mapping[str, str] | None = None,
    headers: HeaderSource | None = None,
    nodes: Nodes | None = None,
    witnesses: Sequence[WitnessKey] = (),
    now: float,
) -> VerificationReport:
    """Check all there is about a run.

    Args:
        networks: Real networks to ask, by name; None asks nobody (receipts only).
        verifier_key: The ledger's key as known from elsewhere; None takes the evidence's own,
            and the report says so.
        content: Data and weights at hand, by slot: ``data/train``, ``data/test``,
            ``model/weights``, ``training/epoch/3/state``; values as ``track_data`` and
            ``track_model`` take them.
        unavailable: Networks that could not even be set up, with the reason.
        headers: Bitcoin block headers that the caller trusts to be the chain's.
        nodes: What was asked for other runs, instead of ``networks`` and ``unavailable``.
        witnesses: Keys whose cosignatures of heads are verified; others are only shown.
        now: Unix time of the report.

    Returns:
        The report; nothing about the evidence raises.
    """
    notes = Notes(evidence)
    if nodes is None and networks is not None:
        nodes = Nodes(networks, unavailable)
    decoded = _check_records(evidence, notes)  # (1)
    digested = [record.digested(evidence.run) for record in evidence.records]
    trees = _check_trees(evidence, digested, notes)  # (2)
    _check_prefixes(trees, notes)  # (3)
    check_completeness(evidence, digested, notes)  # (4)
    key = ledger_key(evidence, verifier_key, notes)
    heads = check_heads(evidence, key, witnesses, notes)  # (5)
    check_ledger(evidence, heads, notes)  # (6)
    receipts = check_receipts(evidence, key, heads, notes)  # (7)
    places = check_networks(evidence, receipts, nodes, headers, notes)  # (8) (9)
    check_content(decoded, content, notes)  # (10)
    check_attachments(evidence, notes)  # (11)
    online = nodes is not None
    not_checked = _limits(evidence, online, verifier_key, content, places, notes)  # (12)
    newest = max(trees, key=lambda entry: entry.index, default=None)
    return VerificationReport(
        run=evidence.run,
        outcome=_outcome(notes),
        checked_at=now,
        online=online,
        checks=notes.results(),
        findings=tuple(notes.findings),
        notices=tuple(notes.notices),
        seals=tuple(
            Seal(
                seal_label(entry),
                entry.index,
                entry.root,
                entry.created_at,
                entry in trees and trees[entry].root == entry.root,
            )
            for entry in evidence.entries
        ),
        networks=places,
        tree=trees[newest].as_dict() if newest else None,
        metrics=metrics_of(decoded),
        not_checked=tuple(not_checked),
        evidence=evidence,
    )


def verify_again(
    evidence: RunEvidence,
    held: Held,
    nodes: Nodes | None,
    *,
    verifier_key: VerifierKey | None = None,
    headers: HeaderSource | None = None,
    now: float,
) -> VerificationReport:
    """:func:`verify` of evidence whose pure checks all held before: the networks are asked.

    Args:
        evidence: Without records and ledger proofs, which are not looked at again; every
            other byte of it, and of them, is what it was when the checks held.
        held: What the checks wrote down then.
        nodes, headers: As for :func:`verify`.

    Returns:
        The same report, but without tree, metrics and records.
    """
    notes = Notes(evidence)
    held.restore(notes)
    receipts = decoded_receipts(evidence)
    places = check_networks(evidence, receipts, nodes, headers, notes)  # (8) (9)
    online = nodes is not None
    not_checked = _limits(evidence, online, verifier_key, None, places, notes)  # (12)
    return VerificationReport(
        run=evidence.run,
        outcome=_outcome(notes),
        checked_at=now,
        online=online,
        checks=notes.results(),
        findings=tuple(notes.findings),
        notices=tuple(notes.notices),
        seals=tuple(
            Seal(seal_label(entry), entry.index, entry.root, entry.created_at, True)
            for entry in evidence.entries
        ),
        networks=places,
        tree=None,
        metrics=(),
        not_checked=tuple(not_checked),
        evidence=evidence,
    )


def _outcome(notes: Notes) -> Outcome:
    if notes.findings:
        return "failed"
    if any(result.status is Status.UNCHECKED for result in notes.results()):
        return "unchecked"
    return "verified"


# --- (1) ---------------------------------------------------------------------------------


def _check_records(evidence: RunEvidence, notes: Notes) -> dict[str, Record]:
    """The records that hold, by path."""
    good: dict[str, Record] = {}
    for problem in evidence.problems:
        notes.fail(RECORDS, problem.path or problem.file, problem.message, problem.file)
    proof_root = evidence.entries[-1].root if evidence.entries else None
    for item in evidence.records:
        problem_text = _record_problem(evidence, item, good)
        if problem_text is None:
            problem_text = _proof_problem(evidence, item, proof_root)
        if problem_text is not None:
            notes.fail(RECORDS, item.path, problem_text, item.file, item.path)
    _check_public_key(evidence, good, notes)
    notes.count(RECORDS, f"{len(evidence.records)} records")
    return good


def _record_problem(evidence: RunEvidence, item: RecordFile, good: dict[str, Record]) -> str | None:
    if item.withheld:
        control = item.kind in CONTROL_KINDS
        return "is withheld, and a control record never is" if control else None
    if item.data is None:
        return "the record is missing"
    found = record_digest(item.data)
    if found != item.digest:
        return f"SHA-256 of the record is {found.hex()}, expected {item.digest.hex()}"
    try:
        record = Record.decode(item.data)
    except FormatError as error:
        return str(error)
    if record.run != evidence.run:
        return f"is of run {record.run}"
    for name in ("kind", "epoch", "rank", "producer", "seq", "ts"):
        if getattr(record, name) != getattr(item, name):
            return f"states another {name} than the place it is filed under"
    good[item.path] = record
    return None


def _proof_problem(evidence: RunEvidence, item: RecordFile, root: bytes | None) -> str | None:
    """Where the evidence brings a proof of the record: it must be one, of this record."""
    proof = evidence.proofs.get(item.path)
    if proof is None or root is None:
        return None
    if proof.leaf_digest != item.digest:
        return (
            f"the proof is of a record with SHA-256 {proof.leaf_digest.hex()}, "
            f"not {item.digest.hex()}"
        )
    try:
        proof.verify(root)
    except ProofError as error:
        return f"the proof does not lead to the run root: {error}"
    return None


def _check_public_key(evidence: RunEvidence, good: Mapping[str, Record], notes: Notes) -> None:
    for path, record in good.items():
        if record.kind is Kind.CONFIG:
            stated = record.body.get("public_key")
            if stated != evidence.public_key.hex():
                notes.fail(
                    RECORDS,
                    path,
                    f"states public key {str(stated)[:64]}, "
                    f"the run's is {evidence.public_key.hex()}",
                    f"records/{path}.json",
                    path,
                )


# --- (2) (3) -----------------------------------------------------------------------------


def _check_trees(
    evidence: RunEvidence, digested: list[DigestedRecord], notes: Notes
) -> dict[LedgerEntry, MLProvenanceMerkleTree]:
    trees: dict[LedgerEntry, MLProvenanceMerkleTree] = {}
    if not evidence.entries:
        notes.unchecked(TREES, "the run has no seal yet")
        return trees
    try:
        paths = place_records(digested, evidence.entries)
        for entry in evidence.entries:
            trees[entry] = tree_at(digested, evidence.entries, entry)
    except InputError as error:
        notes.fail(TREES, "run", f"the tree cannot be built: {error}")
        return {}
    for item, path in zip(evidence.records, paths, strict=True):
        if item.path != path:
            notes.fail(TREES, item.path, f"belongs at {path} by its content", item.file, item.path)
    for entry, tree in trees.items():
        problem = coverage_problem(digested, evidence.entries, entry)
        if problem is not None:
            notes.fail(TREES, seal_label(entry), problem, "run.json")
        if tree.root != entry.root:
            notes.fail(
                TREES,
                seal_label(entry),
                f"the records give run root {tree.root.hex()}, the ledger has {entry.root.hex()}",
            )
    notes.count(TREES, f"{len(trees)} run roots")
    return trees


def _check_prefixes(trees: Mapping[LedgerEntry, MLProvenanceMerkleTree], notes: Notes) -> None:
    ordered = sorted(trees.items(), key=lambda pair: pair[0].index)
    for (old, earlier), (new, later) in pairwise(ordered):
        problem = earlier.is_prefix_of(later)
        if problem is not None:
            label = f"{seal_label(old)} in {seal_label(new)}"
            notes.fail(PREFIX, problem.path or label, f"{label}: {problem.message}")
    if len(ordered) < 2:
        notes.skip(PREFIX, f"the run has {len(ordered)} of the two seals it takes")
    notes.count(PREFIX, f"{max(0, len(ordered) - 1)} steps")


# --- (12) --------------------------------------------------------------------------------


def _limits(
    evidence: RunEvidence,
    online: bool,
    given: VerifierKey | None,
    content: Mapping[str, object] | None,
    places: Mapping[str, Mapping[str, NetworkCheck]],
    notes: Notes,
) -> list[str]:
    lines = [RECORD_SIGNATURES, CONTROL_RECORDS, *disclosure.limits(evidence)]
    if evidence.vkey is not None and given is None:
        lines.append(
            "Whose key signs the heads: it was taken from the evidence itself. Compare with the "
            f"key that the ledger's owner publishes: {evidence.vkey}"
        )
    if not online and places:
        lines.append("The networks themselves: no node was asked, only receipts were checked.")
        if any(check.status == "receipt" for check in places.get("bitcoin", {}).values()):
            lines.append(HEADER_SOURCE)
        if any(check.status == "receipt" for check in places.get("ethereum", {}).values()):
            lines.append(ETHEREUM_HEADERS)
    if content is None:
        lines.append("Data and weights against their recorded digests: they were not at hand.")
    lines += [
        f"({result.check.number}) {result.check.title}: {result.detail}"
        for result in notes.results()
        if result.status is Status.UNCHECKED and result.check.number not in (CONTENT, LIMITS)
    ]
    if evidence.state != "sealed" and not notes.failed(COMPLETE):
        lines.append("The rest of the run: it is still open.")
    lines += ANCHOR_LIMITS
    lines += [NETWORK_LIMITS[name] for name in places if name in NETWORK_LIMITS]
    notes.count(LIMITS, f"{len(lines)} lines")
    return lines
