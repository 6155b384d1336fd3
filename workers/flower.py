"""Flower, from the moment that the workers answer: its pages are filled from the first look.

``python -m workers.flower OPTIONS`` is ``celery flower OPTIONS``, and two things that Flower has no
option for. It listens when the workers that :data:`AWAITED_ENV` names have told it their queues, or
after :data:`WAIT_S`; where workers take no questions, it shows the queues of the configuration. And
it answers under no other name than this host's own: a browser that was led here by a foreign one
(DNS rebinding) is refused.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from flower import command
from flower.app import Flower
from kombu import Queue
from tornado.web import ErrorHandler

from provenance.app import health
from workers.app import app, settings
from workers.telemetry import log

AWAITED_ENV = "PROVENANCE_AWAITED_WORKERS"
"""Names of workers, with commas between."""
WAIT_S = 60.0
HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class OwnFlower(Flower):  # type: ignore[misc]  # the library has no types
    """Flower as above."""

    def start_http_server(self) -> Any:
        """As Flower's, once it knows the queues."""
        deadline = time.monotonic() + WAIT_S
        while (silent := self._silent()) and time.monotonic() < deadline:
            self.io_loop.run_sync(self.update_workers)
        if silent:
            log.warning("flower.silent", workers=sorted(silent))
        return super().start_http_server()

    def _silent(self) -> set[str]:
        known = {
            n.partition("@")[0] for n, facts in self.workers.items() if "active_queues" in facts
        }
        return set(filter(None, os.environ.get(AWAITED_ENV, "").split(","))) - known

    def find_handler(self, request: Any, **options: Any) -> Any:
        """As Tornado's; a request with a foreign ``Host`` finds none."""
        if request.host_name not in HOSTS:
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 421})
        return super().find_handler(request, **options)


def main(argv: Sequence[str]) -> None:
    """Be Flower."""
    queues = (name for name in health.queues(settings()) if name != "beat")
    app.conf.task_queues = [Queue(name) for name in queues]
    command.Flower = OwnFlower
    app.start(["flower", *argv])


if __name__ == "__main__":
    main(sys.argv[1:])
