"""How a deployment stands, in words: a line for what counts, and a row for each network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from provenance.ledger.teams import TeamStanding
from provenance.operations.overview import NetworkStanding, Overview, cost, held_command
from provenance.ports.values import AnchorState
from provenance.report.summary import size_of, spoken

NETWORK_COLUMNS: Final = (
    "network", "newest head", "state", "final in", "waiting", "oldest", "cost", "per run",
    "anchors",
)  # fmt: skip
_NOTHING_YET: Final = "nothing: there is no database yet"
_IN_WORDS: Final = {
    AnchorState.DUE: "due",
    AnchorState.HELD: "held back",
    AnchorState.SIGNED: "signed",
    AnchorState.SENT: "sent, in no block",
    AnchorState.CONFIRMED: "in a block",
    AnchorState.FINAL: "final",
    AnchorState.REPLACED: "covered by a later head",
    AnchorState.REORGED: "out of its block again",
    AnchorState.FAILED: "failed",
}


def anchored(seen: Overview, now: float) -> str:
    """Whether everything is."""
    coming = [f"{_some(running, 'run')} running"] if (running := seen.states.get("running")) else []
    if seen.stream_entries:
        coming.append(f"{_some(seen.stream_entries, 'batch')} in the stream")
    if seen.spool_bytes:
        coming.append(f"{size_of(seen.spool_bytes)} in the spool")
    more = f"; more is coming: {', '.join(coming)}" if coming else ""
    if not seen.has_database:
        known = "unknown: there is no database" if seen.problems else _NOTHING_YET
        return f"anchored: {known}{more}"
    if not seen.networks:
        return f"anchored: nothing: anchoring is off (blockchain.enabled){more}"
    if not seen.roots:
        return f"anchored: nothing: no run has a root yet{more}"
    if not seen.waiting:
        known = "the known" if seen.problems else "all"
        final = f"final on {', '.join(seen.networks)}"
        return f"anchored: {known} {_some(seen.roots, 'root')}, {final}{more}"
    behind = [f"{name} {n.tally.waiting}" for name, n in seen.networks.items() if n.tally.waiting]
    oldest = f"the oldest for {age(now - (seen.waiting_since or now))}"
    waiting = f"{seen.waiting} not yet, {oldest} ({', '.join(behind)})"
    return f"anchored: {seen.roots - seen.waiting} of {_some(seen.roots, 'root')}; {waiting}{more}"


def notes(seen: Overview) -> Iterator[str]:
    """What else an operator should know, most pressing first."""
    for problem in seen.problems:
        yield f"does not get on: {problem}"
    for name, network in seen.networks.items():
        if network.paused:
            yield f"{name} is paused: {network.paused}"
        elif network.tally.problem:
            yield f"{name} does not get on: {network.tally.problem}"
        if network.held_s is not None:
            yield held_line(name, network.held or "waits for persons", network.held_s)
    spool = f"{size_of(seen.spool_bytes)} on this host, kept until the database confirms them"
    empty = "empty" if seen.problems else "empty: the database has all of this host"
    yield f"spool: {spool if seen.spool_bytes else empty}"
    if seen.stream_entries is not None:
        yield f"stream: {_some(seen.stream_entries, 'batch')} for a hashing worker to take"
    elif seen.settings.redis_url is None:
        yield "stream: no Redis configured; `provenance up` brings its own"
    if seen.attestations:
        stuck = f"; cannot be sent: {seen.unattested}" if seen.unattested else ""
        yield f"attestations: {_some(seen.attestations, 'run')} to be attested on ethereum{stuck}"
    for run, reason in seen.unsigned.items():
        yield f"run {run} goes on without an identity: {reason}"
    for run, reason in seen.unshipped.items():
        yield f"run {run} cannot be shipped: {reason}"
    for name, team in seen.teams.items():
        yield team_line(name, team)
    if seen.parked:
        yield f"parked: {seen.parked} that ingest refused (provenance events parked)"
    if seen.equivocations:
        yield f"equivocations: {seen.equivocations}: a producer signed two values (provenance fsck)"
    states = [f"{count} {state}" for state, count in sorted(seen.states.items())]
    if states:
        yield f"runs: {', '.join(states)}"
    for name, url in seen.pages.items():
        yield ", ".join([f"{name}: {url}", *filter(None, [seen.logins.get(name)])])


def held_line(network: str, reason: str, seconds: float) -> str:
    """What a head waits for that persons must do, how long, and the command that shows it."""
    return f"{network} {reason}, for {age(seconds)} ({held_command(reason)})"


def team_line(name: str, team: TeamStanding) -> str:
    """What came of a team today, of how much, and what is held back."""
    quota, parts = team.quota, [_some(team.use.runs, "run"), size_of(team.use.nbytes)]
    for at, limit in enumerate((quota.runs_per_day, quota.bytes_per_day)):
        if limit is not None:
            parts[at] += f" of {size_of(float(limit)) if at else limit}"
    reason = f": {team.reason}" if team.reason else ""
    held = f"; {_some(team.held, 'run')} held back{reason}" if team.held else ""
    return f"team {name or 'none'}: {', '.join(parts)} today{held}"


def network_row(name: str, network: NetworkStanding, now: float) -> tuple[Any, ...]:
    """The cells of :data:`NETWORK_COLUMNS`; the oldest is that of the roots that wait."""
    tally, newest = network.tally, network.tally.newest
    anchors = [f"{count} {_IN_WORDS[state]}" for state, count in network.anchors.items()]
    stands: tuple[Any, ...] = (None, None)
    if newest is not None:
        depth = f", {newest.depth} deep" if newest.state is AnchorState.CONFIRMED else ""
        stands = (_some(newest.size, "root"), f"{_IN_WORDS[newest.state]}{depth}")
    eta = None if network.eta_s is None else f"about {age(network.eta_s)}"
    oldest = None if tally.waiting_since is None else age(now - tally.waiting_since)
    costs = (cost(name, tally.paid), cost(name, tally.paid_per_run))
    return (name, *stands, eta, tally.waiting, oldest, *costs, ", ".join(anchors) or None)


def age(seconds: float) -> str:
    """A duration in its two largest units; whole seconds, never negative."""
    return spoken(max(0, round(seconds)))


def _some(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{ending}"
