"""The commands of deploy/compose.yaml as plain processes, on a real Redis and PostgreSQL.

No container engine: the entrypoint, the secret files, the commands and the configuration are
the ones of the compose file; only the paths of a container are those of a folder here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import pytest
import redis
import yaml

from provenance.app import up
from provenance.app.processes import free_ports
from provenance.bootstrap import reading
from provenance.dashboard.tokens import Scope, TokenFile
from provenance.errors import TransportUnavailable
from provenance.formats.producers.acknowledgement import open_acknowledgement
from provenance.formats.record import Phase
from provenance.ports.values import AnchorState
from provenance.settings import Settings
from provenance.stores.redis_streams import RedisStreams
from provenance.stores.sql import SqlStore
from tests.support.nodes.redis_users import redis_7
from tests.support.paths import ROOT
from tests.support.runs import complete_run, some_run

DEPLOY = ROOT / "deploy"
USERS = ("shipper", "worker", "operator")
OTHER_NETWORKS = ("anchor-ethereum", "anchor-bitcoin", "anchor-ipfs")
"""The shipped configuration names none of them, so that the sweep rings nobody there."""
INSPECTION = {("operator", "_kombu.binding.reply.celery.pidbox")}
"""All that is refused in a walk: Flower asks workers, who take no orders from Redis."""
RUN = some_run()
AUTH = "auditor:quite random"
PATIENCE_S = 90.0
"""Until a condition holds; far beyond what it takes, so that a slow machine passes."""

pytestmark = pytest.mark.nodes


@dataclass
class Host:
    """A folder that plays the container's file system, and the processes in it."""

    folder: Path
    flower_port: int
    metrics_port: int
    dashboard_port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(
        default_factory=lambda: yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    )

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def here(self, text: str) -> str:
        """A container's path or address as it is on this machine."""
        for inside, outside in (
            ("/run/secrets", str(self.folder / "secrets")),
            ("/etc/provenance/config.json", str(DEPLOY / "config.json")),
            ("/var/lib/provenance", str(self.base)),
            ("--address=0.0.0.0", "--address=127.0.0.1"),
            ("--port=5555", f"--port={self.flower_port}"),
            ("0.0.0.0:9464", f"127.0.0.1:{self.metrics_port}"),
            ("8484", str(self.dashboard_port)),
            ("/backup/", f"{self.folder}/backup/"),
        ):
            text = text.replace(inside, outside)
        return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)  # a variable that nobody set

    def environment(self, name: str) -> dict[str, str]:
        given = self.services[name].get("environment", {})
        assert isinstance(given, dict)
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "PROVENANCE_BASE_DIR": str(self.base),
            **{key: self.here(value) for key, value in given.items()},
            **(
                {"PROVENANCE_ALIVE_DIR": str(self.folder)}
                if "PROVENANCE_ALIVE_DIR" in given
                else {}
            ),
        }

    def argv(self, name: str) -> list[str]:
        command = self.services[name]["command"]
        assert isinstance(command, list)
        return ["sh", str(DEPLOY / "entrypoint.sh"), *self.words(command)]

    def words(self, command: list[str]) -> list[str]:
        """A command of our programs as it runs here."""
        words = [self.here(word) for word in command]
        words[:1] = {
            "python": [sys.executable],
            "provenance": [sys.executable, "-m", "provenance.cli"],
        }[words[0]]
        return words

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                self.argv(name),
                env=self.environment(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running[name] = process
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return f"{name}: {self.log(name).read_text(errors='replace')[-3000:]}"

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            for name, process in self.running.items():
                assert process.poll() is None, self.said(name)
            if time.monotonic() > deadline:
                pytest.fail(f"{what}\n" + "\n".join(map(self.said, self.running)))
            time.sleep(0.2)

    def grace(self, name: str) -> float:
        text = str(self.services[name]["stop_grace_period"])
        return float(text.removesuffix("s"))

    def memory(self, name: str) -> int:
        """Bytes of a service as a container counts them: pages shared in it counted once."""
        parent = psutil.Process(self.running[name].pid)
        family = [parent, *parent.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in family)

    def kill_all(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Redis:
    """The Redis of the compose file, and its secrets."""

    port: int
    tls_port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def url(self, user: str) -> str:
        text = (self.folder / f"secrets/redis_{user}_url").read_text()
        return text.replace("@redis:6379", f"@127.0.0.1:{self.port}")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """Its command in a folder, with one more user, ``watcher``, who may do everything."""
    server = redis_7()
    subprocess.run(
        ["sh", DEPLOY / "make-secrets.sh", tmp_path / "secrets", "localhost"],
        check=True,
        capture_output=True,
    )
    users = tmp_path / "secrets/redis_users"
    users.chmod(0o600)
    users.write_text(f"{users.read_text()}\nuser watcher on nopass ~* &* +@all\n")
    service, more = (
        yaml.safe_load((DEPLOY / name).read_text())["services"]["redis"]
        for name in ("compose.yaml", "compose.trainers.yaml")
    )
    port, tls_port = free_ports(2)
    data = tmp_path / "data"
    data.mkdir()
    shell, option, script = service["command"]
    script = script.replace("$$REDIS_MORE", more["environment"]["REDIS_MORE"])
    for inside, outside in (
        ("redis-server", server),
        ("/run/secrets", str(tmp_path / "secrets")),
        ("port 6379", f"port {port}"),
        ("tls-port 6380", f"tls-port {tls_port}"),
        ("/data", str(data)),
    ):
        assert inside in script
        script = script.replace(inside, outside)
    process = subprocess.Popen([shell, option, script], stdout=subprocess.DEVNULL)
    try:
        watcher = f"redis://watcher:any@127.0.0.1:{port}/0"
        up.wait_until(RedisStreams(watcher).ping, PATIENCE_S)
        yield Redis(port, tls_port, tmp_path, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def host(tmp_path: Path, own_redis: Redis, postgres_url: str) -> Iterator[Host]:
    flower_port, metrics_port, dashboard_port = free_ports(3)
    host = Host(tmp_path, flower_port, metrics_port, dashboard_port)
    for folder in ("base/run", "base/spool"):
        (tmp_path / folder).mkdir(parents=True)
    users = {f"redis_{user}_url": own_redis.url(user) for user in USERS}
    for name, value in {**users, "database_url": postgres_url, "flower_basic_auth": AUTH}.items():
        (tmp_path / "secrets" / name).unlink()
        (tmp_path / "secrets" / name).write_text(value + "\n")
    yield host
    host.kill_all()


def test_a_run_goes_through_the_fleet_and_sigterm_ends_it(
    host: Host, own_redis: Redis, postgres_url: str
) -> None:
    assert host.start("migrate").wait(PATIENCE_S) == 0, host.said("migrate")
    host.running.clear()
    fleet = [name for name, service in host.services.items() if is_app(service)]
    assert host.start("dashboard").wait(PATIENCE_S) == 2
    assert "has no token" in host.said("dashboard")
    token = TokenFile(host.base / "tokens.json").new("vision", Scope.READ, time.time())
    for name in fleet:
        host.start(name)

    producer = complete_run(run=RUN)
    transport = RedisStreams(own_redis.url("shipper"))
    transport.append([delivery.payload for delivery in producer.deliveries()])
    store = SqlStore.open(postgres_url)

    def final() -> bool:
        with store.snapshot() as tx:
            row = tx.run(RUN)
            anchored = {anchor.size for anchor in tx.anchors("local", [AnchorState.FINAL])}
            size = tx.ledger_size()
        return row is not None and row.state == "sealed" and size in anchored

    host.wait("the run is sealed and its head final on `local`", final)
    with store.snapshot() as tx:
        row = tx.run(RUN)
        entries = tx.entries(RUN)
        receipts = tx.receipts(RUN)
        records = tx.records(RUN)
    store.close()
    assert row is not None
    assert row.incomplete is None
    assert [entry.phase for entry in entries] == [Phase.BEFORE, Phase.AFTER]
    assert len(records) == len(producer.events)
    assert {receipt.network for receipt in receipts} == {"local"}
    assert (host.base / "anchors.jsonl").read_text().count("\n") >= 1
    assert (host.base / "ledger.key").stat().st_mode & 0o777 == 0o600
    said = transport.acknowledged(RUN)[producer.name]
    key = reading.ledger_key(Settings(host.base))
    assert key is not None
    count = open_acknowledgement(said, RUN, producer.name, key.public_bytes).count
    assert count == len(producer.events)

    host.wait("Flower answers", lambda: flower_status(host, AUTH) == 200)
    assert flower_status(host, None) == 401
    for name in fleet:
        test = host.services[name].get("healthcheck", {}).get("test", [])
        if "health" in test and name not in OTHER_NETWORKS:
            host.wait(f"{name} is fresh", partial(healthy, host, name))
    host.wait("the dashboard answers", lambda: healthy(host, "dashboard"))
    page = Request(f"http://127.0.0.1:{host.dashboard_port}/api/v1/health")
    page.add_header("Authorization", f"Bearer {token}")
    with build_opener(ProxyHandler({})).open(page, timeout=10) as answer:
        told = json.loads(answer.read())
    assert told["healthy"], told
    watch = f"http://127.0.0.1:{host.metrics_port}"
    with build_opener(ProxyHandler({})).open(f"{watch}/metrics", timeout=10) as answer:
        figures = answer.read().decode()
    for line in ('reachable{part="redis"} 1.0', 'reachable{part="database"} 1.0', 'state="final"'):
        assert line in figures
    with build_opener(ProxyHandler({})).open(f"{watch}/readyz", timeout=10) as answer:
        assert json.loads(answer.read())["ready"]
    with redis.Redis(port=own_redis.port, username="watcher", password="any") as client:
        denied = {(entry["username"], entry["object"]) for entry in client.acl_log()}
    assert denied == INSPECTION

    assert host.start("backup").wait(PATIENCE_S) == 0, host.said("backup")
    del host.running["backup"]
    kept = {path.name for path in (host.folder / "backup/new/files").iterdir()}
    assert {"ledger.key", "anchors.jsonl"} <= kept

    limits = {name: int(str(host.services[name]["mem_limit"]).removesuffix("m")) for name in fleet}
    used = {name: host.memory(name) // 2**20 for name in fleet}
    assert {name: mib for name, mib in used.items() if mib > limits[name]} == {}

    for name in fleet:
        host.running[name].send_signal(signal.SIGTERM)
    codes = {name: host.running[name].wait(host.grace(name)) for name in fleet}
    ended = dict.fromkeys(fleet, 0) | {"dashboard": -signal.SIGTERM}  # as uvicorn does
    assert codes == ended, "\n".join(map(host.said, fleet))
    leftovers = [name for name in fleet if group_alive(host.running[name].pid)]
    assert leftovers == []
    urls = [*map(own_redis.url, USERS), postgres_url]
    passwords = [part for url in urls if (part := urlsplit(url).password)]
    for name in fleet:
        log = host.log(name).read_text(errors="replace")
        assert not [word for word in (*passwords, AUTH) if word in log], name


def healthy(host: Host, name: str) -> bool:
    """What the health check of a service says in it."""
    probe = host.words(host.services[name]["healthcheck"]["test"][1:])
    return subprocess.call(probe, env=host.environment(name), stderr=subprocess.DEVNULL) == 0


def is_app(service: Mapping[str, object]) -> bool:
    """A process of ours that stays: no server of others, not the one-shot migration."""
    return "build" in service and service["restart"] != "no"


def flower_status(host: Host, auth: str | None) -> int:
    """What Flower's page answers; 0 where it does not listen yet."""
    request = Request(f"http://127.0.0.1:{host.flower_port}/workers")
    if auth is not None:
        request.add_header("Authorization", f"Basic {b64encode(auth.encode()).decode()}")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def group_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_redis_of_the_compose_file(own_redis: Redis) -> None:
    """It knows its users from the secret, and no password stands in its arguments."""
    with redis.Redis.from_url("redis://watcher:any@127.0.0.1", port=own_redis.port) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=own_redis.port).ping()
    passwords = [urlsplit(own_redis.url(user)).password or "" for user in USERS]
    assert all(passwords)
    certificate = own_redis.folder / "secrets/redis_tls_certificate"
    elsewhere = own_redis.url("shipper").replace("redis://", "rediss://")
    elsewhere = elsewhere.replace(f"127.0.0.1:{own_redis.port}", f"localhost:{own_redis.tls_port}")
    RedisStreams(f"{elsewhere}?ssl_ca_certs={certificate}").ping()
    with pytest.raises(TransportUnavailable, match="certificate"):
        RedisStreams(elsewhere).ping()
    arguments = " ".join(psutil.Process(own_redis.process.pid).cmdline())
    assert not [word for word in passwords if word in arguments]
    own_redis.process.send_signal(signal.SIGTERM)
    assert own_redis.process.wait(30) == 0, "the signal reaches Redis itself, not a shell before it"
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["redis"]
    check = service["healthcheck"]["test"][1].replace("$$", "$")
    sed = re.search(r"\$\((sed .*)\)", check)
    assert sed is not None
    read = sed.group(1).replace("/run/secrets", str(own_redis.folder / "secrets"))
    shown = subprocess.run(["sh", "-c", read], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == urlsplit(own_redis.url("operator")).password
