"""Whose weights a model has that a run names as its parent: a run's, and of which epoch.

Life of a join: the root of a model's weights stands in the configuration record of the run that
names it (docs/FORMAT.md, 3.5); bundles that were given and the database's index name runs that
state the same root; such a run is verified, and its ``state`` record with that root is proven to
be a leaf under the newest run root. What an index says counts for nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree, RunProof
from provenance.models.stated import record_problem, signed_counts
from provenance.verify.report import VerificationReport

MAX_RUNS: Final = 8
"""Runs that are looked at for one model: all that train nothing of it have its weights."""


class Origin(NamedTuple):
    """An epoch of a run that states a root of weights.

    Attributes:
        epoch: The last one, where several do.
        line: For people.
        proof: Of the record that states it, under the newest run root; None where that record does
            not count.
    """

    epoch: int
    line: str
    proof: RunProof | None


class Origins:
    """The epochs of a run that was verified, by the roots of their weights."""

    def __init__(self, report: VerificationReport) -> None:
        self.report = report

    def of(self, root: str) -> Origin | None:
        """The epoch that states a root (``mth-sha256:<hex>``); None where none does."""
        found = [
            (problem is None, record.epoch or 0, -record.rank, record, problem)
            for record in self.report.evidence.records
            if _root(record) == root
            for problem in [record_problem(self.report, self._signed, record)]
        ]
        if not found:
            return None
        _, epoch, _, record, problem = max(found, key=lambda own: own[:3])
        line = f"has the weights of epoch {epoch} of run {self.report.run}"
        if problem is not None or self._tree is None:
            return Origin(epoch, f"{line}, in a record that does not count: {problem}", None)
        proof = self._tree.proof(record.path)
        proof.verify(self.report.seals[-1].root)
        way = (
            f"{len(proof.steps())} hashes lead from its record to run root {self._tree.root.hex()}"
        )
        return Origin(epoch, f"{line}: the roots are equal, and {way}", proof)

    @cached_property
    def _tree(self) -> MLProvenanceMerkleTree | None:
        return newest_tree(self.report.evidence)

    @cached_property
    def _signed(self) -> dict[bytes, int]:
        return signed_counts(self.report.evidence)


def roots_of(evidence: RunEvidence) -> set[str]:
    """The roots of weights that a run's ``state`` records have."""
    return {root for record in evidence.records if (root := _root(record)) is not None}


def _root(record: RecordFile) -> str | None:
    if record.kind is not Kind.STATE or not isinstance(own := record.decoded, Record):
        return None
    root = own.body.get("root")
    return root if isinstance(root, str) else None
