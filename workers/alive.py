"""Marks by which ``provenance health`` tells how long ago a task of each queue ended.

Each worker touches ``<queue>.alive`` when a task ends, and beat its own when it has sent a sweep;
why a task could not do its work stands in ``<queue>.failed`` until one does.
The sweep sends every queue a task, so that the mark of an idle worker is young too, and that of one
which hangs, or was taken off its queue, grows old.
"""

from __future__ import annotations

import time
from typing import Any

from celery.signals import after_task_publish, task_postrun

from provenance.app import health
from provenance.observe import counts
from workers import resources
from workers.app import app, settings
from workers.dispatch import ring

SWEEP = "workers.schedule.sweep"
BEACONS = "workers.beacons.publish"
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
def ended(
    task: Any = None, retval: object = None, state: str | None = "SUCCESS", **_: object
) -> None:
    """Note that a task ended, and why it could not do its work: the text that it returns, or the
    error that ended it. One that was cut off has no state: it comes again."""
    queue = (task.request.delivery_info or {}).get("routing_key")
    if state is None or queue not in health.queues(settings()):
        return
    problem = retval if isinstance(retval, str) else None
    if state != "SUCCESS":
        problem = f"{type(retval).__name__}: {retval}"
    counts.add("tasks", queue, task.name, "done" if problem is None else "failed")
    counts.tell("alive", queue, number=time.time())
    counts.publish(resources.board)
    if task.name not in (beat.name, BEACONS):  # they have no work that could fail
        health.note_problem(settings(), queue, problem)
    health.note_alive(settings(), queue)


@after_task_publish.connect(sender=SWEEP)  # type: ignore[untyped-decorator]  # Celery has no types
def sent(**_: object) -> None:
    """Note that beat sent a sweep."""
    health.note_alive(settings(), "beat")
