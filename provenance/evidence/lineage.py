"""Which run a run continues: what it says, held against that run's weights.

From records alone; whether these were verified is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final, NamedTuple
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
    run: UUID, records: Collection[Record], parent: Collection[Record] | None
) -> Lineage | None:
    """What a run says that it continues; None where it says nothing.

    Args:
        records: The run's own, without late ones: a restart states initial weights of its own.
        parent: The weights of the run that it names; None where they are not known here.
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
    if parent is None:
        return Lineage(name, None, f"continues run {name}, which is not known here")
    if not parent:
        return Lineage(name, None, f"continues run {name}, whose weights are not here")
    own = [record for record in records if record.kind is Kind.WEIGHTS]
    if not own:
        return Lineage(name, None, f"continues run {name}; its initial weights are not here")
    weights = "initial weights"
    if any(is_sharded(record.body) for record in own):
        weights = "the leader's shards of the initial weights"
    epochs = [_epochs_with(parent, record.body.get("root")) for record in own]
    same = set[int | None].intersection(*epochs)
    if not same:
        line = f"says that it continues run {name}; its initial weights are of no epoch of that run"
        return Lineage(name, None, line, False)
    numbers = [epoch for epoch in same if epoch is not None]
    epoch = stated if stated in numbers else max(numbers, default=None)
    place = "its weights before training" if epoch is None else f"epoch {epoch}"
    if stated is not None and stated != epoch:
        place += f" (it says epoch {stated})"
    return Lineage(name, epoch, f"continues run {name} from {place}: {weights} match", True)


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


def _epochs_with(records: Iterable[Record], root: object) -> set[int | None]:
    """The epochs whose weights have that root; None for the weights before training."""
    if not isinstance(root, str):
        return set()
    return {record.epoch for record in records if record.body.get("root") == root}


def parent_of(records: Iterable[Record]) -> str | None:
    """The id of the run that the records say they continue."""
    return next((run for run, _ in _parents(records)), None)
