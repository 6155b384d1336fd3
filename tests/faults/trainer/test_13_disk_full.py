"""Scenario 13: the disk under the spool fills up.

No exception reaches the training. Within the reserve nothing is lost; past it a gap record
says how many events are. A spool on a full disk drains, which is what makes room on it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.capture.spool_writer import RESERVE_BYTES
from provenance.errors import SpoolUnavailable
from provenance.formats.record import Kind, Record
from tests.faults.support import by_hand
from tests.faults.support.harness import Tally, World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer

# Emits numbered events through a tracker and an emitter, fills the disk when told to.
TRAINING = """
import json, sys, time
from pathlib import Path
from provenance import ProvenanceTracker
from provenance.formats.record import Kind

base, run = sys.argv[1:]
plan = json.loads((Path(base) / "plan.json").read_text())
tracker = ProvenanceTracker(base, {})
emitter = tracker._emitter
print("producer", emitter.producer.hex(), flush=True)
tracker.track_data([1.0, 2.0])
tracker.store_merkle_on_blockchain_before_training({"epochs": plan["epochs"]})
if plan["fill"]:
    try:
        with open(Path(base) / "spool" / "ballast", "wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
    except OSError:
        pass
for epoch in range(1, plan["epochs"] + 1):
    tracker.track_epoch(epoch, {"loss": 1 / epoch, "pad": "x" * plan["pad"]})
    if plan["free_at"] == epoch:
        (Path(base) / "spool" / "ballast").unlink()
        time.sleep(0.15)
held = tracker.get_blockchain_status()["events"]["held"]
tracker.store_merkle_on_blockchain_after_training({"accuracy": 1.0})
print(json.dumps({"held": held, **tracker.get_blockchain_status()["events"]}), flush=True)
"""


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges; run as root to include this test")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def train(world: World, epochs: int, pad: int, fill: bool = False, free_at: int = 0) -> Trainer:
    plan = {"epochs": epochs, "pad": pad, "fill": fill, "free_at": free_at}
    (world.base / "plan.json").write_text(json.dumps(plan))
    trainer = world.trainer(code=TRAINING, env={"PROVENANCE_REDIS_URL": ""})
    trainer.finish()
    assert "Traceback" not in trainer.out.with_suffix(".err").read_text()
    return trainer


def counts(trainer: Trainer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trainer.lines()[-1])
    return found


def records(world: World, run: UUID) -> list[Record]:
    with world.store().snapshot() as tx:
        return [Record.decode(row.data) for row in tx.records(run)]


def balance(world: World, run: UUID, epochs: int, tally: Tally) -> int:
    """Every epoch, and the results, are in the database or counted in a gap; how many in a gap."""
    found = records(world, run)
    there = {(r.kind, r.epoch) for r in found if r.kind in (Kind.METRICS, Kind.RESULTS)}
    dropped = sum(
        int(str(r.body["dropped"])) for r in found if r.kind is Kind.GAP and r.body["dropped"]
    )
    missing = epochs + 1 - len(there)
    tally.lost += abs(missing - dropped)
    tally.events += epochs
    end = [r for r in found if r.kind is Kind.RUN_END]
    assert len(end) == 1, "the end of the run is there"
    assert end[0].body["events"] == len(found) - 1
    return missing


MEGA = 1 << 20


def test_a_disk_that_fills_under_a_pre_allocated_segment_loses_nothing(
    world: World,
) -> None:
    with scenario(13, "disk full under the spool, within the segment") as tally:
        with small_disk(world.base / "spool", 9 * MEGA):
            trainer = train(world, 2000, 500, fill=True)
            said = counts(trainer)
            assert said["dropped"] == said["errors"] == said["held"] == 0
            tally.kills += 1
            by_hand.bring_home(world.settings)
        assert balance(world, trainer.run, 2000, tally) == 0
        world.wait_sealed(trainer.run, 1)
        world.judge(tally)


def test_a_disk_too_small_for_the_run_leaves_a_gap_record_and_drains_later(
    world: World,
) -> None:
    """Past disk and ring: events are dropped, the gap says how many, and the end is there."""
    with scenario(13, "disk full under the spool, past the reserve") as tally:
        rng = seeded()
        for _ in range(rounds(1, 10)):
            size = rng.randrange(128, 1024) * 1024
            epochs = 6000 + rng.randrange(2000)
            with small_disk(world.base / "spool", size):
                trainer = train(world, epochs, 200 + rng.randrange(800))
                said = counts(trainer)
                assert said["dropped"] > 0
                told = trainer.out.with_suffix(".err").read_text()
                assert told.count("events are dropped") == 1
                assert "No space left on device" in told
                tally.kills += 1
                assert said["errors"] == 0
                by_hand.bring_home(world.settings)
                left = [path.name for path in (world.base / "spool").iterdir()]
                assert left == ["shipper.lock"], "all of it was shipped and deleted"
            assert balance(world, trainer.run, epochs, tally) > 0
            world.wait_sealed(trainer.run, 1)
        assert all("gap" in finding["kind"] for finding in world.fsck()["findings"])


def test_room_in_time_loses_nothing(world: World) -> None:
    """Somebody makes room before the ring in memory is full."""
    with scenario(13, "disk full under the spool, then room") as tally:
        with small_disk(world.base / "spool", 4 * MEGA):
            ballast = world.base / "spool" / "ballast"
            ballast.write_bytes(bytes(4 * MEGA - 2 * RESERVE_BYTES - 300_000))
            trainer = train(world, 3000, 500, free_at=2500)
            said = counts(trainer)
            assert said["dropped"] == said["errors"] == said["held"] == 0
            tally.kills += 1
            by_hand.bring_home(world.settings)
        assert balance(world, trainer.run, 3000, tally) == 0
        world.wait_sealed(trainer.run, 1)
        world.judge(tally)


def test_a_quota_on_file_sizes_is_no_exception_either(world: World) -> None:
    """RLIMIT_FSIZE, where nothing can be mounted: a short write, then a refusal."""
    with scenario(13, "file size limit under the spool") as tally:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        plan = {"epochs": 1000, "pad": 500, "fill": False, "free_at": 0}
        (world.base / "plan.json").write_text(json.dumps(plan))
        trainer = world.trainer(code=limit + TRAINING, env={"PROVENANCE_REDIS_URL": ""})
        trainer.finish()
        assert counts(trainer)["dropped"] == 0
        tally.kills += 1
        by_hand.bring_home(world.settings)
        assert balance(world, trainer.run, 1000, tally) == 0
        world.judge(tally)


def test_a_run_that_cannot_begin_is_told_that_the_disk_is_full(world: World) -> None:
    (world.base / "spool").mkdir(exist_ok=True)
    with small_disk(world.base / "spool", MEGA):
        with suppress(OSError), (world.base / "spool/ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        with pytest.raises(SpoolUnavailable, match="No space left on device"):
            keep_run_keys(world.base / "spool" / "run", new_run_keys())
