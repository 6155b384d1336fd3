"""``provenance verify``, ``provenance report`` and ``provenance path``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from provenance import wiring
from provenance.commands.output import out, print_json, print_table, settings_of
from provenance.errors import InputError
from provenance.settings import READERS
from provenance.verify.outcome import VerificationReport


def verify(arguments: argparse.Namespace) -> int:
    """Check a run from the database, or a bundle folder."""
    from provenance.verify.verifier import CHECKS

    if arguments.explain:
        if arguments.json:
            print_json({"checks": [c.as_dict() for c in CHECKS]})
        else:
            for check in CHECKS:
                out.print(f"({check.number}) {check.title}: {check.proves}", markup=False)
                out.print(f"    not: {check.limits}", markup=False)
        return 0
    if arguments.subject is None:
        raise InputError("verify: found no RUN or PATH, expected one of the two")
    settings = settings_of(arguments, secrets=READERS)
    path = Path(arguments.subject)
    if path.is_dir():
        report = wiring.verify_path(
            settings, path, offline=arguments.offline, headers=arguments.headers
        )
    else:
        report = wiring.verify_run(
            settings, arguments.subject, offline=arguments.offline, headers=arguments.headers
        )
    if arguments.json:
        print_json(report.as_dict())
    else:
        _print(report)
    return report.exit_code


def _print(report: VerificationReport) -> None:
    out.print(f"run {report.run}: {report.outcome}", markup=False)
    for phase, root in report.roots.items():
        out.print(f"  {phase:<12} {root}", markup=False)
    print_table(("check", "title", "status"), report.check_rows())
    rows = report.network_rows()
    if rows:
        out.print()
        print_table(("network", "seal", "status", "transaction", "block", "depth"), rows)
    for finding in report.findings:
        out.print(f"FOUND ({finding.check}) {finding.subject}: {finding.problem}", markup=False)
    for line in report.not_checked:
        out.print(f"not checked: {line}", markup=False)


def report(arguments: argparse.Namespace) -> int:
    """Verify, then write report.html, report.json and the evidence folder."""
    settings = settings_of(arguments, secrets=READERS)
    folder = Path(arguments.output) if arguments.output else None
    path = wiring.write_report(settings, arguments.run_id, folder)
    if arguments.json:
        print_json({"report_path": str(path)})
    else:
        out.print(str(path), markup=False)
    return 0


def path(arguments: argparse.Namespace) -> int:
    """The record's SHA-256 and every step from it up to the run root."""
    from provenance.verify.by_hand import path_of_record_file

    steps = path_of_record_file(Path(arguments.record))
    if arguments.json:
        print_json(json.loads(steps.to_json()))
    else:
        out.print(steps.text(), markup=False)
    return 0
