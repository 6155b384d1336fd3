"""``provenance contract deploy``."""

from __future__ import annotations

import argparse

from provenance.cli.output import out, print_json, settings_of
from provenance.errors import ConfigError


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
