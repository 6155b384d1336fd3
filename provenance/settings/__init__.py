"""Settings: JSON configuration as frozen, validated values."""

from __future__ import annotations

from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from provenance.settings.multisig import BitcoinMultisig, EthereumMultisig
from provenance.settings.reading import load
from provenance.settings.redis_urls import (
    RedisAddress,
    broker_address,
    redis_address,
    stream_address,
)
from provenance.settings.urls import is_loopback, node_url
from provenance.settings.values import (
    NETWORKS,
    READERS,
    SIGSTORE_ENV,
    BitcoinSettings,
    BlockchainSettings,
    CommitmentSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
    NetworkSettings,
    RetrySettings,
    Settings,
    TeamSettings,
    TrustSettings,
)

__all__ = [
    "NETWORKS",
    "READERS",
    "SIGSTORE_ENV",
    "ApprovalSettings",
    "BitcoinMultisig",
    "BitcoinSettings",
    "BlockchainSettings",
    "CommitmentSettings",
    "EthereumMultisig",
    "EthereumSettings",
    "IPFSSettings",
    "LocalSettings",
    "NetworkSettings",
    "RedisAddress",
    "RetrySettings",
    "Settings",
    "TeamSettings",
    "TrustSettings",
    "TrustedIdentity",
    "broker_address",
    "is_loopback",
    "load",
    "node_url",
    "redis_address",
    "stream_address",
]
