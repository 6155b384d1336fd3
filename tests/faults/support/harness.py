"""What the fault tests stand on: a deployment of real processes that can be killed at will.

``PROVENANCE_FAULTS=long`` (``make faults``) runs the long forms; without it the short ones
run with the other tests. ``PROVENANCE_FAULTS_SEED`` replays a run's random choices.

Over 400 lines: a deployment, its processes and its trainers in one world.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from provenance.app import up
from provenance.app.processes import log_tail
from provenance.bootstrap import sending
from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.ports.store import LedgerStore
from provenance.ports.values import AnchorState
from provenance.settings import Settings, load
from tests.faults.support import by_hand, checker
from tests.faults.support.processes import (
    RedisServer,
    Trainer,
    die_with_parent,
    signal_group,
    until,
)
from tests.faults.support.undisturbed import undisturbed_roots
from tests.support.paths import ROOT

LONG = os.environ.get("PROVENANCE_FAULTS") == "long"
SEED = int(os.environ.get("PROVENANCE_FAULTS_SEED") or secrets.randbits(32))
RESULTS = ROOT / "build" / "faults" if LONG else ROOT / "build" / "faults-short"


def rounds(short: int, long: int) -> int:
    """How often the test repeats itself in this form."""
    return long if LONG else short


# --- a scenario and its result -------------------------------------------------------------


@dataclass
class Tally:
    """One row of the summary. ``lost`` and ``doubled`` MUST stay 0 for ``passed``."""

    scenario: int
    title: str
    kills: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    seed: int = 0
    passed: bool = False
    seconds: float = 0.0
    note: str = ""


_current: list[Tally] = []


def seeded() -> random.Random:
    """The random choices of this scenario; the seed is printed and in the result."""
    number = _current[-1].scenario if _current else 0
    print(f"PROVENANCE_FAULTS_SEED={SEED}")
    return random.Random(f"{SEED}/{number}")


@contextmanager
def scenario(number: int, title: str) -> Iterator[Tally]:
    """Time a scenario and write its row, also when it fails.

    Several tests may share a number; the summary adds their rows up.
    """
    tally = Tally(number, title, seed=SEED)
    _current.append(tally)
    start = time.monotonic()
    try:
        yield tally
        assert tally.lost == 0, f"{tally.lost} lost"
        assert tally.doubled == 0, f"{tally.doubled} doubled"
        tally.passed = True
    finally:
        _current.pop()
        tally.seconds = round(time.monotonic() - start, 2)
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split(" ")[0]
        slug = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:80]
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{number:02d}{'-' if slug else ''}{slug}.json"
        path.write_text(json.dumps(asdict(tally)) + "\n", encoding="utf-8")
        outcome = "passed" if tally.passed else "FAILED"
        print(
            f"scenario {number}: {title}: {outcome}; kills {tally.kills}, events {tally.events}, "
            f"lost {tally.lost}, doubled {tally.doubled}, {tally.seconds} s, seed {SEED}"
        )


# --- a deployment --------------------------------------------------------------------------


class World:
    """One deployment in a folder: Redis, database, spool, and the processes of the fleet.

    Redis runs from the start; services run when :meth:`start` is called. Close it.

    Args:
        networks: Sections of ``blockchain`` beside the local file, as in ``configs/``.
        more: Further top-level keys of the configuration.
        redis: A server that runs, in place of one of its own.
    """

    def __init__(
        self,
        base: Path,
        *,
        networks: dict[str, Any] | None = None,
        sweep_interval: float = 1.0,
        lease: float = 5.0,
        seal_grace: float = 60.0,
        more: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        redis: RedisServer | None = None,
    ) -> None:
        self.base = base
        self.release = ROOT
        """Folder of the source tree that services and commands are started from."""
        base.mkdir(parents=True, exist_ok=True)
        self.redis = redis or RedisServer(base / "redis")
        self.redis_url = self.redis.url
        self.config = base / "config.json"
        sections = dict(networks or {})
        document = {
            "redis_url": self.redis_url,
            "sweep_interval": sweep_interval,
            "lease": lease,
            "seal_grace": seal_grace,
            "blockchain": {
                "enabled": True,
                "networks": [*sections, *([] if "local" in sections else ["local"])],
                **sections,
            },
            **(more or {}),
        }
        self.config.write_text(json.dumps(document, indent=2), encoding="utf-8")
        self.settings: Settings = load(self.config, base)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PROVENANCE_REDIS_URL": self.redis_url,
            "PROVENANCE_DATABASE_URL": self.settings.database_url,
            "PROVENANCE_BASE_DIR": str(base.absolute()),
            "PROVENANCE_CONFIG": str(self.config.absolute()),
            **(env or {}),
        }
        for name in ("log", "run", "spool", "kept", "out"):
            (base / name).mkdir(exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.trainers: list[Trainer] = []
        self._store: LedgerStore | None = None
        self._services = {service.name: service for service in up.services(self.settings)}
        if redis is None:
            self.redis.start()
        self.store()
        sending.ledger_signer(self.settings)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything at once."""
        for process in (*self.processes.values(), *(t.process for t in self.trainers)):
            signal_group(process.pid, signal.SIGKILL)
            process.wait(10)
        self.processes.clear()
        self.redis.kill()
        if self._store is not None:
            self._store.close()
            self._store = None

    # --- services ---------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start services by name (all where none is named) that do not run."""
        for name in names or self._services:
            running = self.processes.get(name)
            if running is not None and running.poll() is None:
                continue
            self.spawn(name, self._services[name].argv)

    def spawn(
        self, name: str, argv: Sequence[str], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start any command in this deployment's environment, under a name."""
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.env, **(env or {})},
                cwd=self.release,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return self.processes[name]

    def command(self, *words: str, **env: str) -> tuple[int, str]:
        """Exit code and output of a ``provenance`` command in this deployment's environment."""
        done = subprocess.run(
            [sys.executable, "-m", "provenance.cli", *words],
            capture_output=True, text=True, env={**self.env, **env}, cwd=self.release,
            timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def second(self, name: str, new_name: str) -> None:
        """A second process of a service, such as another beat or hashing worker."""
        argv = [
            part.replace(f"{name}@", f"{new_name}@").replace("beat.db", f"{new_name}.db")
            for part in self._services[name].argv
        ]
        self.spawn(new_name, argv)

    def wait_ready(self, *names: str, timeout: float = 60) -> None:
        """Until Celery workers consume."""
        for name in names:
            log = self.log(name)
            assert until(partial(_says, log, " ready."), timeout), (
                f"{name} did not start: {log_tail(log)}"
            )

    def mend(self) -> list[str]:
        """Start again what died, as a supervisor does; the names."""
        dead = [n for n, p in self.processes.items() if p.poll() is not None]
        self.start(*[n for n in dead if n in self._services]) if dead else None
        return dead

    def log(self, name: str) -> Path:
        return self.base / "log" / f"{name}.log"

    def pids(self, name: str) -> list[int]:
        """The process, then its children."""
        process = self.processes[name]
        try:
            parent = psutil.Process(process.pid)
            return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str, sig: int = signal.SIGKILL, part: str = "all") -> None:
        """Signal a service: ``all`` of it, its ``parent`` process or its pool ``child``."""
        process = self.processes[name]
        if part == "all":
            signal_group(process.pid, sig)
        else:
            pids = self.pids(name)
            for pid in pids[:1] if part == "parent" else pids[1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, sig)
        if sig == signal.SIGKILL and part in ("all", "parent"):
            process.wait(10)
            signal_group(process.pid, signal.SIGKILL)

    def stop(self, *names: str, grace_s: float = 20.0) -> None:
        """SIGTERM, as a supervisor does; SIGKILL after the grace."""
        chosen = {n: p for n, p in self.processes.items() if not names or n in names}
        for process in chosen.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + grace_s
        for name, process in chosen.items():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            signal_group(process.pid, signal.SIGKILL)
            process.wait(10)
            del self.processes[name]

    # --- training ---------------------------------------------------------------------

    def trainer(
        self,
        *,
        epochs: int = 3,
        metrics_per_epoch: int = 10,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        pace_s: float = 0.0,
        anchor: bool = True,
        code: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Trainer:
        """Start a trainer: a whole run through an Emitter (:mod:`tests.faults.support.training`).

        Args:
            pace_s: Pause after every event.
            code: Python text to run instead; ``sys.argv[1:]`` is base folder and run id, and
                it prints a sequence number for every promise it got.
        """
        keys = new_run_keys()
        run = keys.run
        keep_run_keys(self.base / "spool" / str(run), keys)
        out = self.base / "out" / f"{len(self.trainers)}.out"
        options = {
            "epochs": epochs, "metrics": metrics_per_epoch, "rank": rank, "seed": seed,
            "world_size": world_size, "pace_s": pace_s, "anchor": anchor,
        }  # fmt: skip
        arguments = [str(self.base), str(run)]
        if code is not None:
            argv = [sys.executable, "-c", code, *arguments]
        else:
            argv = [
                sys.executable,
                "-m",
                "tests.faults.support.training",
                *arguments,
                json.dumps(options),
            ]
        identity = {
            "PROVENANCE_RUN_ID": str(run), "PROVENANCE_RUN_SEED": keys.seed.hex(),
            "RANK": str(rank), "WORLD_SIZE": str(world_size),
        }  # fmt: skip
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**self.env, **identity, **(env or {})},
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        trainer = Trainer(run, rank, process, out)
        self.trainers.append(trainer)
        return trainer

    def undisturbed_roots(self, run: UUID | str) -> dict[str, str]:
        """The roots of the same events, shipped and sealed in this process without faults."""
        return undisturbed_roots(self.base / "kept", UUID(str(run)))

    # --- what is there now --------------------------------------------------------------

    def store(self) -> LedgerStore:
        """The deployment's database; closed with the world."""
        if self._store is None:
            self._store = sending.open_store(self.settings)
        assert self._store is not None
        return self._store

    def events(self, run: UUID | str) -> int:
        """Records of the run in the database."""
        with self.store().snapshot() as tx:
            return len(tx.records(UUID(str(run))))

    def missing(self, trainer: Trainer) -> set[int]:
        """Promised events that the database does not have."""
        with self.store().snapshot() as tx:
            rows = tx.records(trainer.run)
        producer = trainer.producer
        return set(trainer.promised()) - {r.seq for r in rows if r.producer == producer}

    def roots(self, run: UUID | str) -> dict[str, str]:
        """Ledger entries of a run: ``before``, ``checkpoint/3``, ``after`` -> hex root."""
        with self.store().snapshot() as tx:
            return checker.named_roots(tx.entries(UUID(str(run))))

    def wait_home(self, run: UUID | str, events: int, timeout: float = 60) -> None:
        """Until the database has so many events of the run."""
        self._wait(lambda: self.events(run) >= events, timeout, f"{events} events of {run}")

    def wait_sealed(self, run: UUID | str, timeout: float = 60) -> None:
        def sealed() -> bool:
            with self.store().snapshot() as tx:
                row = tx.run(UUID(str(run)))
            return row is not None and row.state == "sealed"

        self._wait(sealed, timeout, f"seal of {run}")

    def wait_final(self, run: UUID | str, timeout: float = 60) -> None:
        """Until the run is sealed and every network covers its anchored entries for good."""
        self.wait_sealed(run, timeout)
        wanted = self.settings.blockchain.networks

        def final() -> bool:
            with self.store().snapshot() as tx:
                entries = [e for e in tx.entries(UUID(str(run))) if e.anchor]
                done = tx.anchors(states=[AnchorState.FINAL])
            sizes = {n: max((a.size for a in done if a.network == n), default=0) for n in wanted}
            return all(sizes[n] > e.index for n in wanted for e in entries)

        self._wait(final, timeout, f"final anchors of {run}")

    def _wait(self, what: Callable[[], bool], timeout: float, name: str) -> None:
        if not until(what, timeout):
            logs = {n: log_tail(self.log(n)) for n in self.processes}
            raise AssertionError(f"no {name} after {timeout} s; {json.dumps(logs, indent=1)}")

    # --- judging ------------------------------------------------------------------------

    def fsck(self, *, online: bool = True) -> dict[str, Any]:
        """``{"checked": {...}, "findings": [...]}`` by ``provenance fsck`` in a process.

        Where a scenario runs no anchoring worker, heads would wait for one and be found.
        """
        if "anchor-local" not in self.processes:
            by_hand.anchor(self.settings)
        return checker.fsck(
            self.settings, self.config, self.env, online=online, release=self.release
        )

    def judge(
        self, tally: Tally, trainers: Iterable[Trainer] = (), *, online: bool = True
    ) -> dict[str, Any]:
        """Count into the tally what was promised, lost and doubled; fsck must be clean."""
        for trainer in trainers:
            promised = trainer.promised()
            assert promised, "the trainer was promised nothing"
            tally.events += len(promised)
            tally.lost += len(self.missing(trainer))
        report = self.fsck(online=online)
        tally.doubled += sum("doubl" in finding["kind"] for finding in report["findings"])
        assert report["findings"] == [], json.dumps(report["findings"], indent=1)
        return report


def _says(log: Path, words: str) -> bool:
    return words in log.read_text(errors="replace")
