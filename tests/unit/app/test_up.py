"""The supervisor behind ``provenance up``: what it starts, mends and stops.

Over 400 lines: case by case, one file: `app/up.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from provenance.app import processes, up
from provenance.app.up import Fleet, Service
from provenance.bootstrap import sending
from provenance.errors import (
    InputError,
    MissingExtraError,
    ServerMissingError,
    TransportUnavailable,
)
from provenance.settings import Settings, load

PASSWORD_URL = "redis://:sesame@127.0.0.1:1/0"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, tmp_path / "base")


class Told:
    """Keeps what the supervisor says."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def supervisor(settings: Settings, told: Told) -> Iterator[Fleet]:
    made = Fleet(settings, None, PASSWORD_URL, told)
    yield made
    made.stop(grace_s=1.0)


def sleeper(name: str, seconds: float = 60.0) -> Service:
    return Service(name, ("sleep", str(seconds)))


def script(name: str, code: str) -> Service:
    return Service(name, (sys.executable, "-c", code))


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


class Clock:
    """Time for the supervisor alone; chance always at its ceiling."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(random, "random", lambda: 1.0)


# --- what is started ---------------------------------------------------------------------


def test_one_process_per_queue_beat_and_shipper(settings: Settings) -> None:
    names = [service.name for service in up.services(settings)]
    assert names == ["shipper", "hashing", "anchor-local", "confirm", "beat"]


def test_flower_is_on_loopback_and_only_where_asked_for(settings: Settings) -> None:
    (flower,) = [s for s in up.services(settings, 5555) if s.name == "flower"]
    assert "--address=127.0.0.1" in flower.argv
    assert "--port=5555" in flower.argv


def test_no_anchoring_worker_where_anchoring_is_off(settings: Settings) -> None:
    off = replace(settings, blockchain=replace(settings.blockchain, enabled=False))
    assert not [s for s in up.services(off) if s.name.startswith("anchor")]


def test_a_worker_takes_one_task_at_a_time_from_its_own_queue() -> None:
    argv = up.worker("anchor-ipfs", "anchor.ipfs").argv
    assert argv[argv.index("--queues") + 1] == "anchor.ipfs"
    assert argv[argv.index("--concurrency") + 1] == "1"


def test_secrets_travel_in_the_environment_never_in_arguments(
    supervisor: Fleet, settings: Settings, tmp_path: Path, told: Told
) -> None:
    for service in up.services(replace(settings, redis_url=PASSWORD_URL), 5555):
        assert "sesame" not in " ".join(service.argv)
    code = "import os, pathlib; pathlib.Path('seen').write_text(os.environ['PROVENANCE_REDIS_URL'])"
    supervisor.start([script("s", f"import os; os.chdir({str(tmp_path)!r}); {code}")])
    assert until((tmp_path / "seen").exists)
    assert until(lambda: (tmp_path / "seen").read_text() == PASSWORD_URL)
    assert "sesame" not in str(told.lines)


def test_services_find_the_same_folder_database_and_configuration(
    settings: Settings, tmp_path: Path
) -> None:
    made = Fleet(settings, Path("c.json"), PASSWORD_URL, Told())
    assert made.env["PROVENANCE_BASE_DIR"] == str(settings.base_dir.absolute())
    assert made.env["PROVENANCE_DATABASE_URL"] == settings.database_url
    assert made.env["PROVENANCE_CONFIG"] == str(Path("c.json").absolute())
    assert up.spool(settings).is_dir()


def test_output_goes_to_the_services_log(supervisor: Fleet) -> None:
    supervisor.start([script("talker", "print('to out'); import sys; sys.stderr.write('to err')")])
    assert until(lambda: "to err" in supervisor.log_path("talker").read_text())
    assert "to out" in supervisor.log_path("talker").read_text()


# --- restarts ----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_dies_is_said_and_started_again(supervisor: Fleet, told: Told) -> None:
    supervisor.start([sleeper("a"), sleeper("b")])
    before = supervisor.pids()
    os.kill(before["a"], signal.SIGKILL)
    stop_at = time.monotonic() + 20
    kept = [before]
    supervisor.tend(
        lambda: supervisor.pids().get("a") not in (before["a"], None) or time.monotonic() > stop_at,
        lambda: kept.append(supervisor.pids()),
        poll_s=0.02,
    )
    assert kept[-1] == supervisor.pids()
    after = supervisor.pids()
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    line = f"killed (SIGKILL), is started again; see {supervisor.log_path('a')}"
    assert ("a", line) in told.lines


def test_the_reason_in_its_log_is_said(supervisor: Fleet, told: Told) -> None:
    supervisor.start([script("broken", "print('at work'); raise SystemExit('no such thing')")])

    def ended() -> bool:
        supervisor.mend()
        return any("ended" in line for _, line in told.lines)

    assert until(ended)
    (line,) = [line for _, line in told.lines if "ended" in line]
    assert line == "ended with status 1; no such thing"


def test_one_that_was_killed_is_not_told_with_what_it_said_before(
    supervisor: Fleet, told: Told
) -> None:
    code = "import os, signal; print('x' * 900, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    supervisor.start([script("hashing", code)])
    (child,) = supervisor.children
    assert child.process is not None
    child.process.wait(20)
    supervisor.mend()
    log = supervisor.log_path("hashing")
    assert ("hashing", f"killed (SIGKILL), is started again; see {log}") in told.lines


def test_a_death_is_told_with_its_own_lines_alone_and_a_long_log_is_cut(
    supervisor: Fleet, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = supervisor.log_path("quiet")
    log.write_text("of another life\n")
    supervisor.start([script("quiet", "raise SystemExit(3)")])
    (child,) = supervisor.children
    assert child.process is not None
    assert child.log_start == log.stat().st_size
    child.process.wait(20)
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    supervisor.mend()
    assert told.lines[-1] == ("quiet", "ended with status 3; (it wrote none)")
    assert (child.log_start, log.stat().st_size) == (0, 0)


@pytest.mark.slow
def test_restarts_back_off_to_a_cap_and_recover(
    supervisor: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    supervisor.start([sleeper("a")])
    (child,) = supervisor.children
    delays = []
    for _ in range(8):
        assert child.process is not None
        child.process.kill()
        child.process.wait()
        supervisor.mend()
        delays.append(round(child.next_start - clock.now, 3))
        stopped: Any = child.process
        assert stopped is None
        clock.now = child.next_start - 0.001
        supervisor.mend()
        stopped = child.process
        assert stopped is None, "too early"
        clock.now = child.next_start
        supervisor.mend()
    assert delays == [1, 3, 7, 15, 30, 30, 30, 30]
    clock.now += up.STARTED_S
    assert child.process is not None
    child.process.kill()
    child.process.wait()
    supervisor.mend()
    assert child.process is not None, "one that lived long enough is started again at once"
    assert child.failures == 0


# --- stopping ----------------------------------------------------------------------------

RECORDING = """
import signal, sys, time
def end(*_):
    open({path!r}, "a").write({name!r} + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open({path!r} + "." + {name!r}, "w").close()
time.sleep(60)
"""


@pytest.mark.slow
def test_redis_is_stopped_last(supervisor: Fleet, tmp_path: Path) -> None:
    path = str(tmp_path / "order")
    names = ["redis", "shipper", "beat"]
    supervisor.start([script(name, RECORDING.format(path=path, name=name)) for name in names])
    assert until(lambda: all(Path(f"{path}.{name}").exists() for name in names))
    pids = supervisor.pids()
    supervisor.stop()
    ended = Path(path).read_text().split()
    assert sorted(ended) == sorted(names)
    assert ended[-1] == "redis"
    assert supervisor.children == []
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_one_that_does_not_stop_is_killed_with_its_children(
    supervisor: Fleet, told: Told, tmp_path: Path
) -> None:
    code = (
        "import signal, subprocess, time, pathlib;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '60']);"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid));"
        "time.sleep(60)"
    )
    supervisor.start([script("deaf", code)])
    assert until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = int((tmp_path / "child").read_text())
    supervisor.stop(grace_s=0.3)
    assert ("deaf", "still there after 0 s, killed") in told.lines
    assert until(lambda: state_of(child) in (None, "Z"))


def state_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def test_a_stopped_fleet_can_be_stopped_again(supervisor: Fleet) -> None:
    supervisor.start([sleeper("a")])
    supervisor.stop()
    supervisor.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_services_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from provenance.settings import load;"
        "from provenance.app.up import Fleet, Service;"
        f"f = Fleet(load(None, {str(tmp_path)!r}), None, 'redis://127.0.0.1:1/0', lambda *_: None);"
        "f.start([Service('a', ('sleep', '60'))]); print(f.pids()['a'], flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    assert until(lambda: state_of(pid) in (None, "Z"))


# --- redis, lock, extras -----------------------------------------------------------------


@pytest.mark.slow
def test_the_embedded_redis_wants_its_password(settings: Settings, told: Told) -> None:
    if processes.redis_server(Path(".devnet")) is None:
        pytest.skip("no redis-server: run `make devnet`")
    service, url = up.embedded_redis(settings)
    assert "requirepass" in service.stdin.decode()
    password = url.split(":")[2].split("@")[0]
    assert len(password) >= 32
    assert password not in " ".join(service.argv) + repr(service)
    running = Fleet(settings, None, url, told)
    try:
        running.start([service])
        transport = sending.open_transport(replace(settings, redis_url=url))
        up.wait_until(transport.ping)
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        bare = redis.Redis(port=port)
        with pytest.raises(redis.AuthenticationError):
            bare.ping()
        bare.close()
        known = redis.Redis.from_url(url)
        assert known.config_get("bind")["bind"] == "127.0.0.1"
        assert known.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        known.close()
        assert (
            password.encode() not in Path(f"/proc/{running.pids()['redis']}/cmdline").read_bytes()
        )
    finally:
        running.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's my project", 'a"b', "a\\nb", "a\nb\udcff"])
def test_the_embedded_redis_starts_in_any_folder(name: str, tmp_path: Path, told: Told) -> None:
    if processes.redis_server(Path(".devnet")) is None:
        pytest.skip("no redis-server: run `make devnet`")
    settings = load(None, tmp_path / name)
    service, url = up.embedded_redis(settings)
    running = Fleet(settings, None, url, told)
    try:
        running.start([service])
        up.wait_until(sending.open_transport(replace(settings, redis_url=url)).ping)
        known = redis.Redis.from_url(url)
        expected = os.fsencode(settings.base_dir / "run").decode(errors="replace")
        assert known.config_get("dir")["dir"] == expected
        known.close()
    finally:
        running.stop()


def test_two_embedded_redis_have_two_passwords(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "redis_server", lambda home: Path("/bin/true"))
    assert up.embedded_redis(settings)[1] != up.embedded_redis(settings)[1]


def test_no_redis_at_all_says_how_to_get_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "redis_server", lambda home: None)
    with pytest.raises(ServerMissingError, match="redis is not installed: .*install"):
        up.embedded_redis(settings)


@pytest.mark.slow
def test_one_fleet_per_folder(tmp_path: Path) -> None:
    with up.only_fleet(tmp_path / "one"):
        with pytest.raises(InputError, match="another `provenance up` runs here already"):
            with up.only_fleet(tmp_path / "one"):
                pytest.fail("two fleets on one folder")
        with up.only_fleet(tmp_path / "two"):
            pass
    with up.only_fleet(tmp_path / "one"):
        pass


@pytest.mark.slow
def test_waiting_ends_with_the_answer_or_the_error() -> None:
    answers = [TransportUnavailable("not yet"), TransportUnavailable("not yet"), None]

    def ping() -> None:
        if (problem := answers.pop(0)) is not None:
            raise problem

    up.wait_until(ping)
    assert answers == []

    def never() -> None:
        raise TransportUnavailable("refused")

    with pytest.raises(TransportUnavailable, match="refused"):
        up.wait_until(never, seconds=0.1)


@pytest.mark.parametrize("package", ["celery", "sqlalchemy", "alembic"])
def test_a_base_install_says_what_a_fleet_needs(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    with pytest.raises(MissingExtraError, match=f"{package} is not installed.*workers"):
        up.require_extra("workers")
