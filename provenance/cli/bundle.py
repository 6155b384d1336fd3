"""``provenance bundle``: a run's evidence for an auditor."""

from __future__ import annotations

import argparse
from pathlib import Path

from provenance.app.bundle import make_bundle
from provenance.cli.output import err, out, print_json, settings_of


def bundle(arguments: argparse.Namespace) -> int:
    """Write the bundle; with ``--ipfs`` add and pin it too."""
    settings = settings_of(arguments, secrets=("ipfs",) if arguments.ipfs else False)
    made = make_bundle(
        settings,
        arguments.run_id,
        Path(arguments.output),
        disclose=arguments.disclose or (),
        ipfs=arguments.ipfs,
    )
    if arguments.json:
        print_json(made.as_dict())
        return 0
    out.print(f"{made.path}", markup=False)
    out.print(f"  run {made.run}, {made.files} files, {made.size} bytes", markup=False)
    out.print(f"  manifest.json has SHA-256 {made.manifest}", markup=False)
    if made.withheld:
        out.print(f"  {made.withheld} of {made.records} records are withheld", markup=False)
    if made.cid is not None:
        out.print(f"  ipfs:{made.cid}", markup=False)
    err.print(f"Check it: provenance verify {made.path} --offline", markup=False)
    return 0
