"""The broker's transport: an item in a queue that is no message ends no worker.

kombu's Redis transport decodes what it pops without a guard, and an error there ends the worker
("Unrecoverable error"). Whoever can write to Redis could so stop the fleet with one line. Tasks
are hints, never truth: what is no message is dropped and logged.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from workers.telemetry import log

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What decoding or unpacking a stranger's item raises."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """Drops what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except MALFORMED as error:
            log.warning("queue.garbage", problem=f"{type(error).__name__}: {error}"[:200])
            return True  # something was popped

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except MALFORMED as error:
            log.warning("queue.garbage", queue=queue, problem=type(error).__name__)
            raise kombu_redis.Empty from error

    def _do_restore_message(self, payload: Any, *rest: Any, **options: Any) -> None:
        try:
            super()._do_restore_message(payload, *rest, **options)
        except MALFORMED as error:
            log.warning("queue.garbage", problem=type(error).__name__)


class QoS(Channel.QoS):  # type: ignore[misc,name-defined]
    """The same for what lies among the messages that are being worked on."""

    def restore_by_tag(self, *arguments: Any, **options: Any) -> None:
        """As kombu's; an entry that does not decode is gone already."""
        try:
            super().restore_by_tag(*arguments, **options)
        except MALFORMED as error:
            log.warning("queue.garbage", problem=type(error).__name__)


Channel.QoS = QoS


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's, with that channel."""

    Channel = Channel


def install() -> None:
    """Make it the transport of ``redis://`` and ``rediss://`` in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.broker:Transport"
