"""What lineage costs, a line for each figure: ``python -m tests.benchmarks.beyond.lineage``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID

import numpy as np

from provenance.evidence.lineage import claims
from provenance.evidence.sharing import sharing, state_at
from provenance.formats.record import Kind, Record, canonical_json
from provenance.lineage.files import merged, pruned, quantised
from provenance.stores.sql import SqlStore, schema
from tests.support.beyond.lineage_world import CHILD, family, named
from tests.support.verify_world import RUN

TENSORS, ENTRIES = 200, 1 << 22


def timed(work: Callable[[], Any], times: int = 5) -> float:
    """Milliseconds, the least of some."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found) * 1000


def looked_up(number: int) -> float:
    """Of a root that two of the runs have, in a database in memory."""
    runs = [UUID(int=each) for each in range(number)]
    with closing(SqlStore.open("sqlite://")) as store:
        with store.exclusive() as connection:
            row = {"public_key": bytes(32), "state": "open", "created_at": 1.0}
            connection.execute(schema.runs.insert(), [{"run": run, **row} for run in runs])
            roots = [UUID(int=run.int // 2).bytes * 2 for run in runs]
            rows = [{"run": r, "epoch": 1, "root": o} for r, o in zip(runs, roots, strict=True)]
            connection.execute(schema.epoch_weights.insert(), rows)
        with store.snapshot() as tx:
            return timed(lambda: tx.runs_of_weights(roots[number // 2], 9), 50)


def main() -> None:
    base = {f"layer.{at}.weight": np.full((8, 8), at, "f4") for at in range(TENSORS)}
    tuned = {name: value + 1 for name, value in base.items()}
    world = family([tuned, base], [base, tuned], named(role="fine-tuned", root="5" * 64))
    evidence = {run: world.evidence(run) for run in (RUN, CHILD)}
    records = {
        run: [r.decoded for r in own.records if isinstance(r.decoded, Record)]
        for run, own in evidence.items()
    }
    config = next(record for record in records[CHILD] if record.kind is Kind.CONFIG)
    ours, theirs = (state_at(records[run], 1) for run in (CHILD, RUN))
    parent = world.verify(evidence[RUN], online=False)
    alone = timed(lambda: world.verify(evidence[CHILD], online=False))
    held = timed(lambda: world.verify(evidence[CHILD], online=False, parent=parent))
    print(f"bytes of a parent in the configuration: {len(canonical_json(config.body['parent']))}")
    print(f"reading the claim: {timed(lambda: claims(config)):.3f} ms")
    compared = timed(lambda: sharing(ours, theirs, "", ""))
    print(f"{TENSORS} tensors against {TENSORS}: {compared:.2f} ms")
    print(f"verify: {alone:.1f} ms, with --parent that is verified already: {held:.1f} ms")
    for number in (10, 10_000):
        print(f"weights looked up among {number} runs: {looked_up(number):.3f} ms")
    values = np.random.default_rng(1).normal(size=(3, ENTRIES)).astype("f4")
    values[2] = np.float32(0.3) * values[0] + np.float32(0.7) * values[1]
    one, two, made = ({"w": ("F32", (ENTRIES,), own)} for own in values)
    print(f"pruned: {ENTRIES / timed(lambda: pruned(made, one)) / 1000:.0f} M entries/s")
    half = {"w": ("F16", (ENTRIES,), values[0].astype("<f2"))}
    cast = ENTRIES / timed(lambda: quantised(half, one)) / 1000
    wide = {"w": ("F32", (1024, ENTRIES >> 10), values[0])}
    scales = abs(values[0].reshape(1024, -1)).max(axis=1, keepdims=True) / 127
    q = np.rint(values[0].reshape(1024, -1) / scales).astype("<i1").view("<u1").reshape(-1)
    by_row = {"w": ("I8", (1024, ENTRIES >> 10), q)}
    scaled = ENTRIES / timed(lambda: quantised(by_row, wide)) / 1000
    print(f"quantised to F16: {cast:.0f} M entries/s, to I8 by rows: {scaled:.0f} M entries/s")
    print(
        f"merged of two: {ENTRIES / timed(lambda: merged(made, [one, two])) / 1000:.0f} M entries/s"
    )


if __name__ == "__main__":
    main()
