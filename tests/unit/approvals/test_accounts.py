"""Approvals by accounts that Sigstore certifies, whose signatures are checked offline.

Over 400 lines: one Sigstore, which every statement and reader is tried with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace as with_changes
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from provenance import sigstore_root
from provenance.app.fsck import fsck
from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    InputError,
    MissingExtraError,
    ProvenanceError,
)
from provenance.formats.approval import TrustApproval
from provenance.formats.dsse import AccountSignature, Envelope
from provenance.formats.json_text import canonical_json
from provenance.ports.values import AnchorState
from provenance.settings import load
from provenance.settings.approval_files import count, read_approval
from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from provenance.verify.trust import Trust
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.support.verify_world import OWN
from tests.unit.approvals import test_evidence
from tests.unit.approvals.test_commands import Home
from tests.unit.approvals.test_evidence import FILE, envelope_of, stranger, written
from tests.unit.approvals.world import BY, ApprovalWorld, altered, signed
from tests.unit.capture.test_keyless import STAND_IN
from tests.unit.capture.test_keyless import package as package

LABEL = f"{WHO}, by {ISSUER}"
SIGSTORE = Sigstore()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SIGSTORE.trusted_root(tmp_path_factory.mktemp("sigstore") / "root.json")


@pytest.fixture
def rule(root: Path) -> ApprovalSettings:
    by: dict[str, str | TrustedIdentity] = {
        "alice": BY["alice"],
        "ci": TrustedIdentity(WHO, ISSUER),
    }
    return ApprovalSettings(2, by, sigstore_root=root)


@pytest.fixture
def world(rule: ApprovalSettings) -> ApprovalWorld:
    world = ApprovalWorld(rule=rule)
    world.final()
    return world


@pytest.fixture
def without_sigstore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sigstore_root.verifier.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "sigstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigstore", None)
    yield
    sigstore_root.verifier.cache_clear()


def by_account(envelope: Envelope, **how: Any) -> Envelope:
    return Envelope.from_bundle(SIGSTORE.sign_statement(envelope.payload, **how), "ci.json")


# --- what is counted -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_account_and_a_key_approve_together(world: ApprovalWorld) -> None:
    brought = by_account(world.take())
    assert world.add(brought).signed.names == ("ci",)
    assert world.waiting().reason == "waits for approval: 0 of 2"
    world.publish()
    assert world.waiting().reason == "waits for approval: 1 of 2 (ci)"
    known = world.add(signed(world.take(), "alice"))
    assert known.signed.names == ("alice", "ci")
    assert known.envelope is not None
    assert known.envelope.signatures.keys() == {BY["alice"], LABEL}
    assert Envelope.decode(known.envelope.encode(), "x") == known.envelope
    world.publish()
    with world.store.snapshot() as tx:
        assert tx.anchors(world.name)[-1].state not in (AnchorState.HELD, AnchorState.DUE)


def test_an_envelope_and_the_bundle_it_came_from_say_the_same(world: ApprovalWorld) -> None:
    payload = world.take().payload
    bundle = SIGSTORE.sign_statement(payload)
    made = Envelope.from_bundle(bundle, "x").signatures[LABEL]
    assert isinstance(made, AccountSignature)
    assert made.bundle(payload).bundle == bundle


def test_the_json_of_a_bundle_need_not_be_canonical(world: ApprovalWorld, tmp_path: Path) -> None:
    document = json.loads(SIGSTORE.sign_statement(world.take().payload))
    document["dsseEnvelope"]["signatures"][0]["keyid"] = ""  # as other tools write it
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(dict(reversed(document.items())), indent=2))
    assert world.add(read_approval(path)).signed.names == ("ci",)


# --- what is refused, each in one line -------------------------------------------------------

Attempt = Callable[[Envelope], Envelope]
REFUSED: dict[str, tuple[Attempt, type[ProvenanceError], str]] = {
    "another account": (
        lambda e: by_account(e, who="eve@example.org"),
        InputError,
        f"signed by eve@example.org, by {ISSUER}, expected 2 of alice, ci",
    ),
    "another issuer": (
        lambda e: by_account(e, issuer="https://evil.example"),
        InputError,
        f"signed by {WHO}, by https://evil.example, expected {ISSUER} behind ci",
    ),
    "another statement": (
        lambda e: by_account(altered(e, root=bytes(32))),
        InputError,
        "approves head of 1 entries, root 0000",
    ),
    "a signature of another statement": (
        lambda e: Envelope(e.payload, by_account(altered(e, root=bytes(32))).signatures),
        BadSignatureError,
        f"{LABEL}: the signature does not fit its certificate",
    ),
    "expired when it was logged": (
        lambda e: by_account(e, late=timedelta(minutes=10)),
        BadSignatureError,
        "cert is not valid at validation time",
    ),
    "another root": (
        lambda e: Envelope.from_bundle(Sigstore().sign_statement(e.payload), "x"),
        BadSignatureError,
        "Sigstore: failed to build timestamp certificate chain",
    ),
    "another log": (
        lambda e: Envelope.from_bundle(
            Sigstore(ca=SIGSTORE.ca, ct=SIGSTORE.ct).sign_statement(e.payload), "x"
        ),
        BadSignatureError,
        "Sigstore: invalid log entry",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_approval_by_the_account_is_refused(name: str, world: ApprovalWorld) -> None:
    attempt, kind, problem = REFUSED[name]
    with pytest.raises(kind) as caught:
        world.add(attempt(world.take()), "ci.json")
    told = str(caught.value)
    assert told.startswith("ci.json: ")
    assert problem in told
    assert "\n" not in told
    row = world.waiting()
    with world.store.snapshot() as tx:
        assert b"verificationMaterial" not in (tx.approval(row.id) or b"")


def test_what_the_database_has_is_checked_anew(world: ApprovalWorld) -> None:
    taken = world.take()
    forged = Sigstore().sign_statement(taken.payload)
    planted = signed(Envelope.from_bundle(forged, "x"), "alice")
    row = world.waiting()
    with world.store.transaction() as tx:
        tx.save_approval(row.id, planted.encode())
    world.publish()
    reason = world.waiting().reason or ""
    assert reason.startswith(
        f"waits for approval: 1 of 2 (alice); approval of anchor 1: identity {LABEL}"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json"},
            "mediaType: found version",
        ),
        ({"messageSignature": {}}, "messageSignature: unknown key"),
        ({"dsseEnvelope": 1}, "dsseEnvelope: found 1, expected an object"),
        ({"verificationMaterial": {}}, "verificationMaterial.tlogEntries: found nothing"),
    ],
)
def test_a_file_that_is_no_such_bundle_is_named(
    world: ApprovalWorld, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    document = json.loads(SIGSTORE.sign_statement(world.take().payload))
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document | change))
    with pytest.raises(InputError) as caught:
        read_approval(path)
    assert f"{path}: cannot be read as an approval: {problem}" in str(caught.value)


def test_certificates_of_more_than_16_kib_are_refused(world: ApprovalWorld) -> None:
    document = json.loads(SIGSTORE.sign_statement(world.take().payload))
    document["verificationMaterial"]["more"] = "x" * 16384
    with pytest.raises(FormatError, match="verificationMaterial of .* at most 16384"):
        Envelope.from_bundle(canonical_json(document), "x")


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each text in a JSON value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def test_no_text_of_a_signature_may_be_another(
    world: ApprovalWorld, rule: ApprovalSettings
) -> None:
    good = json.loads(SIGSTORE.sign_statement(world.take().payload))
    tried = 0
    for path in places(good):
        document = json.loads(json.dumps(good))
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        text = inner[path[-1]]
        half = len(text) // 2
        for other in (
            text[:half] + ("1" if text[half] != "1" else "2") + text[half + 1 :],
            "",
            "-1",
        ):
            inner[path[-1]] = other
            try:
                names = count(rule, Envelope.from_bundle(canonical_json(document), "x"), "x")
            except ProvenanceError as error:
                assert "\n" not in str(error)
            else:
                assert names.names == (), path
            tried += 1
    assert tried > 50


def test_one_signer_may_stand_once(world: ApprovalWorld) -> None:
    document = json.loads(by_account(world.take()).encode())
    document["signatures"] *= 2
    with pytest.raises(FormatError, match="expected each signer once"):
        Envelope.decode(canonical_json(document), "x")


# --- where it cannot be checked --------------------------------------------------------------


@pytest.mark.usefixtures("without_sigstore")
def test_without_the_extra_an_account_is_not_counted_and_that_is_said(
    world: ApprovalWorld, rule: ApprovalSettings
) -> None:
    brought = by_account(world.take())
    with pytest.raises(MissingExtraError, match=r"ml-provenance\[sigstore\]"):
        world.add(brought, "ci.json")
    counted = count(rule, brought, "x")
    assert (counted.names, counted.unchecked) == ((), ("ci",))
    assert world.add(signed(brought, "alice")).signed.names == ("alice",)


def test_a_root_that_is_none_is_the_configurations_fault(
    world: ApprovalWorld, rule: ApprovalSettings, tmp_path: Path
) -> None:
    world.set_rule(replace(rule, sigstore_root=tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"^approvals\.sigstore_root: .*none\.json"):
        world.add(by_account(world.take()))


# --- the other statements --------------------------------------------------------------------


def test_a_trust_section_is_approved_by_a_bundle_as_it_stands(root: Path, tmp_path: Path) -> None:
    file, config = tmp_path / "trust.json", tmp_path / "config.json"
    by = {"ci": {"identity": WHO, "issuer": ISSUER}}
    approvals = {"at_least": 1, "by": by, "trust": str(file), "sigstore_root": str(root)}
    config.write_text(json.dumps({"approvals": approvals, "trust": {}}))
    payload = TrustApproval.of({}).encode()
    file.write_bytes(SIGSTORE.sign_statement(payload))
    assert load(config, tmp_path).approvals is not None
    file.write_bytes(SIGSTORE.sign_statement(payload, issuer="https://evil.example"))
    with pytest.raises(ConfigError) as caught:
        load(config, tmp_path)
    expected = f"signed by {WHO}, by https://evil.example, expected {ISSUER} behind ci"
    assert f"approved by nobody; expected 1 of ci; {expected}" in str(caught.value)


# --- evidence --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_and_a_stranger_see_the_account(rule: ApprovalSettings, tmp_path: Path) -> None:
    world, found = test_evidence.evidence()
    envelope = envelope_of(found)
    pinned = replace(rule, networks=("ethereum",))
    trust = OWN.also(Trust(approvals=pinned))
    both = signed(by_account(Envelope(envelope.payload, {})), "alice")
    evidence = with_changes(found, attachments={FILE: both.encode()})
    report = world.verify(evidence, trust=trust)
    assert report.outcome == "verified"
    assert "anchoring on ethereum: approved by alice, ci (2 of 2)" in report.verdict.rests_on
    nobody = world.verify(evidence)
    line = "anchoring on ethereum: approved by 1 key and 1 account that nobody pinned"
    assert line in nobody.verdict.rests_on
    bundle = stranger(written(evidence, tmp_path))
    assert bundle.problems == []
    assert f"{FILE}: signed by {LABEL}: not checked here: needs sigstore" in bundle.unproven

    forged = Envelope.from_bundle(Sigstore().sign_statement(envelope.payload), "x")
    attachments = {FILE: signed(forged, "alice").encode()}
    findings = world.verify(with_changes(found, attachments=attachments), trust=trust).findings
    assert any(f"identity {LABEL}: Sigstore: " in finding.problem for finding in findings)


@pytest.mark.usefixtures("without_sigstore")
def test_a_reader_without_the_extra_fails_nothing_and_verifies_nothing(
    rule: ApprovalSettings,
) -> None:
    world, found = test_evidence.evidence()
    both = signed(by_account(Envelope(envelope_of(found).payload, {})), "alice")
    evidence = with_changes(found, attachments={FILE: both.encode()})
    trust = OWN.also(Trust(approvals=replace(rule, networks=("ethereum",))))
    report = world.verify(evidence, trust=trust)
    assert not report.findings
    assert report.outcome != "verified"
    assert any(
        "ci is not checked: sigstore is not installed" in line for line in report.verdict.rests_on
    )


def test_a_stranger_refuses_what_does_not_fit_the_certificate(tmp_path: Path) -> None:
    _, found = test_evidence.evidence()
    envelope = envelope_of(found)
    other = by_account(altered(envelope, root=bytes(32))).signatures
    forged = {FILE: Envelope(envelope.payload, other).encode()}
    (problem,) = stranger(written(with_changes(found, attachments=forged), tmp_path)).problems
    assert problem.startswith(f"{FILE}: ")


# --- commands --------------------------------------------------------------------------------


def findings(home: Home) -> list[str]:
    """What fsck says of approvals."""
    told = [str(finding) for finding in fsck(home.settings).findings]
    return [problem for problem in told if "approval" in problem]


@pytest.mark.slow
def test_an_account_signs_on_its_own_machine_or_elsewhere(
    root: Path,
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Home(tmp_path)
    by = {"alice": BY["alice"], "ci": {"identity": WHO, "issuer": ISSUER}}
    rule = {"at_least": 2, "by": by, "networks": ["local"], "sigstore_root": str(root)}
    home.configure(approvals=rule)
    file, bundle = tmp_path / "a.json", tmp_path / "bundle.json"
    assert home.run("approvals", "show", "2", "-o", str(file)) == 0
    bundle.write_bytes(SIGSTORE.sign_statement(read_approval(file).payload))
    told = "approvals sign: found neither --key nor --sigstore, expected one of the two"
    assert home.run("approvals", "sign", str(file)) == 2
    assert told in capsys.readouterr().err
    assert home.sign(str(file), "alice", "--sigstore") == 2
    assert "found both --key and --sigstore" in capsys.readouterr().err
    monkeypatch.setenv("TEST_AMBIENT", "a-token")
    answer = f"Bundle(open({str(bundle)!r}, 'rb').read())"
    stand_in = STAND_IN["sign.py"].replace(
        "Bundle(Sigstore().sign_statement(statement.contents))", answer
    )
    (package / "sign.py").write_text(stand_in)
    assert home.run("approvals", "sign", str(file), "--sigstore", "--json") == 0
    assert json.loads(capsys.readouterr().out)["signatures"] == 1
    assert home.run("approvals", "sign", str(file), "--sigstore") == 2
    assert "signed with this account before" in capsys.readouterr().err
    assert home.run("approvals", "add", str(bundle)) == 0
    assert capsys.readouterr().out == f"{bundle}: 1 of 2 (ci); waits for more\n"
    assert home.sign(str(file), "alice") == home.run("approvals", "add", str(file)) == 0
    assert "2 of 2 (alice, ci); approved" in capsys.readouterr().out
    home.publish()
    assert home.state() is AnchorState.FINAL
    assert not findings(home)
    home.configure(approvals={**rule, "sigstore_root": str(tmp_path / "none.json")})
    (finding,) = findings(home)
    assert "approval of 2 of alice, ci; ci is not checked: approvals.sigstore_root: " in finding
