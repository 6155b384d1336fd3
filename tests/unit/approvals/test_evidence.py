"""Approvals as evidence: what a verifier and a stranger say of good and of forged ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from provenance.approvals.anchoring import AnchoringApprovals, add, take, waiting
from provenance.approvals.statement import Anchoring
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.dsse import Envelope
from provenance.formats.record import Phase
from provenance.ports.values import AnchorRow, AnchorState
from provenance.settings.approvals import ApprovalSettings
from provenance.verify.catalogue import APPROVAL_LIMIT, NETWORKS
from provenance.verify.trust import Trust
from tests.support.stranger import load
from tests.support.verify_world import OTHER, OWN, SIGNER, World, before, story
from tests.unit.approvals.world import BY, KEYS, altered, flipped, run_id, signed

RULE = ApprovalSettings(2, BY, networks=("ethereum",))
TRUST = OWN.also(Trust(approvals=RULE))
FILE = "approvals/ethereum-2.json"
ANOTHER = type(SIGNER).from_private_bytes(SIGNER.name, bytes(32)).verifier.vkey


def approved(*names: str) -> World:
    """A finished run on two networks, of which one asked for approval."""
    world = World()
    approvals = AnchoringApprovals(RULE, SIGNER.verifier.vkey, lambda: world.now)
    world.conditions = (approvals,)
    world.ingest(world.batch(story()))
    world.anchor()
    if names:
        sign_in(world, *names)
        world.anchor()
    return world


def sign_in(world: World, *names: str) -> AnchorRow:
    (approvals,) = world.conditions
    assert isinstance(approvals, AnchoringApprovals)
    with world.store.transaction() as tx:
        row = waiting(tx, "ethereum")
        assert row is not None
        known = take(approvals, tx, row, None)
        assert known.envelope is not None
        add(approvals, tx, signed(known.envelope, *names), "a.json")
    return row


@cache
def evidence() -> tuple[World, RunEvidence]:
    world = approved("alice", "carol")
    return world, world.evidence()


def test_the_report_says_who_approved() -> None:
    world, found = evidence()
    assert list(found.attachments) == [FILE]
    report = world.verify(found, trust=TRUST)
    assert report.outcome == "verified"
    assert "anchoring on ethereum: approved by alice, carol (2 of 2)" in report.verdict.rests_on
    assert APPROVAL_LIMIT in report.not_checked


def test_who_is_pinned_by_nobody_is_a_key() -> None:
    world, found = evidence()
    report = world.verify(found)
    line = "anchoring on ethereum: approved by 2 keys that nobody pinned"
    assert line in report.verdict.rests_on
    some = replace(TRUST, approvals=ApprovalSettings(1, {"alice": BY["alice"]}, networks=()))
    line = "anchoring on ethereum: approved by alice (1 of 1), and by 1 key that nobody pinned"
    assert line in world.verify(found, trust=some).verdict.rests_on


def test_while_it_waits_the_other_network_goes_on_and_the_report_says_so() -> None:
    world = approved()
    report = world.verify(trust=TRUST)
    assert [check.status for check in report.networks["bitcoin"].values()] == ["verified"] * 2
    pending = report.networks["ethereum"]["after"]
    expected = ("pending", "anchor is held: 'waits for approval: 0 of 2'")
    assert (pending.status, pending.reason) == expected
    assert report.outcome != "verified"
    assert not report.findings


def test_a_final_root_without_approval_is_a_finding_of_an_own_run() -> None:
    world, found = evidence()
    bare = replace(found, attachments={})
    (finding,) = world.verify(bare, trust=TRUST).findings
    expected = "anchored with the approval of nobody, expected 2 of alice, bob, carol"
    assert (finding.check, finding.subject, finding.problem) == (
        NETWORKS,
        "after on ethereum",
        expected,
    )
    assert not world.verify(bare, trust=replace(TRUST, own=False)).findings
    later = replace(TRUST, approvals=ApprovalSettings(2, BY, networks=("ethereum",), since=9))
    assert not world.verify(bare, trust=later).findings


def test_a_bundle_brings_them_and_a_stranger_agrees(tmp_path: Path) -> None:
    world, found = evidence()
    folder = written(found, tmp_path)
    read = read_bundle(folder)
    assert {FILE: read.attachments[FILE]} == found.attachments
    assert not read.problems
    assert "approvals/  who approved" in (folder / "README.txt").read_text()
    report = world.verify(read, online=False, trust=TRUST)
    assert "anchoring on ethereum: approved by alice, carol (2 of 2)" in report.verdict.rests_on
    bundle = stranger(folder)
    assert bundle.problems == []
    keys = ", ".join(sorted((BY["alice"], BY["carol"])))
    assert f"{FILE}: whose keys these are: {keys}" in bundle.unproven


def written(found: RunEvidence, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in bundle_files(found).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def stranger(folder: Path) -> Any:
    module = load()
    return module.Bundle(module.load(folder))


# --- forged, each refused in one line, by us and by the stranger --------------------------


def envelope_of(found: RunEvidence) -> Envelope:
    return Envelope.decode(found.attachments[FILE], FILE)


def resigned(found: RunEvidence, **changes: object) -> Mapping[str, bytes]:
    return {FILE: signed(altered(envelope_of(found), **changes), "alice", "bob").encode()}


def stated(found: RunEvidence) -> Anchoring:
    return Anchoring.decode(envelope_of(found).payload, FILE)


def final(found: RunEvidence) -> bytes:
    return next(entry.root for entry in found.entries if entry.phase is Phase.AFTER)


Forge = Callable[[RunEvidence], Mapping[str, bytes]]
FORGED: dict[str, tuple[Forge, str]] = {
    "another ledger": (
        lambda e: resigned(e, ledger=SIGNER.verifier.vkey.replace("example.org", "example.net")),
        "key id is",
    ),
    "another key of the ledger": (
        lambda e: resigned(e, ledger=ANOTHER),
        "is of ledger example.org",
    ),
    "another network": (lambda e: resigned(e, network="bitcoin"), "is of a head of 2 entries"),
    "another chain": (
        lambda e: resigned(e, chain={**stated(e).chain, "chain_id": 5}),
        "is of chain_id 5, the receipt is of ",
    ),
    "another head": (lambda e: resigned(e, root=bytes(32)), "is of a head of 2 entries, root 00"),
    "another size": (lambda e: resigned(e, size=3), "is of a head of 3 entries"),
    "a later start": (lambda e: resigned(e, since=2), "among entries 2 to 1, and this run's is 1"),
    "another run": (
        lambda e: resigned(e, runs=((run_id(1), final(e)),)),
        "does not name this run's final root",
    ),
    "another root of the run": (
        lambda e: resigned(e, runs=((e.run, bytes(32)),)),
        "does not name this run's final root",
    ),
    "a changed day": (
        lambda e: {
            FILE: Envelope(
                altered(envelope_of(e), until=date(2090, 1, 1)).payload, envelope_of(e).signatures
            ).encode()
        },
        "does not verify with key",
    ),
    "a flipped signature": (
        lambda e: {FILE: flipped(envelope_of(e), "alice").encode()},
        "does not verify with key",
    ),
    "no signature": (
        lambda e: {FILE: Envelope(envelope_of(e).payload, {}).encode()},
        "nobody signed it",
    ),
    "no envelope": (lambda e: {FILE: b"{}"}, "found nothing"),
    "another name": (
        lambda e: {"approvals/ethereum-9.json": e.attachments[FILE]},
        "is of a head of 2 entries",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_evidence_is_refused_by_both(name: str, tmp_path: Path) -> None:
    world, found = evidence()
    forge, problem = FORGED[name]
    forged = replace(found, attachments=forge(found))
    findings = world.verify(forged, trust=TRUST).findings
    lines = [f.problem for f in findings if f.check == NETWORKS and f.file is None]
    assert any(problem in line for line in lines), lines
    assert all("\n" not in line for line in lines)
    assert any("approvals/" in line for line in stranger(written(forged, tmp_path)).problems)


def test_too_few_are_a_finding_even_where_their_signatures_hold() -> None:
    world, found = evidence()
    envelope = envelope_of(found)
    one = Envelope(envelope.payload, {BY["alice"]: envelope.signatures[BY["alice"]]})
    strangers = signed(one, "eve")
    for fewer in (one, strangers):
        report = world.verify(replace(found, attachments={FILE: fewer.encode()}), trust=TRUST)
        (finding,) = report.findings
        assert finding.problem.startswith("anchored with the approval of alice, expected 2 of")


def test_who_signed_for_a_later_head_signed_when_the_root_had_gone_out() -> None:
    world, found = evidence()
    later = signed(altered(envelope_of(found), size=9, root=bytes(32)), "alice", "bob")
    forged = replace(found, attachments={"approvals/ethereum-9.json": later.encode()})
    report = world.verify(forged, trust=TRUST)
    (finding,) = report.findings
    assert finding.problem.startswith("anchored with the approval of nobody, expected 2 of")
    line = "approved by alice, bob (2 of 2), but with a later head than the anchored one"
    assert f"anchoring on ethereum: {line}" in report.verdict.rests_on
    seal = world.verify(forged, trust=reading("alice", "bob")).networks["ethereum"]["after"]
    assert seal.status == "stated"
    assert (seal.reason or "").endswith("2 of alice, bob; with a later head than the anchored one")


def reading(*names: str, since: int = 0) -> Trust:
    """What somebody pins who is not of the deployment, and takes Ethereum's anchors alone."""
    by = {name: KEYS[name].public_key().public_bytes_raw().hex() for name in names}
    rule = ApprovalSettings(2, by, networks=("ethereum",), since=since)
    return replace(TRUST, approvals=rule, own=False, require=("key", "ethereum"))


def only(found: RunEvidence, name: str) -> Mapping[str, bytes]:
    envelope = envelope_of(found)
    return {FILE: Envelope(envelope.payload, {BY[name]: envelope.signatures[BY[name]]}).encode()}


Change = Callable[[RunEvidence], Mapping[str, bytes]]
READERS: dict[str, tuple[Trust, Change, str, str | None]] = {
    "enough": (reading("alice", "carol"), lambda e: e.attachments, "verified", None),
    "more": (
        reading("alice", "bob", "carol"),
        lambda e: resigned(e, until=date(2090, 1, 1)),
        "verified",
        None,
    ),
    "none": (
        reading("alice", "carol"),
        lambda e: {},
        "anchored",
        "approved by nobody, expected 2 of alice, carol",
    ),
    "others": (
        reading("bob", "eve"),
        lambda e: e.attachments,
        "anchored",
        "approved by nobody, expected 2 of bob, eve",
    ),
    "one of two": (
        reading("alice", "carol"),
        lambda e: only(e, "carol"),
        "anchored",
        "approved by carol, expected 2 of alice, carol",
    ),
    "one and another": (
        reading("alice", "bob"),
        lambda e: e.attachments,
        "anchored",
        "approved by alice, expected 2 of alice, bob",
    ),
    "expired": (
        reading("alice", "bob"),
        lambda e: resigned(e, until=date(2020, 1, 1)),
        "anchored",
        "approved by nobody, expected 2 of alice, bob; its block came more than a day after 2020",
    ),
    "another run": (
        reading("alice", "bob"),
        lambda e: resigned(e, runs=((run_id(1), final(e)),)),
        "failed",
        "approved by nobody, expected 2 of alice, bob",
    ),
    "another chain": (
        reading("alice", "bob"),
        lambda e: resigned(e, chain={**stated(e).chain, "chain_id": 5}),
        "failed",
        "approved by nobody, expected 2 of alice, bob",
    ),
    "a history": (reading("bob", "eve", since=9), lambda e: {}, "verified", None),
}


@pytest.mark.parametrize("name", READERS)
def test_what_the_readers_persons_did_not_approve_is_not_verified_for_them(name: str) -> None:
    world, found = evidence()
    trust, change, outcome, reason = READERS[name]
    changed = replace(found, attachments=change(found))
    for online in (True, False):
        report = world.verify(changed, trust=trust, online=online)
        seal = report.networks["ethereum"]["after"]
        assert report.networks["ethereum"]["before"].status == ("verified" if online else "stated")
        if reason is None:
            assert seal.status == ("verified" if online else "stated")
            assert "approved" not in (seal.reason or "")
        else:
            assert seal.status == "stated"
            assert (seal.reason or "").startswith(reason)
            line = f"anchoring on ethereum: {seal.reason}"
            assert line in report.verdict.rests_on
        if online:
            assert report.outcome == outcome
            wanted = "after: no anchor that ethereum was seen to have"
            assert (wanted in report.verdict.missing) == (reason is not None)
        assert (report.outcome == "failed") == (outcome == "failed")
        assert bool(report.findings) == (outcome == "failed")


def test_a_block_long_after_the_last_day_is_told() -> None:
    world, found = evidence()
    late = altered(envelope_of(found), until=date(2020, 1, 1))
    forged = replace(found, attachments={FILE: signed(late, "alice", "bob").encode()})
    notices = [n.problem for n in world.verify(forged, trust=TRUST).notices]
    assert "its block came more than a day after 2020-01-01" in notices


@pytest.mark.slow
def test_the_approval_of_a_head_that_never_got_there_goes_with_the_next(tmp_path: Path) -> None:
    world = approved()
    row = sign_in(world, "alice", "bob")
    with world.store.transaction() as tx:
        tx.save_anchor(replace(row, state=AnchorState.FAILED))
    world.ingest(world.batch(before(), run=OTHER))
    world.anchor()
    found = world.evidence()
    assert [r.ledger.size for r in found.receipts_of("ethereum")] == [1, 3]
    assert list(found.attachments) == [FILE]
    assert not world.verify(found, trust=TRUST).findings
    assert stranger(written(found, tmp_path)).problems == []
