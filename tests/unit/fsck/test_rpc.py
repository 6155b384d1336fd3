"""The checker's own RPC: what a node may answer, and what is made of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from provenance.errors import LyingNodeError, NetworkUnavailable, ProvenanceError
from provenance.fsck import rpc as module
from provenance.fsck.chains import BitcoinReader, IPFSReader
from provenance.fsck.onchain import Question
from provenance.fsck.rpc import RefusedError, Rpc
from provenance.settings import BitcoinSettings, IPFSSettings
from tests.support.nodes.rpc_stub import http_server, send

NOTHING = Question(frozenset({"ab" * 32}), frozenset(), frozenset())


@contextmanager
def node(answer: Callable[[Any], object], status: int = 200) -> Iterator[Rpc]:
    """A node whose answer to a request document is ``answer`` of it."""

    def reply(request: Any, body: bytes) -> None:
        told = answer(json.loads(body))
        send(request, told if isinstance(told, bytes) else json.dumps(told).encode(), status)

    with http_server(reply) as url:
        yield Rpc("node", f"{url}/key?secret=1", 5.0)


def result(each: dict[str, Any]) -> dict[str, Any]:
    return {"id": each["id"], "result": each["params"]}


def test_results_come_back_in_the_order_of_the_calls() -> None:
    with node(lambda asked: [result(each) for each in reversed(asked)]) as rpc:
        assert rpc.batch([("m", n) for n in range(250)]) == [[n] for n in range(250)]
        assert rpc.batch([]) == []


def test_an_absent_thing_is_none_and_another_error_is_raised() -> None:
    def answer(asked: Any) -> object:
        return [{"id": e["id"], "error": {"code": e["params"][0], "message": "no"}} for e in asked]

    with node(answer) as rpc:
        assert rpc.batch([("m", -5)], absent=(-5,)) == [None]
        with pytest.raises(RefusedError, match="node at http://127.0.0.1:.* m: no") as caught:
            rpc.batch([("m", -5), ("m", -6)], absent=(-5,))
    assert caught.value.code == -6
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"<html>", RefusedError),
        ([1], LyingNodeError),
        ([], LyingNodeError),
        ([{"id": 7, "result": 1}], LyingNodeError),
        ({"error": "too many"}, RefusedError),
        ({"error": {"code": "x", "message": "too many"}}, RefusedError),
        (3, LyingNodeError),
    ],
)
def test_an_answer_of_another_form_is_refused(answer: object, error: type[ProvenanceError]) -> None:
    with node(lambda _: answer) as rpc, pytest.raises(error):
        rpc.batch([("m",)])
    with node(lambda _: answer) as rpc, pytest.raises((RefusedError, LyingNodeError)):
        rpc.call("m")


def test_too_much_of_an_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 10)
    with node(lambda _: {"result": "x" * 20}) as rpc, pytest.raises(LyingNodeError):
        rpc.call("m")


def test_what_does_not_speak_http_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            link, _ = server.accept()
            link.recv(65536)
            link.sendall(b"220 mail ready\r\n\r\n")
            link.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(NetworkUnavailable, match="BadStatusLine"):
            Rpc("node", url, 5.0).call("m")
        thread.join()


# --- bitcoin and ipfs nodes that no test can bring up ------------------------------------


def bitcoin(url: str) -> BitcoinReader:
    return BitcoinReader(BitcoinSettings(url, user="u", password="p"))


def bitcoind(transaction: object, index: object, code: int = -5) -> Callable[[Any], object]:
    """A node with a wallet that sent nothing; what it says of a transaction and its index."""

    def one(each: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, object] = {
            "getblockchaininfo": {"chain": "main", "blocks": 9},
            "getblockhash": "00" * 32,
            "listsinceblock": {"transactions": []},
            "gettransaction": transaction,
            "getindexinfo": index,
        }
        if told.get(each["method"]) is None:
            return {"id": each["id"], "error": {"code": code, "message": "none"}}
        return {"id": each["id"], "result": told[each["method"]]}

    return lambda asked: list(map(one, asked)) if isinstance(asked, list) else one(asked)


@pytest.mark.parametrize("index", [{}, {"txindex": {"synced": False}}])
def test_without_an_index_a_node_cannot_be_sure(index: object) -> None:
    with node(bitcoind(None, index)) as rpc:
        view = bitcoin(f"http://127.0.0.1:{rpc._port}").read(NOTHING)
    assert view.unsure == {"ab" * 32}
    assert "cannot say" in view.notes[0]


def test_with_an_index_it_is_sure() -> None:
    with node(bitcoind(None, {"txindex": {"synced": True}})) as rpc:
        view = bitcoin(f"http://127.0.0.1:{rpc._port}").read(NOTHING)
    assert (view.unsure, list(view.transactions)) == (frozenset(), [])


@pytest.mark.parametrize(
    ("hex", "words"), [("zz", "does not parse"), ("00", "does not parse"), (None, "other bytes")]
)
def test_a_transaction_that_is_another_is_not_believed(hex: str | None, words: str) -> None:
    empty = "01000000" + "01" + "00" * 36 + "00" + "ffffffff" + "01" + "00" * 8 + "00" + "00000000"
    found = {"confirmations": 3, "hex": empty if hex is None else hex}
    with (
        node(bitcoind(found, None)) as rpc,
        pytest.raises(LyingNodeError, match=words),
    ):
        bitcoin(f"http://127.0.0.1:{rpc._port}").read(NOTHING)


def test_another_error_of_the_node_is_no_absence() -> None:
    with node(bitcoind(None, None, code=-28)) as rpc, pytest.raises(RefusedError):
        bitcoin(f"http://127.0.0.1:{rpc._port}").read(NOTHING)


def ipfs(pins: bytes, block: bytes) -> Iterator[IPFSReader]:
    def reply(request: Any, body: bytes) -> None:
        send(request, pins if "pin/ls" in request.path else block)

    with http_server(reply) as url:
        yield IPFSReader(IPFSSettings(url, auth="Bearer secret"))


def test_ipfs_answers_are_checked() -> None:
    from provenance.proofs.ipfs.cid import raw_cid

    payload = b"MLP1" + b"\1" * 32
    question = Question(frozenset({str(raw_cid(payload)), "no cid"}), frozenset(), frozenset())
    pins = json.dumps({"Keys": {str(raw_cid(payload)): {}, "b?": {}}}).encode()
    for reader in ipfs(pins, payload):
        assert [t.payload for t in reader.read(question).transactions] == [payload]
    for reader in ipfs(pins, b"other"):
        with pytest.raises(LyingNodeError, match="other bytes"):
            reader.read(question)
    for reader in ipfs(b"<html>", b""):
        with pytest.raises(NetworkUnavailable, match="no list of pins"):
            reader.read(question)
