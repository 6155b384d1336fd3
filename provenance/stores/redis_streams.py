"""RedisStreams: the event transport on Redis Streams (Redis 6.2 or newer).

Keys, all below a prefix (``prov:``)::

    prov:events:<shard>   stream; one entry a batch, field ``b``
    prov:acked:<run id>   sorted set: producer (32 hex) scored with its committed count;
                          ZADD GT never lowers a score; kept 30 days after the last change
    prov:generation       random id, written with the first append

Redis is a conveyor here, not a record: it may lose everything at any time. What must hold
is that it says so, so this client never retries by itself, gives every call ``timeout_s``,
and turns every failure into TransportUnavailable, or ConfigError where the credentials or
the URL are at fault. No message carries the password.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from provenance.errors import ConfigError, TransportUnavailable
from provenance.ports.transport import Delivery

ACKED_TTL_S = 30 * 86400
_FIELD = b"b"
# A batch names its run's public key here (provenance.formats.event): one run, one shard.
_ROUTE = slice(69, 101)
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR INVALID PASSWORD")


class RedisStreams:
    """Batches through Redis Streams with one consumer group.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user and password.
        shards: Streams to spread runs over; the same number for shippers and workers.
        timeout_s: Of every connect and every answer, in seconds.

    Raises:
        ConfigError: The URL is malformed.
    """

    def __init__(
        self,
        url: str,
        shards: int = 1,
        group: str = "hashing",
        timeout_s: float = 2.0,
        key_prefix: str = "prov:",
        client: redis.Redis | None = None,
    ) -> None:
        if shards < 1:
            raise ConfigError("redis_url", f"{shards} shards, expected at least 1")
        self._redis = client if client is not None else _client(url, timeout_s)
        self._where = _place(url)
        self._group, self._prefix = group, key_prefix
        self._streams = [f"{key_prefix}events:{shard}" for shard in range(shards)]
        self._grouped: set[str] = set()
        self._turn = 0

    def __repr__(self) -> str:
        return f"RedisStreams({self._where})"

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    # --- shipper's side ---------------------------------------------------------------

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add entries in one pipeline; with none, only the generation is written."""
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(f"{self._prefix}generation", secrets.token_hex(16), nx=True)
            for payload in payloads:
                pipe.xadd(self._stream_of(payload), {_FIELD: payload})
            _execute(pipe)

    def generation(self) -> str | None:
        """The id written with the first append; None on a server without one."""
        with self._translated():
            value: Any = self._redis.get(f"{self._prefix}generation")
        return None if value is None else bytes(value).decode("ascii", "replace")

    def acknowledged(self, run: UUID) -> Mapping[bytes, int]:
        """Per producer, how many events from 0 without a hole are committed."""
        with self._translated():
            pairs: Any = self._redis.zrange(self._acked(run), 0, -1, withscores=True)
        found: dict[bytes, int] = {}
        for member, score in pairs:
            text = bytes(member).decode("ascii", "replace")
            if len(text) == 32 and not text.strip("0123456789abcdef"):
                found[bytes.fromhex(text)] = int(score)
        return found

    # --- worker's side ----------------------------------------------------------------

    def read(self, consumer: str, count: int) -> list[Delivery]:
        """Up to ``count`` entries not yet given to any consumer; does not block."""
        found: list[Delivery] = []
        with self._translated():
            for shard in self._shards_in_turn():
                if len(found) >= count:
                    break
                found += self._read(shard, consumer, count - len(found))
        return found

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        """Take over entries given out ``min_idle_s`` ago and never acknowledged."""
        found: list[Delivery] = []
        with self._translated():
            for shard in self._shards_in_turn():
                found += self._claim(shard, consumer, int(min_idle_s * 1000), count - len(found))
        return found

    def ack(self, ids: Sequence[str]) -> None:
        """Acknowledge and delete committed entries."""
        by_stream: dict[str, list[str]] = {}
        for text in ids:
            shard, _, entry = text.partition("/")
            by_stream.setdefault(self._streams[int(shard)], []).append(entry)
        if not by_stream:
            return
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            for stream, entries in by_stream.items():
                pipe.xack(stream, self._group, *entries)
                pipe.xdel(stream, *entries)
            _execute(pipe)

    def publish_acknowledged(self, run: UUID, upto: Mapping[bytes, int]) -> None:
        """Raise the counts; a lower one changes nothing (ZADD GT)."""
        if not upto:
            return
        key = self._acked(run)
        scores: dict[Any, Any] = {producer.hex(): count for producer, count in upto.items()}
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(key, scores, gt=True)
            pipe.expire(key, ACKED_TTL_S)
            _execute(pipe)

    # --- either -----------------------------------------------------------------------

    def backlog(self) -> int:
        """Entries in the streams, read or not."""
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            for stream in self._streams:
                pipe.xlen(stream)
            return sum(_execute(pipe))

    def ping(self) -> None:
        """Raise where the server does not answer."""
        with self._translated():
            self._redis.ping()

    def eviction_policy(self) -> str | None:
        """``maxmemory-policy``, which must not be one of ``allkeys-*``; None where the
        server does not tell."""
        with self._translated():
            try:
                answer: Any = self._redis.config_get("maxmemory-policy")
            except exceptions.ResponseError:  # hosted servers hide CONFIG
                return None
        value = next(iter(answer.values()), None)
        return value.decode() if isinstance(value, bytes) else value

    # --- inside -----------------------------------------------------------------------

    def _acked(self, run: UUID) -> str:
        return f"{self._prefix}acked:{run}"

    def _stream_of(self, payload: bytes) -> str:
        return self._streams[zlib.crc32(payload[_ROUTE]) % len(self._streams)]

    def _shards_in_turn(self) -> list[int]:
        """All shards, beginning with another one each time, so that none starves."""
        number = len(self._streams)
        self._turn = (self._turn + 1) % number
        return [(self._turn + step) % number for step in range(number)]

    def _read(self, shard: int, consumer: str, count: int) -> list[Delivery]:
        stream = self._streams[shard]

        def ask() -> Any:
            return self._redis.xreadgroup(self._group, consumer, {stream: ">"}, count=count)

        answer = self._in_group(stream, ask)
        return [item for _, entries in answer or [] for item in _deliveries(shard, entries)]

    def _claim(self, shard: int, consumer: str, idle_ms: int, count: int) -> list[Delivery]:
        stream = self._streams[shard]
        found: list[Delivery] = []
        start: Any = "0-0"
        while len(found) < count:

            def ask(start: Any = start, left: int = count - len(found)) -> Any:
                return self._redis.xautoclaim(stream, self._group, consumer, idle_ms, start, left)

            # Two items or, from Redis 7 on, three: taken by index, never unpacked.
            answer = self._in_group(stream, ask)
            found += _deliveries(shard, answer[1])
            start = answer[0]
            if bytes(start) == b"0-0":
                break
        return found

    def _in_group(self, stream: str, ask: Any) -> Any:
        """Call with the group in place; a server that was emptied has lost it."""
        if stream not in self._grouped:
            self._create_group(stream)
        try:
            return ask()
        except exceptions.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._create_group(stream)
            return ask()

    def _create_group(self, stream: str) -> None:
        try:
            self._redis.xgroup_create(stream, self._group, id="0", mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._grouped.add(stream)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (
            exceptions.AuthenticationError,
            exceptions.AuthenticationWrongNumberOfArgsError,
            exceptions.AuthorizationError,
            exceptions.NoPermissionError,
        ) as error:
            raise self._denied() from error
        except exceptions.RedisError as error:
            text = " ".join(str(error).split())
            if text.upper().startswith(_DENIED):
                raise self._denied() from error
            kind = type(error).__name__
            raise TransportUnavailable(f"Redis at {self._where}: {kind}: {text[:200]}") from error
        except OSError as error:
            raise TransportUnavailable(f"Redis at {self._where}: {error.strerror}") from error

    def _denied(self) -> ConfigError:
        return ConfigError(
            "redis_url",
            f"Redis at {self._where} refuses the user or password, or the rights they give; "
            "expected redis://user:password@host:port/db",
        )


def _client(url: str, timeout_s: float) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            url,
            protocol=2,
            decode_responses=False,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
    except (ValueError, TypeError):
        # `from None`: the cause's message quotes the URL.
        raise ConfigError(
            "redis_url", "is malformed, expected redis://[user:password@]host:port/db"
        ) from None


def _execute(pipe: Any) -> list[Any]:
    """Run a pipeline; the client's own message would quote the command, and so the records."""
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _place(url: str) -> str:
    """Host, port and database: what of the URL may be shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "redis"
    if not host:
        return parts.path or "redis"
    return f"{host}:{port or 6379}{parts.path}"


def _deliveries(shard: int, entries: Any) -> list[Delivery]:
    """Redis 6.2 answers with None for an entry that was deleted while given out."""
    return [
        Delivery(f"{shard}/{bytes(entry).decode()}", bytes(fields[_FIELD]))
        for entry, fields in entries
        if entry is not None and fields and _FIELD in fields
    ]
