"""One suite for every EventTransport: in memory, fakeredis, a real Redis server.

Over 400 lines: one suite for one interface.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import fakeredis
import pytest
import redis

from provenance.capture.keys import new_run_keys
from provenance.errors import ConfigError, ProvenanceError, TransportUnavailable
from provenance.formats.producers.batch import batch_run, sign_batch
from provenance.formats.producers.statement import chain_start
from provenance.ports.transport import (
    CLIPPED_BYTES,
    HOLD_S,
    MAX_ENTRY_BYTES,
    READ_BYTES,
    Delivery,
    EventTransport,
)
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_streams import RedisStreams

RUN = new_run_keys().run
FIRST, SECOND = bytes(range(16)), bytes(range(16, 32))


class Bench:
    """A transport, another client of the same server, a way to empty the server, one to append
    an entry under the id of a former one, and one to append an entry that has no batch."""

    def __init__(
        self,
        make: Callable[..., EventTransport],
        lose_everything: Callable[[], None],
        append_as: Callable[[str, bytes], None],
        append_foreign: Callable[[], None],
    ) -> None:
        self.make, self.lose_everything, self.append_as = make, lose_everything, append_as
        self.append_foreign = append_foreign
        self.transport = make()


def redis_bench(client: Any, **options: Any) -> Bench:
    prefix = f"test-{secrets.token_hex(6)}:"

    def make(**more: Any) -> EventTransport:
        return RedisStreams("redis://x", key_prefix=prefix, client=client, **(options | more))

    def lose() -> None:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)

    def append_as(wanted: str, payload: bytes) -> None:
        shard, _, entry = wanted.partition("/")
        make().append([])
        client.xadd(f"{prefix}events:{shard}", {"b": payload}, id=entry)

    def append_foreign() -> None:
        client.xadd(f"{prefix}events:0", {"x": "y"})

    return Bench(make, lose, append_as, append_foreign)


@pytest.fixture(params=["memory", "fakeredis", "redis", "redis-3-shards"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        one = MemoryTransport()

        def same(hold_s: float = HOLD_S) -> EventTransport:
            one._hold_s = hold_s
            return one

        yield Bench(
            same,
            one.lose_everything,
            lambda _, payload: one.append([payload]),
            lambda: one.append([b""]),
        )
        return
    if request.param == "fakeredis":
        client: Any = fakeredis.FakeRedis()
    else:
        client = redis.Redis.from_url(request.getfixturevalue("redis_url"), protocol=2)
    shards = 3 if request.param.endswith("shards") else 1
    made = redis_bench(client, shards=shards)
    yield made
    made.lose_everything()
    client.close()


def payloads(*numbers: int) -> list[bytes]:
    return [b"payload of some batch, number %d" % n for n in numbers]


def read_all(transport: EventTransport, consumer: str = "a") -> list[bytes]:
    found = []
    while deliveries := transport.read(consumer, 3):
        assert len(deliveries) <= 3
        found += [d.payload for d in deliveries]
    return found


def test_entries_arrive_once_and_in_order(bench: Bench) -> None:
    bench.transport.append(payloads(0, 1))
    bench.transport.append(payloads(2, 3, 4))
    assert read_all(bench.transport) == payloads(0, 1, 2, 3, 4)
    assert read_all(bench.transport) == []


def test_reading_an_empty_transport_does_not_block(bench: Bench) -> None:
    assert bench.transport.read("a", 10) == []
    assert bench.transport.claim_stale("a", 0.0, 10) == []
    assert bench.transport.backlog() == 0
    bench.transport.ping()


def test_waiting_ends_with_an_entry_that_nobody_was_given(bench: Bench) -> None:
    assert not bench.transport.wait(0.02)
    bench.transport.append(payloads(0))
    assert bench.transport.wait(0.02)
    (given,) = bench.transport.read("a", 1)
    assert not bench.make().wait(0.02), "given, and not acknowledged"
    bench.transport.ack([given])
    assert not bench.transport.wait(0.02)
    later = threading.Timer(0.1, bench.make().append, [payloads(1)])
    later.start()
    assert bench.transport.wait(5.0)
    later.join()
    bench.lose_everything()
    assert not bench.transport.wait(0.02)
    bench.make().append(payloads(2))
    assert bench.transport.wait(0.02)


def test_the_first_ledger_that_claims_the_streams_has_them(bench: Bench) -> None:
    assert bench.transport.ledger() is None
    assert bench.transport.ledger("one") == "one"
    assert bench.make().ledger("another") == "one"
    bench.lose_everything()
    assert bench.transport.ledger() is None


def test_the_newest_block_of_a_network_is_what_was_published_last(bench: Bench) -> None:
    assert bench.transport.beacon("bitcoin") is None
    bench.transport.publish_beacon("bitcoin", b"one")
    bench.transport.publish_beacon("bitcoin", b"two")
    bench.transport.publish_beacon("ethereum", b"other")
    assert bench.make().beacon("bitcoin") == b"two"
    assert bench.make().beacon("ethereum") == b"other"
    bench.lose_everything()
    assert bench.transport.beacon("bitcoin") is None


def test_what_is_left_of_a_run_is_for_whoever_has_some_of_it(bench: Bench) -> None:
    bench.transport.append(payloads(*range(4)))
    other = bench.make()
    first = bench.transport.read("a", 2)
    assert [d.payload for d in first] == payloads(0, 1)
    assert other.read("b", 2) == []
    assert [d.payload for d in bench.transport.read("a", 1)] == payloads(2)
    bench.transport.ack(bench.transport.claim_stale("a", 0.0, 9))
    assert [d.payload for d in other.read("b", 9)] == payloads(3)


def test_a_consumer_that_ends_holds_the_rest_for_a_while_only(bench: Bench) -> None:
    bench.transport.append(payloads(*range(4)))
    transport = bench.make(hold_s=0.05)
    transport.read("dead", 2)
    time.sleep(0.1)
    assert [d.payload for d in transport.read("b", 9)] == payloads(2, 3)


def test_acknowledged_entries_are_gone_others_stay(bench: Bench) -> None:
    bench.transport.append(payloads(0, 1, 2))
    deliveries = bench.transport.read("a", 3)
    bench.transport.ack(deliveries[:2])
    assert bench.transport.backlog() == 1
    bench.transport.ack(deliveries[:2])
    bench.transport.ack([])
    (left,) = bench.transport.claim_stale("b", 0.0, 10)
    assert left == deliveries[2]


def test_deliveries_are_counted(bench: Bench) -> None:
    bench.transport.append(payloads(1, 2))
    assert [d.deliveries for d in bench.transport.read("a", 1)] == [1]
    for count in (2, 3):
        (again,) = bench.transport.claim_stale("b", 0.0, 10)
        assert (again.payload, again.deliveries) == (payloads(1)[0], count)
    assert [d.deliveries for d in bench.transport.read("b", 9)] == [1]


def test_a_read_ends_with_the_entry_that_fills_it(bench: Bench) -> None:
    large = [payloads(7)[0] + bytes(READ_BYTES // 2)] * 5
    bench.transport.append(large)
    read = [len(bench.transport.read("a", 9)) for _ in range(4)]
    assert read == [2, 2, 1, 0]
    assert len(bench.transport.claim_stale("b", 0.0, 9)) == 2


def test_what_no_batch_can_be_is_cut_and_its_size_told(bench: Bench) -> None:
    bench.transport.append([payloads(7)[0] + bytes(MAX_ENTRY_BYTES), payloads(8)[0]])
    (cut,) = bench.transport.read("a", 9)
    assert cut.payload.startswith(payloads(7)[0])
    assert len(cut.payload) == CLIPPED_BYTES
    assert cut.size == MAX_ENTRY_BYTES + len(payloads(7)[0])
    (again,) = bench.transport.claim_stale("b", 0.0, 1)
    assert (again.size, len(again.payload)) == (cut.size, CLIPPED_BYTES)
    bench.transport.ack([cut])
    assert read_all(bench.transport) == payloads(8)


def test_an_entry_without_a_batch_is_given_as_others_are_and_goes(bench: Bench) -> None:
    for _ in range(3):
        bench.append_foreign()
    bench.transport.append(payloads(1))
    bench.append_foreign()
    given = bench.transport.read("a", 9)
    given += bench.transport.read("a", 9)  # of another shard
    assert sorted(d.payload for d in given) == [b""] * 4 + payloads(1)
    assert {d.size for d in given if not d.payload} == {0}
    bench.transport.ack(given[1:])
    (again,) = bench.transport.claim_stale("b", 0.0, 9)
    assert (again, again.deliveries) == (given[0], 2)
    bench.transport.ack([again])
    assert bench.transport.backlog() == 0


def test_abandoned_entries_without_a_batch_hide_no_other(bench: Bench) -> None:
    for _ in range(5):
        bench.append_foreign()
    bench.transport.append(payloads(1))
    while bench.transport.read("dead", 9):
        pass  # a shard at a time
    found = []
    while given := bench.transport.claim_stale("b", 0.0, 1):
        found += [d.payload for d in given]
        bench.transport.ack(given)
    assert sorted(found) == [b""] * 5 + payloads(1)


def test_stale_entries_are_taken_over_fresh_ones_not(bench: Bench) -> None:
    bench.transport.append(payloads(*range(7)))
    given = bench.transport.read("dead", 7)
    assert bench.transport.claim_stale("b", 3600.0, 10) == []
    taken = bench.transport.claim_stale("b", 0.0, 5)
    assert len(taken) == 5
    assert {d.id for d in taken} <= {d.id for d in given}
    assert {d.payload for d in bench.transport.claim_stale("c", 0.0, 50)} == set(
        payloads(*range(7))
    )


def test_what_is_given_back_counts_as_before_and_comes_as_it_would(bench: Bench) -> None:
    bench.transport.append(payloads(1, 2))
    (first,) = bench.transport.read("a", 1)
    bench.transport.give_back([first])
    assert bench.transport.claim_stale("b", 3600.0, 9) == []
    for _ in range(3):
        (again,) = bench.transport.claim_stale("b", 0.0, 9)
        assert (again, again.deliveries) == (first, 1)
        bench.transport.give_back([again])
    assert bench.transport.claim_stale("b", 0.0, 9)[0].deliveries == 1
    (counted,) = bench.transport.claim_stale("c", 0.0, 9)
    assert counted.deliveries == 2
    bench.transport.ack([counted])
    bench.transport.give_back([counted])
    assert bench.transport.backlog() == 1
    assert bench.make(hold_s=0.0).read("a", 9)[0].payload == payloads(2)[0]


def test_what_a_lost_server_delivered_is_not_given_back_in_the_next(bench: Bench) -> None:
    bench.transport.append(payloads(1))
    (lost,) = bench.transport.read("a", 1)
    bench.lose_everything()
    bench.append_as(lost.id, b"payload of some batch, number 2")
    bench.transport.read("b", 1)
    bench.make().give_back([lost])
    assert bench.transport.claim_stale("c", 0.0, 9)[0].deliveries == 2


def test_what_nobody_was_given_is_not_stale(bench: Bench) -> None:
    bench.transport.append(payloads(1))
    assert bench.transport.claim_stale("b", 0.0, 10) == []


def test_large_payloads_of_any_bytes(bench: Bench) -> None:
    large = secrets.token_bytes(2_000_000)
    bench.transport.append([large, b"\0\r\n$"])
    assert sorted(read_all(bench.transport)) == sorted([large, b"\0\r\n$"])


def test_generation_begins_with_the_first_append_and_stays(bench: Bench) -> None:
    assert bench.transport.generation() is None
    bench.transport.append([])
    first = bench.transport.generation()
    assert first
    bench.transport.append(payloads(1))
    assert bench.transport.generation() == first
    assert bench.make().generation() == first
    assert bench.transport.backlog() == 1


def test_of_the_heads_under_a_key_the_largest_is_kept(bench: Bench) -> None:
    assert bench.transport.newest_head("aa") is None
    bench.transport.remember_head("aa", 9, "nine\n\u2014 x\n")
    bench.transport.remember_head("aa", 10, "ten")
    bench.transport.remember_head("aa", 2, "two")
    bench.transport.remember_head("bb", 3, "three")
    assert bench.transport.newest_head("aa") == "ten"
    assert bench.make().newest_head("bb") == "three"


def test_a_server_that_lost_its_data_has_another_generation_and_works(bench: Bench) -> None:
    bench.transport.append(payloads(1))
    before = bench.transport.generation()
    (lost,) = bench.transport.read("a", 1)
    bench.lose_everything()
    assert bench.transport.generation() is None
    assert bench.transport.claim_stale("a", 0.0, 10) == []
    bench.transport.append(payloads(2))
    assert bench.transport.generation() not in (None, before)
    bench.transport.ack([lost])
    assert read_all(bench.transport) == payloads(2)


def test_a_late_acknowledgement_leaves_the_next_generation_alone(bench: Bench) -> None:
    bench.transport.append(payloads(1))
    (lost,) = bench.transport.read("a", 1)
    bench.lose_everything()
    bench.append_as(lost.id, b"payload of some batch, number 2")
    late = bench.make()
    late.ack([lost])
    late.publish_acknowledged(RUN, {FIRST: b"1"}, lost.generation)
    assert bench.transport.backlog() == 1
    (new,) = bench.transport.read("b", 1)
    assert (new.id, new.payload) == (lost.id, b"payload of some batch, number 2")
    assert new.generation == bench.transport.generation() != lost.generation
    late.ack([lost])
    assert bench.transport.claim_stale("c", 0.0, 10) == [new]
    late.ack([lost, new])
    assert bench.transport.backlog() == 0
    assert bench.transport.acknowledged(RUN) == {}
    bench.transport.publish_acknowledged(RUN, {FIRST: b"1"}, new.generation)
    assert bench.transport.acknowledged(RUN) == {FIRST: b"1"}


def test_the_last_acknowledgement_of_each_producer_stands(bench: Bench) -> None:
    assert bench.transport.acknowledged(RUN) == {}
    bench.transport.publish_acknowledged(RUN, {FIRST: b"5", SECOND: b"\0"}, None)
    bench.transport.publish_acknowledged(RUN, {FIRST: bytes(range(104))}, None)
    bench.transport.publish_acknowledged(RUN, {}, None)
    assert bench.make().acknowledged(RUN) == {FIRST: bytes(range(104)), SECOND: b"\0"}
    assert bench.transport.acknowledged(UUID(int=1)) == {}


# --- Redis alone -------------------------------------------------------------------------


@pytest.fixture
def streams(redis_url: str) -> Iterator[RedisStreams]:
    client = redis.Redis.from_url(redis_url, protocol=2)
    prefix = f"test-{secrets.token_hex(6)}:"
    yield RedisStreams(redis_url, key_prefix=prefix, shards=4)
    for key in client.scan_iter(f"{prefix}*"):
        client.delete(key)
    client.close()


def test_one_run_stays_in_one_shard(streams: RedisStreams) -> None:
    used = set()
    for _ in range(24):
        keys = new_run_keys()
        signer = keys.producer(FIRST, 0)
        chain = chain_start(keys.run, FIRST)
        batches = [sign_batch(*signer, seq, chain, [b"%d" % seq]) for seq in range(5)]
        streams.append(batches)
        shards = {d.id.partition("/")[0] for d in streams.read("a", 50)}
        assert len(shards) == 1
        used |= shards
    assert len(used) > 1


def test_no_shard_starves(streams: RedisStreams) -> None:
    many = [bytes(8) + secrets.token_bytes(16) for _ in range(64)]
    streams.append(many)
    shards = {streams.read("a", 1)[0].id.partition("/")[0] for _ in range(4)}
    assert len(shards) == 4


def test_no_shard_starves_where_a_worker_is_replaced_after_each_read(
    streams: RedisStreams, redis_url: str
) -> None:
    streams.append([bytes(8) + secrets.token_bytes(16) for _ in range(400)])
    shards = set()
    for _ in range(80):
        worker = RedisStreams(redis_url, key_prefix=streams._prefix, shards=4)
        shards.add(worker.read("a", 1)[0].id.partition("/")[0])
        worker.close()
    assert len(shards) == 4


def test_the_backlog_of_a_run_is_that_of_its_stream(streams: RedisStreams) -> None:
    runs = [UUID(bytes=secrets.token_bytes(16)) for _ in range(40)]
    streams.append([bytes(8) + run.bytes for run in runs])
    read = {UUID(bytes=batch_run(each.payload)) for each in streams.read("a", 100)}
    assert (streams.backlog(), {streams.backlog(run) for run in read}) == (40, {len(read)})


def test_acknowledgements_expire(streams: RedisStreams, redis_url: str) -> None:
    streams.publish_acknowledged(RUN, {FIRST: b"1"}, None)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        assert 0 < client.ttl(streams._acked(RUN)) <= 30 * 86400


def test_more_acknowledgements_than_a_script_takes_at_once(streams: RedisStreams) -> None:
    counts = {number.to_bytes(16, "big"): b"%d" % number for number in range(5000)}
    streams.publish_acknowledged(RUN, counts, None)
    assert streams.acknowledged(RUN) == counts


def test_strangers_among_the_acknowledgements_are_ignored(
    streams: RedisStreams, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.hset(streams._acked(RUN), mapping={"not hex": 3, "ab" * 16: 4})
    assert streams.acknowledged(RUN) == {bytes([0xAB]) * 16: b"4"}


def test_a_server_emptied_during_an_acknowledgement(
    streams: RedisStreams, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last moment: what compares the generation writes in the same script."""
    streams.append(payloads(1))
    (lost,) = streams.read("a", 1)
    stream, entry = streams._stream_of(batch_run(payloads(1)[0])), lost.id.partition("/")[2]
    real = redis.Redis.eval
    with redis.Redis.from_url(redis_url, protocol=2) as client:

        def emptied(server: Any, *arguments: Any) -> Any:
            client.delete(stream, streams._generation)
            streams.append([])
            client.xadd(stream, {"b": b"payload of some batch, number 2"}, id=entry)
            return real(server, *arguments)

        monkeypatch.setattr(redis.Redis, "eval", emptied)
        streams.ack([lost])
        streams.publish_acknowledged(RUN, {FIRST: b"1"}, lost.generation)
    monkeypatch.undo()
    assert streams.acknowledged(RUN) == {}
    assert [d.payload for d in streams.read("a", 9)] == [b"payload of some batch, number 2"]


SECRET = "hunter2-pass"
CALLS: list[Callable[[EventTransport], object]] = [
    lambda t: t.append([b"x"]),
    lambda t: t.read("a", 1),
    lambda t: t.claim_stale("a", 0.0, 1),
    lambda t: t.ack([Delivery("0/1-1", b"")]),
    lambda t: t.give_back([Delivery("0/1-1", b"")]),
    lambda t: t.backlog(),
    lambda t: t.acknowledged(RUN),
    lambda t: t.publish_acknowledged(RUN, {FIRST: b"1"}, None),
    lambda t: t.generation(),
    lambda t: t.ping(),
]
ERRORS: list[tuple[Exception, type[ProvenanceError]]] = [
    (redis.ConnectionError(f"no: {SECRET[:3]}"), TransportUnavailable),
    (redis.TimeoutError("timeout"), TransportUnavailable),
    (redis.BusyLoadingError("LOADING"), TransportUnavailable),
    (redis.ReadOnlyError("READONLY"), TransportUnavailable),
    (redis.OutOfMemoryError("OOM command not allowed"), TransportUnavailable),
    (redis.ResponseError("OOM command not allowed"), TransportUnavailable),
    (redis.ResponseError("MISCONF"), TransportUnavailable),
    (redis.exceptions.ClusterDownError("CLUSTERDOWN"), TransportUnavailable),
    (redis.exceptions.InvalidResponse("?"), TransportUnavailable),
    (ConnectionResetError(104, "Connection reset by peer"), TransportUnavailable),
    (redis.AuthenticationError("WRONGPASS"), ConfigError),
    (redis.exceptions.NoPermissionError("NOPERM"), ConfigError),
    (redis.exceptions.AuthenticationWrongNumberOfArgsError("wrong"), ConfigError),
    (redis.ResponseError("NOAUTH Authentication required."), ConfigError),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=lambda v: str(v)[:40])
def test_no_error_of_the_library_passes(
    error: Exception, expected: type[ProvenanceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = fakeredis.FakeRedis()
    transport = RedisStreams(f"redis://:{SECRET}@h:1/2", client=client)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(client, "execute_command", refuse)
    monkeypatch.setattr(redis.client.Pipeline, "execute", refuse)
    for call in CALLS:
        with pytest.raises(expected) as caught:
            call(transport)
        assert SECRET not in str(caught.value)
        assert "h:1/2" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_full_server_is_unavailable_and_its_message_quotes_no_record(redis_url: str) -> None:
    prefix = f"test-{secrets.token_hex(6)}:"
    transport = RedisStreams(redis_url, key_prefix=prefix)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(TransportUnavailable, match="maxmemory") as caught:
                transport.append([b"a record's bytes"])
            transport.ping()
        finally:
            client.config_set("maxmemory", before)
    assert "record" not in str(caught.value)
    transport.append([b"again"])
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.delete(*client.scan_iter(f"{prefix}*"))


def test_a_dead_server_is_unavailable_and_retried_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = []
    real: Any = redis.connection.Connection._connect

    def connect(self: Any) -> Any:
        attempts.append(1)
        return real(self)

    monkeypatch.setattr(redis.connection.Connection, "_connect", connect)
    transport = RedisStreams(f"redis://:{SECRET}@127.0.0.1:1/0", timeout_s=0.5)
    for call in CALLS:
        attempts.clear()
        with pytest.raises(TransportUnavailable, match=r"127\.0\.0\.1:1"):
            call(transport)
        assert len(attempts) == 1
    transport.close()


@pytest.mark.parametrize("url", [f"http://:{SECRET}@h", f"redis://:{SECRET}@h:port", "nonsense"])
def test_a_malformed_url_is_a_config_error_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStreams(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_whoever_waits_is_sent_no_entry(redis_url: str) -> None:
    """A stranger's may be as large as the server takes."""
    with redis.Redis.from_url(redis_url) as client:
        bench = redis_bench(client)

        def sent() -> int:
            return int(client.info("stats")["total_net_output_bytes"])

        bench.transport.append([bytes(4 * MAX_ENTRY_BYTES)])
        before = sent()
        assert bench.transport.wait(0.0)
        assert sent() - before < 100_000
        bench.lose_everything()


def test_a_cluster_without_a_node_that_answers_is_unavailable() -> None:
    for call in CALLS:
        with pytest.raises(TransportUnavailable, match="^Redis at 127.0.0.1:1: "):
            call(RedisStreams(f"redis+cluster://:{SECRET}@127.0.0.1:1"))


def test_no_shards_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        RedisStreams("redis://h", shards=0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{SECRET}@host/3", "host:6379/3"),
        (f"rediss://:{SECRET}@[::1]:7000/0", "[::1]:7000/0"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_repr_shows_the_place_only(url: str, shown: str) -> None:
    assert repr(RedisStreams(url, client=fakeredis.FakeRedis())) == f"RedisStreams({shown})"


def test_a_memory_transport_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport()
    transport.unavailable = True
    for call in CALLS:
        with pytest.raises(TransportUnavailable):
            call(transport)


def test_an_entry_that_was_deleted_while_it_was_given_out_is_passed_over(
    streams: RedisStreams, redis_url: str
) -> None:
    streams.append(payloads(1, 2))
    first, second = streams.read("dead", 2)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.xdel(streams._stream_of(batch_run(payloads(1)[0])), first.id.partition("/")[2])
    assert streams.claim_stale("a", 0.0, 5) == [second]
