"""The guarded transport: garbage is dropped, and a lost acknowledgement blocks nobody."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from kombu import Connection
from redis.exceptions import ConnectionError as RedisAway

from workers import broker


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
    broker.install()
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
    broker.install()
    with Connection("redis://127.0.0.1:1/0") as connection:
        assert type(connection.transport) is broker.Transport
