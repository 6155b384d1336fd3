"""What no writer ever writes is refused by every reader, and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import cli
from provenance.app.bundle import make_bundle
from provenance.bootstrap import sending
from provenance.bundle import index
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.capture.keys import RunKeys
from provenance.errors import BadSignatureError, FormatError, IntegrityError, TooLargeError
from provenance.evidence.disclosure import withhold
from provenance.formats import json_text
from provenance.formats.checkpoint import parse_note
from provenance.formats.cosignature import Cosignature, WitnessKey, cosigned_message
from provenance.formats.producers.batch import MAX_BATCH_BYTES, open_batch, sign_batch
from provenance.formats.receipt import Receipt
from provenance.formats.record import Kind, Record, canonical_json, timestamp
from provenance.settings import load
from tests.support.verify_world import (
    KEY,
    OTHER,
    OWN,
    RUN,
    World,
    before,
    ending,
    finished,
    metrics,
    seal,
    story,
)

WORLD = finished(1)
FILES = bundle_files(WORLD.evidence())
PRODUCER = RunKeys(RUN, KEY.private_bytes_raw()).producer(b"p" * 16, 0)
"""Its certificate and key."""
RECORD = FILES["records/training/epoch/1/metrics/0.json"]


# --- records -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ts", "2025-10-09T08:53:25Z"),
        ("ts", "2025-10-09T08:53:25.0000000Z"),
        ("ts", "2025-10-09 08:53:25.000000Z"),
        ("ts", "2025-02-30T08:53:25.000000Z"),
        ("ts", "2025-10-09T24:00:00.000000Z"),
        ("ts", "٢٠25-10-09T08:53:25.000000Z"),
        ("ts", "2025-10-09T08:53:25.000000Z\n"),
        ("ts", ""),
        ("seq", -1),
        ("rank", -1),
        ("epoch", -1),
        ("seq", 2**53),
        ("run", str(RUN).upper()),
        ("run", RUN.hex),
        ("run", f"{{{RUN}}}"),
    ],
)
def test_a_record_that_no_writer_wrote(field: str, value: Any) -> None:
    document = {**json.loads(RECORD), field: value}
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(FormatError):
        Record.decode(data)


@pytest.mark.parametrize("ns", [0, -1, 2**63 - 1, -(2**63), 1_700_000_000 * 10**9])
def test_every_time_that_is_written_is_read(ns: int) -> None:
    document = {**json.loads(RECORD), "ts": timestamp(ns)}
    assert Record.decode(canonical_json(document)).ts == timestamp(ns)


def test_ingest_parks_such_an_event() -> None:
    stage = World()
    document = {**json.loads(RECORD), "ts": "yesterday"}
    record = canonical_json(document)
    stage.ingest(sign_batch(*PRODUCER, document["seq"], bytes(32), [record]))
    with stage.store.snapshot() as tx:
        assert "ts 'yesterday'" in tx.parked()[0].reason


@pytest.mark.slow
def test_a_batch_is_as_large_as_can_be_written_and_no_larger() -> None:
    def batch(size: int) -> bytes:
        return sign_batch(*PRODUCER, 0, bytes(32), [b"x" * size])

    most = MAX_BATCH_BYTES - len(batch(2**20)) + 5 + 2**20
    assert len(open_batch(batch(most)).records[0]) == most
    with pytest.raises(TooLargeError):
        batch(most + 1)
    with pytest.raises(TooLargeError, match=f"{MAX_BATCH_BYTES + 1} bytes"):
        open_batch(batch(most) + b"x")


# --- JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a":1,"b":2,"a":1}', '[{"x":{"a":1,"a":2}}]'])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key 'a' stands twice"):
        json_text.loads(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[],[],{}]", "more than 3 objects and lists"),
        ("[1,2,3,4]", "more than 2 values"),
        ("9" * 5000, "a whole number of too many digits"),
    ],
)
def test_what_json_may_hold_is_counted_before_it_is_parsed(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "MAX_DEPTH", 2)
    limits = json_text.Limits(containers=3, items=2)
    with pytest.raises(ValueError, match=f"^{told}$"):
        json_text.loads(text, limits=limits)
    assert json_text.loads('["[[[[,,,,", [], {}]', limits=limits) == ["[[[[,,,,", [], {}]


# --- run.json and manifest.json ----------------------------------------------------------


def changed_run(change: Callable[[dict[str, Any]], None], name: str = "run.json") -> bytes:
    document = json.loads(FILES[name])
    change(document)
    return index.dump(document)


LISTS = ("producers", "records", "entries", "inclusions", "anchors")


@pytest.mark.parametrize("place", LISTS)
def test_an_unknown_key_of_an_item_is_named(place: str) -> None:
    data = changed_run(lambda d: d[place][0].update(extra=1))
    with pytest.raises(FormatError, match=rf"run\.json: {place}\[0\]\.extra: unknown key"):
        index.decode(data)


def test_an_unknown_key_of_the_file_is_named() -> None:
    with pytest.raises(FormatError, match=r"run\.json: extra: unknown key"):
        index.decode(changed_run(lambda d: d.update(extra=1)))
    for change in (lambda d: d.update(extra=1), lambda d: d["files"][0].update(extra=1)):
        files = {**FILES, "manifest.json": changed_run(change, "manifest.json")}
        with pytest.raises(FormatError, match=r"manifest\.json: .*extra: unknown key"):
            read_bundle(MemorySource(files, "b"))


@pytest.mark.parametrize("text", [str(RUN).upper(), RUN.hex, f"urn:uuid:{RUN}"])
def test_a_run_has_one_spelling(text: str) -> None:
    with pytest.raises(FormatError, match=f"run: found '.*', expected {RUN}"):
        index.decode(changed_run(lambda d: d.update(run=text)))
    files = {**FILES, "manifest.json": changed_run(lambda d: d.update(run=text), "manifest.json")}
    with pytest.raises(FormatError, match=r"manifest\.json: run"):
        read_bundle(MemorySource(files, "b"))
    receipt = {**json.loads(FILES["receipts/after-bitcoin.json"]), "run": text}
    with pytest.raises(FormatError):
        Receipt.decode(canonical_json(receipt))


def test_entries_stand_by_ledger_index() -> None:
    stage = finished(1, checkpoint=1)
    document = json.loads(bundle_files(stage.evidence())["run.json"])
    index.decode(index.dump(document))
    document["entries"].reverse()
    with pytest.raises(FormatError, match=r"run\.json: entries"):
        index.decode(index.dump(document))


def test_a_withheld_record_has_a_time_that_can_be_compared() -> None:
    document = json.loads(bundle_files(withhold(WORLD.evidence(), ["config"]))["run.json"])
    at, item = next((i, r) for i, r in enumerate(document["records"]) if r["withheld"])
    item["ts"] = "9"
    with pytest.raises(FormatError, match=rf"run\.json: records\[{at}\]: ts '9'"):
        index.decode(index.dump(document))


# --- names -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RUN.json", "Records/x.json", "run.json/x"])
def test_names_that_differ_only_in_case_are_refused_in_folders_too(
    tmp_path: Path, name: str
) -> None:
    files = {**FILES, name: b""}
    if name == "Records/x.json":
        files["records/X.json"] = b""
    with pytest.raises(IntegrityError, match="twice, by the letters|lies in a file"):
        read_bundle(MemorySource(files, "b"))
    if name == "RUN.json":
        for each, data in files.items():
            place = tmp_path / each
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if len(list(tmp_path.glob("*.json"))) == 3:  # a file system that tells case apart
            with pytest.raises(IntegrityError, match="twice, by the letters"):
                read_bundle(tmp_path)


# --- run.end -----------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "told"), [(-1, 8), (1, 10), (None, None)])
def test_run_end_announces_the_events_before_it(more: int | None, told: int | None) -> None:
    events = ending([*before(), metrics(1)])
    end = None if more is None else len(events) - 1 + more
    events[-1] = (Kind.RUN_END, None, {"events": end, "reason": "x"})
    stage = World()
    stage.ingest(stage.batch(events))
    stage.sweep(later=100.0)
    problems = [f.problem for f in stage.verify(online=False).findings]
    wanted = f"rank 0: run.end is event 9 and announces {told} events before it"
    assert wanted in problems


# --- witnesses ---------------------------------------------------------------------------

SECRET = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS = WitnessKey("witness.example/w1", SECRET.public_key().public_bytes_raw())


def cosign(stage: World, size: int, wrong: bool = False) -> None:
    with stage.store.transaction() as tx:
        row = tx.head(size)
        assert row is not None
        message = cosigned_message(parse_note(row.note).text, 1_760_000_000)
        signature = SECRET.sign(message + b"x" if wrong else message)
        line = Cosignature(WITNESS.name, WITNESS.key_id, 1_760_000_000, signature).line()
        tx.extend_head_note(size, line)


def two_runs() -> World:
    """A run of entries 0 and 1 in a ledger of four."""
    stage = World()
    stage.ingest(stage.batch(story(1)))
    stage.anchor()
    stage.ingest(stage.batch(story(1), run=OTHER))
    stage.anchor()
    return stage


@pytest.mark.slow
def test_the_newest_cosigned_head_that_covers_a_run_is_evidence() -> None:
    stage = two_runs()
    assert max(head.size for head in stage.evidence().heads) == 2
    cosign(stage, 4)
    sizes = [head.size for head in stage.evidence().heads]
    assert max(sizes) == 4
    report = stage.verify(online=False, trust=replace(OWN, witnesses=(WITNESS,)))
    assert report.outcome == "consistent"  # no node was asked
    assert [n.problem.endswith("(verified)") for n in report.notices] == [True]
    assert any(i.size == 4 for i in stage.evidence().inclusions)


def test_a_cosigned_head_that_ends_before_the_run_is_not() -> None:
    stage = two_runs()
    cosign(stage, 1)
    heads = stage.evidence(OTHER).heads
    assert [head.size for head in heads] == [4]


@pytest.mark.slow
def test_the_command_verifies_cosignatures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_BASE_DIR", str(tmp_path))
    monkeypatch.delenv("PROVENANCE_CONFIG", raising=False)
    settings = load(None, tmp_path)
    stage: Any = World(names=())
    stage.store.close()
    stage.store = sending.open_store(settings)
    stage.policy = sending.seal_policy(settings)
    stage.networks = sending.open_networks(settings)
    stage.ingest(stage.batch([*before(), seal("before")]))
    cosign(stage, 1)
    bundle = tmp_path / "b"

    def told(*words: str) -> str:
        cli.main(["verify", *words, "--offline", "--json", "--base-dir", str(tmp_path)])
        return capsys.readouterr().out

    make_bundle(settings, str(RUN), bundle)
    for subject in (str(RUN), str(bundle)):
        assert "(not verified: no witness key given)" in told(subject)
        assert "(verified)" in told(subject, "--witness", WITNESS.vkey)
    cosign(stage, 1, wrong=True)
    for subject in (str(RUN), "--all"):
        assert "does not verify" not in told(subject)
        assert "does not verify" in told(subject, "--witness", WITNESS.vkey)
    assert cli.main(["verify", str(RUN), "--offline", "--witness", "x"]) == 2
    stage.store.close()
    with pytest.raises(BadSignatureError):
        row = parse_note(str(bundle.joinpath("heads/1.note").read_text()))
        WITNESS.cosignatures(row.text + "x\n", row.signatures)
