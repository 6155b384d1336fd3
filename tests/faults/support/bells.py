"""Hints under the microscope: when the broker hands one out, and to whom."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil
from celery import Celery

from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from tests.faults.support.harness import World
from tests.faults.support.processes import until


def hints(world: World) -> int:
    """Messages for the hashing worker, queued or unacknowledged, whoever holds them."""
    with world.redis.client() as client:
        held = client.hvals("unacked")
        return int(client.llen("hashing")) + sum(b"workers.hashing.drain" in m for m in held)


class Bell:
    """Appends the batches as a shipper does, then rings as another worker does. Made beforehand:
    it takes a while."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.transport = sending.open_transport(world.settings)
        self.app = Celery(broker=world.redis_url, set_as_current=False)
        self.app.conf.task_ignore_result = True
        self.transport.ping()

    def ring(self) -> None:
        self.app.send_task("workers.hashing.drain", queue="hashing", retry=False, declare=())

    def ship(self) -> None:
        with Shipper(self.world.base / "spool", self.transport) as shipper:
            assert shipper.run_once().events
        self.ring()


def ports(pids: Iterable[int]) -> set[int]:
    """Local TCP ports of the connections of these processes."""
    found: set[int] = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found |= {c.laddr.port for c in psutil.Process(pid).net_connections("tcp")}
    return found


def stop_in_its_pop(world: World) -> None:
    """SIGSTOP while the server holds the worker's blocking pop (its timeout is 1 s)."""
    with world.redis.client() as client:

        def waiting() -> bool:
            popping = {
                int(c["addr"].rsplit(":", 1)[1])
                for c in client.client_list()
                if c["cmd"] == "brpop" and "b" in c["flags"]
            }
            return not popping.isdisjoint(ports(world.pids("hashing")))

        def stopped() -> bool:
            assert until(waiting, 20, 0.01), "the worker waits for nothing"
            world.kill("hashing", signal.SIGSTOP)
            if waiting():
                return True
            world.kill("hashing", signal.SIGCONT)
            return False

        assert until(stopped, 20, 0.01)
