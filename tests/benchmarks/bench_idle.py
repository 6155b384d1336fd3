"""What ``provenance up`` costs while there is nothing to do.

Starts the whole fleet (embedded Redis, shipper, one worker per queue, beat) in an empty
folder, lets it settle, and adds up the CPU time of all its processes: as a share of one core
and of the whole machine, beside the largest resident size of any one of them. Measured with
the local network alone and, where a devnet is up (``make devnet``), with its networks too;
never with its Redis, whose events belong to others.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.benchmarks.measure import ROOT
from tests.benchmarks.table import PARTS, Row, missing, row
from tests.benchmarks.worlds import fleet

DEVNET_CONFIG = ROOT / ".devnet/blockchain_config.json"
SETTLE_S, SECONDS = 15.0, 30.0
MACHINE_PERCENT, CORES, RESIDENT_MIB = 2.0, 2, 200.0
"""Bars: percent of a machine with so many cores, MiB of a process."""
POLLS = "Celery's: each of three workers asks Redis again and again, 0.4 % each, and Redis answers"


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    if quick:
        yield missing("fleet at rest", "it takes a minute, leave --quick out")
        return
    configs: list[tuple[str, Path | None]] = [("local network", None)]
    if DEVNET_CONFIG.exists():
        configs.append(("devnet", DEVNET_CONFIG))
    for name, config in configs:
        with tempfile.TemporaryDirectory(prefix="idle-") as folder:
            with fleet(Path(folder), config) as (process, services):
                time.sleep(SETTLE_S)
                yield from _measure(name, process, services)


def _measure(name: str, process: subprocess.Popen[str], services: dict[str, int]
) -> Iterator[Row]:  # fmt: skip
    """CPU in percent, memory in MiB (resident set size)."""
    top = psutil.Process(process.pid)
    names = {process.pid: "up", **{pid: service for service, pid in services.items()}}
    cores = os.cpu_count() or 1
    shares: list[float] = []
    for _ in range(PARTS):
        begun, before = time.monotonic(), _cpu_times(top, names)
        time.sleep(SECONDS / PARTS)
        elapsed, after = time.monotonic() - begun, _cpu_times(top, names)
        spent = sum(total - before.get(key, ("", 0.0))[1] for key, (_, total) in after.items())
        shares.append(100 * spent / elapsed)
    sizes = [
        psutil.Process(pid).memory_info().rss / 2**20 for pid, _ in after if psutil.pid_exists(pid)
    ]
    label = f"fleet at rest, {name}"
    yield row(f"{label}, CPU of one core", "%", shares)
    bar = f"value <= {MACHINE_PERCENT * CORES / cores:g}"
    mean = sum(shares) / len(shares) / cores
    yield row(f"{label}, mean CPU of {cores} cores", "%", [mean], bar=bar, reason=POLLS)
    yield row(f"{label}, largest process", "MiB", [max(sizes)], bar=f"value <= {RESIDENT_MIB:g}")
    yield row(f"{label}, {len(after)} processes together", "MiB", [sum(sizes)])


def _cpu_times(
    top: psutil.Process, names: dict[int, str]
) -> dict[tuple[int, float], tuple[str, float]]:
    """Seconds of CPU by (pid, start): of every process below ``top``, with its service."""
    found: dict[tuple[int, float], tuple[str, float]] = {}
    for process in [top, *top.children(recursive=True)]:
        try:
            times = process.cpu_times()
            service = names.get(process.pid) or names.get(process.ppid(), process.name())
            found[process.pid, process.create_time()] = (service, times.user + times.system)
        except psutil.NoSuchProcess:
            continue
    return found
