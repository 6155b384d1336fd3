"""Where a run ran: a real TPM's quotes at both ends, and what of them is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from provenance.bundle.writer import bundle_files
from provenance.capture.ship import host as collector
from provenance.capture.ship.loop import Shipper
from provenance.evidence.run_evidence import RunEvidence
from provenance.proofs.host.evidence import HostEvidence, Quote
from provenance.proofs.host.tpm import key_digest
from provenance.settings.beyond.host import HostSettings, TpmSettings
from provenance.stores.memory_transport import MemoryTransport
from provenance.tracker import ProvenanceTracker
from provenance.verify.report import VerificationReport
from tests.support import stranger
from tests.support.beyond.paper_tpm import event_log
from tests.support.nodes.tpm import Tpm, started
from tests.support.verify_world import OWN, World

pytestmark = pytest.mark.slow

BOOT = [(0, b"firmware"), (4, b"boot loader"), (7, b"secure boot")]
LOG = event_log(BOOT)
QUIET: Callable[[], object] = lambda: None  # noqa: E731


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


def trained(base: Path, tpm: TpmSettings, between: Callable[[], object] = QUIET) -> Verified:
    """A run on a host with this TPM, shipped when it has begun and when it has ended."""
    (base / "event_log").write_bytes(LOG)
    own = {"ak": tpm.ak, "tcti": tpm.tcti}
    config = {"host": {"tpm": own, "event_log": str(base / "event_log"), "image": "sha256:ab"}}
    tracker, transport = ProvenanceTracker(base, config), MemoryTransport()
    tracker.store_merkle_on_blockchain_before_training({"epochs": 1})
    ship(tracker, transport)
    between()
    tracker.track_epoch(1, {"loss": 0.5})
    tracker.store_merkle_on_blockchain_after_training({"accuracy": 0.9})
    ship(tracker, transport)
    world = World(names=())
    world.ingest(*(each.payload for each in transport.read("worker", 1000)))
    return Verified(world, world.evidence(tracker.run))


def ship(tracker: ProvenanceTracker, transport: MemoryTransport) -> None:
    with Shipper(tracker.spool_dir, transport) as shipper:
        shipper.run_once()


class Verified:
    """A run's evidence, and what both verifiers say of it."""

    def __init__(self, world: World, evidence: RunEvidence) -> None:
        self.world, self.evidence = world, evidence

    def report(self, **trust: Any) -> VerificationReport:
        return self.world.verify(self.evidence, trust=replace(OWN, **trust))

    def line(self, **trust: Any) -> str:
        report = self.report(**trust)
        assert report.findings == ()
        [line] = [each for each in report.verdict.rests_on if each.startswith("host of ")]
        return line.partition(": ")[2]

    @property
    def stranger(self) -> Any:
        return stranger.load().Bundle(bundle_files(self.evidence))


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


DIFFERENT: dict[str, tuple[Callable[[Tpm], object], str]] = {
    "PCRs changed": (lambda tpm: tpm.extend(14, b"\1" * 32), "at both ends, PCR 14 changed"),
}


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
