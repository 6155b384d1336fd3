"""23. An RPC that lies: refused, never "confirmed"; and the truth is taken up afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provenance.bootstrap import sending
from provenance.ports.values import AnchorState, anchor_payload
from provenance.proofs.ipfs.cid import raw_cid
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import Deployment, bitcoin_section, deployment, ethereum_section
from tests.faults.support.chains import count, on_bitcoin, on_ethereum, on_ipfs, proxy
from tests.faults.support.harness import scenario
from tests.integration.chains.test_bitcoin_lies import lying, put, say, swap_output
from tests.support.nodes.ethereum_chain import Anvil, Liar
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
TITLE = "an RPC that lies"
OTHER = "0x" + "11" * 32
UNBELIEVED = (AnchorState.DUE, AnchorState.SIGNED, AnchorState.SENT)


def refused(world: Deployment, name: str, *, said: bool = True) -> None:
    """Some passes, and nothing is believed; the row says why, or the pause does."""
    for turn in range(4):
        if turn == 2:  # a worker that has just started remembers nothing of the chain itself
            world.networks[name].close()
            world.networks[name] = sending.open_network(world.settings, name)
        world.confirm(name)
        world.publish(name)
        row = world.row(name)
        assert row.state in UNBELIEVED, row
        assert world.receipts(name) == []
    assert not said or world.row(name).reason or world.paused(name)


def with_(**changes: Any) -> Callable[[list[Any], Any], Any]:
    return lambda params, true: {**true, **changes} if true else true


def test_ethereum(tmp_path: Path, chain: Anvil, liar: Liar) -> None:
    chain.automine(False)
    since = int(chain.call("eth_blockNumber"), 16) + 1
    last = {"receipt": None}

    def of_another(params: list[Any], true: Any) -> Any:
        """The receipt of the anchor before, whole and true, but of another transaction."""
        return last["receipt"] if true else true

    section = ethereum_section(liar.url, confirmations=3)
    lies: dict[str, dict[str, Callable[[list[Any], Any], Any]]] = {
        "another transaction's receipt": {"eth_getTransactionReceipt": of_another},
        "a status that is not the block's": {
            "eth_getTransactionReceipt": with_(blockHash=OTHER),
        },
        "another root": {
            "eth_getTransactionByHash": with_(input="0x" + (b"MLP1" + b"\7" * 32).hex())
        },
        "a block without it": {"eth_getBlockByNumber": with_(transactions=[OTHER])},
        "a head below the block": {"eth_blockNumber": lambda params, true: hex(since - 1)},
        "another chain": {"eth_chainId": lambda params, true: "0x1"},
        "another genesis": {
            "eth_getBlockByNumber": lambda params, true: (
                {**true, "hash": OTHER} if params[0] in ("0x0", "earliest") else true
            ),
        },
    }
    with scenario(23, TITLE) as tally, deployment(tmp_path, ethereum=section) as world:
        settle_ethereum(world, chain)
        last["receipt"] = chain.call("eth_getTransactionReceipt", newest(world, "ethereum"))
        for what, forge in lies.items():
            world.head()
            world.publish("ethereum")
            assert world.row("ethereum").state is AnchorState.SENT, what
            chain.mine(4)
            liar.forge.update(forge)
            refused(world, "ethereum")
            liar.forge.clear()
            for _ in range(2):
                world.confirm("ethereum")
            assert world.row("ethereum").state is AnchorState.FINAL, what
            last["receipt"] = chain.call("eth_getTransactionReceipt", newest(world, "ethereum"))

        # A head that stands still shows a block, and never one that is deep.
        world.head()
        world.publish("ethereum")
        chain.mine()
        frozen = chain.call("eth_blockNumber")
        liar.forge["eth_blockNumber"] = lambda params, true: frozen
        chain.mine(20)
        for _ in range(4):
            world.confirm("ethereum")
            assert world.row("ethereum").state is AnchorState.CONFIRMED
            assert {r.anchor.state for r in world.receipts("ethereum")} == {"confirmed"}
        liar.forge.clear()
        world.confirm("ethereum")

        # Another chain from the start: nothing is signed for it, nothing is sent.
        liar.forge["eth_chainId"] = lambda params, true: "0x1"
        world.head()
        world.publish("ethereum")
        assert world.row("ethereum").state is AnchorState.DUE
        assert (world.paused("ethereum") or "").startswith("wrong network")
        assert world.versions("ethereum") == []
        assert chain.call("txpool_status")["pending"] == "0x0"
        liar.forge.clear()
        settle_ethereum(world, chain, head=False)
        assert world.paused("ethereum") is None
        tally.kills = len(lies) + 2
        count(tally, world, "ethereum", on_ethereum(chain, since))
        world.fsck(tally, ethereum=ethereum_section(chain.url))


def settle_ethereum(world: Deployment, chain: Anvil, head: bool = True) -> None:
    if head:
        world.head()
    world.publish("ethereum")
    chain.mine(4)
    world.confirm("ethereum")
    assert world.row("ethereum").state is AnchorState.FINAL


def newest(world: Deployment, name: str) -> str:
    return world.versions(name)[-1].version.transaction_id


def test_bitcoin(tmp_path: Path, bitcoin_settings: BitcoinSettings) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet("1.0", "1.0")
    since = int(str(regtest.rpc.call("getblockcount"))) + 1
    with (
        scenario(23, TITLE) as tally,
        lying(wallet, regtest) as liar,
        deployment(tmp_path, bitcoin=bitcoin_section(wallet, url=liar.via.url)) as world,
    ):
        world.head()
        world.publish("bitcoin")
        other = world.versions("bitcoin")[-1].version
        (block,) = regtest.mine()
        regtest.mine(2)
        world.confirm("bitcoin")
        assert world.row("bitcoin").state is AnchorState.FINAL
        of_other = str(regtest.rpc.call("gettxoutproof", [other.transaction_id], block))

        def of_coinbase(answer: Any, params: list[Any]) -> Any:
            told: Any = regtest.rpc.call("getblock", params[1], 1)
            return regtest.rpc.call("gettxoutproof", [told["tx"][0]], params[1])

        lies: dict[str, dict[str, Any]] = {
            "another transaction": {"getrawtransaction": put(hex=other.raw.hex())},
            "another root": {"getrawtransaction": swap_output},
            "another block": {"getrawtransaction": put(blockhash=block)},
            "another's proof": {"gettxoutproof": say(of_other)},
            "a proof of another in the same block": {"gettxoutproof": of_coinbase},
            "a depth without blocks": {
                "getblockheader": lambda answer, params: (
                    {**answer, "confirmations": 100} if isinstance(answer, dict) else answer
                ),
            },
            "another chain": {"getblockchaininfo": put(chain="main")},
            "another genesis": {
                "getblockhash": lambda answer, params: "00" * 32 if params == [0] else answer
            },
        }
        for what, forge in lies.items():
            world.head()
            world.publish("bitcoin")
            assert world.row("bitcoin").state is AnchorState.SENT, what
            regtest.mine()
            liar.lies.update(forge)
            refused(world, "bitcoin")
            liar.lies.clear()
            regtest.mine(2)
            world.confirm("bitcoin")
            assert world.row("bitcoin").state is AnchorState.FINAL, what
        tally.kills = len(lies)
        count(tally, world, "bitcoin", on_bitcoin(wallet, since))
        world.fsck(tally, bitcoin=bitcoin_section(wallet))


def test_ipfs(tmp_path: Path, ipfs_url: str) -> None:
    forged = anchor_payload(b"\7" * 32)
    cid = str(raw_cid(forged))
    lies: dict[str, Callable[[bytes], bytes]] = {}

    def answer(path: str, body: bytes, status: int, data: bytes) -> tuple[int, bytes]:
        for part, change in lies.items():
            if part in path:
                return 200, change(data)
        return status, data

    cases: dict[str, dict[str, Callable[[bytes], bytes]]] = {
        "a forged CID": {"/add": lambda data: json.dumps({"Hash": cid}).encode()},
        "other bytes": {"/block/get": lambda data: forged},
        "a pin of another": {
            "/pin/ls": lambda data: json.dumps({"Keys": {cid: {"Type": "recursive"}}}).encode(),
        },
    }
    with (
        scenario(23, TITLE) as tally,
        proxy(ipfs_url, answer) as url,
        deployment(tmp_path, ipfs={"url": url}) as world,
    ):
        for what, forge in cases.items():
            lies.update(forge)
            world.head()
            if "/add" in forge:  # the block is there all the same, so only the answer is refused
                world.publish("ipfs")
                assert world.row("ipfs").state is AnchorState.SIGNED
                assert f"names {cid}" in (world.row("ipfs").reason or "")
            else:
                refused(world, "ipfs", said="/pin/ls" not in forge)
            lies.clear()
            world.publish("ipfs")
            world.confirm("ipfs")
            assert world.row("ipfs").state is AnchorState.FINAL, what
        tally.kills = len(cases)
        count(tally, world, "ipfs", on_ipfs(ipfs_url, [row.root for row in world.rows("ipfs")]))
        world.fsck(tally, ipfs={"url": ipfs_url})
