"""``provenance host``: what this machine can attest, and what a run's hosts did."""

from __future__ import annotations

import argparse
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from provenance.app.verify import verify_run
from provenance.capture.ship.host import collect
from provenance.capture.ship.reports import NVATTEST, NVIDIA_DRIVER, TSM
from provenance.cli.output import answer, settings_of
from provenance.errors import FormatError, IntegrityError
from provenance.formats.record import Kind, Record
from provenance.proofs.host.evidence import HostEvidence, read_host_evidence
from provenance.proofs.host.tpm import check_quote, key_digest
from provenance.settings import Settings
from provenance.verify.catalogue import HOST
from provenance.verify.checks.beyond.attested import Pins, pieces
from provenance.verify.trust import of_settings

EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
TPM_DEVICE: Final = Path("/dev/tpmrm0")


def host(arguments: argparse.Namespace) -> int:
    """Of a run, or of this machine; 1 where a quote or report does not hold, or cannot be had."""
    settings = settings_of(arguments, secrets=False)
    if arguments.run_id is not None:
        return _of_run(arguments, settings)
    document, works = dict(_of_machine(settings)), True
    asked = settings.host
    if asked is not None and (asked.tpm is not None or asked.reports):
        wanted = secrets.token_bytes(32)
        evidence = collect(asked, "start", wanted)
        if asked.tpm is not None:
            key, problem = _quoted(evidence, wanted)
            document["quote"] = problem or f"works; pin its key with trust.host_keys: {key}"
            document["key"], works = key, problem is None
        if asked.reports:
            reported = dict(_reported(evidence, wanted, Pins.of(of_settings(settings))))
            document |= {
                name: problem or f"works: {line}" for name, (line, problem) in reported.items()
            }
            works &= not any(problem for _, problem in reported.values())
    lines = (f"{name:10} {text}" for name, text in document.items() if name != "key")
    answer(arguments, document, *lines)
    return 0 if works else 1


def _of_machine(settings: Settings) -> Iterator[tuple[str, Any]]:
    found = shutil.which("tpm2_quote")
    yield "tpm2-tools", found or "not installed"
    yield "tpm", str(TPM_DEVICE) if TPM_DEVICE.exists() else f"no {TPM_DEVICE}"
    yield "event log", str(EVENT_LOG) if EVENT_LOG.exists() else f"no {EVENT_LOG}"
    yield "reports", f"{TSM} (TDX, SEV-SNP)" if TSM.is_dir() else f"no {TSM}"
    yield "nvidia", str(NVIDIA_DRIVER) if NVIDIA_DRIVER.exists() else f"no {NVIDIA_DRIVER}"
    yield NVATTEST, shutil.which(NVATTEST) or "not installed"
    asked = settings.host is not None
    yield "host", "collected: the configuration has it" if asked else "not in the configuration"


def _quoted(evidence: HostEvidence, wanted: bytes) -> tuple[str | None, str | None]:
    """The key of a quote over a random number, or why there is none."""
    problems = [line for line in evidence.problems if not line.startswith("report of ")]
    if evidence.quote is None:
        return None, "; ".join(problems)
    try:
        check_quote(evidence.quote, wanted)
    except (FormatError, IntegrityError) as error:
        return None, str(error)
    return key_digest(evidence.quote.public), "; ".join(problems) or None


def _reported(
    evidence: HostEvidence, wanted: bytes, pins: Pins
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """What each report over a random number shows, and why it does not hold."""
    for name, check in pieces(replace(evidence, quote=None)):
        try:
            line, problem = "", None
            if isinstance(check, str):
                problem = check
            else:
                line = check(wanted, datetime.now(UTC), pins).line
        except (FormatError, IntegrityError) as error:
            problem = str(error)
        yield name, (line, problem)
    for text in evidence.problems:
        name, _, problem = text.partition(": ")
        if name.startswith("report of "):
            yield name, ("", problem)


def _of_run(arguments: argparse.Namespace, settings: Settings) -> int:
    report = verify_run(settings, arguments.run_id, offline=True)
    records: list[dict[str, Any]] = []
    lines = [f"run {report.run}"]
    for item in report.evidence.records:
        if item.kind is Kind.HOST and isinstance(item.decoded, Record):
            try:
                told = read_host_evidence(item.decoded.body)
            except FormatError:  # check (15) says so
                continue
            key = told.quote and key_digest(told.quote.public)
            records.append({**told.as_json(), "path": item.path, "key": key})
            software = ", ".join(f"{name} {value}" for name, value in told.software)
            lines.append(f"  {told.phase:6} {software}")
            lines += [f"         {problem}" for problem in told.problems]
    told_of = [note.problem for note in report.notices if note.check == HOST]
    found = [each for each in report.findings if each.check == HOST]
    problems = [f"FOUND {each.subject}: {each.problem}" for each in found]
    if not records and not problems:
        lines.append("  no record of a host")
    document = {"run": str(report.run), "hosts": told_of, "problems": problems, "records": records}
    answer(arguments, document, *lines, *(f"  {line}" for line in told_of), *problems)
    return 1 if problems else 0
