"""Scenario 28: a training of two ranks on two hosts, killed and started again, is one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.capture.keys import RunKeys, new_run_keys
from provenance.capture.ship.loop import Shipper
from provenance.ledger.ingest import drain
from provenance.settings import load
from provenance.stores.memory_transport import MemoryTransport
from tests.faults.support.by_hand import anchor
from tests.faults.support.harness import rounds, scenario, seeded
from tests.support.paths import ROOT

RANK = """
import sys, time
import numpy as np
from provenance import ProvenanceTracker

base, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tracker = ProvenanceTracker(base)
if first == 1:
    tracker.track_data(np.ones((4, 2)))
    tracker.track_model({"w": np.ones(2, np.float32)})
    tracker.store_merkle_on_blockchain_before_training({"epochs": last})
for epoch in range(first, last + 1):
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model={"w": np.full(2, epoch, np.float32)})
    print(epoch, flush=True)
    time.sleep(0.002)
if first < last:
    time.sleep(60)
tracker.store_merkle_on_blockchain_after_training({"loss": 1 / last})
"""


def start(keys: RunKeys, base: Path, rank: int, first: int, last: int) -> subprocess.Popen[str]:
    told = {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}
    return subprocess.Popen(
        [sys.executable, "-c", RANK, str(base), str(first), str(last)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | told | {"RANK": str(rank), "WORLD_SIZE": "2"},
    )  # fmt: skip


def test_a_training_of_two_ranks_that_is_killed_again_and_again_is_one_run(tmp_path: Path) -> None:
    kills = rounds(3, 50)
    with scenario(28, "SIGKILL ranks on two hosts, and restart") as tally:
        rng, keys = seeded(), new_run_keys()
        bases = [tmp_path / f"host-{rank}" for rank in (0, 1)]
        settings = load({"seal_grace": 3600}, bases[0])
        store, policy = sending.open_store(settings), sending.seal_policy(settings)
        assert store is not None
        transport, first, last = MemoryTransport(), 1, 10**6
        promised: set[tuple[int, int]] = set()
        for kill in range(kills + 1):
            over = kill == kills
            ranks = [start(keys, bases[n], n, first, first if over else last) for n in (0, 1)]
            reached = [0, 0]
            for n, process in enumerate(ranks):
                assert process.stdout is not None
                reached[n] = int(process.stdout.readline())
            if over:
                assert [process.wait(60) for process in ranks] == [0, 0]
            else:
                time.sleep(rng.uniform(0.0, 0.1))
                for n in rng.sample((0, 1), 2):
                    ranks[n].kill()
                    tally.kills += 1
            for n, process in enumerate(ranks):
                said = [reached[n], *map(int, process.communicate()[0].split())]
                promised |= {(epoch, n) for epoch in said}
                reached[n] = max(said)
            first = max(reached) + 2  # the next one may be written and not said
            if over or rng.random() < 0.5:  # a host's shipper may see several restarts at once
                for n in rng.sample((0, 1), 2):
                    with Shipper(bases[n] / "spool", transport) as shipper:
                        while shipper.run_once().events:
                            pass
                    drain(transport, store, policy, "one", time.time)
        store.close()
        anchor(settings)
        report = verify_run(settings, str(keys.run))
        assert report.outcome == "verified", report.findings
        assert report.evidence.incomplete is None
        producers = {record.producer: record.rank for record in report.evidence.records}
        assert sorted(producers.values()) == [0] * (kills + 1) + [1] * (kills + 1)
        stopped = [n for n in report.notices if "ended unannounced" in n.problem]
        assert len(stopped) == tally.kills == 2 * kills, "each kill is told"
        epochs = {(row.epoch, row.rank) for row in report.metrics}
        tally.events = len(report.evidence.records)
        tally.lost = len(promised - epochs)
        tally.doubled = len(report.metrics) - len(epochs)
