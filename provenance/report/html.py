"""The report of a verification: ``report.json`` for machines, ``report.html`` for people.

The page stands by itself: style inside, no script, nothing loaded. All text passes
``html.escape``; names and values of metrics are whatever a trainer wrote.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Final

from provenance.bundle.shell_proof import hand_path
from provenance.bundle.writer import newest_tree
from provenance.errors import InputError, ProofError
from provenance.report.plot import Point, line_plot
from provenance.report.tree import render_tree
from provenance.verify.metrics import number
from provenance.verify.report import EpochMetrics, Finding, NetworkCheck, VerificationReport

MAX_PLOTS: Final = 24
MAX_ROWS: Final = 400
MAX_COLUMNS: Final = 12
_HERE: Final = Path(__file__).resolve().parent
_LEADS: Final = {
    "verified": "Everything that was checked holds.",
    "failed": "Something does not hold: see the findings.",
    "unchecked": "Nothing that was checked failed, but something could not be checked.",
}


def write_report(report: VerificationReport, folder: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder, each whole or not at all.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: The folder cannot be written.
    """
    page = folder / "report.html"
    document = json.dumps(report.as_dict(), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "report.json", document)
        _write(page, render(report))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    return page


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def render(report: VerificationReport) -> str:
    """The HTML page."""
    template = Template((_HERE / "report_template.html").read_text(encoding="utf-8"))
    return template.substitute(
        run=escape(str(report.run)),
        outcome=report.outcome,
        css=(_HERE / "report.css").read_text(encoding="utf-8"),
        lead=_lead(report),
        facts=_facts(report),
        findings=_box("bad", "Findings", report.findings),
        notices=_box("warn", "Worth knowing", report.notices),
        roots=_roots(report),
        networks=_networks(report),
        metrics=_metrics(report.metrics),
        tree=render_tree(report),
        checks=_checks(report),
        not_checked=_list(report.not_checked),
        by_hand=_by_hand(report),
        version=escape(_version()),
        checked_at=_time(report.checked_at),
    )


def _lead(report: VerificationReport) -> str:
    lead = _LEADS[report.outcome]
    if not report.online:
        lead += " No network was asked: receipts only."
    return escape(lead)


def _facts(report: VerificationReport) -> str:
    evidence = report.evidence
    rows = [
        (
            "State",
            evidence.state + (f" at {_when(evidence.sealed_at)}" if evidence.sealed_at else ""),
        ),
        ("First seen", _when(evidence.created_at)),
        ("Checked", _when(report.checked_at)),
        ("Evidence", f"{evidence.source.kind}: {evidence.source.where}"),
        ("Records", str(len(evidence.records))),
        ("Run's key", f"ed25519 {evidence.public_key.hex()}"),
        ("Ledger's key", evidence.vkey or "not known here"),
    ]
    if evidence.incomplete:
        rows.insert(1, ("Incomplete", evidence.incomplete))
    return "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)


def _box(kind: str, title: str, findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    items = []
    for finding in findings:
        where = f" <span class='soft'>({escape(finding.file)})</span>" if finding.file else ""
        items.append(
            f"<li>({finding.check}) <code>{escape(finding.subject)}</code>: "
            f"{escape(finding.problem)}{where}</li>"
        )
    name = title.lower().replace(" ", "-")
    return (
        f'<section class="box {kind}" id="{name}"><h2>{title}</h2><ul>'
        + "\n".join(items)
        + "</ul></section>"
    )


def _roots(report: VerificationReport) -> str:
    rows = [
        (
            escape(seal.label),
            f"<code>{seal.root.hex()}</code>",
            str(seal.index),
            _time(seal.sealed_at),
            _status("passed" if seal.recomputed else "failed", "recomputed", "differs"),
        )
        for seal in report.seals
    ]
    if not rows:
        return "<p>The run has no seal yet.</p>"
    return _table(("Seal", "Run root", "Ledger entry", "Sealed", "From the records"), rows)


def _networks(report: VerificationReport) -> str:
    if not report.networks:
        return "<p>No anchor was asked for.</p>"
    rows = [
        _network_row(name, check)
        for name, seals in report.networks.items()
        for check in seals.values()
    ]
    return _table(
        ("Network", "Seal", "Status", "Transaction or CID", "Block", "Depth", "Block time"), rows
    )


def _network_row(name: str, check: NetworkCheck) -> tuple[str, ...]:
    reason = f"<br><span class='soft'>{escape(check.reason)}</span>" if check.reason else ""
    block = "-" if check.height is None else str(check.height)
    if check.block_hash:
        block += f"<br><code>{escape(check.block_hash)}</code>"
    return (
        escape(name),
        escape(check.seal),
        _status(check.status) + reason,
        f"<code>{escape(check.transaction_id or '-')}</code>",
        block,
        str(check.depth) if check.depth else "-",
        _time(check.time),
    )


def _metrics(rows: Sequence[EpochMetrics]) -> str:
    if not rows:
        return "<p>No metrics were recorded.</p>"
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    numeric = [n for n in names if any(number(row.values.get(n)) is not None for row in rows)]
    ranks = sorted({row.rank for row in rows})
    figures = []
    for name in numeric[:MAX_PLOTS]:
        series: dict[str, list[Point]] = {}
        for rank in ranks:
            label = f"{name} rank {rank}" if len(ranks) > 1 else name
            series[label] = [
                (float(row.epoch), number(row.values[name]))
                for row in rows
                if row.rank == rank and name in row.values
            ]
        figures.append(
            f"<figure><figcaption><code>{escape(name)}</code></figcaption>"
            f"{line_plot(series, name)}</figure>"
        )
    more = len(numeric) - len(figures)
    note = f"<p class='soft'>{more} more metrics are in report.json.</p>" if more > 0 else ""
    return f'<div class="plots">{"".join(figures)}</div>{note}{_metrics_table(rows, names)}'


def _metrics_table(rows: Sequence[EpochMetrics], names: Sequence[str]) -> str:
    shown = names[:MAX_COLUMNS]
    body = [
        (str(row.epoch), str(row.rank), *(escape(_value(row.values.get(name))) for name in shown))
        for row in rows[:MAX_ROWS]
    ]
    table = _table(("Epoch", "Rank", *(escape(name) for name in shown)), body)
    cut = (
        "" if len(rows) <= MAX_ROWS else f"<p class='soft'>The first {MAX_ROWS} of {len(rows)}.</p>"
    )
    return f"<details><summary>As a table</summary>{table}{cut}</details>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)[:80]


def _checks(report: VerificationReport) -> str:
    items = []
    for result in report.checks:
        check = result.check
        items.append(
            f"<li><details><summary>({check.number}) {escape(check.title)} "
            f"{_status(result.status.value)}</summary>"
            f"<p>{escape(check.proves)}</p><p class='soft'>It does not prove: "
            f"{escape(check.limits)}</p></details>"
            f"<div class='detail'>{escape(result.detail)}</div></li>"
        )
    return f'<ol class="checks">{"".join(items)}</ol>'


def _by_hand(report: VerificationReport) -> str:
    tree = newest_tree(report.evidence)
    known = [record.path for record in report.evidence.records if record.place == "tree"]
    path = next((p for p in known if "/metrics/" in p), known[0] if known else None)
    if tree is None or path is None:
        return "<p>Nothing is sealed yet.</p>"
    try:
        text = hand_path(tree.proof(path), f"evidence/records/{path}.json")
    except (InputError, ProofError) as error:
        return f"<p>{escape(str(error))}</p>"
    return (
        "<p>Run this beside the <code>evidence</code> folder. It needs nothing of this program: "
        "<code>sha256sum</code>, <code>xxd</code> and a shell.</p>"
        f"<pre>{escape(text)}</pre>"
        "<p>From the run root on, <code>evidence/receipts</code> leads to the ledger's root and "
        "to what each network carries.</p>"
    )


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _status(status: str, good: str | None = None, bad: str | None = None) -> str:
    names: Mapping[str, str | None] = {"passed": good, "failed": bad}
    shown = names.get(status) or status
    return f'<span class="status {status.replace(" ", "-")}">{escape(shown)}</span>'


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"


def _time(seconds: float | None) -> str:
    return escape(_when(seconds))


def _version() -> str:
    try:
        return metadata.version("ml-provenance")
    except metadata.PackageNotFoundError:
        return "(not installed)"
