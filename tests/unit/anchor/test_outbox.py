"""The transition table: every move it has, and none that it has not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.anchor.outbox import ACTIVE, TERMINAL, TRANSITIONS, UNSIGNED, Trigger, advance
from provenance.errors import IntegrityError
from provenance.ports.values import AnchorRow, AnchorState

ROW = AnchorRow(
    id=7,
    network="memory",
    size=3,
    root=bytes(32),
    state=AnchorState.DUE,
    attempts=2,
    next_attempt_at=5.0,
    lease_owner="me",
    lease_until=9.0,
    reason=None,
    version_id=None,
    height=None,
    depth=0,
    block_time=None,
    created_at=1.0,
    updated_at=1.0,
)


def at(state: AnchorState) -> AnchorRow:
    return AnchorRow(**{name: getattr(ROW, name) for name in ROW.__slots__} | {"state": state})


@given(st.sampled_from(AnchorState), st.sampled_from(Trigger))
def test_a_move_is_in_the_table_or_raises(state: AnchorState, trigger: Trigger) -> None:
    target = TRANSITIONS.get((state, trigger))
    if target is None:
        with pytest.raises(IntegrityError, match=f"anchor 7: no {trigger} from {state}"):
            advance(at(state), trigger)
    else:
        moved = advance(at(state), trigger, reason="because")
        assert (moved.state, moved.reason, moved.id) == (target, "because", 7)


@given(st.lists(st.sampled_from(Trigger), max_size=30))
def test_no_path_leaves_the_end_or_forgets_what_was_signed(path: list[Trigger]) -> None:
    row, trail = ROW, [ROW.state]
    for trigger in path:
        if (row.state, trigger) in TRANSITIONS:
            row = advance(row, trigger)
            trail.append(row.state)
    for before, after in pairwise(trail):
        assert before not in TERMINAL
        if before not in UNSIGNED:
            assert after not in (*UNSIGNED, AnchorState.REPLACED)
    if AnchorState.FINAL in trail:
        assert trail[-2] is AnchorState.CONFIRMED
    if AnchorState.CONFIRMED in trail or AnchorState.SENT in trail:
        assert AnchorState.SIGNED in trail


def test_every_state_is_reachable_and_every_active_one_can_end() -> None:
    reached = {AnchorState.DUE}
    while more := {to for (frm, _), to in TRANSITIONS.items() if frm in reached} - reached:
        reached |= more
    assert reached == set(AnchorState)

    ends = {AnchorState.FINAL}
    while more := {frm for (frm, _), to in TRANSITIONS.items() if to in ends} - ends:
        ends |= more
    assert ends - {AnchorState.FINAL} == ACTIVE


def test_attempts_count_failures_and_start_again_with_progress() -> None:
    failed = advance(ROW, Trigger.RETRY)
    assert failed.attempts == 3
    assert advance(failed, Trigger.SIGN).attempts == 0
    assert advance(failed, Trigger.RETRY, attempts=1).attempts == 1
    assert advance(at(AnchorState.SENT), Trigger.LOOK).attempts == 2


@pytest.mark.parametrize("column", ["id", "network", "size", "root", "state", "created_at"])
def test_fixed_columns_are_not_for_a_caller(column: str) -> None:
    with pytest.raises(IntegrityError, match=f"anchor 7: {column}"):
        advance(ROW, Trigger.SIGN, **{column: getattr(ROW, column)})


def test_advance_leaves_its_argument() -> None:
    advance(ROW, Trigger.SIGN, reason="x")
    assert ROW.state is AnchorState.DUE
    assert ROW.reason is None
