"""Anchors on a real node, from draft to final, and what befalls them on the way.

Over 400 lines: the life of an anchor on one real node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eth_utils import keccak

from provenance.chains.ethereum.contract import (
    DEPLOYED_BYTECODE,
    MAX_METADATA_BYTES,
    HashInfo,
    store_call,
)
from provenance.chains.ethereum.fees import wei
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InputError,
    InsufficientFundsError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.ports.values import Draft, Observation, Place, SignedVersion, anchor_payload
from provenance.settings import EthereumSettings
from tests.support.nodes.ethereum_chain import KEYS, Anvil

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]


pytestmark = pytest.mark.nodes

SEED = iter(range(1, 10**6))
Open = Callable[..., EthereumInterface]


def new_root() -> bytes:
    return keccak(next(SEED).to_bytes(4, "big"))


@pytest.fixture
def opened(chain: Anvil) -> Iterator[Open]:
    """Interfaces to the chain; settings may be overridden."""
    networks: list[EthereumInterface] = []

    def make(**changes: Any) -> EthereumInterface:
        fields = {"url": chain.url, "private_key": KEYS[0], "confirmations": 3, **changes}
        networks.append(EthereumInterface(EthereumSettings(**fields)))
        return networks[-1]

    yield make
    for network in networks:
        network.close()


def sent(network: EthereumInterface, root: bytes, nonce: int | None = None) -> SignedVersion:
    version = network.sign(
        network.draft(anchor_payload(root)), network.next_nonce() if nonce is None else nonce
    )
    network.broadcast(version)
    return version


def settled(network: EthereumInterface, version: SignedVersion) -> Observation:
    """Anvil answers before it mines: look until the transaction is out of the pool."""
    deadline = time.monotonic() + 10
    while (seen := network.observe(version)).place is Place.PENDING:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return seen


def gas_used(chain: Anvil, transaction_id: str) -> int:
    return int(chain.call("eth_getTransactionReceipt", transaction_id)["gasUsed"], 16)


# --- the life of an anchor ---------------------------------------------------------------


@pytest.mark.parametrize("with_contract", [True, False], ids=["contract", "calldata"])
def test_from_draft_to_final(
    chain: Anvil, opened: Open, contract: str, with_contract: bool
) -> None:
    network = opened(contract_address=contract if with_contract else None)
    root, payload = new_root(), b""
    payload = anchor_payload(root)
    chain.automine(False)

    draft = network.draft(payload)
    assert draft.fields["to"] == (contract if with_contract else network.sender)
    version = network.sign(draft, network.next_nonce())
    assert network.observe(version) == Observation(Place.UNKNOWN)
    balance = network.identity().balance

    network.broadcast(version)
    network.broadcast(version)
    assert network.observe(version) == Observation(Place.PENDING)
    assert chain.call("txpool_status")["pending"] == "0x1"

    chain.mine()
    network.broadcast(version)
    seen = network.observe(version)
    block = chain.call("eth_getBlockByNumber", "latest", False)
    assert seen == Observation(
        Place.MINED,
        root=root,
        block_hash=block["hash"],
        height=int(block["number"], 16),
        depth=1,
        final=False,
        block_time=float(int(block["timestamp"], 16)),
        paid=balance - left if balance and (left := network.identity().balance) else None,
    )
    assert seen.paid is not None, "what the sender's balance lost"
    chain.mine()
    assert (network.observe(version).depth, network.observe(version).final) == (2, False)
    chain.mine()
    assert (network.observe(version).depth, network.observe(version).final) == (3, True)
    assert network.lookup(version.transaction_id) == network.observe(version)
    assert network.lookup(version.transaction_id.upper().replace("X", "x")).root == root
    assert chain.call("txpool_status")["pending"] == "0x0"


@pytest.mark.parametrize("with_contract", [True, False], ids=["contract", "calldata"])
def test_evidence_can_be_checked_without_the_node(
    opened: Open, contract: str, with_contract: bool
) -> None:
    network = opened(contract_address=contract if with_contract else None)
    root = new_root()
    version = sent(network, root)
    seen = settled(network, version)
    document: Any = json.loads(json.dumps(network.evidence(version, seen)))
    assert document["chain_id"] == 31337
    assert document["contract"] == (contract if with_contract else None)
    raw = bytes.fromhex(document["transaction"]["raw"][2:])
    assert "0x" + keccak(raw).hex() == document["transaction"]["id"] == version.transaction_id
    assert root in raw
    header = bytes.fromhex(document["block"]["header_rlp"][2:])
    assert "0x" + keccak(header).hex() == document["block"]["hash"] == seen.block_hash
    assert document["block"]["number"] == seen.height
    assert document["receipt"]["status"] == 1
    topics = [log["topics"][1] for log in document["receipt"]["logs"]]
    assert topics == (["0x" + root.hex()] if with_contract else [])


def test_identity_names_the_chain(chain: Anvil, opened: Open, contract: str) -> None:
    identity = opened(contract_address=contract, chain_id=31337).identity()
    genesis = chain.call("eth_getBlockByNumber", "0x0", False)["hash"]
    assert identity.fields["chain_id"] == 31337
    assert identity.fields["genesis"] == genesis
    assert identity.fields["contract"] == contract
    assert "anvil" in str(identity.fields["version"])
    assert identity.height == int(chain.call("eth_blockNumber"), 16)
    assert identity.balance == int(chain.call("eth_getBalance", identity.sender, "latest"), 16)
    reader = opened(private_key=None).identity()
    assert (reader.sender, reader.balance) == (None, None)


def test_final_by_the_finalized_tag(chain: Anvil, opened: Open) -> None:
    network = opened(use_finalized=True, confirmations=1)
    version = sent(network, new_root())
    assert settled(network, version).final is False
    chain.mine(2)
    finalized = int(chain.call("eth_getBlockByNumber", "finalized", False)["number"], 16)
    seen = network.observe(version)
    assert seen.height is not None
    assert seen.final is (finalized >= seen.height)
    chain.mine(10)
    assert network.observe(version).final is True


# --- replacement, nonces, reorgs ---------------------------------------------------------


@pytest.mark.parametrize("with_contract", [True, False], ids=["contract", "calldata"])
def test_a_replacement_takes_the_nonce(
    chain: Anvil, opened: Open, contract: str, with_contract: bool
) -> None:
    network = opened(contract_address=contract if with_contract else None)
    chain.automine(False)
    root = new_root()
    first = sent(network, root)
    second = network.sign(network.draft(first.payload, first), None)
    assert second.nonce == first.nonce
    assert second.fee * 100 >= first.fee * 115
    assert second.detail["gas"] == first.detail["gas"]
    network.broadcast(second)
    network.broadcast(second)
    assert network.observe(second).place is Place.PENDING
    chain.mine()
    assert network.observe(second).root == root
    assert network.observe(first).place is Place.CONFLICTED
    with pytest.raises(NonceUsedError, match=f"nonce {first.nonce}"):
        network.broadcast(first)


def test_a_replacement_that_offers_too_little_is_told(chain: Anvil, opened: Open) -> None:
    network = opened()
    chain.automine(False)
    first = sent(network, new_root())
    other = sent_draft(network, max_fee=first.fee)
    with pytest.raises(FeeTooLowError):
        network.broadcast(network.sign(other, first.nonce))


def sent_draft(network: EthereumInterface, **changes: object) -> Draft:
    draft = network.draft(anchor_payload(new_root()))
    return Draft(draft.network, draft.payload, {**draft.fields, **changes})  # type: ignore[dict-item]  # keyword arguments of several types


def test_bumps_stop_at_the_cap(chain: Anvil, opened: Open) -> None:
    chain.automine(False)
    version = sent(opened(), new_root())
    network = opened(max_fee_gwei=version.fee / 10**9 * 2)
    for _ in range(20):
        if version.fee * 9 // 8 + 1 > wei(network.settings.max_fee_gwei):
            break
        version = network.sign(network.draft(version.payload, version), None)
        network.broadcast(version)
    assert version.fee <= wei(network.settings.max_fee_gwei)
    with pytest.raises(FeeTooLowError, match="fee cap reached"):
        network.draft(version.payload, version)
    chain.mine()
    assert network.observe(version).place is Place.MINED


def test_a_nonce_spent_by_another(chain: Anvil, opened: Open) -> None:
    ours, theirs = opened(), opened()
    version = ours.sign(ours.draft(anchor_payload(new_root())), ours.next_nonce())
    sent(theirs, new_root())
    with pytest.raises(NonceUsedError, match="used elsewhere"):
        ours.broadcast(version)
    assert ours.observe(version) == Observation(Place.CONFLICTED)


def test_a_reorg_takes_the_confirmation_and_the_same_bytes_bring_it_back(
    chain: Anvil, opened: Open, contract: str
) -> None:
    network = opened(contract_address=contract)
    root = new_root()
    version = network.sign(network.draft(anchor_payload(root)), network.next_nonce())
    before = chain.call("evm_snapshot")
    network.broadcast(version)
    seen = settled(network, version)
    assert seen.place is Place.MINED
    chain.call("evm_revert", before)
    assert network.observe(version) == Observation(Place.UNKNOWN)
    assert network.verify_hash(root) is False
    with pytest.raises(NetworkUnavailable, match=r"is not in block"):
        network.evidence(version, seen)

    chain.mine()
    network.broadcast(version)
    again = settled(network, version)
    assert (again.place, again.root) == (Place.MINED, root)
    assert again.block_hash != seen.block_hash
    with pytest.raises(NetworkUnavailable, match=r"is not in block"):
        network.evidence(version, seen)


def test_a_reorg_cannot_make_a_store_run_out_of_gas(
    chain: Anvil, opened: Open, contract: str
) -> None:
    """Drafted while the root was there, mined after it was gone."""
    network = opened(contract_address=contract)
    root = new_root()
    before = chain.call("evm_snapshot")
    opened(contract_address=contract, private_key=KEYS[1]).store_hash(root)
    version = network.sign(network.draft(anchor_payload(root)), network.next_nonce())
    chain.call("evm_revert", before)
    network.broadcast(version)
    assert settled(network, version).root == root


def test_gas_is_estimated_without_the_pool(chain: Anvil, opened: Open, contract: str) -> None:
    """In the pool our own first version has stored the root, and storing it again is cheap."""
    network = opened(contract_address=contract)
    chain.automine(False)
    calldata = store_call(new_root(), "")
    alone = network._node.gas(str(network.sender), contract, calldata)
    draft = sent_draft(network, data="0x" + calldata.hex())
    network.broadcast(network.sign(draft, network.next_nonce()))
    assert network._node.gas(str(network.sender), contract, calldata) == alone


# --- the contract: the first write wins --------------------------------------------------


def test_a_second_store_moves_nothing(chain: Anvil, opened: Open, contract: str) -> None:
    first = opened(contract_address=contract)
    second = opened(contract_address=contract, private_key=KEYS[1])
    root = new_root()
    one = first.store_hash(root, "the first")
    info = first.get_hash_info(root)
    assert info == HashInfo(
        exists=True,
        submitter=str(first.sender),
        timestamp=int(chain.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16),
        block_number=int(chain.call("eth_blockNumber"), 16),
        metadata="the first",
    )
    chain.call("evm_increaseTime", hex(3600))
    two = second.store_hash(root, "the second")
    assert chain.call("eth_getTransactionReceipt", two)["logs"] == []
    assert second.get_hash_info(root) == info
    assert one != two


def test_an_anchor_of_a_stored_root_counts_with_the_time_of_its_own_block(
    chain: Anvil, opened: Open, contract: str
) -> None:
    root = new_root()
    early = opened(contract_address=contract, private_key=KEYS[1])
    first = early.lookup(early.store_hash(root))
    chain.call("evm_increaseTime", hex(3600))
    network = opened(contract_address=contract)
    version = sent(network, root)
    seen = network.observe(version)
    assert (seen.place, seen.root, seen.depth) == (Place.MINED, root, 1)
    newest = chain.call("eth_getBlockByNumber", "latest", False)
    assert int(newest["timestamp"], 16) == seen.block_time
    assert (seen.block_time or 0) >= (first.block_time or 0) + 3600
    assert seen.block_hash == newest["hash"]


def test_direct_calls(opened: Open, contract: str) -> None:
    network = opened(contract_address=contract)
    root = new_root()
    assert network.verify_hash(root) is False
    assert network.get_hash_info(root) == HashInfo(False, "0x" + "0" * 40, 0, 0, "")
    metadata = "ü" * (MAX_METADATA_BYTES // 2)
    transaction_id = network.store_hash(root, metadata)
    assert network.verify_hash(root) is True
    assert network.get_hash_info(root).metadata == metadata
    assert network.lookup(transaction_id).root == root
    with pytest.raises(InputError, match="257 bytes"):
        network.store_hash(root, "x" * 257)


def test_the_contract_itself_refuses_zero_and_long_metadata(
    chain: Anvil, opened: Open, contract: str
) -> None:
    network = opened(contract_address=contract)
    good = store_call(new_root(), "x" * 256)
    zero = good[:4] + bytes(32) + good[36:]
    # Length 257 where 256 stands, and one byte more before the padding's end.
    long = good[:68] + (257).to_bytes(32, "big") + good[100:] + bytes(32)
    for calldata, why in ((zero, "zero hash"), (long, "257 bytes")):
        with pytest.raises(RejectedError, match="revert"):
            network._node.gas(str(network.sender), contract, calldata)
        draft = sent_draft(network, data="0x" + calldata.hex(), gas=300_000)
        version = network.sign(draft, network.next_nonce())
        network.broadcast(version)
        seen = settled(network, version)
        assert (seen.place, seen.root, seen.depth) == (Place.FAILED, None, 1), why


def test_store_without_a_contract(opened: Open) -> None:
    network = opened()
    root = new_root()
    assert network.lookup(network.store_hash(root, "not written")).root == root


def test_a_failed_store_is_told(opened: Open, contract: str) -> None:
    network = opened(contract_address=contract, gas_limit=30_000)
    with pytest.raises(RejectedError, match="mined and failed"):
        network.store_hash(new_root())


def test_a_store_that_is_not_mined_names_its_transaction(chain: Anvil, opened: Open) -> None:
    chain.automine(False)
    network = opened()
    root = new_root()
    with pytest.raises(NetworkUnavailable, match=r"0x[0-9a-f]{64} was sent") as caught:
        network.store_hash(root, deadline_s=0.0)
    transaction_id = str(caught.value).split()[1]
    chain.mine()
    assert network.lookup(transaction_id).root == root


def test_two_senders_with_one_key(chain: Anvil, opened: Open) -> None:
    networks = [opened(), opened()]
    done: list[str] = []

    def work(network: EthereumInterface) -> list[str]:
        return [network.store_hash(new_root()) for _ in range(4)]

    with ThreadPoolExecutor() as pool:
        for hashes in pool.map(work, networks):
            done.extend(hashes)
    assert len(set(done)) == 8
    nonces = sorted(int(chain.call("eth_getTransactionByHash", each)["nonce"], 16) for each in done)
    assert nonces == list(range(nonces[0], nonces[0] + 8))


def test_a_sender_whose_transaction_is_replaced_sends_again(chain: Anvil, opened: Open) -> None:
    """Base fees fall between two drafts: the later and cheaper one is thrown out of the pool."""
    chain.automine(False)
    network, other, root = opened(), opened(), new_root()
    with ThreadPoolExecutor() as pool:
        stored = pool.submit(network.store_hash, root)
        while chain.call("txpool_status")["pending"] == "0x0":
            time.sleep(0.01)
        dearer = sent_draft(other, max_fee=wei(100))
        other.broadcast(other.sign(dearer, other.next_nonce() - 1))
        chain.automine(True)
        chain.mine()
        transaction_id = stored.result(60)
    found = chain.call("eth_getTransactionByHash", transaction_id)
    assert int(found["nonce"], 16) == other.next_nonce() - 1
    assert network.lookup(transaction_id).root == root


def test_what_is_no_anchor_has_no_root(chain: Anvil, opened: Open, contract: str) -> None:
    network = opened(contract_address=contract)
    _, creation = deploy(EthereumSettings(url=chain.url, private_key=KEYS[0]))
    other = chain.send(
        {"from": network.sender, "to": network.sender, "data": "0x1234"},
    )
    payload = "0x" + anchor_payload(new_root()).hex()
    legacy = chain.send(
        {"from": network.sender, "to": network.sender, "data": payload, "gasPrice": "0x77359400"},
    )
    to_nobody = sent_draft(network, to="0x" + "12" * 20, contract=None)
    version = network.sign(to_nobody, network.next_nonce())
    network.broadcast(version)
    settled(network, version)
    for each in (creation, other, legacy, version.transaction_id):
        seen = network.lookup(each)
        assert (seen.place, seen.root) == (Place.MINED, None)
    assert network.lookup("0x" + "ab" * 32) == Observation(Place.UNKNOWN)


# --- refusals before anything is sent ----------------------------------------------------


def test_a_wrong_chain_id_is_refused_everywhere(opened: Open, contract: str) -> None:
    right = opened(contract_address=contract)
    version = sent(right, new_root())
    wrong = opened(contract_address=contract, chain_id=5)
    for call in (
        wrong.identity,
        lambda: wrong.draft(anchor_payload(new_root())),
        lambda: wrong.broadcast(version),
        lambda: wrong.observe(version),
        lambda: wrong.lookup(version.transaction_id),
        lambda: wrong.store_hash(new_root()),
    ):
        with pytest.raises(WrongNetworkError, match="chain id 31337, expected 5"):
            call()


def test_a_dev_chain_that_calls_itself_mainnet(
    new_anvil: Callable[..., Anvil], opened: Open
) -> None:
    version = opened().sign(opened().draft(anchor_payload(new_root())), 0)
    impostor = new_anvil("--chain-id", "1")
    network = opened(url=impostor.url)
    with pytest.raises(WrongNetworkError, match=r"genesis of chain id 1 .*0xd4e56740"):
        network.identity()
    with pytest.raises(WrongNetworkError, match="chain id 1, expected 31337"):
        network.broadcast(version)


def test_no_contract_at_the_address(opened: Open) -> None:
    network = opened(contract_address="0x" + "12" * 20)
    for call in (network.identity, lambda: network.draft(anchor_payload(new_root()))):
        with pytest.raises(WrongNetworkError, match="no contract at 0x1212"):
            call()


def test_an_empty_account_says_what_it_needs(opened: Open, contract: str) -> None:
    network = opened(contract_address=contract, private_key="0x" + "77" * 32)
    with pytest.raises(InsufficientFundsError, match=r"holds 0 ETH .* may cost 0\.000\d+ ETH"):
        network.draft(anchor_payload(new_root()))


def test_a_base_fee_above_the_cap_waits(chain: Anvil, opened: Open) -> None:
    chain.call("anvil_setNextBlockBaseFeePerGas", hex(300 * 10**9))
    chain.mine()
    network = opened(max_fee_gwei=200.0)
    with pytest.raises(FeeTooLowError, match="above the cap of 200"):
        network.draft(anchor_payload(new_root()))
    assert opened(max_fee_gwei=700.0).draft(anchor_payload(new_root())).fields["max_fee"]


def test_configured_gas_and_tip_are_used(opened: Open) -> None:
    fields = (
        opened(gas_limit=50_000, priority_fee_gwei=2.5).draft(anchor_payload(new_root())).fields
    )
    assert (fields["gas"], fields["max_priority_fee"]) == (50_000, 2_500_000_000)


def test_deploy_needs_a_key(chain: Anvil) -> None:
    with pytest.raises(ConfigError, match="private_key"):
        deploy(EthereumSettings(url=chain.url))


# --- gas ---------------------------------------------------------------------------------


def test_gas(chain: Anvil, opened: Open, contract: str) -> None:
    """Ceilings a little above what was measured, so that a dearer contract is noticed."""
    network = opened(contract_address=contract)
    root = bytes([0xAB]) * 32
    figures = {
        "store": gas_used(chain, network.store_hash(root)),
        "store again": gas_used(chain, network.store_hash(root)),
        "store, 31 bytes of metadata": gas_used(chain, network.store_hash(new_root(), "m" * 31)),
        "store, 256 bytes of metadata": gas_used(chain, network.store_hash(new_root(), "m" * 256)),
        "calldata": gas_used(chain, opened().store_hash(root)),
        "deploy": gas_used(chain, deploy(EthereumSettings(url=chain.url, private_key=KEYS[0]))[1]),
    }
    ceilings = [47_600, 24_600, 70_900, 254_000, 22_500, 571_000]
    print(figures)
    assert all(gas <= ceiling for gas, ceiling in zip(figures.values(), ceilings, strict=True)), (
        figures
    )
    assert len(DEPLOYED_BYTECODE) < 24_576
