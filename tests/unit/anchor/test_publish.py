"""Publishing: store before send, one nonce each, and every refusal in its place.

Over 400 lines: case by case, one file: `provenance/anchor/publish.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from provenance.anchor import pauses
from provenance.anchor.delivery import Outcome
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
    StoreUnavailable,
    WrongNetworkError,
)
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState
from provenance.settings import RetrySettings
from provenance.stores.sql import SqlStore
from tests.support.anchor_world import LEASE_S, World, foreign
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


def test_a_due_head_is_sent_and_says_so(world: World) -> None:
    row = world.head()
    result = world.publish()
    assert row is not None
    assert result.having(Outcome.SENT) == (row.id,)
    now = world.row()
    assert (now.state, now.attempts, now.lease_owner, now.reason) == (
        AnchorState.SENT,
        0,
        None,
        None,
    )
    (version,) = world.versions()
    assert now.version_id == version.id
    assert version.sent_at == world.now
    assert version.version.payload == b"MLP1" + row.root
    assert list(world.chain.mempool) == [version.version.transaction_id]


def test_bytes_are_stored_before_they_are_sent(world: World) -> None:
    seen = []

    def look(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "before"):
            seen.append((world.row().state, [v.version.raw for v in world.versions()]))

    world.head()
    world.node.on_call = look
    world.publish()
    assert seen == [(AnchorState.SIGNED, [world.versions()[0].version.raw])]


def test_nothing_due_asks_the_network_nothing(world: World) -> None:
    assert world.publish().outcomes == {}
    assert world.node.calls == []


def test_only_the_largest_due_head_is_kept(world: World) -> None:
    for _ in range(3):
        world.head()
    result = world.publish()
    states = [row.state for row in world.rows()]
    assert states == [AnchorState.REPLACED, AnchorState.REPLACED, AnchorState.SENT]
    assert result.replaced == tuple(row.id for row in world.rows()[:2])
    assert world.rows()[0].reason == "covered by the head at size 3"
    assert len(world.chain.mempool) == 1


@pytest.mark.slow
def test_many_due_heads_cost_one_anchor_and_few_transactions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(100):
        world.head()
    begun = []
    transaction = type(world.store).transaction

    def counted(store: SqlStore) -> AbstractContextManager[LedgerTx]:
        begun.append(store)
        return transaction(store)

    monkeypatch.setattr(type(world.store), "transaction", counted)
    result = world.publish()
    world.chain.mine(time=world.now)
    world.confirm()
    last = world.row()
    assert last.state is AnchorState.CONFIRMED
    assert len(result.replaced) == 99
    assert set(world.receipts()) == {(index, last.id) for index in range(100)}
    assert len(begun) < 10


def test_a_head_that_a_sent_one_covers_is_replaced(world: World) -> None:
    world.head(due=False)
    world.sent()
    with world.store.transaction() as tx:
        tx.add_anchor(world.name, 1, world.now)
    world.publish()
    assert [row.state for row in world.rows()] == [AnchorState.REPLACED, AnchorState.SENT]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "when"),
    [
        ("identity", "before"),
        ("draft", "before"),
        ("draft", "after"),
        ("sign", "before"),
        ("sign", "after"),
        ("broadcast", "before"),
        ("broadcast", "after"),
    ],
)
def test_a_death_anywhere_leaves_one_transaction(world: World, method: str, when: str) -> None:
    world.head()
    world.node.on_call = die_at(method, when)
    with pytest.raises(Died):
        world.publish()
    stored = [v.version.raw for v in world.versions()]
    world.node.on_call = None
    assert world.publish().outcomes == {}  # the lease of the dead one still runs
    world.now += LEASE_S
    assert world.publish().having(Outcome.SENT)
    after = [v.version.raw for v in world.versions()]
    assert len(after) == 1
    assert not stored or stored == after
    assert len(world.chain.mempool) == 1


def test_a_lost_answer_is_no_second_transaction(world: World) -> None:
    world.head()
    world.node.lose_answer_next()
    assert world.publish().having(Outcome.HELD)
    row = world.row()
    assert row.state is AnchorState.SIGNED
    assert "no answer to broadcast" in (row.reason or "")
    world.now += 60
    assert world.publish().having(Outcome.SENT)
    assert len(world.chain.mempool) == 1
    assert len(world.versions()) == 1


@pytest.mark.parametrize("method", ["identity", "draft", "sign", "broadcast"])
def test_an_outage_backs_off_and_is_survived(world: World, method: str) -> None:
    world.head()
    world.node.fail_next(method, NetworkUnavailable("connection refused"), times=3)
    waits = []
    for _ in range(3):
        assert world.publish().having(Outcome.HELD)
        row = world.row()
        assert row.reason == "connection refused"
        assert row.lease_owner is None
        waits.append(row.next_attempt_at - world.now)
        world.now = row.next_attempt_at
    assert waits == [1.0, 2.0, 4.0]  # half of 2, 4, 8
    assert world.publish().having(Outcome.SENT)
    assert world.row().attempts == 0
    assert len(world.chain.mempool) == 1


def test_attempts_are_given_up_only_before_anything_is_signed(world: World) -> None:
    world.retry = RetrySettings(base_s=2.0, cap_s=60.0, attempts=2)
    world.node.hang()
    world.head()
    for _ in range(2):
        world.publish()
        world.now += 60
    assert world.row().state is AnchorState.FAILED
    assert "no answer" in (world.row().reason or "")

    world.node.hang(False)
    world.head()
    world.node.fail_next("broadcast", NetworkUnavailable("refused"), times=4)
    for _ in range(4):
        world.publish()
        world.now += 60
    assert (world.row().state, world.row().attempts) == (AnchorState.SIGNED, 4)
    assert world.publish().having(Outcome.SENT)


def test_an_outage_stops_the_pass_and_gives_the_rest_back(nonces: World) -> None:
    for _ in range(2):
        nonces.head()
        nonces.node.fail_next("broadcast", NetworkUnavailable("refused"))
        nonces.publish()
    nonces.now += 60
    nonces.node.calls.clear()
    nonces.node.fail_next("broadcast", NetworkUnavailable("refused"))
    result = nonces.publish()
    assert list(result.outcomes.values()) == [Outcome.HELD]
    assert nonces.node.calls.count("broadcast") == 1
    assert [row.lease_owner for row in nonces.rows()] == [None, None]


@pytest.mark.parametrize("method", ["draft", "broadcast"])
def test_a_low_balance_pauses_and_ends_by_itself(world: World, method: str) -> None:
    world.retry = RetrySettings(base_s=2.0, cap_s=60.0, attempts=1)
    world.head()
    world.node.fail_next(method, InsufficientFundsError("balance 3 of 10"), times=2)
    for _ in range(2):
        result = world.publish()
        assert result.paused == "balance: balance 3 of 10"
        assert world.row().attempts == 0
        assert world.row().state in (AnchorState.DUE, AnchorState.SIGNED)
        world.now += 60
    assert world.publish().paused is None
    assert world.row().state is AnchorState.SENT


def test_a_real_balance_too_low_waits_until_funded(world: World) -> None:
    world.chain.balance = 5
    world.head()
    world.publish()
    assert "balance 5 of 10" in (world.paused or "")
    world.chain.balance = 1000
    world.now += 60
    assert world.publish().paused is None
    assert world.row().state is AnchorState.SENT


def test_a_permanent_refusal_of_the_draft_fails_the_row(world: World) -> None:
    world.head()
    world.node.fail_next("draft", RejectedError("execution reverted"))
    assert world.publish().having(Outcome.FAILED)
    row = world.row()
    assert (row.state, row.reason, row.lease_owner) == (
        AnchorState.FAILED,
        "execution reverted",
        None,
    )
    world.head()
    assert world.publish().having(Outcome.SENT)  # the later head covers it


@pytest.mark.parametrize(
    "error",
    [
        LyingNodeError("another hash came back"),
        FeeTooLowError("needs 300, the cap is 200"),
        NonceUsedError("odd"),
        ConfigError("blockchain", "odd"),
    ],
)
def test_what_may_pass_does_not_fail_the_row(world: World, error: ProvenanceError) -> None:
    world.retry = RetrySettings(base_s=2.0, cap_s=60.0, attempts=1)
    world.head()
    world.node.fail_next("draft", error)
    assert world.publish().having(Outcome.HELD)
    assert (world.row().state, world.row().reason) == (AnchorState.DUE, str(error))
    world.now += 60
    assert world.publish().having(Outcome.SENT)


def test_a_database_outage_is_for_the_caller(world: World) -> None:
    world.head()
    world.node.fail_next("draft", StoreUnavailable("locked"))
    with pytest.raises(StoreUnavailable):
        world.publish()


def test_rejected_bytes_fail_where_nothing_waits_behind_them() -> None:
    world = World(MemoryChain(nonces=False))
    world.head()
    world.node.fail_next("broadcast", RejectedError("bad-txns"))
    assert world.publish().having(Outcome.FAILED)
    assert world.row().reason == "bad-txns"


def test_rejected_bytes_are_built_again_on_the_same_nonce(nonces: World) -> None:
    nonces.head()
    nonces.node.fail_next("broadcast", RejectedError("intrinsic gas too low"))
    assert nonces.publish().having(Outcome.BUMPED)
    assert nonces.row().state is AnchorState.SENT
    assert [v.version.nonce for v in nonces.versions()] == [0, 0]
    nonces.head()
    nonces.publish()
    assert nonces.versions()[0].version.nonce == 1


def test_a_nonce_that_cannot_be_filled_blocks_signing_until_it_is(nonces: World) -> None:
    nonces.head()
    nonces.node.fail_next("broadcast", RejectedError("gas limit"), times=2)
    result = nonces.publish()
    first = nonces.row()
    assert result.paused == f"blocked: anchor {first.id}: gas limit"
    assert (first.state, first.reason) == (AnchorState.SIGNED, result.paused)
    nonces.head()
    assert nonces.publish().outcomes == {}
    nonces.now += 120
    assert nonces.publish().paused is None  # the bytes were taken after all
    assert nonces.publish().having(Outcome.SENT)
    assert [row.state for row in nonces.rows()] == [AnchorState.SENT, AnchorState.SENT]
    nonces.chain.mine()
    assert nonces.mined_roots() == [row.root for row in nonces.rows()]


def test_rejected_bytes_that_the_network_has_are_sent(world: World) -> None:
    world.head()
    world.node.lose_answer_next()
    world.publish()
    world.now += 60
    world.node.fail_next("broadcast", RejectedError("already there, oddly said"))
    assert world.publish().having(Outcome.SENT)
    assert len(world.versions()) == 1


def test_a_fee_too_low_to_send_is_raised_at_once(world: World) -> None:
    world.head()
    world.node.fail_next("broadcast", FeeTooLowError("below the minimum"))
    assert world.publish().having(Outcome.BUMPED)
    first, second = world.versions()
    assert (first.sent_at, second.sent_at) == (None, world.now)
    assert (first.version.fee, second.version.fee) == (10, 12)
    assert first.version.nonce == second.version.nonce
    assert world.row().version_id == second.id


def test_a_fee_at_the_cap_waits(world: World) -> None:
    world.node.max_fee = 10
    world.head()
    world.node.fail_next("broadcast", FeeTooLowError("below the minimum"))
    assert world.publish().having(Outcome.HELD)
    assert "the cap is 10" in (world.row().reason or "")
    assert world.row().state is AnchorState.SIGNED
    world.now += 60
    assert world.publish().having(Outcome.SENT)


def test_a_nonce_that_one_of_ours_used_is_sent(nonces: World) -> None:
    nonces.head()
    nonces.node.lose_answer_next()
    nonces.publish()
    nonces.chain.mine()
    nonces.now += 60
    nonces.node.fail_next("broadcast", NonceUsedError("nonce too low"))
    assert nonces.publish().having(Outcome.SENT)
    assert nonces.paused is None


def test_a_nonce_that_somebody_else_used_halts_the_network(world: World) -> None:
    world.head()
    world.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        world.publish()
    world.node.on_call = None
    stranger = MemoryNetwork(world.chain)
    stranger.broadcast(foreign(world.versions()[0].version))
    world.chain.mine()
    world.now += LEASE_S

    result = world.publish()
    row = world.row()
    assert result.having(Outcome.HELD)
    assert (result.paused or "").startswith(f"shared key: anchor {row.id}: ")
    assert "none of our versions spent it" in (row.reason or "")
    assert row.state is AnchorState.SIGNED
    world.head()
    assert not world.publish().having(Outcome.SENT)

    world.now += 10
    assert pauses.resume(world.store, world.name, world.now) == (row.id,)
    assert world.rows()[0].state is AnchorState.FAILED
    assert "given up, the next head covers it: shared key" in (world.rows()[0].reason or "")
    assert world.publish().having(Outcome.SENT)
    assert pauses.resume(world.store, world.name, world.now) == ()


def test_another_chain_is_never_sent_to(world: World) -> None:
    world.sent()
    world.head()
    world.node.lie(chain_id="5")
    world.node.calls.clear()
    result = world.publish()
    assert result.paused == ("wrong network: memory: chain_id was 1337 at first contact, is 5")
    assert world.node.calls == ["identity"]
    assert (world.row().state, world.row().attempts) == (AnchorState.DUE, 0)
    assert "chain_id was 1337" in (world.row().reason or "")
    world.node.lie()
    world.now += 60
    assert world.publish().paused is None
    assert world.row().state is AnchorState.SENT


def test_a_network_that_refuses_at_first_contact_is_paused(world: World) -> None:
    world.head()
    world.node.fail_next("identity", WrongNetworkError("configured for chain 1"))
    assert world.publish().paused == "wrong network: configured for chain 1"
    assert world.row().state is AnchorState.DUE
    world.now += 60
    assert world.publish().paused is None


def test_a_new_node_version_is_no_new_network(world: World) -> None:
    world.sent()
    with world.store.transaction() as tx:
        known = tx.network(world.name)
        assert known is not None
        tx.save_network(replace(known, identity=dict(known.identity) | {"version": "memory/0"}))
    world.head()
    assert world.publish().having(Outcome.SENT)
    known = world.network()
    assert known is not None
    assert known.identity["version"] == "memory/1"


def test_the_identity_is_not_written_again_each_time(world: World) -> None:
    world.sent()
    first = world.network()
    world.now += 10
    world.head()
    world.publish()
    assert world.network() == first
    world.now += pauses.REFRESH_S
    world.head()
    world.publish()
    again = world.network()
    assert again is not None
    assert again.checked_at == world.now


def test_one_in_flight_on_bitcoin() -> None:
    world = World(MemoryChain(nonces=False), name="bitcoin")
    world.sent()
    for _ in range(2):
        world.head()
        assert world.publish().outcomes == {}
    assert [r.state for r in world.rows()] == [
        AnchorState.SENT,
        AnchorState.REPLACED,
        AnchorState.DUE,
    ]
    world.chain.mine()
    world.confirm()
    assert world.publish().having(Outcome.SENT)


def test_two_publishers_at_once_take_two_nonces(nonces: World) -> None:
    other = MemoryNetwork(nonces.chain)

    def meanwhile(method: str, when: str) -> None:
        if (method, when) == ("next_nonce", "after"):
            nonces.node.on_call = None
            with nonces.store.transaction() as tx:  # the first lease is lost
                row = tx.anchors(nonces.name)[0]
                tx.save_anchor(replace(row, lease_until=nonces.now))
            assert nonces.publish(other).having(Outcome.SENT)
            nonces.head()
            assert nonces.publish(other).having(Outcome.SENT)

    nonces.head()
    nonces.node.on_call = meanwhile
    assert nonces.publish().having(Outcome.LOST)
    rows = nonces.rows()
    assert [nonces.versions(row.id)[0].version.nonce for row in rows] == [0, 1]
    assert len(nonces.chain.mempool) == 2


def test_a_head_superseded_while_it_is_drafted_is_dropped(nonces: World) -> None:
    other = MemoryNetwork(nonces.chain)

    def meanwhile(method: str, when: str) -> None:
        if (method, when) == ("next_nonce", "after"):
            nonces.node.on_call = None
            nonces.head()
            assert nonces.publish(other).replaced == (nonces.rows()[0].id,)

    nonces.head()
    nonces.node.on_call = meanwhile
    assert nonces.publish().having(Outcome.LOST)
    assert [row.state for row in nonces.rows()] == [AnchorState.REPLACED, AnchorState.SENT]
    assert len(nonces.chain.mempool) == 1


def test_a_stored_nonce_counts_before_the_node_knows_it(nonces: World) -> None:
    nonces.head()
    nonces.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        nonces.publish()
    nonces.node.on_call = None
    nonces.head()
    assert nonces.publish().having(Outcome.SENT)
    assert nonces.versions()[0].version.nonce == 1
    nonces.now += LEASE_S
    assert nonces.publish().having(Outcome.SENT)
    nonces.chain.mine()
    assert len(nonces.mined_roots()) == 2


def test_a_row_waits_where_the_limit_is_reached_meanwhile() -> None:
    world = World(name="bitcoin")
    world.sent()
    sent = world.row()
    world.save(replace(sent, state=AnchorState.CONFIRMED))

    def meanwhile(method: str, when: str) -> None:
        if (method, when) == ("draft", "after"):
            world.save(replace(world.rows()[0], state=AnchorState.REORGED))

    world.head()
    world.node.on_call = meanwhile
    assert world.publish().having(Outcome.WAITING)
    assert (world.row().state, world.row().lease_owner) == (AnchorState.DUE, None)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -86_400.0])
def test_a_clock_that_jumps_stalls_no_row(world: World, jump: float) -> None:
    world.head()
    world.node.fail_next("draft", NetworkUnavailable("refused"))
    world.publish()
    world.now += jump
    world.now += 60
    assert world.publish().having(Outcome.SENT)

    world.head()
    world.node.on_call = die_at("broadcast", "before")
    with pytest.raises(Died):
        world.publish()
    world.node.on_call = None
    world.now += jump
    world.now += LEASE_S
    assert world.publish().having(Outcome.SENT)


def test_a_pass_ends_with_its_lease(nonces: World) -> None:
    for _ in range(2):
        nonces.head()
        nonces.node.fail_next("broadcast", NetworkUnavailable("refused"))
        nonces.publish()
    nonces.now += 60

    def slow(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "after"):
            nonces.now += LEASE_S

    nonces.node.on_call = slow
    assert list(nonces.publish().outcomes.values()) == [Outcome.SENT]
    nonces.node.on_call = None
    assert nonces.publish().having(Outcome.SENT)


def test_a_signed_row_without_bytes_is_held(world: World) -> None:
    world.head()
    world.save(replace(world.row(), state=AnchorState.SIGNED))
    assert world.publish().having(Outcome.HELD)
    assert "without signed bytes" in (world.row().reason or "")


def test_a_lease_lost_before_the_answer_still_records_the_fact(world: World) -> None:
    def thief(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "after"):
            world.save(replace(world.row(), lease_owner="thief", lease_until=world.now + 9))

    world.head()
    world.node.on_call = thief
    assert world.publish().having(Outcome.SENT)
    row = world.row()
    assert (row.state, row.lease_owner) == (AnchorState.SENT, "thief")
    assert world.versions()[0].sent_at == world.now


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [NetworkUnavailable("x"), RejectedError("x"), NonceUsedError("x"), FeeTooLowError("x")],
)
def test_a_lease_lost_before_a_refusal_drops_the_work(world: World, error: ProvenanceError) -> None:
    def thief(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "before"):
            world.save(replace(world.row(), lease_owner="thief", lease_until=world.now + 9))

    world.head()
    world.node.fail_next("broadcast", error)
    world.node.on_call = thief
    assert world.publish().having(Outcome.LOST)
    row = world.row()
    assert (row.state, row.lease_owner, row.reason) == (AnchorState.SIGNED, "thief", None)


def test_pauses_know_their_kind() -> None:
    assert pauses.kind_of(None) is None
    assert pauses.kind_of("balance: 3") is pauses.Pause.BALANCE
    assert pauses.kind_of("an operator said stop") is pauses.Pause.BLOCKED


def test_a_pause_that_stops_signing_is_not_hidden(world: World) -> None:
    with world.store.transaction() as tx:
        pauses.pause(tx, world.name, pauses.Pause.SHARED_KEY, "anchor 1: x", 1.0)
        pauses.pause(tx, world.name, pauses.Pause.BALANCE, "y", 1.0)
        pauses.lift(tx, world.name, pauses.Pause.BALANCE)
        pauses.lift(tx, world.name, pauses.Pause.SHARED_KEY, anchor_id=2)
    assert world.paused == "shared key: anchor 1: x"
    with world.store.transaction() as tx:
        pauses.lift(tx, world.name, pauses.Pause.SHARED_KEY, anchor_id=1)
    assert world.paused is None


def test_a_row_that_somebody_else_confirmed_meanwhile_is_left(world: World) -> None:
    def other(method: str, when: str) -> None:
        if (method, when) == ("broadcast", "after"):
            world.save(replace(world.row(), state=AnchorState.CONFIRMED, lease_owner="other"))

    world.head()
    world.node.on_call = other
    assert world.publish().having(Outcome.LOST)
    assert world.row().state is AnchorState.CONFIRMED
    assert world.versions()[0].sent_at == world.now
