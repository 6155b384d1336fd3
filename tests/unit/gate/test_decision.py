"""Models that somebody wants to get through, and the line that refuses each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.bundle.writer import write_bundle
from provenance.cli import main
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.gate.decision import Decision, Gate
from provenance.gate.policy import load_policy
from provenance.settings import Settings, load
from tests.support.model_world import deployment, real_story, weights
from tests.support.verify_world import OTHER, RUN, SIGNER, Fields, World
from tests.unit.gate.conftest import PLAIN, Hold, flip, refused, vkey, write_policy

pytestmark = pytest.mark.slow


def test_the_true_model_passes_by_run_and_by_search(hold: Hold) -> None:
    for source in ("latest", str(RUN), None):
        decision = hold(source)
        assert (decision.refusals, decision.exit_code, decision.passed) == ([], 0, True)


# --- the run ---------------------------------------------------------------------------------


def test_a_run_without_an_anchor_is_refused(tmp_path: Path, model: Path) -> None:
    home = deployment(tmp_path / "bare", anchor=False)
    policy = load_policy(write_policy(tmp_path / "p.yaml", home))
    decision = Gate(home, policy).decide(model, "latest")
    lines = refused(decision)
    assert [*lines] == ["networks.local"]
    assert lines["networks.local"].startswith("networks.local: found pending (anchor is due)")
    assert decision.exit_code == 3


def test_a_strangers_bundle_is_refused_whatever_lies_in_the_folder(
    hold: Hold, home: Settings, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He has a ledger of his own, signs and anchors there, and ships its key and file along."""
    theirs = deployment(tmp_path / "theirs", real_story(parent=None))
    bundle = write_bundle(verify_run(theirs, "latest").evidence, tmp_path / "bundle")
    lines = refused(hold(bundle))
    assert "found ml-provenance.local/ledger+" in lines["ledger_keys"]
    checkout = tmp_path / "checkout"
    shutil.copytree(theirs.base_dir, checkout / "artifacts")
    (checkout / "artifacts" / "run").mkdir()
    pins = {"trust": {"ledger_keys": [vkey(theirs)]}}
    (checkout / "artifacts" / "run" / "config.json").write_text(json.dumps(pins))
    monkeypatch.chdir(checkout)
    own = load_policy(write_policy(tmp_path / "p.yaml", home))
    assert [*refused(Gate(load(None), own).decide(model, bundle))] == ["ledger_keys"]
    of_his = load({**pins}, checkout / "artifacts")
    assert [*refused(Gate(of_his, own).decide(model, bundle))] == ["ledger_keys"]


def test_of_two_runs_with_the_same_weights_the_bad_one_decides(tmp_path: Path, model: Path) -> None:
    home = deployment(tmp_path / "two")
    also(home, changed(code={"commit": "ab" * 20, "dirty": True}))
    policy = load_policy(write_policy(tmp_path / "p.yaml", home, clean_code=True))
    gate = Gate(home, policy)
    assert gate.decide(model, str(RUN)).passed
    decision = gate.decide(model, None)
    assert [*refused(decision)] == ["clean_code"]
    assert decision.report is not None
    assert decision.report.run == OTHER


def test_the_gravest_of_several_runs_decides(tmp_path: Path, model: Path) -> None:
    """What could not be checked of the first run does not hide why the second is refused."""
    clean = {"commit": "ab" * 20, "dirty": None}
    home = deployment(tmp_path / "two", changed(code=clean))
    also(home, changed(code={"commit": "ab" * 20, "dirty": True}))
    gate = Gate(home, load_policy(write_policy(tmp_path / "p.yaml", home, clean_code=True)))
    assert [gate.decide(model, str(run)).exit_code for run in (RUN, OTHER)] == [3, 1]
    assert gate.decide(model, None).exit_code == 1


def changed(**config: Any) -> list[Fields]:
    """The story with other keys in its configuration, and as initial weights those of epoch 3."""
    events = []
    for kind, epoch, body in real_story():
        if kind is Kind.WEIGHTS:
            body = state_digest(weights(3)).as_fields()
        events.append((kind, epoch, {**body, **config} if kind is Kind.CONFIG else body))
    return events


def also(home: Settings, events: list[Fields]) -> None:
    """A second run in the database, sealed and anchored."""
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(home)
    signer = sending.seal_policy(home).signer
    world.networks = dict(sending.open_networks(home))
    world.policy = type(world.policy)(("local",), signer)
    world.ingest(world.batch(events, run=OTHER))
    world.anchor()
    world.store.close()


def test_a_bundle_and_headers_are_enough(tmp_path: Path, model: Path) -> None:
    """A runner without a database and a node: the block and what is built on it are given."""
    stage = World(names=("bitcoin",))
    stage.ingest(stage.batch(real_story()))
    stage.anchor(12)
    bundle = write_bundle(stage.evidence(), tmp_path / "bundle")
    proof = json.loads((bundle / "receipts" / "after-bitcoin.json").read_text())["evidence"]
    headers = tmp_path / "headers.txt"
    headers.write_text("\n".join([proof["header"], *proof.get("headers", ())]))
    deep = 1 + len(proof.get("headers", ()))

    def held(given: list[str], deep: int) -> Decision:
        rules = {"bitcoin": {"chain": "regtest", "confirmations": deep}}
        policy = tmp_path / "policy.json"
        keys = [SIGNER.verifier.vkey]
        policy.write_text(json.dumps({"ledger_keys": keys, "networks": rules, "files": PLAIN}))
        return Gate(load(None, tmp_path / "none"), load_policy(policy), given).decide(model, bundle)

    assert held([str(headers)], deep).passed
    for given, more in (([], 0), ([str(headers)], 1)):
        decision = held(given, deep + more)
        assert ([*refused(decision)], decision.exit_code) == (["networks.bitcoin"], 3)


def test_a_parent_must_be_named_and_pass_itself(tmp_path: Path, model: Path) -> None:
    home = deployment(tmp_path / "two")
    also(home, changed(parent={"run": str(RUN), "epoch": 3}))
    child = write_bundle(verify_run(home, str(OTHER)).evidence, tmp_path / "child")
    parent = write_bundle(verify_run(home, str(RUN)).evidence, tmp_path / "parent")

    def held(source: str | Path, *parents: Path, **rules: Any) -> Decision:
        policy = load_policy(write_policy(tmp_path / "p.yaml", home, **rules))
        return Gate(home, policy, parents=parents).decide(model, source)

    both = {"named": True, "passes": True}
    assert held(str(OTHER), parent=both).passed
    assert held(child, parent, parent=both).passed
    assert "not here (--parent)" in refused(held(child, parent=both))["parent.passes"]
    assert [*refused(held(str(RUN), parent=both))] == ["parent.named"]
    # It is not enough that the child's own story is good.
    also_bad = deployment(
        tmp_path / "bad", [e for e in real_story() if e[0] is not Kind.DATA_TEST][:-1]
    )
    also(also_bad, changed(parent={"run": str(RUN), "epoch": 3}))
    policy = load_policy(write_policy(tmp_path / "p.yaml", also_bad, parent={"passes": True}))
    line = refused(Gate(also_bad, policy).decide(model, str(OTHER)))["parent.passes"]
    assert f"found run {RUN}: run: found (4) nothing announced is missing" in line


def test_what_is_not_there_is_a_refusal_too(
    hold: Hold, home: Settings, model: Path, tmp_path: Path
) -> None:
    assert hold("01234567").exit_code == 2
    assert "not in the database" in refused(hold("01234567"))["run"]
    assert [*refused(hold(model=tmp_path / "nothing"))] == ["model"]
    broken = tmp_path / "bundle"
    broken.mkdir()
    assert hold(broken).exit_code == 2
    save_file({"w": np.zeros(3)}, model / "model.safetensors")
    assert "no run of the database" in refused(hold(None))["model"]
    assert "there is no database yet" in refused(
        Gate(load(None, tmp_path / "no"), load_policy(write_policy(tmp_path / "p.yaml", home)))
        .decide(model, None)
    )["run"]  # fmt: skip


# --- the command -----------------------------------------------------------------------------


def test_the_command_says_one_line_a_refusal_and_no_verdict_is_kept(
    home: Settings, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = str(write_policy(tmp_path / "policy.yaml", home))
    sarif, junit = tmp_path / "out.sarif", tmp_path / "out.xml"
    command = [
        "gate", "--model", str(model), "--policy", policy, "--base-dir", str(home.base_dir),
        "--run", "latest", "--sarif", str(sarif), "--junit", str(junit),
    ]  # fmt: skip
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{model}, run {RUN}: passed (policy")
    assert json.loads(sarif.read_text())["runs"][0]["results"] == []
    flip(model)
    (model / "evil\nREFUSED nothing.py").write_text("")
    assert main(command) == 1
    head, *lines = capsys.readouterr().out.splitlines()
    assert "refused by 2 of" in head
    assert [line.split(":")[0] for line in lines] == ["REFUSED model", "REFUSED files"]
    assert len(json.loads(sarif.read_text())["runs"][0]["results"]) == 2
    assert 'failures="2"' in junit.read_text()
    assert main([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["passed"], document["run_id"]) == (False, str(RUN))


def test_no_output_takes_the_place_of_another_or_of_what_is_read(
    home: Settings, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, bundle = write_policy(tmp_path / "policy.yaml", home), tmp_path / "bundle.zip"
    bundle.write_bytes(b"PK")
    command = [
        "gate", "--model", str(model), "--policy", str(policy), "--bundle", str(bundle),
    ]  # fmt: skip
    (tmp_path / "link").symlink_to(policy)
    (tmp_path / "config.json").write_text("{}")
    command += ["--config", str(tmp_path / "config.json"), "--headers", "https://example.org"]
    for option, taken in (
        ("policy", tmp_path / "link"),
        ("bundle", bundle),
        ("config", tmp_path / "config.json"),
        ("model", model / "config.json"),
        ("junit", tmp_path / "x"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert main([*command, "--sarif", str(taken), "--junit", str(tmp_path / "x")]) == 2
        said = capsys.readouterr().err
        assert f"--sarif {taken}: is or lies in --{option} " in said
        assert said.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


def test_a_policy_that_cannot_be_read_is_no_pass(
    home: Settings, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(tmp_path / "policy.yaml", home, signer={"a": "ab" * 32})
    command = ["gate", "--model", str(model), "--policy", str(policy), "--run", "latest"]
    earlier = tmp_path / "annotations.json"
    earlier.write_text('{"$manifest": {"io.github.ml-provenance.verdict": "passed"}}')
    assert main([*command, "--annotations", str(earlier)]) == 2
    assert not earlier.exists()
    assert f"provenance: {policy}: signer: unknown key" in capsys.readouterr().err
    assert main([*command[:3], "--policy", str(tmp_path / "none"), *command[-2:]]) == 2
