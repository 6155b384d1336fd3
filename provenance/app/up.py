"""What ``provenance up`` runs: one process per queue, beat, shipper, Redis, Flower.

The same commands stand in ``deploy/compose.yaml`` and in the systemd units; here one
supervisor starts them, starts again what dies, and stops all of them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from provenance import files
from provenance.app.base_directory import LOOK_S
from provenance.app.health import anchor_queue
from provenance.app.processes import REDIS_BY_HAND, free_ports, log_tail, redis_server, rotate
from provenance.errors import InputError, MissingExtraError, ServerMissingError, UnavailableError
from provenance.settings import Settings

GRACE_S = 20.0
RESTART_CAP_S = 30.0
_PACKAGES = {"workers": ("celery", "sqlalchemy", "alembic"), "dashboard": ("fastapi", "uvicorn")}
STARTED_S = 10.0
"""A process that lived this long is started again without delay."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the fleet."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = field(default=b"", repr=False)


def _celery(name: str, *words: str, **env: str) -> Service:
    return Service(name, (sys.executable, "-m", "celery", "-A", "workers.app", *words), env)


def worker(name: str, *queues: str) -> Service:
    """A Celery worker of one child process for some queues."""
    words = f"--queues {','.join(queues)} --hostname {name}@%h --concurrency 1 --pool prefork"
    options = "--without-gossip --without-mingle --loglevel INFO"
    return _celery(name, "worker", *words.split(), *options.split())


def dashboard(port: int) -> Service:
    """The dashboard on a loopback port; the packages are the extra ``dashboard``."""
    words = ("provenance.cli", "serve", "--host", "127.0.0.1", "--port", str(port))
    return Service("dashboard", (sys.executable, "-m", *words))


def services(
    settings: Settings,
    flower_port: int | None = None,
    flower_auth: str = "",
    metrics: str | None = None,
) -> list[Service]:
    """Shipper, one worker per queue, beat, and Flower where a port is given.

    Args:
        flower_auth: ``user:password`` that Flower asks for; without one its API refuses all.
        metrics: ``host:port`` that ``provenance health --serve`` listens on.
    """
    networks = settings.blockchain.active
    ship = (sys.executable, "-m", "provenance.app.ship", "--spool", str(spool(settings)))
    schedule = ("--schedule", str(settings.base_dir / "run" / "beat.db"), "--pidfile", "")
    fleet = [
        Service("shipper", ship),
        worker("hashing", "hashing"),
        *(worker(f"anchor-{network}", anchor_queue(network)) for network in networks),
        worker("confirm", "confirm", "verify"),
        _celery("beat", "beat", *schedule, "--loglevel", "INFO"),
    ]
    if metrics is not None:
        serve = ("health", "--serve", metrics)
        fleet.append(Service("metrics", (sys.executable, "-m", "provenance.cli", *serve)))
    if flower_port is not None:
        remote = {"PROVENANCE_REMOTE_CONTROL": "1"}
        fleet = [replace(service, env={**service.env, **remote}) for service in fleet]
        auth = {"FLOWER_BASIC_AUTH": flower_auth} if flower_auth else {}
        names = ",".join(s.name for s in fleet if "--hostname" in s.argv)
        words = ("-m", "workers.flower", "--address=127.0.0.1", f"--port={flower_port}")
        env = {**auth, "PROVENANCE_AWAITED_WORKERS": names}
        fleet.append(Service("flower", (sys.executable, *words), env))
    return fleet


def spool(settings: Settings) -> Path:
    """Where trainers leave their events."""
    return settings.base_dir / "spool"


def embedded_redis(settings: Settings) -> tuple[Service, str]:
    """A Redis of our own on loopback, with a password made now, and its URL.

    It keeps nothing on disk: the spool and the database are the truth, and the shipper
    sends again what a Redis lost.

    Raises:
        ServerMissingError: No redis-server here; says how to get one.
    """
    program = redis_server(Path(".devnet"))
    if program is None:
        raise ServerMissingError(f"redis is not installed: {REDIS_BY_HAND}")
    (port,) = free_ports(1)
    password = secrets.token_urlsafe(24)
    folder = settings.base_dir / "run"
    files.make_folders(folder, files.PRIVATE)
    config = (
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {_quoted(folder.absolute())}\n"
        'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
    )
    service = Service("redis", (str(program), "-"), stdin=config.encode())
    return service, f"redis://:{password}@127.0.0.1:{port}/0"


def _quoted(path: Path) -> str:
    """A path as an argument in Redis's configuration (sds.c, ``sdssplitargs``)."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


@dataclass(slots=True)
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    log_start: int = 0
    """Where in the log its own lines begin."""
    failures: int = 0
    next_start: float = 0.0


class Fleet:
    """Starts services, restarts what dies, stops all.

    Args:
        config_path: The JSON file the workers read as well.
        redis_url: Handed to every service by environment, never by argument.
        say: Told a service's name, and one line about what happens.
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        redis_url: str,
        say: Callable[[str, str], None],
    ) -> None:
        self.settings, self.say = settings, say
        self.log_dir = settings.base_dir / "log"
        files.make_folders(self.log_dir, files.PRIVATE)
        files.make_folders(settings.base_dir / "run", files.PRIVATE)
        spool(settings).mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            "PROVENANCE_REDIS_URL": redis_url,
            "PROVENANCE_DATABASE_URL": settings.database_url,
            "PROVENANCE_BASE_DIR": str(settings.base_dir.absolute()),
            "PYTHONUNBUFFERED": "1",
        }
        if config_path is not None:
            self.env["PROVENANCE_CONFIG"] = str(config_path.absolute())
        self.children: list[_Child] = []

    def start(self, fleet: Sequence[Service]) -> None:
        """Start services in order."""
        for service in fleet:
            self.children.append(_Child(service))
            self._spawn(self.children[-1])

    def tend(
        self,
        stopping: Callable[[], bool],
        changed: Callable[[], object] = bool,
        poll_s: float = 1.0,
    ) -> None:
        """Restart what dies, until ``stopping`` says so; ``changed``: process ids are others."""
        while not stopping():
            before = self.pids()
            self.mend()
            if self.pids() != before:
                changed()
            time.sleep(poll_s)

    def mend(self) -> None:
        """One round: note deaths, start again what is due, cut logs that have grown long."""
        now = time.monotonic()
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                lived = now - child.started
                child.failures = 0 if lived >= STARTED_S else child.failures + 1
                delay = min(RESTART_CAP_S, 2.0**child.failures - 1) * (0.5 + random.random() / 2)  # noqa: S311  jitter, no secret
                child.next_start, child.process = now + delay, None
                name = child.service.name
                self.say(name, _death(process.returncode, self.log_path(name), child.log_start))
            if child.process is None and now >= child.next_start:
                self._spawn(child)
            if rotate(self.log_path(child.service.name)):
                child.log_start = 0

    def pids(self) -> dict[str, int]:
        """Process ids of what is running, by service."""
        return {c.service.name: c.process.pid for c in self.children if c.process is not None}

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, newest first but Redis last; SIGKILL what is left after ``grace_s``."""
        for is_redis, seconds in ((False, grace_s), (True, 5.0)):
            self._end(
                [c for c in self.children if (c.service.name == "redis") == is_redis], seconds
            )
        self.children.clear()

    def log_path(self, name: str) -> Path:
        """A service's log file."""
        return self.log_dir / f"{name}.log"

    def _end(self, children: Sequence[_Child], grace_s: float) -> None:
        running = [(c.service.name, c.process) for c in children if c.process is not None]
        for _, process in reversed(running):
            process.terminate()
        deadline = time.monotonic() + grace_s
        for name, process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(name, f"still there after {grace_s:.0f} s, killed")
            with suppress(ProcessLookupError):  # pool children included
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _spawn(self, child: _Child) -> None:
        service = child.service
        with self.log_path(service.name).open("ab") as log:
            child.log_start = log.tell()
            child.process = subprocess.Popen(
                service.argv,
                stdin=subprocess.PIPE if service.stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.env, **service.env},
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        if service.stdin and child.process.stdin is not None:
            child.process.stdin.write(service.stdin)
            child.process.stdin.close()
        child.started = time.monotonic()
        self.say(service.name, f"started, process {child.process.pid}")


def _death(status: int, log: Path, since: int) -> str:
    """One that was killed said nothing of it; one that ended by itself said why last."""
    if status < 0:
        with suppress(ValueError):  # a real-time signal has no name
            return f"killed ({signal.Signals(-status).name}), is started again; see {log}"
    return f"ended with status {status}; {log_tail(log, since, lines=1)}"


def wait_until(ping: Callable[[], None], seconds: float = 10.0) -> None:
    """Wait until ``ping`` no longer raises.

    Raises:
        UnavailableError: It still does after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ping()
        except UnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def require_extra(extra: str) -> None:
    """Raise MissingExtraError where one of its packages is not installed."""
    for package in _PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra)


@contextmanager
def only_fleet(base_dir: Path) -> Iterator[None]:
    """Held while a fleet runs on a base directory.

    Raises:
        InputError: Another one does already.
    """
    path = base_dir / "run" / "up.lock"
    base_dir.mkdir(parents=True, exist_ok=True)
    files.make_folders(path.parent, files.PRIVATE)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(path, wait_s=LOOK_S))
        except BlockingIOError as error:
            raise InputError(f"{base_dir}: another `provenance up` runs here already") from error
        yield


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: a supervisor that is killed leaves nothing behind (prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
