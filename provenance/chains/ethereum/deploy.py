"""Deploying the MLProvenance contract."""

from __future__ import annotations

from provenance.chains.ethereum.interface import EthereumInterface
from provenance.settings import EthereumSettings


def deploy(settings: EthereumSettings, deadline_s: float = 180.0) -> tuple[str, str]:
    """Create the contract with the settings' key: ``(checksummed address, transaction id)``.

    ``settings.contract_address`` is not looked at.

    Raises:
        MissingExtraError, ConfigError, NetworkUnavailable, NetworkError: As
            :class:`provenance.chains.ethereum.interface.EthereumInterface`.
    """
    network = EthereumInterface(settings)
    try:
        return network.deploy_contract(deadline_s)
    finally:
        network.close()
