"""``provenance bundle`` and ``provenance upgrade``: a run's evidence for an auditor."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from provenance.app import upgrade as use_case
from provenance.app.bundle import make_bundle
from provenance.app.upgrade import Upgrade, Upgraded
from provenance.cli.output import answer, err, out, print_json, progress, settings_of
from provenance.log import shown


def bundle(arguments: argparse.Namespace) -> int:
    """Write the bundle; with ``--ipfs`` add and pin it too."""
    settings = settings_of(arguments, secrets=("ipfs",) if arguments.ipfs else False)
    made = make_bundle(
        settings,
        arguments.run_id,
        Path(arguments.output),
        disclose=arguments.disclose or (),
        ots=arguments.ots,
        runs=arguments.runs,
        ipfs=arguments.ipfs,
        proofs=arguments.proof or (),
    )
    lines = [
        f"{made.path}",
        f"  run {made.run_id}, {made.files} files, {made.bytes} bytes",
        f"  manifest.json has SHA-256 {made.manifest_sha256}",
    ]
    if made.withheld:
        lines.append(f"  {made.withheld} of {made.records} records are withheld")
    if made.cid is not None:
        lines.append(f"  ipfs:{made.cid}")
    if not arguments.json:
        err.print(f"Check it: provenance verify {made.path} --offline")
    return answer(arguments, asdict(made), *lines)


def upgrade(arguments: argparse.Namespace) -> int:
    """Bundles and ``.ots`` files, each by itself: one that fails stops no other."""
    settings = settings_of(arguments, secrets=False)
    paths = [Path(path) for path in arguments.paths]
    results: list[Upgraded] = []
    with progress() as bar:
        task = bar.add_task("", total=len(paths))
        for result in use_case.upgrade(
            settings, paths, lambda path: bar.update(task, description=shown(path.name))
        ):
            results.append(result)
            bar.advance(task)
            if not arguments.json:
                out.print(_line(result))
    if arguments.json:
        print_json({"paths": [asdict(result) for result in results]})
    return use_case.exit_code(results)


def _line(result: Upgraded) -> str:
    if result.problem is not None:
        return f"{result.path}: {result.status.value}: {result.problem}"
    details = {
        Upgrade.UPGRADED: f"{result.completed} completed, {result.pending} still pending",
        Upgrade.PENDING: f"{result.pending} still pending",
        Upgrade.COMPLETE: "nothing is pending",
    }
    return f"{result.path}: {details[result.status]}"
