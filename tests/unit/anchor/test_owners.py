"""Heads that owners sign: which one collects, what counts, and what the worker sends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provenance.anchor.delivery import Outcome
from provenance.anchor.owners import MARGIN_S, OwnersSign
from provenance.ports.values import AnchorRow, AnchorState, Draft, SignedVersion
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.ethereum import StoreRequest
from provenance.proofs.multisig.request import EthereumRequest
from tests.support.anchor_world import LEASE_S, World
from tests.support.nodes.memory_chain import MemoryNetwork
from tests.support.nodes.owners import ADDRESSES, ethereum_signatures

OWNERS = Quorum(2, tuple(sorted(address.lower() for address in ADDRESSES)))
CONTRACT = b"\xcc" * 20


class OwnedWorld(World):
    """Two of three owners sign each head."""

    def __init__(self) -> None:
        super().__init__(name="ethereum")
        self.conditions = (OwnersSign(OWNERS, 0.0, self.clock),)

    def waiting(self) -> AnchorRow:
        row = self.head()
        assert row is not None
        self.publish()
        return row

    def sign(self, row: AnchorRow, *numbers: int, deadline: float = 86_400.0) -> None:
        with self.store.transaction() as tx:
            head = tx.head(row.size)
            assert head is not None
            store = StoreRequest(1, CONTRACT, row.root, int(self.now + deadline))
            request = EthereumRequest(head.note, store, ethereum_signatures(store, *numbers))
            tx.save_signing_request(row.network, row.root, request.encode())

    def states(self) -> list[AnchorState]:
        return [row.state for row in self.rows()]


@pytest.fixture
def world() -> OwnedWorld:
    return OwnedWorld()


def test_a_later_head_takes_the_place_of_one_that_nobody_signed(world: OwnedWorld) -> None:
    first = world.waiting()
    world.sign(first)
    world.waiting()
    assert world.states() == [AnchorState.REPLACED, AnchorState.HELD]


def test_one_that_somebody_signed_keeps_its_place(world: OwnedWorld) -> None:
    first = world.waiting()
    world.sign(first, 1)
    world.waiting()
    world.waiting()
    assert world.states() == [AnchorState.HELD, AnchorState.REPLACED, AnchorState.DUE]
    assert world.rows()[0].reason == f"waits for owners: 1 of 2 signed ({ADDRESSES[1].lower()})"
    assert world.mined_roots() == []
    world.sign(first, 0, 1)
    assert world.publish().outcomes == {first.id: Outcome.SENT}
    world.chain.mine(time=world.now)
    assert world.mined_roots() == [first.root]


def test_signatures_that_run_out_free_the_place(world: OwnedWorld) -> None:
    first = world.waiting()
    world.sign(first, 0, 1, deadline=MARGIN_S - 1)
    world.publish()
    assert "what they signed expires" in (world.row().reason or "")
    world.waiting()
    assert world.states() == [AnchorState.REPLACED, AnchorState.HELD]


def test_a_request_of_another_head_is_none(world: OwnedWorld) -> None:
    first = world.waiting()
    world.sign(first, 0, 1)
    with world.store.transaction() as tx:
        document = tx.signing_request("ethereum", first.root)
        second = replace(first, root=bytes(32))
        assert document is not None
        tx.save_signing_request("ethereum", second.root, document)
        (condition,) = world.conditions
        assert "of another head" in (condition.waits_for(tx, second) or "")
        assert not condition.is_begun(tx, second)
        assert condition.waits_for(tx, first) is None
        tx.save_signing_request("ethereum", first.root, b"{")
        assert "what was signed does not hold" in (condition.waits_for(tx, first) or "")
        assert not condition.is_begun(tx, first)


def test_what_was_taken_back_between_draft_and_signature_is_not_sent(world: OwnedWorld) -> None:
    """The conditions are asked again in the transaction that stores the bytes."""
    first = world.waiting()
    world.sign(first, 0, 1)

    class TakenBack(MemoryNetwork):
        def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
            world.sign(first, 0)
            return super().draft(payload, replaces)

    node = TakenBack(world.chain, name=world.name)
    assert world.publish(node).outcomes == {first.id: Outcome.WAITING}
    assert world.states() == [AnchorState.HELD]
    assert world.versions() == []


def test_a_worker_killed_before_or_after_it_stored_sends_one_transaction(world: OwnedWorld) -> None:
    first = world.waiting()
    world.sign(first, 0, 1)

    class Killed(MemoryNetwork):
        def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
            raise KeyboardInterrupt

    class KilledLater(MemoryNetwork):
        def broadcast(self, version: SignedVersion) -> None:
            raise KeyboardInterrupt

    for kind, state in ((Killed, AnchorState.DUE), (KilledLater, AnchorState.SIGNED)):
        with pytest.raises(KeyboardInterrupt):
            world.publish(kind(world.chain, name=world.name))
        assert (world.row().state, world.mined_roots()) == (state, [])
        world.now += LEASE_S + 1
    world.sign(first, 0, 1, 2)  # whoever signs now changes nothing that is stored
    (stored,) = world.versions()
    assert world.publish().outcomes == {first.id: Outcome.SENT}
    world.chain.mine(time=world.now)
    assert world.mined_roots() == [first.root]
    assert world.versions() == [replace(stored, sent_at=world.now)]
