"""Hints: messages that ring a worker. One that cannot be sent costs a sweep interval."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers.telemetry import log

EXPIRES_S = 30


def ring(task: Any, *arguments: str, queue: str) -> bool:
    """Send a task now or not at all: True where the broker took it. Never raises for it."""
    try:
        task.apply_async(arguments, queue=queue, expires=EXPIRES_S, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("hint.not_sent", task=task.name, queue=queue, problem=type(error).__name__)
        return False
    return True
