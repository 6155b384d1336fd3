"""A run's trace has the run's id, whoever writes into it; without an endpoint there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from provenance import tracing
from provenance.ledger.ingest import ingest
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from tests.support.nodes.otlp import Receiver, receiving
from tests.support.runs import POLICY, complete_run


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        tracing.enabled.cache_clear()
        yield server
    tracing._provider(os.getpid()).shutdown()
    tracing._provider.cache_clear()
    monkeypatch.undo()
    tracing.enabled.cache_clear()


def test_spans_of_a_run_are_one_trace_below_one_root(receiver: Receiver) -> None:
    producer = complete_run()
    store = SqlStore.open("sqlite://")
    ingest(MemoryTransport(), store, POLICY, producer.deliveries(), lambda: 1.0)
    store.close()
    tracing.flush()
    spans = receiver.spans
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


@pytest.mark.slow
def test_an_endpoint_without_the_extra_is_one_line_and_no_error() -> None:
    code = (
        "import sys, uuid; sys.modules['opentelemetry.sdk.trace'] = None;"
        "from provenance import tracing;"
        "[tracing.note('x', uuid.uuid4(), 0) for _ in range(3)]; tracing.flush()"
    )
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert (done.stdout + done.stderr).count("pip install 'ml-provenance[otel]'") == 1
