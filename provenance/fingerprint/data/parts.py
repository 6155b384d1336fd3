"""A dataset's digest, and those of its parts, as a record has them.

WARNING: FROZEN FORMAT, as in datasets.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.file_tree import FileLeaf
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats import merkle

MAX_LISTED_PARTS: Final = 4096
"""Parts that a record lists; the root commits to all of them."""


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """One array, column, sequence or file of a dataset.

    Args:
        name: Array or column name, or POSIX path.
        dtype: Element type; ``SEQUENCE``, ``FILE`` or ``DIGEST`` where it is no array.
        shape: Rows (or elements) first; a file has none.
        nbytes: Bytes that were hashed, headers left out.
        digest: ``mth-sha256:<hex>`` of the blocks or elements; a file's content digest.
        leaf: Leaf data of this part in the dataset's tree.
        leaves: Leaf data of the part's own tree (blocks or elements); a file has none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str
    leaf: bytes = field(repr=False)
    leaves: tuple[bytes, ...] = field(repr=False)

    def as_fields(self) -> dict[str, Any]:
        """The part as plain JSON values."""
        named = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return named | {"bytes": self.nbytes, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class DatasetDigest:
    """The digest of a dataset.

    Args:
        kind: ``arrays``, ``table``, ``folder``, ``files``, ``torch``, ``sequence``, or
            ``digest`` for one that was handed in ready-made; ``stream`` for items that came
            one by one.
        root: Merkle Tree Hash over the parts' leaves; 32 bytes.
        algorithm: Content hash of blocks, elements and files.
        count: Rows (of the first part), elements or files; 1 for a ready-made digest.
        parts: The parts in the order of the tree.
        left_out: Entries of a scikit-learn Bunch that are no data, such as its description.
        varies: Items that were read twice differed, as with random augmentation.
    """

    kind: str
    root: bytes
    algorithm: str
    count: int
    parts: tuple[DatasetPart, ...]
    left_out: tuple[str, ...] = ()
    varies: bool = False

    def __str__(self) -> str:
        return f"{ROOT_ALGORITHM}:{self.root.hex()}"

    @property
    def nbytes(self) -> int:
        """Bytes that were hashed, headers left out; 0 for a ready-made digest."""
        return sum(part.nbytes for part in self.parts)

    def as_fields(self) -> dict[str, Any]:
        """The dataset as plain JSON values (str, int, list), for a record.

        Lists the first ``MAX_LISTED_PARTS`` parts; ``parts_total`` counts all. ``left_out`` and
        ``varies`` are there where there is something to say.
        """
        notes: dict[str, Any] = {"left_out": list(self.left_out)} if self.left_out else {}
        if self.varies:
            notes["varies"] = True
        return {
            **notes,
            "kind": self.kind,
            "algorithm": self.algorithm,
            "root": str(self),
            "count": self.count,
            "bytes": self.nbytes,
            "parts_total": len(self.parts),
            "parts": [part.as_fields() for part in self.parts[:MAX_LISTED_PARTS]],
        }


def dataset_of(
    kind: str, algorithm: str, count: int, parts: Sequence[DatasetPart]
) -> DatasetDigest:
    """A dataset of these parts."""
    root = merkle.root([part.leaf for part in parts])
    return DatasetDigest(kind, root, algorithm, count, tuple(parts))


def files_dataset(
    kind: str, where: str, files: list[FileLeaf], factory: HashFactory
) -> DatasetDigest:
    """A dataset of files; ``InputError`` naming ``where`` they are when all are empty."""
    if not any(file.size for file in files):
        raise InputError(f"data {where!r}: empty, expected at least one file with content")
    parts = [
        DatasetPart(file.path, "FILE", (), file.size, str(file.digest), file.data(), ())
        for file in files
    ]
    return dataset_of(kind, factory.algorithm, len(parts), parts)


def rows_dataset(kind: str, parts: list[DatasetPart], factory: HashFactory) -> DatasetDigest:
    """A dataset of arrays, columns and sequences; ``InputError`` naming one without rows."""
    if not parts:
        raise InputError("data: empty, expected at least one row")
    for part in parts:
        if part.shape[0] == 0:
            raise InputError(f"data part {part.name!r}: empty, expected at least one row")
    return dataset_of(kind, factory.algorithm, parts[0].shape[0], parts)


def tree_part(
    name: str, dtype: str, shape: tuple[int, ...], nbytes: int, leaves: list[bytes]
) -> DatasetPart:
    """A part whose tree has these leaves."""
    root = merkle.root(leaves)
    digest = f"{ROOT_ALGORITHM}:{root.hex()}"
    return DatasetPart(name, dtype, shape, nbytes, digest, root, tuple(leaves))


def stream_digest(root: bytes, count: int, nbytes: int, factory: HashFactory) -> DatasetDigest:
    """The digest of items that came one by one, from the Merkle Tree Hash of their digests: the
    same root as the list of them. ``InputError`` where none came."""
    digest = f"{ROOT_ALGORITHM}:{root.hex()}"
    part = DatasetPart("items", "SEQUENCE", (count,), nbytes, digest, root, ())
    return rows_dataset("stream", [part], factory)
