"""The chain in memory keeps the rules that anchoring relies on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provenance.errors import (
    FeeTooLowError,
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.ports.values import Draft, Place, SignedVersion, anchor_payload
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork

ROOT = bytes(range(32))
PAYLOAD = anchor_payload(ROOT)


@pytest.fixture(params=[True, False], ids=["nonces", "coins"])
def node(request: pytest.FixtureRequest) -> MemoryNetwork:
    return MemoryNetwork(MemoryChain(nonces=request.param))


def make(
    node: MemoryNetwork, nonce: int = 0, replaces: SignedVersion | None = None
) -> SignedVersion:
    draft = node.draft(PAYLOAD, replaces)
    return node.sign(draft, nonce if node.uses_nonce else None)


def test_unknown_pending_mined_final(node: MemoryNetwork) -> None:
    version = make(node)
    assert node.observe(version).place is Place.UNKNOWN
    node.broadcast(version)
    node.broadcast(version)
    assert node.observe(version).place is Place.PENDING
    node.chain.mine(time=9.0)
    node.broadcast(version)
    seen = node.observe(version)
    assert (seen.place, seen.root, seen.height, seen.depth, seen.final, seen.block_time) == (
        Place.MINED,
        ROOT,
        0,
        1,
        False,
        9.0,
    )
    node.chain.mine(2)
    assert node.observe(version).final
    assert node.lookup(version.transaction_id) == node.observe(version)
    assert node.lookup("0" * 64).place is Place.UNKNOWN
    node.close()


def test_a_replacement_pays_a_tenth_more_and_one_is_mined(node: MemoryNetwork) -> None:
    first = make(node)
    node.broadcast(first)
    second = make(node, replaces=first)
    node.broadcast(second)
    assert list(node.chain.mempool) == [second.transaction_id]
    with pytest.raises(FeeTooLowError):
        node.broadcast(first)
    node.chain.mine()
    assert node.observe(first).place is Place.CONFLICTED
    with pytest.raises(NonceUsedError):
        node.broadcast(first)
    assert node.observe(second).place is Place.MINED
    node.chain.reorg(1, instead=[first.transaction_id])
    assert node.observe(first).place is Place.MINED
    assert node.observe(second).place is Place.CONFLICTED
    assert node.chain.mempool == {}


def test_an_orphan_comes_back_in_place_of_its_rival(node: MemoryNetwork) -> None:
    first = make(node)
    node.broadcast(first)
    second = make(node, replaces=first)
    node.chain.mine()
    node.chain.mempool[second.transaction_id] = node._parse(second.raw)
    node.chain.reorg(1)
    assert list(node.chain.mempool) == [first.transaction_id]


def test_nonces_are_mined_without_a_gap() -> None:
    node = MemoryNetwork()
    node.broadcast(make(node, 1))
    node.chain.mine()
    assert (node.next_nonce(), len(node.chain.mempool)) == (0, 1)
    node.broadcast(make(node, 0))
    assert node.next_nonce() == 2
    node.chain.mine()
    assert node.chain.mempool == {}


def test_what_pays_too_little_waits(node: MemoryNetwork) -> None:
    node.broadcast(make(node))
    node.chain.fee = 11
    node.chain.mine()
    assert len(node.chain.mempool) == 1
    node.chain.fee = 10
    node.chain.mine()
    assert node.chain.mempool == {}


def test_the_balance_follows_the_blocks(node: MemoryNetwork) -> None:
    before = node.chain.balance
    node.broadcast(make(node))
    node.chain.mine()
    assert node.chain.balance == before - 10
    node.chain.reorg(1)
    assert node.chain.balance == before


def test_a_replaced_block_has_another_hash(node: MemoryNetwork) -> None:
    node.chain.mine(2)
    before = [block.hash for block in node.chain.blocks]
    node.chain.reorg(1)
    after = [block.hash for block in node.chain.blocks]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert len(after) == 3


def test_what_is_malformed_is_refused(node: MemoryNetwork) -> None:
    with pytest.raises(RejectedError, match="36 bytes"):
        node.draft(PAYLOAD[:-1])
    version = make(node)
    with pytest.raises(RejectedError, match="not a transaction"):
        node.broadcast(replace(version, raw=b"{}"))
    with pytest.raises(LyingNodeError, match="not of the version"):
        node.observe(replace(version, transaction_id="0" * 64))
    other = MemoryNetwork(MemoryChain(nonces=node.uses_nonce, chain_id=2))
    with pytest.raises(WrongNetworkError, match="chain 1337"):
        other.broadcast(version)


def test_signing_needs_a_nonce_where_there_are_some() -> None:
    node = MemoryNetwork()
    with pytest.raises(RejectedError, match="no nonce"):
        node.sign(Draft("memory", PAYLOAD, {"fee": 1, "chain_id": 1337}), None)


def test_there_are_no_nonces_among_coins() -> None:
    assert MemoryNetwork(MemoryChain(nonces=False)).next_nonce() == 0


def test_faults_come_when_ordered_and_go(node: MemoryNetwork) -> None:
    version = make(node)
    node.fail_next("broadcast", RejectedError("no"))
    with pytest.raises(RejectedError):
        node.broadcast(version)
    assert node.chain.mempool == {}
    node.lose_answer_next()
    with pytest.raises(NetworkUnavailable):
        node.broadcast(version)
    assert len(node.chain.mempool) == 1
    node.broadcast(version)
    node.hang()
    with pytest.raises(NetworkUnavailable):
        node.observe(version)
    node.hang(False)
    node.chain.mine()
    node.lie(root=bytes(32))
    assert node.observe(version).root == bytes(32)
    node.lie()
    assert node.observe(version).root == ROOT
    assert node.calls.count("broadcast") == 3
