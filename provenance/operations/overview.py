"""How a deployment stands, in a fixed number of queries: is everything anchored, what does it cost,
what is stuck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from provenance.anchor.owners import WAITS
from provenance.app.base_directory import TOKENS_FILE, running_fleet
from provenance.app.run_list import ListedRun, list_runs
from provenance.bootstrap import reading
from provenance.capture.reasons import UNSHIPPED, UNSIGNED, noted
from provenance.capture.spool import pending_bytes
from provenance.errors import ConfigError, FormatError, UnavailableError
from provenance.ledger.teams import TeamStanding, standings
from provenance.ports.listing import UNITS, NetworkTally, Wanted
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState, PendingAttestation, Work
from provenance.settings import Settings

_UNITS: Final = {"ethereum": ("ETH", 1e18), "bitcoin": ("BTC", 1e8)}


@dataclass(frozen=True, slots=True)
class NetworkStanding:
    """A network as an operator sees it.

    Attributes:
        tally: As the ledger has it.
        anchors: How many are in each state.
        eta_s: Seconds until the newest anchor is final, by the depth that is missing and the pace
            of the blocks that took the anchors before; None where it is final, not known, or
            ``stuck``.
        held, held_s: What a head waits for that others must do, and for how many seconds the
            oldest root under it waits to be final; None where none does.
    """

    tally: NetworkTally
    anchors: Mapping[AnchorState, int]
    paused: str | None
    eta_s: float | None
    held: str | None = None
    held_s: float | None = None

    @property
    def stuck(self) -> str | None:
        """Why it does not get on; None where nothing is known to be wrong."""
        return self.paused or self.tally.problem


@dataclass(slots=True)
class Overview:
    """A deployment, and a page of its runs.

    Attributes:
        spool_bytes: On this host, not confirmed by the database yet.
        stream_entries: That no worker has taken; None where no Redis is configured, or it does not
            answer.
        problems: Why Redis or the database does not get on.
        states: How many of all runs are in each.
        roots: How many ask for an anchor.
        teams: By name, how much came of each today.
        unsigned: Runs that go on without an identity, and why.
        unshipped: Runs of this host of which nothing is shipped, and why.
        attestations: Of how many runs an outcome is on its way to Ethereum.
        unattested: A run whose outcome cannot be sent there, and why; None without one.
        pages: What ``provenance up`` serves here, by name.
        logins: Where the password of a page is.
    """

    settings: Settings
    spool_bytes: int
    stream_entries: int | None = None
    problems: list[str] = field(default_factory=list)
    has_database: bool = False
    runs: list[ListedRun] = field(default_factory=list)
    seals: Mapping[Any, Any] = field(default_factory=dict)
    runs_total: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    roots: int = 0
    parked: int = 0
    equivocations: int = 0
    networks: dict[str, NetworkStanding] = field(default_factory=dict)
    teams: Mapping[str, TeamStanding] = field(default_factory=dict)
    unsigned: Mapping[str, str] = field(default_factory=dict)
    unshipped: Mapping[str, str] = field(default_factory=dict)
    attestations: int = 0
    unattested: str | None = None
    pages: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Roots that are not final on every network."""
        return max((n.tally.waiting for n in self.networks.values()), default=self.roots)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest of them was made, Unix seconds."""
        since = [n.tally.waiting_since for n in self.networks.values()]
        return min((moment for moment in since if moment is not None), default=None)

    @property
    def exit_code(self) -> int:
        """3: Redis or the database does not get on; 1: a network is paused or does not; else 0."""
        if self.problems:
            return UnavailableError.exit_code
        return int(any(network.stuck for network in self.networks.values()))


def overview(settings: Settings, wanted: Wanted, problems: Sequence[str] = ()) -> Overview:
    """How it stands now.

    Args:
        problems: What is known already of Redis and the database.

    Raises:
        StoreUnavailable
        ConfigError: The database is of another schema, or not to be read.
    """
    spool, fleet = settings.base_dir / "spool", running_fleet(settings.base_dir) or {}
    made = Overview(settings, pending_bytes(spool), unsigned=noted(spool, UNSIGNED))
    made.unshipped = noted(spool, UNSHIPPED)
    made.problems = list(problems)
    made.pages = fleet.get("pages") or {}
    if fleet.get("flower_auth"):
        made.logins = {"Flower": "user and password: flower_auth in run/up.json"}
    if "dashboard" in made.pages and (settings.base_dir / TOKENS_FILE).exists():
        word = "any user, a token of 'provenance token new' as password"
        made.logins = {**made.logins, "dashboard": word}
    if settings.redis_url is not None:
        try:
            made.stream_entries = reading.stream_backlog(settings)
        except (UnavailableError, ConfigError) as error:
            made.problems = made.problems or [str(error)]
    store = reading.open_store(settings)
    if store is None:
        return made
    made.has_database = True
    with closing(store), store.snapshot() as tx:
        made.runs, made.runs_total = list_runs(tx, wanted)
        made.seals = tx.seals([item.row.run for item in made.runs])
        made.states = tx.run_states(Wanted(wanted.now, wanted.lost_after_s, among=wanted.among))
        made.roots, made.parked, made.equivocations = tx.totals()
        made.attestations, made.unattested = attestations(tx)
        made.teams = standings(tx, settings.teams, wanted.now)
        for name in settings.blockchain.active:
            made.networks[name] = _standing(tx, settings, name, wanted.now)
    return made


def held_head(tx: LedgerTx, network: str) -> tuple[str | None, float] | None:
    """What a network's head waits for that persons must do, and since when its oldest root does;
    None where no head is HELD."""
    for row in tx.anchors(network, (AnchorState.HELD,)):
        since = tx.tally(network).waiting_since
        return row.reason, row.updated_at if since is None else since
    return None


def attestations(tx: LedgerTx) -> tuple[int, str | None]:
    """As :class:`Overview` has them."""
    row = tx.most_tried(Work.ATTESTATION)
    if row is None:
        return 0, None
    try:
        problem = PendingAttestation.decode(row.told).problem
    except FormatError as error:
        problem = str(error)
    return tx.work_count(Work.ATTESTATION), problem and f"run {row.run}: {problem}"


@dataclass(frozen=True, slots=True)
class HeldHead:
    """A head that persons must sign first: for what it waits and how many seconds, and the command
    that shows who has signed."""

    network: str
    reason: str
    waiting_s: float
    command: str


def waits(settings: Settings, now: float) -> list[HeldHead]:
    """Of each network, the head that waits for persons."""
    store, found = reading.open_store(settings), list[HeldHead]()
    if store is None:
        return found
    with closing(store), store.snapshot() as tx:
        for name in settings.blockchain.active:
            if (held := held_head(tx, name)) is not None:
                reason = held[0] or "waits for persons"
                found.append(HeldHead(name, reason, now - held[1], held_command(reason)))
    return found


def held_command(reason: str) -> str:
    """The command that shows who has signed what a head waits for."""
    return f"provenance {'multisig' if reason.startswith(WAITS) else 'approvals'} list"


def _standing(tx: LedgerTx, settings: Settings, name: str, now: float) -> NetworkStanding:
    tally, remembered = tx.tally(name), tx.network(name)
    needed = getattr(getattr(settings.blockchain, name, None), "confirmations", 1)
    newest, paused = tally.newest, remembered.paused if remembered else None
    standing = NetworkStanding(tally, tx.anchor_counts(name), paused, None)
    if (held := held_head(tx, name)) is not None:
        standing = replace(standing, held=held[0], held_s=now - held[1])
    if (
        standing.stuck
        or standing.held
        or newest is None
        or not tally.block_s
        or newest.size <= tally.final
    ):
        return standing
    return replace(standing, eta_s=max(1, needed - newest.depth) * tally.block_s)


def cost(network: str, paid: float | None) -> str | None:
    """An amount in the network's own coin, such as ``0.00123 ETH``; None where it is not known."""
    unit, parts = _UNITS.get(network, (None, 1.0))
    return None if unit is None or paid is None else f"{paid / parts:.6g} {unit}"


def network_document(name: str, network: NetworkStanding, now: float) -> dict[str, Any]:
    """For JSON; amounts in wei or satoshi, times in seconds."""
    tally, newest = network.tally, network.tally.newest
    return {
        "anchors": {state.value: count for state, count in network.anchors.items()},
        "head": newest.size if newest else None,
        "state": newest.state.value if newest else None,
        "depth": newest.depth if newest else None,
        "age_s": now - newest.created_at if newest else None,
        "eta_s": network.eta_s,
        "final": tally.final,
        "waiting": tally.waiting,
        "waiting_s": now - tally.waiting_since if tally.waiting_since is not None else None,
        "cost": tally.paid,
        "cost_per_run": tally.paid_per_run,
        "unit": UNITS.get(name),
        "paused": network.paused,
        "problem": network.tally.problem,
        "held": network.held,
        "held_s": network.held_s,
    }
