"""``provenance fsck``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from provenance.app import fsck as checking
from provenance.app.base_directory import known_base
from provenance.cli.output import answer, settings_of
from provenance.errors import InputError
from provenance.fsck.findings import FsckReport
from provenance.settings import NETWORKS


def fsck(arguments: argparse.Namespace) -> int:
    """Check spool, streams, database and networks against each other; changes nothing."""
    report = checking.fsck(
        known_base(settings_of(arguments)),
        offline=arguments.offline,
        since=_since(arguments.since_block or ()),
        settle_s=arguments.settle,
    )
    answer(arguments, report.as_dict(), *_lines(report, arguments.offline))
    return report.exit_code


def _since(texts: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        network, _, height = text.rpartition("=")
        if network not in ("", *NETWORKS) or not height.isdecimal():
            raise InputError(f"--since-block: found {text!r}, expected HEIGHT or NETWORK=HEIGHT")
        names = (network,) if network else ("ethereum", "bitcoin")
        found |= dict.fromkeys(names, int(height))
    return found


def _lines(report: FsckReport, offline: bool) -> Iterator[str]:
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in report.checked.items() if n)
    nothing = "nothing" if report.unchecked else "nothing: there is nothing yet"
    yield f"checked {counts or nothing}"
    for finding in report.findings:
        yield f"FOUND {finding.kind.value} {finding.subject}: {finding.detail}"
    for line in report.unchecked:
        yield f"not checked: {line}"
    if offline:
        yield "not asked: the networks (--offline)"
    if number := len(report.findings):
        yield f"{number} finding{'s' if number > 1 else ''}"
    else:
        unsure = "nothing found, and not everything could be checked"
        yield unsure if report.unchecked else "clean"
