"""A node between us and the real one that changes single answers: refused, never believed.

Over 400 lines: one node that lies in every answer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import structs

from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.bitcoin.rpc import BitcoinRpc, RpcError, Value
from provenance.errors import (
    FeeTooLowError,
    LyingNodeError,
    NetworkUnavailable,
    ProvenanceError,
    WrongNetworkError,
)
from provenance.ports.values import Place, SignedVersion, anchor_payload
from provenance.proofs.bitcoin import double_sha256
from provenance.settings import BitcoinSettings
from tests.support.nodes.regtest import Regtest
from tests.support.nodes.rpc_stub import json_rpc_server

pytestmark = pytest.mark.nodes
Change = Callable[[Value, list[Value]], Value]


@dataclass
class Liar:
    """``lies`` by method; each gets the true answer and the params."""

    network: BitcoinInterface
    settings: BitcoinSettings
    """Of the honest node."""
    via: BitcoinSettings
    regtest: Regtest
    lies: dict[str, Change] = field(default_factory=dict)

    def signed(self) -> SignedVersion:
        what = anchor_payload(hashlib.sha256(os.urandom(16)).digest())
        return self.network.sign(self.network.draft(what), None)

    def mined(self) -> SignedVersion:
        version = self.signed()
        self.network.broadcast(version)
        self.regtest.mine()
        return version


@contextmanager
def lying(settings: BitcoinSettings, regtest: Regtest) -> Iterator[Liar]:
    truth = BitcoinRpc(settings)
    lies: dict[str, Change] = {}

    def handler(method: str, params: list[Value]) -> Value:
        try:
            answer = truth.call(method, *params, wallet=True)
        except RpcError as error:
            if method not in lies:
                raise
            answer = {"code": error.code}
        return lies[method](answer, params) if method in lies else answer

    with json_rpc_server(handler) as url:
        via = structs.replace(settings, url=url, timeout_s=10.0)
        yield Liar(BitcoinInterface(via), settings, via, regtest, lies)


@pytest.fixture
def liar(bitcoin_settings: BitcoinSettings) -> Iterator[Liar]:
    regtest = Regtest(bitcoin_settings)
    with lying(regtest.rich_wallet(), regtest) as made:
        yield made


def put(**changes: Value) -> Change:
    return lambda answer, params: {**answer, **changes}  # type: ignore[dict-item]  # keyword arguments of several types


def say(value: Any) -> Change:
    return lambda answer, params: value


def refuse(code: int, message: str) -> Change:
    def change(answer: Value, params: list[Value]) -> Value:
        raise RpcError("stub", code, message)

    return change


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        ({"getblockchaininfo": put(chain="main")}, WrongNetworkError),
        ({"getblockhash": say("00" * 32)}, WrongNetworkError),
        ({"getblockchaininfo": say([])}, LyingNodeError),
        ({"getblockchaininfo": put(blocks="many")}, LyingNodeError),
        ({"getnetworkinfo": put(subversion=None)}, LyingNodeError),
        ({"getbalances": put(mine={"trusted": "1"})}, LyingNodeError),
        ({"getbalances": refuse(-32601, "Method not found")}, NetworkUnavailable),
    ],
)
def test_identity(liar: Liar, lies: dict[str, Change], error: type[ProvenanceError]) -> None:
    liar.lies.update(lies)
    with pytest.raises(error):
        liar.network.identity()


def test_a_syncing_node_is_not_ready_but_a_quiet_regtest_is(
    bitcoin_settings: BitcoinSettings,
) -> None:
    genesis = "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
    answers: dict[str, Value] = {
        "getblockchaininfo": {"chain": "signet", "blocks": 7, "initialblockdownload": True},
        "getblockhash": genesis,
    }
    with json_rpc_server(lambda method, params: answers[method]) as url:
        settings = BitcoinSettings(url=url, network="signet", user="u", password="p")
        with pytest.raises(NetworkUnavailable, match="still syncing, at block 7"):
            BitcoinInterface(settings).identity()
    regtest = Regtest(bitcoin_settings)
    with lying(regtest.rich_wallet(), regtest) as liar:
        liar.lies["getblockchaininfo"] = put(initialblockdownload=True)
        assert liar.network.identity().fields["chain"] == "regtest"


def swap_output(answer: Value, params: list[Value]) -> Value:
    """Replace the anchored root in a hex transaction."""
    assert isinstance(answer, dict)
    text = str(answer["hex"])
    at = text.index("4d4c5031") + 8
    return {**answer, "hex": text[:at] + "00" * 32 + text[at + 64 :]}


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        ({"signrawtransactionwithwallet": swap_output}, LyingNodeError),
        ({"signrawtransactionwithwallet": put(complete=False)}, NetworkUnavailable),
        ({"signrawtransactionwithwallet": put(hex="00")}, LyingNodeError),
        ({"fundrawtransaction": put(hex="zz")}, LyingNodeError),
        ({"fundrawtransaction": put(fee=1)}, FeeTooLowError),
        ({"decoderawtransaction": put(txid="00" * 32)}, LyingNodeError),
        ({"getmempoolinfo": put(mempoolminfee=1)}, FeeTooLowError),
        ({"getmempoolinfo": put(minrelaytxfee=None)}, LyingNodeError),
        ({"estimatesmartfee": put(feerate="x")}, LyingNodeError),
        ({"getbestblockhash": say(None)}, LyingNodeError),
    ],
)
def test_draft_believes_nothing_and_leaves_no_lock(
    liar: Liar, lies: dict[str, Change], error: type[ProvenanceError]
) -> None:
    liar.lies.update(lies)
    with pytest.raises(error):
        liar.signed()
    funded: Any = lies.get("fundrawtransaction", put())({}, [])
    if "hex" not in funded:
        held = BitcoinRpc(liar.settings).call("listlockunspent", wallet=True)
        assert held == []


def test_fees_follow_the_estimate_up_to_the_cap(liar: Liar) -> None:
    liar.lies["estimatesmartfee"] = say({"feerate": 0.0004, "blocks": 6})
    assert liar.signed().detail["feerate"] == pytest.approx(40, abs=0.5)
    liar.lies["estimatesmartfee"] = say({"feerate": 0.5, "blocks": 6})
    assert liar.signed().detail["feerate"] == pytest.approx(200, abs=1.5)
    liar.lies["estimatesmartfee"] = say({"errors": ["Insufficient data"], "blocks": 0})
    assert liar.signed().detail["feerate"] == pytest.approx(1, abs=0.1)


def test_the_main_chain_needs_an_estimate() -> None:
    answers: dict[str, Any] = {
        "getbestblockhash": "00" * 32,
        "getmempoolinfo": {"mempoolminfee": 0.00001, "minrelaytxfee": 0.00001},
        "estimatesmartfee": {"errors": ["Insufficient data"], "blocks": 0},
    }
    with json_rpc_server(lambda method, params: answers[method]) as url:
        settings = BitcoinSettings(url=url, network="main", user="u", password="p")
        with pytest.raises(NetworkUnavailable, match="no fee estimate"):
            BitcoinInterface(settings).draft(anchor_payload(bytes(32)))


@pytest.mark.parametrize(
    "lies",
    [
        {"psbtbumpfee": put(psbt=None)},
        {"psbtbumpfee": put(fee="1")},
        {"finalizepsbt": swap_output},
    ],
)
def test_bump_believes_nothing(liar: Liar, lies: dict[str, Change]) -> None:
    version = liar.signed()
    liar.network.broadcast(version)
    liar.lies.update(lies)
    with pytest.raises(LyingNodeError):
        liar.network.draft(version.payload, version)


def test_a_bump_must_spend_the_same_inputs(liar: Liar) -> None:
    version = liar.signed()
    liar.network.broadcast(version)
    other = dataclasses.replace(version, detail={**version.detail, "inputs": ["00" * 32 + ":0"]})
    with pytest.raises(LyingNodeError, match="left out an input"):
        liar.network.draft(version.payload, other)


def test_bump_errors_are_translated(liar: Liar) -> None:
    version = liar.signed()
    liar.network.broadcast(version)
    for code, message, error in (
        (-8, "Insufficient total fee 1, must be at least 2", FeeTooLowError),
        (-8, "Transaction has descendants in the wallet", NetworkUnavailable),
        (-4, "Cannot bump transaction, it was mined", NetworkUnavailable),
    ):
        liar.lies["psbtbumpfee"] = refuse(code, message)
        with pytest.raises(error, match=message[:12]):
            liar.network.draft(version.payload, version)
    del liar.lies["psbtbumpfee"]
    liar.lies["finalizepsbt"] = put(complete=False)
    with pytest.raises(NetworkUnavailable, match="cannot sign"):
        liar.network.draft(version.payload, version)


@contextmanager
def changed(liar: Liar, lies: dict[str, Change]) -> Iterator[None]:
    """Lies for a while."""
    liar.lies.update(lies)
    try:
        yield
    finally:
        liar.lies.clear()


def test_another_transactions_bytes_are_refused(liar: Liar) -> None:
    first, second = liar.mined(), liar.mined()
    for lie in (
        put(hex=second.raw.hex()),
        put(hex="00"),
        put(hex=None),
        put(blockhash=7),
        say(""),
    ):
        with changed(liar, {"getrawtransaction": lie}), pytest.raises(LyingNodeError):
            liar.network.observe(first)
        with changed(liar, {"getrawtransaction": lie}), pytest.raises(LyingNodeError):
            liar.network.lookup(first.transaction_id)
    other = dataclasses.replace(first, payload=second.payload)
    with pytest.raises(LyingNodeError, match="does not carry"):
        liar.network.observe(other)


def test_a_block_that_does_not_hold_the_transaction_is_refused(liar: Liar) -> None:
    version = liar.mined()
    seen = liar.network.observe(version)
    (empty,) = liar.regtest.mine()
    raw = str(liar.regtest.rpc.call("getblockheader", empty, False))
    of_empty = str(liar.regtest.rpc.call("gettxoutproof", [coinbase(liar, empty)], empty))
    true = str(liar.regtest.rpc.call("gettxoutproof", [version.transaction_id]))
    assert seen.block_hash is not None
    of_other = str(
        liar.regtest.rpc.call("gettxoutproof", [coinbase(liar, seen.block_hash)], seen.block_hash)
    )
    idle = bytearray.fromhex(raw)
    idle[72:76] = b"\xff\xff\x00\x1d"  # a harder target than its hash meets
    cases: list[dict[str, Change]] = [
        {"gettxoutproof": say(of_empty)},
        {"gettxoutproof": say(of_other)},
        {"gettxoutproof": say(true[:-2])},
        {"gettxoutproof": say(raw + true[160:])},
        {"getblockheader": lambda answer, params: answer if params[1] else raw},
        {"getblockheader": lambda answer, params: answer if params[1] else idle.hex()},
        {"getblockheader": lambda answer, params: answer if params[1] else "00"},
        {"getblockheader": say("00")},
        {"getrawtransaction": put(blockhash=empty), "gettxoutproof": say(true)},
    ]
    for lies in cases:
        with changed(liar, lies), pytest.raises(LyingNodeError):
            liar.network.observe(version)
        if "getrawtransaction" not in lies:
            with changed(liar, lies), pytest.raises(LyingNodeError):
                liar.network.evidence(version, seen)


def test_a_block_without_work_is_refused(liar: Liar) -> None:
    version = liar.mined()
    proof = bytearray.fromhex(str(liar.regtest.rpc.call("gettxoutproof", [version.transaction_id])))
    while double_sha256(bytes(proof[:80]))[31] < 0x80:  # above regtest's target
        proof[76] = (proof[76] + 1) % 256
    made_up = double_sha256(bytes(proof[:80]))[::-1].hex()

    def header(answer: Value, params: list[Value]) -> Value:
        return {"height": 9, "confirmations": 1} if params[1] else proof[:80].hex()

    lies: dict[str, Change] = {
        "getrawtransaction": put(blockhash=made_up),
        "getblockheader": header,
        "gettxoutproof": say(proof.hex()),
    }
    with changed(liar, lies), pytest.raises(LyingNodeError, match="above its target"):
        liar.network.observe(version)


def coinbase(liar: Liar, block: str) -> str:
    told = liar.regtest.rpc.call("getblock", block, 1)
    assert isinstance(told, dict)
    assert isinstance(told["tx"], list)
    return str(told["tx"][0])


def test_a_depth_without_headers_on_top_is_not_final(liar: Liar) -> None:
    version = liar.mined()

    def deep(answer: Value, params: list[Value]) -> Value:
        return {**answer, "confirmations": 100} if isinstance(answer, dict) else answer

    with changed(liar, {"getblockheader": deep}), pytest.raises(NetworkUnavailable):
        liar.network.observe(version)
    seen = liar.network.observe(version)
    liar.regtest.mine(2)
    lie = {"getblockhash": say(seen.block_hash)}
    with changed(liar, lie), pytest.raises(NetworkUnavailable, match="chain changed"):
        liar.network.observe(version)
    assert liar.network.observe(version).final


def test_a_block_outside_the_best_chain_is_no_confirmation(liar: Liar) -> None:
    version = liar.mined()

    def stale(answer: Value, params: list[Value]) -> Value:
        return {**answer, "confirmations": -1} if isinstance(answer, dict) else answer

    with changed(liar, {"getblockheader": stale}):
        assert liar.network.observe(version).place is Place.UNKNOWN


def test_an_echo_of_another_id_is_refused(liar: Liar) -> None:
    version = liar.signed()
    with changed(liar, {"sendrawtransaction": say("00" * 32)}), pytest.raises(LyingNodeError):
        liar.network.broadcast(version)


def test_a_lost_answer_is_success_the_second_time(liar: Liar) -> None:
    version = liar.signed()
    with changed(liar, {"sendrawtransaction": refuse(-1, "answer lost")}):
        with pytest.raises(NetworkUnavailable):
            liar.network.broadcast(version)
    liar.network.broadcast(version)
    with changed(liar, {"sendrawtransaction": refuse(-25, "bad-txns-inputs-missingorspent")}):
        liar.network.broadcast(version)  # it is in the mempool
    with changed(liar, {"sendrawtransaction": refuse(-27, "already in block chain")}):
        liar.network.broadcast(version)


def test_without_an_index_an_unknown_id_stays_an_open_question(liar: Liar) -> None:
    version = liar.mined()
    hidden = refuse(-5, "No such mempool transaction. Use -txindex")
    with changed(liar, {"getindexinfo": say({}), "getrawtransaction": hidden}):
        assert liar.network.observe(version).place is Place.MINED  # by the wallet
        with pytest.raises(NetworkUnavailable, match="txindex=1"):
            liar.network.lookup("00" * 32)
        with changed(liar, {"gettransaction": refuse(-5, "not mine"), "getrawtransaction": hidden}):
            assert liar.network.observe(version).place is Place.UNKNOWN


def test_unexpected_errors_of_the_node_are_retryable(liar: Liar) -> None:
    version = liar.mined()
    for method in ("getrawtransaction", "gettxoutproof", "getblockheader"):
        with changed(liar, {method: refuse(-1, "Block not available (pruned data)")}):
            with pytest.raises(NetworkUnavailable, match="pruned"):
                liar.network.observe(version)
    both = {
        "getrawtransaction": refuse(-5, "?"),
        "gettransaction": refuse(-1, "database is busy"),
    }
    with changed(liar, both), pytest.raises(NetworkUnavailable, match="busy"):
        liar.network.observe(version)
    unsent = liar.signed()
    with changed(liar, {"lockunspent": refuse(-1, "odd")}), pytest.raises(NetworkUnavailable):
        liar.network.broadcast(unsent)


def test_a_reader_needs_no_wallet(liar: Liar) -> None:
    version = liar.mined()
    none = refuse(-18, "No wallet is loaded")
    liar.network = BitcoinInterface(structs.replace(liar.via, wallet=None))
    with changed(liar, {"gettransaction": none, "getbalances": none}):
        assert liar.network.identity().balance is None
        assert liar.network.lookup(version.transaction_id).place is Place.MINED
        assert liar.network.lookup("00" * 32).place is Place.UNKNOWN


def test_errors_while_loading_a_wallet(liar: Liar) -> None:
    gone = refuse(-18, "Requested wallet does not exist or is not loaded")
    for code, match in ((-35, "does not exist"), (-4, "being loaded")):
        lies = {"getbalances": gone, "loadwallet": refuse(code, "Wallet already being loaded")}
        with changed(liar, lies), pytest.raises(NetworkUnavailable, match=match):
            liar.network.identity()
