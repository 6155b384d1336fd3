"""``provenance multisig``: heads that several owners sign on the chain itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from provenance import files
from provenance.app.base_directory import known_base
from provenance.cli.output import answer, print_table, settings_of
from provenance.errors import ConfigError
from provenance.formats.checkpoint import parse_note
from provenance.formats.fields import as_json
from provenance.multisig import requests
from provenance.multisig.requests import Waiting
from provenance.proofs.multisig.request import SigningRequest, script_of
from provenance.settings import Settings

_COLUMNS = ("network", "anchor", "entries", "state", "signed", "by")


def waiting(arguments: argparse.Namespace) -> int:
    """The heads that owners are to sign, and those under way that they signed."""
    rows = requests.waiting(known_base(settings_of(arguments, secrets=False)))
    return _show(arguments, rows)


def wallet(arguments: argparse.Namespace) -> int:
    """Make the wallet of the configuration watch the owners' coins; prints where to send some."""
    from provenance.chains.bitcoin.multisig import make_wallet

    settings = settings_of(arguments, secrets=("bitcoin",))
    quorum, bitcoin = requests.quorum_of(settings, "bitcoin"), settings.blockchain.bitcoin
    if bitcoin is None or bitcoin.wallet is None:
        problem = "missing, expected the name of the wallet to make"
        raise ConfigError("blockchain.bitcoin.wallet", problem, settings.source)
    script = script_of(quorum)
    address = make_wallet(bitcoin, script)
    document = {"wallet": bitcoin.wallet, "address": address, "witness_script": script.raw.hex()}
    line = f"{bitcoin.wallet}: coins for anchors go to {address}"
    return answer(arguments, document, line)


def request(arguments: argparse.Namespace) -> int:
    """Write what the owners are to sign, with the signatures that it has."""
    settings = known_base(_settings(arguments))
    made = requests.make_request(settings, arguments.network, again=arguments.again)
    first = requests.approval_missing(settings, made)
    return _written(arguments, settings, made, Path(arguments.output), first)


def sign(arguments: argparse.Namespace) -> int:
    """Add an owner's signature to a file, wherever that owner is."""
    settings, path = _settings(arguments), Path(arguments.file)
    signed = requests.sign_request(settings, requests.read_request(path))
    return _written(arguments, settings, signed, path)


def add(arguments: argparse.Namespace) -> int:
    """Take signatures into the deployment."""
    settings = known_base(settings_of(arguments, secrets=False))
    return _show(arguments, requests.add_signatures(settings, list(map(Path, arguments.files))))


def _settings(arguments: argparse.Namespace) -> Settings:
    return settings_of(arguments, secrets=requests.NETWORKS)


def _written(
    arguments: argparse.Namespace,
    settings: Settings,
    made: SigningRequest,
    path: Path,
    first: str | None = None,
) -> int:
    with files.errors_of(path, "written"):
        files.replace(path, made.encode(), files.PUBLIC)
    quorum, head = requests.quorum_of(settings, made.network), parse_note(made.head).head
    signers = made.signers(quorum)
    document = {
        "file": str(path),
        "network": made.network,
        "ledger": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "signers": list(signers),
        "threshold": quorum.threshold,
    }
    signed = f"{len(signers)} of {quorum.threshold} signed"
    line = f"{path}: {signed}; {made.network}, {head.origin} at size {head.size}"
    lines = [f"{line}, root {head.root.hex()[:16]}"]
    if first is not None:
        document["waits_for"] = first
        lines.append(f"the head still {first}: let the owners sign after it")
    return answer(arguments, document, *lines)


def _show(arguments: argparse.Namespace, rows: Sequence[Waiting]) -> int:
    if rows and not arguments.json:
        cells = [
            (row.network, row.anchor, row.size, row.state.value,
             f"{len(row.signers)} of {row.threshold}", ", ".join(row.signers) or None)
            for row in rows
        ]  # fmt: skip
        print_table(_COLUMNS, cells)
    lines = [] if rows else ["nothing waits for owners"]
    return answer(arguments, {"waiting": as_json(tuple(rows))}, *lines)
