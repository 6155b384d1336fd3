"""The hashing worker's task: stream to database, and the watch that rings for it.

Shippers append and ring nobody. A thread beside the task waits for entries that no worker was
given, and then rings the queue. It lives in the pool's process, which forks no more.
"""

from __future__ import annotations

import threading
import time

from celery.signals import worker_process_init

from provenance.bootstrap import reading
from provenance.errors import ProvenanceError
from provenance.ledger.ingest import drain as drain_stream
from provenance.observe import counts
from workers import anchoring, resources
from workers.app import app, settings
from workers.dispatch import ring
from workers.telemetry import log, reporting, some

DRAIN_S = 5.0
"""A drain reads nothing more after this and rings itself: far below the limits of a task."""
WAIT_S = 1.0
"""Of one wait at the stream."""
AGAIN_S = (0.1, 1.0)
"""Pause before the watch rings again, where a drain ended here meanwhile, and at most."""

_draining, _drained = threading.Lock(), threading.Event()


def hint() -> None:
    """Ring the hashing worker."""
    ring(drain, "hashing")


def watch(stop: threading.Event) -> None:
    """Ring where entries wait. Redis away: once a second it is asked whether it is back."""
    pause, away = AGAIN_S[0], False
    while not stop.is_set():
        with _draining:  # what waits is read there: a hint would only expire in the queue
            pass
        try:
            waiting = resources.transport().wait(WAIT_S)
        except ProvenanceError as error:
            if not away:
                log.warning("hashing.not_watching", problem=str(error))
            away = True
            stop.wait(WAIT_S)
            continue
        away = False
        if not waiting:
            pause = AGAIN_S[0]
            continue
        _drained.clear()
        hint()
        pause = AGAIN_S[0] if _drained.wait(pause) else min(AGAIN_S[1], pause * 2)
        stop.wait(AGAIN_S[0])


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def begin_watch(**_: object) -> None:
    """Watch where this worker serves the queue, for as long as its process lives."""
    if "hashing" in app.amqp.queues.consume_from:
        name, stop = "provenance-watch", threading.Event()
        threading.Thread(target=watch, args=(stop,), name=name, daemon=True).start()


@app.task(name="workers.hashing.drain")  # type: ignore[untyped-decorator]  # Celery has no types
def drain() -> str | None:
    """Ingest all that waits in the stream, seal what is ready, ring the networks."""
    with _draining:
        try:
            return _drain()
        finally:
            _drained.set()


@reporting("hashing")
def _drain() -> None:
    transport, own = resources.transport(), resources.policy().signer.verifier
    reading.require_ledger(transport.ledger(own.vkey), own)
    done = drain_stream(
        transport,
        resources.store(),
        resources.policy(),
        resources.owner(),
        time.time,
        stale_after_s=settings().lease_s,
        within_s=DRAIN_S,
    )
    counts.add("events", "new", number=done.new)
    counts.add("events", "duplicate", number=done.duplicates)
    if done.more:
        hint()
    if done.batches:
        log.info(
            "hashing.drained",
            batches=done.batches,
            new=done.new,
            duplicates=done.duplicates,
            parked=done.parked,
            sealed=len(done.entries),
            **some(done.runs),
        )
    if any(entry.anchor for entry in done.entries):
        for network in resources.policy().networks:
            anchoring.hint(network)
