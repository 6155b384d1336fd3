"""Settings: JSON configuration as frozen, validated values."""

from __future__ import annotations

from provenance.settings.reading import load
from provenance.settings.urls import broker_url, is_loopback, node_url
from provenance.settings.values import (
    NETWORKS,
    READERS,
    SIGSTORE_ENV,
    BitcoinSettings,
    BlockchainSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
    NetworkSettings,
    RetrySettings,
    Settings,
    TrustedIdentity,
    TrustSettings,
)

__all__ = [
    "NETWORKS",
    "READERS",
    "SIGSTORE_ENV",
    "BitcoinSettings",
    "BlockchainSettings",
    "EthereumSettings",
    "IPFSSettings",
    "LocalSettings",
    "NetworkSettings",
    "RetrySettings",
    "Settings",
    "TrustSettings",
    "TrustedIdentity",
    "broker_url",
    "is_loopback",
    "load",
    "node_url",
]
