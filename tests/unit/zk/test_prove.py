"""What ``prove`` proves, and what it refuses in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provenance.cli import main
from tests.support.home import brought_home
from tests.unit.zk.conftest import Command, recorded, tracker_of

pytestmark = pytest.mark.slow  # whole commands


def test_what_is_false_has_no_proof(command: Command, runs: list[str], tmp_path: Path) -> None:
    asked = ("--metric", "test_accuracy", "--at-least", "0.931235")
    code, told = command("prove", runs[0], *asked, "-o", tmp_path / "p")
    assert (code, (tmp_path / "p").exists()) == (1, False)
    assert told["error"] == (
        "test_accuracy at training/epoch/2/metrics/0: is not as stated: nothing proves that it is "
        "at least 0.931235"
    )


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
        ("most", most, None), ("most", None, most), ("most", 0, most), ("minus", least, -3),
        ("least", least, None), ("least", None, least), ("least", least, least), ("minus", -3, -3),
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
