"""No hidden number reaches a real Redis, a database or a log of the workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from provenance.settings import load
from tests.faults.support.by_hand import bring_home, ship
from tests.unit.zk.conftest import ACCURACY, HIDDEN, forms, recorded


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """A database of its own on the session's server."""
    own = f"{redis_url.rpartition('/')[0]}/12"
    with redis.Redis.from_url(own) as client:
        client.flushdb()
        yield own
        client.flushdb()


def redis_bytes(url: str) -> bytes:
    """All keys and values, streams by their entries."""
    told = b""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            if kind == b"stream":
                entries = [entry for _, entry in client.xrange(key)]
                told += b"".join(value for entry in entries for value in entry.values())
            elif kind == b"hash":
                told += b"".join(client.hgetall(key).values())
            elif kind == b"string":
                told += client.get(key)
            told += key
    return told


def test_no_hidden_number_leaves_the_trainers_host(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    run = recorded(base)
    settings = load({"redis_url": url, "commitments": HIDDEN}, base)
    ship(settings)
    stream = redis_bytes(url)
    assert b'"point"' in stream
    bring_home(settings)
    ledger = b"".join(path.read_bytes() for path in base.glob("ledger.db*"))
    assert b'"point"' in ledger
    logs = "".join(capfd.readouterr()).encode()
    logs += b"".join(path.read_bytes() for path in base.rglob("*.log"))
    assert run.encode() in logs
    for value in (ACCURACY, ACCURACY - 0.1, 1.512345, 0.771234):
        for secret in forms(value):
            for told in (stream, redis_bytes(url), ledger, logs):
                assert secret not in told
