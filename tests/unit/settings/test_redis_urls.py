"""Redis URLs: what is read of each spelling, what the clients are told, what is refused and how."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provenance.errors import ConfigError
from provenance.settings import broker_address, load, redis_address
from tests.support.frameworks import framework

ONE = (("h", 6379),)
THREE = (("h1", 26379), ("h2", 1), ("::1", 26379))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"kind": "server", "hosts": ONE, "db": 0, "login": {}, "tls": {}}),
        ("redis://h/3", {"db": 3}),
        ("redis://h:7?db=3", {"hosts": (("h", 7),), "db": 3}),
        ("redis://[::1]:7/1", {"hosts": (("::1", 7),), "db": 1}),
        ("redis://:p%40s%2Fs%3A%23@h", {"login": {"password": "p@s/s:#"}}),
        ("redis://me:p;w@d@h", {"login": {"username": "me", "password": "p;w@d"}, "hosts": ONE}),
        ("valkey://h/3", {"kind": "server", "db": 3}),
        ("valkeys://h", {"tls": {"ssl_cert_reqs": "required"}}),
        (
            "rediss://h?ssl_ca_certs=/a&ssl_certfile=/b&ssl_keyfile=/c&ssl_check_hostname=false",
            {"tls": {"ssl_cert_reqs": "required", "ssl_ca_certs": "/a", "ssl_certfile": "/b",
                     "ssl_keyfile": "/c", "ssl_check_hostname": False}},
        ),
        ("rediss://h?ssl_cert_reqs=none", {"tls": {"ssl_cert_reqs": "none"}}),
        ("unix:///run/a.sock", {"kind": "unix", "path": "/run/a.sock", "db": 0}),
        ("unix://me:pw@/a%20b?db=2", {"path": "/a b", "db": 2,
                                      "login": {"username": "me", "password": "pw"}}),
        ("unix:///a?password=p%2Fw", {"login": {"password": "p/w"}}),
        (
            "redis+sentinel://me:pw@h1,h2:1,[::1]/mine/2?sentinel_password=own",
            {"kind": "sentinel", "hosts": THREE, "service": "mine", "db": 2,
             "login": {"username": "me", "password": "pw"}, "sentinel_login": {"password": "own"}},
        ),
        (
            "sentinel://:pw@h1:26379/2;sentinel://:pw@h2:1/2;sentinel://[::1]?master_name=mine",
            {"kind": "sentinel", "hosts": THREE, "service": "mine", "db": 2,
             "login": {"password": "pw"}},
        ),
        ("sentinel://h1,h2:1,[::1]/mine", {"hosts": THREE, "service": "mine", "db": 0}),
        ("rediss+sentinel://h/m", {"kind": "sentinel", "tls": {"ssl_cert_reqs": "required"}}),
        ("valkey+cluster://h,i:2", {"kind": "cluster", "hosts": (("h", 6379), ("i", 2))}),
    ],
)  # fmt: skip
def test_what_is_read(url: str, expected: dict[str, object]) -> None:
    read = redis_address(url)
    assert {name: getattr(read, name) for name in expected} == expected
    assert "pw" not in f"{read} {read!r}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost:6379/1", {"host": "localhost", "db": 1, "password": None}),
        ("redis://:pw@localhost?db=3", {"host": "localhost", "db": 3, "password": "pw"}),
        ("redis://u:p%3B%2F@[::1]:7", {"host": "::1", "port": 7, "password": "p;/"}),
        ("unix:///run/redis/a.sock", {"path": "/run/redis/a.sock", "db": 0, "password": None}),
        ("unix://:pw@/run/a.sock?db=2", {"path": "/run/a.sock", "db": 2, "password": "pw"}),
        ("unix:///run/a.sock?password=p%2Fw", {"path": "/run/a.sock", "db": 0, "password": "p/w"}),
        ("rediss://:pw@h/1", {"host": "h", "db": 1, "ssl_cert_reqs": "required"}),
        ("rediss://h?ssl_cert_reqs=none", {"host": "h", "ssl_cert_reqs": "none"}),
        ("redis+sentinel://:p%3Bw@h1,h2/m/4", {"host": "h1", "db": 4, "password": "p;w"}),
    ],
)
def test_celery_reaches_every_redis_that_a_url_may_name(
    url: str, expected: dict[str, object]
) -> None:
    kombu, transport = (framework(name, "workers") for name in ("kombu", "kombu.transport.redis"))
    channel = object.__new__(transport.Channel)
    settings = redis_address(url).broker()
    told = kombu.Connection(settings["broker_url"], ssl=settings["broker_use_ssl"])
    channel.connection = SimpleNamespace(client=told, default_port=6379)
    parameters = channel._connparams()
    assert {name: parameters[name] for name in expected} == expected


def test_each_sentinel_that_celery_may_turn_to_has_the_login_and_the_database() -> None:
    told = redis_address("redis+sentinel://me:pw@h1,h2:5/mine/2?sentinel_password=own").broker()
    assert told["broker_url"] == "sentinel://me:pw@h1:26379/2;sentinel://me:pw@h2:5/2"
    assert told["options"]["master_name"] == "mine"
    assert told["options"]["sentinel_kwargs"]["password"] == "own"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://h/abc", "found a database that is no number"),
        ("redis://h/1/2", "found a database that is no number"),
        ("redis://h?db=x", "found a database that is no number"),
        ("redis://h?db=1&db=2", "is malformed"),
        ("redis://h?socket_timeout=5", "found the option 'socket_timeout', expected db or ssl_ca"),
        ("redis://h?ssl_ca_certs=/c", "found the option 'ssl_ca_certs', .* with rediss://"),
        ("redis://h?service_name=x", "found the option 'service_name'"),
        ("unix:///a.sock?virtual_host=3", "found the option 'virtual_host', expected db, username"),
        ("unix://a.sock", "is malformed, expected .* or unix:///path"),
        ("redis://h1:1,h2:2", "is malformed"),
        ("redis://", "is malformed"),
        ("redis://:hun/ter2@h/1", "is malformed, .* a password percent-encoded"),
        ("redis://:hun#ter2@h/1", "is malformed, .* a password percent-encoded"),
        ("redis://:hun?ter2@h/1", "is malformed, .* a password percent-encoded"),
        ("redis://:ter2@x:port/0", "is malformed"),
        ("redis+sentinel://h:1", "names no service, expected redis.sentinel://host:26379/service"),
        ("redis+cluster://h/1", "found a database other than 0"),
        ("amqp://:ter2@h", "found the scheme 'amqp', expected redis://, rediss://, unix://"),
        ("ter2@h:6379", "found no such URL, expected redis://"),
        ("", "found no such URL, expected redis://"),
    ],
)  # fmt: skip
def test_what_nobody_could_mean_is_refused_at_the_start(
    url: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the setting and where it came from, and shows no password."""
    monkeypatch.delenv("PROVENANCE_REDIS_URL", raising=False)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"redis_url": url}))
    with pytest.raises(ConfigError, match=f"^{file}: redis_url: {problem}") as refused:
        load(file)
    assert "ter2" not in str(refused.value)
    if url:
        monkeypatch.setenv("PROVENANCE_BROKER_URL", url)
        with pytest.raises(ConfigError, match=f"^PROVENANCE_BROKER_URL: broker_url: {problem}"):
            load({})


def test_celery_s_broker_is_the_same_redis_or_one_of_its_own_beside_a_cluster() -> None:
    cluster: dict[str, Any] = {"redis_url": "redis+cluster://h"}
    assert str(broker_address(load({"redis_url": "redis://h/2"}))) == "h:6379/2"
    with pytest.raises(ConfigError, match="^broker_url: not set, and redis_url is a Redis Cluster"):
        broker_address(load(cluster)).broker()
    with pytest.raises(ConfigError, match="^broker_url: found a Redis Cluster"):
        broker_address(load({"broker_url": "redis+cluster://h"})).broker()
    told = broker_address(load(cluster | {"broker_url": "redis://:pw@b/1"})).broker()
    assert told["broker_url"] == "redis://:pw@b:6379/1"


def test_a_certificate_that_is_not_there_is_named() -> None:
    address = redis_address("rediss://h?ssl_certfile=/nowhere.pem")
    for use in (address.broker, lambda: address.client(1.0)):
        with pytest.raises(ConfigError, match="^redis_url: ssl_certfile: cannot read /nowhere.pem"):
            use()


def test_sentinels_that_are_away_are_asked_once() -> None:
    """redis-py would ask each four times, with pauses of seconds."""
    address = redis_address("redis+sentinel://me:pw@127.0.0.1:1,127.0.0.1:2/mine")
    framework("redis", "workers")
    pool = address.client(1.0).connection_pool
    asked = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
    asked += [pool.connection_kwargs, address.broker()["options"]["sentinel_kwargs"]]
    assert [options["retry"].get_retries() for options in asked] == [0, 0, 0, 0]
