"""Bitcoin headers from explorers: k of n must agree, and none can forge."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app.verify import header_source
from provenance.bundle.writer import write_bundle
from provenance.chains.esplora import Explorer, Explorers
from provenance.errors import (
    FormatError,
    InputError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    ProvenanceError,
)
from provenance.formats.receipt import Receipt
from provenance.proofs.bitcoin import display, double_sha256
from provenance.verify.catalogue import NETWORKS
from provenance.verify.headers import AllSources, GivenHeaders
from tests.support.nodes.bitcoin_evidence import mined, with_bitcoin
from tests.support.verify_world import SIGNER, finished

pytestmark = pytest.mark.slow

BLOCK = mined(b"\5" * 32)
HASH = double_sha256(BLOCK)
LIMIT = 0x7FFFFF << 232
# Blocks 0 and 1 of the main chain, whose work holds everywhere.
GENESIS = bytes.fromhex(
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "29ab5f49ffff001d1dac2b7c"
)
BLOCK_1 = bytes.fromhex(
    "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"
    "982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e"
    "61bc6649ffff001d01e36299"
)
Answer = Callable[[BaseHTTPRequestHandler], None]


def text(body: str, status: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

    return answer


@dataclass
class Site:
    """An Esplora explorer of one block; each answer can be replaced."""

    block: bytes = BLOCK
    height: int = 100
    tip: int = 105
    best: bool = True
    header: Answer | None = None
    status: Answer | None = None
    top: Answer | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        name = display(double_sha256(self.block))
        told = json.dumps({"in_best_chain": self.best, "height": self.height, "next_best": None})
        ways = {
            f"/api/block/{name}/header": self.header or text(self.block.hex() + "\n"),
            f"/api/block/{name}/status": self.status or text(told),
            "/api/blocks/tip/height": self.top or text(str(self.tip)),
        }
        ways.get(request.path, text("Block not found", 404))(request)


@contextmanager
def serving(site: Site) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def explorers(
    *sites: Site, quorum: int | None = None, timeout_s: float = 5.0
) -> Iterator[Explorers]:
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(site)) for site in sites]
        yield Explorers(urls, quorum, timeout_s)


def test_depth_is_counted_from_the_tip() -> None:
    with explorers(Site()) as source:
        assert source.depth(HASH, "regtest") == 6


def test_each_block_is_asked_for_once() -> None:
    site = Site()
    with explorers(site) as source:
        assert source.depth(HASH, "regtest") == source.depth(HASH, "regtest")
        assert len(site.asked) == 3
        for _ in range(2):
            with pytest.raises(ProofError, match="does not know the block"):
                source.depth(b"\7" * 32, "regtest")
        assert len(site.asked) == 4


@pytest.mark.parametrize(
    ("tips", "quorum", "depth"),
    [((105, 103, 109), None, 4), ((105, 103, 109), 2, 6), ((105, 103, 109), 1, 10)],
)
def test_the_smallest_depth_of_the_best_k_counts(
    tips: tuple[int, ...], quorum: int | None, depth: int
) -> None:
    with explorers(*(Site(tip=tip) for tip in tips), quorum=quorum) as source:
        assert source.depth(HASH, "regtest") == depth


def test_too_few_that_agree_is_a_failure_that_names_each() -> None:
    sites = (Site(), Site(best=False), Site(height=99))
    with explorers(*sites, quorum=2) as source:
        with pytest.raises(ProofError) as caught:
            source.depth(HASH, "regtest")
    told = str(caught.value)
    assert f"block {display(HASH)}: 1 of 3 explorers have it in their best chain, 2 must" in told
    assert "the block is not in its best chain" in told
    assert "at height 100; " in told
    assert told.endswith("at height 99")
    with explorers(Site(), Site(best=False), quorum=1) as source:
        assert source.depth(HASH, "regtest") == 6


def test_too_few_that_answer_leave_the_question_open() -> None:
    down = Site(header=text("busy", 503))
    with explorers(Site(), down, quorum=2) as source:
        for _ in range(2):
            with pytest.raises(NetworkUnavailable, match="HTTP status 503"):
                source.depth(HASH, "regtest")
        with pytest.raises(ProofError, match="does not know the block.*HTTP status 503"):
            source.depth(b"\7" * 32, "regtest")
    assert len(down.asked) == 1
    with explorers(Site(best=False), Site(best=False), down, quorum=2) as source:
        with pytest.raises(ProofError):
            source.depth(HASH, "regtest")


def test_an_unknown_chain_and_too_little_work() -> None:
    with explorers(Site()) as source:
        with pytest.raises(FormatError, match="expected one of main"):
            source.depth(HASH, "dogecoin")
        with pytest.raises(ProofError, match="target is out of range"):
            source.depth(HASH, "main")
    with explorers(Site(block=BLOCK_1)) as source:
        assert source.depth(double_sha256(BLOCK_1), "main") == 6


@pytest.mark.parametrize(
    ("site", "error", "problem"),
    [
        (Site(header=text(GENESIS.hex())), LyingNodeError, "header of another block"),
        (Site(header=text(BLOCK.hex()[:-2])), LyingNodeError, "not 160 hex digits"),
        (Site(header=text("é")), LyingNodeError, "not 160 hex digits"),
        (Site(header=text("x" * 70_000)), LyingNodeError, "more than 65536 bytes"),
        (Site(header=text("no", 400)), ProofError, "does not know the block"),
        (Site(header=text("go", 302)), NetworkUnavailable, "HTTP status 302"),
        (Site(header=lambda request: None), NetworkUnavailable, "broke off its answer"),
        (Site(status=text("no", 404)), LyingNodeError, "it has no /block/"),
        (Site(status=text("{")), LyingNodeError, "not the answers of an Esplora explorer"),
        (Site(status=text("[]")), LyingNodeError, "not the answers of an Esplora explorer"),
        (Site(status=text("[" * 60_000)), LyingNodeError, "not the answers"),
        (Site(status=text('{"in_best_chain": 1}')), ProofError, "not in its best chain"),
        (Site(status=text('{"in_best_chain": true}')), LyingNodeError, "at height None"),
        (Site(height=106), LyingNodeError, "at height 106, the tip at 105"),
        (Site(top=text("-1")), LyingNodeError, "not the answers"),
        (Site(top=text("true")), LyingNodeError, "not the answers"),
    ],
)
def test_answers_that_are_none(site: Site, error: type[ProvenanceError], problem: str) -> None:
    with serving(site) as url:
        with pytest.raises(error, match=problem) as caught:
            Explorer(url).look(HASH, LIMIT)
    assert "\n" not in str(caught.value)


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "160")
    request.end_headers()
    for _ in range(200):
        request.wfile.write(b"0")
        time.sleep(0.05)


def cut_short(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "160")
    request.end_headers()
    request.wfile.write(b"0" * 20)


def test_an_answer_that_drips_or_ends_early_is_no_answer() -> None:
    for answer, problem in ((drip, "did not answer in time"), (cut_short, "broke off")):
        with serving(Site(header=answer)) as url:
            with pytest.raises(NetworkUnavailable, match=problem):
                Explorer(url, 0.4).look(HASH, LIMIT)


def test_a_silent_or_missing_server_is_no_answer() -> None:
    with serving(Site(header=lambda request: time.sleep(1.0))) as url:
        with pytest.raises(NetworkUnavailable, match="did not answer in time"):
            Explorer(url, 0.2).look(HASH, LIMIT)
    with pytest.raises(NetworkUnavailable, match="cannot be reached"):
        Explorer("http://127.0.0.1:1", 1.0).look(HASH, LIMIT)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://explorer.example/api", "plain HTTP to explorer.example"),
        ("ftp://explorer.example", "expected https"),
        ("ftp://user:secret@explorer.example", "found a user, password or query"),
        ("https://", "expected https"),
        ("https://user:secret@a:99999", "found no URL"),
        ("https://user:secret@explorer.example", "found a user, password or query"),
        ("https://explorer.example/?key=secret", "found a user, password or query"),
        ("https://explorer.example/a b", "expected https"),
    ],
)
def test_urls_that_are_not_taken(url: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        header_source([url])
    assert "secret" not in str(caught.value)


def test_https_and_loopback_are_taken() -> None:
    assert Explorer("https://explorer.example/api").where == "https://explorer.example"
    for host in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        assert Explorer(f"http://{host}").where == f"http://{host}"


def test_values_name_files_and_explorers(tmp_path: Path) -> None:
    assert header_source([]) is None
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(GENESIS.hex() + "\n")
    two.write_text(BLOCK_1.hex() + "\n")
    files = header_source([str(one), str(two)])
    assert isinstance(files, GivenHeaders)
    assert files.depth(double_sha256(GENESIS), "main") == 2
    site = Site(block=BLOCK_1)
    with serving(site) as url:
        both = header_source([str(two), url])
        assert isinstance(both, AllSources)
        assert both.depth(double_sha256(BLOCK_1), "main") == 1
        with pytest.raises(ProofError, match="not among the headers given"):
            both.depth(HASH, "regtest")
        assert isinstance(header_source([url], 1), Explorers)
        with pytest.raises(InputError, match="--quorum: found 2, expected 1 to 1"):
            header_source([url], 2)
        with pytest.raises(InputError, match="named twice"):
            header_source([url, url + "/"])
    with pytest.raises(InputError, match="--quorum: found no explorer"):
        header_source([str(one)], 1)
    with pytest.raises(InputError, match="17 explorers, expected 1 to 16"):
        header_source([f"https://{at}.example" for at in range(17)])


# --- in a verification -------------------------------------------------------------------


def test_a_verification_asks_the_explorers_for_bitcoins_blocks() -> None:
    world = finished(1)
    evidence = with_bitcoin(world.evidence())
    receipt = next(Receipt.decode(r.data) for r in evidence.receipts if "bitcoin" in r.name)
    block = bytes.fromhex(str(receipt.evidence["header"]))

    def status(*sites: Site) -> tuple[str, int, str | None]:
        with explorers(*sites) as source:
            report = world.verify(evidence, online=False, headers=source)
        check = report.networks["bitcoin"]["after"]
        assert bool(report.findings) == (check.status == "failed")
        assert all(finding.check == NETWORKS for finding in report.findings)
        return check.status, check.depth or 0, check.reason

    def site(tip: int = 1007, **changes: Any) -> Site:
        return Site(block=block, height=1002, tip=tip, **changes)

    assert status(site(), site(tip=1005)) == ("verified", 4, None)
    assert status(site(), Site())[0] == "failed"
    elsewhere = status(Site(block=block))
    assert elsewhere == ("failed", 0, "its block is at height 100, the receipt says 1002")
    unreachable = status(site(header=text("busy", 503)))
    assert unreachable[0] == "unreachable"
    assert "HTTP status 503" in (unreachable[2] or "")


def test_the_command_takes_several_explorers_and_a_quorum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = with_bitcoin(finished(1).evidence())
    folder = write_bundle(evidence, tmp_path / "bundle")
    receipt = next(Receipt.decode(r.data) for r in evidence.receipts if "bitcoin" in r.name)
    block = bytes.fromhex(str(receipt.evidence["header"]))
    command = ["verify", str(folder), "--offline", "--json", "--base-dir", str(tmp_path / "own")]
    pins = ["--trust", SIGNER.verifier.vkey, "--trust-chain", "bitcoin:regtest"]

    def verify(*words: str) -> tuple[int, dict[str, Any]]:
        code = cli.main([*command, *words])
        return code, json.loads(capsys.readouterr().out)

    mine = Site(block=block, height=1002, tip=1007)
    with serving(mine) as good, serving(Site()) as other:
        both = ("--headers", good, "--headers", other)
        code, report = verify(*both, "--quorum", "1")
        assert (code, report["networks"]["bitcoin"]["after"]["status"]) == (3, "stated")
        code, report = verify(*both, "--quorum", "1", *pins)
        assert (code, report["networks"]["bitcoin"]["after"]["status"]) == (0, "verified")
        assert report["networks"]["bitcoin"]["after"]["depth"] == 6
        code, report = verify(*both)
        assert code == 1
        assert "1 of 2 explorers" in report["findings"][0]["problem"]
        assert cli.main([*command, *both, "--quorum", "3"]) == 2
        assert capsys.readouterr().err == "provenance: --quorum: found 3, expected 1 to 2\n"
        assert cli.main([*command, "--quorum", "1"]) == 2
        assert "found no explorer in --headers" in capsys.readouterr().err
