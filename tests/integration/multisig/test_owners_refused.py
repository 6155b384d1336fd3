"""What owners, and those who carry their signatures, cannot do: each is refused with a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from msgspec import structs

from provenance.anchor.delivery import Outcome
from provenance.bootstrap import sending
from provenance.errors import ProvenanceError
from provenance.formats.checkpoint import Head, parse_note, sign_head
from provenance.formats.note import SignerKey
from provenance.multisig.requests import add_signatures, make_request, sign_request
from provenance.ports.values import AnchorState, anchor_payload
from provenance.proofs.multisig.request import BitcoinRequest, EthereumRequest, SigningRequest
from provenance.settings import BitcoinSettings, Settings
from tests.integration.multisig.owned import SCRIPT, Owned
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.owners import cosigned, ethereum_signatures, psbt_of
from tests.support.nodes.regtest import Regtest

pytest_plugins = ("tests.support.nodes.fixtures_ethereum",)
pytestmark = [pytest.mark.nodes, pytest.mark.slow]
STRANGER = "0x" + "5eed" * 16


@dataclass
class Waiting:
    """Heads that the first owner has signed."""

    owned: Owned
    owners: list[Settings]
    ethereum: EthereumRequest
    bitcoin: BitcoinRequest


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, anvil_chain: Anvil, bitcoin_settings: BitcoinSettings
) -> Waiting:
    folder = tmp_path_factory.mktemp("waiting")
    owned = Owned(folder, anvil_chain, Regtest(bitcoin_settings))
    owners = [owned.owner(0), owned.owner(2)]
    made: dict[str, SigningRequest] = {}
    for name in owned.names:
        owned.publish(name)
        made[name] = make_request(owned.settings, name)
        path = folder / f"{name}.json"
        path.write_bytes(sign_request(owners[0], made[name]).encode())
        add_signatures(owned.settings, [path])
    ethereum, bitcoin = made["ethereum"], made["bitcoin"]
    assert isinstance(ethereum, EthereumRequest)
    assert isinstance(bitcoin, BitcoinRequest)
    return Waiting(owned, owners, ethereum, bitcoin)


Change = Callable[[Waiting], SigningRequest]


def other_psbt(stage: Waiting, **changes: object) -> BitcoinRequest:
    """Signed by an owner who made it himself, or was fooled."""
    bitcoin = stage.bitcoin
    values = {"payload": anchor_payload(bitcoin.root), "made": bitcoin.psbt.spent[0], **changes}
    return replace(bitcoin, psbt=cosigned(psbt_of(script=SCRIPT, **values), SCRIPT, 1))  # type: ignore[arg-type]  # by name


def another_output(stage: Waiting) -> SigningRequest:
    data = (0, b"\x6a\x24" + anchor_payload(stage.bitcoin.root))
    return other_psbt(stage, outputs=(data, (1000, b"\x00\x14" + b"\x66" * 20)))


def another_head(stage: Waiting) -> SigningRequest:
    """Of the same ledger, but one that this deployment never asked to sign."""
    signer = sending.ledger_signer(stage.owned.settings)
    root = b"\x07" * 32
    note = sign_head(Head(signer.name, 9, root), signer)
    store = replace(stage.ethereum.store, root=root)
    return EthereumRequest(note, store, ethereum_signatures(store, 0, 1))


ADDED: dict[str, tuple[Change, str]] = {
    "another output": (another_output, "another outputs"),
    "another payload": (
        lambda s: replace(
            other_psbt(s, payload=anchor_payload(b"\x09" * 32)),
            head=sign_head(
                Head("x", 2, b"\x09" * 32), sending.ledger_signer(s.owned.settings)
            ),
        ),
        "no head of bitcoin waits for it",
    ),
    "another input": (
        lambda s: other_psbt(s, made=None), "another inputs than the one that was to be signed",
    ),
    "a higher fee": (lambda s: other_psbt(s, fee=5000), "another"),
    "a deadline of one's own": (
        lambda s: replace(
            s.ethereum,
            store=(store := replace(s.ethereum.store, deadline=2**40)),
            signatures=ethereum_signatures(store, 1),
        ),
        "asks for another root, chain, contract or deadline",
    ),
    "another chain": (
        lambda s: replace(s.ethereum, store=replace(s.ethereum.store, chain_id=1)),
        "asks for another root, chain, contract or deadline",
    ),
    "another contract": (
        lambda s: replace(s.ethereum, store=replace(s.ethereum.store, contract=b"\x01" * 20)),
        "asks for another root, chain, contract or deadline",
    ),
    "a head of one's own": (another_head, "no head of ethereum waits for it"),
    "a foreign signature": (
        lambda s: s.ethereum.signed([_foreign(s)]), "signed and is no owner",
    ),
}  # fmt: skip


def _foreign(stage: Waiting) -> bytes:
    from provenance.chains.ethereum.multisig import sign

    return sign(stage.ethereum.store, STRANGER)


def stored(stage: Waiting) -> list[bytes | None]:
    with stage.owned.store.snapshot() as tx:
        asked = [("ethereum", stage.ethereum.root), ("bitcoin", stage.bitcoin.root)]
        return [tx.signing_request(*each) for each in asked]


@pytest.mark.parametrize("name", ADDED)
def test_what_was_not_asked_for_is_not_taken_in(name: str, stage: Waiting, tmp_path: Path) -> None:
    change, words = ADDED[name]
    before, path = stored(stage), tmp_path / "signed.json"
    path.write_bytes(change(stage).encode())
    with pytest.raises(ProvenanceError, match=words) as refused:
        add_signatures(stage.owned.settings, [path])
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert stored(stage) == before
    for network in stage.owned.names:
        assert stage.owned.publish(network).outcomes == {}
        assert stage.owned.row(network).state is AnchorState.HELD


def by_another_ledger(stage: Waiting) -> SigningRequest:
    head = parse_note(stage.ethereum.head).head
    other = SignerKey.from_private_bytes(head.origin, b"\x33" * 32)
    return replace(stage.ethereum, head=sign_head(head, other))


SIGNED: dict[str, tuple[Change, str]] = {
    "a head of another ledger": (by_another_ledger, "signed by none of the ledgers"),
    "another chain": (
        lambda s: replace(s.ethereum, store=replace(s.ethereum.store, chain_id=1)),
        "blockchain.ethereum.chain_id: the request is for 1, expected 31337",
    ),
    "another contract": (
        lambda s: replace(s.ethereum, store=replace(s.ethereum.store, contract=b"\x01" * 20)),
        "contract_address: the request is for 0x0101",
    ),
    "an expired deadline": (
        lambda s: replace(s.ethereum, store=replace(s.ethereum.store, deadline=1_000)),
        "it expired at 1000",
    ),
    "a PSBT that pays somebody": (another_output, "it pays somebody else"),
    "a PSBT with another payload": (
        lambda s: replace(
            s.bitcoin, psbt=psbt_of(anchor_payload(b"\x09" * 32), SCRIPT)
        ),
        "different roots",
    ),
    "a fee above the cap": (
        lambda s: other_psbt(s, fee=10_000_000), r"found a fee of .* expected at most 200",
    ),
    "coins of others": (
        lambda s: other_psbt(s, made=_others_coin()), "is no coin of the script of the owners",
    ),
}  # fmt: skip


def _others_coin() -> bytes:
    body = b"\x02\0\0\0\x01" + b"\x11" * 32 + b"\0\0\0\0\0\xfd\xff\xff\xff\x01"
    script = b"\x00\x14" + b"\x77" * 20
    return body + (50_000_000).to_bytes(8, "little") + bytes([len(script)]) + script + bytes(4)


@pytest.mark.parametrize("name", SIGNED)
def test_an_owner_signs_nothing_else(name: str, stage: Waiting, tmp_path: Path) -> None:
    from provenance.multisig.requests import read_request

    change, words = SIGNED[name]
    path = tmp_path / "request.json"
    path.write_bytes(change(stage).encode())
    with pytest.raises(ProvenanceError, match=words) as refused:
        sign_request(stage.owners[1], read_request(path))
    assert "\n" not in str(refused.value)


def test_a_key_or_wallet_of_nobody_signs_nothing(stage: Waiting) -> None:
    vkey = sending.ledger_signer(stage.owned.settings).verifier.vkey
    stranger = stage.owned.configured("stranger", STRANGER, ledger_keys=vkey)
    with pytest.raises(ProvenanceError, match=r"private_key: is that of 0x.*, no owner"):
        sign_request(stranger, stage.ethereum)
    deployment = stage.owned.settings
    with pytest.raises(ProvenanceError, match="signed nothing: it has no key of the owners"):
        sign_request(deployment, stage.bitcoin)
    nobody = stage.owned.configured("nobody", STRANGER)
    with pytest.raises(ProvenanceError, match="trust.ledger_keys: missing"):
        sign_request(nobody, stage.ethereum)


def test_what_is_written_into_the_database_is_no_signature(stage: Waiting) -> None:
    """The worker verifies what is stored, each time."""
    owned, store = stage.owned, stage.ethereum.store
    table: list[tuple[SigningRequest, str]] = [
        (replace(stage.ethereum, signatures=(_foreign(stage),)), "signed and is no owner"),
        (another_output(stage), "it pays somebody else"),
        (
            replace(stage.ethereum, store=(late := replace(store, deadline=int(time.time()))),
                    signatures=ethereum_signatures(late, 0, 1)),
            "what they signed expires: provenance multisig request ethereum --again",
        ),
    ]  # fmt: skip
    for request, words in table:
        network = request.network
        before = stored(stage)
        with owned.store.transaction() as tx:
            tx.save_signing_request(network, request.root, request.encode())
        assert owned.publish(network).outcomes == {}
        row = owned.row(network)
        assert row.state is AnchorState.HELD
        assert words in (row.reason or "")
        with owned.store.transaction() as tx:
            for name, root, document in zip(
                ("ethereum", "bitcoin"), (stage.ethereum.root, stage.bitcoin.root), before,
                strict=True,
            ):  # fmt: skip
                assert document is not None
                tx.save_signing_request(name, root, document)


def test_a_contract_of_other_owners_pauses_the_network(stage: Waiting) -> None:
    section = stage.owned.settings.blockchain.ethereum
    assert section is not None
    assert section.multisig is not None
    one = structs.replace(section, multisig=structs.replace(section.multisig, threshold=1))
    settings = structs.replace(
        stage.owned.settings,
        blockchain=structs.replace(stage.owned.settings.blockchain, ethereum=one),
    )
    network = sending.open_network(settings, "ethereum", stage.owned.store)
    with pytest.raises(ProvenanceError, match=r"is 2 of 3, expected 1 of 3 with the owners of"):
        network.identity()
    network.close()


def test_a_higher_fee_takes_another_round_on_the_same_coins(stage: Waiting, tmp_path: Path) -> None:
    owned, first = stage.owned, stage.bitcoin
    path = tmp_path / "bitcoin.json"
    path.write_bytes(sign_request(stage.owners[1], first).encode())
    add_signatures(owned.settings, [path])
    assert list(owned.publish("bitcoin").outcomes.values()) == [Outcome.SENT]
    row = owned.row("bitcoin")
    delivery = owned.delivery("bitcoin")
    versions = delivery.versions(row)
    with pytest.raises(ProvenanceError, match="a higher fee takes new signatures of the owners"):
        delivery.network.draft(anchor_payload(row.root), replaces=versions[-1].version)
    again = make_request(owned.settings, "bitcoin", again=True)
    assert isinstance(again, BitcoinRequest)
    assert again.psbt.transaction.inputs == first.psbt.transaction.inputs
    assert again.psbt.fee > first.psbt.fee
    for owner in stage.owners:
        path.write_bytes(sign_request(owner, again).encode())
        add_signatures(owned.settings, [path])
    draft = delivery.network.draft(anchor_payload(row.root), replaces=versions[-1].version)
    version = delivery.network.sign(draft, None)
    elsewhere = replace(versions[-1].version, detail={"inputs": [f"{bytes(32).hex()}:0"]})
    with pytest.raises(ProvenanceError, match="leaves out a coin of the old version"):
        delivery.network.draft(anchor_payload(row.root), replaces=elsewhere)
    delivery.network.broadcast(version)
    owned.regtest.mine()
    assert delivery.network.lookup(version.transaction_id).root == row.root
    assert delivery.network.observe(versions[-1].version).place.value == "conflicted"
