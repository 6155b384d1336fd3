"""``provenance gate``: whether a pipeline may take a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from provenance import files
from provenance.app.bundle import bundle_at
from provenance.app.verify import verify_path, verify_run
from provenance.cli.beyond.approvals import signer_of
from provenance.cli.output import answer, settings_of
from provenance.errors import InputError
from provenance.gate import approvals, outputs
from provenance.gate.decision import Decision, Gate
from provenance.gate.policy import load_policy
from provenance.settings import READERS, load
from provenance.settings.approval_files import last_day

_OUTPUTS: Final[Mapping[str, Callable[[Decision], bytes]]] = {
    "sarif": outputs.sarif, "junit": outputs.junit, "card": outputs.card,
    "annotations": outputs.oci_annotations,
}  # fmt: skip


def gate(arguments: argparse.Namespace) -> int:
    """Hold a model against a policy: a line for each rule that does not hold."""
    targets = _targets(arguments)
    for path in targets:
        path.unlink(missing_ok=True)  # of an earlier run, whatever comes of this one
    # Not what a running `provenance up` left: a checkout's folder must not name the nodes to ask.
    settings = load(arguments.config, arguments.base_dir, secrets=READERS)
    policy = load_policy(Path(arguments.policy))
    if arguments.approval and policy.approvals is None:
        found = f"--approval {arguments.approval[0]}: {arguments.policy} has no approvals"
        raise InputError(f"{found}, expected a policy that counts them, or no --approval")
    held = Gate(
        settings,
        policy,
        arguments.headers or (),
        arguments.quorum,
        [Path(path) for path in arguments.parent or ()],
        approvals=[Path(path) for path in arguments.approval or ()],
    )
    source = Path(arguments.bundle) if arguments.bundle else arguments.run_id
    decision = held.decide(Path(arguments.model), source)
    for path, write in targets.items():
        files.replace(path, write(decision), files.PUBLIC)
    answer(arguments, decision.as_dict(), *lines(decision))
    return decision.exit_code


def approve(arguments: argparse.Namespace) -> int:
    """Sign that a run may be promoted."""
    signed_by = signer_of(arguments, "approve")
    until = last_day(arguments.until)
    settings = settings_of(arguments, secrets=False)
    bundle = bundle_at(settings, arguments.subject)
    if bundle is not None:
        report = verify_path(settings, bundle)
    else:
        report = verify_run(settings, arguments.subject)
    path = Path(arguments.output)
    approval, count = approvals.approve(report, signed_by, until, path)
    term = approval.until and approval.until.isoformat()
    document = {
        "file": str(path),
        "run_id": str(approval.run),
        "root": approval.root.hex(),
        "until": term,
        "signatures": count,
        "verified": report.outcome,
    }
    line = f"run {approval.run}, root {approval.root.hex()[:16]}, until {term or 'for ever'}"
    return answer(arguments, document, f"{path}: {count} signed; {line}")


def _targets(arguments: argparse.Namespace) -> dict[Path, Callable[[Decision], bytes]]:
    """Where each output goes; ``InputError`` where that is another's place, or is or lies in what
    is read: it would be removed."""
    options = (
        *_OUTPUTS, "model", "policy", "bundle", "config", "parent", "headers", "approval",
    )  # fmt: skip
    paths = [
        (option, Path(path))
        for option in options
        if (given := getattr(arguments, option))
        for path in ([given] if isinstance(given, str | Path) else given)
    ]
    targets = [(option, path) for option, path in paths if option in _OUTPUTS]
    for at, (option, path) in enumerate(targets):
        place = path.resolve()
        for other, taken in (*paths[:at], *paths[at + 1 :]):
            if taken.resolve() in (place, *place.parents):
                problem = f"is or lies in --{other} {taken}, expected a file beside it"
                raise InputError(f"--{option} {path}: {problem}")
    return {path: _OUTPUTS[option] for option, path in targets}


def lines(decision: Decision) -> list[str]:
    """The verdict, then each refusal."""
    count = len(decision.refusals)
    word = "passed" if decision.passed else f"refused by {count} of {len(decision.results)} rules"
    run = f", run {decision.report.run}" if decision.report else ""
    return [
        f"{decision.model}{run}: {word} (policy {decision.policy[:12]})",
        *(f"REFUSED {item.line}" for item in decision.refusals),
    ]
