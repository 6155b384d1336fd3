"""A loop of plain PyTorch, as the example has it."""

from __future__ import annotations

from pathlib import Path

from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import kinds, spooled


def test_the_example_records_a_whole_run(tmp_path: Path) -> None:
    framework("torch")
    run_example("pytorch_loop", tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == counted.count("state") == 3
    assert counted.count("data.train") == counted.count("results") == 1
