"""What a verdict rests on: pins, the policy, and what nothing that nobody pinned can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import InputError
from provenance.evidence.run_evidence import Consistency, RunEvidence
from provenance.formats.checkpoint import Head, parse_note, sign_head
from provenance.formats.cosignature import WitnessKey
from provenance.formats.merkle import MerkleTree
from provenance.formats.note import SIGNATURE_MARK, SignerKey, encode_base64
from provenance.ports.values import Observation, anchor_payload
from provenance.settings import load
from provenance.verify.headers import GivenHeaders
from provenance.verify.trust import (
    KNOWN,
    Chain,
    PinnedChain,
    PinnedKey,
    Trust,
    of_options,
    of_own_deployment,
    of_settings,
)
from tests.support.nodes.memory_chain import MemoryNetwork
from tests.support.verify_world import ORIGIN, OWN, SIGNER, World, finished, story

KEY = Trust(ledger_keys=(PinnedKey(SIGNER.verifier, "--trust"),))
REGTEST = Trust(chains=(PinnedChain("bitcoin", "regtest", "--trust-chain"),))
CONTRACT = "0x" + "5f" * 20


@pytest.fixture
def world() -> World:
    return finished()


def headers(evidence: RunEvidence) -> GivenHeaders:
    return GivenHeaders.of(
        bytes.fromhex(str(receipt.evidence["header"]))
        for receipt in evidence.receipts_of("bitcoin")
    )


def judged(world: World, trust: Trust, **options: Any) -> tuple[str, Sequence[str]]:
    report = world.verify(verifier_key=None, trust=trust, online=False, **options)
    assert report.exit_code == {"verified": 0, "failed": 1}.get(report.outcome, 3)
    return report.outcome, report.verdict.missing


# --- the outcome -----------------------------------------------------------------------------


def test_verified_takes_a_pinned_key_and_an_anchor_on_a_pinned_chain(world: World) -> None:
    trusted = headers(world.evidence())
    both = KEY.also(REGTEST)
    assert judged(world, Trust())[0] == "consistent"
    assert judged(world, Trust(), headers=trusted)[0] == "consistent"
    assert judged(world, REGTEST, headers=trusted)[0] == "consistent"
    assert judged(world, KEY, headers=trusted)[0] == "consistent", "regtest has no pin"
    assert judged(world, both)[0] == "consistent", "no header says that the block is the chain's"
    assert judged(world, both, headers=trusted) == ("verified", ())
    stricter = both.also(Trust(require=("key", "ethereum")))
    assert judged(world, stricter, headers=trusted) == (
        "anchored",
        ("before, after: no anchor that ethereum was seen to have",),
    )


def test_what_it_rests_on_is_named(world: World) -> None:
    report = world.verify(verifier_key=None, trust=Trust(), online=False)
    assert report.verdict.rests_on == (
        f"ledger key {SIGNER.verifier.label}, which nobody pinned",
        "bitcoin (regtest), which nobody pinned, of which a receipt holds "
        "(a test chain: whoever runs it makes its blocks)",
        "ethereum (chain 1), pinned: known to this program, whose block is only stated",
        "no trainer's identity: nobody stands behind the run",
    )
    row = report.as_dict()["networks"]["bitcoin"]["after"]
    assert (row["chain"], row["network"], row["pinned_by"]) == (
        "bitcoin (regtest)",
        "regtest",
        None,
    )
    assert row["work"] < 8, "the hashes that its header took, as a power of two"
    assert row["depth"] == 0, "nobody proved one"
    assert report.as_dict()["verdict"]["key_pinned_by"] is None


def test_own_evidence_rests_on_the_own_nodes_and_every_anchor_counts(world: World) -> None:
    assert world.verify().outcome == "verified"
    assert world.verify(trust=replace(OWN, chains=())).outcome == "anchored"
    world.networks["bitcoin"].hang()
    assert world.verify().outcome == "anchored"
    relaxed = replace(OWN, require=("key", "anchor"))
    assert world.verify(trust=relaxed).outcome == "verified"


@pytest.mark.slow
def test_ethereum_offline_takes_the_hash_of_a_block_that_the_reader_trusts(world: World) -> None:
    (receipt, _) = world.evidence().receipts_of("ethereum")
    block = str(receipt.anchor.block_hash)
    trust = KEY.also(Trust(require=("key", "ethereum")))
    assert judged(world, trust)[0] == "consistent"
    assert judged(world, trust.also(of_options(block_hashes=[block])))[0] == "verified"
    assert judged(world, trust.also(of_options(block_hashes=["0x" + "0" * 64])))[0] == "consistent"


@pytest.mark.parametrize("flagged", [True, False])
def test_a_run_without_receipts_is_never_more_than_consistent(world: World, flagged: bool) -> None:
    """Whatever is deleted beside: the trainer's own marks say that an anchor was asked for."""
    evidence = world.evidence()
    entries = tuple(replace(entry, anchor=flagged) for entry in evidence.entries)
    bare = replace(evidence, receipts=(), anchors=(), entries=entries)
    report = world.verify(bare)
    assert (report.outcome, report.exit_code) == ("consistent", 3)
    assert report.checks[7].detail == "no receipt of before; no receipt of after"
    assert "no network: anchors were asked for, and none is here" in report.verdict.rests_on
    one = replace(evidence, receipts=evidence.receipts[:2], anchors=(), entries=entries)
    assert world.verify(one, trust=replace(OWN, require=("key",))).outcome == "consistent"


# --- one chain of heads ----------------------------------------------------------------------


def test_a_receipt_over_a_head_of_a_fork_is_found(world: World) -> None:
    """Signed by the same key, larger than all heads here, and tied to none."""
    evidence = world.evidence()
    first = evidence.receipts_of("bitcoin")[0]
    fork = MerkleTree([first.root, *(bytes([n]) * 32 for n in range(7))])
    index = next(e.index for e in evidence.entries if e.root == first.root)
    assert index == 0
    receipt = replace(
        first,
        head=sign_head(Head(ORIGIN, 8, fork.root()), SIGNER),
        ledger=replace(
            first.ledger, size=8, root=fork.root(), proof=tuple(fork.inclusion_proof(0, 8))
        ),
        anchor=replace(first.anchor, payload=anchor_payload(fork.root())),
    )
    files = tuple(
        replace(f, data=receipt.encode()) if f.data == first.encode() else f
        for f in evidence.receipts
    )
    assert files != evidence.receipts
    report = world.verify(replace(evidence, receipts=files))
    assert (report.outcome, report.exit_code) == ("failed", 1)
    assert "fork" in report.findings[0].problem


def test_a_head_that_only_extends_itself_is_tied_to_nothing() -> None:
    world, events = World(), story(3)
    for part, first in ((events[:6], 0), (events[6:], 6)):
        world.ingest(world.batch(part, first=first))
        world.anchor()
    evidence = world.evidence()
    small, _ = evidence.heads
    itself = (Consistency(small.size, small.size, ()),)
    report = world.verify(replace(evidence, consistencies=itself))
    assert [(f.check, f.subject) for f in report.findings] == [(6, f"head {small.size}")]


def test_a_seal_from_after_its_block_is_found(world: World) -> None:
    evidence = world.evidence()
    entries = tuple(replace(e, created_at=e.created_at + 86400) for e in evidence.entries)
    report = world.verify(replace(evidence, entries=entries))
    assert any("hours after the block" in f.problem for f in report.findings)
    assert "seals.sealed_at" in world.verify().as_dict()["claims"]


# --- contracts -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("our_code", "pinned", "expected"),
    [
        (True, None, "verified"),
        (None, None, "stated"),
        (False, None, "failed"),
        (None, CONTRACT, "verified"),
        (False, CONTRACT, "verified"),
        (False, "0x" + "11" * 20, "failed"),
        (None, "0x" + "11" * 20, "stated"),
    ],
)
def test_a_contract_counts_by_its_code_or_by_a_pin(
    world: World, our_code: bool | None, pinned: str | None, expected: str, monkeypatch: Any
) -> None:
    pins = (PinnedChain("ethereum", 1, "--trust-chain", pinned),) if pinned else ()
    trust = replace(OWN, chains=(*pins, *OWN.chains[1:]))
    ours = Chain("ethereum", 1, CONTRACT)
    monkeypatch.setattr(
        "provenance.verify.checks.receipts.CheckedReceipt.chain",
        property(lambda self: ours if self.receipt.anchor.network == "ethereum" else REG),
    )
    REG = Chain("bitcoin", "regtest")
    lookup = MemoryNetwork.lookup

    def looked_up(self: MemoryNetwork, txid: str) -> Observation:
        return replace(lookup(self, txid), our_code=our_code)

    monkeypatch.setattr(MemoryNetwork, "lookup", looked_up)
    report = world.verify(trust=trust)
    assert {c.status for c in report.networks["ethereum"].values()} == {expected}
    assert (report.outcome == "verified") == (expected == "verified")


# --- witnesses -------------------------------------------------------------------------------


def cosigned(evidence: RunEvidence, *secrets: Ed25519PrivateKey) -> RunEvidence:
    """The newest head with the lines of witnesses."""
    note = evidence.heads[-1]
    text, lines = parse_note(note.note).text, ""
    for at, secret in enumerate(secrets):
        key = witness(at, secret)
        signed = secret.sign(f"cosignature/v1\ntime 7\n{text}".encode())
        blob = encode_base64(key.key_id + (7).to_bytes(8, "big") + signed)
        lines += f"{SIGNATURE_MARK}{key.name} {blob}\n"
    return replace(evidence, heads=(*evidence.heads[:-1], replace(note, note=note.note + lines)))


def witness(at: int, secret: Ed25519PrivateKey) -> WitnessKey:
    return WitnessKey(f"witness.example/w{at}", secret.public_key().public_bytes_raw())


def test_named_witnesses_must_have_cosigned(world: World) -> None:
    secrets = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
    keys = tuple(witness(at, secret) for at, secret in enumerate(secrets))
    trust = replace(OWN, witnesses=keys)
    assert world.verify(trust=trust).outcome == "anchored"
    one = cosigned(world.evidence(), secrets[0])
    report = world.verify(one, trust=trust)
    assert report.outcome == "anchored"
    assert report.verdict.missing == ("1 of the 2 witnesses needed cosigned a head of the run",)
    assert world.verify(one, trust=replace(trust, quorum=1)).outcome == "verified"
    assert world.verify(cosigned(world.evidence(), *secrets), trust=trust).outcome == "verified"
    with pytest.raises(InputError, match="found 3, expected at most 2"):
        trust.also(Trust(quorum=3))


# --- what is pinned --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "by"),
    [
        (Chain("bitcoin", "main", work=78.0), KNOWN),
        (Chain("bitcoin", "main", work=32.0), None),
        (Chain("bitcoin", "signet", work=23.0), KNOWN),
        (Chain("bitcoin", "test", work=40.0), None),
        (Chain("bitcoin", "regtest", work=1.0), None),
        (Chain("ethereum", 1), KNOWN),
        (Chain("ethereum", 11155111), KNOWN),
        (Chain("ethereum", 1, CONTRACT), None),
        (Chain("ethereum", 31337), None),
        (Chain("ipfs"), None),
    ],
)
def test_what_is_known_without_a_pin(chain: Chain, by: str | None) -> None:
    assert Trust().chain_pinned_by(chain) == by


def test_pins_of_options_and_of_the_trust_section() -> None:
    vkey = SIGNER.verifier.vkey
    found = of_options([vkey], ["ethereum:31337:" + CONTRACT.upper().replace("X", "x")])
    assert found.key_pinned_by(SIGNER.verifier) == "--trust"
    assert found.chain_pinned_by(Chain("ethereum", 31337, CONTRACT)) == "--trust-chain"
    assert found.chain_pinned_by(Chain("ethereum", 31337, "0x" + "0" * 40)) is None
    assert found.chain_pinned_by(Chain("ethereum", 31337)) == "--trust-chain"
    assert of_options(require=["witnesses,key"]).policy == ("key", "witnesses")
    section = {
        "ledger_key": vkey,
        "chains": {"bitcoin": ["mainnet", "regtest"], "ethereum": [{"chain_id": 31337}]},
    }
    read = of_settings(load({"trust": section}))
    assert read.key_pinned_by(SIGNER.verifier) == "trust.ledger_keys in the configuration"
    assert read.chain_pinned_by(Chain("bitcoin", "regtest")) == "trust.chains in the configuration"
    own = {"blockchain": {"bitcoin": {"url": "http://127.0.0.1:1", "network": "regtest"}}}
    mine = of_own_deployment(load(own), SIGNER.verifier)
    assert mine.chain_pinned_by(Chain("bitcoin", "regtest")) == "blockchain in the configuration"
    assert mine.key_pinned_by(SIGNER.verifier) == "this deployment's ledger.key"
    assert mine.key_pinned_by(SignerKey.from_private_bytes("x", bytes(32)).verifier) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keys": ["x"]}, "--trust: verifier key 'x'"),
        ({"chains": ["regtest"]}, "--trust-chain: found 'regtest', expected ethereum:CHAIN_ID"),
        ({"chains": ["bitcoin:doge"]}, "--trust-chain: found 'bitcoin:doge'"),
        ({"chains": ["ethereum:1:0x12"]}, "--trust-chain: found 'ethereum:1:0x12'"),
        ({"block_hashes": ["12"]}, "--block-hash: found '12', expected 0x and 64 hex digits"),
        ({"require": ["key,anchors"]}, "--require: found 'anchors', expected key, anchor"),
        ({"witnesses": ["w"]}, "--witness: "),
    ],
)
def test_what_cannot_be_pinned_is_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        of_options(**options)
