"""The shipper as a process: ``python -m provenance.app.ship --spool DIR``.

Three ways to have one: a tracker starts it in the background
(:mod:`provenance.capture.ship.process`), a sidecar runs ``provenance ship``, and
``provenance up`` supervises one. One at a time serves a spool: a background shipper that finds
another ends, one in the foreground waits its turn.

The Redis URL, which may hold a password, travels in the environment, never as an argument.
SIGTERM and SIGINT let the batch under way finish.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from provenance import tracing
from provenance.app import health
from provenance.bootstrap import reading, sending
from provenance.capture.ship.loop import Shipper
from provenance.capture.ship.process import LEDGER_KEY_ENV, REDIS_URL_ENV
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    ProvenanceError,
    SpoolUnavailable,
)
from provenance.formats.note import VerifierKey
from provenance.settings import Settings

LOCK_RETRY_S = 2.0

log: Any = structlog.get_logger("provenance.shipper")


def run(
    settings: Settings,
    spool_dir: Path | None = None,
    *,
    once: bool = False,
    background: bool = False,
    idle_exit_s: float | None = None,
    give_up_s: float | None = None,
    ledger_keys: Sequence[str] = (),
) -> dict[str, int]:
    """Ship a spool, ``<base_dir>/spool`` where None, until SIGINT or SIGTERM.

    Args:
        once: Ship what is there and return.
        background: Return where another shipper is at work, instead of waiting for its end.
        idle_exit_s, give_up_s: As for :meth:`provenance.capture.ship.loop.Shipper.run`.
        ledger_keys: Keys (``name+id+base64``) whose acknowledgements are believed, beside those
            of :func:`known_ledger_keys`.

    Returns:
        Counts, as in :class:`provenance.capture.ship.shipment.Shipped`.

    Raises:
        ConfigError: No Redis is configured, or it refuses the credentials.
        InputError: With ``once``, another shipper is at work.
        TransportUnavailable: With ``once``, Redis is away.
    """
    spool_dir = spool_dir or settings.base_dir / "spool"
    transport = sending.open_transport(settings)
    keys = known_ledger_keys(settings, ledger_keys)
    if once:
        with Shipper(spool_dir, transport, ledger_keys=keys) as shipper:
            return asdict(shipper.run_once())
    board = reading.open_board(settings)
    name = f"{socket.gethostname()}:{spool_dir.absolute()}"

    def report(figures: dict[str, float]) -> None:
        board.report(name, figures)
        health.note_alive(settings, health.SHIPPER)

    with _stop_on_signals() as stop:
        waiting = False
        while not stop.is_set():
            try:
                shipper = Shipper(spool_dir, transport, report=report, ledger_keys=keys)
            except (InputError, SpoolUnavailable) as error:
                if background:
                    log.info("shipper not needed", reason=str(error))
                    break
                if not waiting:
                    log.info("shipper waits its turn", reason=str(error))
                waiting = True
                stop.wait(LOCK_RETRY_S)
                continue
            with shipper:
                return asdict(shipper.run(stop, idle_exit_s=idle_exit_s, give_up_s=give_up_s))
    return {}


def known_ledger_keys(settings: Settings, texts: Sequence[str] = ()) -> Callable[[], list[bytes]]:
    """Asks for the ledger's public keys, 32 bytes each: those in ``texts``, in
    ``trust.ledger_keys`` and in ``PROVENANCE_LEDGER_KEY``, and that of this base directory's key
    file, which a worker may make later.

    Raises:
        ConfigError: A text that is no verifier key.
    """
    named = [*texts, *settings.trust.ledger_keys, *os.environ.get(LEDGER_KEY_ENV, "").split()]
    try:
        fixed = [VerifierKey.from_vkey(text).public_bytes for text in named]
    except FormatError as error:
        raise ConfigError(LEDGER_KEY_ENV, str(error)) from error

    def ask() -> list[bytes]:
        own = reading.ledger_key(settings)
        return [*fixed, own.public_bytes] if own is not None else fixed

    return ask


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m provenance.app.ship", description=__doc__)
    add = parser.add_argument
    add("--spool", type=Path, required=True, help="folder of the spool")
    add("--redis-url-env", default=REDIS_URL_ENV, metavar="NAME", help="variable with the URL")
    add("--ledger-key-file", type=Path, metavar="FILE", help="the ledger's key, where it lies here")
    add("--once", action="store_true", help="ship what is there and end")
    add("--background", action="store_true", help="end where another shipper is at work")
    add("--idle-exit", type=float, metavar="S", help="end when idle this long")
    add("--give-up", type=float, metavar="S", help="end when Redis is away so long")
    arguments = parser.parse_args(argv)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            tracing.add_trace_id,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    settings = Settings(
        arguments.spool.parent,
        redis_url=os.environ.get(arguments.redis_url_env),
        source=arguments.redis_url_env,
        ledger_key_file=arguments.ledger_key_file,
    )
    try:
        run(
            settings,
            arguments.spool,
            once=arguments.once,
            background=arguments.background,
            idle_exit_s=arguments.idle_exit,
            give_up_s=arguments.give_up,
        )
    except ProvenanceError as error:
        log.error("shipper ends", reason=str(error))
        return error.exit_code
    return 0


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set.

    From a thread of its own: a handler in the main thread that calls ``Event.set`` while
    the main thread is inside ``Event.wait`` can deadlock.
    """
    stop = threading.Event()
    wanted = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    def wait() -> None:
        if signal.sigwait(wanted) != signal.SIGUSR2:
            stop.set()

    waiter = threading.Thread(target=wait, name="provenance-signals", daemon=True)
    waiter.start()
    try:
        yield stop
    finally:
        if waiter.is_alive():  # SIGUSR2 is ours: it ends the thread
            signal.pthread_kill(waiter.ident or 0, signal.SIGUSR2)
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if __name__ == "__main__":
    sys.exit(main())
