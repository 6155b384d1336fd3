"""8. Two senders with one key under random kills: no nonce gap, no duplicate."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from provenance.ports.values import AnchorState
from tests.faults.support.anchoring import Deployment, Nursery, deployment, ethereum_section
from tests.faults.support.chains import count, on_ethereum
from tests.faults.support.harness import Tally, rounds, scenario, seeded
from tests.support.nodes.ethereum_chain import Anvil

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]

LEASES_S = (0.4, 2.0)
"""The shorter one is less than a pass may take: leases are lost in the middle of the work."""


class Sender(threading.Thread):
    """Publishes and confirms in one child after the other, each killed somewhere."""

    def __init__(self, world: Deployment, seed: str, kills: int) -> None:
        super().__init__(daemon=True)
        self.world, self.seed, self.wanted = world, seed, kills
        self.kills, self.error = 0, ""

    def run(self) -> None:
        rng = random.Random(self.seed)
        try:
            with Nursery(self.world) as nursery:
                while self.kills < self.wanted:
                    where: dict[str, Any] = {"nth": rng.randint(1, 8)}
                    if rng.random() < 0.6:  # bytes stored and not sent: its nonce must stay taken
                        where = {"point": "stored"}
                    job = {
                        "do": ["publish", "confirm"],
                        **where,
                        "seed": rng.random(),
                        "seconds": 1.0,
                        "lease_s": rng.choice(LEASES_S),
                        "bump_s": rng.choice([0.3, 1e9]),
                    }
                    nursery.start("ethereum", **job)
                    self.kills += nursery.result()["killed"]
        except (AssertionError, OSError, ValueError) as error:
            self.error = repr(error)


def test_one_database(tmp_path: Path, chain: Anvil) -> None:
    chain.automine(False)
    since = int(chain.call("eth_blockNumber"), 16) + 1
    section = ethereum_section(chain.url, max_fee_gwei=1e6)
    with (
        scenario(8, "two senders with one key under random kills") as tally,
        deployment(tmp_path, ethereum=section) as world,
    ):
        rng = seeded()
        account = world.networks["ethereum"].identity().sender
        start = nonce(chain, account)
        senders = [Sender(world, f"{rng.random()}", rounds(4, 30)) for _ in range(2)]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + rounds(60, 300)
        while any(sender.is_alive() for sender in senders):
            assert time.monotonic() < deadline
            world.head()
            time.sleep(rng.random() * 0.15)
            if rng.random() < 0.6:
                chain.mine()
        assert not any(sender.error for sender in senders), [s.error for s in senders]
        tally.kills = sum(sender.kills for sender in senders)
        settle(world, chain)
        judge(tally, world, chain, since, account, start)


def settle(world: Deployment, chain: Anvil) -> None:
    for _ in range(12):
        world.publish("ethereum")
        chain.mine(3)
        world.confirm("ethereum")
        if all(row.state is AnchorState.FINAL for row in world.rows("ethereum")):
            return
    raise AssertionError(f"{world.rows('ethereum')}; paused: {world.paused('ethereum')}")


def judge(
    tally: Tally, world: Deployment, chain: Anvil, since: int, account: str | None, start: int
) -> None:
    found = on_ethereum(chain, since)
    count(tally, world, "ethereum", found)
    assert chain.call("txpool_status") == {"pending": "0x0", "queued": "0x0"}, "a nonce gap"
    assert nonce(chain, account) - start == found.total(), "nonces that carry no anchor"
    world.fsck(tally)


def nonce(chain: Anvil, account: str | None) -> int:
    return int(chain.call("eth_getTransactionCount", account, "latest"), 16)
