"""``deploy/redis-users.acl`` on a real Redis: a shipper's password is not a worker's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from provenance.app import ship, up
from provenance.app.processes import free_ports, redis_server
from provenance.ledger.ingest import drain
from provenance.stores.redis_streams import RedisStreams
from provenance.stores.sql import SqlStore
from tests.conftest import missing
from tests.support.paths import ROOT
from tests.support.runs import POLICY, RUN, complete_run

USERS = ROOT / "deploy" / "redis-users.acl"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """A server with these users; its URL for one of them."""
    program = redis_server(ROOT / ".devnet")
    if program is None:
        missing("redis-server: provenance devnet install --only redis")
    assert program is not None
    (port,) = free_ports(1)
    users = USERS.read_text().replace("SHIPPER_PASSWORD", "s3").replace("WORKER_PASSWORD", "w3")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if "v=6" in version.stdout:  # no permission to read alone before Redis 7
        users = users.replace("%R~", "~")
    (tmp_path / "users.acl").write_text(users)
    command = [
        str(program), "--port", str(port), "--dir", str(tmp_path), "--save", "",
        "--aclfile", str(tmp_path / "users.acl"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def url(user: str) -> str:
        return f"redis://{user}:{user[0]}3@127.0.0.1:{port}/0"

    up.wait_until(RedisStreams(url("worker")).ping)
    yield url
    process.terminate()
    process.wait(10)


def test_a_shipper_ships_and_a_worker_takes_it(server: Callable[[str], str]) -> None:
    producer = complete_run()
    shipper, worker = RedisStreams(server("shipper")), RedisStreams(server("worker"))
    shipper.append([delivery.payload for delivery in producer.deliveries()])
    assert shipper.backlog() > 0
    ring = ship.celery_doorbell(server("shipper"))
    assert ring is not None
    ring()
    store = SqlStore.open("sqlite://")
    done = drain(worker, store, POLICY, "worker", 1.0)
    store.close()
    assert (done.new, done.parked, worker.backlog()) == (len(producer.events), 0, 0)
    assert shipper.acknowledged(RUN).keys() == {producer.name}
    with redis.Redis.from_url(server("worker")) as client:
        assert client.llen("hashing") == 1


FORBIDDEN: tuple[Callable[[Any], object], ...] = (
    lambda c: c.hset("prov:acked:x", "a", "an acknowledgement"),
    lambda c: c.delete("prov:events:0"),
    lambda c: c.xdel("prov:events:0", "1-1"),
    lambda c: c.xreadgroup("hashing", "me", {"prov:events:0": ">"}),
    lambda c: c.xrange("prov:events:0"),
    lambda c: c.lpush("anchor.ethereum", "x"),
    lambda c: c.lrange("hashing", 0, -1),
    lambda c: c.get("other"),
    lambda c: c.flushall(),
    lambda c: c.config_get("*"),
    lambda c: c.eval("return 1", 0),
    lambda c: c.keys("*"),
    lambda c: c.publish("x", "y"),
)


def test_a_shippers_password_does_no_more(server: Callable[[str], str]) -> None:
    with redis.Redis.from_url(server("shipper")) as client:
        for call in FORBIDDEN:
            with pytest.raises(redis.exceptions.NoPermissionError):
                call(client)
    with redis.Redis.from_url(server("worker")) as client:
        for call in (lambda c: c.flushall(), lambda c: c.config_get("*"), lambda c: c.shutdown()):
            with pytest.raises(redis.exceptions.NoPermissionError):
                call(client)
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(server("nobody").replace("nobody:n3@", "")).ping()
