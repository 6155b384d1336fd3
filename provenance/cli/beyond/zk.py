"""``provenance prove``: a statement about a hidden number, without showing it."""

from __future__ import annotations

import argparse
from pathlib import Path

from provenance import files
from provenance.app.runs import evidence_of
from provenance.cli.output import answer, settings_of
from provenance.errors import InputError
from provenance.formats.fields import as_json


def prove(arguments: argparse.Namespace) -> int:
    """Prove it with the openings below the base directory, and write the proof."""
    from provenance.zk.prove import find_number
    from provenance.zk.prove import prove as prove_number

    bounds = arguments.between or (arguments.at_least, arguments.at_most)
    if not any(bounds) and arguments.equals_run is None:
        options = "--at-least, --at-most, --between or --equals-run"
        raise InputError(f"prove: found no statement, expected one of {options}")
    settings = settings_of(arguments, secrets=False)
    asked = arguments.metric, arguments.epoch, arguments.record
    own = evidence_of(settings, arguments.run_id)
    number, other = find_number(own, *asked, arguments.seal), None
    if arguments.equals_run is not None:
        other = find_number(evidence_of(settings, arguments.equals_run), *asked)
    low, high = bounds
    proved = prove_number(number, settings.base_dir, at_least=low, at_most=high, equals=other)
    path, data = Path(arguments.output), proved.encode()
    with files.errors_of(path, "written"):
        files.replace(path, data, files.PUBLIC)
    statement = f"{number.metric} at {number.path} {proved.statement.words()}"
    document = {
        "proof": str(path),
        "bytes": len(data),
        "statement": statement,
        "number": as_json(number),
    }
    check = f"check it: provenance verify BUNDLE --proof {path}"
    return answer(arguments, document, f"{path}: {statement}", f"  {len(data)} bytes; {check}")
