"""The runs and models that a run comes from, and what came of it: as far as it is known here.

:mod:`provenance.lineage.walk` makes the graph, :mod:`provenance.lineage.export` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from provenance.errors import FormatError
from provenance.evidence.lineage import Claim, claims
from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.sharing import Sharing
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.tree import RunProof

NOT_CHECKED: Final = (
    "the networks: no node was asked (provenance verify); and what runs that come from this one "
    "say, which is listed as they say it (provenance lineage of each)"
)


@dataclass(frozen=True, slots=True)
class Node:
    """A run, or a model that was named.

    Attributes:
        id: The run's id, or the model's name.
        outcome: Of its verification, offline; None where it was not verified.
        state: How the training ended, as its records say; empty of a model.
        root: Its newest run root, hex.
        weights: Root of its newest weights, or of those that a model has.
        data: Root by path of each dataset.
        resumed: Rank, number and a line of each process that went on where another had stopped.
        withheld: Whether its configuration is withheld, which names its parents.
        began, ended: The first and the last time in its records, as its trainer has them.
        seal: Label of the newest seal.
    """

    id: str
    kind: str
    name: str | None = None
    outcome: str | None = None
    state: str = ""
    root: str | None = None
    seal: str | None = None
    weights: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    resumed: tuple[tuple[int, int, str], ...] = ()
    withheld: bool = False
    began: str | None = None
    ended: str | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """A claim of a child about its parent; or, where the child is a model, a run whose weights it
    has.

    Attributes:
        matches: Whether the child's initial weights are the parent's (of a model: whether its
            weights are an epoch's of the run); None where that cannot be said.
        verified: Whether the parent was verified, and holds.
        tensors: What the child's newest weights have of the parent's.
        proof: Of the record that states a model's weights, under the newest root of the run.
    """

    child: str
    parent: str
    role: str | None
    line: str
    matches: bool | None = None
    verified: bool = False
    tensors: Sharing | None = None
    proof: RunProof | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """What is known. ``problems`` are of claims that do not hold."""

    subject: str
    nodes: Mapping[str, Node]
    edges: Sequence[Edge]
    problems: Sequence[str]

    @property
    def exit_code(self) -> int:
        """0 where no claim fails, else 1."""
        return 1 if self.problems else 0

    def expecting(self, runs: Sequence[str]) -> Graph:
        """The same, with a problem for each of these runs that is no ancestor of the subject."""
        known, waiting = set[str](), [self.subject]
        while waiting:
            found = {edge.parent for edge in self.parents(waiting.pop())} - known
            known |= found
            waiting += found
        wrong = (f"run {run} is no ancestor of run {self.subject}" for run in runs)
        others = [line for run, line in zip(runs, wrong, strict=True) if run not in known]
        return replace(self, problems=[*self.problems, *others])

    def parents(self, child: str) -> list[Edge]:
        """What a run says that it comes from."""
        return [edge for edge in self.edges if edge.child == child]

    def children(self, parent: str) -> list[Edge]:
        """What says that it comes from a run or model."""
        return [edge for edge in self.edges if edge.parent == parent]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "v": 1,
            "subject": self.subject,
            "exit_code": self.exit_code,
            "nodes": [_fields(node) for node in self.nodes.values()],
            "edges": [
                {
                    **_fields(edge),
                    "tensors": edge.tensors and edge.tensors.as_dict(),
                    "proof": edge.proof and edge.proof.to_json(),
                }
                for edge in self.edges
            ],
            "problems": list(self.problems),
            "not_checked": NOT_CHECKED,
        }


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def records_of(evidence: RunEvidence) -> list[Record]:
    """What decodes, without late ones."""
    own = (item.decoded for item in evidence.records if item.place != "late")
    return [record for record in own if isinstance(record, Record)]


def claims_of(records: Sequence[Record]) -> list[Claim]:
    """The parents that the configurations name, each once."""
    found: dict[object, Claim] = {}
    for record in records:
        if record.kind is Kind.CONFIG:
            try:
                named = claims(record)
            except FormatError:  # the verification says so
                continue
            for claim in named:
                found.setdefault(claim.run or (claim.model, claim.weights), claim)
    return list(found.values())
