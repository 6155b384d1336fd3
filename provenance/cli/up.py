"""What an operator starts and changes: up, ship, migrate, networks, contract."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from provenance import files
from provenance.anchor import pauses
from provenance.app import up as fleet
from provenance.app.base_directory import known_base, leave_config
from provenance.app.processes import free_ports
from provenance.bootstrap import guarding, reading, sending
from provenance.cli.output import answer, err, print_json, settings_of
from provenance.errors import (
    ConfigError,
    InputError,
    LyingNodeError,
    MissingExtraError,
    NetworkUnavailable,
)
from provenance.ledger.seal import SealPolicy
from provenance.settings import Settings, broker_address


def up(arguments: argparse.Namespace) -> int:
    """Run everything between the spool and the networks until SIGINT or SIGTERM."""
    settings = settings_of(arguments)
    fleet.require_extra("workers")
    if arguments.dashboard or arguments.dashboard_port:
        fleet.require_extra("dashboard")
    stopping = _until_signalled()
    with fleet.only_fleet(settings.base_dir):
        return _up(arguments, settings, stopping)


def _until_signalled() -> Callable[[], bool]:
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    return lambda: bool(signals)


def _up(arguments: argparse.Namespace, settings: Settings, stopping: Callable[[], bool]) -> int:
    quiet = arguments.json
    own_redis, url = None, settings.redis_url
    if url is None:
        own_redis, url = fleet.embedded_redis(settings)
        settings = replace(settings, redis_url=url)
    broker_address(settings).broker()  # or refused
    had_key = settings.key_file.exists()
    policy = sending.seal_policy(settings)

    def say(name: str, line: str) -> None:
        if not quiet:
            err.print(f"{time.strftime('%H:%M:%S')}  {name:<16} {line}")

    port, auth = _port(arguments, "flower"), None
    if port is not None:
        auth = f"provenance:{secrets.token_urlsafe(24)}"
    metrics = None
    if arguments.metrics:
        host, at = arguments.metrics
        metrics = f"[{host}]:{at}" if ":" in host else f"{host}:{at}"
    dashboard_port, pages = _port(arguments, "dashboard"), dict[str, str]()
    config = Path(settings.source) if settings.source else None
    state_file = settings.base_dir / "run" / "up.json"
    runs = fleet.Fleet(settings, config, url, say)
    leave_config(settings.base_dir, config)
    try:
        if own_redis is not None:
            runs.start([own_redis])
        transport = sending.open_transport(settings)
        fleet.wait_until(transport.ping)
        reading.require_ledger(transport.ledger(), policy.signer.verifier)
        _guard(settings, policy, say, had_key)
        runs.start(fleet.services(settings, port, auth or "", metrics))
        if dashboard_port is not None:
            runs.start([fleet.dashboard(dashboard_port)])
            pages["dashboard"] = f"http://127.0.0.1:{dashboard_port}"
        flower_url = f"http://127.0.0.1:{port}" if port else None
        if flower_url is not None:
            pages["Flower"] = flower_url
        if metrics is not None:
            pages["metrics"] = f"http://{metrics}/metrics"
        state = {
            "pid": os.getpid(),
            "base_dir": str(settings.base_dir),
            "services": runs.pids(),
            "pages": pages,
            "flower": flower_url,
            "flower_auth": auth,
            "redis_url": url if own_redis else None,
            "logs": str(runs.log_dir),
        }

        def keep_state() -> None:
            state["services"] = runs.pids()
            try:
                files.replace(state_file, json.dumps(state).encode() + b"\n")
            except OSError as error:  # a full disk is no reason to end
                say("up", f"{state_file}: cannot be written: {error.strerror}")

        keep_state()
        if quiet:
            secret = ("flower_auth", "redis_url")
            print_json({name: value for name, value in state.items() if name not in secret})
        elif flower_url:
            say("flower", f"{flower_url}, user and password {auth}, once the workers answer")
        if dashboard_port is not None:
            say("dashboard", pages["dashboard"])
        if not quiet:
            networks = ", ".join(settings.blockchain.active) or "nothing: it is off"
            say("up", f"takes the runs of {settings.base_dir}, anchors on {networks}")
            if not pages:
                say(
                    "up", "serves no page (--dashboard, --flower, --metrics); ask provenance status"
                )
            say("up", f"logs in {runs.log_dir}; Ctrl-C stops all")
        runs.tend(stopping, keep_state)
    finally:
        say("up", "stopping")
        runs.stop()
        state_file.unlink(missing_ok=True)
        say("up", "stopped")
    return 0


def _guard(
    settings: Settings, policy: SealPolicy, say: Callable[[str, str], None], had_key: bool
) -> None:
    """Nothing is started on a database that lacks what its key has signed.

    Args:
        had_key: The key was not made just now.

    Raises:
        LedgerForkError
    """
    with closing(sending.open_store(settings)) as store:
        for name in policy.networks:
            try:
                guarding.find_strangers(settings, name, store, time.time())
            except (NetworkUnavailable, LyingNodeError, ConfigError, MissingExtraError) as error:
                say(name, f"not compared with the ledger yet: {error}")
        policy.check(store)
        signed = guarding.compare_history(settings, store) if had_key else None
        if had_key and (unknown := guarding.unknown_past(settings, signed)):
            say("ledger", unknown)


def _port(arguments: argparse.Namespace, name: str) -> int | None:
    """A port for a page that is asked for by ``--NAME`` or ``--NAME-port``; None where none is."""
    wanted = getattr(arguments, f"{name}_port")
    if not wanted and not getattr(arguments, name):
        return None
    (port,) = free_ports(1, [wanted] if wanted else [])
    if wanted not in (None, port):
        raise InputError(f"--{name}-port: {wanted} is in use, expected a free port")
    return port


def ship(arguments: argparse.Namespace) -> int:
    """A shipper in the foreground."""
    from provenance.app import ship as shipping

    settings = known_base(settings_of(arguments, secrets=False), "spool")
    keys = arguments.ledger_key or ()
    shipped = shipping.run(settings, once=arguments.once, ledger_keys=keys)
    told = {name.replace("_", " "): count for name, count in shipped.items() if count}
    line = ", ".join(f"{name} {count}" for name, count in told.items())
    return answer(arguments, shipped, f"shipped: {line}" if line else "nothing to ship")


def migrate(arguments: argparse.Namespace) -> int:
    """Bring the database to this release's schema, or say whether it has it (0, else 1); workers
    bring it there too when they start."""
    from provenance.stores.sql import migrate as change_schema
    from provenance.stores.sql.schema import REVISIONS

    settings = known_base(settings_of(arguments, secrets=False))
    to = arguments.to or REVISIONS[-1]
    if to not in REVISIONS:
        raise InputError(f"--to: found {to!r}, expected one of {', '.join(REVISIONS)}")
    was = change_schema(settings.database_url, to, change=not arguments.check)
    now = was if arguments.check else to
    line = f"the database is at schema revision {to}" + (" already" if was == to else "")
    if now != to:
        line = f"the database is at schema revision {now or 'none'}, expected {to}"
    if not arguments.json:
        err.print(line)
    answer(arguments, {"revision": now, "was": was})
    return int(now != to)


def backup(arguments: argparse.Namespace) -> int:
    """Copy what the deployment cannot do without; a PostgreSQL database is for pg_dump to copy."""
    from provenance.operations.backup import backup as copy_into

    settings = known_base(settings_of(arguments, secrets=False))
    made = copy_into(settings, arguments.folder)
    archive = settings.archive_folder
    document = {"folder": str(arguments.folder), "files": made, "archive": archive and str(archive)}
    lines = [f"{arguments.folder}: {', '.join(made) or 'nothing'}"]
    if archive is not None:
        lines.append(f"the archive is not among them: copy {archive} now, its files never change")
    if "ledger.db" not in made:
        lines.append("the database is not among them: copy it with pg_dump")
    return answer(arguments, document, *lines)


def resume(arguments: argparse.Namespace) -> int:
    """Lift the pause of a network whose trouble an operator has dealt with."""
    name = arguments.network
    store = sending.open_store(known_base(settings_of(arguments, secrets=False)))
    with store.snapshot() as tx:
        known = tx.network(name)
    reason = known.paused if known else None
    given_up = pauses.resume(store, name, time.time())
    store.close()
    document = {"network": name, "was_paused": reason, "given_up": list(given_up)}
    was = reason is not None or given_up
    line = f"resumed; it was paused: {reason}" if was else "was not paused"
    return answer(arguments, document, f"{name}: {line}")


def deploy(arguments: argparse.Namespace) -> int:
    """Deploy a contract with the configured key; prints its address."""
    from provenance.chains.ethereum.interface import deploy as deploy_contract

    settings = settings_of(arguments, secrets=("ethereum",))
    ethereum = settings.blockchain.ethereum
    if ethereum is None:
        problem = "missing, expected an object with url"
        raise ConfigError("blockchain.ethereum", problem, settings.source)
    if arguments.owners:
        from provenance.chains.ethereum.multisig import deploy_multisig

        owners = arguments.owners
        address, transaction_id = deploy_multisig(ethereum, owners, arguments.threshold or 0)
        multisig = json.dumps({"owners": owners, "threshold": arguments.threshold})
        use = (
            f'put "contract_address": "{address}", "multisig": {multisig} into blockchain.ethereum'
        )
        key = "contract_address"
    elif arguments.bitcoin_view:
        address, transaction_id = deploy_contract(ethereum, "BitcoinAnchor")
        key, use = "bitcoin_view", f"provenance contract confirm RUN --view {address}"
    elif arguments.attestations:
        address, transaction_id = deploy_contract(ethereum, "MLProvenanceAttestations")
        key, use = "attestations", f"provenance contract register RUN --contract {address}"
    else:
        address, transaction_id = deploy_contract(ethereum)
        key, use = (
            "contract_address",
            f'put "contract_address": "{address}" into blockchain.ethereum',
        )
    return answer(
        arguments,
        {key: address, "transaction_id": transaction_id},
        f"deployed at {address} by {transaction_id}",
        use,
    )
