"""What is no message, in a queue of a real Redis, ends no real worker."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.paths import ROOT

GARBAGE = (
    b"not json", b"\xff\xfe", b"[]", b"7", b"null", b"{}", b'{"properties": 3}',
    b'{"properties": {}}', b'{"body": "!", "properties": {"delivery_tag": "t"}}',
    b'{"body": "e30=", "properties": {"delivery_tag": "t", "body_encoding": "base64"}}',
    b'{"body": "AA==", "headers": 5, "content-type": "application/x-python-serialize", '
    b'"content-encoding": "binary", "properties": {"delivery_tag": "t", "body_encoding": "base64",'
    b' "delivery_info": {"exchange": "", "routing_key": "hashing"}}}',
    b"[" * 100_000, b'"' + b"x" * 1_000_000 + b'"',
)  # fmt: skip


def task(tag: object = "t", info: object = None, **headers: object) -> bytes:
    """A message that names a task of ours, and has what a stranger put beside it."""
    return json.dumps(
        {
            "body": base64.b64encode(b"[[], {}, {}]").decode(),
            "headers": headers,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {
                "delivery_tag": tag,
                "body_encoding": "base64",
                "delivery_info": info or {"exchange": "", "routing_key": "hashing"},
            },
        }
    ).encode()


BEAT = {"task": "workers.alive.beat", "id": "i"}
TASKS = (
    task(task="workers.alive.beat"),
    task(task=["workers.alive.beat"], id="i"),
    task(**BEAT, timelimit=5),
    task(**BEAT, timelimit=["x", "y"]),
    task(**BEAT, retries="x"),
    task(**BEAT, eta={}),
    task(**BEAT, eta="tomorrow"),
    task(**BEAT, expires=[]),
    task(**BEAT, kwargsrepr=7, argsrepr={}),
    task(**BEAT, root_id={}, parent_id=[], group={}),
    task(**BEAT, reply_to=5, origin=5, stamps=5, stamped_headers=5),
    task(**{**BEAT, "id": {}}),
    task(**{**BEAT, "id": 5}),
    task(tag=None, **BEAT),
    task(tag=["t"], **BEAT),
    task(tag=True, **BEAT),
    task(info={"exchange": "", "routing_key": "hashing", "priority": {}}, **BEAT),
)


@pytest.fixture
def broker(redis_url: str) -> Iterator[str]:
    own = f"{redis_url.rpartition('/')[0]}/13"
    with redis.Redis.from_url(own) as client:
        client.flushdb()
        yield own
        client.flushdb()


def test_garbage_ends_no_worker(broker: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    env = {
        **os.environ,
        "PROVENANCE_REDIS_URL": broker,
        "PROVENANCE_BASE_DIR": str(tmp_path),
        "PROVENANCE_ALIVE_DIR": str(tmp_path),
    }
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [
                sys.executable, "-m", "celery", "-A", "workers.app", "worker",
                "--queues", "hashing", "--hostname", "hashing@%h", "--concurrency", "1",
                "--without-gossip", "--without-mingle", "--loglevel", "INFO",
            ],
            env=env, cwd=ROOT, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        with redis.Redis.from_url(broker) as client:
            client.hset("unacked", mapping={"a": b"not json", "b": b"[1, 2]"})
            client.zadd("unacked_index", {"a": 1.0, "b": 1.0})
            client.lpush("hashing", *TASKS, *GARBAGE)
            from workers.alive import beat

            message = beat.signature()
            with beat.app.connection_for_write(broker) as connection:
                message.apply_async(queue="hashing", connection=connection, retry=False)
            deadline = time.monotonic() + 90
            while not (tmp_path / "hashing.alive").exists() or client.llen("hashing"):
                assert worker.poll() is None, log.read_text(errors="replace")[-3000:]
                assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(0.2)
            time.sleep(1.0)
            assert client.hlen("unacked") == client.zcard("unacked_index") == 0
        assert worker.poll() is None
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        assert sum(line["event"] == "queue.garbage" for line in lines) >= 8
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
