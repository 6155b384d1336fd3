"""Recent blocks on their way to the trainer, and the seeds that it draws from them."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance.capture.ship.beacons import BEACON_FILE, keep_beacons, load_beacons
from provenance.capture.ship.loop import Shipper
from provenance.errors import BadSignatureError, ConfigError, FormatError, ProofError
from provenance.formats.json_text import canonical_json
from provenance.formats.note import SignerKey
from provenance.formats.record import Kind
from provenance.proofs.beacon import Beacon, draw_seed, open_beacon, sign_beacon
from provenance.stores.memory_transport import MemoryTransport
from provenance.tracker import ProvenanceTracker
from tests.support.beyond.seeds import BITCOIN, ETHEREUM
from tests.support.verify_world import SIGNER, shipped

KEY = SIGNER.verifier.public_bytes
STRANGER = SignerKey.from_private_bytes(SIGNER.verifier.name, b"\x09" * 32)
NEXT = replace(BITCOIN, height=102)


def published(*beacons: Beacon, key: SignerKey = SIGNER) -> MemoryTransport:
    transport = MemoryTransport()
    for beacon in beacons:
        transport.publish_beacon(beacon.network, sign_beacon(beacon, key))
    return transport


def test_a_beacon_reads_back_and_no_field_can_be_changed() -> None:
    for beacon in (BITCOIN, ETHEREUM):
        data = sign_beacon(beacon, SIGNER)
        assert open_beacon(data, KEY) == beacon
        for name, value in json.loads(data).items():
            other: Any = value + 1 if isinstance(value, int) else value[:-1] + "0"
            changed = canonical_json(json.loads(data) | {name: other if other != value else "1"})
            with pytest.raises((FormatError, BadSignatureError, ProofError)):
                open_beacon(changed, KEY)
        for at in range(0, len(data), 7):
            with pytest.raises(FormatError):
                open_beacon(data[:at], KEY)


FOREIGN: dict[str, bytes] = {
    "by another key": sign_beacon(BITCOIN, STRANGER),
    "of another network": sign_beacon(ETHEREUM, SIGNER),
    "without its work": sign_beacon(replace(BITCOIN, chain="main"), SIGNER),
    "no beacon": b"x",
    "too large": b"{" + b" " * 9000,
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_what_the_ledger_did_not_sign_is_not_kept(tmp_path: Path, data: bytes) -> None:
    transport = published(ETHEREUM)
    transport.publish_beacon("bitcoin", data)
    keep_beacons(tmp_path, transport, [KEY])
    assert load_beacons(tmp_path) == [ETHEREUM]
    keep_beacons(tmp_path / "no-key", transport, [])
    assert not (tmp_path / "no-key").exists()


def test_a_shipper_keeps_the_newest_and_an_outage_leaves_it(tmp_path: Path) -> None:
    transport = published(BITCOIN, ETHEREUM)
    with Shipper(tmp_path, transport, ledger_keys=lambda: [KEY]) as shipper:
        shipper.run_once()
        assert load_beacons(tmp_path) == [BITCOIN, ETHEREUM]
        assert (tmp_path / BEACON_FILE).stat().st_mode & 0o777 == 0o600
        written = (tmp_path / BEACON_FILE).stat().st_mtime_ns
        keep_beacons(tmp_path, transport, [KEY])
        assert (tmp_path / BEACON_FILE).stat().st_mtime_ns == written, "nothing new"
        transport.publish_beacon("bitcoin", sign_beacon(NEXT, SIGNER))
        keep_beacons(tmp_path, transport, [KEY])
        transport.unavailable = True
        keep_beacons(tmp_path, transport, [KEY])
    assert load_beacons(tmp_path) == [NEXT, ETHEREUM]


def test_a_redis_that_refuses_the_question_holds_up_no_event(tmp_path: Path) -> None:
    """One whose users were set up for an earlier release."""

    class Refusing(MemoryTransport):
        def beacon(self, network: str) -> bytes | None:
            raise ConfigError("redis_url", "no permission")

    tracker = ProvenanceTracker(tmp_path)
    tracker.store_merkle_on_blockchain_before_training({})
    with Shipper(tracker.spool_dir, Refusing(), ledger_keys=lambda: [KEY]) as shipper:
        assert shipper.run_once().events == 2
    tracker.close()


@pytest.mark.slow
def test_seeds_are_drawn_from_the_blocks_in_the_spool_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    keep_beacons(tracker.spool_dir, published(BITCOIN, ETHEREUM), [KEY])

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a trainer opened a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    seeds = [tracker.fresh_seed()]
    tracker.store_merkle_on_blockchain_before_training({"seed": seeds[0]})
    seeds.append(tracker.fresh_seed())
    monkeypatch.undo()
    assert seeds == [draw_seed(tracker.run, at, [BITCOIN, ETHEREUM]) for at in range(2)]
    assert all(0 <= each < 2**32 for each in seeds)
    tracker.store_merkle_on_blockchain_after_training({})
    report = shipped(tracker).verify(evidence_of(tracker), online=False)
    assert not report.findings
    drawn = [r.decoded for r in report.evidence.records if r.kind is Kind.SEED]
    assert [record.body["seed"] for record in drawn] == seeds  # type: ignore[union-attr]


def evidence_of(tracker: ProvenanceTracker) -> Any:
    return shipped(tracker).evidence(tracker.run)


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"blocks":[],"v":2}', b"x" * 50_000])
def test_without_a_block_the_seed_is_random_and_recorded_as_such(
    tmp_path: Path, content: bytes | None
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    if content is not None:
        (tracker.spool_dir / BEACON_FILE).write_bytes(content)
    first, second = tracker.fresh_seed(), tracker.fresh_seed()
    assert first != second
    assert tracker.written == 2
    tracker.close()
    assert isinstance(tracker.fresh_seed(), int), "a closed run's is recorded nowhere"
    assert tracker.get_blockchain_status()["events"]["last_error"] is None


def test_a_full_spool_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = ProvenanceTracker(tmp_path)
    monkeypatch.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    assert isinstance(tracker.fresh_seed(), int)
    monkeypatch.undo()
    tracker.close()
