"""What the verdict says of confidential hardware, and of a host that is asked for and absent."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from provenance.capture.ship import host as collector
from provenance.cli import main
from provenance.errors import InputError
from provenance.proofs.host.certificates import fingerprint
from provenance.proofs.host.evidence import HostEvidence, Report
from provenance.settings import load
from provenance.settings.beyond.host import HostSettings
from provenance.tracker import ProvenanceTracker
from provenance.verify.checks.beyond.attested import Pins
from provenance.verify.trust import of_options, of_settings
from tests.support.beyond.host_world import Verified, recorded
from tests.support.beyond.paper_guest import in_guest, with_gpus
from tests.support.beyond.paper_tee import (
    CHIP,
    VENDOR,
    certificate_table,
    chip_certificate,
    der,
    gpu_report,
    snp_report,
    td_quote,
)
from tests.support.beyond.paper_tpm import quote
from tests.support.model_world import deployment
from tests.support.verify_world import before, ending

pytestmark = pytest.mark.slow
PINNED = {"host_vendors": frozenset({fingerprint(VENDOR)})}
BY = "certified by CN=test vendor, pinned: trust.host_vendors"
NOBODY = "by a key whose certificates nobody pinned: any program can make such"
GUEST = f"AMD SEV-SNP {CHIP.hex()[:16]}"
Made = Callable[[bytes], Report]


def lines(run: Verified, **trust: Any) -> list[str]:
    report = run.report(**trust)
    assert report.findings == ()
    told = [each for each in report.verdict.rests_on if each.startswith("host of ")]
    return [each.partition(": ")[2] for each in told]


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Verified]:
    """A run in a confidential guest, from the makers of the reports at its start and end."""

    def run(starts: Sequence[Made], ends: Sequence[Made]) -> Verified:
        def collect(settings: HostSettings, phase: str, extra: bytes) -> HostEvidence:
            made = starts if phase == "start" else ends
            return HostEvidence(phase, reports=tuple(each(extra) for each in made))

        monkeypatch.setattr(collector, "collect", collect)
        return recorded(tmp_path, {"reports": True})

    return run


def test_a_guest_is_shipped_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Linux' files and NVIDIA's tool to the verdict, by both verifiers."""
    table = certificate_table(vcek=chip_certificate(), ark=VENDOR)
    in_guest(monkeypatch, tmp_path / "tsm", lambda data: snp_report(data, None, ()), table)
    with_gpus(monkeypatch, tmp_path)
    run = recorded(tmp_path, {"reports": True})
    first, gpu, second = lines(run, **PINNED)
    assert first == f"{GUEST}, {BY}, measurement {'5e' * 48} at both ends, unchanged"
    assert gpu.startswith("NVIDIA GPU ")
    assert gpu.endswith(f", {BY} at both ends, unchanged")
    assert second == gpu
    assert run.report().checks[14].detail == "6 reports"
    assert run.stranger.problems == []
    told = [line for line in run.stranger.unproven if "a report of " in line]
    assert len(told) == 6
    assert all(fingerprint(VENDOR) in line for line in told)
    assert list((tmp_path / "tsm").iterdir()) == []
    assert NOBODY in lines(run)[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'engine="podman-5.4.2"\nname="x"\nimageid="{"5a" * 32}"\nrootless=1\n', "5a" * 32),
        ("", None),  # without --privileged
        ('imageid="latest"\n', None),
        (f'image="imageid={"5a" * 32}"\n', None),
    ],
)
def test_the_image_is_what_podman_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, told: str | None
) -> None:
    path = tmp_path / ".containerenv"
    path.write_text(text)
    monkeypatch.setattr(collector, "CONTAINER", path)
    software = dict(collector.collect(HostSettings(), "start", bytes(32)).software)
    assert software.get("podman_image") == (told and f"sha256:{told}")


def test_a_root_of_a_file_stands_behind_reports(
    guest: Callable[..., Verified], tmp_path: Path
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(VENDOR.public_bytes(Encoding.PEM))
    [line] = lines(guest([td_quote], [td_quote]), host_roots=(root,))
    assert "certified by CN=test vendor, pinned: trust.host_roots, MRTD 4d4d" in line


OTHER_CHIP = bytes(64)
SAID: dict[str, tuple[Made, Made, str]] = {
    "another chip": (
        snp_report,
        lambda extra: snp_report(
            extra, {0x1A0: OTHER_CHIP}, (chip_certificate(chip=OTHER_CHIP), VENDOR)
        ),
        f"at both ends, another at the end: AMD SEV-SNP {'0' * 16}, {BY}",
    ),
    "another kind": (td_quote, snp_report, f"at both ends, another at the end: {GUEST}, {BY}"),
    "another measurement": (
        td_quote,
        partial(td_quote, body={328: b"\2", 136: b"\3"}),
        "at both ends, MRTD changed in between; RTMR0 changed in between",
    ),
    "certificates of nobody at the end": (
        snp_report,
        lambda extra: snp_report(extra, None, (chip_certificate(),)),
        "at both ends, the end's is by none of the hosts that you pinned",
    ),
    "a host that hands out no certificates": (
        partial(snp_report, chain=()),
        snp_report,
        "at the end alone; no report of TDX or SEV-SNP 5 at the start: 1184 bytes, not verified: "
        "its host handed out no certificates",
    ),
    "a guest of another vendor": (
        lambda extra: Report("arm_cca_guest", b"\1"),
        lambda extra: Report("arm_cca_guest", b"\1"),
        "no report of arm_cca_guest at the start: 1 bytes, which this release does not verify",
    ),
}


def test_the_verdict_says_what_differs(guest: Callable[..., Verified]) -> None:
    starts, ends, expected = zip(*SAID.values(), strict=True)
    run = guest(starts, ends)
    for said, line in zip(lines(run, **PINNED), expected, strict=True):
        assert line in said
    assert run.stranger.problems == []


def test_one_of_another_run_or_moment_is_refused(guest: Callable[..., Verified]) -> None:
    kinds: list[Made] = [td_quote, snp_report, gpu_report]
    run = guest(kinds, [lambda extra, made=made: made(b"\7" * 32) for made in kinds])
    found = run.report(**PINNED).findings
    assert {(each.check, each.subject) for each in found} == {(15, "training/host/1")}
    said = [each.problem for each in found]
    names = ("tdx: report data is ", "sev-snp: report data is ", "nvidia: nonce is ")
    assert all(line.startswith(f"{name}0707") for line, name in zip(said, names, strict=True))
    assert len(said) == 3
    assert any("training/host/1" in problem for problem in run.stranger.problems)


def test_what_was_asked_for_and_is_absent_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProvenanceTracker, "_attest", lambda tracker, phase: None)
    run = recorded(tmp_path, {"reports": True, "image": "sha256:ab"})
    [said] = lines(run)
    assert said == "asked for (reports, image), and no record of it is here"
    assert run.report().checks[14].detail == "asked for, and no record of a host is here"
    assert run.stranger.problems == []
    assert any("asked for ['reports', 'image']" in line for line in run.stranger.unproven)


def test_a_reader_can_require_it(guest: Callable[..., Verified]) -> None:
    def missing(run: Verified, **trust: Any) -> list[str]:
        report = run.report(**trust, require=("host",))
        return [line for line in report.verdict.missing if "evidence of a host" in line]

    run = guest([td_quote], [td_quote])
    assert missing(run, **PINNED) == []
    none = "no evidence of a host at start and end by a key that is pinned: producer "
    [line] = missing(run)
    assert line.startswith(none)
    assert line.endswith(f"{NOBODY}, MRTD {'4d' * 48} at both ends, unchanged")
    assert of_options(require=["key,host"]).require == ("key", "host")
    with pytest.raises(InputError, match="identity, host"):
        of_options(require=["hosts"])
    lacking = guest([], [td_quote]).report(**PINNED, require=("host",)).verdict.missing
    assert "at the end alone; no report of TDX or SEV-SNP at the start" in lacking[0]


def test_a_run_without_a_host_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployment(tmp_path, ending(before()), anchor=False)
    options = ["verify", "latest", "--base-dir", str(tmp_path), "--offline", "--require", "host"]
    assert main(options) != 0
    assert "no evidence of a host at start and end" in capsys.readouterr().out


def test_the_command_tries_what_this_machine_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"host": {"reports": True}}))
    options = ["host", "--config", str(config), "--json"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(options) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["report of TDX or SEV-SNP"] == "no /sys/kernel/config/tsm/report here"
    assert said["nvattest"] == "not installed"
    in_guest(monkeypatch, tmp_path / "tsm", lambda data: snp_report(data, None, ()))
    assert main(options) == 1
    said = json.loads(capsys.readouterr().out)
    reason = "1184 bytes, not verified: its host handed out no certificates"
    assert said["report of TDX or SEV-SNP"] == reason
    debug = {120: b"\1"}
    for body, code, line in (({}, 0, "works: Intel TDX "), (debug, 1, "tdx: the TD's attributes")):
        made = partial(td_quote, body=body)
        in_guest(monkeypatch, tmp_path / f"tsm-{code}", made)
        assert main(options) == code
        said = json.loads(capsys.readouterr().out)
        assert said["report of TDX or SEV-SNP"].startswith(line)


def test_vendors_roots_count_until_a_reader_pins_others() -> None:
    intel = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    given: list[dict[str, Any]] = [{}, {"host_vendors": []}, {"host_keys": ["ab" * 32]}]
    pins = [Pins.of(of_settings(load({"trust": own}))).vendors for own in given]
    assert [intel in vendors for vendors in pins] == [True, False, False]
    both = {"host_keys": ["ab" * 32], "host_vendors": [intel]}
    assert Pins.of(of_settings(load({"trust": both}))).vendors == {intel}


def test_a_quote_and_a_report_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(settings: HostSettings, phase: str, extra: bytes) -> HostEvidence:
        problems = ("report of NVIDIA: nvattest: no answer within 10.0 s",)
        return HostEvidence(phase, quote(extra), reports=(td_quote(extra),), problems=problems)

    monkeypatch.setattr(collector, "collect", collect)
    run = recorded(tmp_path, {"tpm": {"ak": "0x81010002"}, "reports": True})
    tpm, td, gpu = lines(run, **PINNED)
    assert tpm.startswith("TPM key ")
    assert td.startswith("Intel TDX ")
    reason = "nvattest: no answer within 10.0 s"
    assert gpu == f"no report of NVIDIA at the start: {reason}; at the end: {reason}"


VERSION_25 = der(VENDOR)[0].replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x18")
PEM = b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % b64encode(VERSION_25)
OF_VERSION_25 = json.dumps(
    {"evidences": [{"evidence": "AA==", "certificate": b64encode(PEM).decode()}]}
)


@pytest.mark.parametrize(
    "answer", ["x", "{}", '{"evidences": null}', '{"evidences": [{}]}', "[" * 9999, OF_VERSION_25]
)
def test_a_tool_that_says_nothing_useful_is_a_line_of_the_record(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvattest"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = collector.collect(HostSettings(reports=True), "start", bytes(32))
    assert found.reports == ()
    assert found.problems[1].startswith("report of NVIDIA: nvattest")


def test_what_a_killed_shipper_left_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the next one has the same process id."""
    in_guest(monkeypatch, tmp_path / "tsm", snp_report)
    rmdir = Path.rmdir
    monkeypatch.setattr(Path, "rmdir", lambda path: None)  # killed before
    collector.collect(HostSettings(reports=True), "start", bytes(32))
    monkeypatch.setattr(Path, "rmdir", rmdir)
    assert len(collector.collect(HostSettings(reports=True), "end", bytes(32)).reports) == 1


def test_a_report_that_no_record_takes_is_a_line_of_it(
    guest: Callable[..., Verified],
) -> None:
    run = guest([lambda extra: Report("sev_guest", b"\1", (b"\1",) * 9)], [])
    [said] = lines(run)
    assert said.startswith("no quote at the start: body: reports[0].certificates: ")
