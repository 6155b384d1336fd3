"""9. Broadcast succeeds, the answer is lost: recorded as sent, no second transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from provenance.anchor.delivery import Outcome
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import Deployment, bitcoin_section, deployment, ethereum_section
from tests.faults.support.chains import count, on_bitcoin, on_ethereum, on_ipfs, proxy
from tests.faults.support.harness import Tally, rounds, scenario
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
TITLE = "broadcast succeeds, the answer is lost"


@dataclass
class Losses:
    """How many answers to a broadcast are swallowed from now on."""

    left: int = 0
    swallowed: int = 0


@contextmanager
def swallowing(upstream: str) -> Iterator[tuple[str, Losses]]:
    losses = Losses()

    def answer(path: str, body: bytes, status: int, data: bytes) -> tuple[int, bytes] | None:
        sends = "/api/v0/add" in path
        if body.startswith(b"{"):
            sends = json.loads(body)["method"] in ("eth_sendRawTransaction", "sendrawtransaction")
        if sends and losses.left:
            losses.left -= 1
            losses.swallowed += 1
            return None
        return status, data

    with proxy(upstream, answer) as url:
        yield url, losses


def lose(world: Deployment, name: str, losses: Losses, times: int) -> None:
    """A head whose first ``times`` broadcasts are answered by silence."""
    world.head()
    losses.left = times
    for _ in range(times):
        done = world.publish(name)
        assert list(done.outcomes.values()) == [Outcome.HELD]
        assert world.row(name).state is AnchorState.SIGNED
        assert world.row(name).reason
    done = world.publish(name)
    assert list(done.outcomes.values()) == [Outcome.SENT]
    assert world.row(name).state is AnchorState.SENT
    assert len(world.versions(name)) == 1
    assert world.paused(name) is None


def test_ethereum(tmp_path: Path, chain: Anvil) -> None:
    since = int(chain.call("eth_blockNumber"), 16) + 1
    with scenario(9, TITLE) as tally, swallowing(chain.url) as (url, losses):
        with deployment(tmp_path, ethereum=ethereum_section(url)) as world:
            for turn in range(rounds(2, 12)):
                # In the pool when it is sent again ("already known"), or in a block already.
                chain.automine(turn % 2 == 0)
                lose(world, "ethereum", losses, 1 + turn % 3)
                chain.mine(4)
                world.confirm("ethereum")
            judge(tally, world, losses)
            count(tally, world, "ethereum", on_ethereum(chain, since))
            world.fsck(tally)


def test_bitcoin(tmp_path: Path, bitcoin_settings: BitcoinSettings) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet("1.0")
    since = int(str(regtest.rpc.call("getblockcount"))) + 1
    with scenario(9, TITLE) as tally, swallowing(wallet.url) as (url, losses):
        with deployment(tmp_path, bitcoin=bitcoin_section(wallet, url=url)) as world:
            for turn in range(rounds(2, 12)):
                if turn % 2:
                    lose(world, "bitcoin", losses, 1 + turn % 3)
                else:  # mined before it is asked about again: -27
                    world.head()
                    losses.left = 1
                    world.publish("bitcoin")
                    regtest.mine()
                    world.publish("bitcoin")
                    assert world.row("bitcoin").state is AnchorState.SENT
                regtest.mine(3)
                world.confirm("bitcoin")
            judge(tally, world, losses)
            count(tally, world, "bitcoin", on_bitcoin(wallet, since))
            world.fsck(tally)


def test_ipfs(tmp_path: Path, ipfs_url: str) -> None:
    with scenario(9, TITLE) as tally, swallowing(ipfs_url) as (url, losses):
        with deployment(tmp_path, ipfs={"url": url}) as world:
            for turn in range(rounds(1, 6)):
                lose(world, "ipfs", losses, 1 + turn % 3)
                world.confirm("ipfs")
            judge(tally, world, losses)
            roots = [row.root for row in world.rows("ipfs")]
            count(tally, world, "ipfs", on_ipfs(ipfs_url, roots))
            world.fsck(tally)


def judge(tally: Tally, world: Deployment, losses: Losses) -> None:
    assert losses.swallowed
    tally.kills += losses.swallowed
    assert not losses.left
    tally.note = f"{losses.swallowed} answers lost"
