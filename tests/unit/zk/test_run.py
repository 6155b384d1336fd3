"""A statement about a hidden number of a whole run: proved, carried, verified, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.zk.conftest import Command

FINAL, RESULTS = "of the final epoch is", "of the results is"


def lines(report: dict[str, Any]) -> list[str]:
    return [notice["problem"] for notice in report["notices"] if notice["check"] == 14]


PROVED = "(proved; value not shown)"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("--metric test_accuracy --at-least 0.9", f"test_accuracy {FINAL} at least 0.9"),
        ("--metric test_accuracy --at-least 0.931234", f"test_accuracy {FINAL} at least 0.931234"),
        ("--metric test_accuracy --at-most 1 --epoch 1", "test_accuracy of epoch 1 is at most 1"),
        ("--metric epsilon --between -1 1.6", f"epsilon {FINAL} between -1 and 1.6"),
        ("--metric samples --epoch results --at-most 7e4", f"samples {RESULTS} at most 70000"),
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
        line = f"test_accuracy of the final epoch equals {place} of run {other} {PROVED}"
        assert lines(report)[0].startswith(line)


def test_what_is_false_has_no_proof(command: Command, runs: list[str], tmp_path: Path) -> None:
    asked = ("--metric", "test_accuracy", "--at-least", "0.931235")
    code, told = command("prove", runs[0], *asked, "-o", tmp_path / "p")
    assert (code, (tmp_path / "p").exists()) == (2, False)
    assert told["error"] == (
        "test_accuracy at training/epoch/2/metrics/0: is not as stated: nothing proves that it is "
        "at least 0.931235"
    )


def test_a_proof_of_another_run_is_refused(
    command: Command, runs: list[str], tmp_path: Path
) -> None:
    proof = tmp_path / "p.json"
    command("prove", runs[0], "--metric", "test_accuracy", "--at-least", "0.9", "-o", proof)
    code, report = command("verify", runs[1], "--offline", "--proof", proof)
    assert code == 1
    assert [f["problem"] for f in report["findings"]] == [
        f"is of run {runs[0]}, this is run {runs[1]}"
    ]
