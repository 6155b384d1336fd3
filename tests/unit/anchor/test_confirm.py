"""Confirming: depth, reorgs, fees, lies, and the receipts that follow.

Over 400 lines: case by case, one file: `provenance/anchor/confirm.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from provenance.anchor import pauses
from provenance.anchor import receipts as anchor_receipts
from provenance.anchor.delivery import Outcome
from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
)
from provenance.formats.checkpoint import Head, open_head, sign_head
from provenance.formats.record import Phase
from provenance.ports.values import AnchorState, HeadRow
from tests.support.anchor_world import BUMP_S, LEASE_S, ORIGIN, POLL_S, RUN, SIGNER, World, foreign
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork


class Died(BaseException):
    """The process is gone at this point."""


def die_at(method: str, when: str) -> Callable[[str, str], None]:
    def call(called: str, at: str) -> None:
        if (called, at) == (method, when):
            raise Died

    return call


@pytest.fixture(params=[True, False], ids=["nonces", "coins"])
def world(request: pytest.FixtureRequest) -> World:
    return World(MemoryChain(nonces=request.param))


@pytest.fixture
def nonces() -> World:
    return World()


def later(world: World, seconds: float = 120.0) -> None:
    world.now += seconds


# --- the straight way ---------------------------------------------------------------------


def test_sent_confirmed_final(world: World) -> None:
    sent = world.sent()
    assert world.confirm().having(Outcome.WAITING) == (sent.id,)
    assert world.row().state is AnchorState.SENT
    later(world)
    world.chain.mine(time=123.0)
    assert world.confirm().having(Outcome.CONFIRMED) == (sent.id,)
    row = world.row()
    assert (row.state, row.height, row.depth, row.block_time) == (
        AnchorState.CONFIRMED,
        0,
        1,
        123.0,
    )
    world.chain.mine()
    later(world)
    assert world.confirm().having(Outcome.WAITING)
    assert world.row().depth == 2
    world.chain.mine()
    later(world)
    assert world.confirm().having(Outcome.FINAL)
    row = world.row()
    assert (row.state, row.depth, row.lease_owner, row.reason) == (
        AnchorState.FINAL,
        3,
        None,
        None,
    )
    later(world)
    world.node.calls.clear()
    assert world.confirm().outcomes == {}
    assert world.node.calls == []


def test_deep_at_first_sight_is_final_at_once(world: World) -> None:
    world.sent()
    world.chain.mine(5)
    assert world.confirm().having(Outcome.FINAL)
    assert world.row().state is AnchorState.FINAL
    assert world.receipts()[(0, world.row().id)].anchor.state == "final"


def test_looks_come_at_the_poll_interval_and_slower_with_depth(world: World) -> None:
    world.node.confirmations = 100
    world.sent()
    waits = []
    for depth in (0, 1, 4, 50):
        while world.chain.height + 1 < depth:
            world.chain.mine()
        world.confirm()
        waits.append(world.row().next_attempt_at - world.now)
        assert world.confirm().outcomes == {}
        later(world)
    assert waits == [POLL_S, POLL_S, 3 * POLL_S, 6 * POLL_S]


def test_a_lost_answer_is_found_in_the_mempool(world: World) -> None:
    world.head()
    world.node.lose_answer_next()
    world.publish()
    later(world)
    assert world.confirm().having(Outcome.SENT)
    assert world.row().state is AnchorState.SENT
    assert world.versions()[0].sent_at == world.now
    assert world.node.calls.count("broadcast") == 1


def test_a_lost_answer_is_found_in_a_block(world: World) -> None:
    world.head()
    world.node.lose_answer_next()
    world.publish()
    world.chain.mine()
    later(world)
    assert world.confirm().having(Outcome.CONFIRMED)
    assert world.versions()[0].sent_at == world.now


def test_a_signed_row_the_network_never_saw_is_sent(world: World) -> None:
    world.head()
    world.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        world.publish()
    world.node.on_call = None
    later(world)
    assert world.confirm().having(Outcome.SENT)
    assert len(world.chain.mempool) == 1


# --- forgotten, reorganised ---------------------------------------------------------------


def test_what_a_node_forgets_before_every_look_is_bumped_in_the_end(world: World) -> None:
    """A node that is full evicts what pays too little, time and again."""
    world.sent()
    done: list[Outcome] = []
    while Outcome.BUMPED not in done:
        world.chain.forget_mempool()
        later(world, BUMP_S / 4)
        done += world.confirm().outcomes.values()
        assert len(done) < 10
    assert set(done[:-1]) == {Outcome.SENT}
    first, second = world.versions()
    assert second.version.fee > first.version.fee
    assert list(world.chain.mempool) == [second.version.transaction_id]


def test_a_forgotten_anchor_at_the_fee_cap_is_sent_again_all_the_same(world: World) -> None:
    world.sent()
    (txid,) = world.chain.mempool
    world.node.fail_next("draft", FeeTooLowError("the cap is reached"))
    world.chain.forget_mempool()
    later(world, BUMP_S)
    assert world.confirm().having(Outcome.HELD)
    assert world.row().reason == "the cap is reached"
    assert list(world.chain.mempool) == [txid]


def test_a_forgotten_mempool_gets_the_same_bytes_again(world: World) -> None:
    world.sent()
    (txid,) = world.chain.mempool
    for _ in range(3):
        world.chain.forget_mempool()
        later(world)
        assert world.confirm().having(Outcome.SENT)
        assert list(world.chain.mempool) == [txid]
    assert world.row().attempts == 3
    later(world)
    assert world.confirm().having(Outcome.WAITING)
    assert world.row().attempts == 0
    assert len(world.versions()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "forgotten"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_reorg_takes_the_confirmation_back(world: World, depth: int, keep: bool) -> None:
    world.confirmed()
    if depth == 2:
        world.chain.mine()
    assert world.receipts()
    (txid,) = [v.version.transaction_id for v in world.versions()]
    world.chain.reorg(depth, keep=keep)
    later(world)
    world.node.calls.clear()
    assert world.confirm().having(Outcome.REORGED)
    row = world.row()
    assert (row.state, row.height, row.depth, row.block_time) == (AnchorState.SENT, None, 0, None)
    assert world.receipts() == {}
    assert world.node.calls.count("broadcast") == 1
    assert list(world.chain.mempool) == [txid]
    world.chain.mine(3)
    later(world)
    assert world.confirm().having(Outcome.FINAL)
    assert world.mined_roots() == [row.root]
    assert len(world.receipts()) == 1


def test_a_death_in_the_middle_of_a_reorg_is_taken_up(world: World) -> None:
    world.confirmed()
    world.chain.reorg(1, keep=False)
    later(world)
    world.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        world.confirm()
    world.node.on_call = None
    row = world.row()
    assert (row.state, row.reason) == (AnchorState.REORGED, "the block at height 0 is gone")
    assert world.receipts() == {}
    later(world)
    assert world.confirm().having(Outcome.SENT)
    assert len(world.versions()) == 1


def test_a_reorged_transaction_that_comes_back_by_itself(world: World) -> None:
    world.confirmed()
    world.chain.reorg(1)
    later(world)
    world.node.fail_next("broadcast", NetworkUnavailable("refused"))
    assert world.confirm().having(Outcome.HELD)
    assert (world.row().state, world.row().reason) == (AnchorState.REORGED, "refused")
    world.chain.mine()
    later(world)
    assert world.confirm().having(Outcome.CONFIRMED)
    assert world.receipts()


def test_another_block_at_the_same_height_makes_new_receipts(world: World) -> None:
    row = world.confirmed()
    before = world.receipts()[(0, row.id)]
    txid = world.versions()[0].version.transaction_id
    world.chain.reorg(1, keep=False, instead=[txid])
    del world.chain.blocks[1:]
    later(world)
    assert world.confirm().having(Outcome.WAITING)
    after = world.receipts()[(0, row.id)]
    assert after.anchor.height == before.anchor.height
    assert after.anchor.block_hash == world.chain.blocks[0].hash != before.anchor.block_hash
    assert after.evidence["block"] == world.chain.blocks[0].hash


def test_a_quiet_look_leaves_receipts_and_asks_no_evidence(world: World) -> None:
    world.confirmed()
    before = world.receipts()
    world.node.calls.clear()
    later(world)
    world.confirm()
    assert "evidence" not in world.node.calls
    assert world.receipts() == before


def test_a_height_that_goes_down_is_no_error(world: World) -> None:
    world.confirmed()
    world.chain.mine()
    later(world)
    world.confirm()
    world.chain.blocks.pop()
    later(world)
    assert world.confirm().having(Outcome.WAITING)
    assert (world.row().state, world.row().depth) == (AnchorState.CONFIRMED, 1)


def test_a_reorg_that_confirms_a_replaced_version(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    assert world.confirm().having(Outcome.BUMPED)
    first, second = world.versions()
    world.chain.mine()
    later(world)
    world.confirm()
    assert world.row().version_id == second.id
    world.chain.reorg(1, keep=False, instead=[first.version.transaction_id])
    later(world)
    world.confirm()
    row = world.row()
    assert (row.state, row.version_id) == (AnchorState.CONFIRMED, first.id)
    receipt = world.receipts()[(0, row.id)]
    assert receipt.anchor.transaction_id == first.version.transaction_id
    assert receipt.evidence["raw"] == first.version.raw.hex()


# --- fees ---------------------------------------------------------------------------------


def test_a_stuck_transaction_pays_more_on_the_same_nonce_or_coin(world: World) -> None:
    world.sent()
    world.chain.fee = 30
    world.confirm()
    later(world, BUMP_S - 1)
    assert world.confirm().having(Outcome.WAITING)
    later(world, 60)
    stored = []

    def look(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "before"):
            stored.append(len(world.versions()))

    world.node.on_call = look
    assert world.confirm().having(Outcome.BUMPED)
    assert stored == [2]
    first, second = world.versions()
    assert (first.version.fee, second.version.fee) == (10, 30)
    assert first.version.nonce == second.version.nonce
    assert first.version.payload == second.version.payload
    assert world.row().version_id == second.id
    assert list(world.chain.mempool) == [second.version.transaction_id]
    world.chain.mine(3)
    later(world)
    assert world.confirm().having(Outcome.FINAL)
    assert len(world.mined_roots()) == 1


def test_the_bump_waits_its_time_again(world: World) -> None:
    world.sent()
    world.chain.fee = 11
    later(world, BUMP_S)
    world.confirm()
    later(world, BUMP_S - 1)
    assert world.confirm().having(Outcome.WAITING)
    assert len(world.versions()) == 2


def test_bumps_stop_at_the_cap_say_so_and_resume(world: World) -> None:
    world.sent()
    world.chain.fee = 500
    later(world, BUMP_S)
    for _ in range(3):
        assert world.confirm().having(Outcome.HELD)
        assert "needs a fee of 500, the cap is 100" in (world.row().reason or "")
        later(world)
    assert world.row().state is AnchorState.SENT
    assert len(world.versions()) == 1
    world.chain.fee = 50
    assert world.confirm().having(Outcome.BUMPED)
    assert world.row().reason is None
    world.chain.mine()
    assert len(world.mined_roots()) == 1


def test_free_networks_are_never_bumped(world: World) -> None:
    world.chain.fee = 0
    world.sent()
    later(world, 10 * BUMP_S)
    assert world.confirm().having(Outcome.WAITING)
    assert len(world.versions()) == 1


def test_a_bump_stored_and_not_sent_is_sent(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    world.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        world.confirm()
    world.node.on_call = None
    first, second = world.versions()
    assert list(world.chain.mempool) == [first.version.transaction_id]
    later(world)
    assert world.confirm().having(Outcome.SENT)
    assert list(world.chain.mempool) == [second.version.transaction_id]
    assert len(world.versions()) == 2


def test_a_bump_refused_falls_back_and_is_raised_in_its_time(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    world.node.fail_next("broadcast", FeeTooLowError("underpriced"))
    assert world.confirm().having(Outcome.HELD)
    assert world.row().state is AnchorState.SENT
    later(world)
    world.node.fail_next("broadcast", FeeTooLowError("underpriced"))
    assert world.confirm().having(Outcome.SENT)  # the older version is there
    assert world.row().version_id == world.versions()[0].id
    world.chain.fee = 40
    later(world, BUMP_S)
    assert world.confirm().having(Outcome.BUMPED)
    assert world.versions()[-1].version.fee == 40


def test_a_balance_too_low_for_the_bump_pauses_only(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    world.node.fail_next("draft", InsufficientFundsError("balance 1"))
    assert world.confirm().paused == "balance: balance 1"
    assert world.row().state is AnchorState.SENT
    world.chain.mine()
    later(world)
    assert world.confirm().paused is None
    assert world.row().state is AnchorState.CONFIRMED


def test_a_bump_that_came_too_late_finds_the_block(world: World) -> None:
    world.sent()
    later(world, BUMP_S)

    def mined_meanwhile(method: str, when: str) -> None:
        if (method, when) == ("draft", "after"):
            world.node.on_call = None
            world.chain.mine()

    world.node.on_call = mined_meanwhile
    assert world.confirm().having(Outcome.SENT)
    assert world.paused is None
    assert world.row().version_id == world.versions()[0].id
    assert world.confirm().having(Outcome.CONFIRMED)


def test_two_confirmers_bump_once(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    other = MemoryNetwork(world.chain)

    def meanwhile(method: str, when: str) -> None:
        if (method, when) == ("draft", "after"):
            world.node.on_call = None
            world.save(replace(world.row(), lease_until=world.now))
            assert world.confirm(other).having(Outcome.BUMPED)

    world.node.on_call = meanwhile
    assert world.confirm().having(Outcome.LOST)
    assert len(world.versions()) == 2


# --- refused ------------------------------------------------------------------------------


def test_another_root_is_never_confirmed(world: World) -> None:
    world.sent()
    world.chain.mine()
    for lie in (b"\x07" * 32, b""):
        world.node.lie(root=lie)
        assert world.confirm().having(Outcome.HELD)
        row = world.row()
        assert row.state is AnchorState.SENT
        assert f"expected {row.root.hex()}" in (row.reason or "")
        assert world.receipts() == {}
        later(world)
    world.node.lie()
    assert world.confirm().having(Outcome.CONFIRMED)


def test_a_lie_about_a_confirmed_row_withdraws_nothing(world: World) -> None:
    world.confirmed()
    world.node.lie(root=b"\x07" * 32)
    later(world)
    assert world.confirm().having(Outcome.HELD)
    assert world.row().state is AnchorState.CONFIRMED
    assert world.receipts()


def test_a_contradicting_answer_is_refused(world: World) -> None:
    world.sent()
    world.chain.mine()
    world.node.fail_next("observe", LyingNodeError("another receipt"))
    assert world.confirm().having(Outcome.HELD)
    assert (world.row().state, world.row().reason) == (AnchorState.SENT, "another receipt")


def test_a_lie_about_one_version_leaves_the_other(world: World) -> None:
    world.sent()
    later(world, BUMP_S)
    world.confirm()
    world.chain.reorg(0, instead=[world.versions()[0].version.transaction_id])
    world.node.fail_next("observe", LyingNodeError("forged"))
    later(world)
    assert world.confirm().having(Outcome.CONFIRMED)


def test_another_chain_confirms_and_withdraws_nothing(world: World) -> None:
    world.confirmed()
    world.head()
    world.node.lie(chain_id="5", place="unknown")
    later(world)
    result = world.confirm()
    assert result.having(Outcome.HELD)
    assert (result.paused or "").startswith("wrong network: ")
    assert world.rows()[0].state is AnchorState.CONFIRMED
    assert world.receipts()
    world.node.lie()
    later(world)
    assert world.confirm().paused is None


def test_evidence_out_of_reach_confirms_nothing_yet(world: World) -> None:
    world.sent()
    world.chain.mine()
    world.node.fail_next("evidence", NetworkUnavailable("refused"))
    assert world.confirm().having(Outcome.HELD)
    assert world.row().state is AnchorState.SENT
    later(world)
    assert world.confirm().having(Outcome.CONFIRMED)


def test_an_outage_stops_the_pass(world: World) -> None:
    for _ in range(3):
        world.sent()
    world.node.hang()
    world.node.calls.clear()
    assert list(world.confirm().outcomes.values()) == [Outcome.HELD]
    assert world.node.calls == ["identity"]
    assert [row.lease_owner for row in world.rows()] == [None] * 3


def test_a_transaction_that_failed_in_its_block(world: World) -> None:
    world.sent()
    world.chain.mine()
    block = world.chain.blocks[0]
    block.transactions = tuple(replace(t, reverts=True) for t in block.transactions)
    assert world.confirm().having(Outcome.HELD)
    assert "is in a block and failed" in (world.row().reason or "")
    assert world.row().attempts == 0
    world.chain.mine(2)
    later(world)
    assert world.confirm().having(Outcome.FAILED)
    assert world.row().state is AnchorState.FAILED
    assert world.receipts() == {}


# --- a shared key -------------------------------------------------------------------------


def stolen(world: World) -> None:
    """Somebody else's transaction takes our nonce or coin into a block."""
    version = world.versions()[-1].version
    world.chain.forget_mempool()
    MemoryNetwork(world.chain).broadcast(foreign(version))
    world.chain.mine()


def test_a_spent_nonce_or_coin_halts_and_then_fails(world: World) -> None:
    world.sent()
    stolen(world)
    result = world.confirm()
    row = world.row()
    assert result.having(Outcome.HELD)
    assert (result.paused or "").startswith(f"shared key: anchor {row.id}: ")
    assert row.reason == result.paused
    world.head()
    assert world.publish().outcomes == {}
    world.chain.mine(2)
    later(world)
    assert world.confirm().having(Outcome.FAILED)
    assert world.paused is not None
    pauses.resume(world.store, world.name, world.now)
    assert world.publish().having(Outcome.SENT)
    world.chain.mine()
    assert world.row().root in world.mined_roots()


def test_a_confirmed_row_whose_nonce_was_stolen_in_a_reorg(world: World) -> None:
    world.confirmed()
    world.chain.reorg(1, keep=False)
    stolen(world)
    later(world)
    assert world.confirm().having(Outcome.REORGED)
    assert world.row().state is AnchorState.REORGED
    assert world.receipts() == {}
    assert (world.paused or "").startswith("shared key: ")


def test_the_halt_ends_where_the_anchor_was_ours_after_all(world: World) -> None:
    world.sent()
    world.chain.mine()
    world.node.lie(place="conflicted")
    assert world.confirm().paused is not None
    world.node.lie()
    later(world)
    assert world.confirm().paused is None
    assert world.row().state is AnchorState.CONFIRMED


def test_a_lagging_node_that_calls_the_nonce_used_is_asked_again(nonces: World) -> None:
    nonces.confirmed()
    nonces.node.lie(place="unknown")
    nonces.node.fail_next("broadcast", NonceUsedError("nonce too low"))
    later(nonces)
    assert nonces.confirm().having(Outcome.REORGED)
    assert (nonces.paused or "").startswith("shared key")
    nonces.node.lie()
    later(nonces)
    assert nonces.confirm().having(Outcome.CONFIRMED)
    assert nonces.paused is None


def test_rejected_after_a_reorg_holds_the_row_that_has_a_nonce(nonces: World) -> None:
    nonces.confirmed()
    nonces.chain.reorg(1, keep=False)
    nonces.node.fail_next("broadcast", RejectedError("no"), times=2)
    later(nonces)
    assert nonces.confirm().having(Outcome.REORGED)
    row = nonces.row()
    assert (row.state, nonces.paused) == (AnchorState.REORGED, f"blocked: anchor {row.id}: no")
    later(nonces)
    assert nonces.confirm().having(Outcome.SENT)
    assert nonces.paused is None


# --- leases and clocks --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pending", "mined", "gone", "conflicted", "failed", "lie"])
def test_a_lost_lease_drops_the_work(world: World, case: str) -> None:
    world.sent() if case in ("pending", "conflicted", "failed", "lie") else world.confirmed()
    if case == "gone":
        world.chain.reorg(1, keep=False)
    if case == "conflicted":
        stolen(world)
        world.chain.mine(5)
    if case == "failed":
        world.chain.mine(5)
        block = world.chain.blocks[0]
        block.transactions = tuple(replace(t, reverts=True) for t in block.transactions)
    if case == "lie":
        world.chain.mine()
        world.node.lie(root=bytes(32))
    later(world)
    before = replace(world.row(), lease_owner="thief", lease_until=world.now + 9)

    def thief(method: str, when: str) -> None:
        if (method, when) == ("observe", "after"):
            world.save(before)

    world.node.on_call = thief
    assert world.confirm().having(Outcome.LOST)
    assert world.row() == before


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_stalls_no_row(world: World, jump: float) -> None:
    world.confirmed()
    world.now += jump
    world.chain.mine(2)
    world.now += 60
    assert world.confirm().having(Outcome.FINAL)


def test_a_dead_confirmer_is_followed_after_its_lease(world: World) -> None:
    world.sent()
    world.chain.mine()
    world.node.on_call = die_at("evidence", "after")
    with pytest.raises(Died):
        world.confirm()
    world.node.on_call = None
    assert world.confirm().outcomes == {}
    world.now += LEASE_S
    assert world.confirm().having(Outcome.CONFIRMED)


# --- receipts -----------------------------------------------------------------------------


def test_receipts_prove_every_entry_up_to_the_chain(world: World) -> None:
    world.head(entries=5)
    world.publish()
    world.chain.mine(time=77.0)
    world.confirm()
    receipts = world.receipts()
    row = world.row()
    assert sorted(receipts) == [(index, row.id) for index in range(5)]
    for (index, _), receipt in receipts.items():
        receipt.verify_inclusion()
        assert receipt.ledger.index == index
        head = open_head(receipt.head, SIGNER.verifier)
        assert (head.size, head.root) == (5, row.root)
        anchor = receipt.anchor
        assert (anchor.state, anchor.height, anchor.depth) == ("confirmed", 0, 1)
        assert (anchor.block_time, anchor.confirmed_at) == (77.0, world.now)
        assert anchor.block_hash == world.chain.blocks[0].hash
        assert anchor.transaction_id == world.versions()[0].version.transaction_id


def test_an_entry_has_its_receipt_from_the_smallest_confirmed_head(world: World) -> None:
    world.max_in_flight = 16
    world.head(entries=2)
    world.publish()
    world.head(entries=3)
    world.publish()
    world.chain.mine()
    world.confirm()
    small, large = (row.id for row in world.rows())
    expected = [(0, small), (1, small), (2, large), (3, large), (4, large)]
    assert sorted(world.receipts()) == expected
    world.chain.mine(2)
    later(world)
    world.confirm()
    assert sorted(world.receipts()) == expected
    assert {r.anchor.state for r in world.receipts().values()} == {"final"}


def test_a_replaced_head_gets_its_receipts_from_the_later_one(world: World) -> None:
    world.head(entries=2)
    world.head(entries=1)
    world.publish()
    world.chain.mine(3)
    world.confirm()
    assert sorted(world.receipts()) == [(index, world.row().id) for index in range(3)]


def test_a_final_head_covers_what_a_smaller_one_lost() -> None:
    world = World(MemoryChain(nonces=False))
    world.head(entries=2)
    world.publish()
    world.chain.mine()
    world.confirm()
    world.head(entries=2)
    world.publish()
    small, large = world.rows()
    later_tx = world.versions(large.id)[0].version.transaction_id
    world.chain.reorg(1, keep=False, instead=[later_tx])
    later(world)
    world.confirm()
    assert world.receipts().keys() >= {(2, large.id), (3, large.id)}
    world.chain.forget_mempool()
    world.chain.mine(2)
    later(world)
    world.confirm()
    assert world.rows()[0].state is AnchorState.SENT
    assert sorted(world.receipts()) == [(index, large.id) for index in range(4)]


def test_a_final_head_covers_what_a_smaller_one_may_still_lose() -> None:
    world = World(MemoryChain(nonces=False))
    for _ in range(2):
        world.head(entries=2)
        world.publish()
    small, large = world.rows()
    world.chain.reorg(0, instead=[world.versions(large.id)[0].version.transaction_id])
    world.chain.mine()
    world.confirm()
    world.chain.mine()
    later(world)
    world.confirm()
    assert [r.state for r in world.rows()] == [AnchorState.CONFIRMED, AnchorState.FINAL]
    receipts = world.receipts()
    assert {key for key, r in receipts.items() if r.anchor.state == "final"} == {
        (index, large.id) for index in range(4)
    }
    assert {key for key, r in receipts.items() if r.anchor.state == "confirmed"} == {
        (index, small.id) for index in range(2)
    }


def test_a_confirmed_head_covers_what_a_smaller_one_has_lost(world: World) -> None:
    for _ in range(2):
        world.head(entries=2)
        world.publish()
    world.chain.mine()
    world.confirm()
    small, large = world.rows()
    with world.store.transaction() as tx:
        tx.delete_receipts(small.id)
        gone = replace(small, state=AnchorState.REORGED, next_attempt_at=world.now + 200)
        tx.save_anchor(gone)
    later(world)
    world.confirm()
    assert sorted(world.receipts()) == [(index, large.id) for index in range(4)]


def test_a_ledger_that_does_not_recompute_confirms_nothing(world: World) -> None:
    with world.store.transaction() as tx:
        tx.append_entry(RUN, Phase.BEFORE, None, bytes(32), True, world.now)
        note = sign_head(Head(ORIGIN, 1, b"\x01" * 32), SIGNER)
        tx.add_head(HeadRow(1, b"\x01" * 32, note, b"", world.now))
        tx.add_anchor(world.name, 1, world.now)
    world.publish()
    world.chain.mine()
    assert world.confirm().having(Outcome.HELD)
    assert world.row().state is AnchorState.SENT
    assert "inclusion of leaf 0 in a tree of 1" in (world.row().reason or "")
    assert world.receipts() == {}


def test_a_head_that_is_missing_makes_no_receipts(world: World) -> None:
    row = world.sent()
    (version,) = world.versions()
    seen = world.node.observe(version.version)
    with (
        world.store.snapshot() as tx,
        pytest.raises(IntegrityError, match="no head at size 9"),
    ):
        anchor_receipts.make_receipts(tx, replace(row, size=9), version, seen, {}, world.now)
