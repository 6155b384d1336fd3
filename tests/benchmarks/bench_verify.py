"""Speed of verification offline: long runs from a database and from a bundle, all runs of one, and
proofs about hidden numbers.

Beside some stand plain SHA-256 over the bundle's files, and over the rows of the database.
Imports are not counted. No network is asked.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from provenance.app.verify_all import verify_all
from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.verify.verifier import verify
from provenance.zk.statement import Statement
from tests.benchmarks.measure import in_turns
from tests.benchmarks.table import Row, row
from tests.benchmarks.worlds import database, long_run
from tests.support.verify_world import finished
from tests.vectors.make_format import number, opening

DECODING = "a third of it decodes the records; a bundle has a file for each, and names it twice"


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    sizes = ((20_000, 0), (2_000, 200), (2_000, 2_000))
    if quick:
        sizes = ((500, 0), (100, 10), (100, 100))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for epochs, checkpoints in sizes:
            yield from long(folder, epochs, checkpoints, 1 if quick else 3)
        yield from short(folder / "short", 3 if quick else 9)
        yield from all_runs(folder / "all", 10 if quick else 300, 3 if quick else 9)
    yield from hidden(9 if quick else 99)


def long(folder: Path, epochs: int, checkpoints: int, repeat: int) -> Iterator[Row]:
    """Verify from the database, write the bundle, verify that."""
    world = long_run(epochs, checkpoints)
    label = f"{epochs:,} epochs" + (f", {checkpoints:,} checkpoints" if checkpoints else "")
    place = folder / f"{epochs}-{checkpoints}"
    places = iter([place, *(folder / f"{place.name}-{at}" for at in range(1, repeat))])

    def sound(findings: object) -> None:
        assert not findings, findings

    taken = in_turns(
        {
            "database": lambda: sound(verify(world.evidence(), None, now=0.0).findings),
            "write": lambda: write_bundle(world.evidence(), next(places)),
            "bundle": lambda: sound(verify(read_bundle(place), None, now=0.0).findings),
        },
        repeat,
    )
    for way, name in (("verify from the database", "database"), ("verify a bundle", "bundle")):
        yield row(f"{way}, {label}", "s", taken[name], bar="value <= 3", reason=DECODING)
    yield row(f"write a bundle, {label}", "s", taken["write"], bar="value <= 15")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    bar = "value <= 8" if (epochs, checkpoints) == (2_000, 200) else None
    yield row(f"size of a bundle, {label}", "MB", [size], bar=bar)


def hidden(repeat: int) -> Iterator[Row]:
    """Proofs of each kind about a number of example records: made, and checked."""
    own, other = opening(250_000), opening(250_000, seq=6)
    statements = {
        "at least": Statement(number(own), at_least=200_000),
        "between": Statement(number(own), 200_000, 300_000),
        "equality": Statement(number(own), equals=number(other)),
    }
    taken = in_turns({"commit": lambda: own.commitment}, repeat, scale=1e3)
    yield row("commit to a number", "ms", taken["commit"])
    for name, statement in statements.items():
        pair = (own, other) if statement.equals else (own,)
        proved = statement.prove(*pair)
        made, checked = partial(statement.prove, *pair), proved.verify
        taken = in_turns({"made": made, "checked": checked}, repeat, scale=1e3)
        yield row(f"prove a hidden number, {name}", "ms", taken["made"])
        yield row(f"check that proof, {name}", "ms", taken["checked"], bar="value <= 50")
        yield row(f"size of its file, {name}", "bytes", [len(proved.encode())])


def short(folder: Path, repeat: int) -> Iterator[Row]:
    """A bundle of 100 epochs, beside a plain hash of its files."""
    bundle = write_bundle(finished(100).evidence(), folder / "bundle")

    def plain() -> None:
        for path in bundle.rglob("*"):
            if path.is_file():
                hashlib.sha256(path.read_bytes()).digest()

    def whole() -> None:
        report = verify(read_bundle(bundle), None, now=0.0)
        assert report.outcome == "consistent", report.findings

    taken = in_turns({"ours": whole, "plain": plain}, repeat, scale=1e3)
    peer = ("sha256 over its files", taken["plain"])
    yield row("verify a bundle, 100 epochs", "ms", taken["ours"], peer)


def all_runs(folder: Path, runs: int, repeat: int) -> Iterator[Row]:
    """``verify --all``, beside a plain hash of the rows."""
    settings = database(folder, runs, 3)
    file = reading.sqlite_path(settings.database_url)

    def plain() -> None:
        with closing(sqlite3.connect(str(file))) as db:
            for table in ("records", "receipts", "ledger_entries", "heads", "anchors"):
                for one in db.execute(f"SELECT * FROM {table}"):
                    hashlib.sha256(repr(one).encode()).digest()

    def everything() -> None:
        with verify_all(settings) as found:
            assert all(result.outcome == "verified" for result in found)

    taken = in_turns({"ours": everything, "plain": plain}, repeat, scale=1e3 / runs)
    label = f"verify --all, {runs:,} runs of 3 epochs, each"
    yield row(label, "ms", taken["ours"], ("sha256 over the rows", taken["plain"]))
