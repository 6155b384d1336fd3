"""Checks (2) and (3): the run trees of all seals, and that each only adds to the one before.

A tree is recomputed from the digests that stand for the records, so that one changed record is
one finding, and not one at every node above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from provenance.errors import InputError
from provenance.evidence.placement import (
    coverage_problem,
    place_records,
    tree_at,
    uncovered_before,
)
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.formats.record import Phase
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import PREFIX, TREES
from provenance.verify.findings import Findings


def check_trees(
    evidence: RunEvidence, digested: Sequence[DigestedRecord], findings: Findings
) -> dict[LedgerEntry, MLProvenanceMerkleTree]:
    """Recompute the run tree of each seal from the records' digests.

    Returns:
        The trees by seal; empty where one cannot be built.
    """
    trees: dict[LedgerEntry, MLProvenanceMerkleTree] = {}
    if not evidence.entries:
        findings.unchecked(TREES, "the run has no seal yet")
        return trees
    try:
        paths = place_records(digested, evidence.entries)
        for entry in evidence.entries:
            trees[entry] = tree_at(digested, evidence.entries, entry)
    except InputError as error:
        findings.fail(TREES, "run", f"the tree cannot be built: {error}")
        return {}
    for item, path in zip(evidence.records, paths, strict=True):
        if item.path != path:
            problem = f"belongs at {path} by its content"
            findings.fail(TREES, item.path, problem, item.file, item.path)
    for entry, tree in trees.items():
        differs = coverage_problem(digested, evidence.entries, entry)
        fewer = uncovered_before(digested, entry) if entry.phase is Phase.BEFORE else 0
        if differs is not None:
            findings.fail(TREES, seal_label(entry), differs, "run.json")
        elif fewer:
            findings.notice(
                TREES, seal_label(entry), f"does not cover {fewer} events before its mark"
            )
        if tree.root != entry.root:
            findings.fail(
                TREES,
                seal_label(entry),
                f"the records give run root {tree.root.hex()}, the ledger has {entry.root.hex()}",
            )
    findings.count(TREES, f"{len(trees)} run roots")
    return trees


def check_prefixes(trees: Mapping[LedgerEntry, MLProvenanceMerkleTree], findings: Findings) -> None:
    """Each seal's tree must be a prefix of the next one's."""
    ordered = sorted(trees.items(), key=lambda pair: pair[0].index)
    for (old, earlier), (new, later) in pairwise(ordered):
        problem = earlier.is_prefix_of(later)
        if problem is not None:
            label = f"{seal_label(old)} in {seal_label(new)}"
            findings.fail(PREFIX, problem.path or label, f"{label}: {problem.message}")
    if len(ordered) < 2:
        findings.skip(PREFIX, f"the run has {len(ordered)} of the two seals it takes")
    findings.count(PREFIX, f"{max(0, len(ordered) - 1)} steps")
