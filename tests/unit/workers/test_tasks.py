"""The tasks: each rings the next, none raises for an outage, and the sweep mends lost hints.

Over 400 lines: case by case, one file: `workers`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery.app.task import Task
from celery.app.trace import build_tracer
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError
from msgspec import structs
from redis.exceptions import RedisError
from sqlalchemy.event import listen, remove
from structlog.testing import capture_logs

from provenance.app import up
from provenance.app.report import write_due_report
from provenance.bootstrap import sending
from provenance.errors import NetworkUnavailable, StoreUnavailable, TransportUnavailable
from provenance.formats.note import SignerKey
from provenance.formats.producers.acknowledgement import NOBODY
from provenance.formats.record import Kind
from provenance.ledger import ingest
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.transport import EventTransport
from provenance.ports.values import AnchorState, DueWork, Work
from provenance.proofs.beacon import open_beacon
from provenance.settings import NETWORKS, load
from provenance.stores.memory_transport import MemoryTransport
from tests.faults.support.processes import until
from tests.support.beyond.seeds import ETHEREUM
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork
from tests.support.paths import ROOT
from tests.support.runs import RUN, Producer, complete_run, some_run
from workers import (
    anchoring,
    beacons,
    confirming,
    hashing,
    resources,
    schedule,
    telemetry,
    verifying,
)
from workers import app as app_module

pytestmark = pytest.mark.slow

conf = app_module.app.conf
Hint = tuple[str, str, tuple[str, ...]]
"""Task, queue, arguments."""


@dataclass
class Workplace:
    """A worker process of a deployment in a folder; hints are kept instead of sent."""

    base: Path
    transport: MemoryTransport = field(default_factory=MemoryTransport)
    hints: list[Hint] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    beats: list[str] = field(default_factory=list)

    def send(self, task: Any, args: tuple[str, ...] = (), **options: Any) -> None:
        self.hints.append((task.name, options.pop("queue"), tuple(args)))
        self.options.append(options)

    def take(self) -> list[Hint]:
        """The hints since the last look, but for the beats that every sweep sends."""
        found, self.hints = self.hints, []
        self.beats = [hint[1] for hint in found if hint[0] == "workers.alive.beat"]
        return [hint for hint in found if hint[0] != "workers.alive.beat"]

    def deliver(self, producer: Producer, first: int = 0, last: int | None = None) -> None:
        self.transport.append([producer.batch(first, last)])

    def states(self, network: str = "local") -> list[AnchorState]:
        with resources.store().snapshot() as tx:
            return [row.state for row in tx.anchors(network)]

    def run_state(self, run: UUID = RUN) -> tuple[str, str | None]:
        with resources.store().snapshot() as tx:
            row = tx.run(run)
            assert row is not None
            return row.state, row.incomplete


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"seal_grace": 0, "blockchain": {"networks": ["local"]}}))
    monkeypatch.setenv("PROVENANCE_CONFIG", str(config))
    monkeypatch.setenv("PROVENANCE_BASE_DIR", str(tmp_path / "base"))
    app_module.settings_of.cache_clear()
    telemetry.forget_parent_parts()
    place, open_store = Workplace(tmp_path / "base"), resources.store
    monkeypatch.setattr(resources, "transport", cached(lambda: place.transport))
    monkeypatch.setattr(
        Task, "apply_async", lambda task, args=(), **options: place.send(task, args, **options)
    )
    yield place
    open_store.cache_clear()
    app_module.settings_of.cache_clear()


def cached(make: Callable[[], EventTransport]) -> Callable[[], EventTransport]:
    make.cache_clear = lambda: None  # type: ignore[attr-defined]  # wrong or wider on purpose
    return make


PUBLISH = ("workers.anchoring.publish", "anchor.local", ("local",))
CONFIRM = ("workers.confirming.confirm", "anchor.local", ("local",))
VERIFY = ("workers.verifying.verify", "verify", ())
DRAIN = ("workers.hashing.drain", "hashing", ())


def test_a_task_that_is_cut_off_says_nothing_of_its_queue(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all are whose worker lost its broker; one that fails is told."""
    run = work.base / "run"
    run.mkdir(parents=True)
    trace = build_tracer(hashing.drain.name, hashing.drain, app=app_module.app)
    told = []
    for ending in (SystemExit(), RuntimeError("no room")):

        def drain(ending: BaseException = ending) -> None:
            raise ending

        monkeypatch.setattr(hashing, "_drain", drain)
        with suppress(SystemExit):
            trace("id", (), {}, {"delivery_info": {"routing_key": "hashing"}})
        told.append({path.name: path.read_text() for path in run.iterdir()})
    assert told == [{}, {"hashing.failed": "RuntimeError: no room", "hashing.alive": ""}]


# --- one worker rings the next -----------------------------------------------------------


def test_a_run_walks_from_the_stream_to_final(work: Workplace) -> None:
    work.deliver(complete_run())
    hashing.drain()
    assert work.transport.backlog() == 0
    assert work.run_state() == ("sealed", None)
    assert work.take() == [PUBLISH]
    anchoring.publish("local")
    assert work.take() == [CONFIRM]
    confirming.confirm("local")
    assert work.states() == [AnchorState.REPLACED, AnchorState.FINAL]
    assert work.take() == [VERIFY]


def test_a_run_can_be_followed_by_its_id_through_flat_lines(work: Workplace) -> None:
    for run in (RUN, *(some_run() for _ in range(30))):
        work.deliver(complete_run(run=run))
    with capture_logs() as logs:
        hashing.drain()
        anchoring.publish("local")
        confirming.confirm("local")
        verifying.verify()
    for line in logs:
        assert all(isinstance(value, str | int | None) for value in line.values()), line
    own = [line for line in logs if str(RUN) in f"{line.get('run')} {line.get('runs')}"]
    assert [(line["event"], line.get("head")) for line in own] == [
        ("ledger.sealed", 1),
        ("ledger.sealed", 2),
        ("hashing.drained", None),
        ("verify.done", None),
    ]
    assert (own[2]["run_count"], len(own[2]["runs"].split()), own[3]["attempt"]) == (31, 20, 1)
    replaced, sent, final = (line for line in logs if "network" in line)
    assert (replaced["event"], replaced["anchors"]) == ("anchoring.replaced", 61)
    with resources.store().snapshot() as tx:
        (version,) = tx.versions(62)
        newest = [str(entry.run) for entry in tx.entries(first=60)]
    for line, outcome in ((sent, "sent"), (final, "final")):
        assert (line["outcome"], line["head"], line["entries"]) == (outcome, 62, 62)
        assert line["transaction_id"] == version.version.transaction_id
        assert newest[0] in line["runs"]


def test_a_look_that_changes_nothing_is_no_line(work: Workplace) -> None:
    work.deliver(complete_run())
    hashing.drain()
    anchoring.publish("local")
    confirming.confirm("local")
    with capture_logs() as logs:
        anchoring.publish("local")
        confirming.confirm("local")
    assert logs == []


def test_hints_are_sent_once_and_do_not_pile_up(work: Workplace) -> None:
    work.deliver(complete_run())
    hashing.drain()
    shown = "anchoring.publish local"
    assert work.options == [{"expires": 30, "retry": False, "shadow": shown}]


def test_the_watch_rings_for_what_nobody_was_given_and_outlives_an_outage(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "WAIT_S", 0.01)
    stop = threading.Event()
    watch = threading.Thread(target=hashing.watch, args=(stop,), daemon=True)
    work.transport.unavailable = True
    with capture_logs() as logs:
        watch.start()
        assert until(lambda: logs, 10)
        time.sleep(0.1)
        assert [entry["event"] for entry in logs] == ["hashing.not_watching"], "said once"
        work.transport.unavailable = False
        work.deliver(complete_run())
        assert until(lambda: DRAIN in work.hints, 10)
    hashing.drain()
    time.sleep(0.3)
    assert work.take()
    time.sleep(0.3)
    assert work.take() == [], "nothing waits"
    stop.set()
    watch.join(10)


def test_the_watch_rings_nobody_during_a_drain(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "WAIT_S", 0.01)
    monkeypatch.setattr(hashing, "AGAIN_S", (0.01, 0.01))
    stop = threading.Event()
    watch = threading.Thread(target=hashing.watch, args=(stop,), daemon=True)
    work.deliver(complete_run())
    during, real = list[list[Hint]](), ingest.drain

    def slow(*arguments: Any, **named: Any) -> Any:
        watch.start()
        time.sleep(0.3)
        during.append(work.take())
        return real(*arguments, **named)

    monkeypatch.setattr(hashing, "drain_stream", slow)
    hashing.drain()
    assert during == [[]]
    work.deliver(complete_run())
    assert until(lambda: DRAIN in work.hints, 10)
    stop.set()
    watch.join(10)


def test_a_redis_with_another_ledger_s_events_is_refused(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = resources.policy().signer.verifier
    other = SignerKey.from_private_bytes("other/ledger", bytes(32)).verifier
    work.transport.ledger(other.vkey)
    work.deliver(complete_run())
    with capture_logs() as logs:
        hashing.drain()
    (line,) = [entry["problem"] for entry in logs if entry["event"] == "hashing.stopped"]
    assert line.startswith(
        f"redis_url: this Redis carries the events of the ledger {other.label}, and this "
        f"deployment's is {own.label}: give each a database of its own"
    )
    assert work.transport.backlog() == 1
    monkeypatch.setattr(sending, "open_transport", lambda _: work.transport)
    with pytest.raises(SystemExit, match="^redis_url: this Redis carries"):
        app_module.require_own_redis()
    work.transport.unavailable = True
    app_module.require_own_redis()  # it may come
    work.transport.unavailable = False
    work.transport._ledger = None  # as who moves a deployment does
    hashing.drain()
    assert (work.transport.backlog(), work.transport.ledger()) == (0, own.vkey)


def test_a_drain_that_ran_out_of_time_rings_itself(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "DRAIN_S", -1.0)
    work.deliver(complete_run())
    hashing.drain()
    assert work.take() == [DRAIN, PUBLISH]
    hashing.drain()
    assert work.take() == []


def test_nothing_to_do_rings_nobody(work: Workplace) -> None:
    hashing.drain()
    anchoring.publish("local")
    confirming.confirm("local")
    schedule.sweep()
    assert work.take() == [DRAIN], "a stream may want mending that holds nothing"
    assert work.beats == ["anchor.local", "verify"]


def test_a_seal_without_an_anchor_rings_no_network(work: Workplace) -> None:
    producer = Producer()
    producer.begin()
    producer.events[-1].fields["anchor"] = False
    work.deliver(producer)
    with capture_logs() as logs:
        hashing.drain()
    assert work.take() == []
    assert [entry["event"] for entry in logs] == ["ledger.sealed", "hashing.drained"]


def test_the_verifying_task_writes_the_report(work: Workplace) -> None:
    work.deliver(complete_run())
    hashing.drain()
    anchoring.publish("local")
    confirming.confirm("local")
    verifying.verify()
    report = json.loads((work.base / "reports" / str(RUN) / "report.json").read_bytes())
    assert report["outcome"] == "verified"


# --- reports -----------------------------------------------------------------------------


def made_final(work: Workplace, runs: int) -> list[UUID]:
    """So many runs on their way through the stream to final, and every hint thrown away."""
    names = [some_run() for _ in range(runs)]
    for run in names:
        work.deliver(complete_run(1, run=run))
    hashing.drain()
    anchoring.publish("local")
    confirming.confirm("local")
    work.take()
    return names


def reported(work: Workplace) -> set[UUID]:
    return {UUID(path.parent.name) for path in work.base.glob("reports/*/report.html")}


@dataclass
class Clock:
    """What :mod:`workers.verifying` takes for the time."""

    now: float = field(default_factory=time.time)
    monotonic: Callable[[], float] = time.monotonic

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


@pytest.mark.slow
def test_every_report_is_written_where_most_hints_are_lost(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "WITHIN_S", 0.3)
    names, sweeps = made_final(work, 30), 0
    while reported(work) < set(names):
        schedule.sweep()
        sweeps += 1
        assert VERIFY in work.take()
        if sweeps % 3 == 0:
            verifying.verify()
    work.take()
    schedule.sweep()
    assert work.take() == [DRAIN]


def test_a_task_that_runs_out_of_time_rings_itself(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "WITHIN_S", -1.0)
    made_final(work, 2)
    verifying.verify()
    assert (len(reported(work)), work.take()) == (1, [VERIFY])
    verifying.verify()
    assert (len(reported(work)), work.take()) == (2, [VERIFY])
    verifying.verify()
    assert work.take() == []


def test_a_run_that_cannot_be_verified_holds_up_no_other_and_is_tried_ever_less(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = made_final(work, 3)
    clock = Clock()
    monkeypatch.setattr(verifying, "time", clock)
    store: Any = resources.store()
    with store.exclusive() as connection:
        damaged = "update ledger_entries set coverage = '?' where run = ?"
        assert connection.exec_driver_sql(damaged, (first.hex,)).rowcount == 2
    began, tries = clock.now, list[float]()
    for _ in range(3 * 3600):
        with capture_logs() as logs:
            verifying.verify()
        tries += [clock.now - began for entry in logs if entry["event"] == "verify.refused"]
        clock.now += 1 if len(tries) < 3 else 60
        if len(tries) == 9:
            break
    assert reported(work) == set(others)
    assert tries == [0.0, 60.0, 180.0, 420.0, 900.0, 1860.0, 3780.0, 7380.0, 10980.0]
    with store.exclusive() as connection:
        connection.exec_driver_sql(
            "update ledger_entries set coverage = '{}' where run = ?", (first.hex,)
        )
    clock.now += 3600
    verifying.verify()
    assert first in reported(work)


def test_a_report_that_ends_its_worker_comes_behind_the_others(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = made_final(work, 3)
    clock = Clock()
    monkeypatch.setattr(verifying, "time", clock)
    fatal: list[UUID] = []

    def killed(settings: Any, store: LedgerStore, row: DueWork) -> Any:
        fatal[:] = fatal or [row.run]
        if row.run in fatal:
            raise SoftTimeLimitExceeded
        return write_due_report(settings, store, row)

    monkeypatch.setattr(verifying, "write_due_report", killed)
    with pytest.raises(SoftTimeLimitExceeded):
        verifying.verify()
    verifying.verify()
    assert reported(work) == set(names) - set(fatal)
    schedule.sweep()
    assert VERIFY not in work.take()
    clock.now += 60
    with pytest.raises(SoftTimeLimitExceeded):
        verifying.verify()


def test_a_report_without_a_networks_answer_is_written_and_due_again(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = made_final(work, 1)
    clock = Clock()
    monkeypatch.setattr(verifying, "time", clock)
    anchors = work.base / "anchors.jsonl"
    away = anchors.rename(anchors.with_suffix(".away"))
    anchors.mkdir()  # no file to read
    with capture_logs() as logs:
        verifying.verify()
    assert [(entry["event"], entry["unreachable"]) for entry in logs] == [("verify.open", "local")]
    assert reported(work) == {run}
    anchors.rmdir()
    away.rename(anchors)
    verifying.verify()
    clock.now += 60
    with capture_logs() as logs:
        verifying.verify()
    assert [entry["event"] for entry in logs] == ["verify.done"]
    report = json.loads((work.base / "reports" / str(run) / "report.json").read_bytes())
    assert report["outcome"] == "verified"


# --- the sweep ---------------------------------------------------------------------------


def test_a_seal_is_told_to_the_shippers_though_redis_was_away(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = resources.policy()
    monkeypatch.setattr(
        resources, "policy", lambda: type(policy)(policy.networks, policy.signer, grace_s=3600.0)
    )
    producer = complete_run()
    work.deliver(producer, 0, 7)
    work.deliver(producer, 8)
    hashing.drain()
    monkeypatch.setattr(resources, "policy", lambda: policy)
    work.transport.unavailable = True
    schedule.sweep()
    assert work.run_state()[0] == "sealed"
    work.transport.unavailable = False
    assert NOBODY not in work.transport.acknowledged(RUN)
    schedule.sweep()
    assert NOBODY in work.transport.acknowledged(RUN)


def test_the_sweep_rings_for_every_lost_hint(work: Workplace) -> None:
    work.deliver(complete_run())
    schedule.sweep()
    assert work.take() == [DRAIN]
    hashing.drain()
    work.take()
    schedule.sweep()
    assert work.take() == [PUBLISH, DRAIN]
    anchoring.publish("local")
    work.take()
    schedule.sweep()
    assert work.take() == [CONFIRM, DRAIN]
    confirming.confirm("local")
    work.take()
    schedule.sweep()
    assert work.take() == [VERIFY, DRAIN]
    verifying.verify()
    schedule.sweep()
    assert work.take() == [DRAIN]


def test_the_sweep_rings_the_ethereum_worker_for_an_attestation(work: Workplace) -> None:
    account = "0x" + "11" * 20
    on_chain = {"contract": account, "registrar": account, "private_key_file": "key"}
    chain = {"networks": ["ethereum"], "ethereum": {"url": "http://127.0.0.1:9"}}
    config = {"blockchain": chain, "verification": {"on_chain": on_chain}}
    Path(os.environ["PROVENANCE_CONFIG"]).write_text(json.dumps(config))
    with resources.store().transaction() as tx:
        tx.add_run(RUN, bytes(32), 1.0)
        tx.add_work(Work.ATTESTATION, RUN, 0.0)
    schedule.sweep()
    assert ("workers.watching.attest", "anchor.ethereum", ()) in work.take()
    del on_chain["private_key_file"]
    Path(os.environ["PROVENANCE_CONFIG"]).write_text(json.dumps(config))
    app_module.settings_of.cache_clear()
    schedule.sweep()
    assert "workers.watching.attest" not in {name for name, _, _ in work.take()}


def test_the_sweep_seals_an_overdue_run_and_rings_for_it(work: Workplace) -> None:
    producer = complete_run()
    work.deliver(producer, 0, 7)
    work.deliver(producer, 8)
    hashing.drain()
    assert work.run_state()[0] == "sealed", "grace 0: made with its hole at once"
    assert "events from 7 on are missing" in str(work.run_state()[1])


def test_the_sweep_seals_what_ingest_left_open(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = resources.policy()
    patient = type(policy)(policy.networks, policy.signer, grace_s=3600.0)
    monkeypatch.setattr(resources, "policy", lambda: patient)
    producer = complete_run()
    work.deliver(producer, 0, 7)
    work.deliver(producer, 8)
    hashing.drain()
    assert work.run_state() == ("open", None)
    work.take()
    schedule.sweep()
    assert work.run_state() == ("open", None)
    assert work.take() == [PUBLISH, DRAIN], "the before seal's anchor is still due"
    monkeypatch.setattr(resources, "policy", lambda: policy)
    schedule.sweep()
    assert work.run_state()[0] == "sealed"
    assert NOBODY in work.transport.acknowledged(RUN), "shippers may clear it away"
    assert work.states() == [AnchorState.DUE, AnchorState.DUE]
    assert work.take() == [PUBLISH, DRAIN], "rung in the same sweep"


class CountingStore:
    """A store that counts its write transactions."""

    def __init__(self, store: LedgerStore) -> None:
        self.store, self.writes = store, 0

    def snapshot(self) -> AbstractContextManager[LedgerTx]:
        return self.store.snapshot()

    def transaction(self, run: UUID | None = None) -> AbstractContextManager[LedgerTx]:
        self.writes += 1
        return self.store.transaction(run)


def test_a_run_in_training_costs_the_sweep_no_write_transaction_of_its_own(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Producer()
    producer.begin()
    producer.epoch(1)
    work.deliver(producer)
    hashing.drain()
    counting = CountingStore(resources.store())
    monkeypatch.setattr(resources, "store", lambda: counting)
    for _ in range(3):
        schedule.sweep()
    assert counting.writes == 3, "one a sweep, which shows that the database takes commits"
    producer.seal("after")
    work.deliver(producer, len(producer.events) - 1)
    hashing.drain()  # sealed there: the grace is 0
    schedule.sweep()  # tells the shippers
    counting.writes = 0
    schedule.sweep()
    assert counting.writes == 1


def test_awaits_seal_is_true_from_the_mark_to_the_seal(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def awaits(run: UUID = RUN) -> bool:
        with resources.store().snapshot() as tx:
            return run in tx.awaiting_seal()

    policy = resources.policy()
    patient = type(policy)(policy.networks, policy.signer, grace_s=3600.0)
    monkeypatch.setattr(resources, "policy", lambda: patient)
    assert not awaits(), "unknown"
    producer = complete_run()
    before = next(at for at, e in enumerate(producer.events) if e.kind is Kind.SEAL)
    after = max(at for at, e in enumerate(producer.events) if e.kind is Kind.SEAL)
    work.deliver(producer, 1, before + 1)
    hashing.drain()
    assert awaits(), "the before mark is there, an event before it is not"
    work.deliver(producer, 0, 1)
    hashing.drain()
    assert not awaits(), "sealed before"
    work.deliver(producer, before + 1, after + 1)
    hashing.drain()
    assert awaits(), "after is asked for, run.end is missing"
    work.deliver(producer, after + 1)
    hashing.drain()
    assert not awaits(), "sealed for good"


def test_a_damaged_record_holds_up_its_own_run_alone(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = resources.policy()
    patient = type(policy)(policy.networks, policy.signer, grace_s=3600.0)
    monkeypatch.setattr(resources, "policy", lambda: patient)
    other = some_run()
    for run in (RUN, other):
        producer = complete_run(run=run)
        work.deliver(producer, 0, 7)
        work.deliver(producer, 8)
    hashing.drain()
    store: Any = resources.store()
    with store.exclusive() as connection:
        damaged = "update run_trees set training = 'x' where run = ?"
        assert connection.exec_driver_sql(damaged, (RUN.hex,)).rowcount == 1
    monkeypatch.setattr(resources, "policy", lambda: policy)
    with capture_logs() as logs:
        schedule.sweep()
    assert work.run_state(RUN)[0] == "open"
    assert work.run_state(other)[0] == "sealed"
    runs = [entry["run"] for entry in logs if entry["event"] == "sweep.damaged"]
    assert runs == [str(RUN)]


def test_the_sweep_reads_no_table_whole(work: Workplace) -> None:
    made_final(work, 2)
    store: Any = resources.store()
    asked: dict[str, tuple[Any, ...]] = {}
    heard = (store._engine, "before_cursor_execute")

    def note(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        asked[statement] = parameters

    listen(*heard, note)
    schedule.sweep()
    remove(*heard, note)
    scanned = set()
    with store.exclusive() as connection:
        for statement, parameters in asked.items():
            if statement.startswith("SELECT") and "LIMIT" not in statement:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                scanned |= {row.detail for row in plan if row.detail.startswith("SCAN")}
    scanned = {plan for plan in scanned if not plan.startswith("SCAN held_runs USING COVERING")}
    assert scanned == {"SCAN alembic_version"}, "which has one row"


# --- outages -----------------------------------------------------------------------------


def away(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def test_redis_away_is_logged(work: Workplace) -> None:
    work.transport.unavailable = True
    with capture_logs() as logs:
        hashing.drain()
        schedule.sweep()
    assert [entry["event"] for entry in logs] == ["hashing.unavailable", "sweep.unavailable"]
    assert all(entry["log_level"] == "warning" for entry in logs)


def test_redis_away_at_the_start_is_logged(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "transport", away(TransportUnavailable("refused")))
    with capture_logs() as logs:
        hashing.drain()
        schedule.sweep()
    assert {entry["problem"] for entry in logs} == {"refused"}


def test_the_database_away_is_logged(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "store", away(StoreUnavailable("locked")))
    with capture_logs() as logs:
        hashing.drain()
        anchoring.publish("local")
        confirming.confirm("local")
        schedule.sweep()
    assert [entry["event"] for entry in logs] == [
        "hashing.unavailable", "anchoring.unavailable", "confirming.unavailable",
        "sweep.unavailable",
    ]  # fmt: skip


def test_the_database_away_while_verifying_is_logged(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "store", away(StoreUnavailable("locked")))
    with capture_logs() as logs:
        verifying.verify()
    assert [entry["event"] for entry in logs] == ["verify.unavailable"]


def test_a_broker_that_refuses_hints_stops_nothing(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.deliver(complete_run())
    for error in (OperationalError("refused"), ConnectionResetError("reset")):
        monkeypatch.setattr(Task, "apply_async", away(error))
        with capture_logs() as logs:
            hashing.drain()
            schedule.sweep()
        lost = [entry for entry in logs if entry["event"] == "hint.lost"]
        assert "anchor.local" in [entry["queue"] for entry in lost]
        assert {entry["problem"] for entry in lost} == {type(error).__name__}
    assert work.run_state() == ("sealed", None)


@pytest.mark.slow
def test_a_real_broker_that_is_away_costs_a_line_and_no_retries(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from workers import anchoring; anchoring.hint('local')"],
        env={**os.environ, "PROVENANCE_REDIS_URL": "redis://:sesame@127.0.0.1:1/0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert conf.broker_transport_options["max_retries"] == 0
    assert done.returncode == 0, done.stderr
    assert "hint.lost" in done.stdout + done.stderr
    assert "sesame" not in done.stdout + done.stderr


def test_one_networks_trouble_is_its_own(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    node = MemoryNetwork(MemoryChain(chain_id=1), name="ethereum")
    node.hang()
    local = resources.network("local")
    networks: dict[str, Network] = {"ethereum": node, "local": local}
    policy = resources.policy()
    both = type(policy)(("ethereum", "local"), policy.signer, policy.grace_s)
    monkeypatch.setattr(resources, "policy", lambda: both)
    monkeypatch.setattr(resources, "network", networks.__getitem__)
    work.deliver(complete_run())
    hashing.drain()
    assert [queue for _, queue, _ in work.take()] == ["anchor.ethereum", "anchor.local"]
    anchoring.publish("ethereum")
    anchoring.publish("local")
    confirming.confirm("local")
    assert AnchorState.FINAL in work.states("local")
    assert AnchorState.FINAL not in work.states("ethereum")


def test_a_network_that_is_not_configured_is_logged(work: Workplace) -> None:
    with capture_logs() as logs:
        anchoring.publish("bitcoin")
        confirming.confirm("bitcoin")
    assert [entry["event"] for entry in logs] == [
        "anchoring.misconfigured", "confirming.misconfigured",
    ]  # fmt: skip


def test_a_key_that_others_can_read_stops_hashing_with_a_line(work: Workplace) -> None:
    work.deliver(complete_run())
    work.base.mkdir()
    key = work.base / "ledger.key"
    key.write_text("05" * 32)
    key.chmod(0o644)
    with capture_logs() as logs:
        hashing.drain()
    assert [entry["event"] for entry in logs] == ["hashing.stopped"]
    assert "chmod 600" in logs[0]["problem"]
    key.chmod(0o600)
    hashing.drain()
    assert work.run_state() == ("sealed", None)


@pytest.mark.parametrize("command", ["worker", "beat"])
@pytest.mark.slow
def test_a_worker_without_redis_says_what_is_missing(command: str, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", command],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "redis_url: not set, expected redis://... (or PROVENANCE_REDIS_URL)"
    )


# --- delivery settings -------------------------------------------------------------------


def test_delivery_is_configured_as_measured() -> None:
    """A lost task costs a sweep, a killed worker's task comes back, none runs twice at once."""
    assert conf.task_acks_late is True
    assert conf.task_reject_on_worker_lost is True
    assert conf.worker_prefetch_multiplier == 1
    assert conf.task_ignore_result is True
    assert conf.result_backend is None
    transport = conf.broker_transport_options
    assert transport["visibility_timeout"] == 180
    assert 0 < conf.task_soft_time_limit < conf.task_time_limit < transport["visibility_timeout"]
    assert transport["unacked_restore_interval"] == 5
    assert transport["unacked_restore_throttle"] == 1
    assert conf.broker_channel_error_retry is True
    assert conf.broker_connection_retry_on_startup is True
    assert conf.broker_connection_max_retries is None
    assert transport["socket_timeout"] > 0
    assert transport["socket_connect_timeout"] > 0


def test_nothing_is_ever_unpickled() -> None:
    assert set(conf.accept_content) == {"json", "msgpack"}
    assert conf.task_serializer == "json"
    assert conf.result_accept_content is None or "pickle" not in conf.result_accept_content


def test_every_network_has_a_queue_and_a_worker_of_its_own() -> None:
    assert set(app_module.QUEUES) == {
        "hashing", "confirm", "verify", *(f"anchor.{name}" for name in NETWORKS),
    }  # fmt: skip
    chain: dict[str, Any] = {name: {"url": "http://127.0.0.1:1"} for name in NETWORKS[:3]}
    settings = load({"blockchain": {"networks": list(NETWORKS), **chain}})
    served: list[str] = []
    for service in up.services(settings):
        if "worker" in service.argv:
            served += service.argv[service.argv.index("--queues") + 1].split(",")
    assert sorted(served) == sorted(app_module.QUEUES), "each queue is served exactly once"


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("workers.hashing.drain", "hashing"),
        ("workers.schedule.sweep", "confirm"),
        ("workers.verifying.verify", "verify"),
    ],
)
def test_tasks_are_routed(task: str, queue: str) -> None:
    assert task in app_module.app.tasks
    route = app_module.app.amqp.router.route({}, task)
    assert route["queue"].name == queue


def test_beat_sends_the_sweep_and_a_late_one_expires() -> None:
    (entry,) = conf.beat_schedule.values()
    assert entry["task"] == "workers.schedule.sweep"
    assert 0 < entry["schedule"].seconds <= 5.0
    seconds = entry["schedule"].seconds
    assert seconds < entry["options"]["expires"] <= 2 * seconds
    assert conf.beat_max_loop_interval <= 5


def test_events_for_flower_are_on() -> None:
    assert conf.worker_send_task_events is True
    assert conf.task_send_sent_event is False
    silent = {task for task, body in app_module.app.tasks.items() if not body.send_events}
    assert {name for name in silent if name.startswith("workers.")} == {
        "workers.schedule.sweep", "workers.alive.beat", "workers.beacons.publish",
    }, "Flower shows what was done, not that nothing was to do"  # fmt: skip
    assert conf.worker_enable_remote_control is False


# --- processes and logs ------------------------------------------------------------------


def test_a_forked_child_builds_its_own_clients(work: Workplace) -> None:
    store, network = resources.store(), resources.network("local")
    assert resources.store() is store
    telemetry.forget_parent_parts()
    assert resources.store() is not store
    assert resources.network("local") is not network


def test_leases_are_unique_and_consumers_are_not() -> None:
    assert resources.owner() == resources.owner()
    assert resources.lease_owner() != resources.lease_owner()
    assert resources.lease_owner().startswith(resources.owner())


def test_the_transport_is_the_configured_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    app_module.settings_of.cache_clear()
    resources.transport.cache_clear()
    try:
        with pytest.raises(TransportUnavailable, match=r"127\.0\.0\.1:1"):
            resources.transport().ping()
    finally:
        app_module.settings_of.cache_clear()
        resources.transport.cache_clear()


def test_an_outage_of_the_broker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now, once, told = [0.0], telemetry.Once(), list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def tell() -> None:
        try:
            try:
                raise RedisError("command not allowed when used memory > 'maxmemory'")
            except RedisError:
                raise ValueError("scheduled task sweep")  # noqa: B904  as beat does
        except ValueError as error:
            given = (error, traceback.format_stack())
            record = logging.LogRecord(
                "celery.beat", logging.ERROR, "", 0, "Message Error: %s\n%s", given, sys.exc_info()
            )
        if once.filter(record):
            told.append(logging.Formatter().format(record))
        own = {"event": "hint.lost", "queue": "hashing", "timestamp": str(now[0])}
        line: Any = logging.LogRecord("workers", logging.WARNING, "", 0, own, (), None)
        if once.filter(line):
            told.append(line.msg["event"])

    for now[0] in range(0, 61, 5):
        tell()
    line = "broker: RedisError: command not allowed when used memory > 'maxmemory'"
    assert told == [line, "hint.lost"] * 2, "once a minute"


def test_how_long_until_the_next_try_makes_no_other_line() -> None:
    lines = [
        (
            "consumer: Cannot connect to %s: %s.\n%s\n",
            "redis://h",
            "refused",
            "{} seconds... (1/0)",
        ),
        (
            "consumer: Cannot connect to %s: %s.\n%s\n",
            "redis://h",
            "timeout",
            "{} seconds... (1/0)",
        ),
        ("beat: Connection error: %s. Trying again in %s seconds...", "refused", "{}"),
    ]
    once, told = telemetry.Once(), list[str]()
    for wait in ("2.00", "4.00", "6.00", "8.00"):
        for text, *values, rest in lines:
            last = rest.format(wait if text.startswith("beat") else f"Trying again in {wait}")
            record = logging.LogRecord("celery", logging.ERROR, "", 0, text, (*values, last), None)
            if once.filter(record):
                told.append(record.getMessage())
    assert len(told) == len(lines)


@pytest.mark.slow
def test_logs_are_one_json_object_per_line() -> None:
    code = (
        "import logging; from workers import telemetry; telemetry.configure(logging.INFO);"
        "telemetry.log.info('hashing.drained', new=3);"
        "logging.getLogger('celery.worker').warning('theirs %s', 'too');"
        "logging.getLogger('celery.beat').info('silent');"
        "logging.getLogger('celery.worker.request').info('Discarding revoked task: %s', 'a hint')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    ours, theirs = [json.loads(line) for line in done.stderr.splitlines()]
    assert (ours["event"], ours["new"], ours["level"]) == ("hashing.drained", 3, "info")
    assert (theirs["event"], theirs["level"]) == ("theirs too", "warning")
    assert "timestamp" in ours
    assert done.stdout == ""


# --- beacons -----------------------------------------------------------------------------


def test_the_sweep_asks_for_blocks_now_and_then_and_a_worker_publishes_them(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = MemoryNetwork(name="ethereum")
    node.beacons.append(ETHEREUM)
    monkeypatch.setattr(beacons, "_rung_at", 0.0)
    monkeypatch.setattr(beacons, "settings", lambda: with_networks("local", "ethereum"))
    monkeypatch.setattr(resources, "network", lambda name: node)
    schedule.sweep()
    schedule.sweep()
    wanted = ("workers.beacons.publish", "anchor.ethereum", ("ethereum",))
    assert [hint for hint in work.take() if hint[0] == wanted[0]] == [wanted]
    beacons.publish("ethereum")
    data = work.transport.beacon("ethereum")
    assert data is not None
    key = sending.ledger_signer(app_module.settings()).verifier.public_bytes
    assert open_beacon(data, key) == ETHEREUM
    node.fail_next("newest_block", NetworkUnavailable("ethereum: no answer"))
    with capture_logs() as logs:
        beacons.publish("ethereum")
    assert [entry["event"] for entry in logs] == ["beacon.left"]
    assert work.transport.beacon("ethereum") == data, "the block before stands"


def with_networks(*names: str) -> Any:
    chain = structs.replace(app_module.settings().blockchain, networks=names)
    return structs.replace(app_module.settings(), blockchain=chain)
