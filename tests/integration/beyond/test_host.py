"""Where a run ran: a real TPM's quotes at both ends, and what of them is refused."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from provenance.capture.ship import host as collector
from provenance.capture.ship.cleanup import clear_run
from provenance.capture.ship.loop import Shipper
from provenance.capture.spool import scan
from provenance.errors import BadSignatureError
from provenance.formats.producers.batch import open_batch
from provenance.proofs.host.evidence import HostEvidence, Quote
from provenance.proofs.host.tpm import check_quote, key_digest
from provenance.settings.beyond.host import HostSettings
from provenance.stores.memory_transport import MemoryTransport
from provenance.tracker import ProvenanceTracker
from tests.support import stranger
from tests.support.beyond.host_world import BOOT, LOG, trained
from tests.support.beyond.paper_tpm import event_log
from tests.support.nodes.tpm import Tpm, started

pytestmark = pytest.mark.slow


def booted(folder: Path) -> Iterator[Tpm]:
    with started(folder) as tpm:
        for pcr, data in BOOT:
            tpm.extend(pcr, sha256(data).digest())
        yield tpm


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    yield from booted(tmp_path_factory.mktemp("tpm"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    yield from booted(tmp_path_factory.mktemp("other"))


def test_both_ends_are_quoted(tmp_path: Path, tpm: Tpm) -> None:
    run = trained(tmp_path, tpm.settings)
    key = key_digest(tpm.quote(bytes(32)).public)
    nobody = "which nobody pinned: any program can make such a key"
    assert run.line() == f"TPM key {key}, {nobody}, quoted PCRs 0-9, 11-14 at both ends, unchanged"
    assert f"{key}, pinned: trust.host_keys, " in run.line(host_keys=frozenset({key}))
    assert run.report().checks[14].detail == "2 quotes"
    assert any(line.startswith("That the training itself ran") for line in run.report().not_checked)
    told = run.stranger
    assert told.problems == []
    quotes = [line for line in told.unproven if "a quote of TPM key" in line]
    assert [line.split(": ")[1] for line in quotes] == ["training/host", "training/host/1"]
    assert all(key in line for line in quotes)


Change = Callable[[HostEvidence, Quote, Tpm], HostEvidence]


def quote(**fields: Any) -> Change:
    """A quote with other fields, from functions of it."""
    return lambda host, own, _: replace(
        host, quote=replace(own, **{name: change(own) for name, change in fields.items()})
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def another_key(host: HostEvidence, own: Quote, other: Tpm) -> HostEvidence:
    return replace(host, quote=replace(own, public=other.quote(bytes(32)).public))


def without_restriction(own: Quote) -> bytes:
    attributes = int.from_bytes(own.public[4:8], "big") & ~(1 << 16)
    return own.public[:4] + attributes.to_bytes(4, "big") + own.public[8:]


FORGED: dict[str, tuple[Change, str]] = {
    "another nonce": (
        lambda host, own, other: replace(host, quote=other.quote(b"\7" * 32)),
        "tpm: qualifying data is 0707",
    ),
    "a flipped bit of the clock": (
        quote(attest=lambda own: flipped(own.attest, 83)),
        "tpm: signature: the key did not sign this attest",
    ),
    "a flipped bit of the signature": (
        quote(signature=lambda own: flipped(own.signature, 20)),
        "tpm: signature: the key did not sign this attest",
    ),
    "another key": (another_key, "tpm: signature: the key did not sign this attest"),
    "another PCR": (
        quote(pcrs=lambda own: {**own.pcrs, 0: bytes(32)}),
        "tpm: pcrs hash to [0-9a-f]{64}, quoted: ",
    ),
    "a PCR less": (
        quote(pcrs=lambda own: {n: v for n, v in own.pcrs.items() if n}),
        "tpm: pcrs are 1, 2, .*, quoted: 0, 1, ",
    ),
    "no magic of a TPM": (
        quote(attest=lambda own: b"\0" + own.attest[1:]),
        "tpm: signature: the key did not sign this attest",
    ),
    "bytes behind the signature": (
        quote(signature=lambda own: own.signature + b"\0"),
        "tpm: signature: 1 bytes behind it",
    ),
    "a truncated key": (
        quote(public=lambda own: own.public[:-1]),
        "tpm: public: ends at byte 87, expected 88",
    ),
    "a key that signs anything": (
        quote(public=without_restriction),
        "tpm: public: attributes .*: not a TPM's own restricted signing key",
    ),
    "another boot's events": (
        lambda host, own, _: replace(host, event_log=event_log([*BOOT, (0, b"implant")])),
        "event log: PCR 0 is [0-9a-f]{64}, its events give ",
    ),
    "a truncated event log": (
        lambda host, own, _: replace(host, event_log=LOG[:-1]),
        "event log: ends at byte",
    ),
    "no event log": (
        lambda host, own, _: replace(host, event_log=b"x" * 80),
        "event log: does not begin with a Spec ID Event03",
    ),
}


@pytest.mark.parametrize(("change", "line"), FORGED.values(), ids=FORGED)
def test_a_forged_quote_is_refused_with_one_line(
    change: Change, line: str, tmp_path: Path, tpm: Tpm, other: Tpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a trainer, who has the run's key: the start's is changed before it is signed."""

    def forged(settings: HostSettings, phase: str, qualifying: bytes) -> HostEvidence:
        host = collect(settings, phase, qualifying)
        assert host.quote is not None
        return change(host, host.quote, other) if phase == "start" else host

    collect = collector.collect
    monkeypatch.setattr(collector, "collect", forged)
    run = trained(tmp_path, tpm.settings)
    [finding] = run.report().findings
    assert (finding.check, finding.subject) == (15, "training/host")
    assert re.match(line, finding.problem), finding.problem
    assert "\n" not in finding.problem
    [problem] = run.stranger.problems
    assert "training/host" in problem


def test_shipping_again_gives_the_same_records_and_leaves_nothing(tmp_path: Path, tpm: Tpm) -> None:
    config = {"host": {"tpm": {"ak": tpm.settings.ak, "tcti": tpm.settings.tcti}}}
    tracker = ProvenanceTracker(tmp_path, config)
    tracker.store_merkle_on_blockchain_after_training({})
    shipped = []
    for _ in range(2):
        for path in tracker.spool_dir.rglob("cursors.json"):
            path.unlink()
        transport = MemoryTransport()
        with Shipper(tracker.spool_dir, transport) as shipper:
            shipper.run_once()
        batches = [open_batch(each.payload) for each in transport.read("worker", 1000)]
        shipped.append([data for batch in batches for data in batch.records])
    assert shipped[0] == shipped[1]
    assert sum(b'"kind":"host"' in data for data in shipped[0]) == 2
    kept = sorted((tracker.spool_dir / tracker.run_id).glob("host.*"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600, 0o600]
    [run] = scan(tracker.spool_dir)
    for segment in run.segments:
        segment.path.unlink()
    clear_run(run)
    assert not (tracker.spool_dir / tracker.run_id).exists()


@pytest.mark.parametrize("scheme", ["rsassa", "rsapss"])
def test_a_key_of_rsa_quotes_as_well(scheme: str, tmp_path: Path) -> None:
    with started(tmp_path, scheme) as rsa:
        quote = rsa.quote(b"\7" * 32)
    assert check_quote(quote, b"\7" * 32).pcrs == collector.PCRS
    flip = quote.signature[:-1] + bytes([quote.signature[-1] ^ 1])
    with pytest.raises(BadSignatureError):
        check_quote(replace(quote, signature=flip), b"\7" * 32)
    stranger.load("beyond.host").check_quote(quote.as_json(), b"\7" * 32)
