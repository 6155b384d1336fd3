"""What the records say to a requirement: the verifier's checks decide how far."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.compliance.dossier import Support, dossier_of
from provenance.compliance.framework import FOLDER, FRAMEWORKS, load_framework
from provenance.compliance.retention import last_day
from provenance.compliance.topics import TOPICS
from provenance.errors import InputError
from provenance.verify.catalogue import Status
from provenance.verify.report import VerificationReport
from tests.support.paths import ROOT
from tests.support.verify_world import World, before, finished
from tests.unit.compliance.conftest import BUNDLE, Run

POINTS = "abcdefgh"
EU_IDS = [
    "Art. 10(1)", *(f"Art. 10(2)({p})" for p in POINTS), "Art. 10(3)", "Art. 10(4)", "Art. 10(5)",
    "Art. 11(1)", *(f"Annex IV, 1({p})" for p in POINTS), *(f"Annex IV, 2({p})" for p in POINTS),
    *(f"Annex IV, {n}" for n in range(3, 10)), "Art. 12(1)", "Art. 12(2)", "Art. 12(3)",
    "Art. 15(1)", "Art. 15(3)", "Art. 15(4)", "Art. 15(5)", "Art. 18(1)", "Art. 19(1)",
    "Art. 26(4)", "Art. 26(5)", "Art. 26(6)", *(f"Annex XI, 1.1({p})" for p in "abcdef"),
    *(f"Annex XI, 1.2({p})" for p in "abcde"), *(f"Annex XI, 2.{n}" for n in (1, 2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_table_is_whole(name: str) -> None:
    table, _ = load_framework(name)
    rows = [each for group in table.groups for each in group.requirements]
    assert len({row.id for row in rows}) == len(rows)
    assert {topic for row in rows for topic in row.topics} <= TOPICS.keys()
    assert all(row.topics or row.write for row in rows)
    assert all(group.source.startswith("https://") for group in table.groups)
    assert table.name == name


def test_the_ai_act_s_points_are_all_there() -> None:
    table, _ = load_framework("eu-ai-act")
    assert [each.id for group in table.groups for each in group.requirements] == EU_IDS


@pytest.mark.parametrize(("name", "whole"), [("nist-ai-rmf", 72), ("iso-42001", 38)])
def test_a_table_counts_what_it_leaves_out(name: str, whole: int) -> None:
    table, _ = load_framework(name)
    *rows, others = [each for group in table.groups for each in group.requirements]
    assert others.id == f"{whole - len(rows)} others"
    assert f": {len(rows)} of them" in table.scope


def test_every_table_is_one_that_the_command_takes() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(FRAMEWORKS)


def test_records_that_verify_support_a_row(verified: VerificationReport) -> None:
    rows = {row.requirement.id: row for row in dossier_of(verified, "eu-ai-act").rows}
    data = rows["Art. 10(1)"]
    assert data.support is Support.VERIFIED
    (item,) = data.evidence[0].items
    assert item.file == "records/data/train/0.json"
    with zipfile.ZipFile(BUNDLE) as bundle:
        index = json.loads(bundle.read("run.json"))["records"]
    assert item.digest == next(r["digest"] for r in index if r["path"] == "data/train/0")
    assert "count: 8; bytes: 160; root: mth-sha256:bf224e03" in item.says
    assert rows["Art. 11(1)"].support is Support.RECORDED  # its chains are pinned by nobody
    assert rows["Annex IV, 8"].support is Support.NOTHING
    assert rows["Annex IV, 6"].absent == ("Parent model", "Notes during and after the run")


@pytest.fixture(scope="module")
def done() -> VerificationReport:
    """Of a run that is final on chains which the reader pins."""
    return finished().verify()


def test_a_late_record_is_recorded_only() -> None:
    world = finished()
    evidence = world.evidence()
    moved = tuple(
        r.filed(f"late/{r.path}", r.ts) if r.path == "data/train/0" else r for r in evidence.records
    )
    report = replace(world.verify(), evidence=replace(evidence, records=moved))
    row = next(r for r in dossier_of(report, "iso-42001").rows if r.requirement.id == "A.7.3")
    assert row.support is Support.RECORDED


@pytest.mark.parametrize("name", [n for n, t in TOPICS.items() if t.checks and n != "anchors"])
def test_each_check_of_a_topic_decides(name: str, done: VerificationReport) -> None:
    report, numbers = done, TOPICS[name].checks
    passed = [
        replace(r, status=Status.PASSED) if r.check.number in numbers else r for r in report.checks
    ]
    for number in numbers:
        left = tuple(
            replace(r, status=Status.UNCHECKED) if r.check.number == number else r for r in passed
        )
        dossier = dossier_of(replace(report, checks=left), "eu-ai-act")
        topics = [e for row in dossier.rows for e in row.evidence if e.topic is TOPICS[name]]
        assert all(each.support is Support.RECORDED for each in topics)


def test_an_anchor_on_a_pinned_chain_is_verified(done: VerificationReport) -> None:
    rows = {row.requirement.id: row for row in dossier_of(done, "eu-ai-act").rows}
    anchors = [e for e in rows["Art. 11(1)"].evidence if e.topic is TOPICS["anchors"]]
    assert [each.support for each in anchors] == [Support.VERIFIED]
    assert {i.file for i in anchors[0].items} >= {"receipts/after-bitcoin.json"}


def test_the_local_file_and_ipfs_prove_no_time(done: VerificationReport) -> None:
    seals = done.networks["bitcoin"]
    for name in ("local", "ipfs"):
        receipts = tuple(
            replace(r, name=r.name.replace("bitcoin", name)) for r in done.evidence.receipts
        )
        evidence = replace(done.evidence, receipts=receipts)
        dossier = dossier_of(replace(done, networks={name: seals}, evidence=evidence), "iso-42001")
        (row,) = [row for row in dossier.rows if row.requirement.id == "A.6.2.7"]
        found = {each.topic.title: each.support for each in row.evidence}
        assert found["Anchors on networks"] is Support.RECORDED


def test_a_run_without_a_seal_is_refused() -> None:
    world = World(names=())
    world.ingest(world.batch(before()[:-1]))
    with pytest.raises(InputError, match="found no seal, expected a run that was sealed"):
        dossier_of(world.verify(), "eu-ai-act")


@pytest.mark.slow
def test_a_run_that_fails_says_so_at_the_top(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(BUNDLE) as bundle:
        bundle.extractall(tmp_path / "bundle")
    record = tmp_path / "bundle/records/training/results.json"
    record.write_bytes(record.read_bytes().replace(b"0.9", b"0.99"))
    out = tmp_path / "report"
    assert run(tmp_path / "bundle", "--framework", "eu-ai-act", "-o", out) == 1
    assert "FOUND " in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "The run does not verify" in page.partition("<main>")[0]
    document = json.loads((out / "report.json").read_text())
    assert document["outcome"] == "failed"
    assert document["findings"] != []
    assert document["counts"]["verified"] == 0
    assert run(tmp_path / "bundle", "--check", out) == 1
    assert "does not verify" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_withheld_is_recorded_only(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "report"
    withheld = ROOT / "tests/vectors/bundle-v1-withheld.zip"
    assert run(withheld, "--framework", "nist-ai-rmf", "-o", out) == 3
    items = [
        item
        for group in json.loads((out / "report.json").read_text())["groups"]
        for row in group["rows"]
        for each in row["evidence"]
        for item in each["items"]
        if item["says"].startswith("withheld")
    ]
    assert items
    assert {item["support"] for item in items} == {"recorded only"}


@pytest.mark.slow
def test_no_output_judges(written: Path) -> None:
    tables = "".join(path.read_text() for path in FOLDER.glob("*.toml"))
    texts = [tables, *(p.read_text() for p in written.iterdir() if p.suffix != ".pdf")]
    for text in texts:
        assert not re.search(r"\b(?:non-?)?compliant\b|\bcomplies\b|\bcomplied\b", text, re.I)


# --- retention ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2027-01-31", 120, "2037-02-02"),  # the 31st is a Saturday
        ("2028-02-29", 120, "2038-03-01"),  # the 28th is a Sunday
        ("2026-08-31", 6, "2027-03-01"),  # the 28th is a Sunday
        ("2027-08-31", 6, "2028-02-29"),
        ("2026-12-15", 6, "2027-06-15"),
    ],
)
def test_a_period_ends_with_the_day_of_its_number(start: str, months: int, end: str) -> None:
    assert last_day(date.fromisoformat(start), months).isoformat() == end


@given(st.dates(date(1900, 1, 1), date(2199, 12, 31)), st.integers(0, 240))
def test_a_period_ends_in_the_month_that_counting_gives(start: date, months: int) -> None:
    year, month = start.year, start.month
    for _ in range(months):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    end, day = last_day(start, months), start.day
    while True:
        try:
            expected = date(year, month, day)
            break
        except ValueError:
            day -= 1
    while expected.strftime("%w") in "06":
        expected = date.fromordinal(expected.toordinal() + 1)
    assert end == expected


def test_retention_names_its_basis(verified: VerificationReport) -> None:
    first, second, third = dossier_of(verified, "eu-ai-act", date(2027, 1, 31)).retention
    assert (first.article, first.until) == ("Art. 18", date(2037, 2, 2))
    assert "2027-01-31, as given" in first.basis
    assert (second.until, third.until) == (date(2026, 4, 9), date(2026, 4, 9))
    assert "2025-10-09 by the trainer's clock" in second.basis
    unknown = dossier_of(verified, "eu-ai-act").retention[0]
    assert unknown.until is None
    assert "--placed-on" in unknown.basis
    assert dossier_of(verified, "iso-42001").retention == ()
