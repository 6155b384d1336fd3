"""Quotas and trainers of teams: what may not come in waits in its spool, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from prometheus_client import CollectorRegistry

from provenance import ProvenanceTracker, cli
from provenance.app.run_list import list_runs
from provenance.bootstrap import sending
from provenance.capture.ship.loop import Shipper
from provenance.formats.note import SignerKey
from provenance.ledger.ingest import drain, release_held
from provenance.ledger.teams import DAY_S
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
