"""``provenance events parked``: every parked event with run, reason, time and size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from provenance import cli
from provenance.bootstrap import sending
from provenance.formats.record import Kind
from provenance.ledger.ingest import ingest
from provenance.ports.transport import Delivery
from provenance.settings import load
from provenance.stores.memory_transport import MemoryTransport
from tests.support.runs import POLICY, RUN, START_NS, complete_run

NOW = START_NS / 1e9


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A database with a sealed run, a late record of it, and bytes that are no batch."""
    settings = load(None, tmp_path)
    store = sending.open_store(settings)
    assert store is not None
    producer = complete_run()
    ingest(MemoryTransport(), store, POLICY, producer.deliveries(), lambda: NOW)
    late = len(producer.events)
    producer.add(Kind.METRICS, 3, metrics={"loss": 0.1})
    deliveries = [Delivery("a", producer.batch(late)), Delivery("b", b"no [red]batch")]
    ingest(MemoryTransport(), store, POLICY, deliveries, lambda: NOW + 1)
    store.close()
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["events", "parked", *arguments])


def test_parked_events_are_listed_with_run_reason_time_and_size(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", "--base-dir", str(base)) == 0
    rows = {row["run_id"]: row for row in json.loads(capsys.readouterr().out)["parked"]}
    assert rows.keys() == {str(RUN), None}
    assert "the run is sealed" in rows[str(RUN)]["reason"]
    assert rows[str(RUN)]["parked_at"] == "2025-10-09 08:53:21Z"
    assert rows[None]["bytes"] == len(b"no [red]batch")
    assert (rows[None]["what"], rows[None]["producer"]) == ("bytes", None)
    assert rows[str(RUN)]["what"] == "event"
    assert len(rows[str(RUN)]["producer"]) == 32
    assert len(rows[None]["id"]) == 64


def test_one_run_s_parked_events_alone(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(RUN.hex[:8], "--json", "--base-dir", str(base)) == 0
    (row,) = json.loads(capsys.readouterr().out)["parked"]
    assert row["run_id"] == str(RUN)


def test_people_get_a_table_and_a_count(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--base-dir", str(base)) == 0
    shown = capsys.readouterr().out
    assert "the run is sealed" in shown
    assert "2 parked" in shown


@pytest.mark.slow
def test_what_was_parked_is_forgotten(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(RUN.hex[:8], "--forget", "--json", "--base-dir", str(base)) == 0
    assert json.loads(capsys.readouterr().out) == {"forgotten": 1}
    assert run("--forget", "--base-dir", str(base)) == 2
    assert capsys.readouterr().err == (
        "provenance: --forget: found no run, expected RUN, or --all for those of every run\n"
    )
    assert run("--forget", "--all", "--base-dir", str(base)) == 0
    assert capsys.readouterr().out == "1 forgotten\n"
    assert run("--json", "--base-dir", str(base)) == 0
    assert json.loads(capsys.readouterr().out) == {"parked": []}


@pytest.mark.slow
def test_nothing_parked_and_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "new"
    base.mkdir()
    assert run("--json", "--base-dir", str(base)) == 0
    assert json.loads(capsys.readouterr().out) == {"parked": []}
    assert run("--base-dir", str(base)) == 0
    assert "nothing is parked" in capsys.readouterr().out
    assert run("latest", "--base-dir", str(base)) == 2
    assert run("--forget", "--all", "--json", "--base-dir", str(base)) == 0
    assert not list(base.iterdir()), "asking makes no files"


@pytest.mark.slow
def test_a_batch_that_was_refused_is_sent_again_and_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stranger, until the deployment knows who signs; what is no batch stays."""
    store = sending.open_store(load(None, tmp_path))
    transport, producer = MemoryTransport(), complete_run()
    strict = replace(POLICY, trainers=lambda *_: "signed by nobody known")
    deliveries = [*producer.deliveries(), Delivery("b", b"no batch")]
    ingest(transport, store, strict, deliveries, lambda: NOW)
    monkeypatch.setattr(sending, "open_transport", lambda _: transport)
    assert run(str(RUN), "--json", "--base-dir", str(tmp_path)) == 0
    rows = json.loads(capsys.readouterr().out)["parked"]
    number = len(deliveries) - 1
    assert [(row["what"], row["run_id"]) for row in rows] == [("batch", str(RUN))] * number
    assert run("--retry", "--base-dir", str(tmp_path)) == 2
    assert "--retry: found no run" in capsys.readouterr().err
    assert run("--retry", "--all", "--base-dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == (
        f"{number} batches are in the stream again; 1 stay: no batches, which alone can be sent "
        "again\n"
    )
    ingest(transport, store, POLICY, transport.read("c", 10), lambda: NOW)
    with store.snapshot() as tx:
        assert [row.payload for row in tx.parked()] == [b"no batch"]
        assert [row.run for row in tx.runs()] == [RUN]
        assert len(tx.records(RUN)) == len(producer.events)
    store.close()
