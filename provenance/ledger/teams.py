"""Teams: whose run a batch is of, and whether it may come in now.

A run is of the team that the first configuration record names that is let in, or of none where
that names none: later ones change nothing. That is its trainer's word, but where the deployment
says which trainers a team has: then one of them must have signed the run, and runs of theirs must
name the team. What may not come in is held back, not lost: its batch leaves the stream uncommitted,
and the ledger tells the run's shipper to keep it in the spool. The sweep lets it go on as soon as
nothing stands against it.

What comes before the configuration counts when that comes, and more than :data:`EARLY_BYTES` of it
are held back: a leader's digests of data and model, and what other ranks record meanwhile.

Use counts by UTC days. A quota that is reached lets nothing more in: it is overstepped by what was
under way, a batch or a run of each hashing worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from provenance.errors import FormatError
from provenance.formats.producers.batch import MAX_BATCH_BYTES, Batch
from provenance.formats.record import Kind, Record
from provenance.ports.listing import LABEL_CHARS, HeldRun, TeamUse
from provenance.ports.store import LedgerTx
from provenance.settings import TeamSettings

DAY_S: Final = 86400
RELEASED_AT_ONCE: Final = 100
"""Of a team, at a sweep."""
EARLY_BYTES: Final = MAX_BATCH_BYTES
"""Of records that a run may send before its configuration: one batch always comes in."""
EARLY_RETRY_S: Final = 60.0
"""A run held back for want of its configuration is asked for it so often."""
UNSTATED: Final = ""
"""In place of a team: the run's configuration has not come."""
_CONFIG: Final = f'"kind":"{Kind.CONFIG}"'.encode()
TrainerOf = Callable[[bytes, UUID, bytes], str | None]
"""Asked with an identity's bytes, run and run's key: the name of the trainer that it is; None where
it is nobody's who is known."""


@dataclass(frozen=True, slots=True)
class Teams:
    """What a deployment says of its teams."""

    settings: Mapping[str, TeamSettings] = field(default_factory=dict)
    trainer_of: TrainerOf = lambda identity, run, key: None

    def refusal(self, team: str | None, trainer: str | None) -> str | None:
        """Why a run of that trainer may not name that team (or none); None where it may."""
        own = [name for name, each in self.settings.items() if trainer in each.trainers]
        if own and team not in own:
            named = "none" if team is None else team
            return f"team {named}: trainer {trainer} is of team {' or '.join(own)}"
        bound = team is not None and team in self.settings and self.settings[team].trainers
        if bound and not own:
            return (
                f"team {team}: signed by {trainer or 'nobody who is known'}, none of its trainers"
            )
        return None

    def over(self, team: str | None, use: TeamUse, begins: bool) -> str | None:
        """Why nothing more of a team's may come in today; None where it may.

        Args:
            begins: It would be a run more.
        """
        quota = None if team is None else self.settings.get(team)
        if quota is None:
            return None
        if begins and quota.runs_per_day is not None and use.runs >= quota.runs_per_day:
            return f"team {team}: {use.runs} runs today, quota {quota.runs_per_day}"
        if quota.bytes_per_day is not None and use.nbytes >= int(quota.bytes_per_day):
            return f"team {team}: {use.nbytes} bytes today, quota {quota.bytes_per_day}"
        return None


NO_TEAMS: Final = Teams()


class Admission:
    """Decides over the batches of one transaction, and of which team each run is.

    Attributes:
        held: The runs that it held back.
        waiting: Those of them that a sweep lets go on; of others the batches come again.
    """

    def __init__(self, teams: Teams, tx: LedgerTx, now: float) -> None:
        self._teams, self._tx, self._now = teams, tx, now
        self.held: dict[UUID, HeldRun] = {}
        self.waiting: set[UUID] = set()
        self._early: dict[UUID, int] = {}
        self._named: dict[UUID, str | None] = {}
        self._use: dict[str, TeamUse] = {}

    def holds(self, batch: Batch) -> bool:
        """Whether a batch, whose signatures hold, stays outside; what is let in counts."""
        run, config = batch.certificate.run, _config(batch)
        if run in self.held and (config is None or self.held[run].team != UNSTATED):
            return True
        if config is None and not self._teams.settings:
            return False
        if run not in self._named:
            self._named.update(self._tx.teams_of([run]))
        known, early, nbytes = run in self._named, 0, sum(map(len, batch.records))
        reason = None
        if known:
            team = self._named[run]
        else:
            before = self._tx.held(run)
            team = _team(config) if config else before.team if before else UNSTATED
            early = self._early[run] if run in self._early else self._tx.early_bytes(run)
            if team != UNSTATED:
                reason = self._teams.refusal(team, self._trainer(batch))
            elif early + nbytes > EARLY_BYTES:
                reason = f"no configuration record within {EARLY_BYTES} bytes"
        use = self._used(team)
        reason = reason or self._teams.over(team, use, begins=not known)
        if reason is not None:
            self.held[run] = HeldRun(run, team, self._trainer(batch), reason, self._now)
            if self._tx.hold(self.held[run]):
                self.waiting.add(run)
            return True
        if team == UNSTATED:
            self._early[run] = early + nbytes
            return False
        if not known:
            self._named[run] = team
            self._tx.join(run, team, int(self._now // DAY_S))
        if team is not None:
            self._use[team] = TeamUse(use.runs + (not known), use.nbytes + early + nbytes)
        return False

    def _trainer(self, batch: Batch) -> str | None:
        run, key = batch.certificate.run, batch.certificate.run_key
        row = self._tx.run(run)
        identity = batch.identity_bytes if row is None or row.identity is None else row.identity
        return None if identity is None else self._teams.trainer_of(identity, run, key)

    def _used(self, team: str | None) -> TeamUse:
        if team in self._teams.settings and team not in self._use:
            self._use |= self._tx.team_use(int(self._now // DAY_S), team)
        return self._use.get(team or "", TeamUse())


def admissible(tx: LedgerTx, teams: Teams, now: float) -> list[HeldRun]:
    """The runs held back that may go on now, those that waited longest first, and of each team no
    more than its quota has room for."""
    found, use = list[HeldRun](), dict[str | None, TeamUse]()
    for team, trainer in tx.held_counts():
        if team != UNSTATED and teams.refusal(team, trainer) is not None:
            continue
        if team is not None and team not in use:
            use[team] = tx.team_use(int(now // DAY_S), team).get(team, TeamUse())
        rows = tx.held_runs(team, trainer, RELEASED_AT_ONCE)
        known = tx.teams_of([row.run for row in rows])
        for row in rows:
            own, begins = use.get(team, TeamUse()), row.run not in known
            if team == UNSTATED and begins and now - row.at < EARLY_RETRY_S:
                continue
            if teams.over(team, own, begins) is None:
                found.append(row)
                use[team] = replace(own, runs=own.runs + begins)
    return found


@dataclass(frozen=True, slots=True)
class TeamStanding:
    """A team today.

    Attributes:
        held: How many of its runs are held back.
        reason: Why one of them is; None where none is.
    """

    use: TeamUse
    quota: TeamSettings
    held: int
    reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        quota, limit = self.quota, self.quota.bytes_per_day
        return {
            "runs": self.use.runs, "runs_per_day": quota.runs_per_day,
            "bytes": self.use.nbytes, "bytes_per_day": None if limit is None else int(limit),
            "held": self.held, "reason": self.reason,
        }  # fmt: skip


def standings(
    tx: LedgerTx, settings: Mapping[str, TeamSettings], now: float
) -> dict[str, TeamStanding]:
    """Of each team that is configured, that anything came of today or that runs are held back of;
    ``""``: of none."""
    use, held, reasons = tx.team_use(int(now // DAY_S)), Counter[str](), dict[str, str]()
    for (team, trainer), number in tx.held_counts().items():
        held[team or ""] += number
        for row in tx.held_runs(team, trainer, 1):
            reasons[team or ""] = row.reason
    return {
        name: TeamStanding(
            use.get(name, TeamUse()),
            settings.get(name, TeamSettings()),
            held[name],
            reasons.get(name),
        )
        for name in sorted({*settings, *use, *held})
    }


def _config(batch: Batch) -> Record | None:
    """The configuration among a batch's records; one that cannot be read is refused later."""
    for data in batch.records:
        if _CONFIG in data:
            try:
                record = Record.decode(data)
            except FormatError:
                continue
            if record.kind is Kind.CONFIG:
                return record
    return None


def _team(config: Record) -> str | None:
    team = config.body.get("team")
    return team[:LABEL_CHARS] if isinstance(team, str) and team else None
