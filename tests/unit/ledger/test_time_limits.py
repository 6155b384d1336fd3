"""A task is cut off wherever it is, again and again, and the run still comes home."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from provenance.ledger.ingest import drain, seal_due
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from tests.support.runs import POLICY, RUN, Producer

NOW = 1_760_000_100.0
CHECKPOINTS = 2_000


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """As a Celery pool process does it: a signal, and an exception wherever the task is."""

    def cut(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, cut)
    ticks = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGUSR1))
    # And again: what is raised in a weak reference's callback is lost there.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGALRM, ticks)


@pytest.mark.slow
@pytest.mark.no_cover  # cut off inside its lock, coverage would wait for itself for ever
def test_a_run_with_2000_checkpoints_comes_home_under_a_limit_of_one_second(
    tmp_path: Path,
) -> None:
    producer = Producer()
    producer.begin()
    for epoch in range(1, CHECKPOINTS + 1):
        producer.epoch(epoch)
        producer.seal("checkpoint", epoch)
    producer.finish()
    size, transport = 1_500, MemoryTransport()
    transport.append([producer.batch(at, at + size) for at in range(0, len(producer.events), size)])
    store = SqlStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    policy, cut, task = replace(POLICY, networks=("local",)), 0, 0
    while True:
        task += 1
        assert task < 500
        try:
            with limited(1.0):
                drain(transport, store, policy, f"worker {task}", lambda: NOW, stale_after_s=0.0)
                seal_due(store, RUN, policy, lambda: NOW)
                break
        except SoftTimeLimitExceeded:
            cut += 1
    with store.snapshot() as tx:
        row, entries = tx.run(RUN), tx.entries(RUN)
    assert row is not None
    assert (row.state, row.incomplete) == ("sealed", None)
    assert [entry.epoch for entry in entries] == [None, *range(1, CHECKPOINTS + 1), None]
    assert cut > 0, "nothing was cut off: the limit tested nothing"
    store.close()
