"""``provenance status [RUN]``: what the database knows and what still waits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final

from provenance.app import bundle
from provenance.app.base_directory import known_base
from provenance.app.run_list import ListedRun, Wanted, ending_of, list_runs
from provenance.bootstrap import reading
from provenance.capture.ending import GOES_ON
from provenance.cli.output import (
    json_line,
    moment,
    out,
    print_json,
    print_table,
    print_text,
    settings_of,
    when,
)
from provenance.errors import BadSignatureError, FormatError, InputError, UnavailableError
from provenance.evidence import from_database
from provenance.evidence.story import RunState
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.ranks import silent_ranks
from provenance.formats.run_tree.selection import named_networks, unannounced
from provenance.ledger.seal import waits_for
from provenance.log import shown
from provenance.observe import readiness
from provenance.operations import words
from provenance.operations.overview import Overview, network_document, overview
from provenance.ports.values import LedgerEntry, RunRow, StoredRecord
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
    "run", "state", "name", "newest", "numbers", "took", "last seen", "age", "seals", "dropped",
    "team", "identity", "incomplete",
)  # fmt: skip
"""What matters most comes first: a narrow terminal has no place for the rest."""
_LEAST_RUNS: Final = 5
_PIPED_RUNS: Final = 50


def status(arguments: argparse.Namespace) -> int:
    """Runs with their seals, networks with their anchors, and the backlog."""
    settings = known_base(settings_of(arguments, secrets=False))
    run = arguments.run_id
    given = [
        name
        for name in ("state", "name", "team", "group", "tag", "since", "network", "watch")
        if getattr(arguments, name)
    ]
    if run and given:
        raise InputError(f"--{given[0]}: found RUN {run} too, expected one of the two")
    if arguments.watch:
        return _watch(arguments, settings)
    wanted = _wanted(arguments, settings)
    if run:
        document, code = _run(settings, run, wanted), 0
    else:
        seen = _seen(settings, wanted)
        document, code = _document(seen, wanted), seen.exit_code
    if arguments.json:
        print_json(document)
    elif run:
        _print_run(document)
    else:
        _print_overview(seen, document, wanted.now)
    return code


def _seen(settings: Settings, wanted: Wanted) -> Overview:
    """Without a Redis nothing runs, and nothing is tried; that it begins is no problem."""
    found = readiness.of_servers(settings) if settings.redis_url is not None else ()
    return overview(settings, wanted, [each for each in found if each != readiness.NO_SWEEP])


def _wanted(arguments: argparse.Namespace, settings: Settings) -> Wanted:
    now = time.time()
    limit = arguments.limit or _PIPED_RUNS
    if arguments.limit is None and out.is_terminal and not arguments.json:
        around = 14 + len(settings.blockchain.networks)
        limit = max(_LEAST_RUNS, out.height - around)
    return Wanted(
        now=now,
        lost_after_s=settings.lost_after_s,
        size=limit,
        tags=arguments.tag or (),
        since=None if arguments.since is None else moment("--since", arguments.since, now),
        **{
            key: getattr(arguments, key)
            for key in ("state", "name", "team", "group", "network", "sort")
        },
        page=arguments.page,
    )


def _watch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Until Ctrl-C, again and again; what cannot be asked now may be later."""
    from rich.live import Live
    from rich.text import Text

    def page() -> str:
        wanted = _wanted(arguments, settings)
        try:
            seen = _seen(settings, wanted)
        except UnavailableError as error:
            return json_line({"error": str(error)}) if arguments.json else shown(str(error))
        if arguments.json:
            return json_line(_document(seen, wanted))
        with out.capture() as capture:
            _print_overview(seen, _document(seen, wanted), wanted.now)
        return capture.get().rstrip("\n")

    with suppress(KeyboardInterrupt):
        if arguments.json or not out.is_terminal:
            while True:
                print_text(page() + ("\n" if arguments.json else "\n\n"))
                time.sleep(arguments.watch)
        with Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Text.from_ansi(page()), refresh=True)
                time.sleep(arguments.watch)
    return 0


def _document(seen: Overview, wanted: Wanted) -> dict[str, Any]:
    trust = of_settings(seen.settings)
    since = seen.waiting_since
    return {
        "base_dir": str(seen.settings.base_dir),
        "anchored": {
            "roots": seen.roots,
            "waiting": seen.waiting,
            "oldest_s": None if since is None else wanted.now - since,
        },
        "spool_bytes": seen.spool_bytes,
        "stream_entries": seen.stream_entries,
        "problems": seen.problems,
        "runs": [
            _told(item, trust)
            | {"seals": [phase.value for phase in seen.seals.get(item.row.run, ())]}
            for item in seen.runs
        ],
        "runs_total": seen.runs_total,
        "states": dict(seen.states),
        "page": wanted.page,
        "limit": wanted.size,
        "networks": {
            name: network_document(name, network, wanted.now)
            for name, network in seen.networks.items()
        },
        "teams": {name: team.as_dict() for name, team in seen.teams.items()},
        "unsigned": dict(seen.unsigned),
        "unshipped": dict(seen.unshipped),
        "attestations": seen.attestations,
        "unattested": seen.unattested,
        "parked": seen.parked,
        "equivocations": seen.equivocations,
        "pages": dict(seen.pages),
        "logins": dict(seen.logins),
    }


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


def _run(settings: Settings, name: str, wanted: Wanted) -> dict[str, Any]:
    with reading.opened_store(settings, f"run {name}") as store:
        run = from_database.find_run(store, name)
        with store.snapshot() as tx:
            row = tx.run(run)
            assert row is not None
            records, entries = tx.records(run), tx.entries(run)
            _, parked, twice = tx.totals(run)
            told = list(_decoded(records, (*_TELLING, Kind.METRICS)))
            ending = ending_of(tx, run, told, wanted.now, wanted.lost_after_s)
            document: dict[str, Any] = {
                **_told(list_runs(tx, replace(wanted, run=run))[0][0], of_settings(settings)),
                "ending": ending._asdict(),
                "waits_for": waits_for(tx, run),
                "unannounced": unannounced(told) if told else None,
                "created": when(row.created_at),
                "sealed": when(row.sealed_at),
                "archived": kept.digest.hex() if (kept := tx.archived(run)) else None,
                "records": len(records),
                "epochs": sorted({r.epoch for r in records if r.epoch is not None}),
                "silent": _silent(records),
                "equivocations": twice,
                "parked": parked,
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


def _print_overview(seen: Overview, document: dict[str, Any], now: float) -> None:
    out.print(words.anchored(seen, now))
    for line in words.notes(seen):
        out.print(line)
    out.print()
    rows: list[tuple[Any, ...]] = []
    for r, item in zip(document["runs"], seen.runs, strict=True):
        who = r["trainer"] or (r["identity"] and _cut(_shown(r["identity"])))
        stands = (r["run_id"], item.ending.line, r["name"] and _cut(r["name"]))
        times = (
            spoken(r["seconds"]),
            f"{words.age(now - item.seen)} ago",
            words.age(now - item.begun),
        )
        rest = (" ".join(r["seals"]), r["dropped"] or None, r["team"], who, r["incomplete"])
        rows.append((*stands, _newest(r), _numbers(r), *times, *rest))
    if rows:
        print_table(_COLUMNS, rows, least=2)
    elif seen.has_database:
        out.print("no runs on this page" if seen.runs_total else "no such runs")
    pages = -(-seen.runs_total // document["limit"])
    if pages > 1:
        total = f"page {document['page']} of {pages}, {seen.runs_total} runs"
        more = seen.runs_total - len(seen.runs)
        out.print(f"{total}; {more} more: --page, --limit, or fewer by --state, --name, --since")
    out.print()
    rows = [words.network_row(*pair, now) for pair in seen.networks.items()]
    print_table(words.NETWORK_COLUMNS, rows, least=4)


def _newest(run: dict[str, Any]) -> str | None:
    """Such as ``epoch 3``."""
    return next((f"{k} {run[k]}" for k in ("epoch", "step") if run[k] is not None), None)


def _numbers(run: dict[str, Any]) -> str | None:
    return " ".join(f"{_cut(k)}={_cut(plain(v))}" for k, v in run["numbers"].items()) or None


def _print_run(document: dict[str, Any]) -> None:
    state = RunState(**document["ending"]).line
    sealed = "" if document["state"] == "open" else f", {document['state']}"
    out.print(f"run {document['run_id']}: {state}{sealed}, {document['records']} records")
    texts = {key: document[key] for key in ("name", "team", "group", "parent") if document[key]}
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
    if document["dropped"]:
        out.print(f"dropped: {document['dropped']} events, as its trainers say (gaps)")
    if document["incomplete"]:
        out.print(f"incomplete: {document['incomplete']}")
    if document["archived"]:
        out.print(f"archived: its records are in {document['archived'][:16]}....zip")
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
