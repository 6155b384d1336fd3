"""Runs every benchmark of this folder in turn.

    python -m tests.benchmarks [--json]

Prints each one's command, then what it prints; with ``--json`` one line of JSON each. Ends
with 1 where one of them failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands(as_json: bool) -> list[list[str]]:
    """One command per ``bench_*.py``, in order of name, as a user types it from the root."""
    extra = ["--json"] if as_json else []
    return [
        ["python", f"tests/benchmarks/{path.name}", *extra]
        for path in sorted(HERE.glob("bench_*.py"))
    ]


def main() -> int:
    """Exit code 0, or 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON per benchmark")
    arguments = parser.parse_args()
    failed = False
    for command in commands(arguments.json):
        print("$", *command, file=sys.stderr if arguments.json else sys.stdout, flush=True)
        done = subprocess.run([sys.executable, *command[1:]], cwd=HERE.parents[1], check=False)
        failed |= done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
