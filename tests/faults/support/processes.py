"""Processes of the fault tests: a Redis server, trainers, and how they are ended."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from provenance.app.processes import free_ports, log_tail, redis_server
from tests.support.paths import ROOT


def until(what: Callable[[], Any], seconds: float, poll_s: float = 0.1) -> Any:
    """``what()`` as soon as it is true, or as it is after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(poll_s)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def signal_group(pid: int, sig: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, sig)


class RedisServer:
    """A redis-server of this test on one port; it keeps nothing on disk."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        program = redis_server(ROOT / ".devnet")
        if program is None:
            pytest.skip("redis-server is not installed; run: make devnet")
        self.path, self.folder, self.host = program, folder, host
        folder.mkdir(parents=True, exist_ok=True)
        self.password = secrets.token_hex(12)
        (self.port,) = free_ports(1)
        self.url = f"redis://:{self.password}@{host}:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def client(self) -> redis.Redis:
        """A new client; close it."""
        return redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)

    def start(self, *lines: str) -> None:
        """Start, with further configuration lines; returns when it answers."""
        config = [
            f"bind {self.host}", f"port {self.port}", f"requirepass {self.password}",
            f"dir {self.folder.absolute()}", 'save ""', "appendonly no",
            "maxmemory-policy noeviction", *lines,
        ]  # fmt: skip
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.path), "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        assert self.process.stdin is not None
        self.process.stdin.write("\n".join(config).encode())
        self.process.stdin.close()
        assert until(self.answers, 15, 0.02), log_tail(self.folder / "redis.log")

    def answers(self) -> bool:
        """True where PING is answered."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Hung: it takes connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def flushall(self) -> None:
        with self.client() as client:
            client.flushall()

    def _end(self, sig: signal.Signals) -> None:
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(sig)
        self.process.wait(15)
        self.process = None


class Trainer:
    """A training process; what it was promised is read from the file it prints to."""

    def __init__(self, run: UUID, rank: int, process: subprocess.Popen[bytes], out: Path) -> None:
        self.run, self.rank, self.process, self.out = run, rank, process, out

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self) -> list[str]:
        """Complete lines that it printed."""
        return self.out.read_text(encoding="utf-8").split("\n")[:-1]

    def promised(self) -> list[int]:
        """Sequence numbers of the events whose emit returned True."""
        return [int(line) for line in self.lines() if line.isdigit()]

    @property
    def producer(self) -> bytes | None:
        """Known from its first line ``producer <hex>``; None before."""
        found = [line.split()[1] for line in self.lines() if line.startswith("producer ")]
        return bytes.fromhex(found[0]) if found else None

    def kill(self, sig: int = signal.SIGKILL) -> None:
        signal_group(self.pid, sig)
        if sig == signal.SIGKILL:
            self.process.wait(10)

    def wait(self, timeout: float = 60) -> int:
        """Its exit code."""
        return self.process.wait(timeout)

    def finish(self, timeout: float = 60) -> None:
        """Wait for a good end."""
        code = self.wait(timeout)
        assert code == 0, f"trainer ended with {code}: {log_tail(self.out.with_suffix('.err'))}"
