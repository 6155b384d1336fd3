"""Settings: JSON configuration as frozen, validated values."""

from __future__ import annotations

from provenance.settings.reading import load
from provenance.settings.urls import broker_url, is_loopback
from provenance.settings.values import (
    NETWORKS,
    READERS,
    BitcoinSettings,
    BlockchainSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
    NetworkSettings,
    RetrySettings,
    Settings,
    TrustSettings,
)

__all__ = [
    "NETWORKS",
    "READERS",
    "BitcoinSettings",
    "BlockchainSettings",
    "EthereumSettings",
    "IPFSSettings",
    "LocalSettings",
    "NetworkSettings",
    "RetrySettings",
    "Settings",
    "TrustSettings",
    "broker_url",
    "is_loopback",
    "load",
]
