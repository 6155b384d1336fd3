"""``provenance status [RUN]``: what the database knows and what still waits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any, Final

from provenance.anchor.outbox import ACTIVE
from provenance.app import bundle
from provenance.app.run_list import ListedRun, Wanted, ending_of, list_runs, listed
from provenance.bootstrap import reading
from provenance.capture.ending import GOES_ON
from provenance.capture.ship.keyless import unsigned_runs
from provenance.capture.spool import pending_bytes
from provenance.cli.output import out, print_json, print_table, settings_of, when
from provenance.errors import BadSignatureError, FormatError, InputError, UnavailableError
from provenance.evidence import from_database
from provenance.evidence.story import RunState
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import silent_ranks
from provenance.formats.run_tree.selection import named_networks, unannounced
from provenance.ledger.seal import waits_for
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState, LedgerEntry, RunRow, StoredRecord
from provenance.report.summary import shown as plain
from provenance.report.summary import spoken
from provenance.settings import NETWORKS, Settings
from provenance.tickets import TicketState, anchor_state
from provenance.verify.identity import check_identity
from provenance.verify.trust import Trust, of_settings

_ENDS: Final = (Phase.BEFORE, Phase.AFTER)
_TELLING: Final = (Kind.CONFIG, Kind.SEAL, Kind.RUN_END)
"""Kinds of records that tell how a run ended."""
_COLUMNS: Final = (
    "run", "state", "name", "newest", "numbers", "took", "last seen", "began", "seals", "identity",
    "incomplete",
)  # fmt: skip
"""What matters most comes first: a narrow terminal has no place for the rest."""


def status(arguments: argparse.Namespace) -> int:
    """Runs with their seals, networks with their anchors, and the backlog."""
    settings = settings_of(arguments, secrets=False)
    keys = ("state", "name", "group", "sort", "page")
    wanted = Wanted(
        now=time.time(),
        lost_after_s=settings.lost_after_s,
        size=arguments.limit,
        tags=arguments.tag or (),
        **{key: getattr(arguments, key) for key in keys},
    )
    run = arguments.run_id
    given = [name for name in ("state", "name", "group", "tag") if getattr(arguments, name)]
    if run and given:
        raise InputError(f"--{given[0]}: found RUN {run} too, expected one of the two")
    document = _run(settings, run, wanted) if run else _overview(settings, wanted)
    if arguments.json:
        print_json(document)
    else:
        (_print_run if arguments.run_id else _print_overview)(document)
    return 0


def _overview(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    document: dict[str, Any] = {
        "base_dir": str(settings.base_dir),
        "spool_bytes": pending_bytes(settings.base_dir / "spool"),
        "stream_entries": None,
        "runs": [],
        "runs_total": 0,
        "page": wanted.page,
        "limit": wanted.size,
        "networks": {},
        "unsigned": unsigned_runs(settings.base_dir / "spool"),
        "parked": 0,
        "equivocations": 0,
    }
    with suppress(UnavailableError):
        if settings.redis_url is not None:
            document["stream_entries"] = reading.stream_backlog(settings)
    store = reading.open_store(settings)
    if store is None:
        return document
    trust = of_settings(settings)
    with closing(store), store.snapshot() as tx:
        seals = tx.seals()
        runs, document["runs_total"] = list_runs(tx, wanted)
        for item in runs:
            run = _told(item, trust)
            run["seals"] = [phase.value for phase in seals.get(item.row.run, ())]
            document["runs"].append(run)
        document["networks"] = {n: _network(tx, n) for n in settings.blockchain.networks}
        document["parked"] = len(tx.parked())
        document["equivocations"] = len(tx.equivocations())
    return document


def _told(item: ListedRun, trust: Trust) -> dict[str, Any]:
    """What the list and the view of one run have alike."""
    row = item.row
    return {
        "run_id": str(row.run),
        "state": row.state,
        "ending": item.ending._asdict(),
        **item.as_dict(),
        "begun": when(item.begun),
        "seen": when(item.seen),
        "seconds": item.seen - item.begun,
        "incomplete": row.incomplete,
        **_who(row, trust),
    }


def _network(tx: LedgerTx, name: str) -> dict[str, Any]:
    waiting = tx.anchors(name, ACTIVE | {AnchorState.FAILED})
    reasons = [row.reason for row in waiting if row.reason]
    remembered = tx.network(name)
    return {
        "anchors": {state.value: count for state, count in tx.anchor_counts(name).items()},
        "paused": remembered.paused if remembered else None,
        "problem": reasons[-1] if reasons else None,
    }


def _run(settings: Settings, name: str, wanted: Wanted) -> dict[str, Any]:
    with reading.opened_store(settings, f"run {name}") as store:
        run = from_database.find_run(store, name)
        with store.snapshot() as tx:
            row = tx.run(run)
            assert row is not None
            records, entries = tx.records(run), tx.entries(run)
            told = list(_decoded(records, (*_TELLING, Kind.METRICS)))
            ending = ending_of(tx, run, told, wanted.now, wanted.lost_after_s)
            document: dict[str, Any] = {
                **_told(listed(tx, row, wanted), of_settings(settings)),
                "ending": ending._asdict(),
                "waits_for": waits_for(tx, run),
                "unannounced": unannounced(told) if told else None,
                "created": when(row.created_at),
                "sealed": when(row.sealed_at),
                "records": len(records),
                "epochs": sorted({r.epoch for r in records if r.epoch is not None}),
                "silent": _silent(records),
                "equivocations": len(tx.equivocations(run)),
                "parked": len(tx.parked(run)),
                "roots": [_root(entry) for entry in entries],
                "networks": {},
                "bundles": bundle.noted(settings, run),
            }
            named = named_networks(_decoded(records)).intersection(NETWORKS)
            seals = _awaited(entries, ending.state)
            for network in dict.fromkeys((*settings.blockchain.networks, *sorted(named))):
                tickets = document["networks"][network] = {}
                for label, entry in seals.items():
                    state = anchor_state(tx, entry, network) if entry else TicketState("pending")
                    tickets[label] = asdict(state)
                    del tickets[label]["root"]
    return document


def _awaited(entries: Sequence[LedgerEntry], ending: str) -> dict[str, LedgerEntry | None]:
    """The seals whose anchors count: before, the newest checkpoint that has one, and after, which a
    run that stopped does not have."""
    newest = {each.phase: each for each in entries if each.phase in _ENDS or each.anchor}
    found = {Phase.BEFORE.value: newest.get(Phase.BEFORE)}
    if (checkpoint := newest.get(Phase.CHECKPOINT)) is not None:
        found[f"checkpoint {checkpoint.epoch}"] = checkpoint
    if Phase.AFTER in newest or ending not in (*GOES_ON, "lost"):
        found[Phase.AFTER.value] = newest.get(Phase.AFTER)
    return found


def _root(entry: LedgerEntry) -> dict[str, Any]:
    place = {"phase": entry.phase.value, "epoch": entry.epoch}
    return place | {"root": entry.root.hex(), "ledger_index": entry.index}


def _silent(records: Iterable[StoredRecord]) -> list[str]:
    """The ranks that an epoch has no metrics of, though others have."""
    own = ((r.epoch or 0, r.rank) for r in records if r.kind is Kind.METRICS)
    return [f"{epochs}: {line}" for epochs, line in silent_ranks(own)]


def _decoded(
    records: Iterable[StoredRecord], kinds: Collection[Kind] = (Kind.SEAL,)
) -> Iterator[Record]:
    """Records of these kinds that can be read; for the others there is ``provenance verify``."""
    for row in records:
        if row.kind in kinds:
            with suppress(FormatError):
                yield Record.decode(row.data)


def _print_overview(document: dict[str, Any]) -> None:
    entries = document["stream_entries"]
    stream = "Redis not configured or not reachable" if entries is None else f"{entries} entries"
    out.print(f"spool {document['spool_bytes']} bytes not yet acknowledged; stream: {stream}")
    for run, reason in document["unsigned"].items():
        out.print(f"run {run} goes on without an identity: {reason}")
    out.print(f"parked {document['parked']}, equivocations {document['equivocations']}")
    out.print()
    rows: list[tuple[Any, ...]] = []
    for r in document["runs"]:
        who = r["trainer"] or (r["identity"] and _cut(_shown(r["identity"])))
        stands = (r["run_id"], RunState(**r["ending"]).line, r["name"] and _cut(r["name"]))
        times = (spoken(r["seconds"]), r["seen"], r["begun"])
        rows.append(
            (*stands, _newest(r), _numbers(r), *times, " ".join(r["seals"]), who, r["incomplete"])
        )
    if rows:
        print_table(_COLUMNS, rows, least=2)
    else:
        out.print("no runs on this page" if document["runs_total"] else "no such runs")
    if (pages := -(-document["runs_total"] // max(1, document["limit"]))) > 1:
        out.print(f"page {document['page']} of {pages}, {document['runs_total']} runs")
    out.print()
    rows = []
    for name, n in document["networks"].items():
        anchors = " ".join(f"{state}={count}" for state, count in n["anchors"].items())
        rows.append((name, anchors or None, n["paused"], n["problem"]))
    print_table(("network", "anchors", "paused", "problem"), rows)


def _newest(run: dict[str, Any]) -> str | None:
    """Such as ``epoch 3``."""
    return next((f"{k} {run[k]}" for k in ("epoch", "step") if run[k] is not None), None)


def _numbers(run: dict[str, Any]) -> str | None:
    return " ".join(f"{_cut(k)}={_cut(plain(v))}" for k, v in run["numbers"].items()) or None


def _print_run(document: dict[str, Any]) -> None:
    state = RunState(**document["ending"]).line
    sealed = "" if document["state"] == "open" else f", {document['state']}"
    out.print(f"run {document['run_id']}: {state}{sealed}, {document['records']} records")
    texts = {key: document[key] for key in ("name", "group", "parent") if document[key]}
    texts |= {"tags": ", ".join(document["tags"])} if document["tags"] else {}
    for key, text in texts.items():
        out.print(f"{key}: {text}")
    newest = ", ".join(filter(None, (_newest(document), _numbers(document))))
    out.print(f"newest: {newest or 'no metrics'}")
    took = spoken(document["seconds"])
    out.print(f"began {document['begun']}, last seen {document['seen']}, took {took}")
    who = f" ({document['trainer']})" if document["trainer"] else ""
    by = document["identity"]
    out.print(f"identity: {_shown(by) if by else 'nobody signed this run'}{who}")
    if document["incomplete"]:
        out.print(f"incomplete: {document['incomplete']}")
    if document["waits_for"]:
        out.print(f"waits for: {'; '.join(document['waits_for'])}")
    if document["unannounced"]:
        out.print(document["unannounced"])
    for line in document["silent"]:
        out.print(line)
    for root in document["roots"]:
        where = root["phase"] if root["epoch"] is None else f"{root['phase']} {root['epoch']}"
        out.print(f"{where:<12} {root['root']}  ledger entry {root['ledger_index']}")
    out.print()
    rows = [
        (name, phase, *state.values())
        for name, phases in document["networks"].items()
        for phase, state in phases.items()
    ]
    print_table(("network", "seal", "status", "transaction", "reason"), rows)
    for item in document["bundles"]:
        out.print(f"bundle on IPFS since {when(item.get('at'))}: ipfs:{item['cid']}")


def _who(row: RunRow, trust: Trust) -> dict[str, Any]:
    """Who stands behind the run, and the name that it is pinned under."""
    if row.identity is None:
        return {"identity": None, "trainer": None}
    try:
        standing = check_identity(row.identity, row.run, row.public_key, trust)
    except (FormatError, BadSignatureError) as error:
        return {"identity": f"does not hold: {error}", "trainer": None}
    return {"identity": standing.as_json(), "trainer": standing.trainer}


def _cut(text: str) -> str:
    """As much as a column takes; the JSON has all of it."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def _shown(identity: str | dict[str, str | None]) -> str:
    if isinstance(identity, str):
        return identity
    label = f"{identity['name']}, by {identity['issuer']}"
    why = identity["not_checked"]
    return label if why is None else f"not checked: {label}: {why}"
