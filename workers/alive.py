"""Whether a worker works: how long ago it ended its last task.

A ping is answered by a worker that does nothing. Each worker process touches
``$PROVENANCE_ALIVE_DIR/<name>.alive`` when a task of its queue ends; the sweep sends every queue a
task that does nothing, so that the file of an idle worker is young too, and that of a worker
which hangs, or was taken off its queue, grows old. Container probes look at its age.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from celery.signals import task_postrun

from workers.app import anchor_queue, app, settings
from workers.dispatch import ring

DIRECTORY_ENV = "PROVENANCE_ALIVE_DIR"


@app.task(name="workers.alive.beat")  # type: ignore[untyped-decorator]
def beat() -> None:
    """Nothing: that it ended is what counts."""


def ring_all() -> None:
    """Send every worker's queue a beat; the sweep's own worker needs none."""
    chain = settings().blockchain
    networks = chain.networks if chain.enabled else ()
    for queue in ("hashing", *map(anchor_queue, networks)):
        ring(beat, queue)


@task_postrun.connect  # type: ignore[untyped-decorator]
def touch(task: Any = None, **_: object) -> None:
    """Note that a task ended, whatever came of it."""
    folder = os.environ.get(DIRECTORY_ENV)
    name = str(getattr(task.request, "hostname", "") or "").partition("@")[0]
    if folder and name and "/" not in name:
        with contextlib.suppress(OSError):
            (Path(folder) / f"{name}.alive").touch()
