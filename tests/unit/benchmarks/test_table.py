"""Benchmarks give rows of one table; a missed bar is said and fails nothing."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import run
from tests.benchmarks.measure import in_turns
from tests.benchmarks.table import Row, document, markdown, missing, row, rows_of, show


def fake(quick: bool) -> Iterator[Row]:
    """One row that keeps its bar, one that does not, one without, one not measured."""
    yield row("fast", "us", [2.0, 1.0, 3.0], ("slow", [8.0, 4.0, 6.0]), "ratio <= 0.5")
    yield row("late", "s", [4.0], bar="value <= 3", reason="the disk")
    yield row("size", "MB", [1.0 if quick else 2.0])
    yield missing("other", "pip install other")


def broken(quick: bool) -> Iterator[Row]:
    raise subprocess.SubprocessError("exit code 3")


def test_a_missed_bar_is_a_no_with_its_reason_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, page = tmp_path / "build/bench.json", tmp_path / "page.md"
    assert run({"fake": fake}, "the command", True, False, output, page) == 0
    fast, late, size, other = json.loads(output.read_text())["rows"]
    assert fast == {
        "name": "fast", "value": 2.0, "unit": "us", "spread": [1.0, 3.0], "peer": "slow",
        "peer_value": 6.0, "ratio": 0.3333, "bar": "ratio <= 0.5", "met": True, "reason": "",
    }  # fmt: skip
    assert (late["met"], late["reason"], late["ratio"]) == (False, "the disk", None)
    assert (size["value"], size["bar"], size["met"]) == (1.0, None, None)
    assert (other["value"], other["reason"]) == (None, "not measured: pip install other")
    shown = capsys.readouterr().out
    assert shown.startswith("$ the command\n")
    lines = [line.split() for line in shown.splitlines()]
    assert ["late", "4", "s", "value", "<=", "3", "no", "the", "disk"] in lines
    assert "| late | 4 |  | s |  |  |  | value <= 3 | no | the disk |" in page.read_text()


def test_json_is_printed_as_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench.json"
    assert run({"fake": fake}, "the command", False, True, output) == 0
    shown = capsys.readouterr().out
    assert shown == output.read_text()
    found = json.loads(shown)
    assert found["command"] == "the command"
    assert rows_of(found) == list(fake(False))


def test_what_fails_is_said_and_the_rest_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    assert run({"broken": broken, "fake": fake}, "x", True, True, output) == 1
    rows = rows_of(json.loads(output.read_text()))
    assert rows[0] == missing("broken", "it failed, exit code 3")
    assert rows[1:] == list(fake(True))


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        ("value <= 2", True),
        ("value <= 1.9", False),
        ("value >= 2", True),
        ("value >= 2.1", False),
        ("ratio <= 0.5", True),
        ("ratio <= 0.4", False),
        ("ratio >= 0.5", True),
        ("ratio >= 0.6", False),
    ],
)
def test_a_bar_holds_at_its_limit_and_not_beyond(bar: str, met: bool) -> None:
    found = row("x", "s", [2.0], ("peer", [4.0]), bar, "why")
    assert (found.met, found.reason) == (met, "" if met else "why")


def test_a_bar_of_a_ratio_needs_a_peer() -> None:
    with pytest.raises(AssertionError):
        row("x", "s", [2.0], bar="ratio <= 1")


def test_the_median_and_p99_of_many_samples_and_how_far_their_parts_are_apart() -> None:
    samples = [float(n) for n in range(900)]
    assert (row("x", "s", samples).value, row("x", "s", samples).spread) == (449.5, (49.5, 849.5))
    assert row("x", "s", samples, quantile=0.99).value == 891.0


def test_calls_take_turns_in_bursts() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    taken = in_turns(calls, 4, burst=2)
    assert "".join(order) == "aabbaabb"
    assert [len(samples) for samples in taken.values()] == [4, 4]


def test_a_pipe_gets_plain_text_in_whole_lines() -> None:
    stream, name = io.StringIO(), "a long name " * 8
    show(document("[x]", [row(name, "us", [1234.5])]), stream)
    command, _, line = (text.strip() for text in stream.getvalue().splitlines())
    assert command == "$ [x]"
    assert line.startswith(f"{name.strip()} ")
    assert "1,234" in line or "1,235" in line
    assert line.isascii()


def test_a_page_names_machine_and_date() -> None:
    found = document("the command", fake(True))
    head = markdown(found).splitlines()[2]
    assert head == f"Written by `the command` on {found['date']}: {found['machine']}."
    assert "CPUs" in found["machine"]
