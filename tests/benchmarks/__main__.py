"""Runs the benchmarks of this folder and shows one table.

    python -m tests.benchmarks [--only NAME ...] [--quick] [--json] [--markdown FILE]

Writes the rows to ``build/bench.json`` too. Each benchmark runs in a process of its own. Exit
code 1 where one of them failed to measure; time is no gate, so that a missed bar is a ``no`` in
its row and nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from tests.benchmarks.measure import ROOT
from tests.benchmarks.table import Row, document, markdown, missing, rows_of, show, write_json

BEYOND = ("items",)
"""Those of capabilities beyond recording, anchoring and verifying, in the folder ``beyond``."""
NAMES = (
    "emit", "digest", "stall", "ingest", "workers", "ledger", "growth", "verify", "home", "idle",
    *BEYOND,
)  # fmt: skip
Benchmark = Callable[[bool], Iterable[Row]]
"""Rows; True asks for sizes that take seconds."""


def in_process(name: str) -> Benchmark:
    """``bench_<name>.rows``, in a process of its own."""

    def rows(quick: bool) -> Iterable[Row]:
        command = [sys.executable, "-m", "tests.benchmarks", "--alone", name]
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"exit code {done.returncode}")
        return rows_of(json.loads(done.stdout))

    return rows


def run(
    benchmarks: Mapping[str, Benchmark], command: str, quick: bool, as_json: bool, output: Path,
    page: Path | None = None,
) -> int:  # fmt: skip
    """Measure, write, show.

    Returns:
        0, or 1 where a benchmark failed to measure; its row says so.
    """
    rows: list[Row] = []
    failed = False
    for name, benchmark in benchmarks.items():
        print(f"measuring {name} ...", end="", file=sys.stderr, flush=True)
        begun = time.monotonic()
        try:
            rows += benchmark(quick)
        except subprocess.SubprocessError as error:
            failed = True
            rows.append(missing(name, f"it failed, {error}"))
        print(f" {time.monotonic() - begun:.0f} s", file=sys.stderr)
    found = document(command, rows)
    write_json(found, output)
    if page is not None:
        page.write_text(markdown(found))
    if as_json:
        print(output.read_text(), end="")
    else:
        show(found)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Speed as ratios to peers, in one table."
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
                        help=f"of {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--json", action="store_true", help="print what build/bench.json holds")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page too")
    parser.add_argument("--alone", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.alone:
        folder = "beyond." if options.alone in BEYOND else ""
        benchmark = import_module(f"tests.benchmarks.{folder}bench_{options.alone}")
        rows = benchmark.rows(options.quick)
        print(json.dumps(document("", rows)))
        return 0
    command = " ".join(["python -m tests.benchmarks", *words])
    benchmarks = {name: in_process(name) for name in options.only}
    output = ROOT / "build/bench.json"
    return run(benchmarks, command, options.quick, options.json, output, options.markdown)


if __name__ == "__main__":
    sys.exit(main())
