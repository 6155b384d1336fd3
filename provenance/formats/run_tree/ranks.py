"""What the ranks of a run recorded of an epoch: shards that make tensors, and who is silent.

FROZEN FORMAT (docs/FORMAT.md, sections 3.3 and 11). Pure: bodies of records in, words out.

A *piece* is what a rank's record states of one tensor: a shard of it, or the whole. Shards cover
a tensor where along its first axis they are equal or follow one another, and those that are equal
there cover the rest of the axes so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from provenance.formats import merkle
from provenance.formats.fields import Fields

NAMED: Final = 20
"""How many ranks are named; the others are counted."""
Region = tuple[tuple[int, int], ...]
"""First index and end along each axis."""


class Piece(NamedTuple):
    """One tensor in one record: the shape of the whole, the region that the digest is of, and
    whether ranks share the tensor; else it is this rank's own."""

    rank: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    region: Region
    digest: str
    sharded: bool


def is_sharded(body: Mapping[str, Any]) -> bool:
    """Whether the body of a record of weights states a shard."""
    tensors = body.get("tensors")
    return isinstance(tensors, list) and any("shard" in t for t in tensors if isinstance(t, dict))


def state_root(digests: Mapping[str, bytes]) -> bytes:
    """The root of a state, 32 bytes, from the digests of its tensors by name: in the order of the
    names' UTF-8 bytes (section 3.3), whatever order a record lists them in."""
    return merkle.root([digests[name] for name in sorted(digests)])


def pieces_of(rank: int, body: Mapping[str, Any], file: str) -> list[Piece]:
    """The tensors of a record of weights. Raises FormatError: not as docs/FORMAT.md says, or a
    shard that reaches out of its tensor."""
    pieces = []
    for item in Fields.of(body, file).objects("tensors"):
        local = shape = item.items("shape", Fields.integer)
        offset = (0,) * len(local)
        if "shard" in item.raw:
            shard = item.object("shard", "global_shape", "offset")
            shape, offset = (shard.items(key, Fields.integer) for key in ("global_shape", "offset"))
            if not len(local) == len(shape) == len(offset) or any(
                first + size > most for first, size, most in zip(offset, local, shape, strict=True)
            ):
                shard.refuse("offset", f"a shard of {list(local)} inside of {list(shape)}")
        region = tuple((first, first + size) for first, size in zip(offset, local, strict=True))
        name, dtype, digest = map(item.text, ("name", "dtype", "digest"))
        pieces.append(Piece(rank, name, dtype, shape, region, digest, "shard" in item.raw))
    return pieces


def by_name(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    """The pieces of each tensor by rank, the tensors by the UTF-8 bytes of their names."""
    ordered = sorted(pieces, key=lambda piece: (piece.name, piece.rank))
    return {name: list(own) for name, own in groupby(ordered, key=lambda piece: piece.name)}


def tensor_problem(pieces: Sequence[Piece]) -> str | None:
    """Why the pieces of a tensor that ranks share are not the whole of it, once; None where they
    are. Of a tensor that each rank has for itself: how two of them differ."""
    first, at = pieces[0], dict[Region, Piece]()
    for piece in pieces:
        if (piece.dtype, piece.shape) != (first.dtype, first.shape):
            return (
                f"rank {first.rank} states {first.dtype} {list(first.shape)}, rank {piece.rank} "
                f"{piece.dtype} {list(piece.shape)}"
            )
        other = at.setdefault(piece.region, piece)
        if other.digest != piece.digest:
            return f"ranks {other.rank} and {piece.rank} differ in {shown(piece.region)}"
    regions = [region for region in at if all(begin < end for begin, end in region)]
    found = _uncovered(first.shape, regions) if 0 not in first.shape else None
    if found is None:
        return None
    region, is_hole = found
    return f"{'no rank has' if is_hole else 'shards overlap in'} {shown(region)}"


def _uncovered(shape: tuple[int, ...], regions: list[Region]) -> tuple[Region, bool] | None:
    """The first region that no or several regions have, and whether it is none; regions are not
    empty and no two are the same."""
    if not shape:
        return None if regions else ((), True)
    upto, rest = 0, tuple((0, size) for size in shape[1:])
    for (begin, end), own in groupby(sorted(regions), key=lambda region: region[0]):
        if begin != upto:
            return ((min(begin, upto), max(begin, upto)), *rest), begin > upto
        inner = _uncovered(shape[1:], [region[1:] for region in own])
        if inner is not None:
            return ((begin, end), *inner[0]), inner[1]
        upto = end
    return None if upto == shape[0] else (((upto, shape[0]), *rest), True)


def shown(region: Region) -> str:
    """A region as Python slices it: ``[0:2, 0:5]``."""
    return f"[{', '.join(f'{begin}:{end}' for begin, end in region)}]"


def silent_ranks(metrics: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """Epochs of which ranks recorded no metrics, though they did of others, and these ranks.

    Args:
        metrics: Epoch and rank of each record.
    """
    ranks_of: dict[int, set[int]] = {}
    for epoch, rank in metrics:
        ranks_of.setdefault(epoch, set()).add(rank)
    everybody = set().union(*ranks_of.values())
    silent = [(epoch, sorted(everybody - ranks)) for epoch, ranks in sorted(ranks_of.items())]
    return stretches((epoch, f"no metrics from {named_ranks(who)}") for epoch, who in silent if who)


def stretches(lines: Iterable[tuple[int, str]]) -> list[tuple[str, str]]:
    """Epochs and a line about each, in order: ``epoch 3`` or ``epochs 3 to 7`` for those that
    follow one another with the same line."""
    found: list[tuple[int, int, str]] = []
    for epoch, line in lines:
        if found and found[-1][1:] == (epoch - 1, line):
            found[-1] = found[-1][0], epoch, line
        else:
            found.append((epoch, epoch, line))
    return [
        (f"epoch {first}" if first == last else f"epochs {first} to {last}", line)
        for first, last, line in found
    ]


def named_ranks(ranks: Sequence[int], more: int = 0) -> str:
    """Ranks, at most ``NAMED`` of them, and how many more, in words; empty where there are none."""
    ranks, more = ranks[:NAMED], more + len(ranks[NAMED:])
    rest = f" and {more} more" if more else ""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}{rest}" if ranks else ""
