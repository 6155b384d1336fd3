"""``verify --all`` on real nodes: few requests for many runs, and the same answers as singly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from provenance.app.verify import verify_run
from provenance.app.verify_all import verify_all
from provenance.bootstrap import sending
from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.ethereum.interface import EthereumInterface
from provenance.errors import UnavailableError
from provenance.ports.network import LooksUpMany, Network
from provenance.ports.values import Observation, Place, anchor_payload
from provenance.settings import BitcoinSettings, EthereumSettings, load
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.regtest import Regtest
from tests.support.nodes.rpc_stub import http_server, send
from tests.support.runs import run_of
from tests.support.verify_world import KEY, World, story

RUNS = [run_of(0x01890A5DAC96 + at, KEY) for at in range(6)]

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes


class Proxy:
    """Before a node: counts requests and calls; ``batches`` False is a node that takes none."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.calls: list[str] = []
        self.batches = True
        self.down = False
        self.change: Callable[[Any], Any] = lambda answers: answers

    def reset(self) -> None:
        self.requests, self.calls = 0, []


@contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy()

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        proxy.requests += 1
        document = json.loads(body)
        asked = document if isinstance(document, list) else [document]
        proxy.calls += [call["method"] for call in asked]
        if proxy.down:
            return send(request, b"away", 503)
        if isinstance(document, list) and not proxy.batches:
            error = {"code": -32600, "message": "batches are not supported"}
            return send(request, json.dumps({"id": None, "error": error}).encode(), 400)
        headers = {"Content-Type": "application/json"}
        if "Authorization" in request.headers:
            headers["Authorization"] = request.headers["Authorization"]
        onward = urllib.request.Request(upstream + request.path.rstrip("/"), body, headers)
        try:
            with urllib.request.urlopen(onward, timeout=20) as answer:
                status, data = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read()
        if isinstance(document, list):
            data = json.dumps(proxy.change(json.loads(data))).encode()
        return send(request, data, status)

    with http_server(reply) as url:
        proxy.url = url
        yield proxy


def payload() -> bytes:
    return anchor_payload(hashlib.sha256(os.urandom(16)).digest())


@pytest.fixture
def ethereum(chain: Anvil) -> Iterator[tuple[EthereumInterface, Proxy, list[str]]]:
    """Six anchors, three blocks deep, behind a proxy."""
    settings = EthereumSettings(url=chain.url, private_key=KEYS[0], confirmations=3)
    sender = EthereumInterface(settings)
    ids = [sender.store_hash(payload()[4:]) for _ in range(6)]
    sender.close()
    chain.call("anvil_mine", "0x3")
    with proxied(chain.url) as proxy:
        network = EthereumInterface(structs.replace(settings, url=proxy.url))
        yield network, proxy, ids
        network.close()


def singly(network: Network, ids: list[str]) -> dict[str, Observation]:
    return {each: network.lookup(each) for each in ids}


@pytest.mark.parametrize("name", ["ethereum"])
def test_many_lookups_are_the_single_ones_in_few_requests(
    name: str, request: pytest.FixtureRequest
) -> None:
    network, proxy, ids = request.getfixturevalue(name)
    assert isinstance(network, LooksUpMany)
    expected = singly(network, ids)
    assert all(seen.place is Place.MINED and seen.final for seen in expected.values())
    one_by_one = proxy.requests
    proxy.reset()
    unknown = "0x" + "ab" * 32
    assert network.lookup_many([*ids, unknown, "nonsense"]) == expected
    assert proxy.requests < one_by_one / 3
    assert network.lookup_many([]) == {}


@pytest.mark.parametrize("name", ["ethereum"])
def test_a_node_without_batches_is_asked_one_by_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    network, proxy, ids = request.getfixturevalue(name)
    expected = singly(network, ids)
    proxy.batches = False
    assert network.lookup_many(ids) == expected
    proxy.reset()
    assert network.lookup_many(ids) == expected
    assert proxy.requests == len(proxy.calls), "it does not try again"


def first_ten(answers: list[Any]) -> list[Any]:
    return answers[:10]


def foreign(answers: list[Any]) -> list[Any]:
    return [{**answer, "id": 10**9} for answer in answers]


def crossed(answers: list[Any]) -> list[Any]:
    numbers = [answer["id"] for answer in answers]
    return [{**each, "id": at} for each, at in zip(answers, reversed(numbers), strict=True)]


def broken(answers: list[Any]) -> list[Any]:
    return [None, 7, {"id": answers[0]["id"]}, {"id": [], "result": 1}]


@pytest.mark.parametrize("change", [first_ten, foreign, crossed, broken])
@pytest.mark.parametrize("name", ["ethereum"])
def test_a_batch_answered_in_part_or_wrongly_proves_nothing_else(
    name: str, change: Callable[[list[Any]], list[Any]], request: pytest.FixtureRequest
) -> None:
    network, proxy, ids = request.getfixturevalue(name)
    expected = singly(network, ids)
    proxy.change = change
    found = network.lookup_many(ids)
    assert found.items() <= expected.items()
    assert singly(network, ids) == expected, "nothing of it is remembered"


@pytest.mark.parametrize("name", ["ethereum"])
def test_a_node_that_is_away_is_an_error(name: str, request: pytest.FixtureRequest) -> None:
    network, proxy, ids = request.getfixturevalue(name)
    proxy.down = True
    with suppress(UnavailableError):
        assert network.lookup_many(ids) == {}
    assert proxy.requests <= 2


def headers_of(regtest: Regtest) -> list[str]:
    height = regtest.rpc.call("getblockcount")
    assert isinstance(height, int)
    names = [regtest.rpc.call("getblockhash", at) for at in range(height + 1)]
    return [str(regtest.rpc.call("getblockheader", name, False)) for name in names]


def test_many_runs_on_real_nodes(
    chain: Anvil, bitcoin_settings: BitcoinSettings, tmp_path: Path
) -> None:
    regtest = Regtest(bitcoin_settings)
    coins = regtest.rich_wallet()
    world: Any = World(names=("ethereum", "bitcoin"))
    settings = load(None, tmp_path / "artifacts")
    world.store.close()
    world.store = sending.open_store(settings)
    signer = sending.ledger_signer(settings)
    world.policy = dataclasses.replace(world.policy, signer=signer)
    node = EthereumSettings(url=chain.url, private_key=KEYS[0], confirmations=2)
    world.networks = {"ethereum": EthereumInterface(node), "bitcoin": BitcoinInterface(coins)}
    configured = structs.replace(settings.blockchain, ethereum=node, bitcoin=coins)
    settings = structs.replace(settings, blockchain=configured)

    def mine() -> None:
        chain.call("anvil_mine", "0x3")
        regtest.mine(3)

    for at in range(6):
        run = RUNS[at]
        world.ingest(world.batch(story(2), run=run))
        if at % 3 == 2:
            for _ in range(2):
                world.anchor()
                mine()
            world.anchor()
    world.store.close()

    with proxied(chain.url) as eth, proxied(coins.url) as btc:
        asked: dict[str, Network] = {
            "ethereum": EthereumInterface(structs.replace(node, url=eth.url)),
            "bitcoin": BitcoinInterface(structs.replace(coins, url=btc.url)),
        }
        alone = {each: verify_run(settings, str(RUNS[each]), networks=asked) for each in range(6)}
        assert {report.outcome for report in alone.values()} == {"verified"}, alone[0].verdict
        before = eth.requests, btc.requests
        eth.reset()
        btc.reset()
        for _ in range(3):
            with verify_all(settings, networks=asked) as runs:
                found = list(runs)
            assert [result.outcome for result in found] == ["verified"] * 6
            for at, result in enumerate(found):
                assert result.report is not None
                assert result.report.networks == alone[at].networks
        assert eth.calls.count("eth_getTransactionByHash") <= 3 * 4
        assert eth.requests / 3 < before[0] / 4
        assert btc.calls.count("getrawtransaction") == 3 * 2, "once per anchor, not per run"
        assert btc.requests / 3 < before[1] / 3

        given = tmp_path / "headers"
        given.write_text("\n".join(headers_of(regtest)))
        for _ in range(2):
            with verify_all(settings, offline=True, headers=[str(given)]) as runs:
                found = list(runs)
            for result in found:
                assert result.report is not None
                bitcoin = result.report.networks["bitcoin"]["after"]
                assert (result.outcome, bitcoin.status) == ("anchored", "verified")

        eth.down = True
        eth.reset()
        with verify_all(settings, networks=asked) as runs:
            assert [result.outcome for result in runs] == ["anchored"] * 6
            assert runs.totals.exit_code == 3
        assert eth.requests == 1, "a node that is down is asked once, not once per run"
    for network in (*asked.values(), *world.networks.values()):
        network.close()
