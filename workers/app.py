"""The Celery application: queues, delivery settings and the beat schedule.

Queues: ``hashing`` drains the stream; ``anchor.<network>``, one per network and one worker
process each, publishes and confirms there, so that a chain that hangs holds up nobody
else; ``confirm`` runs the sweep that finds due work; ``verify`` checks runs again.

Tasks carry hints, never truth: a message that is lost costs one sweep interval.
The configuration is named by ``PROVENANCE_CONFIG`` (a JSON file, optional) and
``PROVENANCE_BASE_DIR``.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from datetime import datetime
from functools import cache
from typing import Any

import billiard.pool
from celery import Celery
from celery.schedules import schedstate, schedule
from celery.signals import beat_init, celeryd_init

from provenance.app.health import TASK_LIMIT_S, anchor_queue
from provenance.bootstrap import reading, sending
from provenance.errors import ProvenanceError, UnavailableError
from provenance.settings import NETWORKS, Settings, broker_address, load
from workers import broker

VISIBILITY_TIMEOUT_S = 180
SOFT_TIME_LIMIT_S = 120
REMOTE_CONTROL_ENV = "PROVENANCE_REMOTE_CONTROL"
"""Set to 1 where Flower is asked for: whoever writes to Redis can then stop workers."""

# A pool child that ends waits for its parent to read what it reported, 30 s at most. A parent
# that is told to stop may read no more, and has 20 s (`fleet.GRACE_S`). What is lost with the
# report is the acknowledgement of a hint, which then comes again and finds nothing to do.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30  # times 0.1 s


@cache
def settings_of(secrets: tuple[str, ...]) -> Settings:
    """The worker's settings, read once per process, with the secrets of some networks.

    Raises:
        ConfigError
    """
    return load(
        os.environ.get("PROVENANCE_CONFIG") or None,
        os.environ.get("PROVENANCE_BASE_DIR", "artifacts"),
        secrets=secrets,
    )


def settings() -> Settings:
    """The worker's settings without any network's secrets."""
    return settings_of(())


class Tick(schedule):  # type: ignore[misc]  # the library has no types
    """Every so many seconds. A last run in the future is no reason to wait for it.

    Celery's own interval stands still for as long as the clock was set back, also over a
    restart: the last run is kept in the schedule file.
    """

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Due now where the last run is ahead of the clock."""
        if self.maybe_make_aware(last_run_at) > self.maybe_make_aware(self.now()):
            return schedstate(is_due=True, next=self.seconds)
        return super().is_due(last_run_at)


def _broker() -> dict[str, Any]:
    """Celery's settings of the broker; a mistake in a setting ends the process with its line."""
    try:
        known = settings().redis_url or settings().broker_url
        return broker_address(settings()).broker() if known else {}
    except ProvenanceError as error:
        raise SystemExit(str(error)) from None


QUEUES = ("hashing", *(anchor_queue(name) for name in NETWORKS), "confirm", "verify")

broker.install(QUEUES)
place = _broker()
archives = (archive := settings().archive) is not None and archive.after_s is not None
app = Celery(
    "ml-provenance",
    include=[
        "workers.hashing",
        "workers.anchoring",
        "workers.confirming",
        "workers.schedule",
        "workers.verifying",
        "workers.watching",
        "workers.telemetry",
        "workers.alive",
        "workers.beacons",
    ],
)
app.conf.update(
    broker_url=place.get("broker_url"),
    broker_use_ssl=place.get("broker_use_ssl") or False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "max_retries": 0,  # of a hint: six seconds per hint otherwise while Redis is away
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,  # a queue's silent connection is given up after 11 s at most
        "queue_order_strategy": "round_robin",
        **place.get("options", {}),
    },
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_max_memory_per_child=180_000,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=os.environ.get(REMOTE_CONTROL_ENV) == "1",
    task_time_limit=TASK_LIMIT_S,
    task_soft_time_limit=SOFT_TIME_LIMIT_S,
    task_serializer="json",
    accept_content=["json", "msgpack"],
    task_create_missing_queues=True,
    task_default_queue="confirm",
    task_routes={
        "workers.hashing.*": {"queue": "hashing"},
        "workers.verifying.*": {"queue": "verify"},
        "workers.watching.*": {"queue": "verify"},
        "workers.schedule.*": {"queue": "confirm"},
    },
    worker_send_task_events=True,
    task_send_sent_event=False,  # of a sweep it would come too; what a worker takes is told
    event_queue_expires=60,
    timezone="UTC",
    beat_schedule={
        "sweep": {
            "task": "workers.schedule.sweep",
            "schedule": Tick(settings().sweep_interval_s),
            "options": {"queue": "confirm", "expires": settings().sweep_interval_s * 2},
        },
        **(
            {
                "verify-again": {
                    "task": "workers.watching.again",
                    "schedule": Tick(60.0),
                    "options": {"queue": "verify", "expires": 60.0},
                }
            }
            if settings().verification.every_s is not None or archives
            else {}
        ),
    },
    beat_max_loop_interval=5,
)


@celeryd_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
@beat_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def require_own_redis(**_: object) -> None:
    """Celery's own default broker is another server than the one that is not configured, and a
    Redis with another deployment's events none for this one. One that is away is waited for."""
    try:
        transport, own = sending.open_transport(settings()), reading.ledger_key(settings())
        with closing(transport), suppress(UnavailableError):
            if own is not None:
                reading.require_ledger(transport.ledger(), own)
    except ProvenanceError as error:
        raise SystemExit(str(error)) from None


@celeryd_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def require_own_schema(**_: object) -> None:
    """Bring the database to this release's schema; with that of a newer one there is nothing to do
    here. One that is away is waited for."""
    try:
        with suppress(UnavailableError):
            sending.open_store(settings()).close()
    except ProvenanceError as error:
        raise SystemExit(str(error)) from None
