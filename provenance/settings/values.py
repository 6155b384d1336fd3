"""The values: frozen, typed, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

NETWORKS = ("ethereum", "bitcoin", "ipfs", "local")
READERS = ("bitcoin", "ipfs")
"""Networks whose nodes may want a password even of those who only read."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Full-jitter exponential backoff: seconds; ``attempts`` before giving up (0 = never)."""

    base_s: float = 2.0
    cap_s: float = 300.0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class EthereumSettings:
    """One Ethereum network. ``private_key`` is never shown by repr."""

    url: str = field(repr=False)
    chain_id: int | None = None
    """Expected chain id; None takes what the node says at first contact."""
    contract_address: str | None = None
    """None: plain calldata to the sender itself."""
    private_key: str | None = field(default=None, repr=False)
    """Hex key, already read from the environment, a 0600 file or a keystore."""
    confirmations: int = 12
    use_finalized: bool = False
    """Final only under the ``finalized`` block tag."""
    gas_limit: int | None = None
    """None: estimated."""
    max_fee_gwei: float = 200.0
    """Cap on maxFeePerGas."""
    priority_fee_gwei: float | None = None
    timeout_s: float = 30.0
    retry: RetrySettings = RetrySettings()


@dataclass(frozen=True, slots=True)
class BitcoinSettings:
    """One bitcoind. ``password`` is never shown by repr."""

    url: str = field(repr=False)
    network: str = "regtest"
    """``main``, ``test``, ``testnet4``, ``signet`` or ``regtest``; checked against the node."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    cookie_file: Path | None = None
    wallet: str | None = None
    confirmations: int = 6
    max_fee_rate: float = 200.0
    """Cap, sat/vB."""
    timeout_s: float = 30.0
    retry: RetrySettings = RetrySettings()


@dataclass(frozen=True, slots=True)
class IPFSSettings:
    """One IPFS daemon's HTTP RPC (base URL, without ``/api/v0``)."""

    url: str = field(repr=False)
    pin: bool = True
    timeout_s: float = 30.0
    retry: RetrySettings = RetrySettings()
    auth: str | None = field(default=None, repr=False)
    """Value of the Authorization header; from the environment."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The signed local anchor file."""

    path: Path


NetworkSettings = EthereumSettings | BitcoinSettings | IPFSSettings | LocalSettings


@dataclass(frozen=True, slots=True)
class BlockchainSettings:
    """Where heads are anchored and when."""

    enabled: bool = True
    networks: tuple[str, ...] = ("local",)
    """In order; ``local`` is the fallback and the default."""
    ethereum: EthereumSettings | None = None
    bitcoin: BitcoinSettings | None = None
    ipfs: IPFSSettings | None = None
    local: LocalSettings | None = None
    store_before_training: bool = True
    store_after_training: bool = True
    store_epoch_checkpoints: bool = False
    checkpoint_every: int = 10
    """Epochs between checkpoints where ``store_epoch_checkpoints`` is set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything, resolved: relative paths are below ``base_dir``."""

    base_dir: Path
    hash_algorithm: str = "blake3"
    redis_url: str | None = field(default=None, repr=False)
    """None: no Redis is configured; ``provenance up`` brings an embedded one."""
    database_url: str = field(default="", repr=False)
    """SQLAlchemy URL; ``sqlite:///<base_dir>/ledger.db`` where empty in the file."""
    origin: str = "ml-provenance.local/ledger"
    """Name of this deployment's ledger, the origin line of its heads."""
    ledger_key_file: Path | None = None
    """32-byte Ed25519 seed in hex, mode 0600; created at first use where missing."""
    blockchain: BlockchainSettings = BlockchainSettings()
    training: Mapping[str, object] = field(default_factory=dict)
    """Keys of a training configuration that are not ours (epochs, batch_size, ...)."""
    sweep_interval_s: float = 5.0
    lease_s: float = 60.0
    seal_grace_s: float = 60.0
    source: str | None = None
    """The file all this was read from."""
