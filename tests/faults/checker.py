"""Judging a deployment from outside: ``provenance fsck`` where this release has it.

Before it is there, a small check of its own: plain SQL, the run trees rebuilt from the
records, the ledger's root by the textbook definition (RFC 6962, 2.1), the local file's lines.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance import cli, wiring
from provenance.core.records import Phase, Record
from provenance.core.run_leaves import DigestedRecord, run_tree
from provenance.ports import LedgerEntry
from provenance.settings import Settings


def named_roots(entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """``before``, ``checkpoint/3``, ``after`` -> hex root."""
    return {
        f"{e.phase.value}/{e.epoch}" if e.epoch is not None else e.phase.value: e.root.hex()
        for e in entries
    }


@cache
def has_fsck() -> bool:
    """Whether this release has the command."""
    actions = [a for a in cli.parser()._actions if a.choices]
    return any("fsck" in action.choices for action in actions if action.choices)


def fsck(
    settings: Settings, config: Path, env: Mapping[str, str], *, online: bool
) -> dict[str, Any]:
    """The findings of ``provenance fsck --json``, run as a process."""
    if not has_fsck():
        return own_check(settings)
    done = subprocess.run(
        [
            sys.executable, "-m", "provenance.cli", "fsck", "--json",
            "--base-dir", str(settings.base_dir), "--config", str(config),
            *([] if online else ["--offline"]),
        ],
        capture_output=True, text=True, env=dict(env), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert bool(report["findings"]) == (done.returncode == 1), done
    return report


def own_check(settings: Settings) -> dict[str, Any]:
    """The stand-in: SQLite and the local file only."""
    findings: list[dict[str, str]] = []

    def find(kind: str, subject: object, detail: object = "") -> None:
        findings.append({"kind": kind, "subject": str(subject), "detail": str(detail)})

    path = wiring.sqlite_path(settings.database_url)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT run, producer, seq, digest, data FROM records").fetchall()
        entries = db.execute(
            "SELECT entry, run, phase, epoch, root FROM ledger_entries ORDER BY entry"
        ).fetchall()
        heads = db.execute("SELECT size, root FROM heads ORDER BY size").fetchall()
        anchors = db.execute("SELECT network, size, root, state FROM anchors").fetchall()
        for (seq,) in db.execute("SELECT seq FROM equivocations"):
            find("equivocation", seq)
        for run, why in db.execute("SELECT run, incomplete FROM runs"):
            if why:
                find("gap", run, why)
    held: dict[str, list[DigestedRecord]] = {}
    numbers: dict[tuple[str, bytes], set[int]] = {}
    for run, producer, seq, digest, data in rows:
        if hashlib.sha256(data).digest() != digest:
            find("leaf does not match", seq)
        held.setdefault(run, []).append(DigestedRecord(Record.decode(data), digest))
        numbers.setdefault((run, producer), set()).add(seq)
    for (run, _), seqs in numbers.items():
        if seqs != set(range(len(seqs))):
            find("gap", run, sorted(set(range(max(seqs))) - seqs)[:5])
    sealed: dict[str, list[int]] = {}
    for index, (entry, run, phase, epoch, root) in enumerate(entries):
        if entry != index:
            find("entry missing", index)
        number = epoch if epoch >= 0 else None
        tree = run_tree(held.get(run, []), Phase(phase), number, sealed.get(run, []))
        if tree.root != root:
            find("root does not recompute", UUID(run), phase)
        if number is not None:
            sealed.setdefault(run, []).append(number)
    for size, root in heads:
        if _mth([e[4] for e in entries[:size]]) != root:
            find("head inconsistent", size)
    lines = settings.blockchain.local.path if settings.blockchain.local else None
    anchored: list[str] = []
    if lines is not None and lines.exists():
        text = lines.read_text().splitlines()
        anchored = [json.loads(line)["payload"][-64:] for line in text]
    for root in {r for r in anchored if anchored.count(r) > 1}:
        find("anchor doubled", root)
    for network, size, root, state in anchors:
        if network == "local" and state == "final" and root.hex() not in anchored:
            find("anchor missing", size)
    for root in set(anchored) - {root.hex() for _, root in heads}:
        find("anchor of another root", root)
    counts = {"records": len(rows), "entries": len(entries), "anchors": len(anchors)}
    return {"checked": counts, "findings": findings}


def _mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _mth(leaves[:split]) + _mth(leaves[split:])).digest()
