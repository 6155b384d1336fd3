"""Cost of the ledger as it grows: a root appended, proofs, one checkpoint's receipt.

    python tests/benchmarks/bench_ledger.py [--sizes 1000 100000 1000000] [--runs 10000] [--json]

Each figure is the median of many on an SQLite file, and the ratio is that of the largest ledger
to the smallest. Below stand ``status``, ``fsck`` and ``verify --all`` of a database with many
runs of one epoch, with the memory of a process of their own. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sqlalchemy import insert

from provenance.anchor.confirm import confirm
from provenance.anchor.publish import publish
from provenance.bootstrap import sending
from provenance.chains.local import LocalNetwork
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.frontier import Frontier
from provenance.formats.merkle import KeptTree, MerkleTree, node_number
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.settings import Settings, load
from provenance.stores.sql import schema
from provenance.stores.sql.store import SqlStore
from tests.benchmarks.bench_verify import database

RUN = UUID("0192f0c1-aaaa-8aaa-8aaa-aaaaaaaaaaaa")
COMMANDS = (("status",), ("fsck", "--offline"), ("verify", "--all"))


def median(times: int, action: Callable[[int], object]) -> float:
    """Milliseconds; the action gets the number of its turn."""
    taken = []
    for turn in range(times):
        start = time.perf_counter()
        action(turn)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


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


def measure(folder: Path, size: int, times: int) -> dict[str, float]:
    """Milliseconds by what was done to a ledger of ``size`` entries."""
    settings = load(None, folder / "artifacts")
    opened = sending.open_store(settings)
    assert isinstance(opened, SqlStore)
    store, policy = opened, sending.seal_policy(settings)
    fill(store, settings, size)
    draw = random.Random(1)

    def append(turn: int) -> None:
        with store.transaction() as tx:
            append_root(
                *(tx, RUN, Phase.CHECKPOINT, size + turn, draw.randbytes(32), False, policy, 1.0)
            )

    def inclusion(_: int) -> None:
        tree.inclusion_proof(draw.randrange(size), size)

    def consistency(_: int) -> None:
        tree.consistency_proof(draw.randrange(1, size), size)

    found = {"append a root": median(times, append)}
    with store.snapshot() as tx:
        tree = KeptTree(size, tx.subtrees)
        found["inclusion proof"] = median(times, inclusion)
        found["consistency proof"] = median(times, consistency)
    network = sending.open_networks(settings)["local"]
    assert isinstance(network, LocalNetwork)
    rest = (
        network,
        time.time,
        "bench",
        60.0,
        sending.retry_settings(settings, "local"),
        draw.random,
    )
    # The first anchor owes receipts to all entries before it: it is said to have them.
    with store.transaction() as tx:
        head = tx.head()
        assert head is not None
        first = tx.add_anchor("local", head.size, 1.0)
    with store.exclusive() as connection:
        row = schema.anchors.c.id == first.id
        connection.execute(schema.anchors.update().where(row).values(state="final"))

    def receipt(turn: int) -> None:
        with store.transaction() as tx:
            append_root(
                *(tx, RUN, Phase.CHECKPOINT, size + times + turn, draw.randbytes(32), True),
                *(policy, 1.0),
            )
        publish(store, *rest)
        assert confirm(store, *rest).outcomes

    found["a checkpoint until its receipt"] = median(times, receipt)
    store.close()
    return found


def backlog(folder: Path, heads: int) -> float:
    """Seconds until ``heads`` checkpoints that wait at once are final on ``local``."""
    settings = load(None, folder / "artifacts")
    store, policy = sending.open_store(settings), sending.seal_policy(settings)
    network = sending.open_networks(settings)["local"]
    with store.transaction() as tx:
        tx.add_run(RUN, bytes(32), 1.0)
        for at in range(heads):
            root = hashlib.sha256(b"%d" % at).digest()
            append_root(tx, RUN, Phase.CHECKPOINT, at, root, True, policy, 1.0)
    rest = (network, time.time, "bench", 60.0, sending.retry_settings(settings, "local"))
    start = time.perf_counter()
    publish(store, *rest, random.random)
    confirm(store, *rest, random.random)
    taken = time.perf_counter() - start
    with store.snapshot() as tx:
        assert len(tx.receipts(RUN)) == heads
    store.close()
    return taken


def command(settings: Settings, words: Sequence[str]) -> tuple[float, float]:
    """Seconds and MiB of a command in a process of its own."""
    base = ("--base-dir", str(settings.base_dir))
    code = (
        "import resource, sys; from provenance.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *base], capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return taken, int(done.stderr.split()[-1]) / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--times", type=int, default=200, help="of which the median is taken")
    parser.add_argument("--heads", type=int, default=2000, help="checkpoints that wait at once")
    parser.add_argument("--runs", type=int, default=10_000, help="runs of the commands; 0: none")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledgers = {size: measure(folder / str(size), size, options.times) for size in options.sizes}
        waiting = backlog(folder / "backlog", options.heads)
        commands: dict[str, tuple[float, float]] = {}
        if options.runs:
            settings = database(folder / "runs", options.runs, 1)
            commands = {" ".join(words): command(settings, words) for words in COMMANDS}
    smallest, largest = ledgers[min(ledgers)], ledgers[max(ledgers)]
    ratios = {name: largest[name] / smallest[name] for name in smallest}
    if options.json:
        document = {
            "benchmark": "ledger",
            "ms": ledgers,
            "ratios": ratios,
            "heads": options.heads,
            "heads_s": waiting,
            "runs": options.runs,
            "commands_s_mib": commands,
            "cpus": os.cpu_count(),
        }
        print(
            json.dumps(json.loads(json.dumps(document), parse_float=lambda t: round(float(t), 3)))
        )
        return 0
    print(f"{'entries':<34}" + "".join(f"{size:>12}" for size in ledgers) + "       ratio")
    for name, ratio in ratios.items():
        row = "".join(f"{found[name]:9.3f} ms" for found in ledgers.values())
        print(f"{name:<34}{row}{ratio:11.2f}x")
    print(f"{options.heads} checkpoints that wait at once, until final on local: {waiting:.2f} s")
    for words, (seconds, mib) in commands.items():
        print(f"{words}, {options.runs} runs of one epoch: {seconds:.2f} s, {mib:.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
