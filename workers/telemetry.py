"""Structured logs and process names of the workers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, ParamSpec
from uuid import UUID

import structlog
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from provenance import tracing
from provenance.anchor.delivery import Outcome, Pass
from provenance.anchor.receipts import first_owed
from provenance.errors import ProvenanceError, UnavailableError
from provenance.ports.store import LedgerStore

P = ParamSpec("P")
log: Any = structlog.get_logger("workers")
SHOWN_RUNS = 20
"""In one line."""
TRACED_RUNS = 500
REPEAT_S = 60.0
"""How long the same warning is not told again."""
_TROUBLE = (Outcome.HELD, Outcome.FAILED, Outcome.REORGED)


def some(runs: Iterable[UUID]) -> dict[str, Any]:
    """The first of many runs, and how many they are, for a line that stays flat."""
    names = list(dict.fromkeys(map(str, runs)))
    return {"runs": " ".join(names[:SHOWN_RUNS]), "run_count": len(names)}


def log_anchors(
    event: str, store: LedgerStore, network: str, done: Pass, span: str, began_ns: int
) -> None:
    """A line for each anchor that a pass did something with: its head, its transaction, and the
    newest runs among the entries that no earlier head has on that network; and a span in the
    trace of each such run.

    Raises:
        StoreUnavailable
    """
    if done.replaced:
        log.info("anchoring.replaced", network=network, anchors=len(done.replaced))
    moved = {key: it for key, it in done.outcomes.items() if it is not Outcome.WAITING}
    if not moved:
        return
    shown = TRACED_RUNS if tracing.enabled() else SHOWN_RUNS
    with store.snapshot() as tx:
        for anchor_id, outcome in moved.items():
            row = tx.anchor(anchor_id)
            if row is None:
                continue
            ids = {each.id: each.version.transaction_id for each in tx.versions(anchor_id)}
            first = first_owed(tx, row, outcome is Outcome.FINAL)
            newest = tx.entries(first=max(first, row.size - shown), end=row.size)
            (log.warning if outcome in _TROUBLE else log.info)(
                event,
                network=network,
                outcome=outcome.value,
                head=row.size,
                transaction_id=None if row.version_id is None else ids.get(row.version_id),
                attempts=row.attempts,
                reason=row.reason,
                paused=done.paused,
                entries=row.size - first,
                runs=some(entry.run for entry in reversed(newest))["runs"],
            )
            about: dict[str, Any] = {"network": network, "head": row.size, "outcome": outcome.value}
            for run in {entry.run for entry in newest}:
                tracing.note(span, run, began_ns, **about)


def reporting(
    name: str, refused: str = "stopped"
) -> Callable[[Callable[P, object]], Callable[P, str | None]]:
    """Of a task's work, what it cannot do is a log line, and the text that the task returns
    (:mod:`workers.alive`): ``NAME.unavailable``, where it is tried again, or ``NAME.REFUSED``.

    A task with an argument is of the network that it names.
    """

    def made(work: Callable[P, object]) -> Callable[P, str | None]:
        @wraps(work)
        def reported(*arguments: P.args, **named: P.kwargs) -> str | None:
            about = dict(zip(("network",), arguments, strict=False))
            try:
                work(*arguments, **named)
            except UnavailableError as error:
                log.warning(f"{name}.unavailable", **about, problem=str(error))
                return str(error)
            except ProvenanceError as error:
                log.error(f"{name}.{refused}", **about, problem=str(error))
                return str(error)
            return None

        return reported

    return made


class Once(logging.Filter):
    """An outage is a line: Celery and kombu tell of the broker's at each try, with a traceback and
    how long they wait for the next."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told, an error of the broker without its traceback."""
        error = record.exc_info[1] if record.exc_info else None
        for cause in _causes(error):
            if isinstance(cause, RedisError | OperationalError | ConnectionError):
                text = " ".join(str(cause).split())[:200]
                record.msg, record.args = f"broker: {type(cause).__name__}: {text}", ()
                record.exc_info = record.exc_text = None
                break
        if record.levelno < logging.WARNING:
            return True
        said = record.msg
        if isinstance(said, dict):  # a line of our own
            said = {key: said[key] for key in said.keys() - {"timestamp", "trace_id"}}
            said = sorted(said.items())
        key, now = f"{said} {record.args}".partition("Trying again")[0], time.monotonic()
        self._told = {each: at for each, at in self._told.items() if now - at < REPEAT_S}
        if key in self._told:
            return False
        self._told[key] = now
        return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
    handler.addFilter(Once())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(loglevel or logging.INFO)
    # worker.request: a line for each hint that expired in its queue, as hints may.
    for name in ("worker.strategy", "worker.request", "app.trace", "beat"):
        logging.getLogger(f"celery.{name}").setLevel(logging.WARNING)


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
