"""What an auditor asks before a result is believed: how many runs there were before this one, and
how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final
from uuid import UUID

from provenance.errors import UnknownRunError
from provenance.formats.fields import as_json
from provenance.formats.record import Json
from provenance.roll.roll import Roll, RolledRun

FINISHED: Final = ("finished", "pruned")


@dataclass(frozen=True, slots=True)
class Spread:
    """A number of the run beside that of the runs like it: theirs, of so many, and how many of them
    are above and below its own."""

    own: float
    runs: int
    lowest: float
    median: float
    highest: float
    above: int
    below: int


@dataclass(frozen=True, slots=True)
class RunsBefore:
    """The runs that began before one.

    Attributes:
        runs: All of them.
        unfinished: Those of them that did not come to their end, by how they ended.
        data, config: Those with its training data, and of these with its configuration, seeds
            aside; None where its roll says neither.
        seeds: Different ones that the runs with its data had, of how many that state any.
        own_seeds: What the run itself states.
        results: Its numbers beside those of the finished runs with its data.
    """

    run: UUID
    runs: int
    unfinished: Mapping[str, int]
    data: int | None
    config: int | None
    seeds: int
    seeded: int
    own_seeds: Mapping[str, Json]
    results: Mapping[str, Spread]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        found: dict[str, Any] = as_json(self)
        return found | {"results": {name: as_json(own) for name, own in self.results.items()}}

    @property
    def lines(self) -> list[str]:
        """For people."""
        gone = ", ".join(f"{number} {state}" for state, number in self.unfinished.items())
        told = [
            f"runs that began before run {self.run}: {self.runs}; not finished: {gone or 'none'}"
        ]
        if self.data is None:
            told.append("which of them had its training data is not known here")
            return told
        same = f"with its training data: {self.data}"
        told.append(
            same if self.config is None else f"{same}; its configuration too: {self.config}"
        )
        own = ", ".join(f"{path} {value}" for path, value in self.own_seeds.items())
        seeds = f"different seeds: {self.seeds}, in {self.seeded} of these"
        told.append(f"{seeds}; its own: {own or 'not stated'}")
        for name, item in self.results.items():
            spread = f"{item.lowest:g} lowest, {item.median:g} median, {item.highest:g} highest"
            place = f"{item.above} above and {item.below} below its {item.own:g}"
            told.append(f"{name}: {spread} of {item.runs}; {place}")
        return told


def runs_before(roll: Roll, run: UUID) -> RunsBefore:
    """What a roll tells of the runs before one. Raises UnknownRunError."""
    own = next((item for item in roll.runs if item.run == run), None)
    if own is None:
        raise UnknownRunError(f"run {run}: not among the {len(roll.runs)} runs of this ledger")
    earlier = [item for item in roll.runs if item.run != run and _began_before(item, own)]
    unfinished: dict[str, int] = {}
    for item in earlier:
        if item.state not in FINISHED:
            unfinished[item.state] = unfinished.get(item.state, 0) + 1
    known = own.data is not None
    like = [item for item in earlier if known and item.data == own.data]
    same = [item for item in like if item.config == own.config]
    seeded = [item for item in like if item.seeds]
    return RunsBefore(
        run=run,
        runs=len(earlier),
        unfinished=dict(sorted(unfinished.items())),
        data=len(like) if known else None,
        config=len(same) if known and own.config is not None else None,
        seeds=len({tuple(sorted(map(str, item.seeds.items()))) for item in seeded}),
        seeded=len(seeded),
        own_seeds=dict(own.seeds),
        results=_spreads(own, [item for item in like if item.state in FINISHED]),
    )


def _began_before(item: RolledRun, own: RolledRun) -> bool:
    """By their first entries; where one has none by the times in their ids, which are claims."""
    if item.entries and own.entries:
        return item.entries[0] < own.entries[0]
    return item.run.int >> 80 < own.run.int >> 80


def _spreads(own: RolledRun, like: Sequence[RolledRun]) -> dict[str, Spread]:
    found = {}
    for name, value in own.results.items():
        values = [n for item in like if (n := _number(item.results.get(name))) is not None]
        number = _number(value)
        if number is not None and values:
            above, below = sum(v > number for v in values), sum(v < number for v in values)
            middle = median(values)
            found[name] = Spread(
                number, len(values), min(values), middle, max(values), above, below
            )
    return found


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
