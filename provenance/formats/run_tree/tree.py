"""The run tree: one Merkle tree for all that a run recorded.

docs/FORMAT.md, sections 5 and 5.3. ::

    run root = MTH([data, model, training, producers])
      data      = MTH([train, test])                each the MTH of its records
      model     = MTH([architecture, weights])      each the MTH of its records
      training  = MTH([config..., epoch 1, epoch 2, ...,
                       results..., steps..., artifact..., note..., seed..., host...])
        epoch   = MTH([state, metrics, privacy])    each the MTH of its records
      producers = MTH([producer, producer, ...])    by their 16 bytes

MTH is RFC 6962's Merkle Tree Hash (`merkle`). A record enters as its digest, a node as its root,
a producer as the digest of its statement over the records that the seal covers, so that control
records, which are no leaves, are under the root as well. Records of one slot stand by rank (none
first), then by ``order`` (ts, producer, seq), then by digest; epochs by number.

Paths: ``""`` is the root, then ``data/train/0``, ``model/weights/0``, ``training/config``,
``training/epoch/3/metrics/0``, ``training/results``, ``producers/0``. The last number is a
position in the slot. What stands in ``training`` itself has one from its second record on:
``training/config/1``, ``training/results/1``, ``training/steps/1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, NoReturn

from provenance.errors import InputError, ProofError
from provenance.formats import merkle
from provenance.formats.fields import as_json

PROOF_VERSION: Final = 1
ROOT_CHILDREN: Final = ("data", "model", "training", "producers")
SLOTS: Final = {"data": ("train", "test"), "model": ("architecture", "weights")}
EPOCH_CHILDREN: Final = ("state", "metrics", "privacy")
LAST_KINDS: Final = ("results", "steps", "artifact", "note", "seed", "host")
"""Those whose records close ``training``, slot by slot."""
SINGLE_KINDS: Final = ("config", *LAST_KINDS)
"""Those whose records stand in ``training`` itself."""
KINDS: Final = frozenset(
    [*(f"{top}.{slot}" for top in SLOTS for slot in SLOTS[top]), *EPOCH_CHILDREN, *SINGLE_KINDS]
)
"""The record kinds that are leaves of the run tree."""

_NUMBER: Final = "(?:0|[1-9][0-9]{0,15})"
_PATH: Final = re.compile(
    rf"|data(?:/(?:train|test)(?:/{_NUMBER})?)?"
    rf"|model(?:/(?:architecture|weights)(?:/{_NUMBER})?)?"
    rf"|training(?:/(?:{'|'.join(SINGLE_KINDS)})(?:/[1-9][0-9]{{0,15}})?)?"
    rf"|training/epoch/{_NUMBER}(?:/(?:state|metrics|privacy)(?:/{_NUMBER})?)?"
    rf"|producers(?:/{_NUMBER})?"
)

_ANYWHERE: Final = tuple(f"training/{name}" for name in ("epoch/", *LAST_KINDS))
"""How paths begin whose place in ``training`` depends on what else the run recorded."""


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
        children = [child.as_dict() for child in self.children]
        shown = {"path": self.path, "label": self.label, "kind": self.kind}
        return {**shown, "value": self.value.hex(), "children": children}


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a `RunProof`: entry ``index`` of the ``size`` entries of ``node_path``."""

    index: int
    size: int
    proof: tuple[bytes, ...]
    node_path: str


@dataclass(frozen=True, slots=True)
class RunProof:
    """The inclusion of a record (or node) under a run root, level by level from its parent up; its
    ``leaf_digest`` is a record's digest or a node's root."""

    path: str
    leaf_digest: bytes
    levels: tuple[Level, ...]

    def steps(self) -> tuple[merkle.Step, ...]:
        """The walk from ``leaf_digest`` to the run root; ``ProofError`` names a node whose level
        cannot be."""
        steps: list[merkle.Step] = []
        for level in self.levels:
            try:
                steps += merkle.path_steps(level.index, level.size, level.proof)
            except ProofError as error:
                raise ProofError(f"{level.node_path or 'run'}: {error}") from None
        return tuple(steps)

    def verify(self, root: bytes) -> None:
        """Check that the value stands under ``root``, and where its path says, or ``ProofError``.
        Where the path does not fix the entry (which entry of ``training`` an epoch is), the
        record's own bytes say which epoch it is of: compare them with the path as well."""
        if not _PATH.fullmatch(self.path):
            raise ProofError(f"not a path of a run tree: {self.path!r}")
        parents = parent_paths(self.path)
        if [level.node_path for level in self.levels] != parents:
            raise ProofError(f"{self.path or 'run'}: levels must be those of {parents}")
        for child, level in zip([self.path, *parents], self.levels, strict=False):
            _check_place(child, level)
        got = merkle.apply_steps(self.leaf_digest, self.steps())
        if got != root:
            roots = f"run root is {root.hex()}, but the proof leads to {got.hex()}"
            raise ProofError(f"{self.path or 'run'}: {roots}")

    def to_json(self) -> dict[str, object]:
        """A JSON object, bytes as lowercase hex; ``v`` is 1."""
        levels = [{"node_path": level.node_path, **as_json(level)} for level in self.levels]
        return {"v": PROOF_VERSION, **as_json(self), "levels": levels}


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

        def slot(path: str, kind: str, epoch: int | None = None) -> MerkleNode:
            digests = enumerate(slots.get((kind, epoch), ()))
            return _node(path, [MerkleNode(f"{path}/{n}", str(n), "record", d) for n, d in digests])

        tops = [
            _node(top, [slot(f"{top}/{name}", f"{top}.{name}") for name in names])
            for top, names in SLOTS.items()
        ]
        epochs = []
        for epoch in sorted({epoch for _, epoch in slots if epoch is not None}):
            path = f"training/epoch/{epoch}"
            kinds = [slot(f"{path}/{kind}", kind, epoch) for kind in EPOCH_CHILDREN]
            epochs.append(_node(path, kinds))
        config, *last = (_single(kind, slots.get((kind, None), [])) for kind in SINGLE_KINDS)
        signed = [
            MerkleNode(f"producers/{at}", f"producer {at}", "producer", digest)
            for at, digest in enumerate(producers)
        ]
        training = _node("training", [*config, *epochs, *chain.from_iterable(last)])
        self.root_node: Final = _node("", [*tops, training, _node("producers", signed)])
        self.root: Final[bytes] = self.root_node.value
        self._nodes: Final = {node.path: node for node in self.root_node.walk()}
        self._trees: Final[dict[str, tuple[merkle.MerkleTree, Mapping[str, int]]]] = {}

    def node(self, path: str) -> MerkleNode:
        """The node at a path; ``InputError`` lists what the nearest node has."""
        found = self._nodes.get(path)
        if found is None:
            self._refuse(path)
        return found

    def proof(self, path: str) -> RunProof:
        """The proof from a record (or node) up to the run root; ``InputError`` as `node`."""
        node = self.node(path)
        levels: list[Level] = []
        child = path
        for parent in parent_paths(path):
            tree, places = self._entries(parent)
            index = places[child]
            levels.append(Level(index, tree.size, tree.inclusion_proof(index), parent))
            child = parent
        return RunProof(path, node.value, tuple(levels))

    def _entries(self, path: str) -> tuple[merkle.MerkleTree, Mapping[str, int]]:
        """A node's entries as a tree, and their places by path; kept for the next proof."""
        if path not in self._trees:
            children = self._nodes[path].children
            places = {child.path: at for at, child in enumerate(children)}
            self._trees[path] = merkle.MerkleTree(child.value for child in children), places
        return self._trees[path]

    def as_dict(self) -> dict[str, object]:
        """The whole tree for reports."""
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


def _single(kind: str, digests: list[bytes]) -> list[MerkleNode]:
    """Records that stand directly under ``training``: the first has no number."""
    names = [f"{kind}/{at}" if at else kind for at in range(len(digests))]
    return [
        MerkleNode(f"training/{name}", name.replace("/", " "), "record", digest)
        for name, digest in zip(names, digests, strict=True)
    ]


def parent_paths(path: str) -> list[str]:
    """Paths of the nodes above ``path``, nearest first; the root is ``""``."""
    parents: list[str] = []
    while path:
        parts = path.split("/")
        flat = parts[0] == "training" and len(parts) == 3  # config/1, epoch/3, results/1
        path = "training" if flat else "/".join(parts[:-1])
        parents.append(path)
    return parents


def _check_place(child: str, level: Level) -> None:
    """Refuse a level whose index or size cannot be that of ``child`` in its parent."""
    parent, label = level.node_path, child.rpartition("/")[2]
    fixed: tuple[str, ...] = SLOTS.get(parent, ROOT_CHILDREN if not parent else ())
    if parent.startswith("training/epoch/") and parent.count("/") == 2:
        fixed = EPOCH_CHILDREN
    if fixed:
        wanted, stated = (fixed.index(label), len(fixed)), (level.index, level.size)
        if stated != wanted:
            (at, size), (index, of) = wanted, stated
            raise ProofError(f"{child}: is entry {at} of {size}, the proof says {index} of {of}")
    elif not child.startswith(_ANYWHERE) or parent != "training":
        entry = int(label) if label.isdecimal() else 0  # training/config is the first entry
        if level.index != entry:
            raise ProofError(f"{child}: is entry {entry}, the proof says {level.index}")
