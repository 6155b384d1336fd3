"""``provenance export``: a run in the forms of other systems."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from provenance import files
from provenance.cli.output import answer, settings_of
from provenance.models.key import PASSPHRASE


def c2pa(arguments: argparse.Namespace) -> int:
    """Write the C2PA manifest of a run's model."""
    from provenance.exports.c2pa import c2pa_manifest

    settings, model = settings_of(arguments, secrets=False), Path(arguments.model)
    made = c2pa_manifest(
        settings, arguments.run_id, model, Path(arguments.key), Path(arguments.cert), _passphrase()
    )
    document = {"run": str(made.run), "record": made.record}
    return _written(arguments, made.data, document, f"of {model}, {made.record} of run {made.run}")


def rekor(arguments: argparse.Namespace) -> int:
    """Write the entry of a run for Rekor."""
    from provenance.exports.rekor import rekor_entry

    settings = settings_of(arguments, secrets=False)
    run, data = rekor_entry(settings, arguments.run_id, Path(arguments.key), _passphrase())
    how = "POST it to REKOR/api/v1/log/entries"
    return _written(arguments, data, {"run": str(run)}, f"of run {run}; {how}")


def _passphrase() -> str | None:
    return os.environ.get(PASSPHRASE)


def _written(
    arguments: argparse.Namespace, data: bytes, document: Mapping[str, object], line: str
) -> int:
    path = Path(arguments.output)
    with files.errors_of(path, "written"):
        files.replace(path, data, files.PUBLIC)
    whole = {**document, "path": str(path), "bytes": len(data)}
    return answer(arguments, whole, f"{path}: {len(data)} bytes, {line}")
