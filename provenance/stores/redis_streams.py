"""RedisStreams: the event transport on Redis Streams (Redis 6.2 or newer).

Keys, all below a prefix (``prov:``, on a Redis Cluster ``{prov}:``)::

    prov:events:<shard>   stream of the runs that fall there; one entry a batch, field ``b``
    prov:acked:<run id>   hash: per producer (32 hex) its acknowledgement, which the ledger's key
                          signs; kept 30 days after the last change
    prov:generation       random id, written with the first append
    prov:ledger           verifier key of the ledger whose workers read the streams
    prov:beacon:<network> the newest block of a network, which the ledger's key signs
    prov:head:<key>       sorted set: the largest head signed by a ledger's key, as a note

Life of a delivery: a script takes the first stream with entries that no other consumer is at
(:data:`~provenance.ports.transport.HOLD_S`) and leaves the rest to other workers. It reads the
generation and entries one by one, until they have enough bytes: whoever may write a stream must not
be able to fill a worker's memory. An entry that no batch can be is cut there. An empty stream whose
ids somebody used up, so that it takes no more entries, is deleted there. Emptied within a
millisecond, a server hands out the same entry ids again, so an acknowledgement and what is
published with it are written by a script that compares the generation: where another one stands
by then, they are dropped, and the entry of that id is left to whoever reads it. Scripts and no
MULTI: a server that is out of memory queues nothing, and deleting what is committed makes room.

Redis is a conveyor here, not a record: it may lose everything at any time. What must hold
is that it says so, so this client never retries by itself, gives every call ``timeout_s``,
and turns every failure into TransportUnavailable, or ConfigError where the credentials or
the URL are at fault. No message carries the password.

Over 400 lines: the scripts, and the one class that runs them.
"""

from __future__ import annotations

import random
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from redis import exceptions

from provenance.errors import ConfigError, TransportUnavailable
from provenance.formats.producers.batch import batch_run
from provenance.ports.transport import CLIPPED_BYTES, HOLD_S, MAX_ENTRY_BYTES, READ_BYTES, Delivery
from provenance.proofs.beacon import MAX_BEACON_BYTES
from provenance.settings import RedisAddress, redis_address

ACKED_TTL_S = 30 * 86400
SHARDS = 16
LOOK_S = 0.2
"""Pause between two looks for new entries."""
T = TypeVar("T")
_FIELD = "b"
_PART = 1000
_PRODUCER = re.compile(rb"[0-9a-f]{32}")
# KEYS: generation, streams. ARGV: group, consumer, count, bytes, longest entry, cut, milliseconds.
# Answers {generation, {{which stream, id, payload, size, deliveries}, ...}, 1 where a stream has
# no group}; an entry without the field has no bytes. TAKE: what is given of one stream.
_GIVE = """
local generation, given, total, missing = redis.call('GET', KEYS[1]), {}, 0, 0
local function wanted() return #given < tonumber(ARGV[3]) and total < tonumber(ARGV[4]) end
local function give(at, entry, deliveries)
  local payload = ''
  for at = 1, #entry[2], 2 do
    if entry[2][at] == 'b' then payload = entry[2][at + 1] end
  end
  local size = #payload
  if size > tonumber(ARGV[5]) then payload = string.sub(payload, 1, tonumber(ARGV[6])) end
  given[#given + 1] = {at - 2, entry[1], payload, size, deliveries}
  total = total + size
end
local function take(at, oldest)
  local stream = KEYS[at]
TAKE
end
for at = 2, #KEYS do
  if #given == 0 then
    local pending = redis.pcall('XPENDING', KEYS[at], ARGV[1], '-', '+', 1)
    if not pending.err then take(at, pending[1])
    elseif string.find(tostring(pending.err), 'NOGROUP') then missing = 1
    else return pending end
  end
end
return {generation, given, missing}
"""
_READ = _GIVE.replace(
    "TAKE",
    """
  if oldest and oldest[2] ~= ARGV[2] and oldest[3] < tonumber(ARGV[7]) then return end
  local before = #given
  while wanted() do
    local answer = redis.call(
      'XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', stream, '>')
    if not answer or not answer[1] then break end
    local entries = answer[2] or answer[1][2]  -- of one stream, nested (RESP2) or not
    give(at, entries[1], 1)
  end
  if #given == before and redis.call('XLEN', stream) == 0 then
    local info = redis.call('XINFO', 'STREAM', stream)
    for at = 1, #info, 2 do
      if info[at] == 'last-generated-id' and info[at + 1] == 'LAST' then
        redis.call('DEL', stream)
      end
    end
  end
""".replace("LAST", f"{2**64 - 1}-{2**64 - 1}"),
)
# XAUTOCLAIM answers with two items or, from Redis 7 on, three; Redis 6.2 with false for an entry
# that was deleted while it was given out.
_CLAIM = _GIVE.replace(
    "TAKE",
    """
  local start = oldest and '0-0'
  while start and wanted() do
    local answer = redis.call(
      'XAUTOCLAIM', stream, ARGV[1], ARGV[2], ARGV[7], start, 'COUNT', 1)
    local entry = answer[2][1]
    if entry and entry[1] then
      local pending = redis.call('XPENDING', stream, ARGV[1], entry[1], entry[1], 1)
      give(at, entry, pending[1] and pending[1][4] or 1)
    end
    start = answer[1] ~= '0-0' and answer[1]
  end
""",
)
# KEYS: streams. ARGV: group. Answers 1 where a stream has an entry that the group was not given.
_WAITING = """
for _, stream in ipairs(KEYS) do
  if redis.call('XLEN', stream) > 0 then
    local given = '0-0'
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local of = {}
      for at = 1, #group, 2 do of[group[at]] = group[at + 1] end
      if of['name'] == ARGV[1] then given = of['last-delivered-id'] end
    end
    if #redis.call('XRANGE', stream, '(' .. given, '+', 'COUNT', 1) > 0 then return 1 end
  end
end
return 0
"""
# KEYS: generation, stream. ARGV: the generation of the entries, the group, their ids.
_ACK = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, 3))
return redis.call('XDEL', KEYS[2], unpack(ARGV, 3))
"""
# The same keys and values. Owner and idle time stay, and the count goes back by one.
_GIVE_BACK = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for at = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[at], ARGV[at], 1)[1]
  if pending and pending[4] > 0 then
    redis.call('XCLAIM', KEYS[2], ARGV[2], pending[2], 0, ARGV[at],
      'IDLE', pending[3], 'RETRYCOUNT', pending[4] - 1, 'JUSTID')
  end
end
return 1
"""
# KEYS: generation, a run's acknowledgements. ARGV: generation, seconds to keep, then producer,
# acknowledgement, ...
_PUBLISH = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return redis.call('EXPIRE', KEYS[2], ARGV[2])
"""
_DENIALS = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_OF_A_CLUSTER = (exceptions.MovedError, exceptions.ClusterCrossSlotError)
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR INVALID PASSWORD")


class RedisStreams:
    """Batches through Redis Streams with one consumer group.

    Args:
        url: See :mod:`provenance.settings.redis_urls`.
        shards: Streams to spread runs over; the same number for shippers and workers. So many
            hashing workers have work at once.
        timeout_s: Of every connect and every answer, in seconds.

    Raises:
        ConfigError: The URL is malformed.
    """

    def __init__(
        self,
        url: str | RedisAddress,
        shards: int = SHARDS,
        group: str = "hashing",
        timeout_s: float = 2.0,
        key_prefix: str = "prov:",
        hold_s: float = HOLD_S,
        client: Any = None,
    ) -> None:
        if shards < 1:
            raise ConfigError("redis_url", f"{shards} shards, expected at least 1")
        self._address = address = redis_address(url) if isinstance(url, str) else url
        self._timeout_s = timeout_s
        if client is not None:
            self._redis = client
        if address.kind == "cluster":  # a script's keys are in one slot: that of what is in braces
            key_prefix = f"{{{key_prefix.rstrip(':')}}}:"
        self._group, self._prefix = group, key_prefix
        self._generation = f"{key_prefix}generation"
        self._streams = [f"{key_prefix}events:{shard}" for shard in range(shards)]
        self._hold_ms = int(hold_s * 1000)
        self._grouped = False
        # A process that is replaced after a few reads begins elsewhere than the one before it.
        self._order = random.sample(range(shards), shards)

    def __repr__(self) -> str:
        return f"RedisStreams({self._address})"

    @cached_property
    def _redis(self) -> Any:
        """Made at the first use: that of a Cluster connects at once."""
        return self._address.client(self._timeout_s)

    def close(self) -> None:
        if "_redis" in self.__dict__:
            self._redis.close()

    # --- shipper's side ---------------------------------------------------------------

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add entries in one pipeline; with none, only the generation is written."""
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(self._generation, secrets.token_hex(16), nx=True)
            for payload in payloads:
                pipe.xadd(self._stream_of(batch_run(payload)), {_FIELD: payload})
            execute(pipe)

    def generation(self) -> str | None:
        with self._translated():
            return _text(self._redis.get(self._generation))

    def acknowledged(self, run: UUID) -> Mapping[bytes, bytes]:
        with self._translated():
            values: Any = self._redis.hgetall(self._acked(run))
        return {
            bytes.fromhex(producer.decode("ascii")): bytes(value)
            for producer, value in values.items()
            if _PRODUCER.fullmatch(producer)
        }

    # --- worker's side ----------------------------------------------------------------

    def read(self, consumer: str, count: int) -> list[Delivery]:
        return self._given(_READ, consumer, count, self._hold_ms)

    def wait(self, seconds: float) -> bool:
        """As the port says, looking every :data:`LOOK_S`. A client that blocks (``XREAD``) would be
        sent the entry, however large."""
        until, keys = time.monotonic() + seconds, len(self._streams)
        while True:
            with self._translated():
                if self._redis.eval(_WAITING, keys, *self._streams, self._group):
                    return True
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_S)

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        return self._given(_CLAIM, consumer, count, int(min_idle_s * 1000))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(_ACK, deliveries)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(_GIVE_BACK, deliveries)

    def _settle(self, script: str, deliveries: Sequence[Delivery]) -> None:
        """Run a script on the entries of each stream."""
        entries: dict[str | None, dict[str, list[str]]] = {}
        for delivery in deliveries:
            shard, _, entry = delivery.id.partition("/")
            by_stream = entries.setdefault(delivery.generation, {})
            by_stream.setdefault(self._streams[int(shard)], []).append(entry)
        with self._translated():
            for generation, by_stream in entries.items():
                for stream, ids in by_stream.items():
                    for part in _parts(ids):
                        self._run(script, stream, generation, self._group, *part)

    def publish_acknowledged(
        self, run: UUID, acknowledgements: Mapping[bytes, bytes], generation: str | None
    ) -> None:
        with self._translated():
            for part in _parts(list(acknowledgements.items())):
                pairs = [item for producer, data in part for item in (producer.hex(), data)]
                self._run(_PUBLISH, self._acked(run), generation, ACKED_TTL_S, *pairs)

    def beacon(self, network: str) -> bytes | None:
        with self._translated():
            found: Any = self._redis.getrange(
                f"{self._prefix}beacon:{network}", 0, MAX_BEACON_BYTES
            )
        return bytes(found) or None

    def publish_beacon(self, network: str, beacon: bytes) -> None:
        with self._translated():
            self._redis.set(f"{self._prefix}beacon:{network}", beacon)

    def newest_head(self, key: str) -> str | None:
        with self._translated():
            newest: Any = self._redis.zrange(f"{self._prefix}head:{key}", -1, -1)
        return bytes(newest[0]).decode("utf-8", "replace") if newest else None

    def remember_head(self, key: str, size: int, note: str) -> None:
        name = f"{self._prefix}head:{key}"
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(name, {note: size})
            pipe.zremrangebyrank(name, 0, -2)
            execute(pipe)

    # --- either -----------------------------------------------------------------------

    def backlog(self, run: UUID | None = None) -> int:
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            for stream in self._streams if run is None else [self._stream_of(run.bytes)]:
                pipe.xlen(stream)
            return sum(execute(pipe))

    def ledger(self, claim: str | None = None) -> str | None:
        key = f"{self._prefix}ledger"
        with self._translated():
            if (found := self._redis.get(key)) is None and claim is not None:
                with suppress(exceptions.OutOfMemoryError):  # what makes room must go on
                    self._redis.set(key, claim, nx=True)
                    found = self._redis.get(key)
            return _text(found)

    def ping(self) -> None:
        with self._translated():
            self._redis.ping()

    # --- inside -----------------------------------------------------------------------

    def _acked(self, run: UUID) -> str:
        return f"{self._prefix}acked:{run}"

    def _stream_of(self, run: bytes) -> str:
        return self._streams[zlib.crc32(run) % len(self._streams)]

    def _given(self, script: str, consumer: str, count: int, milliseconds: int) -> list[Delivery]:
        """Run a script that gives out entries of one stream, another one first each time, so that
        none starves. The groups are in place: a server that was emptied has lost them."""
        self._order = shards = [*self._order[1:], self._order[0]]
        words: list[str | int] = [self._generation, *(self._streams[shard] for shard in shards)]
        words += [self._group, consumer, count, READ_BYTES, MAX_ENTRY_BYTES, CLIPPED_BYTES]

        def call() -> Any:
            return self._redis.eval(script, len(shards) + 1, *words, milliseconds)

        with self._translated():
            if not self._grouped:
                self._create_groups()
            answer = call()
            if answer[2]:
                self._create_groups()
                answer = answer if answer[1] else call()
        generation = _text(answer[0])
        return [
            Delivery(
                f"{shards[at]}/{bytes(entry).decode()}", bytes(payload), generation, size, times
            )
            for at, entry, payload, size, times in answer[1]
        ]

    def _run(
        self, script: str, key: str, generation: str | None, *arguments: str | int | bytes
    ) -> None:
        """Run a script on a key, if the server has this generation."""
        self._redis.eval(script, 2, self._generation, key, generation or "", *arguments)

    def _create_groups(self) -> None:
        for stream in self._streams:
            try:
                self._redis.xgroup_create(stream, self._group, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._grouped = True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, exceptions.RedisClusterException) as error:
            of_a_cluster = isinstance(error, exceptions.RedisClusterException)
            told = error.__cause__ if of_a_cluster and error.__cause__ else error
            text = " ".join(str(told).split()).partition(" : <")[0]  # Sentinels print their clients
            where = f"Redis at {self._address}"
            denied = text.upper().startswith(_DENIED) or "can't run this command" in text
            if denied or isinstance(told, _DENIALS):
                problem = (
                    "refuses the user or password, or the rights they give; "
                    "expected redis://user:password@host:port/db"
                )
                raise self._wrong(f"{where} {problem}") from error
            if self._address.kind != "cluster" and isinstance(told, _OF_A_CLUSTER):
                expected = "expected redis+cluster://host:port,host:port"
                raise self._wrong(f"{where} is a node of a Cluster, {expected}") from error
            kind = type(told).__name__
            raise TransportUnavailable(f"{where}: {kind}: {text[:200]}") from error
        except OSError as error:
            raise TransportUnavailable(f"Redis at {self._address}: {error.strerror}") from error

    def _wrong(self, problem: str) -> ConfigError:
        return ConfigError(self._address.key, problem, self._address.source)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in parts that Lua's ``unpack`` takes: it fails at some 8,000 values."""
    for at in range(0, len(items), _PART):
        yield items[at : at + _PART]


def execute(pipe: Any) -> list[Any]:
    """Run a pipeline; the client's own message would quote the command, and so the records."""
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _text(value: Any) -> str | None:
    return None if value is None else bytes(value).decode("ascii", "replace")
