"""``provenance status [RUN]``: what the database knows and what still waits."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from provenance.anchor.outbox import ACTIVE
from provenance.app import bundle
from provenance.app.runs import find_run
from provenance.bootstrap import reading
from provenance.capture.ship.keyless import unsigned_runs
from provenance.capture.spool import pending_bytes
from provenance.cli.output import out, print_json, print_table, settings_of
from provenance.errors import BadSignatureError, FormatError, UnavailableError
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import silent_ranks
from provenance.formats.run_tree.selection import named_networks
from provenance.ledger.seal import waits_for
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState, RunRow, StoredRecord
from provenance.settings import NETWORKS, Settings
from provenance.tickets import read_ticket
from provenance.verify.identity import check_identity
from provenance.verify.trust import Trust, of_settings

SHOWN: Final = 200
"""Runs in the table, the newest: what a terminal's reader may look through."""


def status(arguments: argparse.Namespace) -> int:
    """Runs with their seals, networks with their anchors, and the backlog."""
    settings = settings_of(arguments, secrets=False)
    document = _run(settings, arguments.run_id) if arguments.run_id else _overview(settings)
    if arguments.json:
        print_json(document)
    elif arguments.run_id:
        _print_run(document)
    else:
        _print_overview(document)
    return 0


def _overview(settings: Settings) -> dict[str, Any]:
    document: dict[str, Any] = {
        "base_dir": str(settings.base_dir),
        "spool_bytes": pending_bytes(settings.base_dir / "spool"),
        "stream_entries": _backlog(settings),
        "runs": [],
        "networks": {},
        "unsigned": unsigned_runs(settings.base_dir / "spool"),
        "parked": 0,
        "equivocations": 0,
    }
    store = reading.open_store(settings)
    if store is None:
        return document
    trust = of_settings(settings)
    with store.snapshot() as tx:
        seals = tx.seals()
        for row in tx.runs():
            document["runs"].append(
                {
                    "run_id": str(row.run),
                    "state": row.state,
                    "incomplete": row.incomplete,
                    "created": _time(row.created_at),
                    **_who(row, trust),
                    "seals": [phase.value for phase in seals.get(row.run, ())],
                }
            )
        for name in settings.blockchain.networks:
            document["networks"][name] = _network(tx, name)
        document["parked"] = len(tx.parked())
        document["equivocations"] = len(tx.equivocations())
    store.close()
    return document


def _network(tx: LedgerTx, name: str) -> dict[str, Any]:
    waiting = tx.anchors(name, ACTIVE | {AnchorState.FAILED})
    reasons = [row.reason for row in waiting if row.reason]
    remembered = tx.network(name)
    return {
        "anchors": {state.value: count for state, count in tx.anchor_counts(name).items()},
        "paused": remembered.paused if remembered else None,
        "problem": reasons[-1] if reasons else None,
    }


def _run(settings: Settings, name: str) -> dict[str, Any]:
    run = find_run(settings, name)
    store = reading.open_store(settings)
    assert store is not None
    with store.snapshot() as tx:
        row = tx.run(run)
        assert row is not None
        entries, records = tx.entries(run), tx.records(run)
        document: dict[str, Any] = {
            "run_id": str(run),
            "state": row.state,
            "incomplete": row.incomplete,
            "waits_for": waits_for(tx, run),
            "created": _time(row.created_at),
            "sealed": _time(row.sealed_at),
            **_who(row, of_settings(settings)),
            "records": len(records),
            "epochs": sorted({r.epoch for r in records if r.epoch is not None}),
            "silent": _silent(records),
            "equivocations": len(tx.equivocations(run)),
            "parked": len(tx.parked(run)),
            "roots": [
                {
                    "phase": e.phase.value,
                    "epoch": e.epoch,
                    "root": e.root.hex(),
                    "ledger_index": e.index,
                }
                for e in entries
            ],
            "networks": {},
            "bundles": bundle.noted(settings, run),
        }
    named = named_networks(_decoded(records)).intersection(NETWORKS)
    for network in dict.fromkeys((*settings.blockchain.networks, *sorted(named))):
        document["networks"][network] = {}
        for phase in (Phase.BEFORE, Phase.AFTER):
            state = read_ticket(store, run, phase, network)
            document["networks"][network][phase.value] = {
                "status": state.status,
                "transaction_id": state.transaction_id,
                "reason": state.reason,
            }
    store.close()
    return document


def _silent(records: Iterable[StoredRecord]) -> list[str]:
    """The ranks that an epoch has no metrics of, though others have."""
    own = ((r.epoch or 0, r.rank) for r in records if r.kind is Kind.METRICS)
    return [f"{epochs}: {line}" for epochs, line in silent_ranks(own)]


def _decoded(records: Iterable[StoredRecord]) -> Iterator[Record]:
    """The ``run.seal`` records that can be read; for the others there is ``provenance verify``."""
    for row in records:
        if row.kind is Kind.SEAL:
            with contextlib.suppress(FormatError):
                yield Record.decode(row.data)


def _print_overview(document: dict[str, Any]) -> None:
    entries = document["stream_entries"]
    stream = "Redis not configured or not reachable" if entries is None else f"{entries} entries"
    out.print(f"spool {document['spool_bytes']} bytes not yet acknowledged; stream: {stream}")
    for run, reason in document["unsigned"].items():
        out.print(f"run {run} goes on without an identity: {reason}")
    out.print(f"parked {document['parked']}, equivocations {document['equivocations']}")
    out.print()
    if (older := len(document["runs"]) - SHOWN) > 0:
        out.print(f"{older} older runs; --json has all")
    print_table(
        ("run", "state", "created", "identity", "seals", "incomplete"),
        [
            (
                r["run_id"],
                r["state"],
                r["created"],
                r["trainer"] or (r["identity"] and _shown(r["identity"])[:40]),
                " ".join(r["seals"]),
                r["incomplete"],
            )
            for r in document["runs"][-SHOWN:]
        ],
    )
    out.print()
    print_table(
        ("network", "anchors", "paused", "problem"),
        [
            (
                name,
                " ".join(f"{state}={count}" for state, count in n["anchors"].items()) or None,
                n["paused"],
                n["problem"],
            )
            for name, n in document["networks"].items()
        ],
    )


def _print_run(document: dict[str, Any]) -> None:
    out.print(f"run {document['run_id']}: {document['state']}, {document['records']} records")
    who = f" ({document['trainer']})" if document["trainer"] else ""
    by = document["identity"]
    out.print(f"identity: {_shown(by) if by else 'nobody signed this run'}{who}")
    if document["incomplete"]:
        out.print(f"incomplete: {document['incomplete']}")
    if document["waits_for"]:
        out.print(f"waits for: {'; '.join(document['waits_for'])}")
    for line in document["silent"]:
        out.print(line)
    for root in document["roots"]:
        where = root["phase"] if root["epoch"] is None else f"{root['phase']} {root['epoch']}"
        out.print(f"{where:<12} {root['root']}  ledger entry {root['ledger_index']}")
    out.print()
    print_table(
        ("network", "seal", "status", "transaction", "reason"),
        [
            (name, phase, state["status"], state["transaction_id"], state["reason"])
            for name, phases in document["networks"].items()
            for phase, state in phases.items()
        ],
    )
    for item in document["bundles"]:
        where = f"bundle on IPFS since {_time(item.get('at'))}: ipfs:{item['cid']}"
        out.print(where)


def _who(row: RunRow, trust: Trust) -> dict[str, Any]:
    """Who stands behind the run, and the name that it is pinned under."""
    if row.identity is None:
        return {"identity": None, "trainer": None}
    try:
        standing = check_identity(row.identity, row.run, row.public_key, trust)
    except (FormatError, BadSignatureError) as error:
        return {"identity": f"does not hold: {error}", "trainer": None}
    return {"identity": standing.as_json(), "trainer": standing.trainer}


def _shown(identity: str | dict[str, str | None]) -> str:
    if isinstance(identity, str):
        return identity
    label = f"{identity['name']}, by {identity['issuer']}"
    why = identity["not_checked"]
    return label if why is None else f"not checked: {label}: {why}"


def _backlog(settings: Settings) -> int | None:
    if settings.redis_url is None:
        return None
    try:
        return reading.stream_backlog(settings)
    except UnavailableError:
        return None


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
