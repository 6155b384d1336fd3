"""IPFS on a real daemon, and a stub that lies."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from provenance.chains.ipfs import IPFSInterface
from provenance.errors import (
    ConfigError,
    LyingNodeError,
    NetworkUnavailable,
    ProvenanceError,
    RejectedError,
)
from provenance.ports.values import Place, SignedVersion, anchor_payload
from provenance.proofs.ipfs.cid import decode_cid, raw_cid
from provenance.settings import IPFSSettings
from tests.support.nodes.rpc_stub import http_server, send


def payload() -> bytes:
    return anchor_payload(hashlib.sha256(os.urandom(16)).digest())


def signed(network: IPFSInterface, what: bytes) -> SignedVersion:
    return network.sign(network.draft(what), None)


def rpc(url: str, path: str) -> bytes:
    request = urllib.request.Request(f"{url}/api/v0/{path}", b"", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


@pytest.mark.nodes
def test_whole_life_on_a_real_daemon(ipfs_url: str) -> None:
    network = IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=10))
    what = payload()
    version = signed(network, what)
    assert version.transaction_id.startswith("bafkrei")
    assert network.observe(version).place is Place.UNKNOWN
    network.broadcast(version)
    network.broadcast(version)
    seen = network.observe(version)
    assert (seen.place, seen.root, seen.depth, seen.final) == (Place.MINED, what[4:], 1, True)
    assert seen.block_time is None
    assert rpc(ipfs_url, f"block/get?arg={version.transaction_id}") == what
    pins = json.loads(rpc(ipfs_url, f"pin/ls?arg={version.transaction_id}"))["Keys"]
    assert [decode_cid(each) for each in pins] == [raw_cid(what)]
    evidence = network.evidence(version, seen)
    assert str(raw_cid(bytes.fromhex(str(evidence["block"])))) == version.transaction_id
    identity = network.identity()
    assert identity.fields["peer_id"]
    assert (identity.height, identity.sender, identity.balance) == (None, None, None)


@pytest.mark.nodes
def test_a_pin_that_was_removed_is_noticed_and_mended(ipfs_url: str) -> None:
    network = IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=10))
    version = signed(network, payload())
    network.broadcast(version)
    rpc(ipfs_url, f"pin/rm?arg={version.transaction_id}")
    assert network.observe(version).place is Place.UNKNOWN
    network.broadcast(version)
    assert network.observe(version).place is Place.MINED


@pytest.mark.nodes
def test_without_pinning_the_block_alone_counts(ipfs_url: str) -> None:
    network = IPFSInterface(IPFSSettings(url=ipfs_url, pin=False, timeout_s=10))
    version = signed(network, payload())
    network.broadcast(version)
    assert network.observe(version).place is Place.MINED
    pinning = IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=10))
    assert pinning.observe(version).place is Place.UNKNOWN


@pytest.mark.nodes
def test_an_absent_block_ends_at_the_deadline_as_an_open_question(ipfs_url: str) -> None:
    network = IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=1))
    with pytest.raises(NetworkUnavailable):
        network.lookup(str(raw_cid(payload())))


@pytest.mark.nodes
def test_a_foreign_block_has_no_root(ipfs_url: str) -> None:
    network = IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=10))
    network.broadcast(SignedVersion("ipfs", b"hello", str(raw_cid(b"hello")), b"hello"))
    seen = network.lookup(str(raw_cid(b"hello")))
    assert (seen.place, seen.root) == (Place.MINED, None)


@pytest.mark.parametrize(
    "wrong",
    [
        "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        "no cid",
    ],
)
def test_only_raw_blocks_are_looked_up(wrong: str) -> None:
    with pytest.raises(RejectedError):
        IPFSInterface(IPFSSettings(url="http://127.0.0.1:1")).lookup(wrong)


Answers = dict[str, tuple[int, bytes]]


def daemon(answers: Answers, seen: list[str] | None = None) -> Callable[..., None]:
    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        path = request.path.removeprefix("/api/v0/").partition("?")[0]
        if seen is not None:
            seen.append(f"{request.headers.get('Authorization')} {request.path}")
        status, answer = answers.get(path, (404, b"Not Found"))
        send(request, answer, status)

    return reply


WHAT = anchor_payload(bytes(32))
CID = str(raw_cid(WHAT))
OTHER = str(raw_cid(b"other"))
PINNED = (200, json.dumps({"Keys": {CID: {"Type": "recursive"}}}).encode())


@pytest.mark.parametrize(
    ("call", "answers", "error"),
    [
        ("broadcast", {"add": (200, json.dumps({"Hash": OTHER}).encode())}, LyingNodeError),
        ("broadcast", {"add": (200, b'{"Hash": "Qm"}')}, LyingNodeError),
        ("broadcast", {"add": (200, b'{"Hash": 1}')}, LyingNodeError),
        ("broadcast", {"add": (200, b"")}, LyingNodeError),
        ("broadcast", {"add": (200, b"{}\n{}")}, LyingNodeError),
        ("broadcast", {"add": (200, b"no json")}, LyingNodeError),
        ("broadcast", {"add": (200, b"[]")}, LyingNodeError),
        ("broadcast", {"add": (500, b'{"Message": "disk full"}')}, NetworkUnavailable),
        ("broadcast", {}, NetworkUnavailable),
        ("observe", {"pin/ls": PINNED, "block/get": (200, b"other")}, LyingNodeError),
        ("observe", {"pin/ls": PINNED, "block/get": (200, b"x" * 2000)}, LyingNodeError),
        ("observe", {"pin/ls": PINNED, "block/get": (500, b"gone")}, NetworkUnavailable),
        ("observe", {"pin/ls": (200, b'{"Keys": []}')}, LyingNodeError),
        ("observe", {"pin/ls": (200, b'{"Keys": {"?": {}}}')}, LyingNodeError),
        ("observe", {"pin/ls": (500, b'{"Message": "busy"}')}, NetworkUnavailable),
        ("lookup", {"block/get": (200, b"other")}, LyingNodeError),
        ("identity", {"version": (200, b"{}"), "id": (200, b"{}")}, LyingNodeError),
        ("identity", {"version": (403, b"forbidden")}, NetworkUnavailable),
    ],
)
def test_wrong_answers_are_ours(call: str, answers: Answers, error: type[ProvenanceError]) -> None:
    with http_server(daemon(answers)) as url:
        network = IPFSInterface(IPFSSettings(url=url, timeout_s=5))
        argument: dict[str, tuple[object, ...]] = {"identity": (), "lookup": (CID,)}
        with pytest.raises(error):
            getattr(network, call)(*argument.get(call, (signed(network, WHAT),)))


def test_a_pin_of_another_block_is_none_and_other_bases_are_the_same() -> None:
    keys = json.dumps({"Keys": {OTHER: {}}}).encode()
    with http_server(daemon({"pin/ls": (200, keys)})) as url:
        network = IPFSInterface(IPFSSettings(url=url, timeout_s=5))
        assert network.observe(signed(network, WHAT)).place is Place.UNKNOWN
    hexed = "f01551220" + raw_cid(WHAT).digest.hex()
    keys = json.dumps({"Keys": {hexed: {}}}).encode()
    answers = {
        "pin/ls": (200, keys),
        "block/get": (200, WHAT),
        "add": (200, json.dumps({"Name": "head", "Hash": hexed}).encode()),
    }
    seen: list[str] = []
    with http_server(daemon(answers, seen)) as url:
        network = IPFSInterface(IPFSSettings(url=url, timeout_s=5, auth="Bearer hunter2"))
        network.broadcast(signed(network, WHAT))
        assert network.observe(signed(network, WHAT)).place is Place.MINED
        assert "hunter2" not in repr(network)
    assert all(each.startswith("Bearer hunter2 /api/v0/") for each in seen)
    assert "cid-version=1&raw-leaves=true" in seen[0]
    assert "pin=true" in seen[0]


def test_drafts_are_for_one_payload() -> None:
    network = IPFSInterface(IPFSSettings(url="http://127.0.0.1:1"))
    other = signed(network, payload())
    with pytest.raises(RejectedError):
        network.draft(WHAT, other)
    with pytest.raises(ConfigError, match=r"blockchain\.ipfs\.url"):
        IPFSInterface(IPFSSettings(url="http://10.0.0.1:5001"))
