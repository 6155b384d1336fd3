"""A statement about a hidden number of a whole run: proved, carried, verified, refused."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance.app.runs import evidence_of
from provenance.cli import main
from provenance.evidence.run_evidence import seal_label
from provenance.formats.record import Kind, Record
from provenance.ports.values import LedgerEntry
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.settings import load as load_settings
from provenance.verify.verifier import verify
from provenance.zk.statement import Number, ProvedStatement, Statement
from tests.support.home import brought_home
from tests.support.stranger import load
from tests.unit.zk.conftest import (
    ACCURACY,
    DATA,
    ROWS,
    Command,
    forms,
    recorded,
    tracker_of,
)

pytestmark = pytest.mark.slow  # whole commands
FINAL = "at training/epoch/2/metrics/0, the final epoch, is"
SPENT = "at training/epoch/2/privacy/0, the final epoch, is"
EARLY = "at training/epoch/1/metrics/0, epoch 1, is"
RESULTS = "at training/results, the results, is"
COUNT = "data.train.count at data/train/0, the data"


def lines(report: dict[str, Any]) -> list[str]:
    return [notice["problem"] for notice in report["notices"] if notice["check"] == 14]


PROVED = "(proved; value not shown)"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("--metric test_accuracy --at-least 0.9", f"test_accuracy {FINAL} at least 0.9"),
        ("--metric test_accuracy --at-least 0.931234", f"test_accuracy {FINAL} at least 0.931234"),
        ("--metric test_accuracy --at-most 1 --epoch 1", f"test_accuracy {EARLY} at most 1"),
        ("--metric epsilon --between -1 1.6", f"epsilon {SPENT} between -1 and 1.6"),
        ("--metric samples --epoch results --at-most 7e4", f"samples {RESULTS} at most 70000"),
        (f"--metric data.train.count --at-least {ROWS}", f"{COUNT}, is at least {ROWS}"),
        (
            f"--metric data.train.count --between 0 {ROWS} --seal before --epoch data",
            f"{COUNT}, at seal before, is between 0 and {ROWS}",
        ),
        (
            "--metric test_accuracy --at-least 0.5 --epoch 1 --seal checkpoint-1",
            f"test_accuracy {EARLY[:-3]} at seal checkpoint-1, is at least 0.5",
        ),
    ],
)  # fmt: skip
def test_what_is_true_is_proved_and_verified(
    asked: str, line: str, command: Command, runs: list[str], tmp_path: Path
) -> None:
    proof, bundle = tmp_path / "p.json", tmp_path / "b.zip"
    assert command("prove", runs[0], *asked.split(), "-o", proof)[0] == 0
    assert command("bundle", runs[0], "-o", bundle, "--proof", proof)[0] == 0
    code, report = command("verify", bundle)
    assert lines(report) == [f"{line} {PROVED}"]
    assert (code, report["findings"]) == (0, [])
    [said] = [notice["problem"] for notice in report["notices"] if notice["check"] == 12]
    proved = f"{line} {PROVED}" if "epsilon" in asked else "no proof about it is here"
    assert said == f"epsilon is hidden behind a commitment in 2 budgets: {proved}"
    assert {check["number"]: check["status"] for check in report["checks"]}[12] == "skipped"


def test_an_equality_is_verified_from_both_sides(
    command: Command, runs: list[str], tmp_path: Path
) -> None:
    proof = tmp_path / "p.json"
    asked = ("--metric", "test_accuracy", "--equals-run", runs[1])
    assert command("prove", runs[0], *asked, "-o", proof)[0] == 0
    for own, other in (runs, reversed(runs)):
        _, report = command("verify", own, "--offline", "--proof", proof)
        place = "test_accuracy at training/epoch/2/metrics/0"
        line = f"{place}, the final epoch, equals {place} of run {other} {PROVED}"
        assert lines(report)[0].startswith(line)


def entries(base: Path, run: str) -> tuple[LedgerEntry, ...]:
    return evidence_of(load_settings(None, base), run).entries


def test_a_proof_is_of_its_run_seal_record_and_commitment(
    command: Command, base: Path, runs: list[str], tmp_path: Path
) -> None:
    """Each forged field of a statement by its line, and of what is forged with the openings."""
    path = tmp_path / "p.json"
    command("prove", runs[0], "--metric", "test_accuracy", "--at-least", "0.9", "-o", path)
    proved = ProvedStatement.decode(path.read_bytes())
    number = proved.statement.number
    roots = {seal_label(entry): entry.root for entry in entries(base, runs[0])}

    def sealed(label: str) -> Number:
        return replace(number, seal=label, root=roots[label])

    opening = Opening(931_234, 7)  # a prover that commits to what it likes
    other = replace(number, point=opening.commitment.format())
    problems = {
        f"is of run {UUID(int=9)}, this is run {runs[0]}": replace(number, run=UUID(int=9)),
        "is of seal before with root": replace(number, seal="before"),
        "is of seal after with root 0000000000000000..., that seal has root": replace(
            number, root=bytes(32)
        ),
        "that seal is not one of the run": replace(number, seal="checkpoint-3"),
        "the root of seal before has no such record": sealed("before"),
        "the root of seal checkpoint-1 has no such record": sealed("checkpoint-1"),
        "another record than lies at training/epoch/1": replace(
            number, path="training/epoch/1/metrics/0"
        ),
        "another record than lies at training/epoch/2": replace(number, record=bytes(32)),
        "another record than lies at training/epoch/9": replace(
            number, path="training/epoch/9/metrics/0"
        ),
        "no commitment to 'loss'": replace(number, metric="loss"),
        "another commitment than training/epoch/2": other,
    }
    for problem, forged in problems.items():
        statement = Statement(replace(forged, point=other.point), at_least=900_000)
        path.write_bytes(statement.prove(opening).encode())
        code, report = command("verify", runs[0], "--offline", "--proof", path)
        (finding,) = report["findings"]
        assert (code, finding["check"], problem in finding["problem"]) == (1, 14, True), finding
    path.write_bytes(replace(proved, proof=proved.proof[:-1] + b"!").encode())
    _, report = command("verify", runs[0], "--offline", "--proof", path)
    assert "does not hold" in report["findings"][0]["problem"]


def test_a_proof_of_a_run_that_goes_on_holds_when_it_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker, proof = tracker_of(tmp_path), str(tmp_path / "p")
    own = ("--base-dir", str(tmp_path))
    tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
    tracker.track_epoch(1, {"test_accuracy": 0.5})
    brought_home(tmp_path)
    words = ["--metric", "test_accuracy", "--epoch", "1", "--at-least", "0.5", "-o", proof]
    assert main(["prove", tracker.run_id, *words, *own]) == 0
    tracker.track_epoch(2, {"test_accuracy": 0.6})
    tracker.store_merkle_on_blockchain_after_training({})
    brought_home(tmp_path)
    capsys.readouterr()
    main(["verify", tracker.run_id, "--offline", "--proof", proof, *own])
    line = f"test_accuracy {EARLY[:-3]} at seal checkpoint-1, is at least 0.5 {PROVED}"
    assert line in capsys.readouterr().out


def test_an_equality_holds_in_two_bundles(
    command: Command, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By themselves, where nothing else of either run is."""
    proof, stranger = tmp_path / "p.json", load()
    asked = ("--metric", "test_accuracy", "--epoch", "1", "--seal", "checkpoint-1")
    assert command("prove", runs[0], *asked, "--equals-run", runs[1], "-o", proof)[0] == 0
    for run in runs:
        bundle = tmp_path / run
        command("bundle", run, "-o", bundle, "--proof", proof)
        assert main(["verify", str(bundle), "--base-dir", str(tmp_path / "none")]) == 3
        told = capsys.readouterr().out
        assert f"{EARLY[:-3]}" in told
        assert "equals test_accuracy at training/epoch/1/metrics/0 of run" in told
        assert stranger.Bundle(stranger.load(bundle)).problems == []
    (file,) = (tmp_path / runs[1] / "proofs").iterdir()
    file.write_text(file.read_text().replace('"checkpoint-1"', '"before"'))
    assert main(["verify", str(tmp_path / runs[1]), "--base-dir", str(tmp_path / "none")]) == 1
    assert stranger.Bundle(stranger.load(tmp_path / runs[1])).problems


def test_data_of_a_hidden_count_is_still_held_by_its_root(base: Path, runs: list[str]) -> None:
    evidence = evidence_of(load_settings(None, base), runs[0])
    (record,) = (r for r in evidence.records if r.kind is Kind.DATA_TRAIN)
    assert isinstance(record.decoded, Record)
    assert record.decoded.body.keys() == {"algorithm", "commitments", "kind", "root"}
    for data, found in ((DATA, 0), ({**DATA, "x": DATA["x"][1:]}, 1)):
        report = verify(evidence, None, content={"data/train": data}, now=0.0)
        assert len([finding for finding in report.findings if finding.check == 10]) == found


def test_proofs_are_of_one_run(command: Command, tmp_path: Path) -> None:
    code, told = command("verify", "--all", "--proof", tmp_path / "p")
    assert (code, told["error"]) == (2, "--proof: found --all, expected one RUN or PATH")
    os.mkfifo(tmp_path / "pipe")
    code, told = command("verify", "latest", "--offline", "--proof", tmp_path / "pipe")
    assert (code, "pipe: cannot be read: it is not a regular file" in told["error"]) == (2, True)
    code, told = command("verify", "latest", "--offline", "--proof", tmp_path / "p")
    problem = "cannot be read: No such file or directory"
    assert (code, told["error"]) == (2, f"{tmp_path / 'p'}: {problem}")


def test_a_file_that_is_no_proof_is_wrong_input(
    command: Command, runs: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "cfg.json"
    for text, why in (
        ("{}", "v: found no version, expected 1"),
        ("[1]", "expected an object"),
        ("{", "is not JSON"),
        ('{"a":1,"v":1}', "a: unknown key, expected v, statement, proof"),
        (" " * 65537, "65537 bytes, at most 65536"),
    ):
        path.write_text(text)
        told = f"{path}: cannot be read as a proof of 'provenance prove': "
        for words in (
            ("verify", runs[0], "--offline", "--proof", path),
            ("bundle", runs[0], "-o", tmp_path / "b", "--proof", path),
        ):
            code, answer = command(*words)
            assert (code, answer["error"].startswith(told)) == (2, True), answer
            assert why in answer["error"]
            assert not (tmp_path / "b").exists()


def test_beside_a_number_that_is_shown_the_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, proof = tmp_path / "base", str(tmp_path / "p")
    run = recorded(base, {"metrics": ["test_accuracy"], "hide": False})
    brought_home(base)
    asked = ("--metric", "test_accuracy", "--at-least", "0.9", "-o", proof)
    assert main(["prove", run, *asked, "--base-dir", str(base)]) == 0
    main(["verify", run, "--offline", "--proof", proof, "--base-dir", str(base)])
    line = "is at least 0.9 (proved; the record also shows a number, which fits: nothing more ties"
    assert line in capsys.readouterr().out


def test_a_shown_count_that_is_not_the_proved_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("provenance.capture.ship.commitments.in_units", lambda *_: 7_000)
    base, proof, bundle, stranger = tmp_path / "base", tmp_path / "p", tmp_path / "b", load()
    run = recorded(base, {"metrics": ["data.train.count"], "hide": False, "scale": 0})
    brought_home(base)
    own = ("--base-dir", str(base))
    asked = ("--metric", "data.train.count", "--at-least")
    for bound, problem in (
        ("6007", "the record also shows a number, which fits"),
        ("6008", "data/train/0 shows data.train.count 6007 and commits to another number"),
    ):
        assert main(["prove", run, *asked, bound, "-o", str(proof), *own]) == 0
        shutil.rmtree(bundle, ignore_errors=True)
        assert main(["bundle", run, "-o", str(bundle), "--proof", str(proof), *own]) == 0
        capsys.readouterr()
        main(["verify", str(bundle), *own])
        assert problem in capsys.readouterr().out
        problems = stranger.Bundle(stranger.load(bundle)).problems
        found = [line.partition(": ")[2] for line in problems if line.startswith("proofs/")]
        assert found == ["the record shows another"] * (bound == "6008")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("--at-least 0.9", "shows test_accuracy 0.5 and commits to another number: one that is at"),
        ("--at-most 0.49", "shows test_accuracy 0.5 and commits to another number: one that is at"),
        ("--between 0.2 0.3", "shows test_accuracy 0.5 and commits to another number: one that is"),
        ("--at-most 0.6", None),
    ],
)
def test_a_shown_number_that_is_not_the_proved_one_is_found(
    asked: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A shipper that commits to another number than the record beside it shows."""
    other = 950_000 if "least" in asked else 250_000
    monkeypatch.setattr("provenance.capture.ship.commitments.in_units", lambda *_: other)
    base, proof, bundle = tmp_path / "base", tmp_path / "p", tmp_path / "b"
    run = recorded(base, {"metrics": ["test_accuracy"], "hide": False}, accuracy=0.5)
    brought_home(base)
    own = ("--base-dir", str(base))
    words = ["--metric", "test_accuracy", *asked.split(), "-o", str(proof)]
    assert main(["prove", run, *words, *own]) == 0
    assert main(["bundle", run, "-o", str(bundle), "--proof", str(proof), *own]) == 0
    capsys.readouterr()
    main(["verify", str(bundle), *own])
    told = capsys.readouterr().out
    assert ("FOUND (14)" in told) is (problem is not None)
    assert (problem or "the record also shows a number, which fits") in told
    stranger = load()
    problems = stranger.Bundle(stranger.load(bundle)).problems
    found = [line for line in problems if line.startswith("proofs/")]
    assert [line.partition(": ")[2] for line in found] == ["the record shows another"] * bool(
        problem
    )


def test_a_withheld_record_leaves_its_proof_open(
    command: Command, runs: list[str], tmp_path: Path
) -> None:
    proof, bundle = tmp_path / "p.json", tmp_path / "b.zip"
    command("prove", runs[0], "--metric", "test_accuracy", "--at-least", "0.9", "-o", proof)
    command("bundle", runs[0], "-o", bundle, "--proof", proof, "--disclose", "config")
    _, report = command("verify", bundle)
    (check,) = (check for check in report["checks"] if check["number"] == 14)
    assert check["status"] == "unchecked"
    assert "the record is withheld, and so is its commitment" in check["detail"]


def test_no_number_is_in_the_database(base: Path) -> None:
    told = b"".join(path.read_bytes() for path in base.glob("ledger.db*"))
    assert b"test_accuracy" in told
    for value in (ACCURACY, ACCURACY - 0.1, 1.512345, 0.771234):
        for secret in forms(value):
            assert secret not in told


def test_verify_says_what_it_lacks(
    command: Command, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "p.json"
    command("prove", runs[0], "--metric", "test_accuracy", "--at-least", "0.9", "-o", proof)
    monkeypatch.setitem(sys.modules, "coincurve", None)
    for name in ("zk.check", "zk.numbers", "zk.statement", "proofs.bulletproofs.curve"):
        monkeypatch.delitem(sys.modules, f"provenance.{name}")
    _, report = command("verify", runs[0], "--offline", "--proof", proof)
    (check,) = (check for check in report["checks"] if check["number"] == 14)
    assert check["detail"].endswith("get it with: pip install 'ml-provenance[zk]'")


def test_the_checker_finds_nothing_wrong_with_a_hidden_number(command: Command) -> None:
    code, told = command("fsck", "--offline")
    assert (code, told["findings"]) == (0, [])


def test_the_stranger_agrees(command: Command, runs: list[str], tmp_path: Path) -> None:
    stranger, proof, bundle = load(), tmp_path / "p.json", tmp_path / "b"
    command("prove", runs[0], "--metric", "epsilon", "--between", "1", "2", "-o", proof)
    command("bundle", runs[0], "-o", bundle, "--proof", proof)
    assert stranger.Bundle(stranger.load(bundle)).problems == []
    (file,) = (bundle / "proofs").iterdir()
    text = file.read_text()
    for old, new in (('"1000000"', '"1000001"'), ("privacy/0", "metrics/0"), (runs[0], runs[1])):
        file.write_text(text.replace(old, new))
        problems = stranger.Bundle(stranger.load(bundle)).problems
        assert [line for line in problems if line.startswith(f"proofs/{file.name}: ")]
        assert command("verify", bundle)[0] == 1
