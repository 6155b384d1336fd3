"""A run's trace has the run's id, whoever writes into it; without an endpoint there is none."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from provenance import tracing
from provenance.ledger.ingest import ingest
from provenance.stores.sql import SqlStore
from provenance.testing.memory_transport import MemoryTransport
from tests.support.runs import POLICY, complete_run


class Receiver(ThreadingHTTPServer):
    """As much of an OTLP receiver as keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request.ParseFromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing.enabled.cache_clear()
        yield server
        server.shutdown()
    tracing._provider(os.getpid()).shutdown()
    tracing._provider.cache_clear()
    monkeypatch.undo()
    tracing.enabled.cache_clear()


def test_spans_of_a_run_are_one_trace_below_one_root(receiver: Receiver) -> None:
    producer = complete_run()
    store = SqlStore.open("sqlite://")
    ingest(MemoryTransport(), store, POLICY, producer.deliveries(), 1.0)
    store.close()
    tracing.flush()
    spans: list[Any] = receiver.spans
    names = [span.name for span in spans]
    assert sorted(names) == ["drain", "run", "seal", "seal"]
    assert {span.trace_id for span in spans} == {producer.run.bytes}
    (root,) = [span for span in spans if span.name == "run"]
    assert root.parent_span_id == b""
    below = {span.parent_span_id for span in spans if span is not root}
    assert below == {root.span_id}


def test_a_log_line_about_a_run_has_its_trace(receiver: Receiver) -> None:
    run = complete_run().run
    line = tracing.add_trace_id(None, "info", {"run": str(run)})
    assert line["trace_id"] == run.hex
    assert "trace_id" not in tracing.add_trace_id(None, "info", {"network": "local"})


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = (
        "import sys, uuid; from provenance import tracing; tracing.note('x', uuid.uuid4(), 0);"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
