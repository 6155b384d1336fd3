"""The way of an event without services: ship, ingest, anchor and confirm in this process.

For scenarios whose fault lies before the workers, and that would wait for nothing but their
start-up.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.app.ship import known_ledger_keys
from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from provenance.capture.ship.shipment import Shipped
from provenance.capture.spool import Corruption, read_segment, scan
from provenance.formats.event import Event
from provenance.ledger.batch_writer import IngestResult
from provenance.ledger.ingest import drain
from provenance.ledger.seal import seal_ready
from provenance.settings import Settings


def ship(settings: Settings) -> Shipped:
    """One pass of a new shipper."""
    transport = sending.open_transport(settings)
    try:
        keys = known_ledger_keys(settings)
        with Shipper(settings.base_dir / "spool", transport, ledger_keys=keys) as shipper:
            return shipper.run_once()
    finally:
        transport.close()


def ship_what_stalled(settings: Settings) -> None:
    """Passes of a shipper that waits for no acknowledgement before it ships again."""
    transport, keys = sending.open_transport(settings), known_ledger_keys(settings)
    try:
        with Shipper(
            settings.base_dir / "spool", transport, stall_s=0.0, ledger_keys=keys
        ) as shipper:
            for _ in range(2):  # the first learns where it stands
                shipper.run_once()
    finally:
        transport.close()


def ingest(settings: Settings, stale_after_s: float = 0.0) -> IngestResult:
    """Drain the stream as one worker; what a dead one left is taken over at once."""
    transport, store = sending.open_transport(settings), sending.open_store(settings)
    assert store is not None
    try:
        return drain(
            transport, store, sending.seal_policy(settings), "by hand", time.time, stale_after_s
        )
    finally:
        transport.close()
        store.close()


def seal_open_runs(settings: Settings) -> None:
    """What the sweep does for runs whose grace is over."""
    store = sending.open_store(settings)
    assert store is not None
    with store.transaction() as tx:
        for row in tx.runs():
            seal_ready(tx, row.run, sending.seal_policy(settings), time.time())
    store.close()


def anchor(settings: Settings, name: str = "local", lease_s: float = 60.0) -> None:
    """One pass of a network's worker: publish, then confirm."""
    store, network = sending.open_store(settings), sending.open_network(settings, name)
    assert store is not None
    retry = sending.retry_settings(settings, name)
    owner = f"by hand {random.random()}"
    try:
        delivery = AnchorDelivery(store, network, time.time, owner, lease_s, retry, random.random)
        publish(delivery)
        confirm(delivery, poll_s=0.0)
    finally:
        network.close()
        store.close()


def bring_home(settings: Settings, passes: int = 50) -> list[Shipped]:
    """Ship and ingest until a pass finds nothing to do; the passes."""
    done: list[Shipped] = []
    for _ in range(passes):
        done.append(ship(settings))
        taken = ingest(settings)
        last = done[-1]
        moved = last.events, last.deleted_segments, last.finished_runs, last.pending, taken.batches
        if not any(moved):
            return done
    return done


def spooled(spool_dir: Path) -> Iterator[tuple[Path, Event | Corruption]]:
    """Every item of every segment."""
    for run in scan(spool_dir):
        for segment in run.segments:
            for _, item in read_segment(segment.path, final=True):
                yield segment.path, item


@contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    """Appends the seconds that the block took."""
    start = time.perf_counter()
    yield
    times.append(time.perf_counter() - start)
