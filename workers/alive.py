"""Marks by which ``provenance health`` tells how long ago a task of each queue ended.

Each worker touches ``<queue>.alive`` when a task ends, and beat its own when it has sent a sweep.
The sweep sends every queue a task, so that the mark of an idle worker is young too, and that of one
which hangs, or was taken off its queue, grows old.
"""

from __future__ import annotations

import contextlib
from typing import Any

from celery.signals import after_task_publish, task_postrun

from provenance.app import health
from workers.app import app, settings
from workers.dispatch import ring

SWEEP = "workers.schedule.sweep"
WITHOUT = ("hashing", "confirm", "beat")
"""Of these the sweep rings the first anyway, runs on the second, and is sent by the third."""


@app.task(name="workers.alive.beat", send_events=False)  # type: ignore[untyped-decorator]  # Celery has no types
def beat() -> None:
    """Nothing: that it ended is what counts."""


def ring_all() -> None:
    """Send every other worker's queue a beat."""
    for queue in health.queues(settings()):
        if queue not in WITHOUT:
            ring(beat, queue)


@task_postrun.connect  # type: ignore[untyped-decorator]  # Celery has no types
def ended(task: Any = None, **_: object) -> None:
    """Note that a task ended, whatever came of it."""
    _touch((task.request.delivery_info or {}).get("routing_key"))


@after_task_publish.connect(sender=SWEEP)  # type: ignore[untyped-decorator]  # Celery has no types
def sent(**_: object) -> None:
    """Note that beat sent a sweep."""
    _touch("beat")


def _touch(queue: object) -> None:
    if isinstance(queue, str) and queue in health.queues(settings()):
        with contextlib.suppress(OSError):
            (health.alive_dir(settings()) / f"{queue}.alive").touch()
