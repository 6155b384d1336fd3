"""Which run a run continues: what it says, held against that run's weights.

From records alone; whether these were verified is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.ranks import is_sharded

_ID_CHARS: Final = 64


class Lineage(NamedTuple):
    """The run that a run says it continues.

    Attributes:
        run: Its id, as stated.
        epoch: The epoch whose weights are this run's initial ones; None where it is not known, or
            they are those before training.
        line: For people.
        matches: Whether the initial weights are of that run; None where that cannot be said.
        verified: Whether that run was verified in the same call, and holds.
    """

    run: str
    epoch: int | None
    line: str
    matches: bool | None = None
    verified: bool = False


def lineage(
    run: UUID, records: Collection[Record], parent: Collection[Record] | str | None
) -> Lineage | None:
    """What a run says that it continues; None where it says nothing.

    Args:
        records: The run's own, without late ones: a restart states initial weights of its own.
        parent: The weights of the run that it names, or why they cannot be read; None where that
            run is not known here.
    """
    named = _parents(records)
    if not named:
        return None
    name, stated = named[0]
    if len({other for other, _ in named}) > 1:
        runs = " and ".join(dict.fromkeys(other for other, _ in named))
        return Lineage(name, None, f"names several runs that it continues: {runs}")
    try:
        UUID(name)
    except ValueError:
        return Lineage(name, None, f"names {name!r} as the run that it continues: no run's id")
    if name == str(run):
        return Lineage(name, None, "names itself as the run that it continues")
    says = f"says that it continues run {name}"
    if parent is None:
        return Lineage(name, None, f"{says}, which is not known here")
    if isinstance(parent, str):
        return Lineage(name, None, f"{says}; not checked: {parent}")
    if not parent:
        return Lineage(name, None, f"{says}, whose weights are not here")
    own = [record for record in records if record.kind is Kind.WEIGHTS]
    if not own:
        return Lineage(name, None, f"{says}; its initial weights are not here")
    weights = "initial weights"
    if any(is_sharded(record.body) for record in own):
        weights = "the leader's shards of the initial weights"
    verdicts = _by_epoch(own, parent)
    equal = [epoch for epoch, verdict in verdicts.items() if verdict is True]
    if stated in equal:
        epoch = stated
    else:
        epoch = max((epoch for epoch in equal if epoch is not None), default=None)
    place = "its weights before training" if epoch is None else f"epoch {epoch}"
    if equal and stated in (None, epoch):
        return Lineage(name, epoch, f"continues run {name} from {place}: {weights} match", True)
    asked = list(verdicts.values())
    if stated is not None:
        says = f"{says} from epoch {stated}"
        asked = [verdicts[stated]] if stated in verdicts else []
    reason = next((verdict for verdict in asked if isinstance(verdict, str)), None)
    if reason is not None:
        line = f"{says}; its initial weights cannot be compared with those of that run: {reason}"
        return Lineage(name, None, line)
    if equal:
        return Lineage(name, epoch, f"{says}; its initial weights are those of {place}", False)
    if stated in verdicts and stated is not None:
        return Lineage(name, None, f"{says}; its initial weights are of another", False)
    # It may continue what the parent has no record of: a checkpoint between two epochs, a merged
    # model, one with a new head.
    line = f"{says}; its initial weights are of none of its recorded epochs"
    return Lineage(name, None, line + _in_common(own, parent))


def _parents(records: Iterable[Record]) -> list[tuple[str, int | None]]:
    """Id and epoch of what each configuration names."""
    bodies = [record.body.get("parent") for record in records if record.kind is Kind.CONFIG]
    found = []
    for own in bodies:
        if isinstance(own, dict) and isinstance(run := own.get("run"), str):
            epoch = own.get("epoch")
            with suppress(ValueError):
                run = str(UUID(run))
            found.append((run[:_ID_CHARS], epoch if type(epoch) is int else None))
    return found


def _by_epoch(own: Sequence[Record], parent: Collection[Record]) -> dict[int | None, bool | str]:
    """Of each epoch of the parent (None: before training) whether all of the run's initial weights
    are its weights, or why that cannot be said."""
    before = [record for record in parent if record.kind is Kind.WEIGHTS]
    rest = {item for record in before for item in _digests(record).items()}
    of_epoch: dict[int | None, list[Record]] = {}
    for record in parent:
        of_epoch.setdefault(record.epoch, []).append(record)
    found: dict[int | None, bool | str] = {}
    for epoch, others in of_epoch.items():
        verdicts = [_best([_same(mine, other, rest) for other in others]) for mine in own]
        open_ = next((verdict for verdict in verdicts if isinstance(verdict, str)), True)
        found[epoch] = False if False in verdicts else open_
    return found


def _in_common(own: Sequence[Record], parent: Iterable[Record]) -> str:
    """Of how many initial tensors an epoch of the parent has the name and the digest."""
    mine = {item for record in own for item in _digests(record).items()}
    theirs: dict[int, set[tuple[str, str]]] = {}
    for record in parent:
        epoch = -1 if record.epoch is None else record.epoch
        theirs.setdefault(epoch, set()).update(_digests(record).items())
    count, epoch = max((len(mine & items), epoch) for epoch, items in theirs.items())
    if not count:
        return ""
    of = "before training" if epoch < 0 else f"of epoch {epoch}"
    return f": {count} of {len(mine)} tensors are those {of}"


def _best(verdicts: Sequence[bool | str]) -> bool | str:
    """Of the records of one epoch one that is equal counts, then one that can be compared."""
    return True in verdicts or (False not in verdicts and verdicts[0])


def _same(own: Record, other: Record, rest: Collection[tuple[str, str]]) -> bool | str:
    """Whether two records state the same weights, or why that cannot be said.

    Args:
        rest: Name and digest of the parent's tensors before training: what a record of a part of
            the model (``covers.only``) leaves out.
    """
    root = own.body.get("root")
    if isinstance(root, str) and root == other.body.get("root"):
        return True
    algorithms = [str(record.body.get("algorithm"))[:_ID_CHARS] for record in (own, other)]
    if algorithms[0] != algorithms[1]:
        return f"their digests are by {algorithms[0]} and {algorithms[1]}"
    if is_sharded(own.body) or is_sharded(other.body):
        return "ranks share them in another way" if _places(own) != _places(other) else False
    if not any(_is_part(record) for record in (own, other)):
        return False
    mine, theirs = _digests(own), _digests(other)
    if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        return False
    left_out = (item for item in mine.items() if item[0] not in theirs)
    whole = theirs.keys() <= mine.keys() and all(item in rest for item in left_out)
    return whole or "records state a part of the model"


def _is_part(record: Record) -> bool:
    covers = record.body.get("covers")
    return isinstance(covers, dict) and "only" in covers


def _digests(record: Record) -> dict[str, str]:
    return {str(item.get("name")): str(item.get("digest")) for item in _tensors(record)}


def _places(record: Record) -> dict[str, tuple[str, str]]:
    return {
        str(item.get("name")): (str(item.get("shape")), str(item.get("shard")))
        for item in _tensors(record)
    }


def _tensors(record: Record) -> list[Mapping[str, Any]]:
    items = record.body.get("tensors")
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def parent_of(records: Iterable[Record]) -> str | None:
    """The id of the run that the records say they continue."""
    return next((run for run, _ in _parents(records)), None)
