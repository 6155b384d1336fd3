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
from provenance.ports.values import LedgerEntry
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.settings import load as load_settings
from provenance.zk.statement import Number, ProvedStatement, Statement
from tests.support.home import brought_home
from tests.support.stranger import load
from tests.unit.zk.conftest import (
    ACCURACY,
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
    assert (code, report["findings"]) == (3, [])


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


def test_what_is_false_has_no_proof(command: Command, runs: list[str], tmp_path: Path) -> None:
    asked = ("--metric", "test_accuracy", "--at-least", "0.931235")
    code, told = command("prove", runs[0], *asked, "-o", tmp_path / "p")
    assert (code, (tmp_path / "p").exists()) == (1, False)
    assert told["error"] == (
        "test_accuracy at training/epoch/2/metrics/0: is not as stated: nothing proves that it is "
        "at least 0.931235"
    )


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


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("--metric loss --at-least 0", "loss: the final epoch of run RUN commits to epsilon, test"),
        ("--metric test_accuracy", "found no statement, expected one of --at-least"),
        ("--metric test_accuracy --at-least x", "found 'x', expected a number with at most 6 dec"),
        ("--metric test_accuracy --at-least 0.1234567", "a number with at most 6 decimals"),
        ("--metric test_accuracy --between 1 0", "--between: found 1, expected no more than 0"),
        ("--metric test_accuracy --at-least 0 --epoch 3", "found 3, run RUN has epochs 1 to 2"),
        ("--metric test_accuracy --at-least 0 --epoch x", "expected a number, final or results"),
        ("--metric words --at-least 0 --epoch results", "the results of run RUN commits to samp"),
        ("--metric test_accuracy --at-least 0 -o /dev/null/x", "/dev/null/x: cannot be written"),
        ("--metric test_accuracy --at-least 0 --epoch data", "expected a number, final or results"),
        (
            "--metric test_accuracy --at-least 0 --seal checkpoint-1",
            "--seal: found 'checkpoint-1', expected one that has training/epoch/2/metrics/0, from "
            "checkpoint-2 on",
        ),
        ("--metric test_accuracy --at-least 0 --epoch 1 --seal before", "from checkpoint-1 on"),
        (
            "--metric data.train.count --at-least 0 --epoch 1",
            "--epoch: found '1', but data.train.count is of no epoch",
        ),
        ("--metric data.test.count --at-least 0", "the data of run RUN commits to nothing"),
        *(
            (f"--metric test_accuracy --at-most {bound}", f"found {bound!r}, expected a number")
            for bound in ("nan", "inf", "1e999999999", "1e-999999999", "9223372036854.775808")
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    asked: str, problem: str, command: Command, runs: list[str], tmp_path: Path
) -> None:
    code, told = command("prove", runs[0], "-o", tmp_path / "p", *asked.split())
    assert (code, (tmp_path / "p").exists()) == (2, False)
    assert problem.replace("RUN", runs[0]) in told["error"]
    assert "\n" not in told["error"]
    assert "931234" not in told["error"]


def test_an_epoch_of_a_run_that_is_still_going_is_under_no_seal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = tracker_of(tmp_path, checkpoint_every=9)
    tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
    tracker.track_epoch(1, {"test_accuracy": 0.5})
    brought_home(tmp_path)
    words = ["--metric", "test_accuracy", "--epoch", "1", "--at-least", "0.1"]
    where = ["-o", str(tmp_path / "p"), "--base-dir", str(tmp_path)]
    assert main(["prove", tracker.run_id, *words, *where]) == 2
    told = f"run {tracker.run_id} is still going: epoch 1 is under no seal yet"
    assert told in capsys.readouterr().err
    tracker.close()


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


def test_a_number_at_its_borders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest and smallest that a commitment takes, and what it does not."""
    most, least, base = 2**63 - 1, -(2**63), tmp_path / "base"
    named: dict[str, Any] = {
        "most": most, "least": least, "minus": -3, "over": most + 1, "under": least - 0x800,
        "nan": float("nan"), "inf": float("inf"), "epsilon": float("inf"),
    }  # fmt: skip
    tracker = tracker_of(base, {"metrics": list(named), "scale": 0})
    tracker.store_merkle_on_blockchain_before_training({})
    metrics = {name: value for name, value in named.items() if name != "epsilon"}
    metrics["under"] = float(metrics["under"])  # msgpack has no such integer
    tracker.track_epoch(1, metrics, privacy={"epsilon": named["epsilon"], "delta": 1e-5})
    tracker.store_merkle_on_blockchain_after_training({})
    brought_home(base)
    own = ["--base-dir", str(base), "-o"]
    proofs = list[str]()
    for name, low, high in (
        ("most", most, None), ("most", None, most), ("most", least, None), ("most", most, most),
        ("least", least, None), ("least", None, least), ("least", None, most),
        ("least", least, least), ("most", 0, most), ("minus", -3, -3), ("minus", least, -3),
    ):  # fmt: skip
        bounds = ["--between", str(low), str(high)]
        if low is None or high is None:
            bounds = ["--at-least", str(low)] if high is None else ["--at-most", str(high)]
        proofs += ["--proof", str(tmp_path / f"p{len(proofs)}")]
        words = ["prove", tracker.run_id, "--metric", name, *bounds]
        assert main([*words, *own, proofs[-1]]) == 0, words
    for name, bounds, code, problem in (
        ("most", ["--at-most", str(most - 1)], 1, "nothing proves that it is at most"),
        ("least", ["--at-least", str(least + 1)], 1, "nothing proves that it is at least"),
        ("minus", ["--between", "-2", "3"], 1, "nothing proves that it is between -2 and 3"),
        ("minus", ["--at-most", "-4"], 1, "nothing proves that it is at most -4"),
        ("most", ["--at-most", str(most + 1)], 2, "expected a number with at most 0 decimals"),
        *(
            (name, ["--at-least", "0"], 2, "the value had no form with 0 decimals")
            for name in ("over", "under", "nan", "inf", "epsilon")
        ),
    ):
        capsys.readouterr()
        assert (
            main(["prove", tracker.run_id, "--metric", name, *bounds, *own, "/dev/null/x"]) == code
        )
        told = capsys.readouterr().err
        assert problem in told
        assert told.count("\n") == 1
    assert main(["verify", tracker.run_id, "--offline", *proofs, "--base-dir", str(base)]) == 3
    assert capsys.readouterr().out.count("NOTE (14)") == len(proofs) // 2


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


def test_an_equality_with_another_number_has_no_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, coarse = tmp_path / "base", {"metrics": ["test_accuracy"], "scale": 3}
    one, other = recorded(base, accuracy=0.5), recorded(base, accuracy=0.6)
    third = recorded(base, coarse, accuracy=0.5)
    brought_home(base)
    (base / "openings" / f"{third}.jsonl").unlink()  # of another scale nobody looks for it
    for equal, expected, problem in (
        (other, 1, "is not as stated: nothing proves that it equals test_accuracy at training/"),
        (third, 2, f"the commitment of run {third} has 3 decimals, expected 6 as here"),
        (one, 2, f"--equals-run: found run {one} itself, expected another run"),
    ):
        words = ["prove", one, "--metric", "test_accuracy", "--equals-run", equal]
        code = main([*words, "-o", str(tmp_path / "p"), "--base-dir", str(base)])
        assert (code, (tmp_path / "p").exists()) == (expected, False)
        assert problem in capsys.readouterr().err


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


def test_where_several_records_have_the_name_one_is_asked_for_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, proof = tmp_path / "base", str(tmp_path / "p")
    names = {"metrics": ["test_accuracy", "epsilon"]}
    run = recorded(base, names, again={"test_accuracy": 0.97, "epsilon": 1.0})
    brought_home(base)
    own, asked = ("--base-dir", str(base)), ("-o", proof, "--metric")
    metrics, privacy = (f"training/epoch/2/{name}" for name in ("metrics/1", "privacy/0"))
    problem = "found 2 records that commit to it, expected --record with one of"
    assert main(["prove", run, *asked, "epsilon", "--at-most", "3", *own]) == 2
    assert f"epsilon: {problem} {metrics}, {privacy}" in capsys.readouterr().err
    words = ["test_accuracy", "--at-least", "0.95", "--record"]
    assert main(["prove", run, *asked, *words, privacy, *own]) == 2
    problem = "is committed to by training/epoch/2/metrics/0, training/epoch/2/metrics/1"
    assert f"--record: found {privacy!r}, but test_accuracy {problem}" in capsys.readouterr().err
    assert main(["prove", run, *asked, *words, metrics, *own]) == 0
    main(["verify", run, "--offline", "--proof", proof, *own])
    line = (
        f"test_accuracy at {metrics}, the final epoch, is at least 0.95 (proved; value not shown; "
        "of this record alone: of the others there 1 commit to this name)"
    )
    assert line in capsys.readouterr().out


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


def test_a_lost_opening_is_one_line(
    command: Command, base: Path, runs: list[str], tmp_path: Path
) -> None:
    path = base / "openings" / f"{runs[1]}.jsonl"
    kept = path.rename(tmp_path / "kept")
    code, told = command(
        "prove", runs[1], "--metric", "samples", "--epoch", "results", "--at-least", "1",
        "-o", tmp_path / "p",
    )  # fmt: skip
    kept.rename(path)
    assert code == 2
    problem = "cannot be read: No such file or directory, expected the file that the run's shipper"
    assert told["error"] == f"{path}: {problem} wrote: without it nothing can be proved"


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
