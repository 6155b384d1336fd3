"""Bundles: what is written can be read by anyone, and no change of it goes unnoticed.

Over 400 lines: case by case, one file: `provenance/bundle/writer.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.bundle import sources
from provenance.bundle.index import decode, dump, read_path
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
    ProvenanceError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.evidence.run_evidence import RunEvidence
from provenance.files import PRIVATE
from provenance.formats.fields import Fields
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.verify_world import RUN, SIGNER, World, before, ending, flip_metric, metrics

RECORD = "records/training/epoch/3/metrics/0.json"


def rich() -> World:
    """A run with everything a bundle can hold."""
    world = World()
    events = ending([*before(), metrics(1), metrics(2), metrics(3)])
    world.ingest(world.batch(events[:6]))
    world.anchor()
    world.ingest(world.batch(events[6:8], first=6))
    world.ingest(world.batch([metrics(1, loss=7.0)], first=6))
    world.ingest(world.batch(events[8:], first=8))
    world.ingest(world.batch([metrics(9)], first=40))
    world.anchor()
    return world


WORLD = rich()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(WORLD.evidence(), tmp_path_factory.mktemp("bundle") / "evidence")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    return copy


def check(folder: Path) -> VerificationReport:
    return verify(read_bundle(folder), None, verifier_key=SIGNER.verifier, now=0.0)


def remake(folder: Path) -> None:
    """Manifest and sums made to fit what lies there, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("SHA256SUMS",)
    )
    manifest["files"] = [
        {
            "path": path.relative_to(folder).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in files
        if path.name != "manifest.json"
    ]
    (folder / "manifest.json").write_bytes(dump(manifest))
    sums = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (folder / "SHA256SUMS").write_text(text)


def edit_run(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads((folder / "run.json").read_bytes())
    change(document)
    (folder / "run.json").write_bytes(dump(document))
    remake(folder)


# --- writing -----------------------------------------------------------------------------


def test_reading_gives_back_what_was_written(original: Path) -> None:
    written, read = WORLD.evidence(), read_bundle(original)
    for name in RunEvidence.__dataclass_fields__:
        if name not in ("source", "attachments"):
            assert getattr(read, name) == getattr(written, name), name
    assert read.equivocations
    assert read.parked
    assert check(original).outcome == "consistent"


def test_records_lie_at_their_tree_path_as_exactly_their_bytes(original: Path) -> None:
    for record in WORLD.evidence().records:
        assert (original / record.file).read_bytes() == record.data
    assert {path.name for path in (original / "receipts").iterdir()} == {
        f"{phase}-{network}.json"
        for phase in ("before", "after")
        for network in ("ethereum", "bitcoin")
    }


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum (coreutils)")
def test_sha256sum_checks_every_file(bundle: Path) -> None:
    command = ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"]
    assert subprocess.run(command, cwd=bundle, check=False).returncode == 0
    listed = {line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    lying = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert listed == lying - {"SHA256SUMS"}
    (bundle / RECORD).write_bytes(b"{}")
    done = subprocess.run(command, cwd=bundle, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, f"{RECORD}: FAILED\n")


def test_the_readme_names_the_roots_and_a_path(original: Path) -> None:
    text = (original / "README.txt").read_text()
    assert all(entry.root.hex() in text for entry in WORLD.evidence().entries)
    assert "sha256sum" in text
    assert str(RUN) in text


def test_a_run_without_seals_can_be_exported(tmp_path: Path) -> None:
    world = World()
    world.ingest(world.batch(before()[:2]))
    folder = write_bundle(world.evidence(), tmp_path / "b")
    assert "nothing is sealed yet" in (folder / "README.txt").read_text()
    assert check(folder).outcome == "consistent"


def test_a_bundle_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    evidence = WORLD.evidence()
    folder = write_bundle(evidence, tmp_path / "b")
    (folder / "heads" / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"overwritten \(heads/notes\.txt is not the bundle's"):
        write_bundle(evidence, folder)
    (folder / "heads" / "notes.txt").unlink()
    write_bundle(evidence, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    (tmp_path / "empty").mkdir()
    write_bundle(evidence, tmp_path / "empty")
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("precious")
    with pytest.raises(InputError, match="no bundle; nothing was overwritten"):
        write_bundle(evidence, other)
    assert (other / "chapter1.tex").read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_bundle(evidence, link)


def test_a_bundle_that_nobody_else_reads_stays_so(tmp_path: Path) -> None:
    evidence = WORLD.evidence()
    for place in (tmp_path / "b", tmp_path / "b.zip"):
        write_bundle(evidence, place)
        assert place.stat().st_mode & 0o044
        write_bundle(evidence, tmp_path / "own" / place.name, PRIVATE)
        place.chmod(0o700 if place.is_dir() else 0o600)
        write_bundle(evidence, place)
    for path in (*(tmp_path / "own").rglob("*"), tmp_path / "own", *tmp_path.rglob("b*/**/*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_bundle(WORLD.evidence(), tmp_path / "file" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_that_lead_out_of_the_bundle_are_not_written(tmp_path: Path) -> None:
    world = World(names=("../evil",))
    world.ingest(world.batch(before()))
    with pytest.raises(InputError, match="network: found '../evil', expected a safe"):
        write_bundle(world.evidence(), tmp_path / "b")
    evidence = WORLD.evidence()
    receipt = replace(evidence.receipts[0], name="../../evil")
    with pytest.raises(InputError, match=r"receipts\[0\]: found '../../evil'"):
        write_bundle(replace(evidence, receipts=(receipt,)), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


# --- tampering ---------------------------------------------------------------------------


def test_one_flipped_metric_names_exactly_that_record(bundle: Path) -> None:
    place = bundle / RECORD
    place.write_bytes(flip_metric(place.read_bytes()))
    report = check(bundle)
    assert report.outcome == "failed"
    (finding,) = report.findings
    assert (finding.subject, finding.path) == ("training/epoch/3/metrics/0",) * 2
    assert finding.file == RECORD
    assert finding.check == 1


@pytest.mark.parametrize("index", [False, True])
def test_a_forger_who_mends_more_files_is_still_caught(bundle: Path, index: bool) -> None:
    place = bundle / RECORD
    place.write_bytes(flip_metric(place.read_bytes()))
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    remake(bundle)

    def mend(document: dict[str, Any]) -> None:
        (item,) = (r for r in document["records"] if r["path"] == "training/epoch/3/metrics/0")
        item["digest"] = digest

    if index:
        edit_run(bundle, mend)
    report = check(bundle)
    assert report.outcome == "failed"
    found = {(finding.check, finding.subject) for finding in report.findings}
    producer = f"producer {(b'p' * 4).hex()}"  # what it signed, and what is under the root
    at_the_record = {(1, "training/epoch/3/metrics/0")}
    assert found == ({(1, producer), (2, "after")} if index else at_the_record)


def test_a_record_that_is_no_record_any_more_is_named(bundle: Path) -> None:
    (bundle / RECORD).write_bytes(b"\xff\x00")
    (finding,) = check(bundle).findings
    assert finding.file == RECORD


def test_a_deleted_record_is_named(bundle: Path) -> None:
    (bundle / RECORD).unlink()
    (finding,) = check(bundle).findings
    assert (finding.path, finding.problem) == (
        "training/epoch/3/metrics/0",
        "the record is missing",
    )


def test_a_record_deleted_from_every_index_breaks_the_root(bundle: Path) -> None:
    (bundle / RECORD).unlink()

    def drop(document: dict[str, object]) -> None:
        records = document["records"]
        assert isinstance(records, list)
        records[:] = [r for r in records if r["path"] != "training/epoch/3/metrics/0"]

    edit_run(bundle, drop)
    report = check(bundle)
    checks = {finding.check for finding in report.findings}
    assert {2, 4} <= checks
    assert any("event 8 is missing" in finding.problem for finding in report.findings)


def test_swapped_records_are_both_named(bundle: Path) -> None:
    one, two = bundle / RECORD, bundle / RECORD.replace("/3/", "/2/")
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    named = {finding.path for finding in check(bundle).findings}
    assert named == {"training/epoch/2/metrics/0", "training/epoch/3/metrics/0"}


def test_a_changed_receipt_is_named(bundle: Path) -> None:
    place = bundle / "receipts/after-ethereum.json"
    document = json.loads(place.read_bytes())
    document["root"] = "00" * 32
    place.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    remake(bundle)
    report = check(bundle)
    assert [(f.check, f.file) for f in report.findings] == [(7, "receipts/after-ethereum.json")]
    assert report.networks["ethereum"]["after"].status == "pending"


def test_a_forged_head_is_named(bundle: Path) -> None:
    place = bundle / "heads/2.note"
    lines = place.read_text().split("\n")
    lines[1] = "3"
    place.write_text("\n".join(lines))
    remake(bundle)
    assert "head 2" in {finding.subject for finding in check(bundle).findings}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ledger.vkey", "not a key\n"),
        ("heads/1.note", b"\xff"),
        ("README.txt", "trust me"),
    ],
)
def test_other_changed_files_are_named(bundle: Path, name: str, text: str | bytes) -> None:
    (bundle / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    report = check(bundle)
    assert report.outcome == "failed"
    assert name in {finding.file for finding in report.findings}


def test_decodable_forgeries_with_a_fitting_manifest_are_named(bundle: Path) -> None:
    next((bundle / "equivocations").iterdir()).write_text("{}")
    remake(bundle)
    problems = {finding.file: finding.problem for finding in check(bundle).findings}
    assert any("as run.json says" in problem for problem in problems.values())


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("records/extra.json", True),
        ("records/extra.json", False),
        ("proofs/sub/extra.json", True),
        ("approvals/sub/local-1.json", True),
    ],
)
def test_files_nobody_knows_are_named(bundle: Path, name: str, listed: bool) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("{}")
    if listed:
        remake(bundle)
    (finding,) = check(bundle).findings
    assert finding.file == name
    assert "run.json" in finding.problem or not listed


@pytest.mark.parametrize(
    "name",
    ["ledger.vkey", "README.txt", "heads/1.note", "receipts/before-bitcoin.json", "SHA256SUMS"],
)
def test_missing_files_are_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert name in {finding.file for finding in check(bundle).findings}


@pytest.mark.slow
def test_no_flipped_bit_of_any_file_goes_unnoticed(original: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "copy"
    shutil.copytree(original, bundle)
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    chance = random.Random(7)
    for at in range(3 * len(files)):
        place = files[at % len(files)]
        good = place.read_bytes()
        bit = chance.randrange(8 * len(good))
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        place.write_bytes(flipped)
        name = place.relative_to(bundle).as_posix()
        try:
            report = check(bundle)
        except ProvenanceError as error:
            assert isinstance(error, FormatError | IntegrityError)
            assert name in str(error), f"bit {bit} of {name}: {error}"
        else:
            assert report.outcome == "failed", f"bit {bit} of {name}"
            named = {finding.file for finding in report.findings}
            allowed = {name} | ({"SHA256SUMS"} if name == "manifest.json" else set())
            assert named & allowed, f"bit {bit} of {name}: {report.findings}"
        place.write_bytes(good)
    assert check(bundle).outcome == "consistent"


# --- reading with suspicion --------------------------------------------------------------


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a bundle, there is no manifest\.json"):
        read_bundle(tmp_path)
    with pytest.raises(InputError, match="not a bundle"):
        read_bundle(tmp_path / "nowhere")


def test_links_and_special_files_are_refused(bundle: Path) -> None:
    link = bundle / "records/link.json"
    link.symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match=r"records/link\.json: is a link"):
        read_bundle(bundle)
    link.unlink()
    os.mkfifo(bundle / "records/pipe")
    with pytest.raises(IntegrityError, match="records/pipe: is neither a file nor a folder"):
        read_bundle(bundle)


def test_hidden_and_odd_names_are_refused(bundle: Path) -> None:
    (bundle / ".hidden").write_text("")
    with pytest.raises(IntegrityError, match="not a name that a bundle has"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/passwd", "records/../../x", "a//b", "", "a/" * 20 + "b", ".x"]
)
def test_paths_that_climb_are_refused(bundle: Path, name: str) -> None:
    document = json.loads((bundle / "manifest.json").read_bytes())
    document["files"][0]["path"] = name
    (bundle / "manifest.json").write_bytes(dump(document))
    with pytest.raises(FormatError, match=r"manifest\.json: files\[0\]\.path: .*safe relative"):
        read_bundle(bundle)
    remake(bundle)
    with pytest.raises(FormatError, match=r"run\.json: records\[0\]\.path"):
        edit_run(bundle, lambda run: run["records"][0].update(path=name))  # type: ignore[index]  # JSON, or known to be there
        read_bundle(bundle)


def test_limits_hold(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILES", 3)
    with pytest.raises(TooLargeError, match="more than 3 files"):
        read_bundle(bundle)
    monkeypatch.undo()
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        read_bundle(bundle)
    monkeypatch.undo()
    with (bundle / "ledger.vkey").open("wb") as file:
        file.truncate(5000)
    with pytest.raises(TooLargeError, match=r"ledger\.vkey: more than 4096 bytes"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "run.json"])
@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (
            lambda text: text.replace(b'"version":1', b'"version":2'),
            UnknownVersionError,
            "found version '?2'?, expected 1",
        ),
        (lambda text: text[:-20], FormatError, "is not JSON"),
        (lambda text: b"[]\n", FormatError, "found a list, expected an object"),
        (lambda text: text + b" ", FormatError, "as this program writes it"),
        (lambda text: b"[" * 100_000, FormatError, "is not JSON"),
        (lambda text: text.replace(str(RUN).encode(), b"x" * 36), FormatError, "run: found"),
    ],
)
def test_an_index_that_does_not_decode_is_named(
    bundle: Path,
    name: str,
    change: Callable[[bytes], bytes],
    error: type[ProvenanceError],
    told: str,
) -> None:
    place = bundle / name
    place.write_bytes(change(place.read_bytes()))
    with pytest.raises(error, match=f"{name}:? .*{told}"):
        read_bundle(bundle)


def test_an_index_that_contradicts_itself_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"].append(manifest["files"][0])
    (bundle / "manifest.json").write_bytes(dump(manifest))
    with pytest.raises(FormatError, match="is listed twice"):
        read_bundle(bundle)
    remake(bundle)
    edit_run(bundle, lambda run: run.update(run="01890a5d-0000-774b-bcce-b302099a8057"))
    with pytest.raises(IntegrityError, match=r"run\.json: is of run"):
        read_bundle(bundle)


def test_records_listed_twice_and_other_roots_are_found(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["roots"]["after"] = "00" * 32
    (bundle / "manifest.json").write_bytes(dump(manifest))
    remake(bundle)
    (finding,) = check(bundle).findings
    assert finding.problem == "its roots are not those of run.json"
    with pytest.raises(FormatError, match="two items with the same path"):
        edit_run(bundle, lambda run: run["records"].append(run["records"][0]))  # type: ignore[attr-defined, index]  # JSON, or known to be there
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"phase": "checkpoint", "epoch": None}, "epoch: found null, expected a whole number"),
        ({"phase": "after", "epoch": 2}, "epoch: found 2, expected a whole number"),
        ({"coverage": {"01" * 16: 0}}, "found 0, expected a whole number from 1"),
        ({"coverage": []}, r"coverage: found a list, expected an object"),
        ({"coverage": {"01" * 15: 1}}, "expected 32 lower-case hex digits"),
        ({"coverage": {"0A" * 16: 1}}, "expected 32 lower-case hex digits"),
        ({"coverage": {"01" * 16: -1}}, "found -1, expected a whole number"),
        ({"coverage": {"01" * 16: True}}, "found true, expected a whole number"),
        ({"coverage": {"01" * 16: 1.5}}, "found 1.5, expected a whole number"),
    ],
)
def test_a_malformed_coverage_is_refused(
    bundle: Path, entry: dict[str, object], problem: str
) -> None:
    with pytest.raises(FormatError, match=r"run\.json: entries\[1\].*" + problem):
        edit_run(bundle, lambda run: run["entries"][1].update(entry))  # type: ignore[index]  # JSON, or known to be there
        read_bundle(bundle)


def test_without_run_json_there_is_nothing_to_check(bundle: Path) -> None:
    (bundle / "run.json").unlink()
    with pytest.raises(IntegrityError, match=r"run\.json: is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, lambda f: f.integer("k")),
        (-1, lambda f: f.integer("k")),
        (2**63, lambda f: f.integer("k")),
        ("1", lambda f: f.number("k")),
        (1e300, lambda f: f.number("k")),
        (1, lambda f: f.boolean("k")),
        (1, lambda f: f.text("k")),
        ("../x", lambda f: read_path(f, "k")),
        ("AB" * 32, lambda f: f.hex("k", 32)),
        (["00"], lambda f: f.hashes("k")),
        ({}, lambda f: f.items("k", Fields.text)),
        ([1], lambda f: f.objects("k")),
    ],
)
def test_every_getter_names_file_and_key(value: object, read: Callable[[Fields], object]) -> None:
    with pytest.raises(FormatError, match=r"^f\.json: k(\[0\])?: found .*, expected"):
        read(Fields({"k": value}, "f.json"))
    with pytest.raises(FormatError, match="found nothing"):
        read(Fields({}, "f.json"))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fall(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


def test_a_replacement_that_fails_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(WORLD.evidence(), tmp_path / "b")
    before = {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    real = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if target == tmp_path / "b" and not failed:
            failed.append(path)
            raise OSError(5, "Input/output error")
        return real(path, target)

    failed: list[Path] = []
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="cannot be written"):
        write_bundle(WORLD.evidence(), tmp_path / "b")
    assert {p: p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()} == before
