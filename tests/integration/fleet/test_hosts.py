"""One run on two hosts, each a network namespace with a spool of its own, and one fleet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from provenance.bootstrap import sending
from provenance.capture.keys import new_run_keys
from provenance.settings import load
from tests.faults.support.lan import Lan
from tests.support.paths import ROOT

CLI = [sys.executable, "-m", "provenance.cli"]
HOSTS = "first", "second"
RANK = """
import os, sys
import numpy as np
from provenance import ProvenanceTracker

base, config, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tracker = ProvenanceTracker(base, config)
tracker.track_data(np.ones((4, 2)))
tracker.track_model({"w": np.ones(2, np.float32)})
tracker.store_merkle_on_blockchain_before_training({"epochs": 4})
for epoch in range(first, last + 1):
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model={"w": np.full(2, epoch, np.float32)})
if last < 4:
    tracker._snapshots.drain()
    os._exit(9)  # as a node that dies
tracker.store_merkle_on_blockchain_after_training({})
"""


class Hosts(NamedTuple):
    """Two hosts; the first one also has Redis and the fleet."""

    lan: Lan
    config: Path
    folder: Path
    env: dict[str, str]

    def start(self, host: int, *command: str, **env: str) -> subprocess.Popen[str]:
        with self.lan.on(HOSTS[host]):
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                env=self.env | env,
            )  # fmt: skip

    def rank(self, number: int, first: int, last: int, **env: str) -> subprocess.Popen[str]:
        """A trainer of epochs ``first`` to ``last``; before the 4th it dies."""
        told = {"RANK": str(number), "WORLD_SIZE": "2"} | env
        words = str(self.base(number)), str(self.config), str(first), str(last)
        return self.start(number, sys.executable, "-c", RANK, *words, **told)

    def base(self, host: int) -> Path:
        return self.folder / f"host-{host}"

    def files(self, name: str) -> list[Path]:
        return [path for host in (0, 1) for path in self.base(host).glob(f"spool/*/{name}")]

    def said(self, *words: str) -> Any:
        done = subprocess.run(
            [*CLI, *words, "--json", "--config", str(self.config), "--base-dir", str(self.base(0))],
            capture_output=True, text=True, timeout=60, env=self.env, cwd=ROOT, check=False,
        )  # fmt: skip
        return json.loads(done.stdout) if done.stdout else {}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    lan = Lan(*HOSTS)
    address = lan.address(HOSTS[0])
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"redis_url": f"redis://{address}:6379/0", "blockchain": {}}))
    quiet = {n: v for n, v in os.environ.items() if not n.startswith(("PROVENANCE_R", "RANK"))}
    stage = Hosts(lan, config, tmp_path, quiet)
    key = sending.ledger_signer(load(None, stage.base(0))).verifier  # the second host's pin
    stage.env["PROVENANCE_LEDGER_KEY"] = key.vkey
    running: list[subprocess.Popen[str]] = []
    try:
        server = shutil.which("redis-server") or str(ROOT / ".devnet" / "bin" / "redis-server")
        running.append(stage.start(0, server, "--bind", address, "--protected-mode", "no",
                                   "--save", "", "--dir", str(tmp_path)))  # fmt: skip
        running.append(stage.start(0, *CLI, "up", "--config", str(config), "--base-dir",
                                   str(stage.base(0))))  # fmt: skip
        yield stage
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        lan.close()


def until(what: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


@pytest.mark.nodes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ranks_of_two_hosts_write_one_run_and_each_can_restart(
    hosts: Hosts, order: tuple[int, int]
) -> None:
    keys = new_run_keys()
    seed = {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}

    for rank in order:
        died = hosts.rank(rank, 1, 2, **seed)
        assert died.wait(60) == 9, died.communicate()[1]
    assert until(lambda: not hosts.files("*.seg")), "events stay in the spools"
    for key in hosts.files("run.key"):
        key.unlink()  # as a shipper does with a run to which nobody comes back

    refused = hosts.rank(order[0], 3, 4, PROVENANCE_RUN_ID=str(keys.run))
    said = refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    assert "PROVENANCE_RUN_SEED: not set" in said.splitlines()[-1]
    assert "provenance run --" in said.splitlines()[-1]
    for rank in reversed(order):
        again = hosts.rank(rank, 3, 4, **seed)
        assert again.wait(60) == 0, again.communicate()[1]

    def sealed() -> Any:
        shown = hosts.said("status", str(keys.run))
        return shown if shown.get("sealed") else None

    shown = until(sealed)
    assert shown
    overview = hosts.said("status")
    assert [run["run_id"] for run in overview["runs"]] == [str(keys.run)]
    assert overview["parked"] == 0
    assert shown["epochs"] == [1, 2, 3, 4]
    verdict = hosts.said("verify", str(keys.run))
    assert verdict["incomplete"] is None
    assert verdict["findings"] == []
    assert seed["PROVENANCE_RUN_SEED"] not in json.dumps([shown, overview, verdict])
