"""Item sets: which items a dataset has, as a record states it, and proofs about single items.

WARNING: FROZEN FORMAT. docs/FORMAT.md, section 3.6. No I/O, no clock, no randomness.

::

    item digest = BLAKE3 in keyed mode (BLAKE3 specification, section 2.3), 32 bytes
    set         = the distinct digests of a dataset's items, ascending as unsigned numbers
    leaf        = four digests of the set that follow one another; the last leaf has what is left
    root        = MTH over the leaves (RFC 6962)
    record      = SHA-256("ml-provenance/item-key/v1" || 00 || key): the key itself stays at home

A digest is in the set where a leaf under the root has it. It is not where the set has no place for
it: two digests that follow one another stand on either side of it, or it is below the first or
above the last.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, get_args
from uuid import UUID

from provenance.errors import FormatError, ProofError
from provenance.formats.fields import Fields, as_json
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import HASH_SIZE, root_of_some
from provenance.formats.note import encode_base64

VERSION: Final = 1
LEAF_DIGESTS: Final = 4
"""Two levels fewer of a tree, whose hashes they weigh as much as: a proof is no longer."""
MAX_PROOF_BYTES: Final = 64 << 20
MAX_FORM_NODES: Final = 64
"""A form of more is not stated."""
Split = Literal["train", "test"]
SPLITS: Final = get_args(Split)
Claim = Literal["in", "not-in"]
CLAIMS: Final = get_args(Claim)
_ROOT: Final = "mth-sha256:"
_KEY: Final = b"ml-provenance/item-key/v1\x00"


def key_commitment(key: bytes) -> bytes:
    """What a record says of the item key: 32 bytes that tell nothing of it."""
    return hashlib.sha256(_KEY + key).digest()


def leaf_count(size: int) -> int:
    """Leaves of a set of ``size`` digests."""
    return -(-size // LEAF_DIGESTS)


@dataclass(frozen=True, slots=True)
class FormNode:
    """One node of an item: its place, such as ``[]`` or ``["text"]``, its type and shape, as in the
    header of an element (docs/FORMAT.md, 3.4)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


Form = tuple[FormNode, ...]


@dataclass(frozen=True, slots=True)
class ItemSet:
    """What a record of data states of its items.

    Attributes:
        root: MTH over the leaves, 32 bytes.
        size: Distinct digests; ``count``: items.
        key: The key's commitment, 32 bytes.
        form: The nodes that every item has, each of that type, or NULL; None where items differ.
    """

    root: bytes
    size: int
    count: int
    key: bytes
    form: Form | None

    def as_fields(self) -> dict[str, Any]:
        """The member ``items`` of the record's body."""
        root = _ROOT + self.root.hex()
        return {"v": VERSION, **as_json(self), "root": root}

    @classmethod
    def of(cls, body: Mapping[str, Any], file: str) -> ItemSet | None:
        """What the body of a record of data states; None where it states no set. ``FormatError``:
        not as `as_fields` writes it, or it cannot be."""
        if "items" not in body:
            return None
        top = Fields.of(body, file)
        items = top.object("items")
        items.version(VERSION)
        items.only("v", "root", "size", "count", "key", "form")
        prefixed = items.text("root")
        root = Fields.of({"root": prefixed.removeprefix(_ROOT)}, file).hex("root", HASH_SIZE)
        if not prefixed.startswith(_ROOT):
            items.refuse("root", f"{_ROOT} and 64 hex digits")
        count = items.integer("count")
        if count != body.get("count"):
            items.refuse("count", f"the record's own, {str(body.get('count'))[:20]}")
        size = items.integer("size", min(count, 1), count)
        form = items.maybe("form", lambda key: _form(items, str(key)))
        return cls(root, size, count, items.hex("key", HASH_SIZE), form)


def _form(items: Fields, key: str) -> Form:
    nodes = items.objects(key, "name", "dtype", "shape")
    if not 0 < len(nodes) <= MAX_FORM_NODES:
        items.refuse(key, f"1 to {MAX_FORM_NODES} nodes, or null")
    return tuple(
        FormNode(node.text("name"), node.text("dtype"), node.items("shape", Fields.integer))
        for node in nodes
    )


@dataclass(frozen=True, slots=True)
class ItemProof:
    """That items are in a set, or none of them is.

    Attributes:
        record: SHA-256 of the record that states the set.
        key: The item key: who has the proof can make the digests of items.
        leaves: Which leaves are shown, ascending.
        digests: Those of all shown leaves, in order; 32 bytes each.
        siblings: The hashes of `merkle.ranges_beside` them; 32 bytes each.
    """

    run: UUID
    split: Split
    record: bytes
    claim: Claim
    key: bytes = field(repr=False)
    leaves: tuple[int, ...] = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    siblings: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        digests, siblings = (encode_base64(b"".join(of)) for of in (self.digests, self.siblings))
        return canonical_json(
            {"v": VERSION, **as_json(self), "digests": digests, "siblings": siblings}
        )

    @classmethod
    def decode(cls, data: bytes, file: str) -> ItemProof:
        """Read what `encode` writes, and nothing else; ``FormatError``."""
        top = Fields.parse_canonical(data, file, VERSION, limit=MAX_PROOF_BYTES)
        top.only("v", "run", "split", "record", "claim", "key", "leaves", "digests", "siblings")
        leaves = top.items("leaves", Fields.integer)
        if any(low >= high for low, high in pairwise(leaves)):
            top.refuse("leaves", "numbers that ascend")
        return cls(
            top.uuid("run"),
            top.one_of("split", SPLITS),  # type: ignore[arg-type]  # one of the two
            top.hex("record", HASH_SIZE),
            top.one_of("claim", CLAIMS),  # type: ignore[arg-type]  # one of the two
            top.hex("key", HASH_SIZE),
            leaves,
            _hashes(top, "digests"),
            _hashes(top, "siblings"),
        )

    def shown(self, items: ItemSet) -> Shown:
        """The part of the set that the proof shows. ``ProofError``: the key is not the record's, or
        what is shown is not under its root."""
        if key_commitment(self.key) != items.key:
            raise ProofError("key: is not the one that the record commits to")
        leaves: dict[int, bytes] = {}
        places: list[int] = []
        for leaf in self.leaves:
            first = leaf * LEAF_DIGESTS
            end = min(first + LEAF_DIGESTS, items.size)
            leaves[leaf] = b"".join(self.digests[len(places) : len(places) + end - first])
            places += range(first, end)
        if len(self.digests) != len(places):
            found = f"found {len(self.digests)} for {len(self.leaves)} leaves"
            raise ProofError(f"digests: {found} of a set of {items.size}, expected {len(places)}")
        if any(low >= high for low, high in pairwise(self.digests)):
            raise ProofError("digests: do not ascend, as those of a set do")
        root = root_of_some(leaves, leaf_count(items.size), self.siblings)
        if root != items.root:
            raise ProofError(
                f"siblings: lead to root {root.hex()}, the record states {items.root.hex()}"
            )
        return Shown(items.size, places, self.digests)


@dataclass(frozen=True, slots=True)
class Shown:
    """Some digests of a set of ``size``, each with its place in it; both ascend."""

    size: int
    places: Sequence[int]
    digests: Sequence[bytes]

    def claim(self, digest: bytes) -> Claim | None:
        """What this says of a digest; None where it says nothing."""
        at = bisect_left(self.digests, digest)
        if at < len(self.digests) and self.digests[at] == digest:
            return "in"
        below = self.places[at - 1] if at else -1
        above = self.places[at] if at < len(self.places) else self.size
        return "not-in" if above == below + 1 else None


def _hashes(top: Fields, key: str) -> tuple[bytes, ...]:
    text, expected = top.text(key), f"base64 of hashes of {HASH_SIZE} bytes"
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FormatError(f"{top.file}: {key}: found no base64, expected {expected}") from error
    if len(data) % HASH_SIZE or encode_base64(data) != text:
        raise FormatError(f"{top.file}: {key}: found {len(data)} bytes, expected {expected}")
    return tuple(data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE))
