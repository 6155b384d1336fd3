"""Receipts of a real node, checked without it; and inclusion, checked by the contract.

Over 400 lines: every form of evidence that one real chain gives.
"""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.chains.ethereum.contract import inclusion_call
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.errors import InputError, ProofError, ProvenanceError, RejectedError
from provenance.formats import merkle
from provenance.formats.receipt import AnchorProof, Receipt
from provenance.formats.record import canonical_json
from provenance.ports.values import Observation, Place, SignedVersion, anchor_payload
from provenance.settings import EthereumSettings
from provenance.verify.catalogue import ETHEREUM_HEADERS, RECEIPTS
from provenance.verify.checks.receipts import check_evidence
from provenance.verify.trust import PinnedChain
from tests.support.nodes.ethereum_chain import KEYS, Anvil, Liar, Refuse
from tests.support.paths import VECTORS
from tests.support.verify_world import OWN, World, story

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes

OLD = VECTORS / "contract" / "MLProvenance-0.1.0.json"
SEED = iter(range(1, 10**6))
Open = Callable[..., EthereumInterface]


def new_root() -> bytes:
    return merkle.root([next(SEED).to_bytes(4, "big")])


@pytest.fixture
def opened(chain: Anvil) -> Iterator[Open]:
    networks: list[EthereumInterface] = []

    def make(**changes: Any) -> EthereumInterface:
        fields = {"url": chain.url, "private_key": KEYS[0], "confirmations": 1, **changes}
        networks.append(EthereumInterface(EthereumSettings(**fields)))
        return networks[-1]

    yield make
    for network in networks:
        network.close()


def crowd(
    chain: Anvil, before: int, after: int, ours: Callable[[], SignedVersion]
) -> SignedVersion:
    """Our anchor in one block with others' transactions of types 0, 1 and 2."""
    accounts = chain.call("eth_accounts")[2:]
    chain.automine(False)

    def others(count: int, price: int) -> None:
        for at in range(count):
            sender = accounts[at % len(accounts)]
            kinds: list[dict[str, object]] = [
                {"gasPrice": hex(price)},
                {
                    "gasPrice": hex(price),
                    "accessList": [{"address": sender, "storageKeys": ["0x" + "01" * 32]}],
                },
                {"maxFeePerGas": hex(price), "maxPriorityFeePerGas": hex(price // 2)},
            ]
            # anvil puts the dearest first
            chain.call("eth_sendTransaction", {"from": sender, "to": sender, **kinds[at % 3]})

    others(before, 9 * 10**10)
    version = ours()
    others(after, 1_100_000_000)
    chain.mine()
    chain.settle()
    chain.automine(True)
    return version


def sent(network: EthereumInterface, root: bytes) -> SignedVersion:
    version = network.sign(network.draft(anchor_payload(root)), network.next_nonce())
    network.broadcast(version)
    return version


def settled(network: EthereumInterface, version: SignedVersion) -> Observation:
    """Anvil answers before it mines."""
    deadline = time.monotonic() + 10
    while (seen := network.observe(version)).place is Place.PENDING:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return seen


def receipt_of(network: EthereumInterface, version: SignedVersion) -> tuple[AnchorProof, Any]:
    """As a receipt holds it, through canonical JSON."""
    seen = settled(network, version)
    evidence = json.loads(canonical_json(network.evidence(version, seen)))
    anchor = AnchorProof(
        "ethereum",
        "final",
        version.transaction_id,
        version.payload,
        seen.height,
        seen.block_hash,
        seen.depth,
        seen.block_time,
        0.0,
    )
    return anchor, evidence


# --- proofs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (20, 3), (135, 0)])
def test_an_event_in_a_block_of_many(
    chain: Anvil, opened: Open, contract: str, before: int, after: int
) -> None:
    network = opened(contract_address=contract, priority_fee_gwei=5.0)
    version = crowd(chain, before, after, lambda: sent(network, new_root()))
    anchor, evidence = receipt_of(network, version)
    assert evidence["receipt_proof"]["index"] == evidence["transaction"]["index"] == before
    assert "transaction_proof" not in evidence
    check_evidence(anchor, evidence)
    assert len(canonical_json(evidence)) < 16_000


@pytest.mark.parametrize(("before", "after"), [(0, 0), (20, 3), (135, 0)])
def test_calldata_in_a_block_of_many(chain: Anvil, opened: Open, before: int, after: int) -> None:
    network = opened(priority_fee_gwei=5.0)
    version = crowd(chain, before, after, lambda: sent(network, new_root()))
    anchor, evidence = receipt_of(network, version)
    assert evidence["transaction_proof"]["index"] == before
    assert evidence["receipt_proof"]["index"] == before
    check_evidence(anchor, evidence)


def test_a_root_that_was_stored_before(chain: Anvil, opened: Open, contract: str) -> None:
    root = new_root()
    opened(contract_address=contract, private_key=KEYS[1]).store_hash(root)
    chain.call("evm_increaseTime", hex(3600))
    network = opened(contract_address=contract)
    anchor, evidence = receipt_of(network, sent(network, root))
    assert set(evidence) >= {"receipt_proof", "transaction_proof"}
    assert anchor.block_time == evidence["block"]["timestamp"]
    check_evidence(anchor, evidence)


def test_nodes_without_the_method_give_the_same(
    chain: Anvil, opened: Open, contract: str, liar: Liar
) -> None:
    network = opened(contract_address=contract)
    version = sent(network, new_root())
    whole = receipt_of(network, version)
    asked: list[str] = []

    def refuse(params: list[Any], true: Any) -> Any:
        asked.append("eth_getBlockReceipts")
        raise Refuse(-32601, "the method eth_getBlockReceipts does not exist/is not available")

    liar.forge["eth_getBlockReceipts"] = refuse
    through = opened(url=liar.url, contract_address=contract)
    assert receipt_of(through, version) == whole
    assert asked


@pytest.mark.parametrize(
    "forge",
    [
        lambda params, true: [{**each, "status": "0x0"} for each in true],
        lambda params, true: [{**each, "logs": []} for each in true],
        lambda params, true: [],
        lambda params, true: None,
        lambda params, true: [{**each, "type": "0x7e"} for each in true],
    ],
    ids=["failed", "no logs", "none", "nothing", "another kind of chain"],
)
def test_a_node_that_lies_about_the_block_gives_no_proof(
    opened: Open, contract: str, liar: Liar, forge: Callable[[list[Any], Any], Any]
) -> None:
    liar.forge["eth_getBlockReceipts"] = forge
    network = opened(url=liar.url, contract_address=contract)
    with structlog.testing.capture_logs() as lines:
        anchor, evidence = receipt_of(network, sent(network, new_root()))
    assert "receipt_proof" not in evidence
    assert evidence["receipt"]["status"] == 1
    (line,) = lines
    assert line["event"] == "no trie proof for a receipt"
    assert line["transaction"] == anchor.transaction_id
    check_evidence(anchor, evidence)


# --- a run -------------------------------------------------------------------------------


@pytest.fixture
def sealed(opened: Open, contract: str) -> World:
    """A run that is sealed, and due on the chain."""
    stage = World(names=("ethereum",))
    stage.networks["ethereum"] = opened(contract_address=contract)  # type: ignore[assignment]  # wrong or wider on purpose
    stage.now = time.time()
    stage.ingest(stage.batch(story()))
    return stage


def anchored(stage: World) -> World:
    for _ in range(20):
        stage.anchor()
        if {each.name for each in stage.evidence().receipts} >= {"after-ethereum"}:
            return stage
        time.sleep(0.05)
    raise AssertionError("the run was not anchored")


@pytest.fixture
def world(sealed: World) -> World:
    """A run that is sealed and anchored on the chain."""
    return anchored(sealed)


def test_an_offline_bundle_leads_to_the_block(world: World, tmp_path: Path) -> None:
    write_bundle(world.evidence(), tmp_path / "bundle")
    evidence = read_bundle(tmp_path / "bundle")
    report = world.verify(evidence, online=False)
    assert report.outcome == "consistent"
    assert ETHEREUM_HEADERS in report.not_checked
    for file in evidence.receipts:
        assert "receipt_proof" in Receipt.decode(file.data).evidence
    contract = str(Receipt.decode(evidence.receipts[0].data).evidence["contract"]).lower()
    pin = PinnedChain("ethereum", None, "the test", contract)
    online = world.verify(evidence, trust=replace(OWN, chains=(pin,)))
    assert online.outcome == "verified"
    assert ETHEREUM_HEADERS not in online.not_checked


def test_a_proof_that_does_not_hold_names_its_receipt(world: World) -> None:
    evidence = world.evidence()
    good = Receipt.decode(evidence.receipts[0].data)
    told: Any = json.loads(json.dumps(good.evidence))
    bill = told["receipt_proof"]["receipt_rlp"]
    told["receipt_proof"]["receipt_rlp"] = bill[:-1] + format(int(bill[-1], 16) ^ 1, "x")
    spoiled = replace(evidence.receipts[0], data=replace(good, evidence=told).encode())
    report = world.verify(
        replace(evidence, receipts=(spoiled, *evidence.receipts[1:])), online=False
    )
    assert report.outcome == "failed"
    (finding,) = report.findings
    assert (finding.check, finding.subject) == (RECEIPTS, f"receipt {spoiled.name}")
    assert "lies another receipt" in finding.problem


def test_the_time_of_a_root_that_a_stranger_had_stored_is_that_of_our_block(
    chain: Anvil, opened: Open, contract: str, sealed: World
) -> None:
    """Whatever a contract answers: the block of the transaction is what the chain shows."""
    stranger = opened(contract_address=contract, private_key=KEYS[1])
    with sealed.store.snapshot() as tx:
        roots = {row.root for row in tx.heads()}
    for root in roots:
        stranger.store_hash(root)
    chain.call("evm_increaseTime", hex(3600))
    anchored(sealed)
    receipts = [Receipt.decode(item.data) for item in sealed.evidence().receipts]
    times: dict[str, Any] = {
        receipt.anchor.transaction_id: receipt.evidence["block"]["timestamp"]  # type: ignore[index,call-overload]  # JSON, or known to be there
        for receipt in receipts
    }
    for report in (sealed.verify(online=False), sealed.verify()):
        assert report.findings == ()
        for seal in report.networks["ethereum"].values():
            assert seal.transaction_id is not None
            assert seal.time == times[seal.transaction_id]
            assert seal.submitter == str(sealed.networks["ethereum"].sender).lower()  # type: ignore[attr-defined]  # JSON, or known to be there


# --- verifyInclusion ---------------------------------------------------------------------

LEAVES = [merkle.leaf_hash(bytes([at])) for at in range(33)]
Case = tuple[bytes, bytes, int, int, tuple[bytes, ...]]


def case(index: int, size: int) -> Case:
    leaves = LEAVES[:size]
    proof = merkle.MerkleTree(leaves).inclusion_proof(index)
    return merkle.root(leaves), leaves[index], index, size, proof


CASES = [case(index, size) for size in range(1, 34) for index in range(size)]


def asked(chain: Anvil, address: str, cases: Sequence[Case]) -> list[bool]:
    """``verifyInclusion`` of each, 500 calls to a request."""
    answers: dict[int, bool] = {}
    for start in range(0, len(cases), 500):
        batch = [
            {
                "jsonrpc": "2.0",
                "id": start + at,
                "method": "eth_call",
                "params": [{"to": address, "data": "0x" + inclusion_call(*each).hex()}, "latest"],
            }
            for at, each in enumerate(cases[start : start + 500])
        ]
        request = urllib.request.Request(
            chain.url, json.dumps(batch).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            for answer in json.load(response):
                answers[answer["id"]] = bool(int(answer["result"], 16))
    return [answers[at] for at in range(len(cases))]


def changed(each: Case, what: str, bit: int) -> Case:
    """A case with one bit turned; ``what`` may be ``proof-2``."""
    root, leaf, index, size, proof = each

    def turn(value: bytes) -> bytes:
        return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(32, "big")

    if what == "root":
        return turn(root), leaf, index, size, proof
    if what == "leaf":
        return root, turn(leaf), index, size, proof
    if what == "index":
        return root, leaf, index ^ 1 << bit, size, proof
    if what == "size":
        return root, leaf, index, size ^ 1 << bit, proof
    at = int(what.partition("-")[2])
    return root, leaf, index, size, (*proof[:at], turn(proof[at]), *proof[at + 1 :])


def parts(each: Case) -> list[str]:
    return ["root", "leaf", "index", *(f"proof-{at}" for at in range(len(each[4])))]


def expected(each: Case) -> bool:
    """What this project's own verifier says, where the root is a stored one."""
    root, leaf, index, size, proof = each
    try:
        merkle.verify_inclusion(leaf, index, size, proof, root)
    except ProvenanceError:
        return False
    return True


@pytest.fixture
def stored(chain: Anvil, opened: Open, contract: str) -> str:
    """A contract that holds the roots of the first 1 to 33 leaves."""
    network = opened(contract_address=contract)
    for size in range(1, 34):
        network.store_hash(merkle.root(LEAVES[:size]))
    return contract


def test_every_entry_of_every_size_is_found(chain: Anvil, opened: Open, stored: str) -> None:
    assert len(CASES) == 561
    assert asked(chain, stored, CASES) == [True] * len(CASES)
    network = opened(contract_address=stored, private_key=None)
    root, leaf, index, size, proof = case(20, 33)
    assert network.verify_inclusion(root, leaf, index, size, proof) is True
    assert network.verify_inclusion(root, leaf, 21, size, proof) is False


def test_a_root_must_be_stored(chain: Anvil, opened: Open, contract: str) -> None:
    network = opened(contract_address=contract)
    root, leaf, index, size, proof = case(2, 5)
    assert network.verify_inclusion(root, leaf, index, size, proof) is False
    network.store_hash(root)
    assert network.verify_inclusion(root, leaf, index, size, proof) is True
    assert network.verify_hash(root) is True


def test_every_bit_counts(chain: Anvil, stored: str) -> None:
    """All 256 of each of root, leaf, index and sibling, for every entry of sizes 1 to 8."""
    chosen = [*CASES[:36], case(0, 33), case(20, 33), case(32, 33)]
    wrong = [
        changed(each, what, bit) for each in chosen for what in parts(each) for bit in range(256)
    ]
    assert len(wrong) > 50_000
    assert not any(asked(chain, stored, wrong))


def test_a_bit_of_every_part_of_every_case(chain: Anvil, stored: str) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    wrong = [
        changed(each, what, chance.randrange(256))
        for each in CASES
        for what in parts(each)
        for _ in range(3)
    ]
    assert not any(asked(chain, stored, wrong)), f"seed {seed}"


def test_index_and_size_as_our_own_verifier_takes_them(chain: Anvil, stored: str) -> None:
    """A root does not fix the size: where two sizes give an entry the same path, RFC 9162
    holds for both. Contract and verifier agree on which."""
    near = [
        changed(each, what, bit) for each in CASES for what in ("index", "size") for bit in range(7)
    ]
    wanted = [expected(each) for each in near]
    assert any(wanted)
    assert asked(chain, stored, near) == wanted
    far = [changed(each, "size", bit) for each in CASES[::20] for bit in range(7, 256)]
    assert not any(asked(chain, stored, far))


def misshapen(each: Case) -> Iterable[Case]:
    root, leaf, index, size, proof = each
    yield root, leaf, index, size, (*proof, bytes(32))
    yield root, leaf, size, size, proof
    yield root, leaf, 2**256 - 1, size, proof
    yield root, leaf, index, 0, proof
    yield root, merkle.leaf_hash(leaf), index, size, proof
    yield root, leaf, index, size, proof + (bytes(32),) * 300
    yield bytes(32), leaf, index, size, proof
    if proof:
        yield root, leaf, index, size, (*proof, *proof)
        yield root, leaf, index, size, proof[:-1]
        yield root, leaf, index, size, proof[1:]
        yield root, leaf, index, size, ()
    if len(set(proof)) > 1:
        yield root, leaf, index, size, tuple(reversed(proof))


def test_what_does_not_fit_is_false(chain: Anvil, stored: str) -> None:
    wrong = [each for whole in CASES[::7] for each in misshapen(whole)]
    assert not any(asked(chain, stored, wrong))


def test_gas_of_a_proof(chain: Anvil, stored: str) -> None:
    """A view costs nothing from outside; this is for contracts that call it."""
    call = {"to": stored, "data": "0x" + inclusion_call(*case(20, 33)).hex()}
    gas = int(chain.call("eth_estimateGas", call), 16)
    print({"verifyInclusion, 6 siblings": gas})
    assert gas <= 37_000


def test_what_is_no_proof_is_not_asked(opened: Open, contract: str) -> None:
    network = opened(contract_address=contract)
    leaf = LEAVES[0]
    for arguments, says in (
        ((leaf[1:], leaf, 0, 1, []), "root of 31 bytes"),
        ((leaf, leaf + b"x", 0, 1, []), "leaf of 33 bytes"),
        ((leaf, leaf, 0, 1, [b""]), "proof element of 0 bytes"),
        ((leaf, leaf, -1, 1, []), "index -1"),
        ((leaf, leaf, 0, 2**256, []), "size 1157"),
    ):
        with pytest.raises(InputError, match=says):
            network.verify_inclusion(*arguments)


def test_a_contract_of_an_earlier_release_goes_on_working(chain: Anvil, opened: Open) -> None:
    address = "0x" + "0c" * 20
    chain.call("anvil_setCode", address, json.loads(OLD.read_text())["deployedBytecode"])
    network = opened(contract_address=address)
    root, leaf, index, size, proof = case(2, 5)
    anchor, evidence = receipt_of(network, sent(network, root))
    check_evidence(anchor, evidence)
    assert "receipt_proof" in evidence
    assert network.verify_hash(root) is True
    assert network.identity().fields["contract"] == network.contract
    with pytest.raises(RejectedError, match="has no verifyInclusion; it is of an earlier release"):
        network.verify_inclusion(root, leaf, index, size, proof)
    nobody = opened(contract_address="0x" + "0d" * 20)
    with pytest.raises(RejectedError, match="has no verifyInclusion"):
        nobody.verify_inclusion(root, leaf, index, size, proof)


def test_a_deployed_contract_is_todays(chain: Anvil) -> None:
    address, _ = deploy(EthereumSettings(url=chain.url, private_key=KEYS[0]))
    old = json.loads(OLD.read_text())["deployedBytecode"]
    assert chain.call("eth_getCode", address, "latest") != old


def test_a_proof_is_checked_before_it_is_kept(opened: Open, contract: str) -> None:
    network = opened(contract_address=contract)
    anchor, evidence = receipt_of(network, sent(network, new_root()))
    evidence["receipt_proof"]["nodes"].append("0x80")
    with pytest.raises(ProofError, match="1 nodes are left over"):
        check_evidence(anchor, evidence)
