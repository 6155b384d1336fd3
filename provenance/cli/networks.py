"""``provenance networks resume`` and ``provenance contract deploy``."""

from __future__ import annotations

import argparse
import time

from provenance.anchor import pauses
from provenance.bootstrap import sending
from provenance.cli.output import out, print_json, settings_of
from provenance.errors import ConfigError, InputError
from provenance.settings import NETWORKS


def resume(arguments: argparse.Namespace) -> int:
    """Lift the pause of a network whose trouble an operator has dealt with."""
    name = arguments.network
    if name not in NETWORKS:
        raise InputError(f"NETWORK: found {name!r}, expected one of {', '.join(NETWORKS)}")
    store = sending.open_store(settings_of(arguments, secrets=False))
    with store.snapshot() as tx:
        known = tx.network(name)
    reason = known.paused if known else None
    given_up = pauses.resume(store, name, time.time())
    store.close()
    if arguments.json:
        print_json({"network": name, "was_paused": reason, "given_up": list(given_up)})
    elif reason is None and not given_up:
        out.print(f"{name}: was not paused", markup=False)
    else:
        out.print(f"{name}: resumed; it was paused: {reason}", markup=False)
    return 0


def deploy(arguments: argparse.Namespace) -> int:
    """Deploy the MLProvenance contract with the configured key; prints its address."""
    from provenance.chains.ethereum.deploy import deploy as deploy_contract

    settings = settings_of(arguments, secrets=("ethereum",))
    ethereum = settings.blockchain.ethereum
    if ethereum is None:
        raise ConfigError(
            "blockchain.ethereum", "missing, expected an object with url", settings.source
        )
    address, transaction_id = deploy_contract(ethereum)
    if arguments.json:
        print_json({"contract_address": address, "transaction_id": transaction_id})
    else:
        out.print(f"deployed at {address} by {transaction_id}")
        out.print(f'put "contract_address": "{address}" into blockchain.ethereum', markup=False)
    return 0
