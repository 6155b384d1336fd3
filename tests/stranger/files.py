"""The files of a bundle: a folder, or one zip of it, their keys, and what their JSON has everywhere
(docs/FORMAT.md, sections 8.2, 9 and 9.4)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from formats import need

Files = dict[str, bytes]
PART = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
NAME = re.compile(f"(?:{PART}/){{0,11}}{PART}")
KEYS = {
    "producers": "producer certificate statements", "statements": "count signature",
    "records": "path kind epoch rank producer seq ts digest withheld",
    "entries": "index phase epoch root anchor created_at coverage",
    "inclusions": "index size proof", "consistencies": "old_size new_size proof",
    "anchors": "network size root state transaction_id reason height depth block_time",
    "equivocations": "producer seq digest seen_at proof withheld",
    "parked": "id reason size parked_at",
}  # fmt: skip
RECEIPT = {
    None: "v run phase epoch root ledger head anchor evidence", "ledger": "index size root proof",
    "anchor": "network state transaction_id payload height block_hash depth block_time"
    " confirmed_at",
}  # fmt: skip


def no_flags(value: Any, but: Collection[str] = (), at: str = "") -> None:
    """A flag stands where one is expected alone: it equals 0 or 1 in this language."""
    need(at in but or not isinstance(value, bool), f"{at}: a flag")
    for key, inner in value.items() if isinstance(value, dict) else ():
        no_flags(inner, but, key)
    for inner in value if isinstance(value, list) else ():
        no_flags(inner, but, at)


def seal_label(entry: dict[str, Any]) -> str:
    return str(entry["phase"]) + ("" if entry["epoch"] is None else f"-{entry['epoch']}")


def check_index(run: dict[str, Any]) -> None:
    """The flags and texts of ``run.json``, and what it claims of its ledger (9.2)."""
    no_flags(run, ("anchor", "withheld", "incomplete", "anchors"))
    texts = [run["state"], run["incomplete"], *(each["ts"] for each in run["records"])]
    for key, names in (("anchors", ("transaction_id", "reason")), ("parked", ("id", "reason"))):
        texts += [each[name] for each in run[key] for name in names]
    for text in texts:
        need(text is None or (text.isprintable() and len(text) <= 2000), "a text that prints not")
    told = run["ledger"]
    need(set(told) - {"team"} == {"size", "runs", "complete", "unfinished"}, "other keys in ledger")
    size, runs, complete = (told[key] for key in ("size", "runs", "complete"))
    need({type(size), type(runs), type(complete)} == {int}, "ledger: no whole numbers")
    need(size >= 0 and 0 <= complete <= runs and runs >= 1, "ledger: counts that cannot be")
    listed = {each["run"]: each["entries"] for each in told["unfinished"]}
    need(len(listed) == len(told["unfinished"]), "ledger: a run twice")
    need(len(listed) == min(runs - complete, 1000), "ledger: other runs are unfinished")
    for each in told["unfinished"]:
        need(set(each) == {"run", "state", "entries"}, "ledger: other keys in unfinished")
        need(each["state"] in ("open", "incomplete"), "ledger: a state that is none")
    indexes = [index for entries in listed.values() for index in entries]
    need(all(type(index) is int and 0 <= index < size for index in indexes), "ledger: an entry")
    need(len(set(indexes)) == len(indexes), "ledger: an entry twice")
    own, mine = [entry["index"] for entry in run["entries"]], listed.get(run["run"])
    need(all(index < size for index in own), "ledger: is smaller than this run")
    if run["state"] == "sealed" and run["incomplete"] is None:
        need(mine is None, "ledger: this run is unfinished, and complete")
    else:
        need(mine == own or (mine is None and len(listed) == 1000), "ledger: not this run")


def load(path: Path) -> Files:
    if path.is_dir():
        found = [p for p in path.rglob("*") if not p.is_dir() or p.is_symlink()]
        need(not any(p.is_symlink() for p in found), "a bundle has no links")
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(found)}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        need(len(set(names)) == len(names) <= 200_000, "a zip with a name twice")
        files = {name: archive.read(name) for name in names if not name.endswith("/")}
    top = next(iter(files), "").partition("/")[0] + "/"
    wrapped = "manifest.json" not in files and all(name.startswith(top) for name in files)
    return {name.removeprefix(top): data for name, data in files.items()} if wrapped else files
