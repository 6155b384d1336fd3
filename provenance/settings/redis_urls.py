"""Redis URLs: the one place that reads them, for the stream's client and for Celery's broker.

==========================================================  =================================
``redis://[user:password@]host[:6379][/db]``                one server, also ``?db=``
``rediss://...``                                            the same by TLS
``unix://[user:password@]/path[?db=]``                      its socket
``redis+sentinel://...@h1[:26379],h2/service[/db]``         the master that Sentinels name
``redis+cluster://...@h1[:6379],h2``                        a Cluster
==========================================================  =================================

``valkey`` may stand for ``redis``, which is the same protocol; ``rediss+sentinel`` and
``rediss+cluster`` are TLS throughout. Celery's spelling of Sentinels (``sentinel://h1;sentinel://h2``
with ``?service_name=``) is read as well. Options: ``ssl_ca_certs``, ``ssl_certfile``,
``ssl_keyfile`` (paths), ``ssl_cert_reqs``, ``ssl_check_hostname``; ``sentinel_username`` and
``sentinel_password`` where Sentinels ask for their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from provenance.errors import ConfigError

if TYPE_CHECKING:
    from provenance.settings.values import Settings

_SCHEME = re.compile(r"(redis|valkey)(s?)(\+sentinel|\+cluster)?|(unix)|sentinel")
_URL = re.compile(r"(?:([^/?#]*)@)?([^/?#@]*)(/[^?#]*)?(?:\?([^#]*))?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?")
_LOGIN = ("username", "password")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL = ("service_name", "master_name", "sentinel_username", "sentinel_password")
_SCHEMES = (
    "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// (or valkey for redis)"
)
_MALFORMED = (
    "is malformed, expected redis://[user:password@]host:port/db or unix:///path, "
    "a password percent-encoded"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis URL, read.

    Attributes:
        kind: ``server``, ``unix``, ``sentinel`` or ``cluster``.
        hosts: Of the server, the Sentinels or some of the Cluster's nodes, with their ports.
        login: ``username`` and ``password`` as far as there are any.
        service: The name under which the Sentinels know the master.
        sentinel_login: As ``login``, for the Sentinels themselves.
        tls: The client's options; empty means no TLS.
        key: The setting that the URL is the value of.
        source: The file or the environment variable that it came from.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    db: int = 0
    login: Mapping[str, str] = field(default_factory=dict, repr=False)
    service: str = ""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Mapping[str, Any] = field(default_factory=dict)
    key: str = "redis_url"
    source: str | None = None

    def __str__(self) -> str:
        """What of the URL may be shown."""
        if self.kind == "unix":
            return self.path
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        service = f"/{self.service}" if self.service else ""
        return f"{hosts}{service}" if self.kind == "cluster" else f"{hosts}{service}/{self.db}"

    def client(self, timeout_s: float) -> Any:
        """A client that never retries by itself and gives every connect and answer this time; that
        of a Cluster connects at once.

        Raises:
            ConfigError: A certificate's file cannot be read.
            RedisError, OSError: No node of a Cluster answers.
        """
        import redis
        from redis import cluster
        from redis.sentinel import Sentinel

        self._check_files()
        common = {"protocol": 2, "decode_responses": False, **_once(timeout_s), **self.login}
        tls = {"ssl": True, **self.tls} if self.tls else {}
        if self.kind == "cluster":
            node: Any = cluster.ClusterNode  # the library has no types for it
            nodes = [node(host, port) for host, port in self.hosts]
            return cluster.RedisCluster(startup_nodes=nodes, **common, **tls)
        common |= {"db": self.db, "health_check_interval": 0}
        if self.kind == "unix":
            return redis.Redis(unix_socket_path=self.path, **common)
        if self.kind == "sentinel":
            own = {**_once(timeout_s), **tls, **self.sentinel_login}
            sentinels: Any = Sentinel  # the library has no types for it
            made = sentinels(self.hosts, sentinel_kwargs=own, **common, **tls)
            return made.master_for(self.service)
        ((host, port),) = self.hosts
        return redis.Redis(host, port, **common, **tls)

    def broker(self) -> dict[str, Any]:
        """Celery's settings for this server: ``broker_url``, ``broker_use_ssl`` and what
        ``broker_transport_options`` needs beside its own.

        Raises:
            ConfigError: It is a Cluster, or a certificate's file cannot be read.
        """
        if self.kind == "cluster":
            named = self.key == "broker_url"
            found = "found" if named else "not set, and redis_url is"
            expected = "expected a single Redis or Sentinels (or PROVENANCE_BROKER_URL)"
            problem = f"{found} a Redis Cluster, where Celery's broker cannot run; {expected}"
            raise ConfigError("broker_url", problem, self.source if named else None)
        self._check_files()
        words = [quote(self.login.get(name, ""), safe="") for name in ("username", "password")]
        who = f"{':'.join(words)}@" if self.login else ""
        if self.kind == "unix":
            url = f"redis+socket://{who}{quote(self.path)}?virtual_host={self.db}"
            return {"broker_url": url, "broker_use_ssl": None, "options": {}}
        scheme = "sentinel" if self.kind == "sentinel" else "rediss" if self.tls else "redis"
        places = (f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        urls = [f"{scheme}://{who}{place}/{self.db}" for place in places]
        options: dict[str, Any] = {}
        if self.kind == "sentinel":
            tls = {"ssl": True, **self.tls} if self.tls else {}
            own = {**_once(5.0), **tls, **self.sentinel_login}
            options = {"master_name": self.service, "sentinel_kwargs": own}
        use_ssl = dict(self.tls) or None
        return {"broker_url": ";".join(urls), "broker_use_ssl": use_ssl, "options": options}

    def _check_files(self) -> None:
        for name in _TLS_FILES:
            path = self.tls.get(name)
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(self.key, f"{name}: cannot read {path}", self.source)


def _once(timeout_s: float) -> dict[str, Any]:
    """A client's options: it tries nothing again, and waits no longer."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    times = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_s)
    return {"retry": Retry(NoBackoff(), 0), **times}


def redis_address(url: str, key: str = "redis_url", source: str | None = None) -> RedisAddress:
    """Read a Redis URL.

    Args:
        key: The setting that it is the value of.
        source: The file or the environment variable that it came from.

    Raises:
        ConfigError: Says what is wrong, and shows no value, which may be a password's end.
    """

    def fail(problem: str) -> ConfigError:
        return ConfigError(key, problem, source)

    scheme, there, rest = url.strip().partition("://")
    known = _SCHEME.fullmatch(scheme.lower())
    if not there or known is None:
        named = there and re.fullmatch(r"[\w+.-]{1,24}", scheme)
        found = f"found the scheme {scheme!r}" if named else "found no such URL"
        raise fail(f"{found}, expected {_SCHEMES}")
    kind = known[3][1:] if known[3] else "server" if known[1] else known[4] or "sentinel"
    parts = re.split(r";(?:sentinel://)?", rest) if kind == "sentinel" else [rest]
    each = [one for part in parts if (one := _URL.fullmatch(part))]
    if len(each) < len(parts):
        raise fail(_MALFORMED)
    logins, places, paths, queries = zip(*(part.groups("") for part in each), strict=True)
    pairs = parse_qsl("&".join(filter(None, queries)), keep_blank_values=True)
    options, path = dict(pairs), max(paths, key=len)
    hosts = [_HOST.fullmatch(p) for p in ",".join(places).split(",")] if kind != "unix" else []
    sound = bool(path) and not any(places) if kind == "unix" else all(hosts)
    if not sound or len(options) < len(pairs) or (kind == "server" and len(hosts) > 1):
        raise fail(_MALFORMED)
    allowed = ["db", *(_LOGIN if kind == "unix" else _SENTINEL if kind == "sentinel" else ())]
    odd = next((o for o in options if o not in allowed and not (known[2] and o in _TLS)), None)
    if odd is not None:
        more = "ssl_ca_certs and the like" + ("" if known[2] else " with rediss://")
        shown = f"the option {odd[:40]!r}" if odd.isidentifier() else "another option"
        raise fail(f"found {shown}, expected {', '.join(allowed)} or {more}")
    words = [] if kind == "unix" else [unquote(word) for word in path.split("/") if word]
    service = options.get("service_name") or options.get("master_name") or ""
    if kind == "sentinel" and not service:
        if not words:
            raise fail("names no service, expected redis+sentinel://host:26379/service/db")
        service = words.pop(0)
    number = options.get("db") or "/".join(words) or "0"
    if not (number.isascii() and number.isdecimal()):
        raise fail("found a database that is no number, expected /0 or ?db=0")
    if kind == "cluster" and int(number):
        raise fail("found a database other than 0, and a Redis Cluster has no other")
    port = 26379 if kind == "sentinel" else 6379
    login = dict(zip(_LOGIN, map(unquote, max(logins, key=len).split(":", 1)), strict=False))
    login |= {name: options[name] for name in _LOGIN if name in options}
    sentinel = {name: options.get(f"sentinel_{name}", "") for name in _LOGIN}
    tls: dict[str, Any] = {name: options[name] for name in _TLS if name in options}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"].lower() not in ("false", "0", "no")
    return RedisAddress(
        kind,
        tuple((host[1].strip("[]"), int(host[2] or port)) for host in hosts if host),
        unquote(path) if kind == "unix" else "",
        int(number),
        {name: value for name, value in login.items() if value},
        service,
        {name: value for name, value in sentinel.items() if value},
        {"ssl_cert_reqs": "required"} | tls if known[2] else {},
        key,
        source,
    )


def stream_address(settings: Settings) -> RedisAddress:
    """Where the streams are.

    Raises:
        ConfigError: ``redis_url`` is not set, or is none (:func:`redis_address`).
    """
    if settings.redis_url is None:
        raise ConfigError("redis_url", "not set, expected redis://... (or PROVENANCE_REDIS_URL)")
    return _address(settings, "redis_url", settings.redis_url, "PROVENANCE_REDIS_URL")


def broker_address(settings: Settings) -> RedisAddress:
    """Where Celery's queues are: ``broker_url``, else ``redis_url``.

    Raises:
        ConfigError: As :func:`stream_address`.
    """
    if settings.broker_url is None:
        return stream_address(settings)
    return _address(settings, "broker_url", settings.broker_url, "PROVENANCE_BROKER_URL")


def _address(settings: Settings, key: str, url: str, variable: str) -> RedisAddress:
    return redis_address(url, key, variable if os.environ.get(variable) == url else settings.source)
