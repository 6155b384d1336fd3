"""The broker's transport: an item in a queue that is no message ends no worker.

kombu's Redis transport decodes what it pops without a guard, and an error there ends the worker
("Unrecoverable error"). Whoever can write to Redis could so stop the fleet with one line. Tasks
are hints, never truth: what is no message is dropped and logged. Only decoding and delivering are
guarded: an error of the connection is kombu's to handle.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from workers.telemetry import log

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What decoding or unpacking a stranger's item raises."""
MAX_BRACKETS = 500
"""In a message; a task's has some thirty."""

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


class QoS(kombu_redis.QoS):  # type: ignore[misc]
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

    def restore_by_tag(self, *arguments: Any, **options: Any) -> None:
        """As kombu's."""
        try:
            super().restore_by_tag(*arguments, **options)
        except MALFORMED as error:
            log.warning("queue.garbage", problem=type(error).__name__)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """kombu's, with that restoring."""

    QoS = QoS


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """Drops what is no message."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)
        except MALFORMED as error:
            problem = f"{type(error).__name__}: {error}"[:200]
            log.warning("queue.garbage", queue=queue, problem=problem)


def install() -> None:
    """Make it the transport of ``redis://`` and ``rediss://`` in this process."""
    kombu_redis.loads = loads
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.broker:Transport"
