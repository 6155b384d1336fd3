"""The shipper as a process, with a real Redis."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from provenance import files
from provenance.app import ship
from provenance.bootstrap import sending
from provenance.capture.emitter import Emitter
from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.capture.ship import loop
from provenance.capture.ship.loop import Shipper
from provenance.capture.ship.process import LOG_FILE, REDIS_URL_ENV, spawn_shipper
from provenance.capture.spool import LOCK_FILE
from provenance.errors import ConfigError, InputError, TransportUnavailable
from provenance.formats.producers.batch import batch_run, open_batch
from provenance.formats.record import Kind
from provenance.ledger.ingest import drain
from provenance.ports.transport import EventTransport
from provenance.settings import Settings
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_streams import RedisStreams
from provenance.stores.sql import SqlStore
from tests.support.runs import POLICY

WAIT_S = 60.0


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """A database of its own on the session's server."""
    base = redis_url.rpartition("/")[0]
    own = f"{base}/11"
    with redis.Redis.from_url(own) as client:
        client.flushdb()
        yield own
        client.flushdb()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def emitter(spool: Path) -> Emitter:
    keys = new_run_keys()
    keep_run_keys(spool / str(keys.run), keys)
    return Emitter(spool, keys.run)


def eventually(question: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.05)
    pytest.fail("not within a minute")


def transport(spool: Path, url: str) -> EventTransport:
    return sending.open_transport(Settings(spool.parent, redis_url=url))


def holder(spool: Path) -> psutil.Process | None:
    try:
        return psutil.Process(int((spool / LOCK_FILE).read_text() or "0"))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def start(spool: Path, url: str | None, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if k != REDIS_URL_ENV}
    if url is not None:
        environment[REDIS_URL_ENV] = url
    return subprocess.Popen(
        [sys.executable, "-m", "provenance.app.ship", "--spool", str(spool), *arguments],
        env=environment,
        stderr=subprocess.PIPE,
    )


def records(found: EventTransport) -> int:
    return sum(len(open_batch(d.payload).records) for d in found.read("test", 1000))


def test_a_spawned_shipper_is_nobodys_child_ships_and_leaves_when_idle(
    spool: Path, url: str
) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    spawn_shipper(spool, url, spool / "none.key", idle_exit_s=0.2)
    process = eventually(lambda: holder(spool))
    assert process.ppid() != os.getpid()
    assert url not in " ".join(process.cmdline())
    reader = transport(spool, url)
    eventually(reader.backlog)
    trainer.emit(Kind.METRICS, 2, {"x": 2})
    time.sleep(0.5)
    assert process.is_running()  # its trainer is
    trainer.close()
    eventually(lambda: not process.is_running())
    assert records(reader) == 3
    assert (spool / LOG_FILE).stat().st_mode & 0o777 == 0o600


def test_a_second_background_shipper_ends_by_itself(spool: Path, url: str) -> None:
    with Shipper(spool, MemoryTransport()):
        second = start(spool, url, "--background")
        _, text = second.communicate(timeout=WAIT_S)
    assert second.returncode == 0
    assert b"not needed" in text


def test_a_foreground_shipper_waits_its_turn(spool: Path, url: str) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    with Shipper(spool, MemoryTransport()):
        second = start(spool, url)
        assert second.stderr is not None
        assert b"waits its turn" in second.stderr.readline()
    eventually(transport(spool, url).backlog)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=WAIT_S)
    assert second.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(spool: Path, url: str, number: int) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    process = start(spool, url)
    reader = transport(spool, url)
    eventually(reader.backlog)
    process.send_signal(number)
    _, text = process.communicate(timeout=WAIT_S)
    assert (process.returncode, b"Traceback" in text) == (0, False)
    with Shipper(spool, reader) as later:
        assert later.run_once().events == 0  # the cursor was saved


def test_once_ships_what_is_there(spool: Path, url: str) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    process = start(spool, url, "--once")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert records(transport(spool, url)) == 1


def test_once_in_this_process_counts(spool: Path, url: str) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    settings = Settings(spool.parent, redis_url=url)
    assert ship.run(settings, once=True)["events"] == 1
    with Shipper(spool, MemoryTransport()), pytest.raises(InputError, match="another shipper"):
        ship.run(settings, once=True)


def test_once_with_redis_away_is_unavailable(spool: Path) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    with pytest.raises(TransportUnavailable):
        ship.run(Settings(spool.parent, redis_url="redis://127.0.0.1:1/0"), once=True)


def test_exit_codes(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    monkeypatch.delenv(REDIS_URL_ENV, raising=False)
    assert ship.main(["--spool", str(spool), "--once"]) == ConfigError.exit_code
    monkeypatch.setenv("OTHER", "redis://127.0.0.1:1/0")
    arguments = ["--spool", str(spool), "--redis-url-env", "OTHER"]
    assert ship.main([*arguments, "--once"]) == TransportUnavailable.exit_code
    trainer.close()
    assert ship.main([*arguments, "--give-up", "0"]) == 0


def test_in_this_process_it_waits_for_the_lock_or_leaves(
    spool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    trainer.close()
    monkeypatch.setenv(REDIS_URL_ENV, url)
    monkeypatch.setattr(ship, "LOCK_RETRY_S", 0.01)
    first = Shipper(spool, MemoryTransport())
    assert ship.main(["--spool", str(spool), "--background"]) == 0
    releases = threading.Timer(0.2, first.close)
    releases.start()
    assert ship.main(["--spool", str(spool), "--idle-exit", "0.1"]) == 0
    releases.join()
    assert records(transport(spool, url)) == 2


def test_told_to_stop_while_it_waits(
    spool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped() -> Iterator[threading.Event]:
        stop = threading.Event()
        timer = threading.Timer(0.1, stop.set)
        timer.start()
        yield stop
        timer.join()

    monkeypatch.setattr(ship, "_stop_on_signals", stopped)
    with Shipper(spool, MemoryTransport()):
        assert ship.run(Settings(spool.parent, redis_url=url)) == {}


def test_an_unreachable_redis_never_shows_its_password(spool: Path) -> None:
    trainer = emitter(spool)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    trainer.close()
    spawn_shipper(spool, "redis://:hunter2-pass@127.0.0.1:1/0", spool / "none.key", give_up_s=0.0)
    log_file = spool / LOG_FILE
    text = eventually(lambda: log_file.read_text())
    eventually(lambda: holder(spool) is None)
    assert "transport is away" in text
    assert "hunter2-pass" not in log_file.read_text()


def test_an_overgrown_log_is_cut_and_a_shipper_that_runs_writes_on_in_it(
    spool: Path, url: str
) -> None:
    spool.mkdir()
    (spool / LOG_FILE).write_bytes(bytes(5 * 1024 * 1024))
    with Shipper(spool, MemoryTransport()), (spool / LOG_FILE).open("ab", buffering=0) as its_log:
        spawn_shipper(spool, url, spool / "none.key", idle_exit_s=0.0)
        its_log.write(b"a line")
    assert (spool / LOG_FILE).read_bytes() == b"a line"


def test_no_process_is_started_where_a_shipper_runs(
    spool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[object]()
    monkeypatch.setattr(subprocess, "run", lambda command, **_: started.append(command))
    with Shipper(spool, MemoryTransport()):
        spawn_shipper(spool, url, spool / "none.key")
        assert started == []
    spawn_shipper(spool, url, spool / "none.key")
    assert len(started) == 1
    with Shipper(spool, MemoryTransport()):
        """The look has left no lock behind."""


def test_who_looks_for_a_shipper_keeps_none_away(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_S", 60.0)
    spool.mkdir()
    with files.opened(spool / LOCK_FILE, os.O_RDWR | os.O_CREAT) as looking:
        files.lock(looking, shared=True)
        threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        Shipper(spool, MemoryTransport()).close()


def test_others_whose_stream_is_worked_off_are_no_sign_of_a_loss(spool: Path, url: str) -> None:
    trainer, streams = emitter(spool), RedisStreams(url)
    trainer.emit(Kind.METRICS, 1, {"x": 1})
    foreign = bytes(8) + trainer.run.bytes
    while streams._stream_of(batch_run(foreign)) == streams._stream_of(trainer.run.bytes):
        foreign = bytes(8) + secrets.token_bytes(16)
    with Shipper(spool, streams, stall_s=0.0) as shipper:
        shipper.run_once()
        for _ in range(6):
            streams.append([foreign] * 9)
            assert shipper.run_once().rewound == 0
            streams.ack([d for d in streams.read("worker", 99) if d.payload == foreign])
            assert shipper.run_once().rewound == 0
        assert streams.backlog(trainer.run) > 0, "nobody has worked on its own"
    streams.close()


def test_an_empty_database_is_given_a_live_run_from_its_beginning(spool: Path, url: str) -> None:
    """The old one is lost; Redis still has its acknowledgements."""
    trainer, key = emitter(spool), POLICY.signer.verifier.public_bytes
    carried = transport(spool, url)
    with Shipper(spool, carried, ledger_keys=lambda: [key]) as shipper:
        for epochs in (range(1, 30), range(30, 32)):
            store = SqlStore.open("sqlite://")
            for epoch in epochs:
                trainer.emit(Kind.METRICS, epoch, {"x": epoch})
            for _ in range(3):
                shipper.run_once()
                drain(carried, store, POLICY, "worker", lambda: 1.0)
            assert shipper.run_once().pending == 0
        with store.snapshot() as tx:
            (run,) = tx.runs()
            kept = [row.epoch for row in tx.records(run.run) if row.kind is Kind.METRICS]
        store.close()
    assert kept == list(range(1, 32))
