"""Scenario 27: a hostile trainer and whoever writes to Redis, while an honest run comes home."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from provenance.bootstrap import sending
from tests.faults.support.harness import World, scenario
from tests.support.runs import Producer, complete_run, some_run

LARGE = b"MLPB\x01\x96" + b"\x80" * (4 * 2**20)
"""Four million empty maps, where a batch should be."""


def sealed_in(world: World) -> float:
    """Seconds from an honest run's first batch to its seal."""
    producer = complete_run(epochs=20, run=some_run())
    transport = sending.open_transport(world.settings)
    began = time.monotonic()
    for delivery in producer.deliveries(8):
        transport.append([delivery.payload])
    world.wait_sealed(producer.run, 120)
    transport.close()
    return time.monotonic() - began


@contextmanager
def hostile(world: World) -> Iterator[list[int]]:
    """Poison in the stream, garbage in the queues, and a run of a million ranks; what was sent."""
    stop, sent = threading.Event(), [0]
    crowd = Producer(run=some_run(), world_size=1_000_000)
    crowd.begin()
    for epoch in range(1, 60):
        crowd.epoch(epoch)
        crowd.seal("checkpoint", epoch)
    batches = [delivery.payload for delivery in crowd.deliveries(6)]

    def write() -> None:
        transport = sending.open_transport(world.settings)
        with redis.Redis.from_url(world.redis_url) as client:
            while not stop.wait(0.05):
                poison = [os.urandom(2000), LARGE if sent[0] % 20 == 0 else b"", b"MLPB\x01\x96"]
                transport.append([*poison, batches[sent[0] % len(batches)]])
                for queue in ("hashing", "confirm", "anchor.local"):
                    client.lpush(queue, os.urandom(50), b"[]", b'{"properties": {}}')
                sent[0] += 1
        transport.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def test_an_honest_run_comes_home_beside_them(world: World) -> None:
    with scenario(27, "hostile trainer, hostile Redis writer") as tally:
        world.start("hashing", "confirm", "beat", "anchor-local")
        sealed_in(world)  # the fleet is warm
        quiet = min(sealed_in(world) for _ in range(3))
        pids = {name: process.pid for name, process in world.processes.items()}
        with hostile(world) as sent:
            time.sleep(2.0)
            loud = min(sealed_in(world) for _ in range(3))
        assert sent[0] > 20
        alive = {name: process.pid for name, process in world.processes.items()}
        assert alive == pids, "a worker ended"
        assert all(process.poll() is None for process in world.processes.values())
        tally.note = f"sealed in {quiet:.2f} s alone, {loud:.2f} s beside them: {loud / quiet:.1f}x"
        print(tally.note)
