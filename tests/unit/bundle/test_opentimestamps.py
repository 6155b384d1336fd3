"""OpenTimestamps proofs of a bundle: what is written, and what a check finds.

Over 400 lines: case by case, one file: `provenance/bundle/attachments/opentimestamps.py`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from opentimestamps.core.notary import BitcoinBlockHeaderAttestation
from opentimestamps.core.serialize import BytesDeserializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile

from provenance import cli
from provenance.bundle.attachments import opentimestamps
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.errors import FormatError, InputError, ProofError, TooLargeError
from provenance.evidence.disclosure import withhold
from provenance.evidence.run_evidence import HeadNote, ReceiptFile, RunEvidence
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.note import SignerKey
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.opentimestamps.tree import (
    SHA256,
    Bitcoin,
    Operation,
    Pending,
    Timestamp,
    Unknown,
    append,
)
from provenance.formats.receipt import Receipt
from provenance.ports.values import AnchorState
from provenance.proofs.bitcoin import parse_header
from provenance.verify.catalogue import PORTABLE, Status
from provenance.verify.checks.attachments import check_opentimestamps as check
from provenance.verify.findings import Findings
from provenance.verify.report import Finding
from provenance.verify.verifier import verify
from tests.support.nodes.bitcoin_evidence import with_bitcoin
from tests.support.verify_world import NOW, ORIGIN, SIGNER, World, before, ending, metrics, story

METRICS = "records/training/epoch/1/metrics/0.json"


@cache
def evidence() -> RunEvidence:
    """Sealed twice under two heads, both final on Bitcoin."""
    world = World()
    events = story(3)
    world.ingest(world.batch(events[:6]))
    world.anchor()
    world.ingest(world.batch(events[6:], first=6))
    world.anchor()
    return with_bitcoin(world.evidence(), total=5)


def waiting() -> RunEvidence:
    """Sealed, and on no network yet."""
    world = World()
    world.ingest(world.batch(story(2)))
    return world.evidence()


def made(of: RunEvidence) -> dict[str, bytes]:
    return opentimestamps.files(of, ots=True)


def carrying(of: RunEvidence, **changed: bytes | None) -> RunEvidence:
    """The evidence with its own attachments, some changed (None takes one away)."""
    files: dict[str, bytes] = made(of)
    for name, data in changed.items():
        files.pop(name, None)
        if data is not None:
            files[name] = data
    return replace(of, attachments=files)


def checked(of: RunEvidence) -> tuple[Findings, list[Finding]]:
    findings = Findings(of)
    check(of, findings)
    assert all(finding.check == PORTABLE for finding in findings.problems)
    return findings, findings.problems


def problem(of: RunEvidence) -> str:
    (finding,) = checked(of)[1]
    return f"{finding.subject}: {finding.problem}"


def ends(data: bytes) -> list[tuple[bytes, object]]:
    return list(TimestampFile.decode(data, canonical=True).timestamp.walk())


# --- writing -----------------------------------------------------------------------------


def test_every_record_of_the_tree_has_a_proof_up_to_the_newest_block() -> None:
    files = made(evidence())
    placed = [r for r in evidence().records if r.place == "tree"]
    assert {n for n in files if n.startswith("records/")} == {f"{r.file}.ots" for r in placed}
    newest = Receipt.decode(next(r.data for r in evidence().receipts if r.name == "after-bitcoin"))
    header = parse_header(bytes.fromhex(str(newest.evidence["header"])))
    for record in placed:
        proof = TimestampFile.decode(files[f"{record.file}.ots"], canonical=True)
        assert proof.hashed_with == SHA256
        assert proof.timestamp.message == hashlib.sha256(record.data or b"").digest()
        assert list(proof.timestamp.walk()) == [
            (header.merkle_root, Bitcoin(newest.anchor.height or 0))
        ]


def test_the_reference_reads_every_proof_the_same() -> None:
    for name, data in made(evidence()).items():
        if name.endswith(".ots"):
            theirs = DetachedTimestampFile.deserialize(BytesDeserializationContext(data))
            ((message, attestation),) = theirs.timestamp.all_attestations()
            assert isinstance(attestation, BitcoinBlockHeaderAttestation)
            assert ends(data) == [(message, Bitcoin(attestation.height))]


def test_each_anchored_head_has_the_bytes_that_hash_to_its_root() -> None:
    files = made(evidence())
    assert {n for n in files if n.startswith("heads/")} == {
        "heads/1.root", "heads/1.root.ots", "heads/2.root", "heads/2.root.ots",
    }  # fmt: skip
    first, second = evidence().entries
    assert files["heads/1.root"] == b"\x00" + first.root
    assert len(files["heads/2.root"]) == 65
    assert files["heads/2.root"][:1] == b"\x01"
    for size in (1, 2):
        root = hashlib.sha256(files[f"heads/{size}.root"]).digest()
        proof = TimestampFile.decode(files[f"heads/{size}.root.ots"])
        assert proof.timestamp.message == root
        assert root in {a.root for a in evidence().anchors if a.size == size}


def test_before_bitcoin_has_it_the_proofs_are_pending_at_the_run_root() -> None:
    files = made(waiting())
    pending = Pending(f"https://{ORIGIN}")
    assert ends(files[f"{METRICS}.ots"]) == [(waiting().entries[-1].root, pending)]
    root = hashlib.sha256(files["heads/2.root"]).digest()
    assert ends(files["heads/2.root.ots"]) == [(root, pending)]
    assert checked(replace(waiting(), attachments=files))[1] == []


def test_confirmed_is_not_final() -> None:
    early = with_bitcoin(evidence(), final=False)
    assert {type(end) for n, d in made(early).items() if n.endswith(".ots") for _, end in ends(d)} \
        == {Pending}  # fmt: skip


def test_what_is_anchored_elsewhere_alone_gets_no_proof() -> None:
    world = World(names=("ethereum",))
    world.ingest(world.batch(story(1)))
    assert made(world.evidence()) == {}
    failed = tuple(replace(a, state=AnchorState.FAILED, reason="no") for a in waiting().anchors)
    assert made(replace(waiting(), anchors=failed)) == {}
    assert made(replace(waiting(), entries=())) == {}


def test_a_seal_without_an_anchor_of_its_own_waits_for_the_next_head() -> None:
    world = World()
    events = ending([*before(), metrics(1)])
    world.ingest(world.batch(events[:6]))
    world.anchor()
    phase = [(k, e, {**f, "anchor": False} if f.get("phase") == "after" else f)
             for k, e, f in events]  # fmt: skip
    world.ingest(world.batch(phase[6:], first=6))
    found = with_bitcoin(world.evidence())
    files = made(found)
    assert ends(files[f"{METRICS}.ots"]) == [(found.entries[-1].root, Pending(f"https://{ORIGIN}"))]
    assert {type(end) for _, end in ends(files["heads/1.root.ots"])} == {Bitcoin}


def test_records_that_do_not_fit_the_sealed_root_get_no_proof() -> None:
    first, second = evidence().entries
    lying = replace(evidence(), entries=(first, replace(second, root=b"\7" * 32)))
    assert not any(name.startswith("records/") for name in made(lying))


def test_a_transaction_beyond_the_formats_limit_leaves_no_complete_proof() -> None:
    large = with_bitcoin(evidence(), inputs=100)
    receipt = next(Receipt.decode(r.data) for r in large.receipts if "bitcoin" in r.name)
    with pytest.raises(TooLargeError, match="4096"):
        opentimestamps.from_ledger_root(receipt)
    assert made(large) == {}


def test_receipts_that_do_not_hold_together_lead_nowhere() -> None:
    receipt = next(Receipt.decode(r.data) for r in evidence().receipts if "bitcoin" in r.name)
    for changes in (
        {"transaction": "00"},
        {"transaction": "no hex"},
        {"merkle_block": ""},
    ):
        with pytest.raises((FormatError, ProofError)):
            opentimestamps.from_run_root(replace(receipt, evidence={**receipt.evidence, **changes}))
    other = replace(receipt, ledger=replace(receipt.ledger, root=b"\7" * 32))
    with pytest.raises(ProofError, match="does not carry the root"):
        opentimestamps.from_ledger_root(other)
    with pytest.raises(InputError, match="the walk leads to"):
        opentimestamps.from_run_root(replace(receipt, root=b"\7" * 32))
    with pytest.raises(ProofError, match="does not carry the root"):
        anchor = replace(receipt.anchor, height=None)
        opentimestamps.from_ledger_root(replace(receipt, anchor=anchor))
    broken = tuple(ReceiptFile(r.name, b"{}") for r in evidence().receipts)
    assert made(replace(evidence(), receipts=broken)) == {}


@pytest.mark.parametrize(
    ("origin", "uri"),
    [
        ("example.org/ledger", "https://example.org/ledger"),
        ("ml ledger@host?x=[1]%é", "https://ml-ledger-host-x--1---"),
        ("x" * 2000, "https://" + "x" * 900),
    ],
)
def test_the_uri_of_a_ledger_fits_the_format(origin: str, uri: str) -> None:
    assert opentimestamps.calendar_uri(origin) == uri
    assert Pending(opentimestamps.calendar_uri(origin)).uri == uri


def test_notes_and_proofs_that_do_not_decode_are_left_out() -> None:
    notes = (HeadNote(1, "nonsense"), *evidence().heads[1:])
    assert "heads/1.root" not in made(replace(evidence(), heads=notes))
    short = tuple(replace(i, proof=i.proof[:-1]) for i in evidence().inclusions if i.size == 2)
    assert "heads/2.root" not in made(replace(evidence(), inclusions=short))
    assert made(replace(waiting(), heads=())) == {}


# --- checking ----------------------------------------------------------------------------


def test_what_is_written_holds_and_is_counted() -> None:
    findings, problems = checked(carrying(evidence()))
    assert problems == []
    (result,) = [r for r in findings.results() if r.check.number == PORTABLE]
    count = len(made(evidence()))
    assert (result.status, result.detail) == (
        Status.PASSED,
        f"{count} files; OpenTimestamps proofs: {count - 2} complete, 0 pending",
    )


def test_a_whole_bundle_with_proofs_verifies(tmp_path: Path) -> None:
    folder = write_bundle(evidence(), tmp_path / "bare")
    assert [p.parent.name for p in folder.rglob("*.ots")] == ["heads"] * len(evidence().heads)
    folder = write_bundle(evidence(), tmp_path / "bundle", ots=True)
    assert (folder / f"{METRICS}.ots").is_file()
    report = verify(read_bundle(folder), None, verifier_key=SIGNER.verifier, now=NOW)
    assert report.outcome == "consistent"
    folder = write_bundle(withhold(evidence(), ["results"]), tmp_path / "withheld", ots=True)
    assert not (folder / METRICS).exists()
    assert (folder / f"{METRICS}.ots").is_file()
    assert checked(read_bundle(folder))[1] == []


OTHER = Timestamp.of_walk(hashlib.sha256(b"other").digest(), [SHA256], Bitcoin(1002))


def of_metrics(change: Callable[[Timestamp], Timestamp]) -> RunEvidence:
    name = f"{METRICS}.ots"
    before = TimestampFile.decode(made(evidence())[name]).timestamp
    return carrying(evidence(), **{name: TimestampFile(change(before)).encode()})


def test_a_proof_of_another_file_is_found() -> None:
    found = problem(of_metrics(lambda _: OTHER))
    assert found.startswith("training/epoch/1/metrics/0: begins at sha256 ")
    swapped = made(evidence())["records/training/epoch/2/metrics/0.json.ots"]
    assert "begins at" in problem(carrying(evidence(), **{f"{METRICS}.ots": swapped}))
    digest = TimestampFile.decode(swapped).timestamp.message
    foreign = TimestampFile(
        Timestamp.of_walk(digest, [SHA256], Bitcoin(1002)), Operation(0x67)
    ).encode()
    assert "begins at keccak256" in problem(carrying(evidence(), **{f"{METRICS}.ots": foreign}))


def test_another_block_or_height_is_found() -> None:
    digest = next(r.digest for r in evidence().records if r.file == METRICS)
    for walk, height in (([append(b"x"), SHA256], 1002), ([SHA256], 7)):
        forged = TimestampFile(Timestamp.of_walk(digest, walk, Bitcoin(height))).encode()
        found = problem(carrying(evidence(), **{f"{METRICS}.ots": forged}))
        assert f"says that block {height} has Merkle root" in found
        assert "which no Bitcoin receipt proves" in found


def test_a_missing_receipt_is_one_finding_however_many_proofs_need_it() -> None:
    rest = tuple(r for r in evidence().receipts if r.name != "after-bitcoin")
    (finding,) = checked(replace(carrying(evidence()), receipts=rest))[1]
    records = sum(record.place == "tree" for record in evidence().records)
    assert finding.problem.endswith(f"and so say {records} other files")


def test_pending_ones_must_be_of_this_evidence_and_this_ledger() -> None:
    digest = next(r.digest for r in evidence().records if r.file == METRICS)
    uri = f"https://{ORIGIN}"
    lost = TimestampFile(Timestamp.of_walk(digest, [SHA256], Pending(uri))).encode()
    assert "is pending at" in problem(carrying(evidence(), **{f"{METRICS}.ots": lost}))
    own = made(waiting())[f"{METRICS}.ots"]
    other = own.replace(b"example.org", b"example.com")
    found = problem(carrying(waiting(), **{f"{METRICS}.ots": other}))
    assert f"is pending at https://example.com/ledger, the ledger is {uri}" in found


def test_attestations_of_unknown_kinds() -> None:
    unknown = Unknown(b"unknown!", b"x")
    alone = of_metrics(lambda t: Timestamp.of_walk(t.message, [SHA256], unknown))
    assert "has no attestation that this release knows" in problem(alone)
    findings, problems = checked(of_metrics(lambda t: t.merge(Timestamp(t.message, [unknown]))))
    assert problems == []
    (result,) = [r for r in findings.results() if r.check.number == PORTABLE]
    assert (result.status, result.detail) == (
        Status.UNCHECKED,
        "1 attestations of kinds that this release does not know",
    )


def test_files_that_stand_for_nothing_are_found() -> None:
    proof, root = made(evidence())[f"{METRICS}.ots"], made(evidence())["heads/2.root"]
    for name, data, told in (
        ("records/training/epoch/9/metrics/0.json.ots", proof, "there is no record"),
        ("heads/2.root.ots", b"junk", "not an OpenTimestamps proof"),
        ("heads/2.root", root + b"x", "its SHA-256 is not the ledger root"),
        ("heads/9.root", root, "there is no head of size 9"),
    ):
        findings = checked(carrying(evidence(), **{name: data}))[1]
        assert any(told in finding.problem for finding in findings), name
        assert all(finding.subject != METRICS for finding in findings)
    lone = carrying(evidence(), **{"heads/2.root": None})
    assert problem(lone) == "heads/2.root.ots: the file that it is of is missing"


def test_other_peoples_byte_order_is_not_ours() -> None:
    data = made(evidence())[f"{METRICS}.ots"]
    padded = data[:-2] + b"\xea\x87\x00"
    padded = padded[:-4] + b"\x03" + padded[-3:]
    assert TimestampFile.decode(padded).timestamp == TimestampFile.decode(data).timestamp
    assert "longer than it need be" in problem(carrying(evidence(), **{f"{METRICS}.ots": padded}))


def flips(data: bytes, seed: int, count: int | None = None) -> list[bytes]:
    places = list(range(8 * len(data)))
    if count is not None:
        places = random.Random(seed).sample(places, count)
    changed = []
    for at in places:
        copy = bytearray(data)
        copy[at // 8] ^= 1 << at % 8
        changed.append(bytes(copy))
    return changed


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.slow
def test_every_single_bit_change_of_a_proof_is_found(final: bool) -> None:
    base = evidence() if final else waiting()
    files = made(base)
    name = "heads/2.root.ots" if final else f"{METRICS}.ots"
    beside = {file: files[file] for file in ("heads/2.root",) if file in files}
    for data in flips(files[name], 0):
        found = checked(replace(base, attachments={**beside, name: data}))[1]
        assert [finding.subject for finding in found] in (
            [name], [METRICS.removeprefix("records/").removesuffix(".json")],
        )  # fmt: skip
        assert "\n" not in found[0].problem


@pytest.mark.slow
def test_bit_changes_of_any_proof_or_root_are_found() -> None:
    files = made(evidence())
    for at, (name, data) in enumerate(sorted(files.items())):
        beside = {each: files[each] for each in files if each.endswith(".root")}
        for changed in flips(data, at, 25):
            assert checked(replace(evidence(), attachments={**beside, name: changed}))[1]


def test_a_ledger_of_another_name_has_another_uri() -> None:
    signer = SignerKey.from_private_bytes("a_b/c", bytes(32))
    of = waiting()
    head = Head("a_b/c", of.heads[0].size, b"\1" * 32)
    renamed = replace(of, heads=(HeadNote(head.size, sign_head(head, signer)),))
    assert "the ledger is https://a_b/c" in problem(
        replace(renamed, attachments={f"{METRICS}.ots": made(of)[f"{METRICS}.ots"]})
    )


def test_one_record_s_proof_is_written_from_any_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(evidence(), tmp_path / "bundle")
    out = tmp_path / "0.json.ots"
    assert cli.main(["path", str(folder / METRICS), "--ots", str(out)]) == 0
    assert out.read_bytes() == made(evidence())[f"{METRICS}.ots"]
    bare = replace(evidence(), receipts=(), anchors=())
    folder = write_bundle(bare, tmp_path / "bare")
    capsys.readouterr()
    assert cli.main(["path", str(folder / METRICS), "--ots", str(tmp_path / "none")]) == 2
    assert "no Bitcoin anchor is there or to come" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
