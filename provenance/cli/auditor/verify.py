"""``provenance verify``, ``provenance report`` and ``provenance path``."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.app.bundle import bundle_at
from provenance.app.report import write_report
from provenance.app.verify import Options, verify_path, verify_run
from provenance.cli.output import (
    answer,
    json_line,
    out,
    print_json,
    print_table,
    print_text,
    progress,
    settings_of,
    when,
)
from provenance.errors import InputError
from provenance.formats.fields import as_json
from provenance.log import shown
from provenance.settings import READERS, Settings
from provenance.verify.catalogue import NETWORKS
from provenance.verify.report import Finding, RunResult, VerificationReport
from provenance.verify.trust import of_options
from provenance.watch.attest import with_attestations

if TYPE_CHECKING:
    from provenance.app.verify_all import AllRuns


def verify(arguments: argparse.Namespace) -> int:
    """Check a run from the database, or a bundle: a folder, a zip, or what a CID names."""
    from provenance.verify.verifier import CHECKS

    if arguments.explain:
        pairs = ((f"({c.number}) {c.title}: {c.proves}", f"    not: {c.limits}") for c in CHECKS)
        return answer(arguments, {"checks": as_json(CHECKS)}, *chain(*pairs))
    if arguments.all:
        return _all(arguments)
    if arguments.subject is None:
        raise InputError("verify: found no RUN or PATH, expected one of the two")
    gc.set_threshold(100_000, 50)  # evidence: many objects, no cycles, a third of the time
    settings, options = settings_of(arguments, secrets=READERS), _options(arguments)
    if arguments.parent is not None:
        options["parent"] = _verified(settings, arguments.parent, options)
    options["proofs"] = arguments.proof or ()
    report = _verified(settings, arguments.subject, options)
    report = with_attestations(settings, report, arguments.offline)
    if arguments.json:
        print_json(report.as_dict())
    else:
        _print(report)
        if arguments.cross:
            _print_cross(report)
    return report.exit_code


def _verified(settings: Settings, subject: str, options: Options) -> VerificationReport:
    path = bundle_at(settings, subject)
    if path is not None:
        return verify_path(settings, path, **options)
    return verify_run(settings, subject, **options)


def _options(arguments: argparse.Namespace) -> Options:
    """What a verification of one run, of a bundle and of all runs takes alike."""
    return {
        "offline": arguments.offline,
        "headers": arguments.headers or (),
        "quorum": arguments.quorum,
        "trust": of_options(
            arguments.trust or (),
            arguments.trust_chain or (),
            arguments.witness or (),
            arguments.witness_quorum,
            arguments.block_hash or (),
            arguments.require or (),
        ),
    }


def _all(arguments: argparse.Namespace) -> int:
    """Every run: a line each as it is done, so that nothing has to be kept."""
    from provenance.app.verify_all import verify_all

    if arguments.subject is not None:
        raise InputError(f"verify: found --all and {arguments.subject}, expected one of the two")
    given = {"--parent": arguments.parent, "--cross": arguments.cross, "--proof": arguments.proof}
    for option, value in given.items():
        if value:
            raise InputError(f"{option}: found --all, expected one RUN or PATH")
    settings = settings_of(arguments, secrets=READERS)
    with verify_all(settings, **_options(arguments)) as runs:
        lines = _json_lines(runs) if arguments.json else map(_line, runs)
        with progress() as bars:
            task = bars.add_task("verifying", total=len(runs))
            for line in lines:
                sys.stdout.write(shown(line) + "\n")
                bars.update(task, completed=runs.totals.runs)
        totals = runs.totals
    if arguments.json:
        sys.stdout.write(f'], "totals": {json_line(totals.as_dict())}}}\n')
    else:
        counts = ", ".join(f"{number} {name}" for name, number in totals.outcomes.items() if number)
        sys.stdout.write(f"{totals.runs} runs: {counts or 'there are none yet'}\n")
    sys.stdout.flush()
    return totals.exit_code


def _json_lines(runs: AllRuns) -> Iterator[str]:
    """The beginning of one JSON object, up to its last run."""
    before = '{"runs": ['
    for result in runs:
        yield before + json_line(result.as_dict())
        before = ","
    if before != ",":
        yield before


def _line(result: RunResult) -> str:
    line = f"{result.run}  {result.outcome:<10}"
    report, findings = result.report, result.findings
    if findings:
        first = findings[0]
        number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        line += f"  {number}: ({first.check}) {first.subject}: {first.problem}"
    elif report is None:
        line += f"  {result.problem}"
    else:
        if report.verdict.missing:
            line += "  " + "; ".join(report.verdict.missing)
        else:
            networks = sorted(name for name, seals in report.networks.items() if seals)
            line += f"  {', '.join(networks)}" if report.online and networks else ""
        if report.notices:
            line += "  1 note" if len(report.notices) == 1 else f"  {len(report.notices)} notes"
    return line.rstrip()


def _print(report: VerificationReport) -> None:
    out.print(f"run {report.run}: {report.outcome}")
    out.print(f"  training, as its records say: {report.state.line}")
    lacking = [notice for notice in report.notices if notice.check == NETWORKS]
    for line in (*report.verdict.lines(), *map(_note, lacking)):
        out.print(f"  {line}")
    for phase, root in report.roots.items():
        out.print(f"  {phase:<12} {root}")
    print_table(("check", "title", "status"), report.check_rows())
    rows = report.network_rows()
    if rows:
        out.print()
        print_table(("chain", "seal", "status", "transaction", "block", "depth"), rows)
    for finding in report.findings:
        out.print(f"FOUND ({finding.check}) {finding.subject}: {finding.problem}")
    for notice in report.notices:
        if notice not in lacking:
            out.print(_note(notice))
    out.print(f"the ledger's own count, which nothing signs: {report.evidence.ledger}")
    for line in report.not_checked:
        out.print(f"not checked: {line}")


def _print_cross(report: VerificationReport) -> None:
    out.print()
    rows = [
        (seal.seal, a.chain, a.size, a.root.hex(), a.status, when(a.time), a.slack)
        for seal in report.cross
        for a in seal.anchors
    ]
    columns = ("seal", "chain", "head", "ledger root", "status", "block time", "off by up to (s)")
    if rows:
        print_table(columns, rows)
    else:
        out.print("no seal has receipts of two networks")
    for seal in report.cross:
        out.print(seal.line)


def _note(notice: Finding) -> str:
    return f"NOTE ({notice.check}) {notice.subject}: {notice.problem}"


def report(arguments: argparse.Namespace) -> int:
    """Verify, then write report.html, report.json and the evidence folder."""
    settings = settings_of(arguments, secrets=READERS)
    folder = Path(arguments.output) if arguments.output else None
    path = str(write_report(settings, arguments.run_id, folder))
    return answer(arguments, {"report_path": path}, path)


def path(arguments: argparse.Namespace) -> int:
    """The record's SHA-256 and every step from it up to the run root."""
    from provenance.bundle.shell_proof import path_of_record_file

    steps = path_of_record_file(Path(arguments.record))
    if arguments.ots is not None:
        if steps.ots is None:
            problem = "no Bitcoin anchor is there or to come, so there is no OpenTimestamps proof"
            raise InputError(f"{arguments.record}: {problem}")
        Path(arguments.ots).write_bytes(steps.ots)
    if arguments.json:
        print_json(json.loads(steps.to_json()))
    else:
        print_text(steps.text())
    return 0
