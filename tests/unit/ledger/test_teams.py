"""Quotas and trainers of teams: what may not come in waits in its spool, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry

from provenance import ProvenanceTracker, cli
from provenance.app.run_list import list_runs
from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from provenance.formats.note import SignerKey
from provenance.formats.producers.acknowledgement import GATE
from provenance.formats.producers.certificate import sign_identity
from provenance.formats.record import Kind
from provenance.ledger import teams as teams_module
from provenance.ledger.ingest import drain, release_held
from provenance.ledger.teams import DAY_S, EARLY_RETRY_S
from provenance.observe.collector import Figures
from provenance.operations import words
from provenance.operations.overview import overview
from provenance.ports.listing import Wanted
from provenance.ports.transport import EventTransport
from provenance.settings import load
from provenance.settings.key_files import read_or_create_seed
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_streams import RedisStreams
from tests.faults.support.by_hand import anchor
from tests.support.runs import Producer, run_of

NOW = 20_000.0 * DAY_S + 3600


class Deployment:
    """A spool with its shipper, the transport, and a worker that is called by hand."""

    def __init__(
        self, base: Path, transport: EventTransport, redis_url: str | None = None, **config: Any
    ) -> None:
        self.base, self.now, self.redis_url = base, NOW, redis_url
        self.settings = load(config, base)
        self.store = sending.open_store(self.settings)
        self.policy = sending.seal_policy(self.settings)
        self.transport = transport
        keys = [self.policy.signer.verifier.public_bytes]
        self.shipper = Shipper(base / "spool", self.transport, ledger_keys=lambda: keys)

    def configure(self, **config: Any) -> None:
        self.policy = replace(self.policy, teams=sending.seal_policy(load(config, self.base)).teams)

    def begin(self, team: str | None, **config: Any) -> ProvenanceTracker:
        own = config if team is None else {"team": team, **config}
        tracker = ProvenanceTracker(self.base, own)
        tracker.store_merkle_on_blockchain_before_training({"lr": 0.1})
        tracker.track_epoch(1, {"loss": 0.5})
        return tracker

    def finish(self, tracker: ProvenanceTracker) -> UUID:
        tracker.store_merkle_on_blockchain_after_training({"loss": 0.1})
        return UUID(tracker.run_id)

    def turn(self, times: int = 3) -> None:
        """As it goes on by itself: shipped, ingested, swept."""
        for _ in range(times):
            self.shipper.run_once()
            drain(self.transport, self.store, self.policy, "one", lambda: self.now)
            release_held(self.transport, self.store, self.policy, self.now)

    def send(self, *batches: bytes) -> None:
        """Made by hand, without a shipper."""
        self.transport.append(batches)
        drain(self.transport, self.store, self.policy, "one", lambda: self.now)

    def sealed(self) -> set[UUID]:
        with self.store.snapshot() as tx:
            return {row.run for row in tx.runs() if row.state == "sealed"}

    def reasons(self) -> Mapping[UUID, str]:
        with self.store.snapshot() as tx:
            rows = [row for who in tx.held_counts() for row in tx.held_runs(*who, 9)]
        return {row.run: row.reason for row in rows}

    def fsck(self) -> int:
        anchor(self.settings)
        with pytest.MonkeyPatch.context() as patch:
            if self.redis_url is not None:  # else trackers would start shippers of their own
                patch.setenv("PROVENANCE_REDIS_URL", self.redis_url)
            return cli.main(["fsck", "--base-dir", str(self.base)])


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    yield from opened(tmp_path / "artifacts", MemoryTransport())


@pytest.fixture
def beside_redis(tmp_path: Path, redis_url: str) -> Iterator[Deployment]:
    own = f"{redis_url.rpartition('/')[0]}/9"
    with redis.Redis.from_url(own) as client:
        client.flushdb()
    yield from opened(tmp_path / "artifacts", RedisStreams(own), redis_url=own)


def opened(base: Path, transport: EventTransport, **more: Any) -> Iterator[Deployment]:
    made = Deployment(base, transport, teams={"vision": {"runs_per_day": 2}}, **more)
    yield made
    made.shipper.close()
    made.store.close()
    transport.close()


@pytest.mark.slow
@pytest.mark.nodes
def test_what_is_above_a_quota_waits_in_the_spool_and_another_team_does_not(
    beside_redis: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = beside_redis
    flood = [deployment.finish(deployment.begin("vision")) for _ in range(5)]
    others = [deployment.finish(deployment.begin(team)) for team in ("speech", None)]
    deployment.turn()
    done = deployment.sealed()
    assert set(others) < done
    assert len(done & set(flood)) == 2
    held = deployment.reasons()
    assert held.keys() == set(flood) - done
    assert set(held.values()) == {"team vision: 2 runs today, quota 2"}
    assert deployment.transport.backlog() == 0, "a run that waits is in no other's way"
    with deployment.store.snapshot() as tx:
        assert tx.parked() == []
    lines = list(words.notes(overview(deployment.settings, Wanted(NOW))))
    (line,) = [line for line in lines if line.startswith("team vision: ")]
    assert line.startswith("team vision: 2 runs of 2, ")
    assert line.endswith(" today; 3 runs held back: team vision: 2 runs today, quota 2")
    registry = CollectorRegistry()
    registry.register(Figures(deployment.settings))
    for name, labels, number in (
        ("team_held_runs", {"team": "vision"}, 3),
        ("team_held_runs", {"team": ""}, 0),
        ("team_quota", {"team": "vision", "of": "runs"}, 2),
        ("team_used", {"team": "speech", "of": "runs"}, None),
    ):
        assert registry.get_sample_value(f"provenance_{name}", labels) == number
    later = deployment.finish(deployment.begin("speech"))
    deployment.turn()
    assert later in deployment.sealed()
    capsys.readouterr()
    assert deployment.fsck() == 0, capsys.readouterr().out
    assert "18 events held back" in capsys.readouterr().out

    deployment.configure(teams={"vision": {"runs_per_day": 3}})
    deployment.turn(6)
    assert len(deployment.sealed() & set(flood)) == 3
    assert len(deployment.reasons()) == 2
    deployment.now += DAY_S
    deployment.turn(6)
    assert deployment.sealed() == {*flood, *others, later}
    assert deployment.reasons() == {}
    assert deployment.shipper.run_once().pending == 0
    assert not list((deployment.base / "spool").glob("*/*.seg")), "all of it is committed"
    assert deployment.fsck() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_quota_of_bytes_stops_a_run_on_its_way_and_no_sweep_calls_it_lost(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.configure(teams={"vision": {"bytes_per_day": "1kB"}})
    tracker = deployment.begin("vision")
    deployment.turn()
    run = UUID(tracker.run_id)
    for epoch in range(2, 9):
        tracker.track_epoch(epoch, {"loss": 1 / epoch})
    deployment.turn()
    with deployment.store.snapshot() as tx:
        (use,) = tx.team_use(int(NOW // DAY_S)).values()
        assert use.runs == 1
        assert use.nbytes >= 1000
        assert deployment.reasons() == {run: f"team vision: {use.nbytes} bytes today, quota 1000"}
        assert tx.awaiting_seal(idle_since=NOW + DAY_S) == []
        late = Wanted(NOW + DAY_S, lost_after_s=10)
        assert [item.ending.state for item in list_runs(tx, late)[0]] == ["running"]
        assert tx.run_states(late) == {"running": 1}
        assert {record.epoch for record in tx.records(run)} == {None, 1}
    deployment.now += DAY_S
    deployment.turn()
    deployment.finish(tracker)
    deployment.now += DAY_S
    deployment.turn(6)
    assert deployment.sealed() == {run}
    with deployment.store.snapshot() as tx:
        assert {record.epoch for record in tx.records(run)} == {None, *range(1, 9)}
    assert deployment.fsck() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_a_team_with_trainers_is_signed_by_one_of_them(
    deployment: Deployment, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.key" for name in ("ann", "bob")}
    seeds = {name: read_or_create_seed(path) for name, path in paths.items()}
    own: Any = {
        "trust": {
            "trainers": {
                name: SignerKey.from_private_bytes(name, seed).verifier.public_bytes.hex()
                for name, seed in seeds.items()
            },
            "require_trainers": False,
        }
    }
    deployment.configure(**own, teams={"vision": {"trainers": ["ann"]}})
    signed = {
        (team, name): deployment.finish(
            deployment.begin(team, **({"identity_key_file": str(paths[name])} if name else {}))
        )
        for team in ("vision", "speech", None)
        for name in ("ann", "bob", None)
    }
    deployment.turn()
    assert {who for who, run in signed.items() if run in deployment.sealed()} == {
        ("vision", "ann"), ("speech", "bob"), ("speech", None), (None, "bob"), (None, None),
    }  # fmt: skip
    reasons = deployment.reasons()
    assert {who: reasons[run] for who, run in signed.items() if run in reasons} == {
        ("vision", "bob"): "team vision: signed by bob, none of its trainers",
        ("vision", None): "team vision: signed by nobody who is known, none of its trainers",
        ("speech", "ann"): "team speech: trainer ann is of team vision",
        (None, "ann"): "team none: trainer ann is of team vision",
    }
    deployment.configure(**own, teams={"vision": {"trainers": ["ann", "bob"]}})
    deployment.turn(6)
    assert signed["vision", "bob"] in deployment.sealed()


def configured(producer: Producer, team: str | None, **fields: Any) -> None:
    own = {"public_key": producer.public_key.hex(), "world_size": producer.world_size, "team": team}
    producer.add(Kind.CONFIG, **own | fields)


@pytest.mark.parametrize("ends", [[[2]], [[1, 2]], [[1], [2]]])
@pytest.mark.parametrize("first", [{}, {"public_key": "0" * 64}])
def test_a_run_is_of_the_team_that_its_first_configuration_names(
    deployment: Deployment, ends: list[list[int]], first: dict[str, str]
) -> None:
    """In a batch, in two of one transaction, and in two transactions; the first parked, or not."""
    deployment.configure(
        trust={"trainers": {"ann": "a" * 64}}, teams={"vision": {"trainers": ["ann"]}}
    )
    producer = Producer(run_of(1))
    configured(producer, None, **first)
    configured(producer, "vision")
    begin = 0
    for own in ends:
        batches = []
        for end in own:
            batches.append(producer.batch(begin, end))
            begin = end
        deployment.send(*batches)
    with deployment.store.snapshot() as tx:
        assert {record.seq for record in tx.records(producer.run)} == ({1} if first else {0, 1})
        assert tx.teams_of([producer.run]) == {producer.run: None}
        assert tx.team_use(int(NOW // DAY_S)) == {}
        assert list_runs(tx, Wanted(NOW, among="vision")) == ([], 0)
    assert deployment.reasons() == {}


def test_what_comes_before_a_configuration_counts_with_it_and_is_no_more_than_so_much(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams_module, "EARLY_BYTES", 3000)
    deployment.configure(teams={"vision": {"bytes_per_day": "1MB"}})
    other = Producer(run_of(2), rank=1, world_size=2, name=b"\2" * 16)
    for epoch in range(20):
        other.epoch(epoch)
    deployment.send(*(each.payload for each in other.deliveries(4)))
    with deployment.store.snapshot() as tx:
        early = tx.early_bytes(other.run)
        assert 0 < early <= 3000
        assert early == sum(len(row.data) for row in tx.records(other.run))
        assert tx.teams_of([other.run]) == {}
    assert deployment.reasons() == {other.run: "no configuration record within 3000 bytes"}
    gate = deployment.transport.acknowledged(other.run)[GATE]
    release_held(deployment.transport, deployment.store, deployment.policy, deployment.now)
    assert deployment.reasons(), "it is not asked at every sweep"

    leader = Producer(other.run, world_size=2)
    leader.begin()
    leader.events[4].fields["team"] = "vision"
    deployment.now += DAY_S
    more = other.deliveries(4)[-1].payload
    deployment.send(more, leader.batch(0, 4), leader.batch(4, 6), more)
    release_held(deployment.transport, deployment.store, deployment.policy, deployment.now)
    assert deployment.reasons() == {}
    assert deployment.transport.acknowledged(other.run)[GATE] != gate
    deployment.send(leader.batch(0, 4), *(each.payload for each in other.deliveries(4)))
    with deployment.store.snapshot() as tx:
        assert tx.teams_of([other.run]) == {other.run: "vision"}
        records = tx.records(other.run)
        assert len(records) == len(other.events) + len(leader.events), "nothing is lost"
        (use,) = tx.team_use(int(deployment.now // DAY_S)).values()
        assert use.nbytes == sum(len(row.data) for row in records)


def test_a_run_that_brings_no_configuration_is_asked_again_and_stops_nobody(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams_module, "EARLY_BYTES", 1000)
    silent = Producer(run_of(3))
    for epoch in range(9):
        silent.epoch(epoch)
    deployment.send(silent.batch(0, 1), silent.batch(1), silent.batch(1))
    done = deployment.finish(deployment.begin("vision"))
    deployment.turn()
    assert deployment.sealed() == {done}
    for _ in range(2):
        assert deployment.reasons().keys() == {silent.run}
        deployment.now += EARLY_RETRY_S
        deployment.turn(1)
        assert deployment.reasons() == {}
        deployment.send(silent.batch(1))


@pytest.mark.slow
def test_status_of_a_run_says_why_it_is_held_back(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.configure(teams={"vision": {"runs_per_day": 0}})
    producer = Producer(run_of(4))
    configured(producer, "vision")
    deployment.send(producer.batch())
    for text in (str(producer.run), producer.run.hex[:12], producer.run.hex[-12:]):
        assert cli.main(["status", text, "--base-dir", str(deployment.base)]) == 2
        assert (
            capsys.readouterr()
            .err.replace("\n", " ")
            .endswith(
                f"run {producer.run}: not in the database; held back: team vision: 0 runs today, "
                "quota 0 "
            )
        )


def test_a_long_name_of_a_team_is_cut(deployment: Deployment) -> None:
    key = Ed25519PrivateKey.generate()
    deployment.configure(
        trust={"trainers": {"ann": key.public_key().public_bytes_raw().hex()}},
        teams={"vision": {"trainers": ["ann"]}},
    )
    runs = []
    for signed in (False, True):
        producer = Producer(run_of(5 + signed))
        if signed:
            producer.identity = sign_identity(producer.run, producer.public_key, key)
        configured(producer, "x" * 500_000)
        deployment.send(producer.batch())
        runs.append(producer.run)
    with deployment.store.snapshot() as tx:
        assert tx.teams_of(runs) == {runs[0]: "x" * 200}
        held = tx.held(runs[1])
        assert held is not None
        assert held.team == "x" * 200
        assert held.reason == f"team {'x' * 200}: trainer ann is of team vision"
