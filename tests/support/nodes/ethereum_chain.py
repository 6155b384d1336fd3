"""A private anvil whose clock, blocks and reorgs a test commands, and a proxy that lies."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.paths import ROOT

# Accounts 0 and 1 of every anvil: the "test test ... junk" mnemonic, known to everybody.
KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
)


@dataclass(frozen=True)
class Anvil:
    """One dev chain."""

    url: str

    def call(self, method: str, *params: object) -> Any:
        answer = post(self.url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert "result" in answer, answer
        return answer["result"]

    def mine(self, blocks: int = 1) -> None:
        self.call("anvil_mine", hex(blocks))

    def automine(self, on: bool) -> None:
        self.call("evm_setAutomine", on)

    def settle(self) -> None:
        """Wait for an empty pool: anvil answers before it mines."""
        deadline = time.monotonic() + 10
        while int(self.call("txpool_status")["pending"], 16):
            assert time.monotonic() < deadline, "the pool is not empty"
            time.sleep(0.01)

    def send(self, transaction: dict[str, object]) -> str:
        """``eth_sendTransaction``, mined when it returns."""
        transaction_id = self.call("eth_sendTransaction", transaction)
        self.settle()
        return str(transaction_id)


def post(url: str, request: dict[str, object]) -> dict[str, Any]:
    message = urllib.request.Request(
        url, json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(message, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def program() -> str | None:
    """anvil on PATH, else the one that ``provenance devnet install`` brought."""
    local = ROOT / ".devnet" / "bin" / "anvil"
    return shutil.which("anvil") or (str(local) if local.is_file() else None)


def start(argv: list[str]) -> tuple[subprocess.Popen[bytes], Anvil]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*argv, "--host", "127.0.0.1", "--port", str(port), "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    chain = Anvil(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 30
    while True:
        try:
            chain.call("eth_chainId")
            return process, chain
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.05)


class Refuse(Exception):
    """Raised by a forger: the proxy answers with this JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


Forger = Callable[[list[Any], Any], Any]


class Liar:
    """A proxy before a node: ``forge[method](params, true result)`` is what it tells."""

    def __init__(self, upstream: Anvil) -> None:
        self.forge: dict[str, Forger] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = post(upstream.url, request)
                forger = outer.forge.get(request["method"])
                if forger is not None:
                    try:
                        result = forger(request["params"], answer.get("result"))
                        answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
                    except Refuse as error:
                        told = {"code": error.code, "message": str(error)}
                        answer = {"jsonrpc": "2.0", "id": request["id"], "error": told}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
