"""What is on a chain, by plain RPC: how often it carries each ledger root."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from provenance.chains.bitcoin.rpc import BitcoinRpc
from provenance.ports.values import AnchorState, anchor_payload
from provenance.proofs.ipfs.cid import raw_cid
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import Deployment
from tests.faults.support.harness import Tally
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.rpc_stub import http_server

TAG = "4d4c5031"
Roots = Counter[str]


def on_ethereum(chain: Anvil, since: int = 0) -> Roots:
    """Roots in the calldata of successful transactions, over all blocks from ``since``."""
    found: Roots = Counter()
    for number in range(since, int(chain.call("eth_blockNumber"), 16) + 1):
        block = chain.call("eth_getBlockByNumber", hex(number), True)
        for transaction in block["transactions"]:
            if transaction["input"].startswith("0x" + TAG):
                receipt = chain.call("eth_getTransactionReceipt", transaction["hash"])
                assert receipt["status"] == "0x1"
                found[transaction["input"][10:]] += 1
    return found


def on_bitcoin(settings: BitcoinSettings, since: int = 0) -> Roots:
    """Roots in outputs of the best chain and of the mempool."""
    rpc: Any = BitcoinRpc(settings)
    found: Roots = Counter()
    transactions = [rpc.call("getrawtransaction", t, 1) for t in rpc.call("getrawmempool")]
    for height in range(since, rpc.call("getblockcount") + 1):
        transactions += rpc.call("getblock", rpc.call("getblockhash", height), 2)["tx"]
    for transaction in transactions:
        for output in transaction["vout"]:
            script = output["scriptPubKey"]["hex"]
            if script.startswith("6a24" + TAG):
                found[script[12:]] += 1
    return found


def on_ipfs(url: str, roots: Iterable[bytes]) -> Roots:
    """Roots whose raw block is pinned and reads back equal; by content there is one at most."""
    request = urllib.request.Request(f"{url}/api/v0/pin/ls?type=recursive", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        pinned = json.load(answer)["Keys"]
    mine: dict[str, int] = Counter(_base32(key) for key in pinned)
    return Counter({r.hex(): mine[str(raw_cid(anchor_payload(r)))] for r in roots})


def _base32(text: str) -> str:
    from provenance.proofs.ipfs.cid import decode_cid

    try:
        return str(decode_cid(text))
    except ValueError:
        return text


def on_file(path: Path) -> Roots:
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(json.loads(line)["payload"][8:] for line in lines)


def count(tally: Tally, world: Deployment, name: str, found: Roots) -> None:
    """Each anchor that was not superseded is on the chain once, and nothing else of ours."""
    rows = world.rows(name)
    assert rows
    assert all(row.state is AnchorState.FINAL for row in rows), rows
    wanted = {row.root.hex() for row in rows}
    with world.store.snapshot() as tx:
        heads = {head.root.hex() for head in tx.heads()}
    tally.events += len(wanted)
    tally.lost += sum(not found[root] for root in wanted)
    tally.doubled += sum(times - 1 for times in found.values() if times > 1)
    stray = {root for root in found if found[root] and root in heads - wanted}
    assert not stray, f"superseded heads on the chain: {stray}"


# --- a proxy ------------------------------------------------------------------------------

Answer = Callable[[str, bytes, int, bytes], tuple[int, bytes] | None]
"""Path, request, status and answer; returns what the client gets, None to hang up on it."""


@contextmanager
def proxy(upstream: str, answer: Answer) -> Iterator[str]:
    """A server before a node; each request reaches the node, whatever becomes of the answer."""

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("content-type", "authorization")
        }
        passed = urllib.request.Request(upstream + request.path, body, headers, method="POST")
        try:
            with urllib.request.urlopen(passed, timeout=30) as response:
                status, data = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read()
        told = answer(request.path, body, status, data)
        if told is None:
            request.close_connection = True
            return
        request.send_response(told[0])
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(told[1])))
        request.end_headers()
        request.wfile.write(told[1])

    with http_server(reply) as url:
        yield url
