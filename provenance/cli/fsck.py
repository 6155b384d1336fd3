"""``provenance fsck``."""

from __future__ import annotations

import argparse

from provenance.app import fsck as checking
from provenance.cli.output import out, print_json, settings_of
from provenance.errors import InputError
from provenance.fsck.findings import FsckReport
from provenance.settings import NETWORKS


def fsck(arguments: argparse.Namespace) -> int:
    """Check spool, streams, database and networks against each other; changes nothing."""
    report = checking.fsck(
        settings_of(arguments),
        offline=arguments.offline,
        since=_since(arguments.since_block),
        settle_s=arguments.settle,
    )
    if arguments.json:
        print_json(report.as_dict())
    else:
        _print(report, arguments.offline)
    return report.exit_code


def _since(texts: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        network, _, height = text.rpartition("=")
        if network not in ("", *NETWORKS) or not height.isdecimal():
            raise InputError(f"--since-block: found {text!r}, expected HEIGHT or NETWORK=HEIGHT")
        names = (network,) if network else ("ethereum", "bitcoin")
        found |= dict.fromkeys(names, int(height))
    return found


def _print(report: FsckReport, offline: bool) -> None:
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in report.checked.items() if n)
    nothing = "nothing" if report.unchecked else "nothing: there is nothing yet"
    out.print(f"checked {counts or nothing}")
    for finding in report.findings:
        out.print(f"FOUND {finding.kind.value} {finding.subject}: {finding.detail}")
    for line in report.unchecked:
        out.print(f"not checked: {line}")
    if offline:
        out.print("not asked: the networks (--offline)")
    number = len(report.findings)
    verdict = f"{number} finding{'s' if number > 1 else ''}" if number else "clean"
    if not number and report.unchecked:
        verdict = "nothing found, and not everything could be checked"
    out.print(verdict)
