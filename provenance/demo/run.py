"""``provenance demo``: one training run, anchored and verified on every network that runs.

It starts the devnet's servers and a fleet of workers, trains, waits for confirmations
while it mines blocks on the dev chains, verifies, and shows that one changed metric in a
copy of the evidence is found.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

import provenance_devnet as devnet
from provenance import files
from provenance.app import up
from provenance.app.fsck import fsck
from provenance.app.report import write_report
from provenance.app.verify import verify_path, verify_run
from provenance.bootstrap import sending
from provenance.demo import training as demo_training
from provenance.demo.beyond.stage import Stage, walk_all
from provenance.errors import ProvenanceError, UsageError
from provenance.settings import NETWORKS, Settings, load
from provenance.tickets import Ticket
from provenance.tracker import ProvenanceTracker
from provenance_devnet.config import config_for, deployed_contract

Say = Callable[[str, str], None]
"""Told a step's name and one line about it."""

MINE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to run. ``networks``: None takes every one whose server runs; ``beyond``: then walk
    every capability beyond recording, anchoring and verifying."""

    base_dir: Path
    epochs: int = 5
    networks: tuple[str, ...] | None = None
    timeout_s: float = 120.0
    root: Path = Path()
    beyond: bool = False


def run(options: DemoOptions, say: Say) -> dict[str, Any]:
    """The whole demo; a JSON-able document of what came out."""
    up.require_extra("workers")
    with ExitStack() as stack:
        servers = stack.enter_context(_servers(options, say))
        config_path = _write_config(options, servers, say)
        settings = load(config_path, options.base_dir)
        stack.enter_context(up.only_fleet(options.base_dir))
        stack.enter_context(_fleet(settings, config_path, say))
        since = _heights(settings)
        tracker, before, after = _train(options, config_path, say)
        with _mining(servers):
            _wait([*before.values(), *after.values()], options.timeout_s, say)
        say("verify", "recomputing every digest, tree, proof and transaction")
        report = verify_run(settings, tracker.run_id)
        report_path = write_report(settings, tracker.run_id, None)
        say("tamper", "changing one metric in a copy of the evidence")
        tamper = _tamper(settings, report_path.parent / "evidence")
        say("fsck", "spool, database and chains against each other, independently")
        checked = fsck(settings, since=since).as_dict()
        beyond: dict[str, Any] = {}
        if options.beyond:
            scratch = options.base_dir / "beyond"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            evidence = report_path.parent / "evidence"
            with _mining(servers):
                beyond = walk_all(
                    Stage(settings, config_path, tracker.run_id, evidence, scratch, servers), say
                )
    networks = {}
    for name in settings.blockchain.networks:
        statuses = {seal.status for seal in report.networks.get(name, {}).values()}
        networks[name] = {
            "status": statuses.pop() if len(statuses) == 1 else "incomplete",
            "transaction_id": after[name].transaction_id,
            "before": before[name].transaction_id,
            "after": after[name].transaction_id,
        }
    return {
        "run_id": str(report.run),
        "root_before": report.roots.get("before"),
        "root_after": report.roots.get("after"),
        "chain_integrity": report.outcome == "verified",
        "rests_on": list(report.verdict.rests_on),
        "networks": networks,
        "tamper": tamper,
        "report_path": str(report_path),
        "fsck": checked,
        "since_block": since,
        "beyond": beyond,
    }


def _heights(settings: Settings) -> dict[str, int]:
    """The next block of each chain: the devnet's key has served other demos' ledgers before."""
    heights = {}
    for name, network in sending.open_networks(settings).items():
        height = network.identity().height
        network.close()
        if height is not None and name != "local":  # its file is of this ledger alone
            heights[name] = height + 1
    return heights


@contextmanager
def _servers(options: DemoOptions, say: Say) -> Iterator[dict[str, devnet.ServerState]]:
    wanted = options.networks if options.networks is not None else NETWORKS
    unknown = sorted(set(wanted) - set(NETWORKS))
    if unknown:
        raise UsageError(f"--networks: found {unknown[0]!r}, expected {', '.join(NETWORKS)}")
    names = [name for name in wanted if name != "local"]
    say("devnet", "starting " + (", ".join(names) or "nothing"))
    with devnet.Devnet(options.root).running(names, progress=say) as states:
        for state in states.values():
            if not state.running:
                say(state.name, f"left out: {state.problem}")
        yield {name: state for name, state in states.items() if state.running}


def _write_config(options: DemoOptions, servers: dict[str, devnet.ServerState], say: Say) -> Path:
    document = config_for(list(servers.values()))
    if "ethereum" in servers:
        address = deployed_contract(options.root, document)
        document["blockchain"]["ethereum"]["contract_address"] = address
        say("ethereum", f"contract at {address}")
    pins = _pins(document["blockchain"])
    if pins:
        document["trust"] = {"chains": pins}
        why = "pinned in its configuration, for test chains count for nobody else"
        say("trust", f"{why}: {', '.join(sorted(pins))}")
    path = options.base_dir / "run" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.errors_of(path, "written"):
        files.replace(path, json.dumps(document, indent=2).encode() + b"\n")
    return path


def _pins(chain: dict[str, Any]) -> dict[str, Any]:
    """The devnet's test chains, as a ``trust`` section names them."""
    pins: dict[str, Any] = {}
    if ethereum := chain.get("ethereum"):
        contract = ethereum["contract_address"]
        pins["ethereum"] = [{"chain_id": ethereum["chain_id"], "contract": contract}]
    if bitcoin := chain.get("bitcoin"):
        pins["bitcoin"] = [bitcoin["network"]]
    return pins


@contextmanager
def _fleet(settings: Settings, config_path: Path, say: Say) -> Iterator[up.Fleet]:
    redis, url = up.embedded_redis(settings)
    own = replace(settings, redis_url=url)
    sending.open_store(own).close()
    sending.ledger_signer(own)
    workers = up.Fleet(own, config_path, url, say)
    stop = threading.Event()
    tender = threading.Thread(target=workers.tend, args=(stop.is_set,), daemon=True)
    try:
        workers.start([redis])
        up.wait_until(sending.open_transport(own).ping)
        workers.start(up.services(own))
        tender.start()
        yield workers
    finally:
        stop.set()
        if tender.is_alive():
            tender.join()
        say("workers", "stopping")
        workers.stop()


def _train(
    options: DemoOptions, config_path: Path, say: Say
) -> tuple[ProvenanceTracker, dict[str, Ticket], dict[str, Ticket]]:
    data = demo_training.digits()
    training = demo_training.Training(data, options.epochs)
    tracker = ProvenanceTracker(options.base_dir, config_path)
    tracker.track_data((data[0], data[1]), (data[2], data[3]), items=True)
    tracker.track_model(training.model)
    before = tracker.store_merkle_on_blockchain_before_training(training.config)
    metrics: dict[str, float] = {}
    for epoch, metrics in training.epochs():
        tracker.track_epoch(epoch, metrics, model=training.model)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        say("train", f"epoch {epoch}/{options.epochs}  {shown}")
    after = tracker.store_merkle_on_blockchain_after_training(metrics)
    saved = demo_training.save_model(training.model, options.base_dir / "model")
    say("train", f"done; run {tracker.run_id}; weights in {saved}")
    return tracker, before, after


@contextmanager
def _mining(servers: dict[str, devnet.ServerState]) -> Iterator[None]:
    """A block a second on the dev chains, so that confirmations arrive."""
    stop = threading.Event()

    def mine() -> None:
        while not stop.wait(MINE_EVERY_S):
            try:
                if "ethereum" in servers:
                    devnet.mine_ethereum(servers["ethereum"].url, 1)
                if "bitcoin" in servers:
                    devnet.mine_bitcoin(servers["bitcoin"], 1)
            except ProvenanceError:
                continue  # The wait below tells what did not confirm.

    miner = threading.Thread(target=mine, daemon=True)
    miner.start()
    try:
        yield
    finally:
        stop.set()
        miner.join()


def _wait(tickets: Sequence[Ticket], timeout_s: float, say: Say) -> None:
    deadline = time.monotonic() + timeout_s
    seen: dict[Ticket, str] = {}
    while time.monotonic() < deadline:
        for ticket in tickets:
            if seen.get(ticket) in ("final", "failed"):
                continue
            status = ticket.status
            if seen.get(ticket) != status:
                say(ticket.network, f"{ticket.phase} training: {status}")
                seen[ticket] = status
        if all(status in ("final", "failed") for status in seen.values()):
            return
        time.sleep(0.3)


def _tamper(settings: Settings, evidence: Path) -> dict[str, Any]:
    """Flip one metric in a copy of the evidence; what verification then names."""
    copy = evidence.with_name("evidence-tampered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(evidence, copy)
    record = sorted(copy.glob("records/training/epoch/*/metrics/*.json"))[0]
    document = json.loads(record.read_bytes())
    document["body"]["metrics"]["test_accuracy"] = 0.9999
    record.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    report = verify_path(settings, copy, offline=True)
    named = record.relative_to(copy / "records").with_suffix("").as_posix()
    found = [finding for finding in report.findings if finding.subject == named]
    return {
        "detected": report.outcome == "failed" and bool(found),
        "record": found[0].subject if found else None,
        "problem": found[0].problem if found else None,
        "only": all(finding.subject == named for finding in report.findings),
    }
