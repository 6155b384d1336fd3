"""31. Each host is cut off from the others in turn, longer than a lease, and comes back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provenance.errors import StoreUnavailable
from provenance.settings import BitcoinSettings
from provenance.stores.sql import SqlStore
from tests.conftest import missing
from tests.faults.support.anchoring import bitcoin_section, ethereum_section
from tests.faults.support.harness import LONG, Tally, World, scenario, seeded
from tests.faults.support.lan import SWITCH, Lan
from tests.faults.support.processes import RedisServer
from tests.faults.support.tls_proxy import relay
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.fixtures_postgres import running
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]

SERVICES = {
    "trainers": ("shipper",),
    "redis": (),
    "database": (),
    "hashing": ("hashing", "confirm", "beat", "anchor-local"),
    "hashing-2": (),
    "ethereum": ("anchor-ethereum",),
    "bitcoin": ("anchor-bitcoin",),
    "ipfs": ("anchor-ipfs",),
    "nodes": (),
}
"""What of the fleet runs on which host, beside Redis, the database, a second hashing worker that
takes over from the first, and the nodes of the chains."""
LEASE_S = 5.0
HOLDERS = ("hashing", "ethereum")
"""Hosts that the short form as well cuts off for longer than a lease."""


@pytest.fixture
def lan() -> Iterator[Lan]:
    with closing(Lan(*SERVICES)) as made:
        yield made


@pytest.fixture
def database_url(lan: Lan) -> Iterator[str]:
    """PostgreSQL, on its host."""
    try:
        with ExitStack() as stack:
            with lan.on("database"):
                server = stack.enter_context(running("fsync=off", host=lan.address("database")))
            yield f"{server.url}/postgres"
    except FileNotFoundError as error:
        missing(str(error))


@contextmanager
def mining(regtest: Regtest, chain: Anvil) -> Iterator[None]:
    """Blocks come, whoever is cut off."""
    stop = threading.Event()

    def mine() -> None:
        while not stop.wait(1.0):
            regtest.mine()
            chain.mine()

    thread = threading.Thread(target=mine)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_partitions_lose_nothing_and_double_nothing(
    tmp_path: Path,
    lan: Lan,
    database_url: str,
    bitcoin_settings: BitcoinSettings,
    chain: Anvil,
    contract: str,
    ipfs_url: str,
) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet("1.0")
    with ExitStack() as stack, scenario(31, "hosts cut off, one after the other") as tally:

        def on_the_lan(url: str) -> str:
            """Where a node of this machine is reached from there."""
            port = urlsplit(url).port
            assert port is not None
            with lan.on("nodes"):
                listener = socket.create_server((lan.address("nodes"), port))
            stack.enter_context(relay(listener, port))
            return url.replace("127.0.0.1", lan.address("nodes"))

        retry = {"timeout": 5, "retry_base": 0.2, "retry_cap": 2}
        networks = {
            "ethereum": ethereum_section(on_the_lan(chain.url), contract_address=contract, **retry),
            "bitcoin": bitcoin_section(wallet, **retry) | {"url": on_the_lan(wallet.url)},
            "ipfs": {"url": on_the_lan(ipfs_url), **retry},
        }
        stack.enter_context(mining(regtest, chain))
        with lan.on("redis"):
            redis = RedisServer(tmp_path / "redis", lan.address("redis"))
            redis.start()
        stack.callback(redis.kill)
        stack.enter_context(lan.on(SWITCH))
        world = World(
            tmp_path / "world",
            networks=networks,
            lease=LEASE_S,
            more={"database_url": database_url},
            redis=redis,
        )
        stack.callback(world.close)
        for host, names in SERVICES.items():
            if names:
                with lan.on(host):
                    world.start(*names)
        with lan.on("hashing-2"):
            world.second("hashing", "hashing-2")
        world.wait_ready(*(name for name in world.processes if name.startswith(("a", "h", "c"))))
        disturb(lan, world, tally)
        for trainer in world.trainers:
            trainer.finish()
            world.wait_final(trainer.run, 240)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        world.judge(tally, world.trainers)


def disturb(lan: Lan, world: World, tally: Tally) -> None:
    """Every host is cut off, in a random order; a trainer emits all the time."""
    rng = seeded()
    hosts = list(SERVICES) * (2 if LONG else 1)
    rng.shuffle(hosts)
    for at, host in enumerate(hosts):
        held = host in HOLDERS
        seconds = rng.uniform(5, 40) if LONG else rng.uniform(*((5.5, 6) if held else (1, 2)))
        with lan.on("trainers"):
            world.trainer(epochs=int(seconds * 2), metrics_per_epoch=20, pace_s=0.02, seed=at)
        time.sleep(rng.uniform(0, 0.5))
        fault = rng.choice((lan.cut, lan.mute))
        print(f"{host}: {fault.__name__} for {seconds:.1f} s")
        fault(host)
        tally.kills += 1
        time.sleep(seconds)
        if host == "redis":
            world.redis.kill()
            lan.boot(host)
            with lan.on(host):
                world.redis.start()
        lan.heal(host)


def test_a_host_that_is_cut_off_within_a_transaction_holds_up_nobody(
    lan: Lan, database_url: str
) -> None:
    """The ledger's lock is its, until the server gives its connection up."""
    url = f"{database_url}?keepalives_idle=1&keepalives_interval=1&keepalives_count=2"
    url += "&tcp_user_timeout=3000"
    with ExitStack() as stack, scenario(31, "hosts cut off, within a transaction") as tally:
        stack.enter_context(lan.on("hashing"))
        cut_off = stack.enter_context(closing(SqlStore.open(url)))
        heads = []
        with pytest.raises(StoreUnavailable), cut_off.transaction() as tx:
            lan.cut("hashing")
            tally.kills += 1
            with lan.on("hashing-2"):
                other = stack.enter_context(closing(SqlStore.open(url, wait_s=20)))
                with other.transaction() as turn:
                    heads.append(turn.head())
            tx.head()
        assert heads == [None], "the other waited for a lock that nobody has"
        lan.heal("hashing")
        with cut_off.transaction() as tx:
            assert tx.head() is None
