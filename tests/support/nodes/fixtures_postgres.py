"""A real PostgreSQL: :func:`running`; ``postgres_url`` is a fresh database on the session's own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

USER = "provenance"
_MISSING = (
    "PostgreSQL is not installed; get it with: apt install postgresql (or brew install postgresql)"
)
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = [
        folder
        for place in _PLACES
        for folder in Path("/").glob(place.lstrip("/"))
        if (folder / "initdb").exists()
    ]
    return max(
        found,
        key=lambda folder: [int(d) for d in folder.parts[-2].split(".") if d.isdigit()],
        default=None,
    )


def _account() -> dict[str, object]:
    """The server refuses to run as root; then another account runs it."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    """True once it takes a login: a server that accepts connections may still be starting."""
    import psycopg

    try:
        psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


class Server(NamedTuple):
    """``url`` names no database; ``log`` is what the server writes."""

    url: str
    log: Path


@contextmanager
def running(*options: str, host: str = "127.0.0.1") -> Iterator[Server]:
    """A server of one's own on a free port.

    Args:
        options: Settings, as ``fsync=off``.
        host: The loopback address that it listens on.
    """
    binaries = _binaries()
    if binaries is None:
        raise FileNotFoundError(_MISSING)
    account = _account()
    password = secrets.token_urlsafe(16)
    # Not below pytest's own folder: the account of the server may not enter it.
    with tempfile.TemporaryDirectory(prefix="provenance-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if account:
            for path in (folder, folder / "password"):
                os.chown(path, int(str(account["user"])), int(str(account["group"])))
        made = subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", USER, "--auth=scram-sha-256",
             f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C", "--no-sync"],
            capture_output=True, text=True, cwd=folder, check=False, **account,  # type: ignore[call-overload]  # keyword arguments of several types
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 127.0.0.0/8 scram-sha-256\n")
        port = _free_port()
        settings = [f"listen_addresses={host}", "unix_socket_directories=", *options]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", folder / "data", "-p", str(port),
                 *(word for setting in settings for word in ("-c", setting))],
                stdout=log, stderr=log, cwd=folder, **account,  # type: ignore[call-overload]  # keyword arguments of several types
            )  # fmt: skip
        try:
            url = f"postgresql://{USER}:{password}@{host}:{port}"
            deadline = time.monotonic() + 30
            while not _answers(url):
                said = (folder / "log").read_text(errors="replace")
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
            yield Server(url, folder / "log")
        finally:
            server.send_signal(2)  # SIGINT: fast shutdown, open connections are cut
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server of this session's own, without a database name."""
    try:
        with running("fsync=off") as server:
            yield server.url
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database; gone after the test."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    yield f"{postgres_server}/{name}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
