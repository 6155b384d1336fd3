"""HTTP servers on loopback that answer as a test tells them to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from provenance.chains.bitcoin.rpc import RpcError, Value

Handler = Callable[[str, list[Value]], Value]
"""Method and params of a JSON-RPC call; raises RpcError for an error of the node's."""
Reply = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def http_server(reply: Reply) -> Iterator[str]:
    """Base URL of a server whose POSTs go to ``reply`` with their body."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            reply(self, body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = "application/json"
) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


@contextmanager
def json_rpc_server(handler: Handler) -> Iterator[str]:
    """Base URL of a JSON-RPC node that ``handler`` answers for."""

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        call = json.loads(body, parse_float=Decimal)
        answer: dict[str, object] = {"id": call["id"], "result": None, "error": None}
        status = 200
        try:
            answer["result"] = handler(call["method"], call["params"])
        except RpcError as error:
            answer["error"], status = {"code": error.code, "message": error.message}, 500
        send(request, json.dumps(answer, default=plain).encode(), status)

    with http_server(reply) as url:
        yield url


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that speaks bytes: ``talk`` gets each connection after its first bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    done = threading.Event()

    def run() -> None:
        try:
            link, _ = listener.accept()
        except OSError:
            return
        with link:
            link.recv(65536)
            try:
                talk(link)
            except OSError:
                return
            done.wait(10)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    thread.join(10)
    listener.close()


def drip(link: socket.socket, head: bytes, end: bytes) -> None:
    """An answer that is complete and correct, and takes three seconds."""
    link.sendall(head)
    for _ in range(60):
        link.sendall(b"x")
        time.sleep(0.05)
    link.sendall(end)
