"""``deploy/redis-users.acl`` on a real Redis 7: what each of its users can do, and what it cannot.

That every command of the fleet is allowed is seen in test_deploy_processes, where a run goes
through all services and Redis notes what it refused.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from provenance.app import up
from provenance.app.processes import free_ports
from provenance.capture.emitter import Emitter
from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.capture.ship.loop import Shipper
from provenance.errors import ConfigError, TransportUnavailable
from provenance.formats.producers.acknowledgement import NOBODY
from provenance.formats.record import Kind
from provenance.ledger.ingest import drain
from provenance.stores.redis_board import RedisBoard
from provenance.stores.redis_streams import RedisStreams
from provenance.stores.sql import SqlStore
from tests.support.nodes.redis_users import redis_7
from tests.support.paths import ROOT
from tests.support.runs import POLICY, RUN, complete_run

DEPLOY = ROOT / "deploy"
EVENTS = "prov:events:0"
LAST_ID = f"{2**64 - 1}-{2**64 - 1}"
Url = Callable[[str], str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Url]:
    """A server with these users; its URL for one of them."""
    program, (port,) = redis_7(), free_ports(1)
    make = ["sh", str(DEPLOY / "make-secrets.sh"), str(tmp_path / "secrets")]
    subprocess.run(make, check=True, capture_output=True)
    command = [
        program, "--port", str(port), "--dir", str(tmp_path), "--save", "",
        "--aclfile", str(tmp_path / "secrets/redis_users"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def url(user: str) -> str:
        text = (tmp_path / f"secrets/redis_{user}_url").read_text()
        return text.replace("@redis:6379", f"@127.0.0.1:{port}")

    try:
        up.wait_until(RedisStreams(url("operator")).ping)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_a_server_refuses_the_file_with_its_placeholders(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [redis_7(), "--port", str(port), "--aclfile", str(DEPLOY / "redis-users.acl")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert "lowercase hexadecimal characters" in done.stdout + done.stderr


def test_a_shipper_ships_and_a_worker_takes_it(server: Url) -> None:
    producer = complete_run()
    shipper, worker = RedisStreams(server("shipper")), RedisStreams(server("worker"))
    shipper.append([delivery.payload for delivery in producer.deliveries()])
    assert shipper.backlog() > 0
    assert RedisStreams(server("operator")).backlog() > 0
    assert worker.wait(1.0)
    assert worker.ledger("own") == RedisStreams(server("operator")).ledger() == "own"
    store = SqlStore.open("sqlite://")
    done = drain(worker, store, POLICY, "worker", lambda: 1.0)
    store.close()
    assert (done.new, done.parked, worker.backlog()) == (len(producer.events), 0, 0)
    assert shipper.acknowledged(RUN).keys() == {producer.name, NOBODY}
    shipper.append([producer.batch()])
    worker.give_back(worker.read("worker", 1))
    assert worker.claim_stale("worker", 0.0, 1)[0].deliveries == 1
    worker.publish_beacon("bitcoin", b"block")
    assert shipper.beacon("bitcoin") == b"block"
    worker.remember_head("aa", 3, "three")
    assert worker.newest_head("aa") == RedisStreams(server("operator")).newest_head("aa") == "three"


def test_shippers_report_workers_count_and_the_operator_sees_both(server: Url) -> None:
    RedisBoard(server("shipper")).report("host:/spool", {"bytes": 1})
    worker = RedisBoard(server("worker"))
    worker.count({("tasks", "hashing"): 2.0}, {("alive", "hashing"): 1.0})
    worker.require_writes()
    assert [length for length, _ in worker.waiting()] == [0] * 16
    operator = RedisBoard(server("operator"))
    for board in (worker, operator):
        assert board.reports()["host:/spool"]["bytes"] == 1
        assert board.counts()["tasks", "hashing"] == 2
    with pytest.raises(ConfigError):
        operator.require_writes()


EVERYBODY: dict[str, Callable[[Any], object]] = {
    "flushall": lambda c: c.flushall(),
    "config": lambda c: c.config_get("*"),
    "keys": lambda c: c.keys("*"),
    "acl": lambda c: c.acl_list(),
    "shutdown": lambda c: c.shutdown(),
    "replicaof": lambda c: c.replicaof("127.0.0.1", 1),
    "monitor": lambda c: c.execute_command("MONITOR"),
    "set a stream": lambda c: c.set(EVENTS, "x"),
    "set an acknowledgement": lambda c: c.set(f"prov:acked:{RUN}", "x"),
    "another key": lambda c: c.get("other"),
    "stop workers": lambda c: c.execute_command("CLIENT", "KILL", "TYPE", "normal"),
}
FORBIDDEN: dict[str, dict[str, Callable[[Any], object]]] = {
    "shipper": {
        "acknowledge": lambda c: c.hset(f"prov:acked:{RUN}", "a", "x"),
        "delete a stream": lambda c: c.delete(EVENTS),
        "unlink a stream": lambda c: c.unlink(EVENTS),
        "rename a stream": lambda c: c.rename(EVENTS, "prov:events:1"),
        "expire a stream": lambda c: c.expire(EVENTS, 1),
        "delete an entry": lambda c: c.xdel(EVENTS, "1-1"),
        "trim": lambda c: c.xtrim(EVENTS, 0),
        "set ids": lambda c: c.execute_command("XSETID", EVENTS, LAST_ID),
        "read a stream": lambda c: c.xrange(EVENTS),
        "take from a stream": lambda c: c.xreadgroup("hashing", "me", {EVENTS: ">"}),
        "destroy a group": lambda c: c.xgroup_destroy(EVENTS, "hashing"),
        "another ledger": lambda c: c.set("prov:ledger", "x"),
        "another block": lambda c: c.set("prov:beacon:bitcoin", "x"),
        "append elsewhere": lambda c: c.xadd("prov:generation", {"b": "x"}),
        "ring": lambda c: c.lpush("hashing", "x"),
        "another queue": lambda c: c.lpush("anchor.ethereum", "x"),
        "read a queue": lambda c: c.lrange("hashing", 0, -1),
        "empty a queue": lambda c: c.brpop("hashing", 1),
        "trim a queue": lambda c: c.ltrim("hashing", 1, 0),
        "overwrite a queue": lambda c: c.set("hashing", "x"),
        "bind a queue": lambda c: c.sadd("_kombu.binding.hashing", "x"),
        "count": lambda c: c.hset("prov:counts", "x", 1),
        "read reports": lambda c: c.hgetall("prov:shippers"),
        "script": lambda c: c.eval("return 1", 0),
        "script a key": lambda c: c.eval("return 1", 1, "prov:generation"),
        "publish": lambda c: c.publish("/0.celery.pidbox", "x"),
        "subscribe": lambda c: c.execute_command("SUBSCRIBE", "/0.celeryev/x"),
        "restore": lambda c: c.restore("prov:generation", 0, b"x", replace=True),
    },
    "worker": {
        "append": lambda c: c.xadd(EVENTS, {"b": "x"}),
        "another generation": lambda c: c.set("prov:generation", "x"),
        "give the streams away": lambda c: c.delete("prov:ledger"),
        "drop acknowledgements": lambda c: c.delete(f"prov:acked:{RUN}"),
        "read acknowledgements": lambda c: c.hgetall(f"prov:acked:{RUN}"),
        "report": lambda c: c.hset("prov:shippers", "x", "{}"),
        "read a block": lambda c: c.get("prov:beacon:bitcoin"),
        "control other workers": lambda c: c.publish("/0.celery.pidbox", "x"),
        "take orders": lambda c: c.execute_command("SUBSCRIBE", "/0.celery.pidbox"),
        "append by a script": lambda c: c.eval(
            "return redis.call('XADD', KEYS[1], '*', 'b', 'x')", 1, EVENTS
        ),
    },
    "operator": {
        "append": lambda c: c.xadd(EVENTS, {"b": "x"}),
        "read a stream": lambda c: c.xrange(EVENTS),
        "delete a stream": lambda c: c.delete(EVENTS),
        "acknowledge": lambda c: c.hset(f"prov:acked:{RUN}", "a", "x"),
        "another generation": lambda c: c.set("prov:generation", "x"),
        "send a task": lambda c: c.lpush("hashing", "x"),
        "read a queue": lambda c: c.lrange("hashing", 0, -1),
        "empty a queue": lambda c: c.brpop("hashing", 1),
        "count": lambda c: c.hset("prov:counts", "x", 1),
        "forge an event": lambda c: c.publish("/0.celeryev/x", "x"),
    },
}


@pytest.mark.parametrize("user", FORBIDDEN)
def test_a_password_does_no_more_than_its_user_needs(server: Url, user: str) -> None:
    RedisStreams(server("shipper"), shards=1).append([complete_run().batch(0)])
    RedisStreams(server("worker"), shards=1).read("worker", 1)
    allowed = []
    for name, call in {**EVERYBODY, **FORBIDDEN[user]}.items():
        with redis.Redis.from_url(server(user)) as client:
            try:
                call(client)
            except (redis.exceptions.NoPermissionError, redis.exceptions.ResponseError) as error:
                if "permission" not in str(error) and "can't run this command" not in str(error):
                    allowed.append(f"{name}: {error}")
            else:
                allowed.append(name)
    assert allowed == []


def test_nobody_comes_in_without_a_password(server: Url) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url("redis://127.0.0.1/0", port=port_of(server)).ping()


def port_of(server: Url) -> int:
    return int(server("shipper").rsplit(":", 1)[1].split("/")[0])


VANDALS: dict[str, Callable[[Any], object]] = {
    "cut the stream": lambda c: c.xadd(EVENTS, {"b": "x"}, maxlen=0, approximate=False),
    "cut by id": lambda c: c.xadd(EVENTS, {"b": "x"}, minid=LAST_ID, approximate=False),
    "use up the ids": lambda c: c.xadd(EVENTS, {"b": "x"}, id=LAST_ID),
    "use up the ids and cut": lambda c: c.xadd(
        EVENTS, {"b": "x"}, id=LAST_ID, maxlen=0, approximate=False
    ),
    "another generation": lambda c: c.set("prov:generation", "x"),
    "no generation": lambda c: c.set("prov:generation", "", px=1),
    "cut to an entry without a batch": lambda c: c.xadd(
        EVENTS, {"x": "y"}, maxlen=1, approximate=False
    ),
}


@pytest.mark.parametrize("vandal", VANDALS)
def test_what_a_shipper_s_password_destroys_is_shipped_again(
    server: Url, tmp_path: Path, vandal: str
) -> None:
    """The spool goes only after a signed acknowledgement: an honest run comes home whole."""
    folder = tmp_path / "spool"
    count = spooled(folder)
    key = POLICY.signer.verifier.public_bytes
    store, worker = SqlStore.open("sqlite://"), RedisStreams(server("worker"), shards=1)
    transport = RedisStreams(server("shipper"), shards=1)
    with (
        redis.Redis.from_url(server("shipper")) as client,
        Shipper(folder, transport, stall_s=0.0, ledger_keys=lambda: [key]) as shipper,
    ):
        drain(worker, store, POLICY, "worker", lambda: 1.0)
        shipper.run_once()
        VANDALS[vandal](client)
        for _ in range(6):
            drain(worker, store, POLICY, "worker", lambda: 1.0)
            with suppress(TransportUnavailable):  # ids used up: the next drain mends the stream
                shipper.run_once()
    with store.snapshot() as tx:
        (run,) = tx.runs()
        kinds = [row.kind for row in tx.records(run.run)]
    store.close()
    assert len(kinds) == count
    assert Kind.RUN_END in kinds
    assert not [path for path in folder.iterdir() if path.is_dir()], "acknowledged, so cleared"


def test_thousands_of_entries_without_a_batch_hold_nobody_up(server: Url, tmp_path: Path) -> None:
    """They fill the stream to above the shippers' limit; the drain parks and deletes them."""
    folder = tmp_path / "spool"
    count = spooled(folder)
    key = POLICY.signer.verifier.public_bytes
    store, worker = SqlStore.open("sqlite://"), RedisStreams(server("worker"), shards=1)
    with (
        redis.Redis.from_url(server("shipper")) as client,
        Shipper(
            folder, RedisStreams(server("shipper"), shards=1), ledger_keys=lambda: [key]
        ) as shipper,
    ):
        pipe = client.pipeline(transaction=False)
        for _ in range(20_000):
            pipe.xadd(EVENTS, {"x": "y"})
        pipe.execute()
        assert shipper.run_once().waiting == 1
        worker.read("dead", 100)  # a worker takes some, and ends
        parked = 0
        while worker.backlog() > 0:
            done = drain(
                worker, store, POLICY, "worker", lambda: 1.0, stale_after_s=0.0, within_s=60.0
            )
            assert done.parked, "the drain ends and leaves entries"
            parked += done.parked
        assert parked == 20_000
        shipper.run_once()
        done = drain(worker, store, POLICY, "worker", lambda: 1.0)
        assert (done.new, worker.backlog()) == (count, 0)
        shipper.run_once()
    with store.snapshot() as tx:
        (row,) = tx.parked()
    store.close()
    assert row.reason == "entry without field b, or with nothing in it"
    assert not [path for path in folder.iterdir() if path.is_dir()], "acknowledged, so cleared"


def spooled(spool: Path) -> int:
    """An ended run in a spool; how many events it has."""
    keys = new_run_keys()
    keep_run_keys(spool / str(keys.run), keys)
    emitter = Emitter(spool, keys.run, 0, 1)
    events = complete_run().events[:-1]
    for event in events:
        fields = dict(event.fields)
        if event.kind is Kind.CONFIG:
            fields["public_key"] = keys.public_key.hex()
        assert emitter.emit(event.kind, event.epoch, fields)
    emitter.close()
    return len(events) + 1
