"""What the verdict says of a run's hosts: whose key, which differences, and what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from provenance.capture.keys import new_run_keys
from provenance.capture.ship import host as collector
from provenance.capture.ship import tools
from provenance.cli import main
from provenance.errors import ConfigError
from provenance.formats.event import Event
from provenance.formats.producers.statement import chain_start
from provenance.formats.record import Kind
from provenance.proofs.host.evidence import HostEvidence, qualifying_data
from provenance.proofs.host.tpm import key_digest
from provenance.settings import load
from provenance.settings.beyond.host import HostSettings, TpmSettings
from tests.support.beyond.host_world import Verified, trained
from tests.support.beyond.paper_tpm import KEY, ROOT, certificate, der, public, quote
from tests.support.model_world import deployment
from tests.support.verify_world import KEY as RUN_KEY
from tests.support.verify_world import OWN, RUN, World, before, ending, finished

TPM = TpmSettings(ak="0x81010002")
PCRS = {0: b"\x0a" * 32, 7: b"\x07" * 32}
OTHER = ec.derive_private_key(0xB0B, ec.SECP256R1())
NOBODY = "which nobody pinned: any program can make such a key"
Ends = Callable[[str, bytes], HostEvidence]


@pytest.fixture
def attested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Ends], Verified]:
    """A run whose shipper collects what the function of phase and qualifying data gives."""

    def run(ends: Ends) -> Verified:
        def collect(settings: HostSettings, phase: str, qualifying: bytes) -> HostEvidence:
            return ends(phase, qualifying)

        monkeypatch.setattr(collector, "collect", collect)
        return trained(tmp_path, TPM)

    return run


def paper(phase: str, extra: bytes, **changes: Any) -> HostEvidence:
    clock = 2_000 if phase == "end" else 1_000
    return HostEvidence(phase, quote(extra, **{"pcrs": PCRS, "clock": clock, **changes}))


def at_end(**changes: Any) -> Ends:
    return lambda phase, extra: paper(phase, extra, **(changes if phase == "end" else {}))


def without(phase: str, problem: str) -> Ends:
    missing = HostEvidence(phase, problems=(problem,))
    return lambda own, extra: missing if own == phase else paper(own, extra)


HEAD = f"TPM key {key_digest(public())}, {NOBODY}, quoted PCRs 0, 7"
SAID: dict[str, tuple[Ends, str]] = {
    "nothing differs": (at_end(), f"{HEAD} at both ends, unchanged"),
    "another key": (
        at_end(key=OTHER),
        f"{HEAD} at both ends, another key at the end: {key_digest(public(OTHER))}, {NOBODY}",
    ),
    "another PCR": (
        at_end(pcrs=PCRS | {7: bytes(32)}),
        f"{HEAD} at both ends, PCR 7 changed in between",
    ),
    "a restart": (
        at_end(resets=8),
        f"{HEAD} at both ends, the TPM was restarted in between (its counts: 7.0 at the start, "
        "8.0 at the end)",
    ),
    "a clock that goes back": (
        at_end(clock=999),
        f"{HEAD} at both ends, the TPM's clock went back from 1000 to 999 ms",
    ),
    "no quote at the end": (
        without("end", "tpm: tpm2_quote: no answer within 10 s"),
        f"{HEAD} at the start alone; no quote at the end: tpm: tpm2_quote: no answer within 10 s",
    ),
    "no quote at the start": (
        without("start", "tpm: busy"),
        f"{HEAD} at the end alone; no quote at the start: tpm: busy",
    ),
    "no quotes": (
        lambda phase, extra: HostEvidence(phase),
        "no quote at the start: no TPM was asked for; at the end: no TPM was asked for",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "line"), SAID.values(), ids=SAID)
def test_the_verdict_says_what_the_two_ends_say(
    ends: Ends, line: str, attested: Callable[[Ends], Verified]
) -> None:
    run = attested(ends)
    assert run.line() == line
    assert run.stranger.problems == []


@pytest.mark.slow
def test_a_quote_of_another_run_or_moment_is_refused(
    attested: Callable[[Ends], Verified],
) -> None:
    seen: dict[str, bytes] = {}

    def replayed(phase: str, extra: bytes) -> HostEvidence:
        return paper(phase, seen.setdefault("start", extra))

    [finding] = attested(replayed).report().findings
    assert (finding.check, finding.subject) == (15, "training/host/1")
    assert finding.problem.startswith(f"tpm: qualifying data is {seen['start'].hex()}, expected ")


@pytest.mark.slow
def test_a_certificate_leads_to_a_pinned_root(
    attested: Callable[[Ends], Verified], tmp_path: Path
) -> None:
    chain = der(certificate("ak", KEY, days=36_500))
    run = attested(lambda phase, extra: paper(phase, extra, certificates=chain))
    root = tmp_path / "root.pem"
    assert run.line().startswith(HEAD)
    root.write_bytes(ROOT.public_bytes(Encoding.PEM))
    pinned = "certified by CN=test root, pinned: trust.host_roots"
    assert pinned in run.line(host_roots=(root,))
    root.write_text("x")
    with pytest.raises(ConfigError, match=r"trust.host_roots: .*root.pem: not certificates in PEM"):
        run.report(host_roots=(root,))


PINS: dict[str, Any] = {"host_keys": frozenset({key_digest(public())})}
FOREIGN: dict[str, Any] = {"host_keys": frozenset({key_digest(public(OTHER))})}
STRANGER = f"TPM key {key_digest(public())}, by none of the hosts that you pinned, quoted PCRs 0, 7"
LACKING: dict[str, tuple[Ends, dict[str, Any], str | None]] = {
    "the pinned key at both ends": (at_end(), PINS, None),
    "another key": (at_end(), FOREIGN, f"{STRANGER} at both ends, unchanged"),
    "another key at the end": (
        at_end(key=OTHER),
        PINS,
        f"at both ends, another key at the end: {key_digest(public(OTHER))}, by none of the hosts "
        "that you pinned",
    ),
    "no quote at the end": (without("end", "tpm: busy"), PINS, "no quote at the end: tpm: busy"),
    "no quotes": (lambda phase, extra: HostEvidence(phase), PINS, "no quote at the start: no TPM"),
    "roots of other vendors alone": (
        at_end(),
        {"host_vendors": frozenset({"ab" * 32})},
        f"{STRANGER} at both ends, unchanged",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "pins", "line"), LACKING.values(), ids=LACKING)
def test_where_a_reader_pins_hosts_evidence_by_no_other_counts(
    ends: Ends, pins: dict[str, Any], line: str | None, attested: Callable[[Ends], Verified]
) -> None:
    run = attested(ends)
    unpinned = run.report(require=("key",)).verdict.missing
    for require in (("key",), ("key", "host")):
        report = run.report(require=require, **pins)
        assert report.findings == ()
        assert not any("nobody pinned" in each for each in report.verdict.rests_on)
        missing = [each for each in report.verdict.missing if each not in unpinned]
        if line is not None:
            [told] = missing
            assert told.startswith("(15) hosts attest where it ran: no host that you pinned ")
            assert line in told
        else:
            assert missing == []


@pytest.mark.slow
def test_where_a_reader_pins_hosts_a_run_without_their_record_is_not_verified() -> None:
    world = finished()
    assert world.verify().outcome == "verified"
    report = world.verify(trust=replace(OWN, **PINS))
    [missing] = report.verdict.missing
    assert missing.endswith("attests producer 70707070 (rank 0): no record of it is here")
    assert report.outcome == "anchored"


@pytest.mark.slow
def test_a_quote_that_came_before_the_configuration_is_said_to_have() -> None:
    world, producer = World(names=()), b"p" * 16
    run_key = RUN_KEY.public_key().public_bytes_raw()
    wanted = qualifying_data("start", RUN, run_key, chain_start(RUN, producer))
    early = (Kind.HOST, None, paper("start", wanted).as_json())
    world.ingest(world.batch(ending([early, *before()])))
    report = world.verify()
    assert report.findings == ()
    [line] = [each for each in report.verdict.rests_on if each.startswith("host of ")]
    assert line.endswith("at the end: no record; the first came before the configuration")


@pytest.mark.slow
def test_a_withheld_record_leaves_it_open(attested: Callable[[Ends], Verified]) -> None:
    run = attested(at_end())
    records = [
        replace(item, data=None, withheld=True) if item.kind is Kind.HOST else item
        for item in run.evidence.records
    ]
    report = run.world.verify(replace(run.evidence, records=tuple(records)))
    assert report.findings == ()
    assert report.checks[14].detail == "a record of a host is withheld"


def test_a_machine_without_a_tpm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = HostSettings(tpm=TPM, event_log=tmp_path / "none", reports=True)
    found = collector.collect(settings, "start", bytes(32))
    assert found.quote is None
    assert found.problems == (
        "tpm: tpm2_readpublic: not installed here (tpm2-tools)",
        f"event log {tmp_path / 'none'}: No such file or directory",
        "report of TDX or SEV-SNP: no /sys/kernel/config/tsm/report here",
    )


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tpm2_readpublic"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "WAIT_S", 0.1)
    found = collector.collect(HostSettings(tpm=TPM), "start", bytes(32))
    assert found.problems == ("tpm: tpm2_readpublic: no answer within 0.1 s",)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"tpm": {}}, "host.tpm.ak: missing"),
        ({"tpm": {"ak": "-c x"}}, 'host.tpm.ak: found "-c x", expected a handle such as'),
        ({"tmp": {}}, "host.tmp: unknown key"),
        ({"event_log": 1}, "host.event_log: "),
    ],
)
def test_settings_name_the_key(config: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"host": config})
    assert re.search(re.escape(line), str(caught.value)), caught.value


@pytest.mark.slow
def test_the_command_shows_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = "tpm: tpm2_quote: not installed here (tpm2-tools)"
    told = HostEvidence("start", software=(("kernel", "6.1"),), problems=(problem,))
    forged = quote(bytes(32))
    events = [*before(), (Kind.HOST, None, told.as_json())]
    events += [(Kind.HOST, None, HostEvidence("end", forged).as_json())]
    deployment(tmp_path, ending(events), anchor=False)
    assert main(["host", "latest", "--base-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"start  kernel 6.1\n         {problem}\n" in said
    assert f"no quote at the start: {problem}; at the end: one that does not hold" in said
    assert "FOUND training/host/1: tpm: qualifying data is 0000" in said
    assert main(["host", "latest", "--base-dir", str(tmp_path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in document["records"]] == [None, key_digest(public())]


@pytest.mark.slow
def test_the_command_shows_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["host", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tpm2-tools"] == "not installed"
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"host": {"tpm": {"ak": "0x81010002"}}}))
    assert main(["host", "--config", str(config), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["quote"] == "tpm: tpm2_readpublic: not installed here (tpm2-tools)"


def test_settings_that_no_tracker_writes_are_a_line_of_the_record(tmp_path: Path) -> None:
    keys = new_run_keys()
    made = collector.HostCollector(keys, bytes(16), tmp_path)
    event = Event(3, Kind.HOST, None, 0, 0, {"phase": "end", "tpm": 3})
    [line] = made.collected(event, bytes(32)).fields["problems"]
    assert line.startswith("settings: Expected `object | null`, got `int`")


def test_a_full_disk_is_a_line_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("provenance.files.replace", full)
    made = collector.HostCollector(new_run_keys(), bytes(16), tmp_path)
    event = Event(3, Kind.HOST, None, 0, 0, {"phase": "start"})
    body = made.collected(event, bytes(32)).fields
    assert body["problems"] == ["no room to keep the evidence"]
