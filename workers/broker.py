"""The broker's transport: an item in a queue that is no task of ours ends no worker.

kombu's Redis transport decodes what it pops without a guard, and an error there ends the worker
("Unrecoverable error"); Celery takes a task's limits, times and callbacks as they come, and one of
the wrong type ends it, or leaves it waiting for ever. Whoever can write to Redis could so stop the
fleet with one line. Tasks are hints, never truth: a message in a task queue is made anew of the
parts that this fleet sends, and what is no such message is dropped and logged. An error of the
connection is kombu's to handle.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from workers.telemetry import log

MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    KombuError,
)
"""What decoding, unpacking or taking on a stranger's item raises."""
MAX_BRACKETS = 500
"""In a message and in its body; a task's has some thirty."""
_SHOWN = ("lang", "origin", "shadow", "argsrepr", "kwargsrepr", "root_id", "parent_id")
"""Headers that log lines and Flower show."""

_loads = kombu_redis.loads


def loads(text: str) -> Any:
    """As kombu's; what does not decode is an empty message, which delivery refuses.

    Deep nesting is counted first: where a library has raised the recursion limit, decoding it
    would end the process.
    """
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        return {}
    try:
        return _loads(text)
    except MALFORMED:
        return {}


def task_message(message: Any) -> dict[str, Any]:
    """A task's message (Celery message protocol 2) with the parts that this fleet sends: name, id,
    arguments, a time from which it counts no more. No limits, callbacks, compression or format
    of a stranger's choice.

    Raises:
        MALFORMED: It is none.
    """
    headers, properties = message["headers"], message["properties"]
    info = properties["delivery_info"]
    body = b64decode(message["body"], validate=True)
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise ValueError("its body nests too deep")
    arguments, named, _ = json.loads(body)
    words = {name: headers[name] for name in ("task", "id")}
    words |= {name: headers[name] for name in _SHOWN if isinstance(headers.get(name), str)}
    route = {name: info[name] for name in ("exchange", "routing_key")}
    tag = properties["delivery_tag"]
    if not all(isinstance(word, str) for word in (*words.values(), *route.values(), tag)):
        raise TypeError("a name in it is no text")
    if not isinstance(arguments, list) or not isinstance(named, dict):
        raise TypeError("its arguments are no list and no object")
    expires = headers.get("expires")
    if expires is not None:
        expires = datetime.fromisoformat(expires).astimezone(UTC).isoformat()
    return {
        "body": b64encode(json.dumps([arguments, named, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {**words, "expires": expires},
        "properties": {"delivery_tag": tag, "delivery_info": route, "body_encoding": "base64"},
    }


class QoS(kombu_redis.QoS):  # type: ignore[misc]  # the library has no types
    """What is being worked on: an acknowledgement that is lost holds up nobody."""

    def ack(self, delivery_tag: str) -> None:
        """As kombu's; where Redis is away the message is forgotten here all the same.

        kombu would count it as in work for ever and ask for no other: a worker without remote
        control has no second connection whose loss would start its consumer anew.
        """
        try:
            super().ack(delivery_tag)
        except (RedisError, OSError):
            virtual.QoS.ack(self, delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, *more: Any, **options: Any) -> None:
        """As kombu's; what is no message is forgotten."""
        try:
            super().restore_by_tag(tag, *more, **options)
        except MALFORMED as error:
            _dropped("unacked", error)
            self._remove_from_indices(tag).execute()


class Channel(kombu_redis.Channel):  # type: ignore[misc]  # the library has no types
    """A message that cannot be taken on is given back, not kept as if it were in work."""

    QoS = QoS

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *more: Any, **options: Any
    ) -> Any:
        """As kombu's; what ``callback`` cannot take on is rejected and comes no more.

        A worker asks for the next message when it is done with one. With this one it never is.
        """

        def guarded(message: Any) -> Any:
            try:
                return callback(message)
            except MALFORMED as error:
                _dropped(queue, error)
                if not no_ack and not message.acknowledged:
                    message.reject()
                return None

        return super().basic_consume(queue, no_ack, guarded, *more, **options)


class Transport(kombu_redis.Transport):  # type: ignore[misc]  # the library has no types
    """Drops what is no message, and from task queues what is no task."""

    Channel = Channel
    task_queues: frozenset[str] = frozenset()

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            if queue in self.task_queues:
                message = task_message(message)
            super()._deliver(message, queue)
        except MALFORMED as error:
            _dropped(queue, error)


def _dropped(queue: str, error: Exception) -> None:
    log.warning("queue.garbage", queue=queue, problem=f"{type(error).__name__}: {error}"[:200])


def install(task_queues: Iterable[str]) -> None:
    """Make it the transport of Redis URLs in this process."""
    kombu_redis.loads = loads
    Transport.task_queues = frozenset(task_queues)
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.broker:Transport"
