"""Checks (2) and (3): the run roots of all seals, and that each only adds to the one before.

A root is recomputed from the digests that stand for the records, so that one changed record is
one finding, and not one at every node above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from provenance.evidence.placement import place_records
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.walk import RunWalk
from provenance.verify.catalogue import PREFIX, TREES
from provenance.verify.findings import Findings, counted


def check_trees(
    evidence: RunEvidence, digested: Sequence[DigestedRecord], walk: RunWalk, findings: Findings
) -> list[bytes | None]:
    """Hold each seal against what the records' digests give.

    Returns:
        The run root that they give for each entry; None for all where one has none.
    """
    if not evidence.entries:
        findings.unchecked(TREES, "the run has no seal yet")
    for seal in walk.seals:
        if seal.problem is not None:
            findings.fail(TREES, "run", f"the tree cannot be built: {seal.problem}")
            return [None] * len(walk.seals)
    late = walk.late if evidence.entries else ()  # late is what comes behind a seal
    paths = place_records(digested, walk.leaves or (), late)
    for item, path in zip(evidence.records, paths, strict=True):
        if item.path != path:
            problem = f"belongs at {path} by its content"
            findings.fail_record(TREES, item, problem)
    for entry, seal in zip(evidence.entries, walk.seals, strict=True):
        stated, wanted = dict(entry.coverage), seal.coverage
        differing = [p for p in stated.keys() | wanted.keys() if stated.get(p) != wanted.get(p)]
        if differing:
            first = min(differing)
            problem = (
                f"states to cover {stated.get(first, 0)} events of producer {first.hex()}, "
                f"the records give {wanted.get(first, 0)}"
            )
            findings.fail(TREES, seal_label(entry), problem, "run.json")
        elif seal.uncovered:
            problem = f"does not cover {seal.uncovered} events before its mark"
            findings.notice(TREES, seal_label(entry), problem)
        if seal.root is not None and seal.root != entry.root:
            own = seal.root.hex()
            problem = f"the records give run root {own}, the ledger has {entry.root.hex()}"
            findings.fail(TREES, seal_label(entry), problem)
    findings.count(TREES, counted(len(walk.seals), "run root"))
    return [seal.root for seal in walk.seals]


def check_prefixes(evidence: RunEvidence, walk: RunWalk, findings: Findings) -> None:
    """Each seal's tree is a prefix of the next one's: the walk that gives their roots tells."""
    if any(seal.problem is not None for seal in walk.seals):
        findings.skip(PREFIX, "the trees cannot be built")
        return
    for (old, new), seal in zip(pairwise(evidence.entries), walk.seals[1:], strict=True):
        if seal.lost is not None:
            label = f"{seal_label(old)} in {seal_label(new)}"
            findings.fail(PREFIX, seal.lost, f"{label}: was under the earlier root and is missing")
    if len(walk.seals) < 2:
        findings.skip(PREFIX, f"the run has {len(walk.seals)} of the two seals it takes")
    findings.count(PREFIX, counted(max(0, len(walk.seals) - 1), "later seal"))
