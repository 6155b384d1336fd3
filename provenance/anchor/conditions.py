"""Conditions: what a network's head still waits for before it may be signed.

One head of a network at a time is HELD and collects what is missing, such as signatures. While
nobody has begun with it, a later head takes its place; from then on it stays, and of the heads
behind it the largest stays DUE, so that nobody runs after new heads. Heads that wait for nothing go
past it; once a head that covers it is on its way, it is REPLACED like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from provenance.anchor.outbox import IN_FLIGHT, ON_CHAIN, UNSIGNED, Trigger, advance
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState

LOOK_S: Final = 30.0
"""How often heads that wait are looked at again; whoever brings what they wait for makes them due
at once."""


class Condition(Protocol):
    """What a head must meet before it is signed. It is asked inside transactions: it MUST NOT talk
    to anybody, and believes nothing of the database that it can check."""

    def waits_for(self, tx: LedgerTx, row: AnchorRow) -> str | None:
        """What is missing, such as ``waits for approval: 1 of 2 (alice)``; None where nothing
        is."""

    def is_begun(self, tx: LedgerTx, row: AnchorRow) -> bool:
        """Whether somebody has begun to bring it, so that no later head takes its place."""


def waits_for(conditions: Sequence[Condition], tx: LedgerTx, row: AnchorRow) -> str | None:
    """The first condition that is not met; None where all are."""
    return next(filter(None, (each.waits_for(tx, row) for each in conditions)), None)


def sort_unsigned(
    tx: LedgerTx, network: str, conditions: Sequence[Condition], now: float
) -> tuple[int, ...]:
    """Move a network's unsigned heads, so that at most one is DUE that may be signed now.

    Returns:
        The ids that became REPLACED.
    """
    rows = tx.anchors(network, UNSIGNED)
    missing = {row.id: waits_for(conditions, tx, row) for row in rows}
    free = (row.size for row in rows if missing[row.id] is None)
    covered = max(tx.reach(network, IN_FLIGHT | ON_CHAIN), *free, 0)
    waiting = [row for row in rows if row.size > covered]
    begun = [row for row in waiting if any(each.is_begun(tx, row) for each in conditions)]
    collects = next(iter([*begun, *waiting[-1:]]), None)
    kept = {row.id for row in (*begun, *waiting[-1:])}
    largest = waiting[-1].size if waiting else covered
    moved, replaced = list[AnchorRow](), list[int]()
    for row in rows:
        reason = missing[row.id] if row is collects else None
        if row.size < covered or (row.size > covered and row.id not in kept):
            size = covered if row.size < covered else largest
            by = f"covered by the head at size {size}"
            moved.append(_advanced(row, Trigger.SUPERSEDE, now, reason=by))
            replaced.append(row.id)
        elif row.size == covered:
            if row.state is AnchorState.HELD:
                moved.append(_advanced(row, Trigger.APPROVE, now, reason=None, next_attempt_at=now))
        elif row is collects and row.state is AnchorState.DUE:
            moved.append(held(row, reason, now))
        elif row.next_attempt_at <= now or row.reason != reason:
            again = {"reason": reason, "attempts": 0, "next_attempt_at": now + LOOK_S}
            moved.append(advance(row, Trigger.RETRY, **again))
    tx.save_anchor(*moved)
    return tuple(replaced)


def look_again(
    conditions: Sequence[Condition], tx: LedgerTx, row: AnchorRow, now: float
) -> str | None:
    """What an unsigned head still waits for, after somebody brought some of it: stored with one
    that is HELD, which is DUE where nothing is missing. The worker looks at it at once."""
    reason = waits_for(conditions, tx, row)
    if row.state is not AnchorState.HELD:
        tx.save_anchor(replace(row, next_attempt_at=now))
    elif reason is None:
        tx.save_anchor(_advanced(row, Trigger.APPROVE, now, reason=None, next_attempt_at=now))
    else:
        tx.save_anchor(replace(row, reason=reason, next_attempt_at=now))
    return reason


def held(row: AnchorRow, reason: str | None, now: float) -> AnchorRow:
    """A DUE row that waits from now on, and for what."""
    return _advanced(row, Trigger.HOLD, now, reason=reason, next_attempt_at=now + LOOK_S)


def _advanced(row: AnchorRow, trigger: Trigger, now: float, **changes: Any) -> AnchorRow:
    return advance(row, trigger, lease_owner=None, lease_until=None, updated_at=now, **changes)
