"""The run tree as nested lists that open node by node, without a script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from typing import Any, Final
from urllib.parse import quote

from provenance.evidence.run_evidence import RecordFile, lenient
from provenance.verify.report import VerificationReport

MAX_SHOWN_CHARS: Final = 6000
_OPEN_DEPTH: Final = 2
_OUTSIDE: Final = {
    "late": "Late: came after their seal and are under no root",
    "unsealed": "Not sealed yet: under no root so far",
    "control": "Control records: what the trainer announced; under no root",
}


def render_tree(report: VerificationReport) -> str:
    """The tree at the newest seal, then what stands outside of it."""
    records = {record.path: record for record in report.evidence.records}
    bad = {finding.path or finding.subject for finding in report.findings}
    parts = []
    if report.tree is not None:
        parts.append(f'<ul class="tree">{_node(report.tree, records, bad, 0)}</ul>')
    for place, title in _OUTSIDE.items():
        outside = [record for record in records.values() if record.place == place]
        if outside:
            items = "".join(_record(r.path, r.path, r.digest.hex(), r, bad) for r in outside)
            parts.append(
                f"<details><summary>{escape(title)} ({len(outside)})</summary>"
                f'<ul class="tree">{items}</ul></details>'
            )
    return "\n".join(parts) or "<p>No records.</p>"


def _node(
    node: Mapping[str, Any], records: Mapping[str, RecordFile], bad: set[str], depth: int
) -> str:
    path, value = str(node["path"]), str(node["value"])
    if node["kind"] == "record":
        return _record(path, str(node["label"]), value, records.get(path), bad)
    name = f'<span class="name">{escape(str(node["label"]))}</span>'
    shown = f'<code class="value">{value}</code>'
    if node["kind"] == "empty":
        return f'<li class="leafless">{name} (empty) {shown}</li>'
    children = "".join(_node(child, records, bad, depth + 1) for child in node["children"])
    inside = any(item == path or item.startswith(f"{path}/") for item in bad) if path else False
    flag = ' class="bad"' if inside else ""
    opened = " open" if depth < _OPEN_DEPTH or inside else ""
    return (
        f"<li{flag}><details{opened}><summary>{name} "
        f'<span class="soft">({len(node["children"])})</span> {shown}</summary>'
        f"<ul>{children}</ul></details></li>"
    )


def _record(path: str, label: str, value: str, record: RecordFile | None, bad: set[str]) -> str:
    flag = ' class="bad"' if path in bad else ""
    head = f'<span class="name">{escape(label)}</span> <code class="value">{escape(value)}</code>'
    if record is None or record.data is None:
        why = "withheld" if record is not None and record.withheld else "missing"
        return f'<li{flag}><span class="leafless">{head} ({why})</span></li>'
    link = quote(f"evidence/{record.file}")
    about = f"{record.kind.value}, rank {record.rank}, {record.ts}, {len(record.data)} bytes"
    return (
        f"<li{flag}><details><summary>{head}</summary>"
        f'<p class="soft">{escape(about)}, <a href="{link}">{escape(record.file)}</a></p>'
        f"<pre>{escape(_shown(record.data))}</pre></details></li>"
    )


def _shown(data: bytes) -> str:
    """The body, indented; the bytes as they are where they are no record."""
    text = data.decode("utf-8", "backslashreplace")
    with suppress(RecursionError):
        body = lenient(data).get("body")
        text = text if body is None else json.dumps(body, indent=2, ensure_ascii=False)
    if len(text) > MAX_SHOWN_CHARS:
        return f"{text[:MAX_SHOWN_CHARS]}\n... {len(text) - MAX_SHOWN_CHARS} more characters"
    return text
