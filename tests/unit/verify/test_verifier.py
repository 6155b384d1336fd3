"""The checks of a verification: what holds passes, and each thing that does not is named.

Over 400 lines: case by case, one file: `provenance/verify/verifier.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from provenance.bundle.writer import bundle_files
from provenance.errors import (
    FormatError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    RejectedError,
    WrongNetworkError,
)
from provenance.evidence.disclosure import withhold
from provenance.evidence.run_evidence import AnchorFact, HeadNote, ParkedFact, RunEvidence
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.tensors import state_digest
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.fields import as_json
from provenance.formats.note import SignerKey
from provenance.formats.receipt import AnchorProof, Receipt
from provenance.formats.record import Kind, Phase, record_digest
from provenance.ports.values import AnchorState, anchor_payload
from provenance.proofs.bitcoin import display
from provenance.proofs.ipfs.cid import raw_cid
from provenance.verify import verifier
from provenance.verify.catalogue import CHECKS, COMPLETE, Status
from provenance.verify.checks.receipts import check_evidence
from provenance.verify.report import VerificationReport, number
from provenance.verify.trust import Trust
from tests.support.stranger import load
from tests.support.verify_world import (
    ORIGIN,
    RUN,
    SIGNER,
    World,
    before,
    config,
    ending,
    finished,
    flip_metric,
    metrics,
    seal,
    story,
    training,
)

PATH = "training/epoch/2/metrics/0"


def status(report: VerificationReport, check: int) -> Status:
    return report.checks[check - 1].status


def failed(report: VerificationReport) -> set[int]:
    return {finding.check for finding in report.findings}


def with_record(
    evidence: RunEvidence, path: str, change: Callable[[bytes], bytes], digest: bool = False
) -> RunEvidence:
    """The evidence with one record's bytes changed, and its stored digest where asked."""

    def changed(item: Any) -> Any:
        if item.path != path:
            return item
        data = change(item.data)
        return replace(item, data=data, digest=record_digest(data) if digest else item.digest)

    return replace(evidence, records=tuple(changed(item) for item in evidence.records))


def with_receipt(evidence: RunEvidence, name: str, **changes: Any) -> RunEvidence:
    """The evidence with one receipt changed and encoded again; ``anchor_x`` reaches inside."""
    receipts = []
    for file in evidence.receipts:
        if file.name == name:
            receipt = Receipt.decode(file.data)
            inner = {k[7:]: v for k, v in changes.items() if k.startswith("anchor_")}
            outer = {k: v for k, v in changes.items() if not k.startswith("anchor_")}
            receipt = replace(receipt, anchor=replace(receipt.anchor, **inner), **outer)
            file = replace(file, data=receipt.encode())
        receipts.append(file)
    return replace(evidence, receipts=tuple(receipts))


@pytest.fixture
def world() -> World:
    """Anchored before and after training, by two heads on two networks."""
    stage = World()
    events = story()
    stage.ingest(stage.batch(events[:6]))
    stage.anchor()
    stage.ingest(stage.batch(events[6:], first=6))
    stage.anchor()
    return stage


# --- the list ----------------------------------------------------------------------------


def test_the_docstring_lists_the_checks_as_they_are() -> None:
    assert [check.number for check in CHECKS] == list(range(1, len(CHECKS) + 1))
    for check in CHECKS:
        assert f"{check.number}. {check.title}\n" in (verifier.__doc__ or "")
        assert check.proves
        assert check.limits
    source = open(verifier.__file__).read()
    assert all(f"({n})" in source for n in range(1, 13))


# --- all is well -------------------------------------------------------------------------


def test_a_whole_run_is_verified(world: World) -> None:
    report = world.verify()
    assert (report.outcome, report.exit_code) == ("verified", 0)
    assert not report.findings
    assert not report.notices
    assert [status(report, n) for n in range(1, 14) if n not in (10, 11, 12)] == [
        Status.PASSED
    ] * 10
    assert list(report.roots) == ["before", "after"]
    assert all(seal.recomputed for seal in report.seals)
    for seals in report.networks.values():
        assert {check.status for check in seals.values()} == {"verified"}
        assert all(check.depth >= 3 and check.time for check in seals.values())
    assert report.networks["ethereum"]["before"].transaction_id != (
        report.networks["ethereum"]["after"].transaction_id
    )
    assert any("no identity stands behind it" in line for line in report.not_checked)


def test_the_report_is_json(world: World) -> None:
    document = json.loads(json.dumps(world.verify().as_dict()))
    assert document["outcome"] == "verified"
    assert document["run_id"] == str(RUN)
    assert document["networks"]["bitcoin"]["after"]["status"] == "verified"
    assert [row["epoch"] for row in document["metrics"]] == [1, 2, 3]
    assert document["tree"]["value"] == document["roots"]["after"]
    assert len(document["checks"]) == len(CHECKS)


def test_offline_only_the_receipts_count(world: World) -> None:
    report = world.verify(online=False)
    assert (report.outcome, report.exit_code) == ("consistent", 3)
    assert {c.status for c in report.networks["bitcoin"].values()} == {"receipt"}
    assert {c.status for c in report.networks["ethereum"].values()} == {"stated"}
    assert {c.depth for seals in report.networks.values() for c in seals.values()} == {0}
    assert status(report, 8) is Status.SKIPPED
    assert any("no node was asked" in line for line in report.not_checked)
    assert [node.calls.count("lookup") for node in world.networks.values()] == [0, 0]


@pytest.mark.slow
def test_each_transaction_is_looked_up_once() -> None:
    stage = finished(checkpoint=2)
    for node in stage.networks.values():
        node.calls.clear()
    stage.verify()
    assert stage.networks["ethereum"].calls == ["identity", "lookup"]


def test_checkpoints_are_prefixes() -> None:
    report = finished(4, checkpoint=2).verify()
    assert report.outcome == "verified"
    assert list(report.roots) == ["before", "checkpoint-2", "after"]
    assert report.checks[2].detail == "2 later seals"


# --- (1) (2) (3) -------------------------------------------------------------------------


def test_a_flipped_metric_is_one_finding_that_names_the_record(world: World) -> None:
    report = world.verify(with_record(world.evidence(), PATH, flip_metric))
    (finding,) = report.findings
    assert (finding.check, finding.subject, finding.path) == (1, PATH, PATH)
    assert report.as_dict()["findings"] == as_json([finding])
    assert report.exit_code == 1
    assert PATH not in {row.path for row in report.metrics}


def test_a_flipped_metric_in_the_database_is_named(world: World) -> None:
    data = next(r.data for r in world.evidence().records if r.path == PATH)
    assert data is not None
    world.sql("UPDATE records SET data = ? WHERE data = ?", flip_metric(data), data)
    assert {finding.subject for finding in world.verify().findings} == {PATH}


def test_a_record_whose_stored_digest_fits_again_breaks_the_roots(world: World) -> None:
    report = world.verify(with_record(world.evidence(), PATH, flip_metric, digest=True))
    assert failed(report) == {1, 2}
    assert {finding.subject for finding in report.findings} == {"producer 70707070", "after"}
    assert [seal.recomputed for seal in report.seals] == [True, False]


def test_bytes_that_are_no_record_keep_their_place(world: World) -> None:
    report = world.verify(with_record(world.evidence(), PATH, lambda data: data[:-1]))
    assert {finding.subject for finding in report.findings} == {PATH}
    evidence = with_record(world.evidence(), PATH, lambda data: b"\x00", digest=True)
    named = [f.path for f in world.verify(evidence).findings if f.check == 1]
    assert named == [PATH, None], "the record, and the producer that did not sign it"


@pytest.mark.slow
def test_a_record_of_another_run_does_not_count(world: World) -> None:
    other = "01890a5d-ffff-774b-bcce-b302099a8057"
    evidence = with_record(
        world.evidence(), PATH, lambda data: data.replace(str(RUN).encode(), other.encode()), True
    )
    assert f"is of run {other}" in {finding.problem for finding in world.verify(evidence).findings}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("seq", 99), ("rank", 5), ("epoch", 3)])
def test_a_record_filed_under_another_place_is_named(world: World, name: str, value: int) -> None:
    evidence = world.evidence()
    changed: dict[str, Any] = {name: value}
    moved = tuple(
        replace(item, **changed) if item.path == PATH else item for item in evidence.records
    )
    report = world.verify(replace(evidence, records=moved))
    assert any(f"states another {name}" in finding.problem for finding in report.findings)
    assert PATH in {finding.path for finding in report.findings}


def test_another_public_key_in_the_configuration_is_found(world: World) -> None:
    report = world.verify(replace(world.evidence(), public_key=bytes(32)))
    subjects = [f.subject for f in report.findings]
    assert subjects == ["training/config", "run", "producer 70707070"]


def test_a_record_that_fits_no_tree_is_said(world: World) -> None:
    evidence = world.evidence()
    records = tuple(
        replace(item, epoch=None) if item.path == PATH else item for item in evidence.records
    )
    report = world.verify(replace(evidence, records=records))
    assert any("cannot be built" in finding.problem for finding in report.findings)
    assert report.tree is None


def test_a_before_that_is_no_prefix_is_found(world: World) -> None:
    evidence = world.evidence()
    first, last = evidence.entries
    swapped = (replace(first, phase=Phase.AFTER), replace(last, phase=Phase.BEFORE))
    report = world.verify(replace(evidence, entries=swapped))
    assert {2, 3} <= failed(report)
    assert any("and is missing" in finding.problem for finding in report.findings)


# --- (4) ---------------------------------------------------------------------------------


def test_a_run_without_after_seal_could_not_be_checked() -> None:
    stage = World()
    stage.ingest(stage.batch([*before(), metrics(1)]))
    stage.anchor()
    report = stage.verify()
    assert (report.outcome, report.exit_code) == ("anchored", 3)
    assert status(report, 4) is Status.UNCHECKED
    assert any("after seal" in line for line in report.not_checked)


@pytest.mark.parametrize(("behind", "lines"), [(False, 0), (True, 1)])
def test_a_note_behind_the_checkpoint_of_a_stopped_run_is_under_no_root(
    behind: bool, lines: int
) -> None:
    note: tuple[Kind, None, dict[str, Any]] = (Kind.NOTE, None, {"text": "seen", "tags": []})
    mark = training(1, checkpoint=1)
    events = [*before(), *mark[:-1], *((mark[-1], note) if behind else (note, mark[-1]))]
    end = {"events": len(events), "reason": "OSError", "state": "failed"}
    stage = World()
    stage.ingest(stage.batch([*events, (Kind.RUN_END, None, end)]))
    not_checked = stage.verify().not_checked
    for words in ("under no root", "What no root has yet: 1 record"):
        assert len([line for line in not_checked if words in line]) == lines


def test_a_run_without_any_seal_could_not_be_checked() -> None:
    stage = World()
    stage.ingest(stage.batch(before()[:-1]))
    report = stage.verify()
    assert report.outcome == "consistent"
    assert report.tree is None
    assert [status(report, n) for n in (2, 3, 5, 6)] == [
        Status.UNCHECKED,
        Status.SKIPPED,
        Status.SKIPPED,
        Status.SKIPPED,
    ]


def test_a_hole_in_a_sealed_run_fails_and_says_where() -> None:
    stage = World()
    events = story()
    stage.ingest(stage.batch(events[:8]), stage.batch(events[10:], first=10))
    stage.sweep(later=100.0)
    stage.anchor()
    report = stage.verify()
    problems = [finding.problem for finding in report.findings]
    assert problems == ["rank 0: events 8 to 9 are missing"]
    assert report.findings[0].check == 4


def test_announced_events_and_ranks_that_never_came_are_missing() -> None:
    stage = World()
    events = [*before(world_size=30), metrics(1), seal("after")]
    events.append((Kind.RUN_END, None, {"events": 12, "reason": "killed"}))
    stage.ingest(stage.batch(events))
    stage.sweep(later=100.0)
    stage.anchor()
    problems = [finding.problem for finding in stage.verify().findings]
    assert problems[0] == "rank 0: events 9 to 11 are missing"
    assert problems[1] == "rank 1: ended unannounced (no signed run.end)"
    assert problems[-1] == "9 more ranks: ended unannounced (no signed run.end)"


@pytest.mark.slow
def test_what_the_database_calls_incomplete_is_believed(world: World) -> None:
    report = world.verify(replace(world.evidence(), incomplete="something"))
    assert [f.problem for f in report.findings] == ["was sealed incomplete: something"]


def test_a_gap_record_is_a_finding() -> None:
    stage = World()
    gap: Any = (Kind.GAP, None, {"dropped": 3, "reason": "disk full"})
    stage.ingest(stage.batch(ending([*before(), metrics(1), gap])))
    stage.anchor()
    assert [f.problem for f in stage.verify().findings] == ["3 events were dropped: 'disk full'"]


def gaps(*bodies: dict[str, Any]) -> World:
    """A whole run with these gaps."""
    stage = World(("bitcoin",))
    own: list[Any] = [(Kind.GAP, None, body) for body in bodies]
    stage.ingest(stage.batch(ending([*before(), metrics(1), *own])))
    stage.anchor()
    return stage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"dropped": 5000, "what": "x"}, "5000 events were dropped of 'x': 'all is well'"),
        ({"dropped": 1, "what": ""}, "1 event was dropped of '': 'all is well'"),
        ({"dropped": 2, "what": "weights"}, "2 events were dropped of 'weights': 'all is well'"),
        ({"dropped": "1", "what": "note"}, "'1' events were dropped of 'note': 'all is well'"),
        ({"dropped": 1, "what": "run.end"}, "1 event was dropped of 'run.end': 'all is well'"),
        ({"dropped": 1, "what": ["note"]}, "1 event was dropped of ['note']: 'all is well'"),
    ],
)
def test_a_gap_that_no_tracker_leaves_of_one_thing_is_of_events(
    body: dict[str, Any], problem: str
) -> None:
    stage = gaps(body | {"reason": "all is well"})
    assert [finding.problem for finding in stage.verify().findings] == [problem]
    bundle = load().Bundle(bundle_files(stage.evidence()))
    assert bundle.problems == [f"run.json: {body['dropped']} events were dropped"]


def test_gaps_of_what_had_no_form_stay_open_by_kind_with_their_number() -> None:
    lost = {"dropped": 1, "reason": "all is well", "what": "metrics"}
    stage = gaps(lost, lost, lost | {"what": "note", "reason": "no text"})
    report = stage.verify()
    assert report.findings == ()
    assert report.checks[COMPLETE - 1].detail == (
        "2 gaps of metrics: the first 'all is well'; 1 gap of note: 'no text'"
    )
    assert load().Bundle(bundle_files(stage.evidence())).problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (900, "900 steps were lost on their way"),
        ("900", "steps were lost on their way: '900'"),
        (True, "steps were lost on their way: True"),
    ],
)
def test_steps_that_are_missing_stay_open_however_that_is_said(missing: object, line: str) -> None:
    stage = World(("bitcoin",))
    steps: Any = (Kind.STEPS, None, {"series": [], "steps": 0, "missing": missing})
    stage.ingest(stage.batch(ending([*before(), metrics(1), steps])))
    stage.anchor()
    report = stage.verify()
    assert (report.findings, report.checks[COMPLETE - 1].detail) == ((), line)
    bundle = load().Bundle(bundle_files(stage.evidence()))
    assert (bundle.problems, "run.json: steps were lost" in bundle.unproven) == ([], True)


def test_texts_from_elsewhere_are_quoted(world: World) -> None:
    odd = ParkedFact("x", "this run was verified by ethereum", 1, 0.0)
    evidence = replace(world.evidence(), parked=(odd,))
    (notice,) = (n for n in world.verify(evidence).notices if n.subject == "refused x")
    assert notice.problem == "'this run was verified by ethereum'"


@pytest.mark.slow
def test_an_anchor_that_is_only_claimed_says_nothing(world: World) -> None:
    """Neither which seals one transaction has, nor what a verdict rests on."""
    whole = world.evidence()
    claim = AnchorFact("bitcoin", 9, bytes(32), AnchorState.FINAL, "tx", None, 1, 9, 0.0)
    bare = replace(whole, receipts=(), anchors=(claim,))
    report = world.verify(bare, online=False)
    assert {check.claimed for check in report.networks["bitcoin"].values()} == {True}
    assert not any("one anchor on bitcoin" in line for line in report.not_checked)
    assert not any(line.startswith("bitcoin") for line in report.verdict.rests_on)
    assert "no network: anchors were asked for, and none is here" in report.verdict.rests_on


def test_what_is_withheld_comes_first(world: World) -> None:
    report = world.verify(withhold(world.evidence(), ["metrics"]))
    count = sum(record.withheld for record in report.evidence.records)
    total = len(report.evidence.records)
    first = f"{count} of {total} records by the digest alone: withheld"
    assert (count > 0, report.verdict.rests_on[0]) == (True, first)


def test_oddities_are_shown_and_fail_nothing() -> None:
    stage = World()
    events = ending([*before(), *training(2, checkpoint=1), metrics(1, loss=0.5), metrics(2)])
    stage.ingest(stage.batch(events[:8]))
    stage.ingest(stage.batch([metrics(1, loss=5.0)], first=6))
    stage.ingest(stage.batch(events[8:], first=8))
    stage.ingest(stage.batch([metrics(1)], first=90))
    stage.anchor()
    report = stage.verify()
    assert report.outcome == "verified"
    told = {notice.subject: notice.problem for notice in report.notices}
    assert "second value for event 6" in told["equivocation 70707070-6"]
    assert any("the run is sealed" in problem for problem in told.values())
    assert any(subject.startswith("late/") for subject in told)
    assert told["epoch 2"] == "rank 0 recorded it 2 times"


# --- (5) (6) -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "told"), [(500, True), (3, False), (1, False), ("x", False)])
def test_results_that_state_more_epochs_than_there_are_are_noticed(
    epochs: object, told: bool
) -> None:
    events = [*before(), *training(), (Kind.RESULTS, None, {"results": {}, "epochs": epochs})]
    stage = World(("bitcoin",))
    stage.ingest(stage.batch(ending(events)))
    stage.anchor()
    report = stage.verify()
    assert report.outcome == "verified"
    lines = [f"{notice.subject}: {notice.problem}" for notice in report.notices]
    assert ("rank 0: results state 500 epochs, records of 3 are here" in lines) is told


def test_a_head_signed_by_another_key_is_found(world: World) -> None:
    evidence = world.evidence()
    stranger = SignerKey.from_private_bytes(ORIGIN, bytes(32))
    root = evidence.entries[0].root
    forged = HeadNote(1, sign_head(Head(ORIGIN, 1, root), stranger))
    report = world.verify(replace(evidence, heads=(forged, evidence.heads[1])))
    (finding,) = [f for f in report.findings if f.check == 5]
    assert finding.subject == "head 1"
    assert "does not verify" in finding.problem or "no signature by" in finding.problem


def test_another_key_than_expected_is_found(world: World) -> None:
    stranger = SignerKey.from_private_bytes(ORIGIN, bytes(32)).verifier
    report = world.verify(verifier_key=stranger)
    assert {"ledger.vkey", "head 1", "head 2"} <= {f.subject for f in report.findings}


def test_a_head_filed_under_another_size_or_ledger_is_found(world: World) -> None:
    evidence = world.evidence()
    first, second = evidence.heads
    report = world.verify(replace(evidence, heads=(HeadNote(1, second.note), second)))
    assert "states size 2" in {finding.problem for finding in report.findings}
    head = Head("other.example/ledger", 1, evidence.entries[0].root)
    note = sign_head(head, SIGNER)
    report = world.verify(replace(evidence, heads=(HeadNote(1, note), second)))
    assert any("is of ledger" in finding.problem for finding in report.findings)


def test_without_any_key_heads_stay_unchecked(world: World) -> None:
    evidence = replace(world.evidence(), vkey=None)
    report = world.verify(evidence, verifier_key=None, trust=Trust())
    assert report.outcome == "consistent"
    assert status(report, 5) is Status.UNCHECKED
    assert status(report, 6) is Status.PASSED


def test_the_evidences_own_key_is_taken_with_a_warning(world: World) -> None:
    report = world.verify(verifier_key=None, trust=Trust())
    assert report.outcome == "consistent"
    assert any(SIGNER.verifier.vkey in line for line in report.not_checked)


def test_a_root_that_is_not_in_the_ledger_is_found(world: World) -> None:
    evidence = world.evidence()
    first, last = evidence.entries
    report = world.verify(replace(evidence, entries=(replace(first, root=bytes(32)), last)))
    assert {2, 6, 7} <= failed(report)
    assert "before" in {finding.subject for finding in report.findings if finding.check == 6}


@pytest.mark.slow
def test_missing_and_wrong_ledger_proofs_are_found(world: World) -> None:
    evidence = world.evidence()
    report = world.verify(replace(evidence, inclusions=(), consistencies=()))
    assert [(f.check, f.subject) for f in report.findings] == [
        (6, "before"),
        (6, "after"),
        (6, "head 1"),
    ]
    broken = tuple(replace(item, proof=(bytes(32),)) for item in evidence.consistencies)
    report = world.verify(replace(evidence, consistencies=broken))
    assert [(f.check, f.subject) for f in report.findings] == [(6, "head 1")]


# --- (7) ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run": "01890a5d-ffff-774b-bcce-b302099a8057"}, "is of run"),
        ({"root": bytes(32)}, "ledger entry 1 is after"),
        ({"phase": Phase.CHECKPOINT}, "states checkpoint root"),
        ({"anchor_payload": anchor_payload(bytes(32))}, "the payload is"),
        ({"head": "x"}, "note"),
    ],
)
def test_a_receipt_that_does_not_hold_is_named(
    world: World, changes: dict[str, Any], told: str
) -> None:
    report = world.verify(with_receipt(world.evidence(), "after-bitcoin", **changes))
    (finding,) = report.findings
    assert (finding.check, finding.subject) == (7, "receipt after-bitcoin")
    assert told in finding.problem
    assert report.networks["bitcoin"]["after"].status == "pending"
    assert report.networks["bitcoin"]["before"].status == "verified"


@pytest.mark.slow
def test_a_receipt_for_a_foreign_entry_is_named(world: World) -> None:
    evidence = world.evidence()
    report = world.verify(replace(evidence, entries=evidence.entries[:1]))
    assert any("which is not this run's" in finding.problem for finding in report.findings)


def test_a_receipt_under_another_ledger_is_found(world: World) -> None:
    evidence = world.evidence()
    entry = evidence.entries[0]
    receipt = Receipt.decode(next(r.data for r in evidence.receipts if r.name == "before-bitcoin"))
    leaf = hashlib.sha256(b"\x00" + bytes(32)).digest()
    mine = hashlib.sha256(b"\x00" + entry.root).digest()
    root = hashlib.sha256(b"\x01" + mine + leaf).digest()
    forked = with_receipt(
        evidence,
        "before-bitcoin",
        ledger=replace(receipt.ledger, size=2, root=root, proof=(leaf,)),
        head=sign_head(Head(ORIGIN, 2, root), SIGNER),
        anchor_payload=anchor_payload(root),
    )
    report = world.verify(forked)
    assert any("the ledger's has" in f.problem for f in report.findings if f.check == 7)


def test_ipfs_evidence_must_be_the_cid_of_the_payload() -> None:
    payload = anchor_payload(bytes(32))
    cid = str(raw_cid(payload))
    anchor = AnchorProof("ipfs", "final", cid, payload, None, None, 1, None, 0.0)
    check_evidence(anchor, {"type": "ipfs"})
    with pytest.raises(ProofError, match="not the CID of the payload"):
        check_evidence(
            replace(anchor, payload=anchor_payload(bytes(31) + b"\x01")), {"type": "ipfs"}
        )


def test_bitcoin_evidence_is_recomputed() -> None:
    payload = anchor_payload(bytes(32))
    script = bytes([0x6A, len(payload)]) + payload
    output = (0).to_bytes(8, "little") + bytes([len(script)]) + script
    source = bytes(32) + (0).to_bytes(4, "little") + b"\x00" + b"\xff" * 4
    transaction = (2).to_bytes(4, "little") + b"\x01" + source + b"\x01" + output + bytes(4)
    txid = hashlib.sha256(hashlib.sha256(transaction).digest()).digest()
    for nonce in range(2**16):
        header = bytes(4) + bytes(32) + txid + bytes(4) + (0x207FFFFF).to_bytes(4, "little")
        header += nonce.to_bytes(4, "little")
        block = hashlib.sha256(hashlib.sha256(header).digest()).digest()
        if block[31] < 0x7F:
            break
    proof = header + (1).to_bytes(4, "little") + b"\x01" + txid + b"\x01\x01"
    evidence = {
        "type": "bitcoin",
        "chain": "regtest",
        "transaction_id": display(txid),
        "transaction": transaction.hex(),
        "merkle_block": proof.hex(),
        "header": header.hex(),
    }
    anchor = AnchorProof("bitcoin", "final", display(txid), payload, 1, display(block), 6, 0.0, 0.0)
    check_evidence(anchor, evidence)
    for changed, told in (
        (replace(anchor, transaction_id="00" * 32), "the transaction in it is"),
        (replace(anchor, block_hash="00" * 32), "the block in it is"),
        (replace(anchor, payload=anchor_payload(b"\x01" * 32)), "does not carry the payload"),
    ):
        with pytest.raises(ProofError, match=told):
            check_evidence(changed, evidence)
    with pytest.raises(FormatError, match="header: found .xyz., expected lower-case hex"):
        check_evidence(anchor, {**evidence, "header": "xyz"})


# --- (8) (9) -----------------------------------------------------------------------------


def test_an_unreachable_network_leaves_the_question_open(world: World) -> None:
    world.networks["ethereum"].hang()
    world.networks["ethereum"].calls.clear()
    report = world.verify()
    assert (report.outcome, report.exit_code) == ("anchored", 3)
    assert {c.status for c in report.networks["ethereum"].values()} == {"unreachable"}
    assert {c.status for c in report.networks["bitcoin"].values()} == {"verified"}
    assert len(world.networks["ethereum"].calls) == 1, "a dead node is asked once"
    assert any("ethereum unreachable" in line for line in report.not_checked)


def test_one_lookup_that_times_out_does_not_stop_the_next(world: World) -> None:
    world.networks["ethereum"].fail_next("lookup", NetworkUnavailable("slow"))
    report = world.verify()
    assert [c.status for c in report.networks["ethereum"].values()] == ["unreachable", "verified"]


def test_a_failure_outweighs_what_could_not_be_checked(world: World) -> None:
    world.networks["ethereum"].hang()
    assert world.verify(with_record(world.evidence(), PATH, flip_metric)).exit_code == 1


def test_a_wrong_root_on_the_chain_is_found(world: World) -> None:
    world.networks["bitcoin"].lie(root=b"\x07" * 32)
    report = world.verify()
    assert {8, 9} == failed(report)
    subjects = {f.subject for f in report.findings}
    assert {"before on bitcoin", "after on bitcoin", "head 1", "head 2"} == subjects
    assert any("carries 0707" in f.problem for f in report.findings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("unknown", "the node has no such transaction"),
        ("pending", "the transaction is in no block"),
        ("failed", "the transaction failed in its block"),
        ("conflicted", "another transaction took its place"),
    ],
)
def test_a_transaction_that_is_not_there_is_found(world: World, place: str, told: str) -> None:
    world.networks["bitcoin"].lie(place=place)
    report = world.verify()
    assert {(f.check, f.problem) for f in report.findings} == {(8, told)}
    assert report.networks["bitcoin"]["after"].status == "failed"


def test_a_provisional_anchor_that_fell_out_of_its_block_is_pending(world: World) -> None:
    world.networks["bitcoin"].lie(place="pending")
    evidence = with_receipt(world.evidence(), "after-bitcoin", anchor_state="confirmed")
    assert world.verify(evidence).networks["bitcoin"]["after"].status == "pending"


def test_an_anchor_that_is_not_deep_enough_is_pending(world: World) -> None:
    world.networks["bitcoin"].confirmations = 100
    report = world.verify()
    assert report.outcome == "anchored"
    after = report.networks["bitcoin"]["after"]
    assert (after.status, after.reason) == ("pending", f"{after.depth} of 100 confirmations")


def test_an_anchor_that_nobody_made_yet_is_pending() -> None:
    stage = World()
    stage.ingest(stage.batch(story()))
    stage.networks["bitcoin"].fail_next("draft", RejectedError("bitcoin: no"))
    stage.anchor()
    report = stage.verify()
    assert report.outcome == "anchored"
    check = report.networks["bitcoin"]["after"]
    assert check.status == "pending"
    assert check.reason == "anchor is failed: 'bitcoin: no'"


@pytest.mark.slow
def test_a_network_without_a_node_is_said(world: World) -> None:
    report = verifier.verify(
        world.evidence(),
        {"bitcoin": world.networks["bitcoin"]},
        unavailable={"ipfs": "no url"},
        now=0.0,
    )
    assert report.exit_code == 3
    assert report.networks["ethereum"]["after"].status == "not configured"
    report = verifier.verify(
        world.evidence(), {}, unavailable={"ethereum": "web3 is not installed"}, now=0.0
    )
    check = report.networks["ethereum"]["after"]
    assert (check.status, check.reason) == ("unreachable", "web3 is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "error", "expected"),
    [
        ("identity", WrongNetworkError("another chain"), "unreachable"),
        ("lookup", LyingNodeError("a forged answer"), "unreachable"),
        ("lookup", RejectedError("not a transaction id"), "failed"),
    ],
)
def test_what_a_node_raises_is_judged(
    world: World, method: str, error: Exception, expected: str
) -> None:
    world.networks["ethereum"].fail_next(method, error, times=2)  # type: ignore[arg-type]  # wrong or wider on purpose
    report = world.verify()
    assert {c.status for c in report.networks["ethereum"].values()} == {expected}
    assert {c.reason for c in report.networks["ethereum"].values()} == {str(error)}


def test_a_receipt_of_another_chain_is_found() -> None:
    stage = World(names=("ethereum",))
    stage.ingest(stage.batch(story()))
    stage.anchor()
    assert stage.verify().outcome == "verified"
    stage.networks["ethereum"].lie(chain_id="5")
    report = stage.verify()
    assert {f.problem for f in report.findings} == {
        "the receipt is of chain_id 1, the node serves 5"
    }


def test_one_network_alone_cannot_agree() -> None:
    report = finished(names=("local",)).verify()
    assert report.outcome == "verified"
    assert status(report, 9) is Status.SKIPPED
    assert any("When the local file" in line for line in report.not_checked)


def test_without_networks_there_is_nothing_to_ask() -> None:
    report = finished(names=()).verify()
    assert report.outcome == "consistent"
    assert (status(report, 7), status(report, 8)) == (Status.SKIPPED, Status.UNCHECKED)
    assert report.checks[7].detail == "no receipt of before; no receipt of after"


# --- (10) --------------------------------------------------------------------------------


def test_content_at_hand_is_held_against_the_records() -> None:
    data, weights = np.arange(12.0).reshape(4, 3), {"w": np.ones(3, dtype=np.float32)}
    events = before()
    events[0] = (Kind.DATA_TRAIN, None, dataset_digest(data).as_fields())
    events[3] = (Kind.WEIGHTS, None, state_digest(weights).as_fields())
    stage = World(names=())
    stage.ingest(stage.batch(ending([*events, metrics(1)])))
    good = stage.verify(content={"data/train": data, "model/weights": weights})
    assert good.outcome == "consistent"
    assert status(good, 10) is Status.PASSED
    bad = stage.verify(content={"data/train": data + 1, "data/none": data})
    assert {(f.check, f.subject) for f in bad.findings} == {(10, "data/train"), (10, "data/none")}
    open_ = stage.verify(content={"data/train": "/nowhere/at/all"})
    assert (open_.outcome, status(open_, 10)) == ("consistent", Status.UNCHECKED)


def test_a_weights_file_that_does_not_decode_is_a_finding(tmp_path: Any) -> None:
    broken = tmp_path / "w.safetensors"
    broken.write_bytes(b"\x00" * 4)
    events = before()
    events[3] = (Kind.WEIGHTS, None, state_digest({"w": np.ones(3)}).as_fields())
    stage = World(names=())
    stage.ingest(stage.batch(ending([*events, metrics(1)])))
    report = stage.verify(content={"model/weights": broken})
    assert [f.check for f in report.findings] == [10]


# --- metrics -----------------------------------------------------------------------------


@pytest.mark.slow
def test_metrics_come_by_epoch_flat_and_as_recorded() -> None:
    stage = World(names=())
    events = [*before(), metrics(2, loss=float("nan"), val={"f1": 0.5}), metrics(1, loss=1)]
    events.append((Kind.METRICS, 3, {"metrics": [1]}))
    stage.ingest(stage.batch(ending(events)))
    rows = stage.verify().metrics
    assert [(row.epoch, dict(row.values)) for row in rows] == [
        (1, {"loss": 1}),
        (2, {"loss": "NaN", "val.f1": 0.5}),
        (3, {}),
    ]
    assert number("Infinity") == float("inf")
    assert number("text") is None
    assert number(None) is None


def test_the_tables_of_the_command_line_are_rectangular(world: World) -> None:
    report = world.verify()
    assert {len(row) for row in report.check_rows()} == {3}
    assert {len(row) for row in report.network_rows()} == {6}


@pytest.mark.parametrize("size", [0, -1, 10**9, 1.5, "2", True, None])
def test_a_configuration_with_a_senseless_world_size_counts_as_one_rank_and_is_named(
    size: Any,
) -> None:
    stage = World(names=())
    events = before()
    events[4] = config(world_size=size)
    stage.ingest(stage.batch(ending([*events, metrics(1)])))
    report = stage.verify()
    assert report.outcome == "consistent"
    says = f"the configuration states world_size {json.dumps(size)}, expected 1 to 1000000 ranks"
    says = "no configuration says how many ranks there are" if size is None else says
    assert [(n.subject, n.problem) for n in report.notices] == [("run", says)]


def test_ranks_without_a_configuration_are_not_said_to_be_announced() -> None:
    stage = World(names=())
    stage.ingest(
        stage.batch(before()[:3]),
        stage.batch([metrics(1), metrics(2)], producer=b"q" * 16, rank=1),
    )
    stage.now += 100
    report = stage.verify(lost_after_s=60)
    says = "no configuration says how many ranks there are"
    assert [(n.subject, n.problem) for n in report.notices] == [("rank 1", says)]
    lost = "the run is lost (rank 0): no end of ranks 0, 1, and no after seal"
    assert report.checks[COMPLETE - 1].detail == lost
