"""Proofs over a run tree: a record under a run root, and one run root before another.

WARNING: FROZEN FORMAT. The paths, the fixed slots and the JSON of these proofs are what an
auditor checks in ten years. Add a version; never change what an existing one means. No I/O,
no clock, no randomness. The tree's shape is drawn in `tree`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provenance.errors import ProofError, TooLargeError
from provenance.formats import merkle
from provenance.formats.fields import Fields, as_json

PROOF_VERSION: Final = 1
MAX_PROOF_BYTES: Final = 262_144

ROOT_CHILDREN: Final = ("data", "model", "training", "producers")
SLOTS: Final = {"data": ("train", "test"), "model": ("architecture", "weights")}
EPOCH_CHILDREN: Final = ("state", "metrics", "privacy")
SINGLE_KINDS: Final = ("config", "results")
KINDS: Final = frozenset(
    {f"{top}.{slot}" for top, slots in SLOTS.items() for slot in slots}.union(
        EPOCH_CHILDREN, SINGLE_KINDS
    )
)
"""The record kinds that are leaves of the run tree."""

_NUMBER: Final = "(?:0|[1-9][0-9]{0,15})"
_PATH: Final = re.compile(
    rf"|data(?:/(?:train|test)(?:/{_NUMBER})?)?"
    rf"|model(?:/(?:architecture|weights)(?:/{_NUMBER})?)?"
    r"|training(?:/(?:config|results)(?:/[1-9][0-9]{0,15})?)?"
    rf"|training/epoch/{_NUMBER}(?:/(?:state|metrics|privacy)(?:/{_NUMBER})?)?"
    rf"|producers(?:/{_NUMBER})?"
)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a `RunProof`: entry ``index`` of the ``size`` entries of ``node_path``."""

    index: int
    size: int
    proof: tuple[bytes, ...]
    node_path: str


@dataclass(frozen=True, slots=True)
class RunProof:
    """The inclusion of a record (or node) under a run root, level by level.

    Args:
        path: Path of what is proven.
        leaf_digest: Its value, 32 bytes: a record's digest, a node's root.
        levels: From the leaf's parent up to the root; none where the path is the root.
    """

    path: str
    leaf_digest: bytes
    levels: tuple[Level, ...]

    def steps(self) -> tuple[merkle.Step, ...]:
        """The walk from ``leaf_digest`` to the run root, one SHA-256 each.

        Raises:
            ProofError: a level that cannot be; the message names the node.
        """
        steps: list[merkle.Step] = []
        for level in self.levels:
            try:
                steps += merkle.path_steps(level.index, level.size, level.proof)
            except ProofError as error:
                raise ProofError(f"{level.node_path or 'run'}: {error}") from None
        return tuple(steps)

    def root(self) -> bytes:
        """The run root that this proof leads to; ``ProofError`` as `steps`."""
        return merkle.apply_steps(self.leaf_digest, self.steps())

    def verify(self, root: bytes) -> None:
        """Check that the value stands under ``root``, and where its path says.

        Where the path does not fix the entry (which entry of ``training`` an epoch is), the
        record's own bytes say which epoch it is of: compare them with the path as well.

        Raises:
            ProofError: it does not; the message names the path and what failed.
        """
        if not _PATH.fullmatch(self.path):
            raise ProofError(f"not a path of a run tree: {self.path!r}")
        parents = parent_paths(self.path)
        if [level.node_path for level in self.levels] != parents:
            raise ProofError(f"{self.path or 'run'}: levels must be those of {parents}")
        for child, level in zip([self.path, *parents], self.levels, strict=False):
            _check_place(child, level)
        got = self.root()
        if got != root:
            raise ProofError(
                f"{self.path or 'run'}: run root is {root.hex()}, but the proof leads to"
                f" {got.hex()}"
            )

    def to_json(self) -> dict[str, object]:
        """A JSON object, bytes as lowercase hex; ``v`` is 1."""
        levels = [{"node_path": level.node_path, **as_json(level)} for level in self.levels]
        return {"v": PROOF_VERSION, **as_json(self), "levels": levels}

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, object]) -> RunProof:
        """Decode `to_json`, as text or as the object that JSON gave.

        Raises:
            UnknownVersionError: other ``v``.
            TooLargeError: text of more than 256 KiB.
            FormatError: a key that is missing, unknown or of another type; names it.
        """
        if isinstance(document, Mapping):
            top = Fields.of(document, "proof")
        elif len(document) > MAX_PROOF_BYTES:
            raise TooLargeError(f"proof has more than {MAX_PROOF_BYTES} bytes")
        else:
            top = Fields.parse(document, "proof")
        top.version(PROOF_VERSION)
        top.only("v", "path", "leaf_digest", "levels")
        levels = tuple(
            Level(
                level.integer("index"),
                level.integer("size"),
                level.hashes("proof"),
                level.matching("node_path", _PATH, "a path of a run tree"),
            )
            for level in top.objects("levels", "node_path", "index", "size", "proof")
        )
        path = top.matching("path", _PATH, "a path of a run tree")
        return cls(path, top.hex("leaf_digest", 32), levels)


@dataclass(frozen=True, slots=True)
class PrefixProof:
    """That one run root is a prefix of a later one: same data, same model, training grown.

    Args:
        data, model: Value of the node that both runs share, 32 bytes.
        before_size, before_training: Entries and root of ``training`` at the earlier root.
        before_producers: Value of ``producers`` there.
        after_size, after_training, after_producers: The same at the later root.
        proof: Consistency proof between them (RFC 9162 section 2.1.4).
    """

    data: bytes
    model: bytes
    before_size: int
    before_training: bytes
    before_producers: bytes
    after_size: int
    after_training: bytes
    after_producers: bytes
    proof: tuple[bytes, ...]

    def verify(self, before_root: bytes, after_root: bytes) -> None:
        """Check it against two run roots; ``ProofError`` naming what failed."""
        pairs = (
            ("before", before_root, self.before_training, self.before_producers),
            ("after", after_root, self.after_training, self.after_producers),
        )
        for name, wanted, training, producers in pairs:
            if merkle.root([self.data, self.model, training, producers]) != wanted:
                raise ProofError(f"prefix: the proof does not lead to the {name} root")
        merkle.verify_consistency(
            self.before_size,
            self.before_training,
            self.after_size,
            self.after_training,
            self.proof,
        )


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
        if (level.index, level.size) != (fixed.index(label), len(fixed)):
            raise ProofError(
                f"{child}: is entry {fixed.index(label)} of {len(fixed)}, the proof says"
                f" {level.index} of {level.size}"
            )
    elif not child.startswith(("training/epoch/", "training/results")) or parent != "training":
        wanted = int(label) if label.isdecimal() else 0  # training/config is the first entry
        if level.index != wanted:
            raise ProofError(f"{child}: is entry {wanted}, the proof says {level.index}")
