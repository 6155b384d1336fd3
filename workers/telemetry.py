"""Structured logs and process names of the workers."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from celery.signals import setup_logging, worker_process_init

log: Any = structlog.get_logger("workers")


@setup_logging.connect  # type: ignore[untyped-decorator]  # Celery has no types
def configure(loglevel: int | str = logging.INFO, **_: object) -> None:
    """One JSON line per event on stderr, Celery's own messages included."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
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
