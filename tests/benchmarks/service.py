"""Whether a service carries what it promises: run by hand, on a machine that does nothing else.

    python -m tests.benchmarks.service [--trainers 200] [--epochs 50] [--within 0]
                                       [--runs 2000] [--database URL] [--write]

One deployment (``provenance up`` with its own Redis; the database is a PostgreSQL of its own where
one is installed, else an SQLite file; the local network). First the spool is filled with runs of
one epoch while nothing takes them, so that all become final together once the fleet starts. Then
come the trainers, a process each. They compute nothing: their epochs are numbers, without a pause
between them, which is harder for the service than a training. ``--within`` spreads their starts.

Exit code 1 where anything was lost or is not anchored, a report is missing, or the lag is above
a minute. ``--write`` puts the figures into docs/scale.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psycopg
from msgspec.structs import replace

from provenance.app.base_directory import running_redis
from provenance.app.fsck import fsck
from provenance.bootstrap import reading
from provenance.ports.store import LedgerTx
from provenance.settings import Settings, load
from provenance.tracker import ProvenanceTracker
from tests.benchmarks.bench_emit import METRICS
from tests.benchmarks.measure import ROOT
from tests.benchmarks.table import document
from tests.benchmarks.worlds import fleet
from tests.support.nodes.fixtures_postgres import running

CONFIG = {"announce_run": False, "blockchain": {"enabled": True}}
COMMANDS = ("status", "fsck", "verify --all")
LAG_S, LIMIT_S = 60.0, 3600.0
PAGE = ROOT / "docs/scale.md"
BEGIN, END = "<!-- service: begin -->", "<!-- service: end -->"
_fork = multiprocessing.get_context("fork")
Count = Synchronized  # of events, between processes


def train(folder: Path, epochs: int, written: Count[int], delay_s: float = 0.0) -> None:
    """A run of two roots; adds its events to ``written``."""
    time.sleep(delay_s)
    tracker = ProvenanceTracker(folder, CONFIG)
    tracker.store_merkle_on_blockchain_before_training({})
    for epoch in range(1, epochs + 1):
        tracker.track_epoch(epoch, METRICS)
    tracker.store_merkle_on_blockchain_after_training({})
    tracker.close(state="finished")
    with written:
        written.value += tracker.written


def fill(folder: Path, runs: int, written: Count[int]) -> None:
    """Runs of one epoch, one after another."""
    for _ in range(runs):
        train(folder, 1, written)


def ended(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Start them all and wait for them; a failed one ends this program."""
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if failed := sum(process.exitcode != 0 for process in processes):
        raise SystemExit(f"{failed} of {len(processes)} trainers failed")


def asked(base: Path, url: str | None, words: str) -> str:
    """How long a command takes; one that finds something wrong ends this program."""
    environment = {**os.environ, **({"PROVENANCE_DATABASE_URL": url} if url else {})}
    command = [sys.executable, "-m", "provenance.cli", *words.split(), "--base-dir", str(base)]
    begun = time.monotonic()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return f"{time.monotonic() - begun:.1f} s"


class Deployment:
    """What its database, stream and folder say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def seconds_until(self, what: Callable[[LedgerTx], bool]) -> float:
        """How long from now until it is so."""
        begun = time.monotonic()
        with reading.opened_store(self._settings, "the service") as store:
            while time.monotonic() - begun < LIMIT_S:
                with store.snapshot() as tx:
                    if what(tx):
                        return time.monotonic() - begun
                time.sleep(0.2)
        raise SystemExit(f"not so after {LIMIT_S:.0f} s; look into {self._settings.base_dir}")

    def is_home(self, tx: LedgerTx, runs: int) -> bool:
        """Every event of so many runs is committed, and nothing waits in the streams."""
        sealed = tx.open_and_sealed() == {"sealed": runs}
        return sealed and not reading.stream_backlog(self._settings)

    def is_anchored(self, tx: LedgerTx, runs: int) -> bool:
        """Both roots of so many runs are final."""
        return tx.ledger_size() == 2 * runs and not tx.tally("local").waiting

    def reports(self) -> int:
        """Reports that are written."""
        return len(list(self._settings.base_dir.glob("reports/*/report.html")))

    def size(self, runs: int) -> dict[str, str]:
        """What a run leaves in the database and in its report."""
        url = self._settings.database_url
        if url is not None and url.startswith("postgresql"):
            with psycopg.connect(url) as connection:
                found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            database = found[0] if found else 0
        else:
            database = sum(file.stat().st_size for file in self._settings.base_dir.glob("*.db*"))
        report = sum(f.stat().st_size for f in self._settings.base_dir.glob("reports/**/*.*"))
        return {
            f"{runs:,} runs: database, a run": f"{database / runs / 1000:.1f} KB",
            f"{runs:,} runs: report, a run": f"{report / runs / 1000:.1f} KB",
        }

    def judge(self, written: int) -> None:
        """Ends this program where something was lost."""
        report = fsck(self._settings)
        found = report.findings or report.unchecked
        if found or report.checked["records"] != written:
            raise SystemExit(f"{written} events: {report.checked}, {found[:3]}")


@contextmanager
def database(url: str | None) -> Iterator[tuple[str | None, str]]:
    """The URL of an empty database, None for the SQLite file of a base directory; and its name."""
    if url is not None:
        yield (None, "SQLite") if url == "sqlite" else (url, url.partition(":")[0])
        return
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except FileNotFoundError:
            yield None, "SQLite"
            return
        with closing(psycopg.connect(f"{server.url}/postgres", autocommit=True)) as admin:
            admin.execute("CREATE DATABASE service")
        yield f"{server.url}/service", "PostgreSQL"


def measure(
    base: Path, url: str | None, runs: int, trainers: int, epochs: int, within_s: float
) -> dict[str, str]:
    """The figures by what they say.

    Args:
        base: An empty folder.
        url: Of an empty database; None for SQLite below ``base``.
        runs: That become final together.
        trainers, epochs: That train at once, and for how long.
        within_s: All trainers have started by then.
    """
    written = _fork.Value("q", 0)
    figures = {}
    ended([_fork.Process(target=fill, args=(base, runs, written))])
    with fleet(base, database_url=url):
        settings = load(None, base)
        settings = replace(settings, redis_url=running_redis(base))
        it = Deployment(replace(settings, database_url=url or settings.database_url))
        begun = time.monotonic()
        it.seconds_until(lambda tx: it.is_anchored(tx, runs))
        final = time.monotonic() - begun
        it.seconds_until(lambda tx: it.reports() == runs)
        figures[f"{runs:,} runs found in the spool: all anchored"] = f"{final:.1f} s"
        figures[f"the same: {runs:,} reports"] = f"{time.monotonic() - begun:.1f} s"

        before, total = written.value, runs + trainers
        delays = [within_s * number / trainers for number in range(trainers)]
        begun = time.monotonic()
        ended([_fork.Process(target=train, args=(base, epochs, written, d)) for d in delays])
        last = time.monotonic()
        crowd = f"{trainers:,} trainers of {epochs} epochs at once, started within {within_s:g} s"
        figures[f"{crowd}: they take"] = f"{last - begun:.1f} s"
        figures["the same: events, of them lost"] = f"{written.value - before:,}, 0"
        lag = it.seconds_until(lambda tx: it.is_home(tx, total))
        figures["the same: lag 0 after the last event"] = f"{lag:.1f} s"
        it.seconds_until(lambda tx: it.is_anchored(tx, total))
        figures["the same: all anchored after it"] = f"{time.monotonic() - last:.1f} s"
        it.seconds_until(lambda tx: it.reports() == total)
        figures["the same: all reports after it"] = f"{time.monotonic() - last:.1f} s"
        it.judge(written.value)
        figures |= it.size(total)
        figures |= {f"then `provenance {words}`": asked(base, url, words) for words in COMMANDS}
    if lag > LAG_S:
        raise SystemExit(f"lag 0 only {lag:.0f} s after the last event: {figures}")
    return figures


def section(command: str, engine: str, figures: dict[str, str]) -> str:
    """What stands between the markers."""
    about = document(command, ())
    lines = [f"Written by `{command}` on {about['date']}: {about['machine']}; {engine}.", ""]
    lines += ["| what | figure |", "| --- | --- |"]
    lines += [f"| {what} | {figure} |" for what, figure in figures.items()]
    return "\n".join(lines)


def write(text: str, page: Path) -> None:
    """Replace what stands between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.service")
    parser.add_argument("--trainers", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--within", type=float, default=0.0, help="seconds, of the starts (0)")
    parser.add_argument("--runs", type=int, default=2000, help="that become final together")
    parser.add_argument("--database", help="sqlite, or the URL of an empty database")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="service-") as folder:
        with database(options.database) as (url, engine):
            figures = measure(
                Path(folder), url, options.runs, options.trainers, options.epochs, options.within
            )
    text = section(" ".join(["python -m tests.benchmarks.service", *words]), engine, figures)
    sys.stdout.write(f"{text}\n")
    if options.write:
        write(text, PAGE)


if __name__ == "__main__":
    main()
