"""OpenTelemetry traces: one for each run, from its events to its receipts.

A trace's id is the run's, so that shippers and workers on all hosts write into one trace and pass
nothing along. Its spans (``ship``, ``drain``, ``seal``, ``publish``, ``confirm``, ``verify``) lie
below one called ``run``, whose id follows from the run's too and which is written at its last seal.

Off, and nothing is imported, unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or that of traces alone) is
set; all else is configured by OpenTelemetry's own variables. An exporter that is away loses spans,
never work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from provenance.log import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
ROOT = "run"


@cache
def enabled() -> bool:
    """Whether spans go anywhere."""
    if not any(map(os.environ.get, _ENDPOINTS)):
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError:
        problem = "no traces: pip install 'ml-provenance[otel]'"
        get_logger("provenance").warning(problem, endpoint=_ENDPOINTS[0])
        return False
    return True


def note(name: str, run: UUID, began_ns: int, **attributes: str | int) -> None:
    """Write a span of a run that ends now; one called :data:`ROOT` is above all others.

    Args:
        began_ns: Unix time.
    """
    if not enabled() or not run.int:
        return
    from opentelemetry import trace

    own = int.from_bytes(hashlib.sha256(run.bytes).digest()[:8], "big") or 1
    root = trace.SpanContext(run.int, own, is_remote=True, trace_flags=trace.TraceFlags(1))
    parent = trace.set_span_in_context(trace.NonRecordingSpan(root))
    span: Any = (
        _provider(os.getpid())
        .get_tracer("ml-provenance")
        .start_span(name, parent, start_time=began_ns, attributes={"run": str(run), **attributes})
    )
    if name == ROOT:
        span._context, span._parent = root, None  # the SDK lets nobody choose the id of one span
    span.end()


def flush() -> None:
    """Send what waits, before the process ends."""
    if enabled():
        _provider(os.getpid()).force_flush(2000)


@cache
def _provider(process: int) -> TracerProvider:
    """Made after the fork: its sender is a thread."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "ml-provenance", "process.pid": process})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(timeout=5), schedule_delay_millis=1000)
    )
    return provider


def add_trace_id(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: a line about a run has its trace's id, where there are traces."""
    run = line.get("run")
    if isinstance(run, str) and len(run) == 36 and enabled():
        line["trace_id"] = run.replace("-", "")
    return line
