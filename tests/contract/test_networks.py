"""One suite for every :class:`provenance.ports.network.Network`: the real ones and the fake."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from msgspec import structs

from provenance.errors import (
    NetworkError,
    NetworkUnavailable,
    ProvenanceError,
)
from provenance.formats.record import canonical_json
from provenance.ports.network import Network
from provenance.ports.values import Place, SignedVersion, anchor_payload
from provenance.settings import (
    BitcoinSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
)
from tests.support.nodes.regtest import Regtest

ANSWERED = (Place.PENDING, Place.MINED)


@dataclass
class World:
    """``mine`` adds blocks; ``elsewhere`` is the same network with nobody there."""

    network: Network
    mine: Callable[[int], object]
    elsewhere: Callable[[], Network] | None
    bumps: bool
    unknown_id: str


def ethereum(request: pytest.FixtureRequest) -> World:
    from provenance.chains.ethereum.interface import EthereumInterface
    from provenance_devnet.rpc import mine_ethereum
    from provenance_devnet.servers import DEV_CHAIN_KEY

    url = request.getfixturevalue("ethereum_url")
    settings = EthereumSettings(
        url=url, chain_id=31337, private_key=DEV_CHAIN_KEY, confirmations=3, timeout_s=10
    )
    return World(
        EthereumInterface(settings),
        lambda count: mine_ethereum(url, count),
        lambda: EthereumInterface(structs.replace(settings, url=nobody())),
        bumps=True,
        unknown_id="0x" + "00" * 31 + "01",
    )


def bitcoin(request: pytest.FixtureRequest) -> World:
    from provenance.chains.bitcoin.interface import BitcoinInterface

    shared: BitcoinSettings = request.getfixturevalue("bitcoin_settings")
    regtest = Regtest(shared)
    settings = regtest.rich_wallet()
    return World(
        BitcoinInterface(settings),
        regtest.mine,
        lambda: BitcoinInterface(structs.replace(settings, url=nobody())),
        bumps=True,
        unknown_id="00" * 31 + "01",
    )


def ipfs(request: pytest.FixtureRequest) -> World:
    from provenance.chains.ipfs import IPFSInterface

    settings = IPFSSettings(url=request.getfixturevalue("ipfs_url"), timeout_s=4)
    return World(
        IPFSInterface(settings),
        lambda count: None,
        lambda: IPFSInterface(structs.replace(settings, url=nobody())),
        bumps=False,
        unknown_id="",
    )


def local(request: pytest.FixtureRequest) -> World:
    from provenance.chains.local import LocalNetwork

    folder: Path = request.getfixturevalue("tmp_path")
    (folder / "a file").write_text("")
    return World(
        LocalNetwork(LocalSettings(folder / "anchors.jsonl"), bytes(range(32))),
        lambda count: None,
        lambda: LocalNetwork(LocalSettings(folder / "a file" / "x"), bytes(range(32))),
        bumps=False,
        unknown_id="local:" + "0" * 32,
    )


def memory(request: pytest.FixtureRequest) -> World:
    from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork

    chain = MemoryChain(nonces=request.param == "memory-nonces")
    return World(
        MemoryNetwork(chain),
        lambda count: chain.mine(count),
        None,
        bumps=True,
        unknown_id="00" * 32,
    )


def nobody() -> str:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


WORLDS: dict[str, Callable[[pytest.FixtureRequest], World]] = {
    "ethereum": ethereum,
    "bitcoin": bitcoin,
    "ipfs": ipfs,
    "local": local,
    "memory-nonces": memory,
    "memory-coins": memory,
}


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param](request)


def payload() -> bytes:
    return anchor_payload(hashlib.sha256(os.urandom(16)).digest())


def signed(world: World, what: bytes, replaces: SignedVersion | None = None) -> SignedVersion:
    draft = world.network.draft(what, replaces)
    nonce = None
    if world.network.uses_nonce:
        nonce = world.network.next_nonce() if replaces is None else replaces.nonce
    return world.network.sign(draft, nonce)


def test_identity_is_stable_and_is_json(world: World) -> None:
    first, second = world.network.identity(), world.network.identity()
    assert first.network == world.network.name
    assert first.fields == second.fields
    assert first.fields
    canonical_json(dict(first.fields))


def test_a_version_can_be_stored_and_comes_back_the_same(world: World) -> None:
    what = payload()
    version = signed(world, what)
    assert (version.network, version.payload) == (world.network.name, what)
    assert version.transaction_id
    assert version.raw
    assert (version.nonce is not None) == world.network.uses_nonce
    canonical_json(dict(version.detail))
    assert isinstance(version.fee, int)


def test_signing_is_repeatable(world: World) -> None:
    what = payload()
    draft = world.network.draft(what)
    nonce = world.network.next_nonce() if world.network.uses_nonce else None
    assert world.network.sign(draft, nonce) == world.network.sign(draft, nonce)


def test_unsent_is_unknown_and_sent_is_answered_for(world: World) -> None:
    what = payload()
    version = signed(world, what)
    before = world.network.observe(version)
    assert (before.place, before.depth, before.final) == (Place.UNKNOWN, 0, False)
    world.network.broadcast(version)
    assert world.network.observe(version).place in ANSWERED


def test_the_root_is_read_back_and_depth_grows_to_final(world: World) -> None:
    what = payload()
    version = signed(world, what)
    world.network.broadcast(version)
    world.mine(1)
    seen = world.network.observe(version)
    assert (seen.place, seen.root) == (Place.MINED, what[4:])
    assert seen.depth >= 1
    world.mine(world.network.confirmations)
    final = world.network.observe(version)
    assert final.final
    assert final.depth >= world.network.confirmations
    assert (final.block_hash, final.height) == (seen.block_hash, seen.height)


def test_lookup_by_id_alone_agrees_with_observe(world: World) -> None:
    version = signed(world, payload())
    world.network.broadcast(version)
    world.mine(1)
    assert world.network.lookup(version.transaction_id) == world.network.observe(version)


def test_broadcast_may_be_repeated_before_and_after_it_is_mined(world: World) -> None:
    version = signed(world, payload())
    for _ in range(3):
        world.network.broadcast(version)
    world.mine(1)
    world.network.broadcast(version)
    world.mine(1)
    world.network.broadcast(version)
    assert world.network.observe(version).place is Place.MINED


def test_two_anchors_one_after_the_other_are_two_transactions(world: World) -> None:
    ids = set()
    for _ in range(2):
        version = signed(world, payload())
        world.network.broadcast(version)
        world.mine(1)
        assert world.network.observe(version).place is Place.MINED
        ids.add(version.transaction_id)
    assert len(ids) == 2


def test_a_replacement_carries_the_same_root(world: World) -> None:
    what = payload()
    first = signed(world, what)
    second = signed(world, what, first)
    assert second.payload == what
    if world.bumps:
        assert second.fee > first.fee
        assert second.transaction_id != first.transaction_id
        assert second.nonce == first.nonce
    else:
        assert second.transaction_id == first.transaction_id
    world.network.broadcast(second)
    world.mine(1)
    assert world.network.observe(second).root == what[4:]


def test_evidence_is_json(world: World) -> None:
    version = signed(world, payload())
    world.network.broadcast(version)
    world.mine(1)
    evidence = world.network.evidence(version, world.network.observe(version))
    assert evidence
    canonical_json(evidence)


@pytest.mark.parametrize("what", [b"", b"MLP1", b"MLP1" + bytes(33), b"XXXX" + bytes(32)])
def test_other_payloads_are_refused(world: World, what: bytes) -> None:
    with pytest.raises(ProvenanceError) as caught:
        world.network.draft(what)
    assert not caught.value.retryable


def test_an_unknown_id_is_unknown(world: World) -> None:
    if not world.unknown_id:
        with pytest.raises(NetworkUnavailable):  # nobody having it cannot be known
            world.network.lookup("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
        return
    assert world.network.lookup(world.unknown_id).place is Place.UNKNOWN


@pytest.mark.parametrize("wrong", ["", "nonsense", "0x12", "..", "Qm", "é" * 64])
def test_ids_that_are_none_never_verify(world: World, wrong: str) -> None:
    if world.elsewhere is None:
        assert world.network.lookup(wrong).place is Place.UNKNOWN
        return
    with pytest.raises(NetworkError):
        world.network.lookup(wrong)


def test_the_newest_block_is_as_deep_as_an_anchor_has_to_be(world: World) -> None:
    world.mine(world.network.confirmations + 1)
    block = world.network.newest_block()
    if block is None:
        assert world.network.name not in ("bitcoin", "ethereum")
        return
    block.check()
    assert block.network == world.network.name
    assert world.network.depth_of(block) == world.network.confirmations
    world.mine(2)
    assert world.network.depth_of(block) == world.network.confirmations + 2
    assert world.network.depth_of(replace(block, height=block.height - 1)) == 0
    assert world.network.depth_of(replace(block, height=10**6)) == 0


def test_nobody_there_is_unavailable_whatever_is_asked(world: World) -> None:
    if world.elsewhere is None:  # the fake is always there
        return
    version = signed(world, payload())
    gone = world.elsewhere()
    calls: list[Callable[[], object]] = [lambda: gone.broadcast(version)]
    if world.network.name != "local":  # a file that is not there yet is an empty one
        calls += [
            gone.identity,
            lambda: gone.observe(version),
            lambda: gone.lookup(version.transaction_id),
        ]
    if world.network.name in ("bitcoin", "ethereum"):
        seen = world.network.observe(version)
        calls += [lambda: gone.draft(payload()), lambda: gone.evidence(version, seen)]
    for call in calls:
        with pytest.raises(NetworkUnavailable):
            call()


def test_close_may_be_repeated(world: World) -> None:
    world.network.close()
    world.network.close()
