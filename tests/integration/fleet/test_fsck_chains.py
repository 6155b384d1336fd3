"""The checker's readers on real nodes: what is ours there is found, and nothing is invented."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.ethereum import contract as abi
from provenance.chains.ethereum.interface import EthereumInterface
from provenance.chains.ipfs import IPFSInterface
from provenance.errors import LyingNodeError, NetworkUnavailable
from provenance.fsck import chains
from provenance.fsck.chains import BitcoinReader, EthereumReader, IPFSReader
from provenance.fsck.onchain import ChainTransaction, ChainView, Question
from provenance.fsck.rpc import RefusedError, Rpc
from provenance.ports.network import Network
from provenance.ports.values import SignedVersion, anchor_payload
from provenance.proofs.ipfs.cid import raw_cid
from provenance.settings import BitcoinSettings, EthereumSettings, IPFSSettings
from tests.support.nodes.ethereum_chain import KEYS, Anvil, Liar
from tests.support.nodes.regtest import Regtest

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes
NOTHING = Question(frozenset(), frozenset(), frozenset())


def payload() -> bytes:
    return anchor_payload(hashlib.sha256(os.urandom(16)).digest())


def asking(*versions: SignedVersion, since: int | None = None) -> Question:
    return Question(
        frozenset(v.transaction_id for v in versions),
        frozenset(v.payload for v in versions),
        frozenset(v.key for v in versions if v.key),
        since,
    )


def anchored(network: Network, what: bytes, chain: Anvil | None = None) -> SignedVersion:
    version = network.sign(network.draft(what), network.next_nonce())
    network.broadcast(version)
    if chain is not None:
        chain.settle()
    return version


def by_id(view: ChainView) -> dict[str, ChainTransaction]:
    assert len({t.id for t in view.transactions}) == len(view.transactions)
    return {t.id: t for t in view.transactions}


# --- ethereum ----------------------------------------------------------------------------


@pytest.fixture
def ethereum(chain: Anvil, contract: str) -> EthereumSettings:
    return EthereumSettings(
        url=chain.url, private_key=KEYS[0], contract_address=contract, confirmations=2
    )


def test_the_abi_constants_are_those_of_the_contract() -> None:
    call = abi.store_call(b"\1" * 32, "")
    assert call[:4].hex() == chains.STORE_HASH
    assert abi.call_of("verifyHash", b"\1" * 32)[:4].hex() == chains.VERIFY_HASH
    assert "0x" + abi.HASH_STORED.hex() == chains.HASH_STORED


def test_every_store_of_a_sender_is_found(chain: Anvil, ethereum: EthereumSettings) -> None:
    network = EthereumInterface(ethereum)
    first, second = anchored(network, payload(), chain), anchored(network, payload(), chain)
    doubled = anchored(network, first.payload, chain)  # leaves no event, and is there all the same
    stranger = EthereumInterface(structs.replace(ethereum, private_key=KEYS[1]))
    foreign = anchored(stranger, payload(), chain)
    view = EthereumReader(ethereum).read(asking(first))
    found = by_id(view)
    assert found[first.transaction_id] == ChainTransaction(
        first.transaction_id,
        "mined",
        first.payload,
        height=int(chain.call("eth_blockNumber"), 16) - 3,
        depth=4,
        final=True,
        key=first.key.lower(),
        nonce=first.nonce,
    )
    assert found[second.transaction_id].payload == second.payload
    assert found[doubled.transaction_id].payload == first.payload
    assert foreign.transaction_id not in found
    deployed = [t.payload for t in found.values() if t.creates]
    assert set(deployed) == {None}
    assert view.next_nonce == {first.key.lower(): (doubled.nonce or 0) + 1}
    assert view.identity["chain_id"] == 31337
    assert view.notes == ()


def test_foreign_stores_count_only_where_a_row_names_them(
    chain: Anvil, ethereum: EthereumSettings
) -> None:
    stranger = EthereumInterface(structs.replace(ethereum, private_key=KEYS[1]))
    version = anchored(stranger, payload(), chain)
    question = Question(
        frozenset({version.transaction_id, "0x" + "0" * 64}), frozenset(), frozenset()
    )
    (found,) = EthereumReader(ethereum).read(question).transactions
    assert (found.id, found.ours, found.final) == (version.transaction_id, False, False)


def test_the_search_begins_at_the_senders_first_transaction(
    chain: Anvil, ethereum: EthereumSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = EthereumInterface(ethereum)
    chain.mine(20)
    known, unknown = anchored(network, payload(), chain), anchored(network, payload(), chain)
    chain.mine(20)
    tip = int(chain.call("eth_blockNumber"), 16)
    found = by_id(EthereumReader(ethereum).read(asking(known, since=tip)))
    assert found.keys() == {known.transaction_id}
    assert found[known.transaction_id].payload == known.payload
    monkeypatch.setattr(chains, "MAX_BLOCKS", 2)
    view = EthereumReader(ethereum).read(asking(known))
    assert unknown.transaction_id in by_id(view)
    assert view.notes == ()


def test_a_node_without_old_nonces_is_asked_for_the_contracts_events(
    chain: Anvil, ethereum: EthereumSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = anchored(EthereumInterface(ethereum), payload(), chain)
    chain.mine(5)
    tip = int(chain.call("eth_blockNumber"), 16)
    batch = Rpc.batch

    def pruned(self: Rpc, calls: Sequence[tuple[object, ...]], *more: Any) -> list[Any]:
        old = [c for c in calls if c[0] == "eth_getTransactionCount" and c[2] != "latest"]
        if any(int(str(call[2]), 16) < tip for call in old):
            raise RefusedError("missing trie node")
        return batch(self, calls, *more)

    monkeypatch.setattr(Rpc, "batch", pruned)
    monkeypatch.setattr(chains, "MAX_BLOCKS", 2)
    view = EthereumReader(ethereum, frozenset({unknown.key})).read(NOTHING)
    assert by_id(view)[unknown.transaction_id].payload == unknown.payload
    assert "--since-block ethereum=" in view.notes[0]


def test_pending_reverted_and_plain_transactions(chain: Anvil, ethereum: EthereumSettings) -> None:
    plain = EthereumInterface(structs.replace(ethereum, contract_address=None))
    calldata = anchored(plain, payload(), chain)
    reverted = chain.send(
        {
            "from": calldata.key,
            "to": ethereum.contract_address,
            "data": "0x2acf9f93" + "0" * 64 + "40".zfill(64) + "0" * 64,
            "gas": hex(100_000),
        },
    )
    moved = chain.send({"from": calldata.key, "to": calldata.key})
    chain.automine(False)
    waiting = anchored(plain, payload())
    found = by_id(EthereumReader(ethereum).read(asking(calldata, waiting)))
    assert found[calldata.transaction_id].payload == calldata.payload
    assert (found[reverted].place, found[reverted].payload) == ("failed", None)
    assert (found[moved].place, found[moved].payload) == ("mined", None)
    assert found[waiting.transaction_id].place == "pending"


def test_a_store_at_an_address_without_the_contract_counts_for_nothing(
    chain: Anvil, ethereum: EthereumSettings
) -> None:
    root = payload()[4:]
    sender = EthereumInterface(ethereum).sender
    elsewhere = "0x" + "42" * 20
    data = "0x" + abi.store_call(root, "").hex()
    txid = chain.send({"from": sender, "to": elsewhere, "data": data})
    found = by_id(EthereumReader(ethereum, frozenset({str(sender)})).read(NOTHING))
    assert (found[txid].place, found[txid].payload) == ("mined", None)


def test_finality_by_the_finalized_block(chain: Anvil, ethereum: EthereumSettings) -> None:
    settings = structs.replace(ethereum, use_finalized=True, confirmations=1)
    version = anchored(EthereumInterface(settings), payload(), chain)
    assert not by_id(EthereumReader(settings).read(asking(version)))[version.transaction_id].final
    chain.mine(100)
    assert by_id(EthereumReader(settings).read(asking(version)))[version.transaction_id].final


def test_nothing_is_scanned_for_nobody(ethereum: EthereumSettings) -> None:
    assert EthereumReader(ethereum).read(NOTHING).transactions == []


@pytest.mark.parametrize("answer", ["not a number", None, 7])
def test_an_ethereum_node_that_lies_is_not_believed(
    chain: Anvil, liar: Liar, ethereum: EthereumSettings, answer: object
) -> None:
    liar.forge["eth_blockNumber"] = lambda params, result: answer
    with pytest.raises(LyingNodeError):
        EthereumReader(structs.replace(ethereum, url=liar.url)).read(NOTHING)


# --- bitcoin -----------------------------------------------------------------------------


@pytest.fixture
def regtest(bitcoin_settings: BitcoinSettings) -> Regtest:
    return Regtest(bitcoin_settings)


def test_every_anchor_of_a_wallet_is_found(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0", "1.0", "1.0", confirmations=2)
    network = BitcoinInterface(settings)
    first = anchored(network, payload())
    doubled = anchored(network, first.payload)
    (block,) = regtest.mine()
    regtest.mine(1)
    waiting = anchored(network, payload())
    view = BitcoinReader(settings).read(asking(first))
    found = by_id(view)
    assert found.keys() == {v.transaction_id for v in (first, doubled, waiting)}
    assert found[first.transaction_id].payload == first.payload
    assert found[doubled.transaction_id].payload == first.payload
    assert found[first.transaction_id].depth == 2
    assert found[first.transaction_id].final
    header = regtest.rpc.call("getblockheader", block)
    assert isinstance(header, dict)
    assert found[first.transaction_id].height == header["height"]
    assert (found[waiting.transaction_id].place, found[waiting.transaction_id].final) == (
        "pending",
        False,
    )
    assert view.identity["chain"] == "regtest"
    later = BitcoinReader(settings).read(asking(since=int(str(header["height"]))))
    assert by_id(later).keys() == {waiting.transaction_id}


def test_a_transaction_of_another_wallet_is_not_ours(regtest: Regtest) -> None:
    theirs, mine = regtest.wallet("1.0"), regtest.wallet()
    version = anchored(BitcoinInterface(theirs), payload())
    regtest.mine()
    question = Question(frozenset({version.transaction_id, "ab" * 32}), frozenset(), frozenset())
    view = BitcoinReader(mine).read(question)
    known = {t.id: t.ours for t in view.transactions}
    assert known.get(version.transaction_id, False) is False
    assert "ab" * 32 not in known
    indexed = regtest.rpc.call("getindexinfo", "txindex")
    assert ("ab" * 32 in view.unsure) == (not indexed)


def test_a_replaced_version_did_not_make_it(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    network = BitcoinInterface(settings)
    first = anchored(network, payload())
    bumped = network.sign(network.draft(first.payload, replaces=first), None)
    network.broadcast(bumped)
    regtest.mine()
    found = by_id(BitcoinReader(settings).read(asking(first, bumped)))
    assert found[first.transaction_id].place == "failed"
    assert found[bumped.transaction_id].place == "mined"


def test_a_cookie_that_is_gone_is_said(bitcoin_settings: BitcoinSettings, tmp_path: Path) -> None:
    settings = structs.replace(bitcoin_settings, cookie_file=tmp_path / "none")
    with pytest.raises(NetworkUnavailable, match="is bitcoind running"):
        BitcoinReader(settings).read(NOTHING)
    wrong = structs.replace(bitcoin_settings, cookie_file=None, user="u", password="hunter2")
    with pytest.raises(NetworkUnavailable) as caught:
        BitcoinReader(wrong).read(NOTHING)
    assert "hunter2" not in str(caught.value)


# --- ipfs --------------------------------------------------------------------------------


def test_pinned_heads_are_read_back(ipfs_url: str) -> None:
    settings = IPFSSettings(ipfs_url, timeout_s=10.0)
    network = IPFSInterface(settings)
    known, lost = anchored(network, payload()), anchored(network, payload())
    absent = network.sign(network.draft(payload()), None)
    # `lost` is a head's block that no row names; another ledger's is not looked at.
    anchored(network, payload())
    question = dataclasses.replace(
        asking(known, absent), payloads=frozenset({known.payload, lost.payload, absent.payload})
    )
    found = by_id(IPFSReader(settings).read(question))
    assert found.keys() == {known.transaction_id, str(raw_cid(lost.payload))}
    assert found[known.transaction_id].payload == known.payload
    assert found[known.transaction_id].final


def test_without_pins_the_blocks_that_rows_name_are_asked_for(ipfs_url: str) -> None:
    settings = IPFSSettings(ipfs_url, pin=False, timeout_s=4.0)
    network = IPFSInterface(settings)
    known = anchored(network, payload())
    absent = network.sign(network.draft(payload()), None)
    found = by_id(IPFSReader(settings).read(asking(known, absent)))
    assert found.keys() == {known.transaction_id}


# --- nobody there ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reader",
    [
        lambda url: EthereumReader(EthereumSettings(url)),
        lambda url: BitcoinReader(BitcoinSettings(url, user="u", password="p")),
        lambda url: IPFSReader(IPFSSettings(url)),
    ],
    ids=["ethereum", "bitcoin", "ipfs"],
)
def test_a_node_that_is_not_there_is_unavailable(
    reader: Callable[[str], EthereumReader | BitcoinReader | IPFSReader],
) -> None:
    with pytest.raises(NetworkUnavailable):
        reader("http://127.0.0.1:1/secret-path").read(NOTHING)
