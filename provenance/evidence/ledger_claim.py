"""What a ledger says of all its runs: how many it has, and which did not come to their end.

It is a claim: no signature covers it. But it is made anew in every bundle, so that who drops a
run from a ledger contradicts what some bundle said before, or has to change the numbers in
each. ``provenance log compare`` holds the claims of two bundles against each other. Who may see the
runs of one team alone gets a claim of those (``team``), to be held against others of that team.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from provenance.formats.fields import Fields, Key, as_json
from provenance.ports.store import LedgerTx

MAX_UNFINISHED: Final = 1000
"""Runs that are named; the newest, where there are more."""
_NAMED: Final = 5
_WORDS: Final = {"open": "not sealed to its end", "incomplete": "sealed incomplete"}
STATES: Final = tuple(_WORDS)


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that is not sealed whole: failed, never ended, or still open.

    Attributes:
        state: ``open``; or ``incomplete``: sealed without all that it announced.
        entries: Its indexes in the ledger.
    """

    run: UUID
    state: str
    entries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LedgerClaim:
    """What the ledger says at a size.

    Attributes:
        runs: All of them.
        complete: Those that were sealed with all they announced.
        unfinished: The others, newest first, at most 1,000.
        team: Whose runs alone are counted and named; None: all.
    """

    size: int = 0
    runs: int = 0
    complete: int = 0
    unfinished: tuple[UnfinishedRun, ...] = ()
    team: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For :func:`read`: of all runs without the key ``team``."""
        own: dict[str, Any] = as_json(self)
        return {key: value for key, value in own.items() if value is not None}

    def __str__(self) -> str:
        """For people: how many, and the newest few that are not sealed whole."""
        named = [f"{item.run} ({_WORDS[item.state]})" for item in self.unfinished[:_NAMED]]
        left = self.runs - self.complete - len(named)
        more = [*named, f"{left} more"] if left else named
        others = f"; not so: {', '.join(more)}" if more else ""
        what = "run" if self.runs == 1 else "runs"
        whole = f"{self.complete} of them sealed with all that they announced"
        of = "" if self.team is None else f" of team {self.team}"
        return f"{self.runs} {what}{of} at ledger size {self.size}, {whole}{others}"


def claim_of(tx: LedgerTx, size: int, team: str | None = None) -> LedgerClaim:
    """What a database says, of a team's runs where one is named. Raises StoreUnavailable."""
    unfinished = (
        UnfinishedRun(run, "incomplete" if state == "sealed" else "open", entries)
        for run, state, entries in tx.unfinished(MAX_UNFINISHED, team)
    )
    return LedgerClaim(size, *tx.run_counts(team), tuple(unfinished), team)


def read(fields: Fields, key: Key) -> LedgerClaim:
    """From JSON. Raises FormatError: not of its form, or it contradicts itself."""
    inner = fields.object(key, "size", "runs", "complete", "unfinished", "team")
    size = inner.integer("size")
    runs = inner.integer("runs")
    complete = inner.integer("complete", 0, runs)
    unfinished = tuple(
        UnfinishedRun(
            item.uuid("run"), item.one_of("state", STATES), item.items("entries", Fields.integer)
        )
        for item in inner.objects("unfinished", "run", "state", "entries")
    )
    if len(unfinished) != min(runs - complete, MAX_UNFINISHED):
        inner.refuse("unfinished", f"{min(runs - complete, MAX_UNFINISHED)} runs")
    entries = [index for item in unfinished for index in item.entries]
    if len({item.run for item in unfinished}) != len(unfinished):
        inner.refuse("unfinished", "each run once")
    if len(set(entries)) != len(entries) or any(index >= size for index in entries):
        inner.refuse("unfinished", f"each entry below {size} once")
    return LedgerClaim(size, runs, complete, unfinished, inner.optional("team", inner.text))


def own_problem(
    claim: LedgerClaim, run: UUID, complete: bool, entries: tuple[int, ...]
) -> str | None:
    """Why a claim does not fit what the same file says of its own run; None where it does."""
    listed = next((item.entries for item in claim.unfinished if item.run == run), None)
    cut = len(claim.unfinished) == MAX_UNFINISHED
    if claim.runs < 1 or any(index >= claim.size for index in entries):
        return f"ledger: {claim.runs} runs and {claim.size} entries leave no place for this run"
    if complete:
        return "ledger: unfinished has this run, which is complete" if listed is not None else None
    if listed is None and not cut:
        return "ledger: unfinished does not have this run"
    return "ledger: has other entries of this run" if listed not in (None, entries) else None


def contradictions(one: LedgerClaim, other: LedgerClaim) -> Iterator[str]:
    """Why two claims cannot both be true of one ledger; nothing where they can,
    or are of different teams."""
    if one.team != other.team:
        return
    old, new = sorted((one, other), key=lambda claim: (claim.size, claim.runs))
    sizes = f"at size {old.size} and size {new.size}"
    for name in ("runs", "complete"):
        before, after = getattr(old, name), getattr(new, name)
        if after < before:
            yield f"{before} {name} and then {after}, {sizes}"
    completed, entered = new.complete - old.complete, new.size - old.size
    if completed > entered:
        yield f"{completed} more runs are complete with {entered} more entries, {sizes}"
    if max(len(old.unfinished), len(new.unfinished)) == MAX_UNFINISHED:
        return  # either list may be cut
    before_by = {item.run: item for item in old.unfinished}
    after_by = {item.run: item for item in new.unfinished}
    for run, item in before_by.items():
        later = after_by.get(run)
        if item.state == "incomplete" and (later is None or later.state != "incomplete"):
            yield f"run {run} is incomplete at size {old.size}, and not so at size {new.size}"
        if later is not None and later.entries[: len(item.entries)] != item.entries:
            yield f"run {run} has other entries {sizes}"
    for run in after_by.keys() - before_by.keys():
        if any(index < old.size for index in after_by[run].entries):
            yield f"run {run} is unfinished at size {new.size}, and unknown at size {old.size}"
