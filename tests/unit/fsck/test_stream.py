"""The checker and the streams: what waits there is not lost, and what is broken there is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakeredis import FakeRedis, FakeServer
from redis import exceptions

from provenance.errors import TransportUnavailable
from provenance.formats.note import SignerKey
from provenance.formats.producers.acknowledgement import sign_acknowledgement
from provenance.formats.record import Kind
from provenance.fsck.findings import FindingKind as F
from provenance.fsck.stream import read_streams
from provenance.settings import redis_address
from tests.support.fsck_world import FIRST, FIRST_PRODUCER, SIGNER, World, changed, event
from tests.support.runs import Producer, run_of

THIRD = run_of(0x0192F0C1AAAA)
URL = "redis://:very-secret@127.0.0.1:1/0"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("sound") / "base")
    world.build()
    return world


@pytest.fixture
def world(sound: World, tmp_path: Path) -> World:
    copied = sound.copied(tmp_path / "base")
    copied.redis_url = URL
    return copied


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    server = FakeServer()
    monkeypatch.setattr("redis.Redis", lambda *_, **__: FakeRedis(server=server))
    return FakeRedis(server=server)


def spooled(world: World) -> Producer:
    producer = Producer(run=THIRD)
    producer.begin()
    world.spool(producer)
    return producer


@pytest.mark.slow
def test_events_that_wait_in_a_stream_are_not_lost(world: World, redis: FakeRedis) -> None:
    producer = spooled(world)
    for at in range(6):
        redis.xadd(f"prov:events:{at % 2}", {"b": producer.batch(at, at + 1)})
    report = world.fsck()
    assert report.findings == ()
    assert report.checked["stream_batches"] == 6
    redis.delete("prov:events:1")
    assert {f.subject.rpartition("/")[2] for f in world.fsck().findings} == {"1", "3", "5"}
    assert {f.kind for f in world.fsck().findings} == {F.EVENT_MISSING}


@pytest.mark.slow
def test_more_entries_than_one_page(world: World, redis: FakeRedis) -> None:
    producer = spooled(world)
    for _ in range(1001):
        redis.xadd("prov:events:0", {"b": producer.batch(0, 1)})
    assert world.fsck().checked["stream_batches"] == 1001


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"b": b"junk"}, {"other": b"x"}, {"b": b"MLPB\x01" + b"0" * 200}]
)
def test_an_entry_that_is_no_batch_is_named(
    world: World, redis: FakeRedis, fields: dict[str, bytes]
) -> None:
    entry = redis.xadd("prov:events:0", fields)  # type: ignore[arg-type]  # wrong or wider on purpose
    (finding,) = world.fsck().findings
    assert finding.kind is F.STREAM_DAMAGED
    assert finding.subject == f"prov:events:0 {entry.decode()}"  # type: ignore[union-attr]  # wrong or wider on purpose


@pytest.mark.slow
def test_another_value_in_the_stream_is_named(world: World, redis: FakeRedis) -> None:
    other = Producer(run=FIRST, name=FIRST_PRODUCER)
    other.add(Kind.DATA_TRAIN, root="another")
    redis.xadd("prov:events:0", {"b": other.batch()})
    (finding,) = world.fsck().findings
    assert finding.kind is F.EVENT_DIFFERS
    assert finding.subject == f"{FIRST}/{FIRST_PRODUCER.hex()}/0"
    assert "stream" in finding.detail


def test_another_value_in_spool_and_stream_is_named(world: World, redis: FakeRedis) -> None:
    producer = Producer(run=THIRD)
    world.spool(producer, [event(producer.name, 0, loss=0.1)])
    producer.add(Kind.METRICS, 9, metrics={"loss": 0.2})
    redis.xadd("prov:events:0", {"b": producer.batch()})
    (finding,) = world.fsck().findings
    assert (finding.kind, "spool" in finding.detail) == (F.EVENT_DIFFERS, True)


def test_acknowledged_events_that_the_database_lost(world: World, redis: FakeRedis) -> None:
    acknowledge(world, redis, SIGNER)
    redis.hset("prov:acked:not-a-run", "zz", b"1")
    assert world.fsck().findings == ()
    world.sql("DELETE FROM records WHERE run=? AND seq=12", FIRST.hex)
    finding = next(f for f in world.fsck().findings if f.kind is F.SEQ_HOLE)
    assert finding.subject == f"{FIRST}/{FIRST_PRODUCER.hex()}/12"
    assert "acknowledged" in finding.detail


def acknowledge(world: World, redis: FakeRedis, signer: SignerKey) -> None:
    """That the database has the first run's 13 records, as it has."""
    (chain,) = world.sql("SELECT chain FROM producers WHERE run=?", FIRST.hex)[0]
    data = sign_acknowledgement(FIRST, FIRST_PRODUCER, 13, chain, signer)
    redis.hset(f"prov:acked:{FIRST}", FIRST_PRODUCER.hex(), data)


def test_an_acknowledgement_that_the_ledger_did_not_sign(world: World, redis: FakeRedis) -> None:
    acknowledge(world, redis, SignerKey.from_private_bytes(SIGNER.name, b"\x0b" * 32))
    (finding,) = world.fsck().findings
    assert finding.kind is F.ACKNOWLEDGEMENT
    assert finding.subject == f"{FIRST}/{FIRST_PRODUCER.hex()}"
    world.key = False
    assert world.fsck().findings == (), "without the ledger's key nobody can tell"


def test_records_that_changed_after_they_were_acknowledged(world: World, redis: FakeRedis) -> None:
    acknowledge(world, redis, SIGNER)
    data = changed(world.record(FIRST, 12), body={"events": 12, "reason": "all is well"})
    world.write_record(FIRST, 12, data, digest=True)
    kinds = {finding.kind for finding in world.fsck().findings}
    assert kinds == {F.ACKNOWLEDGEMENT, F.STATEMENT, F.ENTRY_ROOT}


def test_streams_that_cannot_be_asked_stay_open(world: World) -> None:
    on_its_way = Producer(run=THIRD)
    on_its_way.begin()
    world.spool(on_its_way)
    report = world.fsck()
    assert (report.exit_code, report.findings) == (3, ()), "it may be in the streams"
    assert report.unchecked[0].startswith("Redis at 127.0.0.1:1/0: ")
    assert "very-secret" not in str(report)
    world.redis_url = URL.replace("redis://", "redis+cluster://")
    assert world.fsck().unchecked[0].startswith("Redis at 127.0.0.1:1: RedisClusterException: ")


@pytest.mark.parametrize("error", [exceptions.ResponseError("NOAUTH"), OSError(32, "Broken pipe")])
def test_no_error_of_redis_passes(
    monkeypatch: pytest.MonkeyPatch, redis: FakeRedis, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FakeRedis, "scan_iter", refuse)
    with pytest.raises(TransportUnavailable):
        read_streams(redis_address("redis://host"), None)
