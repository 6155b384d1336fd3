"""The files of a bundle: a folder, or one zip of it (docs/FORMAT.md, sections 9 and 9.4)."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from formats import need

Files = dict[str, bytes]


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


def no_flags(value: Any, but: Collection[str] = (), at: str = "") -> None:
    """A flag stands where one is expected alone: it equals 0 or 1 in this language."""
    need(at in but or not isinstance(value, bool), f"{at}: a flag")
    for key, inner in value.items() if isinstance(value, dict) else ():
        no_flags(inner, but, key)
    for inner in value if isinstance(value, list) else ():
        no_flags(inner, but, at)


def seal_label(entry: dict[str, Any]) -> str:
    return str(entry["phase"]) + ("" if entry["epoch"] is None else f"-{entry['epoch']}")
