"""Heads of a deployment with several owners: held, signed apart, sent once, and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs

from provenance.anchor.delivery import Outcome
from provenance.app.fsck import fsck
from provenance.app.verify import verify_path, verify_run
from provenance.bootstrap import sending
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import (
    InputError,
)
from provenance.formats.json_text import canonical_json
from provenance.fsck import chains
from provenance.fsck.findings import FindingKind
from provenance.multisig.requests import (
    add_signatures,
    make_request,
    sign_request,
    waiting,
)
from provenance.ports.values import AnchorState
from provenance.proofs.multisig.ethereum import STORE_SIGNED
from provenance.proofs.multisig.request import SigningRequest
from provenance.settings import BitcoinSettings, Settings
from provenance.verify.report import VerificationReport
from provenance.verify.trust import of_options
from tests.integration.multisig.owned import SCRIPT, Owned
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.owners import ADDRESSES, BITCOIN_KEYS
from tests.support.nodes.regtest import Regtest
from tests.support.stranger import load

pytest_plugins = ("tests.support.nodes.fixtures_ethereum",)
pytestmark = [pytest.mark.nodes, pytest.mark.slow]


@dataclass
class Anchored:
    """A deployment whose run two owners had anchored, and what the owners signed."""

    owned: Owned
    made: dict[str, SigningRequest]
    signed: dict[str, list[SigningRequest]]
    owners: list[Settings]


@pytest.fixture(scope="module")
def anchored(
    tmp_path_factory: pytest.TempPathFactory, anvil_chain: Anvil, bitcoin_settings: BitcoinSettings
) -> Anchored:
    folder = tmp_path_factory.mktemp("owned")
    owned = Owned(folder, anvil_chain, Regtest(bitcoin_settings))
    owners = [owned.owner(0), owned.owner(2)]
    stage = Anchored(owned, {}, {}, owners)
    for name in owned.names:
        owned.publish(name)
        row = owned.row(name)
        assert row.state is AnchorState.HELD
        assert row.reason == f"waits for owners: 0 of 2 signed: provenance multisig request {name}"
        made = stage.made[name] = make_request(owned.settings, name)
        assert make_request(owned.settings, name) == made
        stage.signed[name] = [sign_request(settings, made) for settings in owners]
        for number, signed in enumerate(stage.signed[name]):
            path = folder / f"{name}-{number}.json"
            path.write_bytes(signed.encode())
            owned.publish(name)
            assert owned.row(name).state is AnchorState.HELD
            for _ in range(2):  # who signs twice counts once
                rows = add_signatures(owned.settings, [path])
                (waits,) = (row for row in rows if row.network == name)
                assert len(waits.signers) == number + 1
        # A worker that dies here has sent nothing: the next one finds the row due, and sends once.
        done = owned.publish(name)
        assert list(done.outcomes.values()) == [Outcome.SENT]
        assert owned.publish(name).outcomes == {}
        with pytest.raises(InputError, match="no head waits for its owners"):
            make_request(owned.settings, name)
        owned.confirm(name)
        assert owned.row(name).state is AnchorState.FINAL
        assert name not in {row.network for row in waiting(owned.settings)}
    return stage


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    return load()


@pytest.fixture(scope="module")
def files(anchored: Anchored) -> dict[str, bytes]:
    return bundle_files(verify_run(anchored.owned.settings, "latest").evidence)


def seals(report: VerificationReport, network: str) -> list[Any]:
    return list(report.networks[network].values())


def test_the_deployment_verifies_it_and_says_who_signed(anchored: Anchored) -> None:
    report = verify_run(anchored.owned.settings, "latest")
    assert report.outcome == "verified", report.verdict.lines()
    lines = "\n".join(report.verdict.lines())
    assert lines.count("signed by 2 of 3 owners, 2 needed (pinned: blockchain.") == 2
    signers = sorted((ADDRESSES[0].lower(), ADDRESSES[2].lower()))
    for seal in seals(report, "ethereum"):
        assert seal.as_dict()["cosigners"]["signers"] == signers
    keys = sorted(BITCOIN_KEYS[at].hex() for at in (0, 2))
    for seal in seals(report, "bitcoin"):
        assert seal.as_dict()["cosigners"]["signers"] == keys


def test_the_checker_finds_each_anchor_where_it_is(anchored: Anchored) -> None:
    report = fsck(anchored.owned.settings)
    orphan = FindingKind.CHAIN_ORPHAN  # other tests' anchors, of the same owners' coins
    assert [str(each) for each in report.findings if each.kind is not orphan] == []
    assert STORE_SIGNED.hex() == chains.STORE_SIGNED


def trusting(anchored: Anchored, **multisig: Any) -> Settings:
    """A reader's configuration that pins owners; its nodes are the deployment's."""
    owned = anchored.owned
    trust = {
        "ledger_keys": sending.ledger_signer(owned.settings).verifier.vkey,
        "chains": {
            "ethereum": [{"chain_id": 31337, "contract": owned.contract}],
            "bitcoin": ["regtest"],
        },
        "multisig": multisig,
    }
    settings = owned.configured("reader", KEYS[1], **trust)
    chain = settings.blockchain
    assert chain.bitcoin is not None
    bitcoin = structs.replace(chain.bitcoin, wallet=None)
    return structs.replace(settings, blockchain=structs.replace(chain, bitcoin=bitcoin))


def test_a_stranger_sees_it_in_the_bundle(
    anchored: Anchored, files: dict[str, bytes], stranger: ModuleType, tmp_path: Path
) -> None:
    bundle = stranger.Bundle(files, None)
    assert bundle.problems == []
    told = "2 owners signed: how many must, a node or your pins say"
    assert [line.partition(": ")[2] for line in bundle.unproven] == [told] * 2
    place = write_files(files, tmp_path / "bundle")
    offline = verify_path(anchored.owned.settings, place, offline=True)
    (one, *_) = seals(offline, "bitcoin")
    assert one.cosigners.line.startswith("signed by 2 of 3 owners, 2 needed")
    online = verify_path(trusting(anchored), place, offline=False)
    print(
        [(s.status, s.reason, s.pinned_by) for n in online.networks.values() for s in n.values()],
        online.not_checked,
    )
    assert online.outcome == "verified", online.verdict.lines()
    shown = {seal.cosigners.shown_by for seal in seals(online, "ethereum")}
    assert shown == {"by the contract's storage"}
    shown = {seal.cosigners.shown_by for seal in seals(online, "bitcoin")}
    assert shown == {"by the output that it spends"}


def test_a_reader_who_pins_other_owners_believes_none_of_it(
    anchored: Anchored, files: dict[str, bytes], tmp_path: Path
) -> None:
    place = write_files(files, tmp_path / "bundle")
    for owners, threshold, words in (
        (ADDRESSES, 2, None),
        (ADDRESSES[:2], 1, None),
        (ADDRESSES, 3, "signed by 2 of 3 owners, 3 needed (pinned: trust.multisig.ethereum"),
        (ADDRESSES[1:2], 1, "signed by 0 of 1 owners, 1 needed"),
    ):
        pins = {"ethereum": {"owners": list(owners), "threshold": threshold}}
        report = verify_path(
            trusting(anchored, **pins), place, offline=False, trust=of_options(require=["ethereum"])
        )
        assert report.outcome == ("verified" if words is None else "anchored")
        for seal in seals(report, "ethereum"):
            assert seal.status == ("verified" if words is None else "stated")
            assert words is None or words in seal.reason


# --- what was tampered with ---------------------------------------------------------------


def forged(
    files: dict[str, bytes], network: str, change: Callable[[Any], None]
) -> dict[str, bytes]:
    """The bundle with the evidence of each receipt of a network changed."""
    made = dict(files)
    for name, data in files.items():
        if name.startswith("receipts/") and name.endswith(f"-{network}.json"):
            receipt = json.loads(data)
            change(receipt["evidence"])
            made[name] = canonical_json(receipt)
    return made


def without_a_coin(evidence: Any) -> None:
    evidence["spent"] = []


def another_coin(evidence: Any) -> None:
    evidence["spent"] = [evidence["transaction"]]


def another_value(evidence: Any) -> None:
    """Of the coin's transaction, by whom it was made."""
    evidence["spent"] = [evidence["spent"][0][:-2] + "01"]


def another_signature(evidence: Any) -> None:
    """In the witness, which the transaction's id does not cover."""
    raw = evidence["transaction"]
    at = raw.index("0220", raw.index("47304402") if "47304402" in raw else 0) + 10
    evidence["transaction"] = raw[:at] + f"{int(raw[at], 16) ^ 1:x}" + raw[at + 1 :]


def other_owners(evidence: Any) -> None:
    """A witness script of other keys."""
    script = SCRIPT.raw.hex()
    other = script.replace(SCRIPT.keys[0].hex(), "02" + "79be667ef9dcbbac55a06295ce870b07" * 2)
    evidence["transaction"] = evidence["transaction"].replace(script, other)


@pytest.mark.parametrize(
    "change", [without_a_coin, another_coin, another_value, another_signature, other_owners]
)
def test_a_forged_witness_is_refused_by_both_verifiers(
    anchored: Anchored,
    files: dict[str, bytes],
    stranger: ModuleType,
    tmp_path: Path,
    change: Callable[[Any], None],
) -> None:
    from tests.integration.stock.test_stranger import remade

    made = remade(forged(files, "bitcoin", change))
    report = verify_path(anchored.owned.settings, write_files(made, tmp_path / "b"), offline=True)
    assert report.outcome == "failed"
    assert {finding.subject for finding in report.findings} >= {"receipt before-bitcoin"}
    assert any("before-bitcoin" in line for line in stranger.Bundle(made, None).problems)
