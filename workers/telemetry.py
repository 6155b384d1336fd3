"""Structured logs and process names of the workers."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown

from provenance import tracing
from provenance.anchor.delivery import Outcome, Pass
from provenance.anchor.outbox import ACTIVE, ON_CHAIN

log: Any = structlog.get_logger("workers")
TRACED = 500
"""Of the entries that an anchor covers, the newest that are traced."""


@setup_logging.connect  # type: ignore[untyped-decorator]  # Celery has no types
def configure(loglevel: int | str = logging.INFO, **_: object) -> None:
    """One JSON line per event on stderr, Celery's own messages included."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        tracing.add_trace_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(loglevel or logging.INFO)
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    logging.getLogger("celery.beat").setLevel(logging.WARNING)


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def forget_parent_parts(**_: object) -> None:
    """A forked child builds its own clients: sockets and database handles are not shared."""
    from workers import resources

    for part in (
        resources.store, resources.transport, resources.board, resources.policy, resources.network
    ):  # fmt: skip
        part.cache_clear()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # Celery has no types
def send_spans(**_: object) -> None:
    """A pool child leaves past atexit."""
    tracing.flush()


def trace_anchors(name: str, network: str, done: Pass, began_ns: int) -> None:
    """A span in the trace of each run that an anchor newly covers, for anchors that moved."""
    if not tracing.enabled():
        return
    from workers import resources

    with resources.store().snapshot() as tx:
        for anchor, outcome in done.outcomes.items():
            row = tx.anchor(anchor)
            if row is None or outcome in (Outcome.WAITING, Outcome.LOST):
                continue
            covered = tx.reach(network, {*ACTIVE, *ON_CHAIN}, below=row.size)
            first = max(covered, row.size - TRACED)
            for run in {entry.run for entry in tx.entries(first=first, end=row.size)}:
                tracing.note(
                    name, run, began_ns, network=network, head=row.size, outcome=outcome.value
                )
