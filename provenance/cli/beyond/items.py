"""``provenance data prove`` and ``provenance data check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from provenance import files
from provenance.app.bundle import bundle_at
from provenance.app.runs import evidence_of
from provenance.app.verify import Options, verify_path, verify_run
from provenance.bundle.reader import read_bundle
from provenance.cli.output import answer, settings_of
from provenance.errors import InputError
from provenance.formats.item_set import Claim
from provenance.items import proving
from provenance.items.folder import ItemFolder
from provenance.items.values import named_items
from provenance.settings import READERS


def prove(arguments: argparse.Namespace) -> int:
    """Write a proof that all items were in a run's data, or that none was."""
    run = arguments.run_in or arguments.run_not_in
    if run is None:
        raise InputError("data prove: found neither --in nor --not-in, expected one of the two")
    claim: Claim = "in" if arguments.run_in else "not-in"
    settings = settings_of(arguments, secrets=False)
    bundle = bundle_at(settings, run)
    evidence = evidence_of(settings, run) if bundle is None else read_bundle(bundle)
    folder = ItemFolder(settings.base_dir, evidence.run)
    stated = proving.owned_set(evidence, folder, arguments.split)
    items = named_items(arguments.items, stated.items.form)
    checked, proof = proving.prove(stated, folder, claim, items)
    if proof is None:
        answer(arguments, checked.as_dict(), checked.line, *checked.asked)
        return 1
    data, output = proof.encode(), Path(arguments.output)
    with files.errors_of(output, "written"):
        files.replace(output, data)
    document = {**checked.as_dict(), "path": str(output), "bytes": len(data)}
    lines = (checked.line, *checked.asked, f"{output}: {len(data)} bytes, with the key")
    return answer(arguments, document, *lines)


def check(arguments: argparse.Namespace) -> int:
    """Say whether a proof shows what it claims of some items: 1 where it does not, else what
    ``provenance verify`` exits with for the evidence that it rests on."""
    bundle, run = arguments.bundle, arguments.run_id
    if (bundle is None) == (run is None):
        found = "neither" if run is None else "both"
        raise InputError(f"data check: found {found} --run and --bundle, expected one of the two")
    settings, proof = settings_of(arguments, secrets=READERS), proving.read_proof(arguments.proof)
    options: Options = {"offline": arguments.offline, "headers": arguments.headers or ()}
    if bundle is None:
        report = verify_run(settings, run, **options)
    else:
        report = verify_path(settings, Path(bundle), **options)
    stated = proving.proven_set(report, proof)
    checked = proving.check(stated, proof, named_items(arguments.items, stated.items.form))
    found = f": {len(report.findings)} findings, see provenance verify" if report.findings else ""
    lines = [f"{checked.line}; rests on the evidence of the run, {report.outcome}{found}"]
    lines += checked.asked
    lines += [f"not checked: {line}" for line in checked.not_checked]
    code = report.exit_code if checked.holds else 1
    document = {**checked.as_dict(), "evidence": report.outcome, "exit_code": code}
    answer(arguments, document, *lines)
    return code
