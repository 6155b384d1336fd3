"""Heads that wait for others: one collects, none overtakes it wrongly, none is sent too early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.anchor.conditions import LOOK_S, waits_for
from provenance.anchor.delivery import Outcome
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState
from tests.support.anchor_world import World
from tests.support.nodes.memory_chain import MemoryChain

DUE, HELD, SENT, REPLACED = (AnchorState[name] for name in ("DUE", "HELD", "SENT", "REPLACED"))


@dataclass
class Waits:
    """Heads of these sizes wait; somebody has begun with some."""

    sizes: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)

    def waits_for(self, tx: LedgerTx, row: AnchorRow) -> str | None:
        return f"waits at {row.size}" if row.size in self.sizes else None

    def is_begun(self, tx: LedgerTx, row: AnchorRow) -> bool:
        return row.size in self.begun


@pytest.fixture(params=[True, False], ids=["nonces", "coins"])
def world(request: pytest.FixtureRequest) -> World:
    return World(MemoryChain(nonces=request.param))


def waiting(world: World, *sizes: int) -> Waits:
    waits = Waits(set(sizes))
    world.conditions = (waits,)
    return waits


def states(world: World) -> Mapping[int, AnchorState]:
    return {row.size: row.state for row in world.rows()}


def test_a_head_that_waits_is_held_and_nothing_but_its_name_is_asked_of_its_network(
    world: World,
) -> None:
    waiting(world, 1)
    world.head()
    assert world.publish().outcomes == {}
    row = world.row()
    assert (row.state, row.reason, row.updated_at) == (HELD, "waits at 1", world.now)
    assert row.next_attempt_at == world.now + LOOK_S
    assert world.node.calls == ["identity"]


def test_it_is_sent_in_the_pass_that_finds_its_condition_met(world: World) -> None:
    waits = waiting(world, 1)
    world.head()
    world.publish()
    waits.sizes.clear()
    row = world.row()
    assert world.publish().having(Outcome.SENT) == (row.id,)
    assert (world.row().state, world.row().reason) == (SENT, None)


def test_a_later_head_takes_the_place_of_one_that_nobody_began(world: World) -> None:
    waiting(world, 1, 2)
    first = world.head()
    world.publish()
    world.head()
    assert first is not None
    assert world.publish().replaced == (first.id,)
    assert states(world) == {1: REPLACED, 2: HELD}


def test_later_heads_wait_behind_one_that_somebody_began(world: World) -> None:
    waits = waiting(world, 1, 2, 3, 4)
    world.head()
    world.publish()
    waits.begun.add(1)
    for _ in range(3):
        world.head()
        world.publish()
    assert states(world) == {1: HELD, 2: REPLACED, 3: REPLACED, 4: DUE}
    waits.sizes.discard(1)
    world.publish()
    assert states(world) == {1: SENT, 2: REPLACED, 3: REPLACED, 4: HELD}


def test_a_head_that_waits_for_nothing_is_not_replaced_by_one_that_waits(world: World) -> None:
    waiting(world, 2)
    world.head()
    world.head()
    world.publish()
    assert states(world) == {1: SENT, 2: HELD}


def test_what_waits_for_nothing_and_covers_it_replaces_even_one_that_somebody_began(
    world: World,
) -> None:
    waits = waiting(world, 1)
    world.head()
    world.publish()
    waits.begun.add(1)
    world.head()
    world.publish()
    assert states(world) == {1: REPLACED, 2: SENT}


def test_a_condition_that_comes_back_while_the_node_is_asked_stops_the_send(world: World) -> None:
    waits = waiting(world)
    world.head()

    def meanwhile(called: str, _when: str) -> None:
        if called == "draft":
            waits.sizes.add(1)

    world.node.on_call = meanwhile
    row = world.row()
    assert world.publish().having(Outcome.WAITING) == (row.id,)
    assert (world.row().state, world.row().reason, world.versions()) == (HELD, "waits at 1", [])
    assert not world.chain.seen


def test_what_it_waits_for_is_told_anew(world: World) -> None:
    waits = waiting(world, 1)
    world.head()
    world.publish()
    since = world.now
    world.now += 5
    waits.waits_for = lambda tx, row: "waits for less"  # type: ignore[method-assign]
    world.publish()
    row = world.row()
    assert (row.reason, row.updated_at, row.attempts) == ("waits for less", since, 0)


def test_without_conditions_a_held_head_goes_on(world: World) -> None:
    waiting(world, 1)
    world.head()
    world.publish()
    world.conditions = ()
    world.publish()
    assert world.row().state is SENT


def test_the_first_condition_that_is_not_met_is_told() -> None:
    world = World()
    row = world.head()
    assert row is not None
    with world.store.snapshot() as tx:
        assert waits_for((Waits(), Waits({1})), tx, row) == "waits at 1"
        assert waits_for((Waits(),), tx, row) is None


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_whatever_waits_none_is_sent_that_waits_and_the_newest_gets_there(
    data: st.DataObject,
) -> None:
    world = World()
    waits = waiting(world)
    draw: Callable[[st.SearchStrategy[set[int]]], set[int]] = data.draw
    for size in range(1, 6):
        waits.sizes |= draw(st.sets(st.integers(size, size)))
        world.head()
        world.publish()
        unsigned = {s for s, state in states(world).items() if state in (DUE, HELD)}
        waits.begun |= draw(st.sets(st.sampled_from(sorted(unsigned)))) if unsigned else set()
        waits.sizes -= draw(st.sets(st.integers(1, size)))
        world.publish()
        now = states(world)
        assert sum(state is HELD for state in now.values()) <= 1
        assert sum(state in (DUE, HELD) for state in now.values()) <= 2 + len(waits.begun)
        assert not {s for s, state in now.items() if state is SENT} & waits.sizes
    waits.sizes.clear()
    for _ in range(3):
        world.now += LOOK_S
        world.publish()
    assert states(world)[5] is SENT
    assert not {DUE, HELD} & set(states(world).values())
    world.store.close()
