"""The guarded transport: garbage is dropped, and a lost acknowledgement blocks nobody."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisAway

from workers import broker
from workers.app import QUEUES, app


def test_what_does_not_decode_is_an_empty_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever recursion limit a library has set."""
    monkeypatch.setattr(broker, "_loads", json.loads)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        assert broker.loads("[" * 100_000) == {}
    finally:
        sys.setrecursionlimit(before)
    for text in ("not json", "[" * 400, ""):
        assert broker.loads(text) == {}
    assert broker.loads('{"a": 1}') == {"a": 1}


def test_an_acknowledgement_that_is_lost_leaves_room_for_the_next_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kombu alone would count the message as in work for ever, and ask for no other."""
    broker.install(QUEUES)
    channel: Any = broker.Channel.__new__(broker.Channel)
    channel.closed = False
    qos = broker.QoS(channel, prefetch_count=1)
    qos._delivered["tag"] = object()
    assert not qos.can_consume()

    def away(*_: object) -> Any:
        raise RedisAway("refused")

    monkeypatch.setattr(qos, "_remove_from_indices", away)
    with pytest.raises(RedisAway):
        qos.ack("tag")
    assert qos.can_consume()


def test_redis_urls_take_the_guarded_transport() -> None:
    broker.install(QUEUES)
    with Connection("redis://127.0.0.1:1/0") as connection:
        assert type(connection.transport) is broker.Transport


def raw(**headers: object) -> dict[str, Any]:
    """What Celery itself sends of a task, as it lies in the queue."""
    made = app.amqp.as_task_v2("i", "workers.verifying.verify", args=["run"], expires=30)
    return {
        "body": b64encode(json.dumps(made.body).encode()).decode(),
        "headers": {**made.headers, **headers},
        "properties": {
            **made.properties,
            "delivery_tag": "t",
            "delivery_info": {"exchange": "", "routing_key": "verify"},
        },
    }


def test_a_task_keeps_what_this_fleet_sends_and_nothing_else() -> None:
    stranger = raw(timelimit=["x", 5], compression="bzip2", eta="9999-01-01", retries={}, root_id=5)
    for message in (raw(), stranger):
        made = broker.task_message(message)
        assert json.loads(b64decode(made["body"])) == [["run"], {}, {}]
        headers = made["headers"]
        assert (headers["task"], headers["id"]) == ("workers.verifying.verify", "i")
        left = datetime.fromisoformat(headers["expires"]) - datetime.now().astimezone()
        assert timedelta(seconds=25) < left < timedelta(seconds=31)
        assert headers.keys() <= {"task", "id", "expires", *broker._SHOWN}
        assert made["properties"].keys() == {"delivery_tag", "delivery_info", "body_encoding"}
    assert "root_id" not in broker.task_message(stranger)["headers"]
    again = broker.task_message(raw())
    assert broker.task_message(again) == again  # what comes again from `unacked`


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("headers", {"task": "workers.alive.beat"}),
        ("headers", {"task": "workers.alive.beat", "id": 5}),
        ("headers", {"task": ["x"], "id": "i"}),
        ("headers", {"task": "x", "id": "i", "expires": "0001-01-01T00:00:00+23:00"}),
        ("headers", {"task": "x", "id": "i", "expires": 5}),
        ("headers", 5),
        ("body", "!"),
        ("body", None),
        ("body", b64encode(b'{"task": "x", "id": "i", "args": [], "kwargs": {}}').decode()),
        ("body", b64encode(b"[5, {}, {}]").decode()),
        ("body", b64encode(b"[" * 100_000).decode()),
        (
            "properties",
            {"delivery_tag": True, "delivery_info": {"exchange": "", "routing_key": ""}},
        ),
        ("properties", {"delivery_tag": "t", "delivery_info": {"exchange": ""}}),
    ],
)
def test_what_is_no_task_is_refused(part: str, value: object) -> None:
    with pytest.raises(broker.MALFORMED):
        broker.task_message({**raw(), part: value})


def test_what_a_consumer_cannot_take_on_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept unacknowledged it would be the last message that the worker asks for."""
    taken: list[Any] = []
    monkeypatch.setattr(
        kombu_redis.Channel, "basic_consume", lambda self, queue, no_ack, run: taken.append(run)
    )
    channel: Any = broker.Channel.__new__(broker.Channel)
    channel.closed = True

    def fails(message: object) -> None:
        raise KeyError("id")

    rejected: list[str] = []
    for name, no_ack, acknowledged in (
        ("kept", False, False),
        ("done", False, True),
        ("broadcast", True, False),
    ):
        channel.basic_consume("hashing", no_ack, fails)
        taken[-1](SimpleNamespace(acknowledged=acknowledged, reject=partial(rejected.append, name)))
    assert rejected == ["kept"]
