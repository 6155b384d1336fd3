"""11. One chain hangs for the whole run: the other chains and the training are unchanged."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from uuid import UUID

import pytest

from provenance.ports.values import AnchorState
from tests.faults.support.anchoring import ethereum_section
from tests.faults.support.harness import World, rounds, scenario
from tests.faults.support.processes import until
from tests.support.nodes.ethereum_chain import Anvil, post
from tests.support.nodes.rpc_stub import http_server, send

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]

# A run whose emits are timed, in microseconds; 99 of 100 are below the number of its last line.
TIMED = """
import sys, time
from pathlib import Path
from uuid import UUID
from provenance.formats.record import Kind
from provenance.capture.emitter import Emitter
from tests.faults.support.training import Printing
base, run = Path(sys.argv[1]), UUID(sys.argv[2])
trainer = Printing(base, run, 0, 1, 0.0)
trainer.emit(Kind.DATA_TRAIN, root="t")
trainer.emit(Kind.DATA_TEST, root="u")
trainer.emit(Kind.ARCHITECTURE, structure="net")
trainer.emit(Kind.WEIGHTS, root="w")
trainer.emit(Kind.CONFIG, public_key=trainer.keys.public_key.hex(), hash_algorithm="blake3",
             world_size=1, training={"epochs": 3})
trainer.seal("before", True)
took = []
for epoch in range(1, 4):
    for step in range(400):
        start = time.perf_counter()
        trainer.emitter.emit(Kind.METRICS, epoch, {"step": step, "metrics": {"loss": 0.5}})
        took.append(time.perf_counter() - start)
    trainer.emit(Kind.STATE, epoch, root="s")
    time.sleep(0.1)
trainer.emit(Kind.RESULTS, results={"accuracy": 0.9})
trainer.seal("after", True)
trainer.keep()
trainer.emitter.close()
trainer.keep()
took.sort()
print("p99", took[len(took) * 99 // 100] * 1e6)
"""
SLACK_US = 1000.0
SLACK_S = 3.0
FACTOR = 3.0


class Tap:
    """Before a node: ``hung``, it takes every request and answers none."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.held = 0

    @contextmanager
    def before(self, chain: Anvil) -> Iterator[str]:
        def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
            if not self.flowing.is_set():
                self.held += 1
                self.flowing.wait(600)
                return
            send(request, json.dumps(post(chain.url, json.loads(body))).encode())

        with http_server(reply) as url:
            try:
                yield url
            finally:
                self.flowing.set()


def one_run(world: World, names: tuple[str, ...]) -> tuple[float, dict[str, float]]:
    """p99 of an emit in microseconds, and seconds from the end of the training to each anchor."""
    trainer = world.trainer(code=TIMED)
    trainer.finish()
    end = time.monotonic()
    p99 = next(float(line.split()[1]) for line in trainer.lines() if line.startswith("p99"))
    world.wait_sealed(trainer.run)
    waiting, took = set(names), {}
    while waiting:
        assert time.monotonic() - end < 60, f"no anchor on {waiting}"
        for name in sorted(waiting):
            if anchored(world, trainer.run, name):
                took[name] = time.monotonic() - end
                waiting.discard(name)
        time.sleep(0.05)
    return p99, took


def anchored(world: World, run: UUID, name: str) -> bool:
    with world.store().snapshot() as tx:
        last = max(entry.index for entry in tx.entries(run))
        return any(a.size > last for a in tx.anchors(name, [AnchorState.FINAL]))


def test_others_are_unchanged(
    make_world: Callable[..., World], chain: Anvil, ipfs_url: str
) -> None:
    others = ("ipfs", "local")
    tap = Tap()
    with scenario(11, "one chain hangs for the whole run") as tally, tap.before(chain) as url:
        section = ethereum_section(url, confirmations=1, timeout=12)
        world = make_world(networks={"ethereum": section, "ipfs": {"url": ipfs_url}})
        world.start()
        one_run(world, (*others, "ethereum"))  # warm
        usual = [one_run(world, (*others, "ethereum")) for _ in range(rounds(2, 6))]
        tap.flowing.clear()
        hung = [one_run(world, others) for _ in range(rounds(2, 6))]
        assert tap.held, "nobody asked the node that hangs"
        tally.kills = tap.held
        with world.store().snapshot() as tx:
            behind = tx.anchors("ethereum")[-1]
        assert behind.state not in (AnchorState.CONFIRMED, AnchorState.FINAL)

        p99 = [statistics.median(p99 for p99, _ in runs) for runs in (usual, hung)]
        assert p99[1] <= FACTOR * p99[0] + SLACK_US, p99
        for name in others:
            took = [statistics.median(each[name] for _, each in runs) for runs in (usual, hung)]
            tally.note += f"{name} {took[0]:.1f} s, {took[1]:.1f} s beside a hung chain; "
            assert took[1] <= FACTOR * took[0] + SLACK_S, (name, took)
        tally.note += f"emit p99 {p99[0]:.0f} and {p99[1]:.0f} us"

        tap.flowing.set()  # and when it answers again, it is made up for
        assert until(lambda: anchored(world, world.trainers[-1].run, "ethereum"), 40)
        tally.events = sum(world.events(trainer.run) for trainer in world.trainers)
        world.stop()
        world.judge(tally)
