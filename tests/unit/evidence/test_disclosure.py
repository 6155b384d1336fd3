"""A bundle that keeps records back verifies, says so, and gives none of them away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance.bundle.index import dump
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files, write_bundle, write_files
from provenance.errors import InputError
from provenance.evidence.disclosure import outline, withhold, withhold_like
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.formats.record import Kind, Record
from provenance.report.html import render
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.verify_world import (
    SIGNER,
    World,
    before,
    config,
    ending,
    finished,
    metrics,
    training,
)

pytestmark = pytest.mark.slow

WORLD = finished(12)
METRICS = "training/epoch/3/metrics/0"


def check(place: Path | RunEvidence, **options: Any) -> VerificationReport:
    evidence = read_bundle(place) if isinstance(place, Path) else place
    return verify(evidence, None, verifier_key=SIGNER.verifier, now=0.0, **options)


def disclosed(evidence: RunEvidence) -> set[str]:
    return {r.path for r in evidence.records if not r.withheld and r.place != "control"}


def line(report: VerificationReport, start: str) -> str:
    (found,) = (each for each in report.not_checked if start in each)
    return found


# --- choosing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["metrics"], {f"training/epoch/{n}/metrics/0" for n in range(1, 13)}),
        (["training/epoch/1"], {"training/epoch/1/metrics/0", "training/epoch/1/state/0"}),
        (["training/epoch/1/"], {"training/epoch/1/metrics/0", "training/epoch/1/state/0"}),
        ([METRICS], {METRICS}),
        (["data.train"], {"data/train/0"}),
        (["data"], {"data/train/0", "data/test/0"}),
        (["config", "model/weights"], {"training/config", "model/weights/0"}),
        (["results", METRICS], {"training/results", METRICS}),
        (["run.end"], set()),
        ([], {r.path for r in WORLD.evidence().records if r.place == "tree"}),
    ],
)
@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_what_is_chosen_is_there_and_all_else_verifies(
    words: Sequence[str], paths: set[str], name: str, tmp_path: Path
) -> None:
    evidence = withhold(WORLD.evidence(), words)
    assert disclosed(evidence) == paths
    read = read_bundle(write_bundle(evidence, tmp_path / name))
    assert disclosed(read) == paths
    assert read.records == evidence.records
    report = check(read)
    assert report.findings == ()
    assert report.outcome == "consistent"
    passed = {result.check.number for result in report.checks if result.status == "passed"}
    assert passed >= {1, 2, 3, 5, 6, 7}
    assert (4 in passed) is ("training/config" in paths)  # it says how many ranks there were
    full = check(WORLD.evidence())
    assert report.seals == full.seals
    assert report.networks == full.networks


def test_nothing_of_a_withheld_record_is_in_the_bundle() -> None:
    world = World()
    secret = "s3cret-hyperparameter"
    events = [*before()[:4], (Kind.CONFIG, None, {**config()[2], "lr": secret}), before()[5]]
    world.ingest(world.batch(ending([*events, metrics(1, loss=0.123456)])))
    world.anchor()
    files = bundle_files(withhold(world.evidence(), ["data"]))
    everything = b"\n".join(files.values())
    for record in world.evidence().records:
        assert record.data is not None
        kept = record.place != "control" and not record.path.startswith("data/")
        assert (record.file in files) is not kept
        salt = Record.decode(record.data).salt.hex().encode()
        assert (salt in everything) is not kept
    assert secret.encode() not in everything
    assert b"0.123456" not in everything
    assert secret.encode() in b"".join(bundle_files(world.evidence()).values())


def test_a_word_that_chooses_nothing_is_named_with_what_exists() -> None:
    for word in ("privacy", "training/epoch/99", "training/epoch/1/met", "", "/"):
        with pytest.raises(InputError) as caught:
            withhold(WORLD.evidence(), ["metrics", word])
        text = str(caught.value)
        assert f"--disclose {word!r}: chooses no record" in text
        assert "config, data.test, data.train, metrics" in text
        assert "the places control, data, model, training" in text


def test_second_values_go_with_the_first(tmp_path: Path) -> None:
    """They share its salt, so one that is shown would give the other away."""
    world = World()
    events = ending([*before(), metrics(1), metrics(2), metrics(3)])
    world.ingest(world.batch(events[:9]))
    world.ingest(world.batch([metrics(1, loss=7.0)], first=6))
    results = (Kind.RESULTS, None, {"results": {"accuracy": 1.0}})
    world.ingest(world.batch([results], first=7))
    world.ingest(world.batch(events[9:], first=9))
    world.anchor()
    evidence = world.evidence()
    assert len(evidence.equivocations) == 2

    chosen = withhold(evidence, ["metrics"])
    assert disclosed(chosen) == {"training/epoch/1/metrics/0", "training/epoch/3/metrics/0"}
    same, other = sorted(chosen.equivocations, key=lambda each: each.seq)
    assert (bool(same.data), bool(other.data)) == (True, False)
    place = write_bundle(chosen, tmp_path / "b")
    assert len(list((place / "equivocations").iterdir())) == 1
    report = check(place)
    assert report.outcome == "consistent"
    assert "1 second value is withheld that" in line(report, "second value")
    assert sum("second value" in notice.problem for notice in report.notices) == 2

    none = withhold(evidence, ["config"])
    assert not any(each.data for each in none.equivocations)
    assert check(write_bundle(none, tmp_path / "c")).outcome == "consistent"


def test_withheld_stays_withheld_when_a_bundle_is_made_again() -> None:
    world = World()
    events = ending([*before(), *training(2)])
    world.ingest(world.batch(events[:8]))
    early = withhold(world.evidence(), ["metrics"])
    world.ingest(world.batch(events[8:], first=8))
    world.anchor()
    late = withhold_like(world.evidence(), early)
    assert disclosed(late) == {"training/epoch/1/metrics/0"}
    assert check(late).outcome == "consistent"
    assert withhold_like(world.evidence(), world.evidence()) == world.evidence()


# --- what is said ------------------------------------------------------------------------


def test_the_report_names_what_is_withheld(tmp_path: Path) -> None:
    place = write_bundle(withhold(WORLD.evidence(), ["metrics"]), tmp_path / "b")
    report = check(place)
    said = line(report, "records are withheld")
    assert said == (
        "18 records are withheld: the digest stands in the tree, the content was not read: "
        "data/test/0, data/train/0, model/architecture/0, model/weights/0, training/config, "
        "training/results, training/epoch/1-12/state"
    )
    assert "how many ranks" in line(report, "withheld configuration")
    rows = {row["path"]: row for row in report.as_dict()["records"]}
    assert rows["training/config"]["withheld"] is True
    assert rows[METRICS]["withheld"] is False
    page = render(report)
    assert "(withheld)" in page
    assert "(missing)" not in page
    full = check(write_bundle(WORLD.evidence(), tmp_path / "full"))
    assert not any("withheld" in each for each in full.not_checked)


def test_the_readme_says_what_is_withheld_and_why_it_cannot_be_guessed(tmp_path: Path) -> None:
    text = write_bundle(withhold(WORLD.evidence(), ["metrics"]), tmp_path / "b") / "README.txt"
    shown = text.read_text()
    assert "18 of 33 records" in shown
    assert "training/epoch/1-12/state" in shown
    assert "salt of 32 bytes" in shown
    assert "records/training/epoch/1/metrics/0.json" in shown
    nothing = write_bundle(withhold(WORLD.evidence(), ["run.end"]), tmp_path / "c") / "README.txt"
    assert "every record is withheld" in nothing.read_text()
    assert "One record by hand" not in nothing.read_text()
    full = write_bundle(WORLD.evidence(), tmp_path / "full") / "README.txt"
    assert "What is withheld" not in full.read_text()


@pytest.mark.slow
def test_places_are_told_as_ranges() -> None:
    record = WORLD.evidence().records[0]

    def at(path: str) -> RecordFile:
        return replace(record, path=path)

    epochs = [at(f"training/epoch/{n}/metrics/{rank}") for n in (1, 2, 3, 7, 9) for rank in (0, 1)]
    assert outline([*epochs, at("training/config")]) == (
        "training/config, training/epoch/1-3,7,9/metrics"
    )
    many = [at(f"late/abc-{n}") for n in range(50)]
    assert outline(many).endswith("late/abc-39 and 10 more")
    odd = [at(f"training/epoch/{n}/state/0") for n in range(0, 200, 2)]
    assert outline(odd).endswith("78,.../state")


# --- content, ranks ----------------------------------------------------------------------


def test_content_of_a_withheld_record_stays_unchecked() -> None:
    content = {"model/weights": {}, "data/train": [1, 2]}
    report = check(withhold(WORLD.evidence(), ["data.train"]), content=content)
    assert [finding.subject for finding in report.findings] == ["data/train"]
    report = check(withhold(WORLD.evidence(), ["metrics"]), content={"model/weights": {}})
    assert report.outcome == "consistent"
    (result,) = (each for each in report.checks if each.check.number == 10)
    assert "model/weights: the record is withheld" in result.detail
    report = check(withhold(WORLD.evidence(), ["metrics"]), content={"model/other": {}})
    assert report.outcome == "failed"


def test_without_the_configuration_the_ranks_that_are_here_must_have_ended() -> None:
    world = World()
    start = [*before(world_size=2)]
    world.ingest(world.batch(ending([*start, metrics(1)])))
    other = [metrics(1), (Kind.RUN_END, None, {"events": 1, "reason": "completed"})]
    world.ingest(world.batch(other, producer=b"q" * 16, rank=1))
    world.sweep(later=1000.0)
    world.anchor()
    evidence = world.evidence()
    assert check(withhold(evidence, ["metrics"])).outcome == "consistent"
    cut = replace(
        evidence,
        records=tuple(r for r in evidence.records if not (r.rank == 1 and r.kind is Kind.RUN_END)),
    )
    report = check(withhold(cut, ["metrics"]))
    told = "rank 1: ended unannounced (no signed run.end)"
    assert told in {finding.problem for finding in report.findings}


# --- forging -----------------------------------------------------------------------------


def forge(files: dict[str, bytes], change: Any) -> dict[str, bytes]:
    """The files with run.json changed and manifest and sums made to fit."""
    index = json.loads(files["run.json"])
    for record in index["records"]:
        change(record, files)
    files = {**files, "run.json": dump(index)}
    rest = {k: v for k, v in files.items() if k not in ("manifest.json", "SHA256SUMS")}
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(rest.items())
    ]
    rest["manifest.json"] = dump(manifest)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in rest.items()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return {**rest, "SHA256SUMS": text.encode()}


def test_a_record_that_is_here_and_called_withheld_is_named(tmp_path: Path) -> None:
    def lie(record: dict[str, Any], files: dict[str, bytes]) -> None:
        record["withheld"] |= record["path"] == METRICS

    place = write_files(forge(bundle_files(WORLD.evidence()), lie), tmp_path / "b")
    (finding,) = check(place).findings
    assert (finding.file, finding.subject) == (f"records/{METRICS}.json", METRICS)
    assert "run.json says that it is withheld" in finding.problem
    (place / f"records/{METRICS}.json").unlink()
    (finding,) = check(place).findings
    assert finding.file == f"records/{METRICS}.json"


def test_a_flag_that_was_forged_is_shown_and_a_digest_that_was_is_found(tmp_path: Path) -> None:
    def hide(record: dict[str, Any], files: dict[str, bytes]) -> None:
        if record["path"] == METRICS:
            record["withheld"] = True
            del files[f"records/{METRICS}.json"]

    files = bundle_files(WORLD.evidence())
    report = check(write_files(forge(dict(files), hide), tmp_path / "b"))
    assert report.outcome == "consistent"
    assert METRICS.replace("/0", "") in line(report, "1 record is withheld")

    def swap(record: dict[str, Any], files: dict[str, bytes]) -> None:
        hide(record, files)
        if record["path"] == METRICS:
            record["digest"] = "11" * 32

    report = check(write_files(forge(dict(files), swap), tmp_path / "c"))
    assert report.outcome == "failed"
    assert {1, 2} == {finding.check for finding in report.findings}  # signature, run root


@pytest.mark.parametrize("name", ["run.end", "run.seal"])
def test_control_records_are_never_withheld(name: str, tmp_path: Path) -> None:
    def hide(record: dict[str, Any], files: dict[str, bytes]) -> None:
        if record["kind"] == name:
            record["withheld"] = True
            del files[f"records/{record['path']}.json"]

    place = write_files(forge(bundle_files(WORLD.evidence()), hide), tmp_path / "b")
    problems = [f.problem for f in check(place).findings]
    assert "is withheld, and a control record never is" in problems


def test_a_withheld_record_under_no_root_is_counted_apart(tmp_path: Path) -> None:
    world = World()
    world.ingest(world.batch([*before(), metrics(1)]))
    evidence = withhold(world.evidence(), ["config"])
    report = check(write_bundle(evidence, tmp_path / "c"))
    assert "1 withheld record is under no run root" in line(report, "under no run root:")
