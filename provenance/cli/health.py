"""``provenance health``: whether work gets on, asked once or served to who asks."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec

from provenance.app import health as marks
from provenance.cli.output import answer, err, settings_of
from provenance.errors import InputError, MissingExtraError, ProvenanceError
from provenance.observe import readiness
from provenance.operations import words
from provenance.operations.overview import HeldHead, waits
from provenance.settings import Settings


def health(arguments: argparse.Namespace) -> int:
    """0 where work gets on; 1, and one line that says why, where it does not; then, as no fault,
    what waits for persons. Of queues that are named, those alone."""
    settings = settings_of(arguments, secrets=False)
    if arguments.serve:
        return _serve(settings, *arguments.serve)
    known = (*marks.queues(settings), marks.SHIPPER)
    for name in arguments.queues:
        if name not in known:
            raise InputError(f"QUEUE: found {name!r}, expected one of {', '.join(known)}")
    ages, limit = marks.ages(settings, arguments.queues), marks.limit_s(settings)
    stale = [age for age in ages if age.stale(limit)]
    failing = [str(age) for age in ages if age.problem is not None and age not in stale]
    held: Sequence[HeldHead] = ()
    if not arguments.queues:
        failing += readiness.of_servers(settings) + readiness.of_networks(settings)
        with suppress(ProvenanceError):  # of the database, which has its line
            held = waits(settings, time.time())
    rows = [asdict(age) | {"fresh": age not in stale} for age in ages]
    lines = [f"stale (limit {limit:.0f} s): {'; '.join(map(str, stale))}"] if stale else []
    lines += [f"failing: {'; '.join(failing)}"] if failing else []
    document = {"fresh": not stale, "limit_s": limit, "queues": rows, "problems": failing}
    document |= {"waits": [asdict(each) for each in held]}
    waiting = [words.held_line(each.network, each.reason, each.waiting_s) for each in held]
    answer(arguments, document, *(lines or ["; ".join(map(str, ages))]), *waiting)
    return 1 if lines else 0


def _serve(settings: Settings, host: str, port: int) -> int:
    """Answer Prometheus, and those who ask whether this works, until SIGINT or SIGTERM."""
    if find_spec("prometheus_client") is None:
        raise MissingExtraError("prometheus_client", "workers")
    from provenance.observe.server import Watch

    try:
        server = Watch(settings, host, port)
    except OSError as error:
        raise InputError(f"--serve: {host}:{port}: {error.strerror or error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server, suppress(KeyboardInterrupt):
        err.print(f"http://{host}:{server.server_port}/metrics, /healthz and /readyz")
        server.serve_forever()
    return 0
