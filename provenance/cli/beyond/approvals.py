"""``provenance approvals``: what waits for persons' signatures, to sign it, and to bring it in."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.anchor.conditions import look_again, waits_for
from provenance.app.base_directory import known_base
from provenance.approvals import anchoring
from provenance.approvals.anchoring import AnchoringApprovals, Approval
from provenance.approvals.statement import Anchoring
from provenance.bootstrap import reading, sending
from provenance.capture.ship.keyless import sign_envelope
from provenance.cli.output import answer, err, print_table, settings_of
from provenance.errors import InputError
from provenance.formats import approval
from provenance.formats.approval import TRUST, TrustApproval
from provenance.formats.dsse import Envelope, Statement
from provenance.operations.words import age
from provenance.ports.values import AnchorRow
from provenance.settings import Settings
from provenance.settings.approval_files import last_day, read_approval
from provenance.settings.key_files import IDENTITY, read_seed
from provenance.settings.reading import trust_section

_COLUMNS = ("anchor", "network", "entries", "runs", "signed", "since")


def waiting(arguments: argparse.Namespace) -> int:
    """The anchors that wait, one of each network at most."""
    settings, approvals = _approvals(arguments)
    now, rows = time.time(), list[tuple[AnchorRow, Approval, str | None, float]]()
    with reading.opened_store(settings, "approvals list") as store, store.snapshot() as tx:
        for network in approvals.rule.networks:
            row = anchoring.waiting(tx, network)
            known = None if row is None else approvals.known(tx, row)
            if row is not None and known is not None:
                conditions = sending.anchor_conditions(settings, network)
                since = tx.tally(network).waiting_since
                waits_s = now - (row.updated_at if since is None else since)
                rows.append((row, known, waits_for(conditions, tx, row), waits_s))
    if rows and not arguments.json:
        cells = [
            (row.id, row.network, row.size, len(known.wanted.runs),
             _standing(approvals, known, then), age(waits_s))
            for row, known, then, waits_s in rows
        ]  # fmt: skip
        print_table(_COLUMNS, cells)
    lines = [] if rows else ["nothing waits for approval"]
    document = [
        _document(known) | _anchor(row, waits_s) | {"waits_for": then}
        for row, known, then, waits_s in rows
    ]
    return answer(arguments, {"waiting": document}, *lines)


def show(arguments: argparse.Namespace) -> int:
    """Write what is to be signed, with the signatures that it has."""
    until = last_day(arguments.until)
    if arguments.anchor == TRUST:
        if arguments.config is None:
            raise InputError("approvals show: found no --config, expected the file with trust")
        stated = TrustApproval.of(trust_section(arguments.config), until)
        made = Envelope(stated.encode(), {})
        _write(Path(arguments.output), made)
        return _answer(arguments, Path(arguments.output), stated, made)
    if not re.fullmatch("[0-9]{1,18}", arguments.anchor):
        problem = f"found {arguments.anchor!r}, expected a number, or trust"
        raise InputError(f"approvals show: {problem}")
    settings, approvals = _approvals(arguments)
    with reading.opened_store(settings, "approvals show"):
        pass  # which makes no database
    with closing(sending.open_store(settings)) as store, store.transaction() as tx:
        row = tx.anchor(int(arguments.anchor))
        if row is None:
            raise InputError(f"approvals show: there is no anchor {arguments.anchor}")
        known = anchoring.take(approvals, tx, row, until)
        assert known.envelope is not None
        _write(Path(arguments.output), known.envelope)  # or else nothing was taken
    return _answer(arguments, Path(arguments.output), known.wanted, known.envelope)


def sign(arguments: argparse.Namespace) -> int:
    """Add a person's signature to a file, wherever that person is."""
    path = Path(arguments.file)
    signed_by = signer_of(arguments, "approvals sign")
    read = read_approval(path)
    with files.read_as(path, "an approval of 'provenance approvals show'"):
        stated = _decoded(read.payload, str(path))
    if approval.has_expired(stated.until, time.time()):
        raise InputError(f"{path}: expired after {stated.until}")
    signed = signed_by(read)
    if len(signed.signatures) == len(read.signatures):
        raise InputError(f"{path}: signed with this {'key' if arguments.key else 'account'} before")
    _write(path, signed)
    return _answer(arguments, path, stated, signed)


def signer_of(arguments: argparse.Namespace, command: str) -> Callable[[Envelope], Envelope]:
    """How ``--key`` or ``--sigstore`` signs; ``InputError`` where not one of the two is given."""
    if bool(arguments.key) == arguments.sigstore:
        found = "both --key and" if arguments.key else "neither --key nor"
        raise InputError(f"{command}: found {found} --sigstore, expected one of the two")
    if arguments.key:
        key = Ed25519PrivateKey.from_private_bytes(read_seed(Path(arguments.key), IDENTITY))
        return lambda envelope: approval.sign(envelope, key)

    def by_account(envelope: Envelope) -> Envelope:
        with err.status("asking Sigstore for a signature"):
            return sign_envelope(envelope)

    return by_account


def add(arguments: argparse.Namespace) -> int:
    """Take signatures into the deployment."""
    settings, approvals = _approvals(arguments)
    path = Path(arguments.file)
    brought = read_approval(path)
    with reading.opened_store(settings, "approvals add"):
        pass
    with closing(sending.open_store(settings)) as store, store.transaction() as tx:
        known = anchoring.add(approvals, tx, brought, str(path))
        row = anchoring.waiting(tx, known.wanted.network)
        assert row is not None  # the one that they are for
        conditions = sending.anchor_conditions(settings, row.network)
        then = look_again(conditions, tx, row, time.time())
    enough = len(known.signed.names) >= approvals.rule.at_least
    document = _document(known) | {"file": str(path), "enough": enough, "waits_for": then}
    return answer(arguments, document, f"{path}: {_standing(approvals, known, then)}")


def _standing(approvals: AnchoringApprovals, known: Approval, then: str | None) -> str:
    """Who has signed, and what comes then."""
    standing = approvals.standing(known)
    if len(known.signed.names) < approvals.rule.at_least:
        return f"{standing}; waits for more"
    return f"{standing}; approved; {then or 'the worker sends it'}"


def _approvals(arguments: argparse.Namespace) -> tuple[Settings, AnchoringApprovals]:
    settings = known_base(settings_of(arguments, secrets=False))
    if settings.approvals is None or not settings.approvals.networks:
        where = settings.source or "the configuration"
        raise InputError(
            f"{where}: has no approvals.networks, expected who approves what is anchored"
        )
    key = reading.require_ledger_key(settings)
    return settings, AnchoringApprovals(settings.approvals, key.vkey, time.time)


def _decoded(payload: bytes, file: str) -> Anchoring | TrustApproval:
    """What such a file is a statement of; FormatError."""
    if Statement.decode(payload).predicate.get("for") == TRUST:
        return TrustApproval.decode(payload, file)
    return Anchoring.decode(payload, file)


def _write(path: Path, signed: Envelope) -> None:
    with files.errors_of(path, "written"):
        files.replace(path, signed.encode(), files.PUBLIC)


def _answer(
    arguments: argparse.Namespace,
    path: Path,
    stated: Anchoring | TrustApproval,
    signed: Envelope,
) -> int:
    count = len(signed.signatures)
    document = _statement(stated) | {"file": str(path), "signatures": count}
    return answer(arguments, document, f"{path}: {count} signed; {stated.line}")


def _statement(stated: Anchoring | TrustApproval) -> dict[str, Any]:
    until = stated.until and stated.until.isoformat()
    if isinstance(stated, TrustApproval):
        return {"trust": stated.digest.hex(), "until": until}
    return {
        "ledger": stated.ledger,
        "network": stated.network,
        "chain": dict(stated.chain),
        "size": stated.size,
        "root": stated.root.hex(),
        "since": stated.since,
        "runs": {str(run): root.hex() for run, root in stated.runs},
        "until": until,
    }


def _document(known: Approval) -> dict[str, Any]:
    problems = [text for text in (known.problem, *known.signed.problems) if text]
    return _statement(known.wanted) | {"signed": list(known.signed.names), "problems": problems}


def _anchor(row: AnchorRow, waits_s: float) -> dict[str, Any]:
    return {"anchor": row.id, "waiting_s": waits_s}
