"""Each rule of a policy: what passes it, what is refused, and what cannot be checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.producers.certificate import sign_identity
from provenance.formats.record import Kind
from provenance.gate.policy import load_policy
from provenance.gate.rules import RuleResult, run_rules
from provenance.verify.report import VerificationReport
from tests.support.model_world import real_story
from tests.support.verify_world import (
    KEY,
    OTHER,
    OWN,
    RUN,
    SIGNER,
    Fields,
    World,
    before,
    ending,
    metrics,
    seal,
    training,
)

pytestmark = pytest.mark.slow

ALICE = Ed25519PrivateKey.from_private_bytes(bytes(range(40, 72)))
BASE: dict[str, Any] = {"ledger_keys": [SIGNER.verifier.vkey], "networks": {"bitcoin": {}}}


def world(events: list[Fields] | None = None, identity: bytes | None = None) -> World:
    stage = World()
    events = real_story() if events is None else events
    stage.ingest(stage.batch(events, identity=identity))
    stage.anchor(12)
    return stage


def results(
    tmp_path: Path, report: VerificationReport | World, **rules: Any
) -> dict[str, RuleResult]:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**BASE, **rules}))
    policy = load_policy(path)
    if isinstance(report, World):
        trust = replace(OWN, own=False, ledger_keys=()).also(policy.trust())
        report = report.verify(trust=trust, verifier_key=None)
    return {item.rule: item for item in run_rules(policy, report)}


@pytest.fixture(scope="module")
def anchored() -> World:
    return world()


def test_a_run_that_is_whole_passes(anchored: World, tmp_path: Path) -> None:
    networks = {"bitcoin": {"confirmations": 6, "chain": "regtest"}, "ethereum": {}}
    found = results(tmp_path, anchored, networks=networks, clean_code=True, max_unfinished_runs=0)
    assert {item.outcome for item in found.values()} == {"passed"}
    assert [*found] == [
        "run", "ended", "ledger_keys", "networks.ethereum", "networks.bitcoin", "clean_code",
        "max_unfinished_runs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("networks", "outcome", "words"),
    [
        ({"bitcoin": {"confirmations": 9000}}, "unchecked", "confirmations; expected"),
        ({"bitcoin": {"chain": "main"}}, "refused", "found bitcoin (regtest); expected bitcoin (m"),
        ({"ethereum": {"chain": 5}}, "refused", "expected ethereum (5)"),
        ({"ipfs": {}}, "refused", "found no anchor of after; expected the newest seal anchored"),
    ],
)
def test_a_network_must_have_the_newest_seal_that_deep(
    networks: dict[str, Any], outcome: str, words: str, anchored: World, tmp_path: Path
) -> None:
    name = next(iter(networks))
    found = results(tmp_path, anchored, networks=networks)[f"networks.{name}"]
    assert (found.outcome, words in found.line) == (outcome, True), found.line


def test_a_network_that_nobody_asked_is_no_pass(anchored: World, tmp_path: Path) -> None:
    report = anchored.verify(online=False)
    found = results(tmp_path, report)["networks.bitcoin"]
    assert (found.outcome, found.exit_code) == ("unchecked", 3)


def test_an_unknown_ledger_key_is_refused(anchored: World, tmp_path: Path) -> None:
    other = World(signer=type(SIGNER).from_private_bytes("example.org/x", b"x" * 32)).signer
    found = results(tmp_path, anchored, ledger_keys=[other.verifier.vkey])["ledger_keys"]
    assert (found.outcome, found.found) == ("refused", SIGNER.verifier.label)


def test_ages_are_of_the_earliest_time(anchored: World, tmp_path: Path) -> None:
    report = anchored.verify()
    assert results(tmp_path, report, max_run_age="1d")["max_run_age"].outcome == "passed"
    old = replace(report, checked_at=report.checked_at + 2 * 86400)
    found = results(tmp_path, old, max_run_age="1d", max_anchor_age="1d")
    assert {found["max_run_age"].outcome, found["max_anchor_age"].outcome} == {"refused"}
    assert "found 2 d 1 h; expected at most 1d" in found["max_run_age"].line
    # The deployment says that it sealed the run later than its anchor was made: no younger for it.
    seals = tuple(replace(each, sealed_at=old.checked_at) for each in old.seals)
    assert results(tmp_path, replace(old, seals=seals), max_run_age="1d")[
        "max_run_age"
    ].outcome == ("refused")
    early = replace(report, checked_at=report.checked_at - 9 * 86400)
    assert "yet to come" in results(tmp_path, early, max_anchor_age="1d")["max_anchor_age"].line
    offline = anchored.verify(online=False)
    assert results(tmp_path, offline, max_anchor_age="1d")["max_anchor_age"].outcome == "unchecked"


def test_only_a_named_signer_counts(anchored: World, tmp_path: Path) -> None:
    run_key = KEY.public_key().public_bytes_raw()
    signed = world(identity=sign_identity(RUN, run_key, ALICE))
    alice = ALICE.public_key().public_bytes_raw().hex()
    assert results(tmp_path, signed, signers={"alice": alice})["signers"].outcome == "passed"
    for stage, public in ((signed, "ab" * 32), (anchored, alice)):
        found = results(tmp_path, stage, signers={"alice": public})["signers"]
        assert (found.outcome, found.exit_code) == ("refused", 1)


def test_data_is_required_and_forbidden_by_its_digest(anchored: World, tmp_path: Path) -> None:
    rows = np.arange(12.0).reshape(6, 2)
    own, other = str(dataset_digest(rows[:4])), str(dataset_digest(rows[:3]))

    def held(stage: World, **rule: Any) -> list[str]:
        found = results(tmp_path, stage, datasets=rule)
        return [item.outcome for name, item in found.items() if name.startswith("datasets.")]

    assert held(anchored, required=[own], forbidden=[other]) == ["passed", "passed"]
    assert held(anchored, required=[own, other], forbidden=[own]) == ["refused", "refused"]
    part = dataset_digest(rows[:4]).parts[0].digest
    assert held(anchored, forbidden=[part]) == ["refused"]
    # Digests of another algorithm cannot be compared, and no data is no clean data.
    assert held(anchored, forbidden=[other], algorithm="sha256") == ["unchecked"]
    sha = world(real_story("sha256"))
    assert held(sha, forbidden=[own]) == ["unchecked"]
    digest = str(dataset_digest(rows[:4], HashFactory("sha256")))
    assert held(sha, required=[digest], algorithm="sha256") == ["passed"]
    bare = [event for event in real_story() if event[0] not in (Kind.DATA_TRAIN, Kind.DATA_TEST)]
    assert held(world(ending(bare[:-3])), forbidden=[own], required=[own]) == ["unchecked"] * 2


def budget(epoch: int, epsilon: Any, delta: float = 1e-5) -> Fields:
    return (Kind.PRIVACY, epoch, {"privacy": {"epsilon": epsilon, "delta": delta}})


def spent(*budgets: Fields) -> World:
    return world(ending([*before(), *training(3), *budgets]))


def test_epsilon_is_bounded_to_the_last_epoch(anchored: World, tmp_path: Path) -> None:
    rule = {"epsilon": 3, "delta": 1e-5}

    def held(stage: World, **rules: Any) -> RuleResult:
        return results(tmp_path, stage, privacy={**rule, **rules})["privacy"]

    whole = spent(budget(1, 1.0), budget(2, 2.0), budget(3, 3.0))
    assert held(whole).outcome == "passed"
    assert held(whole, epsilon=2.9).outcome == "refused"
    assert held(whole, delta=1e-6).outcome == "refused"
    assert held(whole, recomputed=True).outcome == "unchecked"
    assert held(spent(budget(1, 1.0), budget(2, 2.0))).found == "no budget of rank 0 behind epoch 2"
    for epsilon in ("Infinity", None):
        assert held(spent(budget(1, 1.0), budget(3, epsilon))).outcome == "unchecked"
    assert held(anchored).outcome == "unchecked"


def test_budgets_of_several_processes_are_added(tmp_path: Path) -> None:
    stage = World()
    stage.ingest(
        stage.batch([*before(), *training(2), budget(2, 2.0)]),
        stage.batch(
            ending([metrics(3), budget(3, 2.5)]), producer=b"q" * 16, at=100.0
        ),
    )  # fmt: skip
    stage.sweep(later=1e6)
    stage.anchor(12)
    found = results(tmp_path, stage, privacy={"epsilon": 3, "delta": 1e-3})["privacy"]
    assert (found.outcome, found.found) == ("refused", "epsilon 4.5 at delta 2e-05")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ({"commit": "ab" * 20, "dirty": False}, "passed"),
        ({"commit": "ab" * 20, "dirty": True}, "refused"),
        ({"commit": "ab" * 20, "dirty": None}, "unchecked"),
        ({"commit": None, "dirty": None, "problem": "no git repository"}, "unchecked"),
        (None, "unchecked"),
    ],
)
def test_code_is_a_commit_without_changes(code: Any, outcome: str, tmp_path: Path) -> None:
    events = before()
    (at,) = (i for i, event in enumerate(events) if event[0] is Kind.CONFIG)
    events[at][2]["code"] = code
    found = results(tmp_path, world(ending([*events, *training()])), clean_code=True)
    assert found["clean_code"].outcome == outcome


@pytest.mark.parametrize(
    ("events", "rule", "outcome", "words"),
    [
        ([*before(), *training()], "ended", "refused", "no seal after training"),
        (
            ending([*before(), (Kind.GAP, None, {"dropped": 3, "reason": "disk full"})]),
            "run", "refused", "3 events were dropped",
        ),
        (
            [*before(), seal("after"), (Kind.RUN_END, None, {
                "events": 7, "reason": "ValueError", "state": "failed"})],
            "ended", "refused", "failed (ValueError)",
        ),
    ],
)  # fmt: skip
def test_a_run_must_be_whole(
    events: list[Fields], rule: str, outcome: str, words: str, tmp_path: Path
) -> None:
    found = results(tmp_path, world(events))[rule]
    assert (found.outcome, words in found.line) == (outcome, True), found.line
    assert "\n" not in found.line


def test_unfinished_runs_of_the_ledger_are_counted(tmp_path: Path) -> None:
    stage = World()
    stage.ingest(stage.batch(real_story()), stage.batch([*before(), *training()], run=OTHER))
    stage.anchor(12)
    found = results(tmp_path, stage, max_unfinished_runs=0)["max_unfinished_runs"]
    assert (found.outcome, found.found) == ("refused", "1 of 2 runs of the ledger")
    assert results(tmp_path, stage, max_unfinished_runs=1)["max_unfinished_runs"].exit_code == 0
