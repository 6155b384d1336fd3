"""A spool whose trainer is dead is found and shipped later, by whoever comes along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.support import by_hand
from tests.faults.support.harness import World, scenario
from tests.faults.support.processes import until
from tests.support.paths import ROOT

TRAINING = """
import os, sys
from provenance import ProvenanceTracker
tracker = ProvenanceTracker(sys.argv[1], {})
print("producer", tracker._emitter.producer.hex(), flush=True)
tracker.track_data([1.0, 2.0])
tracker.store_merkle_on_blockchain_before_training({"epochs": 50})
for epoch in range(1, 50):
    tracker.track_epoch(epoch, {"loss": 1 / epoch})
for seq in range(tracker.get_blockchain_status()["events"]["written"]):
    print(seq, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_dead_trainer_s_spool_is_shipped_by_a_later_shipper(world: World) -> None:
    """No Redis, no shipper while it lived; then `provenance up`'s shipper finds the folder."""
    with scenario(1, "a spool left by a dead trainer") as tally:
        trainer = world.trainer(code=TRAINING, env={"PROVENANCE_REDIS_URL": ""})
        assert trainer.wait() == -9
        tally.kills = 1
        world.start("shipper", "hashing", "beat", "confirm")
        world.wait_home(trainer.run, len(trainer.promised()))
        segments = world.base / "spool" / str(trainer.run)
        assert until(lambda: not list(segments.glob("*.seg")), 10), "what is home is let go"
        world.judge(tally, [trainer])


def test_another_trainer_s_shipper_ships_it_too(world: World) -> None:
    with scenario(1, "a dead trainer's spool, shipped by a later trainer's shipper") as tally:
        trainer = world.trainer(code=TRAINING, env={"PROVENANCE_REDIS_URL": ""})
        assert trainer.wait() == -9
        tally.kills = 1
        second = world.trainer(code=TRAINING.replace("os.kill(os.getpid(), 9)", ""))
        try:
            second.finish()
            both = [trainer, second]
            until(
                lambda: (
                    by_hand.ingest(world.settings)
                    and all(world.events(t.run) >= len(t.promised()) for t in both)
                ),
                30,
            )
            world.judge(tally, both)
        finally:
            os.kill(int((world.base / "spool" / "shipper.lock").read_text()), 9)


def test_a_spool_on_a_network_file_system_is_refused_in_one_line(tmp_path: Path) -> None:
    """The kernel's mount table says NFS; a training script ends before it trains."""
    script = f"""
import sys
from pathlib import Path
from provenance.capture import emitter, spool
mounts = Path({str(tmp_path / "mounts")!r})
mounts.write_text("36 35 0:40 / {tmp_path} rw - nfs4 server:/export rw\\n")
real = spool.refuse_network_file_system
emitter.refuse_network_file_system = lambda path: real(path, mounts)
from provenance import ProvenanceTracker
from provenance.errors import InputError
try:
    ProvenanceTracker({str(tmp_path / "base")!r}, {{}})
except InputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "network file system (nfs4 at " in done.stderr
    assert "choose a base_dir on a local disk" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("leftover", ["r0-half.new", "notes.txt"])
def test_what_is_no_segment_stops_nobody(leftover: str, world: World) -> None:
    with scenario(1, "a stranger's file in a dead trainer's spool") as tally:
        trainer = world.trainer(code=TRAINING, env={"PROVENANCE_REDIS_URL": ""})
        assert trainer.wait() == -9
        folder = world.base / "spool" / str(trainer.run)
        (folder / leftover).write_bytes(b"MLPS")
        (world.base / "spool" / "not-a-run").mkdir()
        by_hand.bring_home(world.settings)
        world.judge(tally, [trainer])
