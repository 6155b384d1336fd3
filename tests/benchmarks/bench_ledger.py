"""Cost of the ledger as it grows: a root appended, proofs, one checkpoint's receipt.

A small and a large ledger take turns, each in an SQLite file. Below stand ``status``, ``fsck`` and
``verify --all`` of a database with many runs of one epoch, in a process of their own.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

from sqlalchemy import insert

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.bootstrap import sending
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.merkle import Frontier, KeptTree, MerkleTree, node_number
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.ports.store import LedgerStore
from provenance.settings import Settings, load
from provenance.stores.sql import schema
from provenance.stores.sql.store import SqlStore
from tests.benchmarks.measure import in_turns, seconds
from tests.benchmarks.table import Row, missing, row
from tests.benchmarks.worlds import database

RUN = UUID("0192f0c1-aaaa-8aaa-8aaa-aaaaaaaaaaaa")
COMMANDS = ((("status",), 1), (("fsck", "--offline"), 60), (("verify", "--all"), 60))
"""With the seconds that each may take of 10,000 runs."""


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    small, large, times = (1_000, 100_000, 50) if quick else (1_000, 1_000_000, 300)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from grown(folder, small, large, times)
        yield from beside_pymerkle(1_000 if quick else 10_000)
        heads = 100 if quick else 2_000
        label = f"{heads:,} checkpoints due at once, until final on local, each"
        yield row(label, "ms", [backlog(folder / "backlog", heads) * 1e3 / heads])
        runs = 30 if quick else 10_000
        settings = database(folder / "runs", runs, 1)
        for words, most in COMMANDS:
            taken, mib = command(settings, words)
            label = f"provenance {' '.join(words)}, {runs:,} runs of one epoch"
            yield row(label, "s", [taken], bar=f"value <= {most}")
            yield row(f"{label}, memory", "MiB", [mib], bar="value <= 300")


def grown(folder: Path, small: int, large: int, times: int) -> Iterator[Row]:
    """The large ledger beside the small one."""
    few, many = Ledger(folder / "small", small), Ledger(folder / "large", large)
    for label, step, bar in (
        ("append a root", Ledger.append, "ratio <= 1.5"),
        ("inclusion proof", Ledger.inclusion, "ratio <= 1.5"),
        ("consistency proof", Ledger.consistency, None),
        ("one checkpoint until its receipt", Ledger.receipt, "ratio <= 1.5"),
    ):
        calls = {"many": lambda step=step: step(many), "few": lambda step=step: step(few)}
        if step in (Ledger.inclusion, Ledger.consistency):
            with few.reading(), many.reading():
                taken = in_turns(calls, times, scale=1e3)
        else:
            taken = in_turns(calls, times, scale=1e3)
        peer, label = (f"{small:,} entries", taken["few"]), f"{label}, {large:,} entries"
        yield row(label, "ms", taken["many"], peer, bar)
        if step is Ledger.inclusion:
            yield row(f"{label}, at most", "ms", taken["many"], bar="value <= 1")


def beside_pymerkle(size: int) -> Iterator[Row]:
    """Our tree and pymerkle's, both in memory: the whole tree read, a proof taken."""
    label = f"inclusion proof in memory, {size:,} entries"
    if not find_spec("pymerkle"):
        yield missing(label, "pip install pymerkle")
        return
    from pymerkle import InmemoryTree

    entries = [hashlib.sha256(b"%d" % at).digest() for at in range(size)]
    theirs, ours, draw = InmemoryTree(), MerkleTree(entries), random.Random(1)
    for entry in entries:
        theirs.append_entry(entry)
    taken = in_turns(
        {
            "ours": lambda: ours.inclusion_proof(draw.randrange(size), size),
            "theirs": lambda: theirs.prove_inclusion(draw.randrange(size) + 1, size),
        },
        20,
        scale=1e3,
    )
    yield row(label, "ms", taken["ours"], ("pymerkle", taken["theirs"]))


class Ledger:
    """One of ``size`` entries, in a deployment on the local network."""

    def __init__(self, folder: Path, size: int) -> None:
        settings = load(None, folder / "artifacts")
        store = sending.open_store(settings)
        assert isinstance(store, SqlStore)
        self.store, self.policy = store, sending.seal_policy(settings)
        fill(store, settings, size)
        self.size, self.draw, self.epoch = size, random.Random(1), size
        self.delivery = local_delivery(self.store, settings)
        # The first anchor owes receipts to all entries before it: it is said to have them.
        with store.transaction() as tx:
            head = tx.head()
            assert head is not None
            first = tx.add_anchor("local", head.size, 1.0)
        with store.exclusive() as connection:
            anchors = schema.anchors
            connection.execute(
                anchors.update().where(anchors.c.id == first.id).values(state="final")
            )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """``tree`` reads one state of the database."""
        with self.store.snapshot() as tx:
            self.tree = KeptTree(self.size, tx.subtrees)
            yield

    def append(self, anchor: bool = False) -> None:
        """A run's root, in a transaction."""
        self.epoch += 1
        root = self.draw.randbytes(32)
        with self.store.transaction() as tx:
            append_root(tx, RUN, Phase.CHECKPOINT, self.epoch, root, anchor, self.policy, 1.0)

    def inclusion(self) -> None:
        """Of any entry, at the ledger's size."""
        self.tree.inclusion_proof(self.draw.randrange(self.size), self.size)

    def consistency(self) -> None:
        """Of any earlier size."""
        self.tree.consistency_proof(self.draw.randrange(1, self.size), self.size)

    def receipt(self) -> None:
        """A root appended, anchored and confirmed."""
        self.append(anchor=True)
        publish(self.delivery)
        assert confirm(self.delivery).outcomes


def local_delivery(store: LedgerStore, settings: Settings) -> AnchorDelivery:
    network, retry = sending.open_networks(settings)["local"], sending.retry_settings
    return AnchorDelivery(
        store, network, time.time, "bench", 60.0, retry(settings, "local"), random.random
    )


def backlog(folder: Path, heads: int) -> float:
    """Seconds until ``heads`` checkpoints that wait at once are final on ``local``."""
    settings = load(None, folder / "artifacts")
    store, policy = sending.open_store(settings), sending.seal_policy(settings)
    with store.transaction() as tx:
        tx.add_run(RUN, bytes(32), 1.0)
        for at in range(heads):
            root = hashlib.sha256(b"%d" % at).digest()
            append_root(tx, RUN, Phase.CHECKPOINT, at, root, True, policy, 1.0)
    delivery = local_delivery(store, settings)
    taken = seconds(lambda: (publish(delivery), confirm(delivery)))
    with store.snapshot() as tx:
        assert len(tx.receipts(RUN)) == heads
    store.close()
    return taken


def fill(store: SqlStore, settings: Settings, size: int) -> None:
    """A ledger of ``size`` entries with its levels, and a head at every thousandth."""
    roots = [hashlib.sha256(b"%d" % at).digest() for at in range(size)]
    tree, signer = MerkleTree(roots), sending.ledger_signer(settings)
    with store.transaction() as tx:
        tx.add_run(RUN, bytes(32), 1.0)
    frontier, heads = Frontier.empty(), []
    for upto in range(1000, size + 1, 1000):
        frontier = frontier.extend(roots[upto - 1000 : upto])
        note = sign_head(Head(signer.name, upto, frontier.root()), signer)
        heads.append(
            {"size": upto, "root": frontier.root(), "note": note, "created_at": 1.0}
            | {"frontier": frontier.to_bytes()}
        )
    entry = {"run": RUN, "phase": Phase.CHECKPOINT, "anchor": False, "created_at": 1.0}
    with store.exclusive() as connection:
        for at in range(0, size, 10_000):
            part = enumerate(roots[at : at + 10_000], at)
            rows = [entry | {"index": i, "epoch": i, "root": root} for i, root in part]
            connection.execute(insert(schema.ledger_entries), rows)
        height = 1
        while count := size >> height:
            hashes = tree.read([(height, number) for number in range(count)])
            level = [{"node": node_number(height, n), "hash": h} for n, h in enumerate(hashes)]
            connection.execute(insert(schema.subtrees), level)
            height += 1
        connection.execute(insert(schema.heads), heads)


def command(settings: Settings, words: Sequence[str]) -> tuple[float, float]:
    """Seconds and MiB of a command in a process of its own."""
    base = ("--base-dir", str(settings.base_dir))
    # Not ru_maxrss: Linux carries over that of the process that started it.
    code = (
        "import pathlib, re, sys; from provenance.cli import main; code = main(sys.argv[1:]);"
        "status = pathlib.Path('/proc/self/status').read_text();"
        "print(re.findall(r'VmHWM:\\s+(\\d+)', status)[0], file=sys.stderr); sys.exit(code)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *base], capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return taken, int(done.stderr.split()[-1]) / 1024
