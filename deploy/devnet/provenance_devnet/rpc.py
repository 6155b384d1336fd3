"""Talking to the servers: JSON-RPC, Redis's PING, IPFS's HTTP calls, and mining on demand.

Standard library only, short timeouts, no proxies.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from provenance.errors import NetworkUnavailable, RejectedError
from provenance_devnet.servers import ServerState

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

METHOD_NOT_FOUND = -32601


class RpcRefused(RejectedError):
    """The server answered a call with an error; ``code`` is its number."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"{method}: {message} ({code})")


def json_rpc(
    url: str,
    method: str,
    params: Sequence[Json] = (),
    *,
    timeout: float = 5.0,
    cookie: Path | None = None,
) -> Json:
    """One JSON-RPC call, for anvil, geth and bitcoind (``cookie``: its cookie file).

    Raises:
        NetworkUnavailable: No answer, or none that is JSON-RPC.
        RpcRefused: The server's own error.
    """
    headers = {"Content-Type": "application/json"}
    if cookie is not None:
        try:
            secret = cookie.read_bytes().strip()
        except OSError as error:
            raise NetworkUnavailable(f"{url} has not written its cookie file yet") from error
        headers["Authorization"] = "Basic " + base64.b64encode(secret).decode()
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = _post(url, json.dumps(call).encode(), headers, timeout)
    if not isinstance(answer, dict):
        raise NetworkUnavailable(f"{url} did not answer {method} with JSON-RPC")
    refused = answer.get("error")
    if isinstance(refused, dict):
        code = refused.get("code")
        raise RpcRefused(
            method, code if isinstance(code, int) else 0, str(refused.get("message", refused))
        )
    return answer.get("result")


def ipfs_call(url: str, path: str, *, timeout: float = 5.0) -> Json:
    """One call of the IPFS HTTP RPC, such as ``version``.

    Raises:
        NetworkUnavailable: No answer, or none that is JSON.
    """
    return _post(f"{url}/api/v0/{path}", b"", {}, timeout)


def _post(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Json:
    where = urlsplit(url)
    link = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
    try:
        link.request("POST", where.path or "/", body, dict(headers))
        response = link.getresponse()
        # Whatever the status: bitcoind sends its JSON-RPC errors with 500.
        answer: Json = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NetworkUnavailable(f"{url} does not answer: {error}") from error
    finally:
        link.close()
    return answer


def redis_ping(url: str, *, timeout: float = 5.0) -> None:
    """Asks a Redis server for a PONG.

    Raises:
        NetworkUnavailable: It gave none.
    """
    where = urlsplit(url)
    try:
        with socket.create_connection((where.hostname, where.port), timeout=timeout) as link:
            link.sendall(b"PING\r\n")
            answer = link.recv(64)
    except OSError as error:
        raise NetworkUnavailable(f"{url} does not answer: {error}") from error
    if not answer.startswith(b"+PONG"):
        said = answer.decode(errors="replace").strip()
        raise NetworkUnavailable(f"{url} answered {said!r} to PING")


def block_number(url: str) -> int:
    """The height of an Ethereum dev chain."""
    return int(str(json_rpc(url, "eth_blockNumber")), 16)


def mine_ethereum(url: str, blocks: int = 1) -> int:
    """Adds blocks to an Ethereum dev chain and returns the new height.

    anvil (``anvil_mine``) and hardhat (``evm_mine``) mine on demand; geth ``--dev`` makes a block
    a second by itself, so there this waits for them.

    Raises:
        NetworkUnavailable: The node is gone, or made no blocks in time.
    """
    before = block_number(url)
    try:
        json_rpc(url, "anvil_mine", [hex(blocks)], timeout=30)
    except RpcRefused as refused:
        if refused.code != METHOD_NOT_FOUND:
            raise
        try:
            for _ in range(blocks):
                json_rpc(url, "evm_mine")
        except RpcRefused as again:
            if again.code != METHOD_NOT_FOUND:
                raise
            return _await_height(url, before + blocks, 15.0 + 3.0 * blocks)
    return block_number(url)


def _await_height(url: str, height: int, deadline: float) -> int:
    end = time.monotonic() + deadline
    while (now := block_number(url)) < height:
        if time.monotonic() > end:
            raise NetworkUnavailable(
                f"{url} is at block {now}, not {height}, after {deadline:.0f} s"
            )
        time.sleep(0.2)
    return now


def bitcoin_rpc(
    state: ServerState,
    method: str,
    params: Sequence[Json] = (),
    *,
    wallet: bool = False,
    timeout: float = 10.0,
) -> Json:
    """One call to the devnet's bitcoind, to its wallet when ``wallet`` is set.

    Raises:
        NetworkUnavailable: No answer.
        RpcRefused: bitcoind's own error.
    """
    url = f"{state.url}/wallet/{state.detail['wallet']}" if wallet else state.url
    cookie = Path(state.detail["cookie_file"])
    return json_rpc(url, method, params, timeout=timeout, cookie=cookie)


def mine_bitcoin(state: ServerState, blocks: int = 1) -> list[str]:
    """Mines blocks to the devnet's wallet and returns their hashes."""
    address = bitcoin_rpc(state, "getnewaddress", wallet=True)
    mined = bitcoin_rpc(state, "generatetoaddress", [blocks, address], timeout=120)
    return [str(each) for each in mined] if isinstance(mined, list) else []


def mine(state: ServerState, blocks: int) -> int:
    """Adds blocks to a chain of either kind and returns the new height."""
    if state.name == "ethereum":
        return mine_ethereum(state.url, blocks)
    mine_bitcoin(state, blocks)
    return int(str(bitcoin_rpc(state, "getblockcount")))
