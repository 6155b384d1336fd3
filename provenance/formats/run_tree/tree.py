"""The run tree: one Merkle tree for all that a run recorded.

WARNING: FROZEN FORMAT. The shape below, the order of its leaves and the JSON of its proofs
are what an auditor recomputes. A change here makes every published run root unverifiable.
Add a version; never change what an existing one means. No I/O, no clock, no randomness.

::

    run root = MTH([data, model, training, producers])
      data      = MTH([train, test])                each the MTH of its records
      model     = MTH([architecture, weights])      each the MTH of its records
      training  = MTH([config..., epoch 1, epoch 2, ..., results...])
        epoch   = MTH([state, metrics, privacy])    each the MTH of its records
      producers = MTH([producer, producer, ...])    by their 16 bytes

MTH is RFC 6962's Merkle Tree Hash (`merkle`). A record enters as its digest, SHA-256 of
the record's bytes; a node enters its parent as its root; an empty node is MTH([]). A producer
enters as the digest of its statement over the records that the seal covers (`statement`), so
that control records, which are no leaves, are under the root as well.
Records of one slot stand in logical order, never in that of arrival: by rank (none first),
then by ``order`` (ts, producer, seq), then by digest. Epochs stand by number.

Paths: ``""`` is the root, then ``data/train/0``, ``model/weights/0``, ``training/config``,
``training/epoch/3/metrics/0``, ``training/results``, ``producers/0``. The last number is a
position in the slot. A second config or results record is ``training/config/1``,
``training/results/1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from provenance.errors import (
    InputError,
    ProofError,
)
from provenance.formats import merkle
from provenance.formats.run_tree.proof import (
    EPOCH_CHILDREN,
    KINDS,
    SINGLE_KINDS,
    SLOTS,
    Level,
    PrefixProof,
    RunProof,
    parent_paths,
)


@dataclass(frozen=True, slots=True)
class RecordLeaf:
    """One record's place in the tree.

    Args:
        kind: One of ``KINDS``.
        epoch: Number of the epoch, 0 or more; needed for state, metrics and privacy, and
            without meaning for the other kinds.
        rank: Rank of the process that recorded it; None stands before rank 0.
        order: (ts, producer, seq), compared as they are: ts must have one fixed width.
        digest: SHA-256 of the record's bytes, 32 bytes.

    Raises:
        InputError: the record has no place in the tree.
    """

    kind: str
    epoch: int | None
    rank: int | None
    order: tuple[str, str, int]
    digest: bytes

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            raise InputError(f"a record of kind {self.kind!r} is no leaf; leaves are {known}")
        if self.kind in EPOCH_CHILDREN and (self.epoch is None or self.epoch < 0):
            raise InputError(f"a {self.kind} record needs an epoch of 0 or more, got {self.epoch}")
        if len(self.digest) != merkle.HASH_SIZE:
            raise InputError(f"a record digest has 32 bytes, got {len(self.digest)}")

    @property
    def sort_key(self) -> tuple[int, tuple[str, str, int], bytes]:
        """What orders the records of one slot."""
        return (-1 if self.rank is None else self.rank, self.order, self.digest)


@dataclass(frozen=True, slots=True)
class MerkleNode:
    """A node of the run tree.

    Args:
        path: Address from the root, such as ``training/epoch/3/metrics``; ``""`` is the root.
        label: Last part of the path, with ``epoch 3`` for an epoch; ``run`` for the root.
        kind: ``node``, ``record``, ``producer`` or ``empty`` (a node without entries).
        value: What enters the parent, 32 bytes: a node's root, a record's or statement's digest.
        children: In tree order; none for a record, a producer and an empty node.
    """

    path: str
    label: str
    kind: Literal["node", "record", "producer", "empty"]
    value: bytes
    children: tuple[MerkleNode, ...] = ()

    def walk(self) -> Iterator[MerkleNode]:
        """This node and all below it, parents before children, in tree order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def as_dict(self) -> dict[str, object]:
        """For reports and JSON: the same fields, ``value`` as hex, children nested."""
        return {
            "path": self.path,
            "label": self.label,
            "kind": self.kind,
            "value": self.value.hex(),
            "children": [child.as_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one tree does not follow from another: the node, and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or 'run'}: {self.message}"


class MLProvenanceMerkleTree:
    """The run tree over the records of one run; a value, built once.

    Args:
        leaves: In any order; the tree sorts them.
        producers: Digest of each producer's statement, 32 bytes, in the order of their ids.

    Attributes:
        root: The run root, 32 bytes.
        root_node: The tree, node by node.
    """

    def __init__(self, leaves: Iterable[RecordLeaf] = (), producers: Iterable[bytes] = ()) -> None:
        slots: dict[tuple[str, int | None], list[bytes]] = {}
        for leaf in sorted(leaves, key=lambda leaf: leaf.sort_key):
            epoch = leaf.epoch if leaf.kind in EPOCH_CHILDREN else None
            slots.setdefault((leaf.kind, epoch), []).append(leaf.digest)
        tops = [
            _node(
                top, [_slot(f"{top}/{name}", slots.get((f"{top}.{name}", None))) for name in names]
            )
            for top, names in SLOTS.items()
        ]
        epochs = [
            _node(
                f"training/epoch/{epoch}",
                [
                    _slot(f"training/epoch/{epoch}/{k}", slots.get((k, epoch)))
                    for k in EPOCH_CHILDREN
                ],
            )
            for epoch in sorted({epoch for _, epoch in slots if epoch is not None})
        ]
        config, results = (
            _single(f"training/{kind}", slots.get((kind, None))) for kind in SINGLE_KINDS
        )
        signed = [
            MerkleNode(f"producers/{at}", f"producer {at}", "producer", digest)
            for at, digest in enumerate(producers)
        ]
        training = _node("training", [*config, *epochs, *results])
        self.root_node: Final = _node("", [*tops, training, _node("producers", signed)])
        self.root: Final[bytes] = self.root_node.value
        self._nodes: Final = {node.path: node for node in self.root_node.walk()}
        self._trees: Final[dict[str, tuple[merkle.MerkleTree, Mapping[str, int]]]] = {}

    def node(self, path: str) -> MerkleNode:
        """The node at a path.

        Raises:
            InputError: there is none; the message lists what the nearest node has.
        """
        found = self._nodes.get(path)
        if found is None:
            self._refuse(path)
        return found

    def proof(self, path: str) -> RunProof:
        """The proof from a record (or node) up to the run root.

        Raises:
            InputError: as `node`.
        """
        node = self.node(path)
        levels: list[Level] = []
        child = path
        for parent_path in parent_paths(path):
            tree, places = self._entries(parent_path)
            index = places[child]
            levels.append(Level(index, tree.size, tree.inclusion_proof(index), parent_path))
            child = parent_path
        return RunProof(path, node.value, tuple(levels))

    def _entries(self, path: str) -> tuple[merkle.MerkleTree, Mapping[str, int]]:
        """A node's entries as a tree, and their places by path; kept for the next proof."""
        if path not in self._trees:
            children = self._nodes[path].children
            places = {child.path: at for at, child in enumerate(children)}
            self._trees[path] = merkle.MerkleTree(child.value for child in children), places
        return self._trees[path]

    def training_entries(self) -> list[bytes]:
        """The entries of ``training`` in order, 32 bytes each."""
        return [child.value for child in self._nodes["training"].children]

    def consistency(self, before_size: int) -> tuple[bytes, ...]:
        """Consistency proof from the first ``before_size`` entries of ``training`` to all.

        Raises:
            ValueError: ``before_size`` is negative or beyond the entries.
        """
        return merkle.consistency_proof(self.training_entries(), before_size)

    def is_prefix_of(self, other: MLProvenanceMerkleTree) -> Problem | None:
        """None where ``other`` only adds training entries to this tree; else what differs.

        That a producer's later statement goes on from its earlier one, the records tell: a
        tree has the digests alone.
        """
        for path in ("data", "model"):
            if self._nodes[path].value != other._nodes[path].value:
                return Problem(path, "differs from the earlier root")
        mine, theirs = self._nodes["training"].children, other._nodes["training"].children
        for at, entry in enumerate(mine):
            if at >= len(theirs):
                return Problem(entry.path, "was under the earlier root and is missing")
            if (entry.path, entry.value) != (theirs[at].path, theirs[at].value):
                moved = f"was entry {at} of training, where {theirs[at].path} is now"
                same = entry.path == theirs[at].path
                return Problem(entry.path, "differs from the earlier root" if same else moved)
        return None

    def prefix_proof(self, before: MLProvenanceMerkleTree) -> PrefixProof:
        """The proof that ``before`` is a prefix of this tree.

        Raises:
            ProofError: it is not; the message names the first difference.
        """
        problem = before.is_prefix_of(self)
        if problem is not None:
            raise ProofError(f"not a prefix: {problem}")
        size = len(before.training_entries())
        return PrefixProof(
            data=self._nodes["data"].value,
            model=self._nodes["model"].value,
            before_size=size,
            before_training=before._nodes["training"].value,
            before_producers=before._nodes["producers"].value,
            after_size=len(self.training_entries()),
            after_training=self._nodes["training"].value,
            after_producers=self._nodes["producers"].value,
            proof=self.consistency(size),
        )

    def as_dict(self) -> dict[str, object]:
        """The whole tree for reports: `MerkleNode.as_dict` of the root."""
        return self.root_node.as_dict()

    def _refuse(self, path: str) -> NoReturn:
        parts = path.split("/")
        near = self.root_node
        while parts:
            parts.pop()
            near = self._nodes.get("/".join(parts), near)
            if near is not self.root_node and near.kind in ("node", "empty"):
                break
        names = [child.path.removeprefix(f"{near.path}/") for child in near.children]
        listed = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if names[20:] else "")
        raise InputError(
            f"no node {path!r} in this run; {near.path or 'the run'} has {listed or 'no entries'}"
        )


def _node(path: str, children: list[MerkleNode]) -> MerkleNode:
    head, _, label = path.rpartition("/")
    if head == "training/epoch":
        label = f"epoch {label}"
    value = merkle.root([child.value for child in children])
    return MerkleNode(path, label or "run", "node" if children else "empty", value, tuple(children))


def _slot(path: str, digests: list[bytes] | None) -> MerkleNode:
    records = [
        MerkleNode(f"{path}/{at}", str(at), "record", digest)
        for at, digest in enumerate(digests or ())
    ]
    return _node(path, records)


def _single(path: str, digests: list[bytes] | None) -> list[MerkleNode]:
    """Records that stand directly under ``training``: the first has no number."""
    kind = path.rpartition("/")[2]
    return [
        MerkleNode(f"{path}/{at}" if at else path, f"{kind} {at}" if at else kind, "record", digest)
        for at, digest in enumerate(digests or ())
    ]
