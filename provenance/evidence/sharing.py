"""Which tensors two states have in common, by their digests in records alone.

A tensor's digest covers its name, element type, shape and elements (docs/FORMAT.md, 3.2), so equal
digests are a proof of equal tensors, bit for bit. Of a tensor under another name (`aliases`) they
prove nothing: that takes the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from provenance.errors import FormatError
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.ranks import Piece, pieces_of, shown

ADAPTER: Final = re.compile(r"(.+\.)?lora_(A|B|embedding_A|embedding_B)(\..+)?")
"""Names that PEFT has for the tensors of a LoRA adapter."""
_PART: Final = re.compile(r"lora_(?:embedding_)?(A|B)(?:\.|$)")
_NAMES_SHOWN: Final = 5


class TensorState(NamedTuple):
    """The tensors of a state by name (of a shard: name and region), and their other names."""

    pieces: Mapping[str, Piece]
    aliases: Mapping[str, Sequence[str]]


class Sharing(NamedTuple):
    """What a child's state has of its parent's. The first four are of names that both have.

    Attributes:
        child, parent: Which state it is, such as ``epoch 3``.
        equal: Names of tensors with the same digest.
        changed: Of the same shape and element type, with other elements.
        retyped: Of the same shape and another element type.
        reshaped: Of another shape.
        renamed: The child's names of tensors of the same shape and element type that the parent has
            under another one: their elements are not compared.
        added, removed: The rest of the child's, and of the parent's.
        dtypes: Of those retyped, such as ``F32 -> I8``.
        problem: Why nothing can be said of the elements; None where it can.
    """

    child: str
    parent: str
    equal: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """Those added that have an adapter's name."""
        return tuple(name for name in self.added if ADAPTER.fullmatch(name))

    @property
    def holds_parent(self) -> bool:
        """Whether the child has all of the parent's tensors, and beside them an adapter alone."""
        others = (*self.changed, *self.retyped, *self.reshaped, *self.renamed, *self.removed)
        return bool(self.equal) and not others and len(self.adapters) == len(self.added)

    @property
    def differs_by_name_alone(self) -> bool:
        """Whether all of the parent's tensors are there, equal or under another name."""
        return not (*self.changed, *self.retyped, *self.reshaped, *self.removed)

    @property
    def unlike(self) -> bool:
        """Whether tensors can be compared, and none is the parent's in any name or type."""
        return bool(self.changed) and not (*self.equal, *self.retyped, *self.renamed)

    def contradicts(self, role: str | None) -> str | None:
        """Why a role cannot be, by these tensors; None where it can."""
        other = (*self.changed, *self.retyped, *self.reshaped)
        if role == "adapter-of" and other:
            return f"an adapter leaves the parent's tensors, {len(other)} differ: {_some(other)}"
        kept = (*self.equal, *self.changed)
        if role == "quantised" and kept and not (self.retyped or self.reshaped or self.added):
            return "what is quantised has other element types, all are the parent's"
        if role == "pruned" and self.equal and not (*other, *self.renamed, *self.removed):
            return "what is pruned has other entries, all tensors are the parent's, bit for bit"
        return None

    @property
    def line(self) -> str:
        """For people."""
        where = f"tensor by tensor, {self.child} against {self.parent}"
        if self.problem is not None:
            return f"{where}: not compared: {self.problem}"
        total = len((*self.equal, *self.changed, *self.retyped, *self.reshaped, *self.removed))
        total += len(self.renamed)
        new = len(self.added) - len(self.adapters)
        counts = (
            (len(self.changed), "changed"),
            (len(self.retyped), f"of the same shape in another type ({', '.join(self.dtypes)})"),
            (len(self.reshaped), "of another shape"),
            (len(self.renamed), "under another name, not compared (--model)"),
            (len(self.removed), "not there"),
            (len(self.adapters), "adapter tensors new"),
            (new, "new"),
        )
        equal = f"{len(self.equal)} of {total} tensors are the parent's, bit for bit"
        if not self.equal and total == len(self.renamed):
            equal = f"none of the parent's {total} tensors is there under its own name"
        if total == len(self.equal):
            equal = f"all {total} tensors of the parent are there, bit for bit"
        return f"{where}: " + ", ".join([equal, *(f"{n} {what}" for n, what in counts if n)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "adapters": self.adapters, "line": self.line}


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    listed = ", ".join(name[:60] for name in names[:_NAMES_SHOWN])
    return f"{listed}{f' and {more} more' if more > 0 else ''}"


def adapter_line(child: TensorState, parent: TensorState) -> str | None:
    """How the tensors of an adapter alone fit the parent's that they are for, by PEFT's names and
    shapes: ``B A`` has the shape of the tensor. None where the child is no adapter alone."""
    if not child.pieces or not all(map(ADAPTER.fullmatch, child.pieces)):
        return None
    fit: dict[str, set[str]] = {}
    for name, piece in child.pieces.items():
        before, part, _ = _PART.split(name, maxsplit=1)
        target = before.removeprefix("base_model.model.").removesuffix(".")
        names = (f"{target}.weight", f"{target}.base_layer.weight")
        whole = next((parent.pieces[n].shape for n in names if n in parent.pieces), ())
        shape = piece.shape
        if len(shape) != 2 or len(whole) != 2:
            continue
        if {"A": shape[1:] == whole[1:], "B": shape[:1] == whole[:1]}[part]:
            fit.setdefault(target, set()).add(part)
    pairs = sum(len(parts) == 2 for parts in fit.values())
    alone = f"an adapter alone of {len(child.pieces)} tensors"
    return f"{alone}; of the parent's {len(parent.pieces)} fit a pair of them: {pairs}"


def when(epoch: int | None) -> str:
    """``epoch 3``, or ``before training``."""
    return "before training" if epoch is None else f"epoch {epoch}"


def state_at(records: Iterable[Record], epoch: int | None) -> TensorState:
    """The tensors that the last record of each rank states of an epoch (None: before training); of
    a tensor that several have the lowest rank counts. Where they state a part of the model, the
    rest is that before training."""
    before: dict[int, Record] = {}
    own: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: record.order):
        if record.kind is Kind.WEIGHTS:
            before[record.rank] = record
        elif record.kind is Kind.STATE and record.epoch == epoch:
            own[record.rank] = record
    if epoch is None:
        own = before
    partial = any(_covers(record).get("only") for record in own.values())
    pieces: dict[str, Piece] = {}
    aliases: dict[str, Sequence[str]] = {}
    for ranks in (before, own) if partial else (own,):
        for _, record in sorted(ranks.items(), reverse=True):
            with suppress(FormatError):
                found = pieces_of(record.rank, record.body, "")
                pieces |= {p.name + shown(p.region) * p.sharded: p for p in found}
                aliases |= _aliases(record)
    return TensorState(dict(sorted(pieces.items())), aliases)


def newest_state(records: Collection[Record]) -> int | None:
    """The last epoch that has weights; None where those before training are all there are."""
    return max(
        (r.epoch for r in records if r.kind is Kind.STATE and r.epoch is not None), default=None
    )


def _covers(record: Record) -> Mapping[str, Any]:
    covers = record.body.get("covers")
    return covers if isinstance(covers, dict) else {}


def _aliases(record: Record) -> dict[str, Sequence[str]]:
    tensors = record.body.get("tensors")
    return {
        str(item.get("name")): [alias for alias in others if isinstance(alias, str)]
        for item in (tensors if isinstance(tensors, list) else ())
        if isinstance(item, dict) and isinstance(others := item.get("aliases"), list)
    }


def sharing(
    child: TensorState, parent: TensorState, of_child: str, of_parent: str
) -> Sharing | None:
    """The child's tensors held against the parent's; None where one of the two lists none."""
    mine, theirs = child.pieces, parent.pieces
    if not mine or not theirs:
        return None
    algorithms = [
        {piece.digest.partition(":")[0] for piece in pieces.values()} for pieces in (mine, theirs)
    ]
    if algorithms[0] != algorithms[1]:
        by = " and ".join(", ".join(sorted(own))[:64] for own in algorithms)
        return Sharing(of_child, of_parent, problem=f"their digests are by {by}")
    if not mine.keys() & theirs.keys() and {p.name for p in mine.values()} & {
        p.name for p in theirs.values()
    }:
        return Sharing(of_child, of_parent, problem="ranks share them in another way")
    found: dict[str, list[str]] = {"equal": [], "changed": [], "retyped": [], "reshaped": []}
    dtypes = dict[str, None]()
    for name in mine.keys() & theirs.keys():
        own, other = mine[name], theirs[name]
        if own.digest == other.digest:
            kind = "equal"
        elif own.shape != other.shape:
            kind = "reshaped"
        elif own.dtype != other.dtype:
            kind = "retyped"
            dtypes[f"{other.dtype} -> {own.dtype}"] = None
        else:
            kind = "changed"
        found[kind].append(name)
    added, removed = mine.keys() - theirs.keys(), theirs.keys() - mine.keys()
    renamed = dict(_renamed(child, parent, added, removed))
    return Sharing(
        of_child,
        of_parent,
        equal=tuple(sorted(found["equal"])),
        changed=tuple(sorted(found["changed"])),
        retyped=tuple(sorted(found["retyped"])),
        reshaped=tuple(sorted(found["reshaped"])),
        renamed=tuple(sorted(renamed)),
        added=tuple(sorted(added - renamed.keys())),
        removed=tuple(sorted(removed - {*renamed.values()})),
        dtypes=tuple(sorted(dtypes)),
    )


def _renamed(
    child: TensorState, parent: TensorState, added: Collection[str], removed: Collection[str]
) -> Iterable[tuple[str, str]]:
    """The child's name and the parent's of a tensor that either has as an alias of the other."""
    theirs: dict[str, list[str]] = {}
    for name in sorted(removed):
        for alias in parent.aliases.get(name, ()):
            theirs.setdefault(alias, []).append(name)
    taken = set[str]()
    for name in sorted(added):
        own = child.pieces[name][2:5]  # dtype, shape, region
        names = (*child.aliases.get(name, ()), *theirs.get(name, ()))
        left = (other for other in names if other in removed and other not in taken)
        other = next((other for other in left if own == parent.pieces[other][2:5]), None)
        if other is not None:
            taken.add(other)
            yield name, other
