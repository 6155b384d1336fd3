"""Approvals: who may sign what, and which signatures a policy counts."""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from provenance.app.verify import verify_run
from provenance.cli import main
from provenance.errors import FormatError
from provenance.formats.approval import sign
from provenance.formats.dsse import Envelope, pae
from provenance.gate.approvals import Approval, approve
from provenance.gate.decision import Gate
from provenance.gate.policy import load_policy
from provenance.settings import Settings
from tests.support.model_world import deployment, real_story
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.support.verify_world import OTHER, RUN
from tests.unit.gate.conftest import refused, write_policy
from tests.unit.gate.test_decision import also, changed

KEYS = {name: bytes(range(at, at + 32)) for at, name in enumerate(("alice", "bob", "eve"))}


def public(name: str) -> str:
    return Ed25519PrivateKey.from_private_bytes(KEYS[name]).public_key().public_bytes_raw().hex()


BY = {name: public(name) for name in ("alice", "bob")}


class World:
    """A deployment whose policy wants both alice and bob."""

    def __init__(self, home: Settings, model: Path, folder: Path) -> None:
        self.home, self.model, self.folder = home, model, folder
        self.file = folder / "approval.json"
        for name, seed in KEYS.items():
            path = folder / f"{name}.key"
            path.write_text(seed.hex())
            path.chmod(0o600)

    def approve(self, name: str, *more: str) -> int:
        words = ["approve", "latest", "--base-dir", str(self.home.base_dir)]
        return main(
            [*words, "--key", str(self.folder / f"{name}.key"), "-o", str(self.file), *more]
        )

    def refusal(self, at_least: int = 2) -> str | None:
        """What the gate says of the approvals; None where it passes."""
        path = self.folder / "policy.yaml"
        write_policy(path, self.home, approvals={"at_least": at_least, "by": BY})
        gate = Gate(self.home, load_policy(path), approvals=[self.file])
        decision = gate.decide(self.model, "latest")
        return None if decision.passed else refused(decision)["approvals"]

    def rewrite(self, **changes: Any) -> None:
        """The file with fields of its statement's predicate changed, and signed anew by eve."""
        document = json.loads(self.file.read_text())
        statement = json.loads(b64decode(document["payload"]))
        statement["predicate"] |= changes
        payload = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
        document["payload"] = b64encode(payload).decode()
        self.file.write_text(json.dumps(document))


@pytest.fixture
def world(home: Settings, model: Path, tmp_path: Path) -> World:
    return World(home, model, tmp_path)


@pytest.mark.slow
def test_two_of_two_must_have_signed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.approve("alice") == 0
    assert capsys.readouterr().out.startswith(f"{world.file}: 1 signed; run {RUN}, root ")
    assert world.refusal(1) is None
    assert world.refusal() == "approvals: found approved by alice; expected 2 of alice, bob"
    assert world.approve("alice") == world.approve("eve") == 0
    assert world.refusal() == "approvals: found approved by alice; expected 2 of alice, bob"
    assert world.approve("bob", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1].partition(": ")[2] or "{}")
    assert told or Envelope.decode(world.file.read_bytes(), "x").signatures.keys() >= set(
        BY.values()
    )
    assert world.refusal() is None


def test_a_policy_that_wants_approvals_passes_none_without_a_file(
    home: Settings, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"at_least": 1, "by": BY}
    policy = write_policy(tmp_path / "policy.yaml", home, approvals=rule)
    command = ["gate", "--model", str(model), "--policy", str(policy), "--run", "latest"]
    command += ["--base-dir", str(home.base_dir)]
    assert main(command) == 1
    line = "REFUSED approvals: found approved by nobody; expected 1 of alice, bob"
    assert line in capsys.readouterr().out
    assert main([*command, "--approval", str(tmp_path / "none.json")]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_signed_cannot_be_changed(world: World) -> None:
    world.approve("alice")
    world.approve("bob")
    kept = world.file.read_text()
    world.rewrite(until="2999-01-01")
    said = world.refusal()
    assert said is not None
    assert "does not verify with key" in said
    assert said.startswith("approvals: found approved by nobody")
    world.file.write_text(kept)
    world.rewrite(run=str(RUN)[:-1] + ("0" if str(RUN)[-1] != "0" else "1"))
    assert "approves run" in (world.refusal() or "")
    world.file.write_text(kept)
    document = json.loads(kept)
    first, second = document["signatures"]
    first["sig"], second["sig"] = second["sig"], first["sig"]
    world.file.write_text(json.dumps(document))
    assert "does not verify with key" in (world.refusal() or "")


@pytest.mark.slow
def test_an_approval_ends_with_its_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date()
    world.approve("alice", "--until", str(today + timedelta(days=1)))
    world.approve("bob")  # takes the term that is there
    assert world.refusal() is None
    later = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    assert f"expired after {today + timedelta(days=1)}" in (world.refusal() or "")


@pytest.mark.slow
def test_an_approval_of_another_term_run_or_root_gets_no_signature(
    world: World, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.approve("alice", "--until", "2999-01-01") == 0
    kept = world.file.read_bytes()
    assert world.approve("bob", "--until", "2999-01-02") == 2
    assert "until 2999-01-01; expected run" in capsys.readouterr().err
    assert world.approve("bob", "--until", "tomorrow") == 2
    assert "--until: found 'tomorrow', expected a day such as" in capsys.readouterr().err
    assert world.file.read_bytes() == kept
    root, key = bytes(32), Ed25519PrivateKey.from_private_bytes(KEYS["alice"])
    payload = Approval(RUN, root).encode()
    signatures = {public("alice"): key.sign(pae(payload))}
    world.file.write_bytes(Envelope(payload, signatures).encode())
    assert world.approve("bob") == 2
    assert "root 0000000000000000, for ever; expected run" in capsys.readouterr().err
    assert "which is not the run's newest" in (world.refusal(1) or "")


@pytest.mark.slow
def test_a_run_that_does_not_verify_gets_no_signature(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    base = str(world.home.base_dir)
    assert main(["bundle", "latest", "-o", str(bundle), "--base-dir", base]) == 0
    record = next((bundle / "records").rglob("*.json"))
    record.write_bytes(record.read_bytes().replace(b'"v":1', b'"v":1 '))
    words = ["approve", str(bundle), "--key", str(tmp_path / "alice.key")]
    capsys.readouterr()
    assert main([*words, "-o", str(world.file), "--base-dir", base]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert not world.file.exists()
    with pytest.raises(SystemExit):
        main(["approve", "--key", words[-1], "-o", str(world.file)])
    assert "arguments are required: RUN|PATH|CID" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_goes_on_gets_no_signature(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(deployment(tmp_path / "artifacts", real_story()[:-3]), model, tmp_path)
    assert world.approve("alice") == 2
    assert "no seal after training; expected a run that ended" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payloadType": "text/plain"}, "payloadType: found 'text/plain'"),
        ({"payload": "!"}, "payload: found '!', expected base64"),
        ({"payload": b64encode(b"{}").decode()}, "version"),
        ({"signatures": [{"keyid": "AB", "sig": ""}]}, "signatures[0].keyid: found 'AB'"),
        ({"signatures": [{"keyid": "ab" * 32, "sig": ""}] * 2}, "expected each signer once"),
        ({"extra": 1}, "extra: unknown key"),
    ],
)
def test_a_file_that_is_no_approval_is_refused_by_its_field(
    world: World, change: dict[str, Any], message: str
) -> None:
    world.approve("alice")
    world.file.write_text(json.dumps(json.loads(world.file.read_text()) | change))
    with pytest.raises(FormatError, match=message.replace("[", r"\[")):
        Approval.decode(Envelope.decode(world.file.read_bytes(), "file").payload, "file")


@pytest.mark.slow
def test_a_parent_that_must_pass_needs_approvals_of_its_own(tmp_path: Path, model: Path) -> None:
    world = World(deployment(tmp_path / "artifacts"), model, tmp_path)
    also(world.home, changed(parent={"run": str(RUN), "epoch": 3}))
    policy = tmp_path / "policy.yaml"
    rule = {"at_least": 1, "by": {"alice": BY["alice"].upper()}}
    write_policy(policy, world.home, approvals=rule, parent={"passes": True})
    files = {run: tmp_path / f"{run}.json" for run in (RUN, OTHER)}

    def refusals() -> dict[str, str]:
        given = [path for path in files.values() if path.exists()]
        gate = Gate(world.home, load_policy(policy), approvals=given)
        decision = gate.decide(model, str(OTHER))
        return {} if decision.passed else refused(decision)

    for run in (OTHER, RUN):
        report, key = verify_run(world.home, str(run)), KEYS["alice"]
        approve(
            report, partial(sign, key=Ed25519PrivateKey.from_private_bytes(key)), None, files[run]
        )
        if run == OTHER:
            line = refusals()["parent.passes"]
            assert f"run {RUN}: approvals: found approved by nobody; " in line
    assert refusals() == {}


def test_what_is_no_use_is_said_before_anything_is_done(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.approve("alice", "--until", "2020-01-01") == 2
    assert "found 2020-01-01, expected a day that has not passed" in capsys.readouterr().err
    assert not world.file.exists()
    policy = write_policy(world.folder / "policy.yaml", world.home)
    command = ["gate", "--model", str(world.model), "--policy", str(policy), "--run", "latest"]
    command += ["--base-dir", str(world.home.base_dir), "--approval", str(world.file)]
    assert main(command) == 2
    assert f"{policy} has no approvals, expected a policy that counts" in capsys.readouterr().err
    os.mkfifo(world.file)
    assert "not a regular file" in (world.refusal() or "")


@pytest.mark.slow
def test_an_account_approves_by_a_bundle_of_its_own(world: World) -> None:
    world.approve("alice")
    sigstore, bundle = Sigstore(), world.folder / "ci.json"
    payload = Envelope.decode(world.file.read_bytes(), "file").payload
    by = {"alice": BY["alice"], "ci": {"identity": WHO, "issuer": ISSUER}}
    root = sigstore.trusted_root(world.folder / "root.json")
    home = replace(world.home, trust=replace(world.home.trust, sigstore_root=root))
    path = world.folder / "policy.yaml"
    write_policy(path, world.home, approvals={"at_least": 2, "by": by})
    gate = Gate(home, load_policy(path), approvals=[world.file, bundle])
    bundle.write_bytes(sigstore.sign_statement(payload))
    assert gate.decide(world.model, "latest").passed
    bundle.write_bytes(Sigstore().sign_statement(payload))
    told = refused(gate.decide(world.model, "latest"))["approvals"]
    assert f"approved by alice; {bundle}: identity {WHO}, by {ISSUER}: Sigstore: " in told
