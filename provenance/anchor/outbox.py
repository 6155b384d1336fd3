"""The outbox's one transition table, :data:`TRANSITIONS`: every state an anchor can be in, and
every move.

A ``retry`` is due again at ``next_attempt_at`` and counts ``attempts`` up; a move that is
progress (hold, approve, sign, mine, finalise, reorg) sets ``attempts`` to 0.

The wait is drawn with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015), so that many workers that failed together do not come back together: it is uniform
in ``[0, min(cap, base * 2**(attempt - 1)))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from provenance.errors import IntegrityError
from provenance.ports.values import AnchorRow, AnchorState
from provenance.settings import RetrySettings


class Trigger(StrEnum):
    """What can happen to an anchor."""

    HOLD = "hold"
    APPROVE = "approve"
    SIGN = "sign"
    SUPERSEDE = "supersede"
    SEND = "send"
    MINE = "mine"
    LOOK = "look"
    BUMP = "bump"
    FINALISE = "finalise"
    REORG = "reorg"
    FAIL = "fail"
    RETRY = "retry"


_S, _T = AnchorState, Trigger

TERMINAL: Final = frozenset({_S.FINAL, _S.REPLACED, _S.FAILED})
ACTIVE: Final = frozenset(_S) - TERMINAL
UNSIGNED: Final = frozenset({_S.DUE, _S.HELD})
"""No bytes exist."""
IN_FLIGHT: Final = frozenset({_S.SIGNED, _S.SENT, _S.REORGED})
"""Bytes exist and no block has them: what ``max_in_flight`` counts."""
ON_CHAIN: Final = frozenset({_S.CONFIRMED, _S.FINAL})
TRANSITIONS: Final[Mapping[tuple[AnchorState, Trigger], AnchorState]] = MappingProxyType(
    {
        # A head waits for its network; nothing is signed.
        (_S.DUE, _T.HOLD): _S.HELD,  # a condition of the network is not met yet
        (_S.DUE, _T.SIGN): _S.SIGNED,  # the bytes are stored in the transaction that moves the row
        (_S.DUE, _T.SUPERSEDE): _S.REPLACED,  # a later head covers this one
        (_S.DUE, _T.FAIL): _S.FAILED,  # the network will never take it, with the reason
        (_S.DUE, _T.RETRY): _S.DUE,  # later, with the reason
        # It waits for what others must do, such as sign; nothing is signed here.
        (_S.HELD, _T.APPROVE): _S.DUE,  # the conditions are met: due at once
        (_S.HELD, _T.SUPERSEDE): _S.REPLACED,
        (_S.HELD, _T.RETRY): _S.HELD,  # still waiting, with what for
        # Bytes are stored; they may or may not have been sent.
        (_S.SIGNED, _T.SEND): _S.SENT,  # the network has them
        (_S.SIGNED, _T.MINE): _S.CONFIRMED,  # they were sent after all, and mined
        (_S.SIGNED, _T.BUMP): _S.SIGNED,  # another version: same nonce or inputs, higher fee
        (_S.SIGNED, _T.FAIL): _S.FAILED,
        (_S.SIGNED, _T.RETRY): _S.SIGNED,
        # The network has accepted a version.
        (_S.SENT, _T.LOOK): _S.SENT,  # still pending
        (_S.SENT, _T.SEND): _S.SENT,  # forgotten by the node: the same bytes again
        (_S.SENT, _T.MINE): _S.CONFIRMED,  # any version counts
        (_S.SENT, _T.BUMP): _S.SENT,
        (_S.SENT, _T.FAIL): _S.FAILED,
        (_S.SENT, _T.RETRY): _S.SENT,
        # In a block, with the right root, not deep enough.
        (_S.CONFIRMED, _T.LOOK): _S.CONFIRMED,  # deeper, or in another block
        (_S.CONFIRMED, _T.FINALISE): _S.FINAL,
        (_S.CONFIRMED, _T.REORG): _S.REORGED,  # the block is gone; receipts are withdrawn
        (_S.CONFIRMED, _T.RETRY): _S.CONFIRMED,
        # It was confirmed, and is not any more.
        (_S.REORGED, _T.SEND): _S.SENT,  # the same bytes again
        (_S.REORGED, _T.MINE): _S.CONFIRMED,  # back by itself
        (_S.REORGED, _T.BUMP): _S.REORGED,
        (_S.REORGED, _T.FAIL): _S.FAILED,
        (_S.REORGED, _T.RETRY): _S.REORGED,
        # No move leaves FINAL, REPLACED and FAILED.
    }
)
_PROGRESS: Final = frozenset({_T.HOLD, _T.APPROVE, _T.SIGN, _T.MINE, _T.FINALISE, _T.REORG})
_MAX_EXPONENT: Final = 62
_FIXED: Final = frozenset({"id", "network", "size", "root", "state", "created_at"})


def advance(row: AnchorRow, trigger: Trigger, **changes: Any) -> AnchorRow:
    """The row after a move, with further columns changed. Pure.

    ``attempts`` becomes one more on ``retry`` and 0 on a move that is progress, unless
    ``changes`` says otherwise.

    Raises:
        IntegrityError: The table has no such move, or ``changes`` names a column
            that only the table moves or that never changes.
    """
    if fixed := sorted(_FIXED & changes.keys()):
        raise IntegrityError(f"anchor {row.id}: {fixed[0]} is not for a caller to change")
    target = TRANSITIONS.get((row.state, trigger))
    if target is None:
        raise IntegrityError(f"anchor {row.id}: no {trigger.value} from {row.state.value}")
    if trigger is _T.RETRY:
        changes.setdefault("attempts", row.attempts + 1)
    elif trigger in _PROGRESS:
        changes.setdefault("attempts", 0)
    return replace(row, state=target, **changes)


def delay(attempt: int, retry: RetrySettings, random: Callable[[], float]) -> float:
    """Seconds to wait after failure number ``attempt`` (from 1); ``random`` is called once."""
    return random() * ceiling(attempt, retry)


def ceiling(attempt: int, retry: RetrySettings) -> float:
    """The longest that :func:`delay` can be, in seconds."""
    exponent = min(max(attempt, 1) - 1, _MAX_EXPONENT)
    return min(retry.cap_s, retry.base_s * float(2**exponent))
