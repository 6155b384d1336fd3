"""One port of a deployment for those who watch it: ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from provenance.observe import readiness
from provenance.observe.collector import Figures
from provenance.settings import Settings


class Watch(ThreadingHTTPServer):
    """Listens at once; :meth:`serve_forever` answers.

    Raises:
        OSError: The address cannot be listened on.
    """

    daemon_threads = True

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self.settings, self.registry, self.one = settings, CollectorRegistry(), Lock()
        self.registry.register(Figures(settings))
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That whoever asked has left is nothing to tell."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Watch
    timeout = 30

    def do_GET(self) -> None:
        """Answer; what takes time is done once at a time."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(200, {"alive": True})
        elif path == "/readyz":
            with self.server.one:
                reasons = readiness.problems(self.server.settings)
            self._answer(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
        elif path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            with self.server.one:
                text = encode(self.server.registry)
            self._send(200, kind, text)
        else:
            self._answer(404, {"error": "expected /metrics, /healthz or /readyz"})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode() + b"\n")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A scrape is no event."""
