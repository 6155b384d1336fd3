"""The in-toto statement of a run: what it says, what it keeps back, and that lies are found.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.bundle.attachments import slsa
from provenance.bundle.attachments.slsa import FILE, files, statement_of
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.errors import InputError
from provenance.evidence.run_evidence import EvidenceProblem, HeadNote, RecordFile, RunEvidence
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind, canonical_json
from provenance.verify.checks.attachments import check_slsa as check
from provenance.verify.findings import Findings
from provenance.verify.verifier import verify
from tests.support.frameworks import installed
from tests.support.model_world import COMMIT, deployment, real_story, weights
from tests.support.verify_world import ORIGIN, RUN, SIGNER, World, before, flip_metric


def world(events: list[Any] | None = None, **names: Any) -> World:
    stage = World(**names)
    stage.ingest(stage.batch(events if events is not None else real_story()))
    stage.anchor()
    return stage


EVIDENCE = world().evidence()


def stated(evidence: RunEvidence = EVIDENCE) -> dict[str, Any]:
    data = statement_of(evidence)
    assert data is not None
    assert data == canonical_json(json.loads(data))
    document = json.loads(data)
    assert isinstance(document, dict)
    return document


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def withhold(evidence: RunEvidence, *paths: str) -> RunEvidence:
    def kept(record: RecordFile) -> RecordFile:
        return replace(record, withheld=record.withheld or record.path in paths)

    return replace(evidence, records=tuple(map(kept, evidence.records)))


# --- what it says ------------------------------------------------------------------------


def test_it_names_run_weights_config_code_data_and_receipts() -> None:
    document = stated()
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = by_name(document["subject"])
    assert subjects["run"]["digest"] == {"mth_sha256": EVIDENCE.entries[-1].root.hex()}
    assert subjects["run"]["annotations"] == {"seal": "after", "state": "finished"}
    last = state_digest(weights(3))
    assert subjects["training/epoch/3/state/0"] == {
        "name": "training/epoch/3/state/0",
        "digest": {"mth_sha256": last.root.hex()},
        "annotations": {"algorithm": "blake3", "epoch": 3},
    }
    assert len(subjects) == 2
    build = document["predicate"]["buildDefinition"]
    assert build["buildType"] == "urn:ml-provenance:training-run:v1"
    assert build["externalParameters"]["training"] == {"epochs": 3, "learning_rate": 0.1}
    needs = by_name(build["resolvedDependencies"])
    assert needs["code"]["digest"] == {"gitCommit": COMMIT}
    assert needs["code"]["annotations"] == {"dirty": False}
    first = state_digest(weights(0)).root.hex()
    assert needs["model/weights/0"]["digest"] == {"mth_sha256": first}
    assert set(needs) == {"code", "data/train/0", "data/test/0", "model/weights/0"}
    details = document["predicate"]["runDetails"]
    assert details["builder"] == {"id": f"https://{ORIGIN}"}
    times = sorted(record.ts for record in EVIDENCE.records)
    assert details["metadata"] == {
        "invocationId": str(RUN), "startedOn": times[0], "finishedOn": times[-1],
    }  # fmt: skip
    receipts = by_name(details["byproducts"])
    assert set(receipts) == {receipt.file for receipt in EVIDENCE.receipts}
    note = receipts["receipts/after-ethereum.json"]["annotations"]
    assert note["network"] == "ethereum"
    assert note["transaction_id"]


def test_other_hash_algorithms_are_named_beside_the_digest() -> None:
    rows = [[0.0, 1.0]]
    story = real_story("sha3-256")
    document = stated(world(story, names=("local",)).evidence())
    weight = document["subject"][1]
    factory = HashFactory("sha3-256")
    assert weight["digest"] == {"mth_sha256": state_digest(weights(3), factory).root.hex()}
    assert weight["annotations"]["algorithm"] == "sha3-256"
    assert dataset_digest(rows, factory).algorithm == "sha3-256"


def test_a_plain_digest_has_the_name_that_in_toto_has_for_it() -> None:
    story = real_story()
    story[0] = (Kind.DATA_TRAIN, None, {"root": "sha3-256:" + "ab" * 32})
    needs = by_name(
        stated(world(story).evidence())["predicate"]["buildDefinition"]["resolvedDependencies"]
    )
    assert needs["data/train/0"] == {
        "name": "data/train/0", "digest": {"sha3_256": "ab" * 32}, "annotations": {},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parent", "says"),
    [
        (str(RUN), {"uri": f"urn:uuid:{RUN}"}),
        ("mth-sha256:" + "0a" * 32, {"digest": {"mth_sha256": "0a" * 32}}),
        ("hf:org/model@main", {"uri": "hf:org/model@main"}),
        ("bert base", {"content": base64.b64encode(b"bert base").decode(),
                       "mediaType": "text/plain"}),
        ({"run": 1}, {"content": base64.b64encode(b'{"run":1}').decode(),
                      "mediaType": "application/json"}),
    ],
)  # fmt: skip
def test_the_parent_model_is_a_dependency(parent: Any, says: dict[str, Any]) -> None:
    evidence = world(real_story(parent=parent)).evidence()
    items = stated(evidence)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert by_name(items)["parent model"] == {"name": "parent model", **says}
    assert problems(evidence, files(evidence)) == []


def test_an_open_run_has_no_end_and_no_last_weights() -> None:
    stage = World()
    stage.ingest(stage.batch(real_story()[:6]))
    document = stated(stage.evidence())
    assert [subject["annotations"] for subject in document["subject"]] == [{"seal": "before"}]
    assert document["predicate"]["runDetails"]["metadata"].keys() == {"invocationId", "startedOn"}


def test_a_run_that_failed_is_said_to_have() -> None:
    events = real_story()[:6]
    end = {"events": len(events), "state": "failed", "reason": "OSError \u202e"}
    stage = World()
    stage.ingest(stage.batch([*events, (Kind.RUN_END, None, end)]))
    evidence = stage.evidence()
    assert stated(evidence)["subject"][0]["annotations"] == {"seal": "before", "state": "failed"}
    assert problems(evidence, files(evidence)) == []
    lie = statement_of(evidence)
    assert lie is not None
    (problem,) = problems(evidence, {FILE: lie.replace(b'"failed"', b'"finished"')})
    assert problem == "state of the run: is 'finished', the evidence says 'failed'"


def test_without_a_seal_there_is_nothing_to_state() -> None:
    stage = World()
    stage.ingest(stage.batch(before()[:3]))
    assert statement_of(stage.evidence()) is None
    assert files(stage.evidence()) == {}


def test_the_ledger_is_known_by_its_heads_where_the_key_is_not() -> None:
    unknown = replace(EVIDENCE, vkey=None)
    builder = stated(unknown)["predicate"]["runDetails"]["builder"]
    assert builder == {"id": f"https://{ORIGIN}"}
    assert statement_of(replace(unknown, heads=())) is None
    assert statement_of(replace(unknown, heads=(HeadNote(1, "junk"),))) is None


def test_digests_that_are_none_are_left_out() -> None:
    story = real_story()
    story[0] = (Kind.DATA_TRAIN, None, {"root": "mth-sha256:00"})
    story[1] = (Kind.DATA_TEST, None, {"root": 7})
    needs = stated(world(story).evidence())["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {item["name"] for item in needs} == {"code", "model/weights/0"}


def test_nothing_of_a_withheld_record_is_told() -> None:
    hidden = withhold(
        EVIDENCE, "training/config", "data/train/0", "data/test/0", "model/weights/0",
        "training/epoch/3/state/0",
    )  # fmt: skip
    document = stated(hidden)
    assert [subject["name"] for subject in document["subject"]] == ["run"]
    build = document["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {}
    assert build["resolvedDependencies"] == []
    text = json.dumps(document)
    for epoch in (0, 3):
        assert state_digest(weights(epoch)).root.hex() not in text
    assert COMMIT not in text
    assert problems(hidden, files(hidden)) == []


def test_earlier_weights_never_stand_in_for_withheld_last_ones() -> None:
    hidden = withhold(EVIDENCE, "training/epoch/3/state/0")
    assert [subject["name"] for subject in stated(hidden)["subject"]] == ["run"]


def test_a_large_config_is_named_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slsa, "MAX_PARAMETERS", 10)
    record = next(r for r in EVIDENCE.records if r.path == "training/config")
    assert stated()["predicate"]["buildDefinition"]["externalParameters"] == {
        "record": {"name": record.file, "digest": {"sha256": record.digest.hex()}}
    }
    assert problems(EVIDENCE, files(EVIDENCE)) == []


def test_a_statement_that_no_reader_would_take_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slsa, "MAX_BYTES", 100)
    assert files(EVIDENCE) == {}


def test_a_receipt_that_does_not_decode_is_named_by_its_digest() -> None:
    broken = replace(EVIDENCE, receipts=(replace(EVIDENCE.receipts[0], data=b"{}"),))
    (receipt,) = stated(broken)["predicate"]["runDetails"]["byproducts"]
    assert "annotations" not in receipt


def test_it_is_derived_the_same_from_a_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(EVIDENCE, tmp_path / "b")
    assert (bundle / FILE).read_bytes() == statement_of(EVIDENCE)
    read = read_bundle(bundle)
    assert read.attachments[FILE] == statement_of(read)
    assert verify(read, None, verifier_key=SIGNER.verifier, now=0.0).outcome == "consistent"


def test_the_schemas_of_in_toto_and_slsa_take_it() -> None:
    installed("in_toto_attestation", "dev")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement as peer
    from in_toto_attestation.v1 import statement_pb2

    evidence = world(real_story(parent="bert base")).evidence()
    document = stated(evidence)
    parsed = json_format.Parse(json.dumps(document), statement_pb2.Statement())
    peer.Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    assert predicate.build_definition.build_type == slsa.BUILD_TYPE
    assert predicate.run_details.metadata.invocation_id == str(RUN)
    assert predicate.run_details.metadata.started_on.seconds > 0
    last = predicate.build_definition.resolved_dependencies[-1]
    assert (last.name, last.content) == ("parent model", b"bert base")


# --- lies --------------------------------------------------------------------------------


def problems(evidence: RunEvidence, attachments: dict[str, bytes]) -> list[str]:
    brought = replace(evidence, attachments=attachments)
    findings = Findings(brought)
    check(brought, findings)
    for finding in findings.problems:
        assert finding.check == 11
        assert "\n" not in finding.problem
    return [finding.problem for finding in findings.problems]


def forged(change: Callable[[dict[str, Any]], object]) -> list[str]:
    document = stated()
    change(document)
    return problems(EVIDENCE, {FILE: canonical_json(document)})


def build(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["predicate"]["buildDefinition"]
    return found


def details(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["predicate"]["runDetails"]
    return found


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "root": (lambda d: d["subject"][0]["digest"].update(mth_sha256="00" * 32), "not the newest"),
    "seal": (lambda d: d["subject"][0]["annotations"].update(seal="before"), "not the newest"),
    "earlier root": (
        lambda d: d["subject"][0].update(
            digest={"mth_sha256": EVIDENCE.entries[0].root.hex()}, annotations={"seal": "before"}
        ),
        "subject run: is not the newest run root",
    ),
    "second root": (lambda d: d["subject"].append(d["subject"][0]), "be the run"),
    "no root": (lambda d: d["subject"].pop(0), "be the run"),
    "weights": (
        lambda d: d["subject"][1]["digest"].update(mth_sha256="00" * 32),
        "subject training/epoch/3/state/0: is",
    ),
    "earlier weights": (
        lambda d: d["subject"][1].update(name="training/epoch/2/state/0"), "the last weights",
    ),
    "stranger": (
        lambda d: d["subject"].append({"name": "malware", "digest": {"sha256": "00"}}),
        "subject 'malware'",
    ),
    "config": (
        lambda d: build(d)["externalParameters"]["training"].update(epochs=4),
        "externalParameters: is",
    ),
    "commit": (
        lambda d: build(d)["resolvedDependencies"][0]["digest"].update(gitCommit="0" * 40),
        "dependency code: is",
    ),
    "true is not one": (
        lambda d: build(d)["resolvedDependencies"][0]["annotations"].update(dirty=0),
        "dependency code: is",
    ),
    "data": (
        lambda d: build(d)["resolvedDependencies"][1]["digest"].update(mth_sha256="00" * 32),
        "dependency data/train/0: is",
    ),
    "parent": (
        lambda d: build(d)["resolvedDependencies"].append({"name": "parent model", "uri": "x:y"}),
        "dependency parent model: the evidence has no such thing",
    ),
    "dependency": (
        lambda d: build(d)["resolvedDependencies"].append({"name": "data/train/9", "uri": "x:y"}),
        "dependency data/train/9: the evidence has no such thing",
    ),
    "twice": (
        lambda d: build(d)["resolvedDependencies"].append(build(d)["resolvedDependencies"][0]),
        "there twice",
    ),
    "nameless": (
        lambda d: build(d)["resolvedDependencies"].append({}),
        "name: found nothing, expected text",
    ),
    "no list": (lambda d: build(d).update(resolvedDependencies=7), "expected a list"),
    "no object": (
        lambda d: details(d).update(metadata=[]),
        "metadata: found a list, expected an object",
    ),
    "builder": (lambda d: details(d)["builder"].update(id="https://evil.org"), "builder.id: is"),
    "invocation": (lambda d: details(d)["metadata"].update(invocationId="x"), "invocationId: is"),
    "start": (
        lambda d: details(d)["metadata"].update(startedOn="2020-01-01T00:00:00.000000Z"),
        "startedOn: is",
    ),
    "end": (lambda d: details(d)["metadata"].update(finishedOn="later"), "finishedOn: is"),
    "receipt": (
        lambda d: details(d)["byproducts"][0]["digest"].update(sha256="00"), "byproduct receipts/",
    ),
    "more": (lambda d: build(d).update(internalParameters={}), "'internalParameters' is unknown"),
    "top": (lambda d: d["predicate"].update(x=1), "'x' is unknown"),
    "type": (lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2"), "predicateType"),
    "other type": (lambda d: d.update(_type="x"), "_type"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_and_named(lie: str) -> None:
    change, says = LIES[lie]
    assert any(says in problem for problem in forged(change)), forged(change)


def test_saying_less_is_no_lie() -> None:
    def less(document: dict[str, Any]) -> None:
        del document["subject"][1]
        build(document).update(externalParameters={}, resolvedDependencies=[])
        del details(document)["byproducts"]
        del details(document)["metadata"]["startedOn"]

    assert forged(less) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda d: build(d).update(buildType="urn:ml-provenance:training-run:v2"),
            "does not know buildType 'urn:ml-provenance:training-run:v2'",
        ),
        (
            lambda d: d["subject"][0]["annotations"].pop("state"),
            "leaves out how the run ended: its records say finished",
        ),
    ],
)
def test_another_build_type_and_an_end_that_is_left_out_stay_open(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    document = stated()
    change(document)
    brought = replace(EVIDENCE, attachments={FILE: canonical_json(document)})
    findings = Findings(brought)
    check(brought, findings)
    assert not findings.problems
    (open_,) = [r.detail for r in findings.results() if r.status == "unchecked"]
    assert says in open_


def test_a_claim_on_a_withheld_record_is_left_open() -> None:
    hidden = replace(
        withhold(EVIDENCE, "training/config", "training/epoch/3/state/0"),
        attachments=files(EVIDENCE),
    )
    findings = Findings(hidden)
    check(hidden, findings)
    assert not findings.problems
    (open_,) = [r.detail for r in findings.results() if r.status == "unchecked"]
    for what in ("externalParameters", "dependency code", "subject training/epoch/3/state/0"):
        assert f"{what} rests on a withheld record" in open_


def test_files_of_no_format_and_damaged_ones_are_named() -> None:
    assert problems(EVIDENCE, {"statement/other.json": b"{}"}) == ["is no file of this format"]
    assert "not JSON" in problems(EVIDENCE, {FILE: b"{"})[0]
    assert "at most" in problems(EVIDENCE, {FILE: b"x" * (slsa.MAX_BYTES + 1)})[0]
    assert problems(EVIDENCE, {}) == []


def test_one_changed_record_is_one_finding(tmp_path: Path) -> None:
    bundle = write_bundle(EVIDENCE, tmp_path / "b")
    for path in ("training/config", "training/epoch/3/state/0", "data/train/0"):
        place = bundle / f"records/{path}.json"
        original = place.read_bytes()
        place.write_bytes(original.replace(b'"rank":0', b'"rank":1'))
        report = verify(read_bundle(bundle), None, verifier_key=SIGNER.verifier, now=0.0)
        assert {finding.file for finding in report.findings} == {f"records/{path}.json"}
        place.write_bytes(original)
    receipt = bundle / "receipts/after-bitcoin.json"
    receipt.write_bytes(receipt.read_bytes() + b" ")
    report = verify(read_bundle(bundle), None, verifier_key=SIGNER.verifier, now=0.0)
    assert {finding.file for finding in report.findings} == {"receipts/after-bitcoin.json"}


def test_a_record_of_another_run_or_no_record_says_nothing() -> None:
    config = next(r for r in EVIDENCE.records if r.path == "training/config")
    for data in (b"{}", (config.data or b"").replace(str(RUN).encode(), str(RUN).encode()[::-1])):
        changed = replace(config, data=data, digest=hashlib.sha256(data).digest())
        records = tuple(changed if r is config else r for r in EVIDENCE.records)
        document = stated(replace(EVIDENCE, records=records))
        assert build(document)["externalParameters"] == {}


def test_problems_of_the_evidence_do_not_stop_it() -> None:
    ill = replace(EVIDENCE, problems=(EvidenceProblem("x", "y"),))
    assert statement_of(ill) == statement_of(EVIDENCE)


# --- the command -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_or_writes_what_the_bundle_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "artifacts"
    deployment(base)
    assert cli.main(["bundle", "latest", "-o", "b", "--base-dir", str(base)]) == 0
    expected = (tmp_path / "b" / FILE).read_bytes()
    capsys.readouterr()
    words = ["statement", "latest", "--base-dir", str(base)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.encode() == expected + b"\n"
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(expected)
    assert cli.main([*words, "-o", "s.json"]) == 0
    assert capsys.readouterr().out == "s.json\n"
    assert (tmp_path / "s.json").read_bytes() == expected
    assert cli.main([*words, "-o", "s.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_id": str(RUN), "path": "s.json", "bytes": len(expected),
    }  # fmt: skip
    for target, says in (("b", "is a folder"), ("no/where", "cannot be written")):
        assert cli.main([*words, "-o", target]) == 2
        assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "b", "s.json"]


@pytest.mark.slow
def test_a_run_that_is_not_sealed_or_was_tampered_with_has_no_statement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from provenance.app.model import run_statement
    from provenance.bootstrap import sending

    with pytest.raises(InputError, match="nothing is sealed yet"):
        run_statement(deployment(tmp_path / "open", real_story()[:4], anchor=False), "latest")
    base = tmp_path / "tampered"
    found = deployment(base)
    stage: Any = World(names=())
    stage.store = sending.open_store(found)
    with stage.store.snapshot() as tx:
        victim = next(r for r in tx.records(RUN) if r.kind == "metrics")
    changed = flip_metric(victim.data)
    stage.sql("update records set data = ? where seq = ?", changed, victim.seq)
    stage.store.close()
    assert cli.main(["statement", "latest", "--base-dir", str(base)]) == 1
    assert "does not verify: training/epoch/1/metrics/0" in capsys.readouterr().err
