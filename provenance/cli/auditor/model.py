"""``provenance verify-model``, ``provenance sign`` and ``provenance statement``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from provenance.app import model as use_case
from provenance.app.verify import verify_path, verify_run
from provenance.cli.output import answer, err, print_document, print_json, settings_of
from provenance.errors import InputError
from provenance.fingerprint.model_files import read_model
from provenance.models.key import PASSPHRASE
from provenance.models.match import NOT_CHECKED, ModelMatch, match_model

_SHOWN = 5


def verify_model(arguments: argparse.Namespace) -> int:
    """Which epoch of a run has exactly these weights."""
    bundle, run = arguments.bundle, arguments.run_id
    if (bundle is None) == (run is None):
        raise InputError(
            f"verify-model: found {'neither' if run is None else 'both'} --run and --bundle, "
            "expected --run RUN (or latest) where the deployment is, or --bundle PATH, which "
            "'provenance bundle RUN -o PATH' makes there"
        )
    weights, settings = read_model(Path(arguments.model)), settings_of(arguments, secrets=False)
    if bundle is None:
        report = verify_run(settings, run, offline=True)
    else:
        report = verify_path(settings, Path(bundle))
    match = match_model(report, weights)
    answer(arguments, match.as_dict(), *_lines(match))
    return match.exit_code


def _lines(match: ModelMatch) -> Iterator[str]:
    yield f"run {match.run}: {_verdict(match)}"
    if match.weights is not None:
        state = f" under {match.state!r}" if match.state else ""
        yield f"  file       {_some([str(file) for file in match.files.files])}{state}"
        size = f"{len(match.weights.tensors)} tensors, {match.weights.element_count} elements"
        yield f"  weights    {match.weights} ({match.weights.algorithm}, {size})"
    yield from (f"  names      {note}" for note in match.names)
    if match.files.aside:
        yield f"  set aside  {_some(match.files.aside)}"
    for item in match.matches:
        yield f"  record     {item.path} rank {item.rank} SHA-256 {item.digest.hex()}"
        for when, count in item.reused.items():
            some = f"{count} of {len(item.tensors or ())} tensors were not read again"
            yield f"  not read   {some}: frozen, their digests are those of {when}"
    for kind, names in {k: n for i in match.matches for k, n in i.not_covered.items()}.items():
        yield f"  no digest  is of {kind[:60]!r}: {_some([name[:60] for name in names])}"
    if match.lineage is not None:
        yield f"  parent     {match.lineage.line}"
    if match.seal is not None:
        ledger = f" of ledger {match.origin}" if match.origin else ""
        yield f"  run root   {match.seal.root.hex()}"
        yield f"  seal       {match.seal.label}, entry {match.seal.index}{ledger}"
    for item in match.doubtful:
        yield f"FOUND {item.path}: states these weights, and does not count: {item.problem}"
    if match.nearest is not None:
        near, differ = match.nearest, f"{match.nearest.differing} of {match.nearest.total}"
        yield f"  nearest    {near.stated.when} ({near.stated.path}): {differ} tensors differ"
        first = f"tensor {near.tensor!r} " if near.tensor is not None else ""
        yield f"  first      {first}{near.problem}"
    yield from (f"FOUND {line}" for line in (*match.left[:_SHOWN], *match.damaged[:_SHOWN]))
    if below := match.files.below():
        yield f"not checked: weights in subfolders: {_some(below)}"
    if match.withheld:
        some = ", ".join(match.withheld[:_SHOWN])
        yield f"not checked: {len(match.withheld)} records of weights are withheld: {some}"
    if match.others:
        yield f"FOUND elsewhere in the evidence: {match.others}; see provenance verify"
    yield f"not checked: {NOT_CHECKED}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return f"{', '.join(names[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _verdict(match: ModelMatch) -> str:
    if match.matches:
        when = list(dict.fromkeys(item.when for item in match.matches))
        some = "not all is found: a part of it has" if match.left else "these are"
        return f"{some} exactly the weights of {', '.join(when)}"
    if match.doubtful:
        return "no record that counts has these weights"
    if match.outcome == "no match":
        return "no epoch has these weights"
    if match.withheld:
        return "no record that is disclosed has these weights"
    return "recorded no weights to compare with"


def sign(arguments: argparse.Namespace) -> int:
    """Sign a model's files, with the run that its weights are of."""
    settings, output = settings_of(arguments, secrets=False), arguments.output
    model, key = Path(arguments.model), Path(arguments.key)
    signed = use_case.sign_model(
        settings, model, arguments.run_id, key, output and Path(output), os.environ.get(PASSPHRASE)
    )
    answer(arguments, signed.as_dict(), str(signed.path))
    if arguments.json:
        return 0
    err.print(
        f"{signed.files} files; weights of {signed.weights.when} of run {signed.run_id}, "
        f"run root {signed.root.hex()} ({signed.seal}), {signed.receipts} receipts"
    )
    if not signed.receipts:
        err.print("No network has anchored the run yet: sign again once one has.")
    check = ["model_signing", "verify", "key", arguments.model, "--signature", str(signed.path)]
    err.print(f"check it with: {shlex.join(check)} --public_key PUB.pem")
    return 0


def statement(arguments: argparse.Namespace) -> int:
    """The in-toto statement of a run, to a file or to stdout."""
    run, data = use_case.run_statement(settings_of(arguments, secrets=False), arguments.run_id)
    if arguments.output:
        use_case.write_statement(Path(arguments.output), data)
        document = {"run_id": str(run), "path": arguments.output, "bytes": len(data)}
        return answer(arguments, document, arguments.output)
    elif arguments.json:
        print_json(json.loads(data))
    else:
        print_document(data)
    return 0
