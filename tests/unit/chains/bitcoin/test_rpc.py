"""bitcoind's JSON-RPC: every wrong answer becomes one of our errors, and none leaks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from provenance.chains.bitcoin import rpc
from provenance.chains.bitcoin.rpc import BitcoinRpc, RpcError
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
    ProvenanceError,
    RejectedError,
)
from provenance.formats.fields import Fields
from provenance.settings import BitcoinSettings
from tests.support.nodes.rpc_stub import http_server, json_rpc_server, send


def settings(url: str, **more: object) -> BitcoinSettings:
    more = {"user": "u", "password": "p/@:#%2F", "timeout_s": 5.0} | more
    return BitcoinSettings(url=url, **more)  # type: ignore[arg-type]  # keyword arguments of several types


def test_login_wallet_path_and_numbers_are_exact(tmp_path: Path) -> None:
    seen: list[tuple[str, str, bytes]] = []

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append((request.path, request.headers["Authorization"], body))
        call = json.loads(body)
        send(request, json.dumps({"id": call["id"], "result": 0.1, "error": None}).encode())

    cookie = tmp_path / ".cookie"
    cookie.write_text("__cookie__:first\n")
    with http_server(reply) as url:
        rpc = BitcoinRpc(settings(url, wallet="my wallet/1"))
        assert rpc.call("x", Decimal("0.00000001"), True, wallet=True) == Decimal("0.1")
        by_cookie = BitcoinRpc(settings(url, user=None, cookie_file=cookie))
        by_cookie.call("x")
        cookie.write_text("__cookie__:second\n")
        by_cookie.call("x")
    paths, logins, bodies = zip(*seen, strict=True)
    assert paths == ("/wallet/my%20wallet%2F1", "/", "/")
    decoded = [base64.b64decode(each.removeprefix("Basic ")) for each in logins]
    assert decoded == [b"u:p/@:#%2F", b"__cookie__:first", b"__cookie__:second"]
    assert json.loads(bodies[0])["params"] == ["1E-8", True]


def body(text: str, status: int = 200) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def reply(request: BaseHTTPRequestHandler, question: bytes) -> None:
        number = json.loads(question)["id"]
        send(request, text.replace("ID", str(number)).encode(), status, "text/html")

    return reply


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (body("", 401), NetworkUnavailable),
        (body("", 403), NetworkUnavailable),
        (body("Work queue depth exceeded", 503), NetworkUnavailable),
        (body("<html>", 200), LyingNodeError),
        (body("[" * 100000, 200), LyingNodeError),
        (body("[]"), LyingNodeError),
        (body("null"), LyingNodeError),
        (body('{"id": 0, "result": 1, "error": null}'), LyingNodeError),
        (body('{"id": ID}'), LyingNodeError),
        (body('{"id": ID, "error": "boo"}'), LyingNodeError),
        (body('{"id": ID, "error": {"code": "x"}}'), LyingNodeError),
        (body('{"id": ID, "error": {"code": -28, "message": "Loading"}}'), NetworkUnavailable),
        (body('{"id": ID, "error": {"code": -13, "message": "locked"}}'), NetworkUnavailable),
        (body('{"id": ID, "error": {"code": -19, "message": "which"}}'), NetworkUnavailable),
        (body('{"id": ID, "error": {"code": -6, "message": "poor"}}'), InsufficientFundsError),
        (
            body('{"id": ID, "error": {"code": -4, "message": "Insufficient funds"}}'),
            InsufficientFundsError,
        ),
        (body('{"id": ID, "error": {"code": -4, "message": "busy"}}'), NetworkUnavailable),
        (body('{"id": ID, "error": {"code": -32601, "message": "?"}}', 404), NetworkUnavailable),
    ],
)
def test_every_wrong_answer_is_ours(
    reply: Callable[[BaseHTTPRequestHandler, bytes], None], expected: type[ProvenanceError]
) -> None:
    with http_server(reply) as url, pytest.raises(expected) as caught:
        BitcoinRpc(settings(url)).ask("getblockcount")
    assert type(caught.value) is expected
    assert "p/@" not in str(caught.value)


def test_an_error_of_the_node_keeps_its_number() -> None:
    def handler(method: str, params: list[rpc.Value]) -> rpc.Value:
        raise RpcError(method, -5, "No such transaction")

    with json_rpc_server(handler) as url, pytest.raises(RpcError) as caught:
        BitcoinRpc(settings(url)).call("getrawtransaction", "00")
    assert caught.value.code == -5


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (-27, "Transaction outputs already in utxo set", None),
        (-27, "Transaction already in block chain", None),
        (-26, "txn-already-in-mempool", None),
        (-26, "txn-already-known", None),
        (-26, "txn-same-nonwitness-data-in-mempool", None),
        (-26, "min relay fee not met, 100 < 141", FeeTooLowError),
        (-26, "min relay fee not met", FeeTooLowError),
        (-26, "mempool min fee not met, 141 < 705", FeeTooLowError),
        (-26, "insufficient fee, rejecting replacement 59; new feerate 0.1 <= old", FeeTooLowError),
        (-26, "insufficient fee", FeeTooLowError),
        (-26, "mempool full", FeeTooLowError),
        (-26, "txn-mempool-conflict", NetworkUnavailable),
        (-26, "too-long-mempool-chain, too many unconfirmed ancestors", NetworkUnavailable),
        (-26, "non-final", NetworkUnavailable),
        (-26, "mandatory-script-verify-flag-failed (Signature is wrong)", RejectedError),
        (-26, "scriptpubkey", RejectedError),
        (-26, "datacarrier", RejectedError),
        (-25, "bad-txns-inputs-missingorspent", NetworkUnavailable),
        (-25, "Missing inputs", NetworkUnavailable),
        (-22, "TX decode failed", RejectedError),
        (-1, "something", NetworkUnavailable),
    ],
)
def test_what_a_refused_broadcast_means(
    code: int, message: str, expected: type[ProvenanceError] | None
) -> None:
    failure = RpcError("sendrawtransaction", code, message).broadcast_failure()
    assert (None if failure is None else type(failure)) is expected


def test_no_login_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="cookie_file nor rpc_user"):
        BitcoinRpc(BitcoinSettings(url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (Fields.object, []),
        (Fields.objects, {}),
        (Fields.text, 1),
        (rpc.depth, True),
        (rpc.depth, "1"),
        (rpc.octets, "xyz"),
        (rpc.octets, None),
        (rpc.sats, "1"),
        (rpc.sats, True),
        (rpc.sats, Decimal("0.000000001")),
        (rpc.feerate, None),
        (rpc.feerate, False),
    ],
)
def test_values_of_the_wrong_type_are_lies(
    read: Callable[[Fields, str], object], wrong: rpc.Value
) -> None:
    with pytest.raises(LyingNodeError, match="bitcoin: there: found"):
        read(rpc.answered(wrong, "there"), "there")


def test_amounts_are_exact() -> None:
    assert rpc.sats(rpc.answered(Decimal("20999999.97690000"), "x"), "x") == 2_099_999_997_690_000
    assert rpc.sats(rpc.answered(50, "x"), "x") == 5_000_000_000
    assert rpc.feerate(rpc.answered(Decimal("0.00001"), "x"), "x") == 1
