"""What ``provenance up`` costs while there is nothing to do.

    python tests/benchmarks/bench_idle.py [--seconds S] [--config FILE ...] [--json]

Starts the whole fleet (embedded Redis, shipper, one worker per queue, beat) in an empty
folder, lets it settle, and adds up the CPU time of all its processes: as a share of one core
and of the whole machine, beside the largest resident size of any one of them. Measured with
the local network alone and, where a devnet is up (``make devnet``) or configurations are
named, with those too; never with the Redis that they name, whose events belong to others.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

DEVNET_CONFIG = Path(".devnet/blockchain_config.json")
TARGET_CORES = 2
TARGET_MACHINE_PERCENT = 2.0
TARGET_RESIDENT_MIB = 200.0
SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Idle:
    """One fleet at rest. CPU in percent, memory in MiB (resident set size)."""

    name: str
    seconds: float
    processes: int
    core_percent: float
    machine_percent: float
    target_machine_percent: float
    largest_mib: float
    largest: str
    total_mib: float
    target_mib: float = TARGET_RESIDENT_MIB
    by_service: dict[str, float] = field(default_factory=dict)
    """Percent of one core by service, children included."""


def measure(name: str, config: Path | None, seconds: float, settle_s: float = SETTLE_S) -> Idle:
    """Start a fleet, let it settle, and measure it for ``seconds``."""
    with tempfile.TemporaryDirectory(prefix="idle-") as folder:
        process, services = _start(Path(folder), config)
        try:
            time.sleep(settle_s)
            return _measure(name, process, services, seconds)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def _own_redis(base: Path, config: Path) -> Path:
    """A copy of a configuration that brings its own Redis."""
    document = json.loads(config.read_bytes())
    document.pop("redis_url", None)
    document.pop("database_url", None)
    copy = base / "config.json"
    copy.write_text(json.dumps(document))
    return copy


def _start(base: Path, config: Path | None) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """The running fleet and its services' process ids."""
    arguments = ["--config", str(_own_redis(base, config))] if config is not None else []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "provenance.cli", "up", "--json",
            "--base-dir", str(base), *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        if not line:
            _, problem = process.communicate()
            raise SystemExit(f"provenance up ended: {problem.strip()}")
        text += line
    services: dict[str, int] = json.loads(text)["services"]
    return process, services


def _measure(
    name: str, process: subprocess.Popen[str], services: dict[str, int], seconds: float
) -> Idle:
    top = psutil.Process(process.pid)
    names = {process.pid: "up", **{pid: service for service, pid in services.items()}}
    begun, before = time.monotonic(), _cpu_times(top, names)
    time.sleep(seconds)
    elapsed, after = time.monotonic() - begun, _cpu_times(top, names)
    spent: dict[str, float] = {}
    for key, (service, total) in after.items():
        spent[service] = spent.get(service, 0.0) + total - before.get(key, (service, 0.0))[1]
    by_service = {service: round(100 * s / elapsed, 2) for service, s in spent.items()}
    sizes = {
        f"{service} ({pid})": psutil.Process(pid).memory_info().rss / 2**20
        for (pid, _), (service, _) in after.items()
        if psutil.pid_exists(pid)
    }
    largest = max(sizes, key=lambda key: sizes[key])
    core_percent = 100 * sum(spent.values()) / elapsed
    return Idle(
        name=name,
        seconds=round(elapsed, 1),
        processes=len(after),
        core_percent=round(core_percent, 2),
        machine_percent=round(core_percent / (os.cpu_count() or 1), 2),
        target_machine_percent=round(
            TARGET_MACHINE_PERCENT * TARGET_CORES / (os.cpu_count() or 1), 2
        ),
        largest_mib=round(sizes[largest], 1),
        largest=largest,
        total_mib=round(sum(sizes.values()), 1),
        by_service=dict(sorted(by_service.items(), key=lambda item: -item[1])),
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to look (30)")
    parser.add_argument("--config", type=Path, action="append", help="measure with this file too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    configs = arguments.config or ([DEVNET_CONFIG] if DEVNET_CONFIG.exists() else [])
    wanted: list[tuple[str, Path | None]] = [("local alone", None)]
    wanted += [(str(path), path) for path in configs]
    results = [measure(name, path, arguments.seconds) for name, path in wanted]
    if arguments.json:
        rows: list[dict[str, Any]] = [asdict(row) for row in results]
        print(json.dumps({"bench": "idle", "results": rows}))
        return
    for row in results:
        print(
            f"{row.name}: {row.processes} processes, {row.core_percent:.2f} % of a core, "
            f"{row.machine_percent:.2f} % of this machine's {os.cpu_count()} "
            f"(target {row.target_machine_percent:g} %)"
        )
        print(
            f"  largest {row.largest_mib:.0f} MiB resident, {row.largest} "
            f"(target {row.target_mib:g}); all together {row.total_mib:.0f} MiB"
        )
        shown = "  ".join(f"{name} {share:.2f}" for name, share in row.by_service.items())
        print(f"  % of a core: {shown}")


if __name__ == "__main__":
    main()
