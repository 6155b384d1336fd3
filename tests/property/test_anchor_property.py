"""Anchoring under fire: deaths at any call, two workers with one key, reorgs, lost answers,
forgotten mempools, fee spikes and jumping clocks, in any order.

While it burns: what is on the chain was stored first, one anchor has one nonce or coin and
one nonce or coin has one anchor, no root is on the chain twice, and a receipt belongs to a
confirmed anchor and proves its root. When the faults stop: every head is FINAL or REPLACED,
every FINAL head has exactly one transaction on the chain and there is no other, nonces have
no gap, and every ledger entry has a final receipt.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from provenance.anchor.delivery import MAX_LOOK_S
from provenance.anchor.outbox import ACTIVE, ON_CHAIN
from provenance.anchor.pauses import Pause, kind_of
from provenance.errors import InsufficientFundsError, NetworkUnavailable
from provenance.ports.values import AnchorState, VersionRow
from tests.support.anchor_world import World
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork, MemoryTransaction

CALLS = ("identity", "next_nonce", "draft", "sign", "broadcast", "observe", "evidence")
CONFIRMATIONS = 6
"""Reorgs are less deep than that: what is FINAL stays."""


class Died(BaseException):
    """The worker is gone at this point."""


class Anchoring(RuleBasedStateMachine):
    """Two nodes, two workers, one key, one chain."""

    @initialize(
        nonces=st.booleans(), max_in_flight=st.sampled_from([1, 3]), seed=st.integers(0, 2**32)
    )
    def start(self, nonces: bool, max_in_flight: int, seed: int) -> None:
        rng = random.Random(seed)
        self.world = World(MemoryChain(nonces=nonces), rng=rng.random)
        self.world.max_in_flight = max_in_flight
        self.nodes = [self.node(), self.node()]

    def node(self) -> MemoryNetwork:
        return MemoryNetwork(self.world.chain, confirmations=CONFIRMATIONS)

    # --- work, and what can happen in the middle of it ------------------------------------

    def work(
        self, which: str, node: MemoryNetwork, seconds: float, on_call: Callable[[str, str], None]
    ) -> None:
        self.world.now += seconds
        node.on_call = on_call
        try:
            getattr(self.world, which)(node)
        except Died:
            pass
        finally:
            node.on_call = None

    def tick(self, seconds: float = 61.0, node: int = 0) -> None:
        self.world.now += seconds
        self.world.publish(self.nodes[node])
        self.world.confirm(self.nodes[node])

    work_of = st.sampled_from(["publish", "confirm"])
    seconds_of = st.sampled_from([0.0, 6.0, 61.0, 61.0, 130.0, 700.0])

    @rule(seconds=seconds_of, node=st.integers(0, 1), blocks=st.integers(0, 2))
    def undisturbed(self, seconds: float, node: int, blocks: int) -> None:
        self.tick(seconds, node)
        self.world.chain.mine(blocks)

    @rule(entries=st.integers(1, 3), seconds=seconds_of)
    def head(self, entries: int, seconds: float) -> None:
        self.world.head(entries)
        self.tick(seconds)

    @rule(
        which=work_of,
        node=st.integers(0, 1),
        step=st.integers(0, 12),
        seconds=seconds_of,
        head=st.booleans(),
    )
    def killed(self, which: str, node: int, step: int, seconds: float, head: bool) -> None:
        if head:
            self.world.head()
        left = step

        def die(_method: str, _when: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Died

        self.work(which, self.nodes[node], seconds, die)

    @rule(
        which=work_of,
        other=work_of,
        step=st.integers(0, 9),
        seconds=seconds_of,
        expire=st.booleans(),
        heads=st.sampled_from([(False, False), (True, False), (True, True)]),
    )
    def interleaved(
        self,
        which: str,
        other: str,
        step: int,
        seconds: float,
        expire: bool,
        heads: tuple[bool, bool],
    ) -> None:
        left = step

        def meanwhile(method: str, _when: str) -> None:
            nonlocal left
            left -= 1
            if left < 0 and method != "sign":  # signing is inside a transaction
                self.nodes[0].on_call = None
                if expire:
                    self.world.now += 31
                if heads[1]:
                    self.world.head()
                getattr(self.world, other)(self.nodes[1])

        if heads[0]:
            self.world.head()
        self.work(which, self.nodes[0], seconds, meanwhile)

    @rule(which=work_of, step=st.integers(0, 9), seconds=seconds_of, blocks=st.integers(1, 3))
    def mined_meanwhile(self, which: str, step: int, seconds: float, blocks: int) -> None:
        left = step

        def mine(_method: str, _when: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                self.nodes[0].on_call = None
                self.world.chain.mine(blocks)

        self.work(which, self.nodes[0], seconds, mine)

    @rule(root=st.binary(min_size=32, max_size=32), seconds=seconds_of)
    def lied_to(self, root: bytes, seconds: float) -> None:
        self.world.chain.mine()
        self.nodes[1].lie(root=root)
        self.world.now += seconds
        before = {row.id for row in self.world.rows() if row.state in ON_CHAIN}
        self.world.confirm(self.nodes[1])
        assert {row.id for row in self.world.rows() if row.state in ON_CHAIN} <= before
        self.nodes[1].lie()

    @rule(node=st.integers(0, 1), which=work_of, seconds=seconds_of)
    def on_the_wrong_chain(self, node: int, which: str, seconds: float) -> None:
        if self.world.network() is not None:
            self.world.now += seconds
            self.nodes[node].lie(chain_id="5", place="unknown")
            getattr(self.world, which)(self.nodes[node])
            self.nodes[node].lie()

    # --- the world ------------------------------------------------------------------------

    @rule(depth=st.integers(1, CONFIRMATIONS - 1), keep=st.booleans(), look=st.booleans())
    def reorg(self, depth: int, keep: bool, look: bool) -> None:
        self.world.chain.reorg(depth, keep=keep)
        if look:
            self.tick()

    def replayable(self) -> list[MemoryTransaction]:
        chain = self.world.chain
        return [
            t
            for t in chain.seen.values()
            if chain.spender(t.key, t.spends) is None
            and (not chain.nonces or int(t.spends) == chain.next_nonce(t.key, pending=False))
        ]

    @precondition(lambda self: self.replayable())
    @rule(data=st.data())
    def any_version_is_mined(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.replayable(), key=lambda t: t.id)))
        self.world.chain.reorg(0, instead=[chosen.id])
        self.tick()

    @rule()
    def forget_mempool(self) -> None:
        self.world.chain.forget_mempool()

    @rule(fee=st.sampled_from([1, 10, 40, 99, 300]))
    def fees(self, fee: int) -> None:
        """The level changes, and what waits is stuck for long enough to be bumped."""
        self.world.chain.fee = fee
        self.tick(700.0)

    @rule(node=st.integers(0, 1), method=st.sampled_from(CALLS), lost=st.booleans())
    def outage(self, node: int, method: str, lost: bool) -> None:
        if lost:
            self.nodes[node].lose_answer_next(method)
        else:
            self.nodes[node].fail_next(method, NetworkUnavailable("refused"))
        self.tick(node=node)

    @rule(method=st.sampled_from(["draft", "broadcast"]))
    def broke(self, method: str) -> None:
        self.nodes[0].fail_next(method, InsufficientFundsError("balance too low"))
        self.tick()

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]), node=st.integers(0, 1))
    def clock_jump(self, seconds: float, node: int) -> None:
        """After a jump either way a pass leaves no row further away than the longest wait."""
        self.world.now += seconds
        self.tick(0.0, node)
        for row in self.world.rows():
            if row.state in ACTIVE:
                assert row.next_attempt_at <= self.world.now + 2 * MAX_LOOK_S
                assert (row.lease_until or 0) <= self.world.now + 2 * MAX_LOOK_S

    # --- promises -------------------------------------------------------------------------

    def all_versions(self) -> dict[int, list[VersionRow]]:
        return {row.id: self.world.versions(row.id) for row in self.world.rows()}

    @invariant()
    def what_is_on_the_chain_was_stored_first(self) -> None:
        stored = {v.version.transaction_id for vs in self.all_versions().values() for v in vs}
        assert set(self.world.chain.seen) <= stored

    @invariant()
    def one_anchor_one_nonce_or_coin(self) -> None:
        holders: dict[object, int] = {}
        for anchor, versions in self.all_versions().items():
            spends = {
                v.version.nonce if v.version.nonce is not None else v.version.detail["coin"]
                for v in versions
            }
            assert len(spends) <= 1
            for what in spends:
                assert holders.setdefault(what, anchor) == anchor
        if self.world.chain.nonces:
            assert sorted(holders, key=str) == sorted(range(len(holders)), key=str)

    @invariant()
    def no_root_twice(self) -> None:
        roots = self.world.mined_roots()
        assert len(roots) == len(set(roots))

    @invariant()
    def receipts_prove_confirmed_anchors(self) -> None:
        rows = {row.id: row for row in self.world.rows()}
        for (_, anchor), receipt in self.world.receipts().items():
            row = rows[anchor]
            assert row.state in ON_CHAIN
            assert receipt.ledger.root == row.root
            assert receipt.anchor.payload == b"MLP1" + row.root
            receipt.verify_inclusion()
        for row in rows.values():
            if row.state is AnchorState.FINAL:
                assert row.root in self.world.mined_roots()

    @invariant()
    def nothing_is_given_up(self) -> None:
        assert not [row for row in self.world.rows() if row.state is AnchorState.FAILED]
        assert kind_of(self.world.paused) in (None, Pause.BALANCE, Pause.WRONG_NETWORK)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.chain.fee = 10
        world.node = self.node()
        for _ in range(40):
            world.now += 601
            world.publish()
            world.confirm()
            world.chain.mine()
            self.one_anchor_one_nonce_or_coin()
            self.no_root_twice()
        rows = world.rows()
        assert {row.state for row in rows} <= {AnchorState.FINAL, AnchorState.REPLACED}
        final = [row for row in rows if row.state is AnchorState.FINAL]
        assert sorted(world.mined_roots()) == sorted(row.root for row in final)
        if rows:
            assert rows[-1].state is AnchorState.FINAL
            assert world.paused is None
        if world.chain.nonces:
            assert [int(t.spends) for _, t in world.chain.mined()] == list(range(len(final)))
        covered = {i for (i, _), r in world.receipts().items() if r.anchor.state == "final"}
        assert covered == set(range(world.size))
        world.store.close()


Anchoring.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestAnchoring = pytest.mark.slow(pytest.mark.timeout(600)(Anchoring.TestCase))
