"""Hints: tasks that one worker sends to another's queue."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers.telemetry import log

EXPIRES_S = 30


def ring(task: Any, queue: str, *arguments: str) -> bool:
    """Send a task once: True where the broker took it. Flower shows it under its name with what it
    is about, such as ``anchoring.publish ethereum``.

    Where Redis is away or full that is logged, and the sweep sends it again.
    """
    name = " ".join((task.name.removeprefix("workers."), *arguments))
    try:
        task.apply_async(arguments, queue=queue, expires=EXPIRES_S, retry=False, shadow=name)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("hint.lost", task=task.name, queue=queue, problem=type(error).__name__)
        return False
    return True
