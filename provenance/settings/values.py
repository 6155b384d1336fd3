"""The settings' values, and at once the grammar of the JSON that they are read from.

A field with its type, bounds and name in JSON stands here alone: :mod:`msgspec` checks a
configuration against it, ``docs/schemas/settings.json`` is generated from it, and a refusal
quotes its description.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from provenance.proofs.host.roots import VENDOR_ROOTS
from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from provenance.settings.beyond.host import HostSettings, KeyDigest
from provenance.settings.multisig import Address, BitcoinMultisig, EthereumMultisig, TrustedMultisig
from provenance.settings.section import Count, Section, Text
from provenance.settings.section import bounds as _bounds

NETWORKS = ("ethereum", "bitcoin", "ipfs", "local")
READERS = ("bitcoin", "ipfs")
"""Networks whose nodes may want a password even of those who only read."""
SIGSTORE_ENV = "PROVENANCE_IDENTITY_SIGSTORE"


TeamName = Annotated[
    str,
    Meta(
        pattern=r"^(?!all$).*\S",
        max_length=100,
        description="a name of up to 100 characters, not all (a token's for every team)",
    ),
]
Bytes = (
    Annotated[int, Meta(ge=0, description="a number of bytes")]
    | Annotated[
        str, Meta(pattern=r"^\d{1,9}(\.\d{1,3})? ?(kB|MB|GB|TB)$", description='such as "20GB"')
    ]
)


class RetrySettings(Section, frozen=True):
    """Full-jitter exponential backoff: seconds; ``attempts`` before giving up (0 = never)."""

    base_s: float = 2.0
    cap_s: float = 300.0
    attempts: int = 0


class NodeSettings(Section, frozen=True):
    """What is set for every node that is asked over HTTP."""

    ALIASES: ClassVar = {"rpc_url": "url"}

    url: Annotated[str, Meta(pattern=r"\S", description="a URL")]
    enabled: bool = True
    """False takes the network out of ``blockchain.networks``."""
    timeout_s: Annotated[float, _bounds(0.1, 600, "seconds")] = field(default=30.0, name="timeout")
    retry_base: Annotated[float, _bounds(0.01, 3600, "seconds")] = 2.0
    retry_cap: Annotated[float, _bounds(0.1, 86400, "seconds")] = 300.0
    retry_attempts: Annotated[int, _bounds(0, 1_000_000, "a whole number")] = 0

    @property
    def retry(self) -> RetrySettings:
        """The backoff of this network's deliveries."""
        return RetrySettings(self.retry_base, self.retry_cap, self.retry_attempts)


class EthereumSettings(NodeSettings, frozen=True):
    """One Ethereum network."""

    chain_id: Annotated[int, Meta(ge=1, description="a whole number from 1")] | None = None
    """Expected chain id; None takes what the node says at first contact."""
    contract_address: Address | None = None
    """None: plain calldata to the sender itself."""
    private_key: Text | None = None
    """64 hex digits; in JSON for a loopback node only."""
    private_key_env: Text | None = None
    private_key_file: Path | None = None
    """Mode 0600."""
    keystore_file: Path | None = None
    """Encrypted (Web3 Secret Storage); mode 0600."""
    keystore_password_env: Text = "PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD"  # noqa: S105  a variable's name
    confirmations: Count = 12
    use_finalized: bool = False
    """Final only under the ``finalized`` block tag."""
    gas_limit: Annotated[int, _bounds(21_000, 30_000_000, "a whole number")] | None = None
    """None: estimated."""
    max_fee_gwei: Annotated[float, _bounds(1e-9, 1e6, "gwei")] = 200.0
    """Cap on maxFeePerGas (EIP-1559); below it the node's market price is offered."""
    gas_price: Literal["auto"] | Annotated[float, _bounds(1e-9, 1e6, "gwei")] = "auto"
    """Another name for ``max_fee_gwei``, in gwei; ``auto`` leaves the cap at its default."""
    priority_fee_gwei: Annotated[float, _bounds(0, 1e6, "gwei")] | None = None
    multisig: EthereumMultisig | None = None
    """Where ``contract_address`` is an ``MLProvenanceMultisig``: its owners."""


BitcoinNetwork = Literal["main", "test", "testnet4", "signet", "regtest", "mainnet", "testnet"]
BITCOIN_NAMES = {"mainnet": "main", "testnet": "test"}


class BitcoinSettings(NodeSettings, frozen=True):
    """One bitcoind."""

    ALIASES: ClassVar = {"rpc_url": "url", "user": "rpc_user"}

    network: BitcoinNetwork = "regtest"
    """Checked against the node; ``mainnet`` is read as ``main``, ``testnet`` as ``test``."""
    user: Text | None = field(default=None, name="rpc_user")
    password: Text | None = field(default=None, name="rpc_password")
    """In JSON for a loopback node only."""
    password_env: Text | None = field(default=None, name="rpc_password_env")
    password_file: Path | None = field(default=None, name="rpc_password_file")
    cookie_file: Path | None = None
    wallet: Text | None = None
    confirmations: Count = 6
    max_fee_rate: Annotated[float, _bounds(0.1, 100_000, "sat/vB")] = 200.0
    """Cap, sat/vB."""
    multisig: BitcoinMultisig | None = None
    """Where ``wallet`` only watches a k-of-n output: its keys."""


class IPFSSettings(NodeSettings, frozen=True):
    """One IPFS daemon's HTTP RPC (base URL, with or without ``/api/v0``)."""

    ALIASES: ClassVar = {"rpc_url": "url", "api_url": "url"}

    pin: bool = True
    auth: Text | None = None
    """Value of the Authorization header; in JSON for a loopback daemon only."""
    auth_env: Text | None = None
    auth_file: Path | None = None


class LocalSettings(Section, frozen=True):
    """The signed local anchor file."""

    path: Path
    """``<base_dir>/anchors.jsonl`` where JSON has none."""
    enabled: bool = True


NetworkSettings = EthereumSettings | BitcoinSettings | IPFSSettings | LocalSettings


class StorageOptions(Section, frozen=True):
    """When run roots are anchored."""

    store_before_training: bool = True
    store_after_training: bool = True
    store_epoch_checkpoints: bool = False
    checkpoint_every: Annotated[int, Meta(ge=1, description="a whole number from 1")] = 10
    """Epochs between checkpoints where ``store_epoch_checkpoints`` is set."""


class BlockchainSettings(Section, frozen=True):
    """Where heads are anchored and when."""

    enabled: bool = True
    networks: Annotated[
        tuple[Annotated[str, Meta(pattern=f"^({'|'.join(NETWORKS)})$")], ...],
        Meta(min_length=1, description=f"a list of {', '.join(NETWORKS)}"),
    ] = ("local",)
    """In order; where JSON names none, those with an object, else ``local``, the fallback."""
    ethereum: EthereumSettings | None = None
    bitcoin: BitcoinSettings | None = None
    ipfs: IPFSSettings | None = None
    local: LocalSettings | None = None
    storage_options: StorageOptions = StorageOptions()

    @property
    def active(self) -> tuple[str, ...]:
        """Networks that heads are anchored on: none where that is off."""
        return self.networks if self.enabled else ()


class TrustedContract(Section, frozen=True):
    """An Ethereum chain that is believed; of its contracts the one named, and any of our code."""

    chain_id: Annotated[int, Meta(ge=1, description="a whole number from 1")]
    contract: Address | None = None


class TrustedChains(Section, frozen=True):
    """Chains that are believed beside those that every release knows."""

    ethereum: Annotated[
        tuple[TrustedContract, ...], Meta(description="a list of objects with chain_id")
    ] = ()
    bitcoin: Annotated[
        tuple[BitcoinNetwork, ...], Meta(description="a list of Bitcoin networks")
    ] = ()


class TrustedWitnesses(Section, frozen=True):
    """Witnesses of the ledger, and how many of them must have cosigned; all where None."""

    keys: Annotated[tuple[Text, ...], Meta(description="a list of witness keys")] = ()
    quorum: Annotated[int, Meta(ge=1, description="a whole number from 1")] | None = None


class TrustSettings(Section, frozen=True):
    """What a reader of evidence pins. It is signed by nobody: it is the reader's own."""

    ALIASES: ClassVar = {"ledger_key": "ledger_keys"}

    ledger_keys: Text | Annotated[tuple[Text, ...], Meta(description="a list of keys")] = ()
    """Verifier keys (C2SP signed-note), ``name+id+base64``; read as a list."""
    trainers: Mapping[str, str | TrustedIdentity] = field(default_factory=dict)
    """Ed25519 public keys of trainers, 64 hex digits, or Sigstore identities, by name."""
    sigstore_root: Path | None = None
    """Trusted root (JSON) of the latter; where JSON says nothing, that of sigstore's package."""
    require_trainers: bool | None = None
    """Whether a run must be of one of them; where JSON says nothing, if any is named."""
    witnesses: TrustedWitnesses = TrustedWitnesses()
    chains: TrustedChains = TrustedChains()
    multisig: TrustedMultisig = TrustedMultisig()
    host_keys: Annotated[
        tuple[KeyDigest, ...],
        Meta(description="a list of SHA-256 digests, 64 lower-case hex digits"),
    ] = ()
    """TPMs' attestation keys: SHA-256 of TPMT_PUBLIC, which `provenance host` prints."""
    host_roots: Annotated[tuple[Path, ...], Meta(description="a list of files")] = ()
    """PEM files of certificates that stand behind such keys, and behind reports."""
    host_vendors: Annotated[
        tuple[KeyDigest, ...],
        Meta(description="a list of SHA-256 digests, 64 lower-case hex digits"),
    ] = tuple(VENDOR_ROOTS)
    """Roots behind reports of TDX, SEV-SNP and GPUs: SHA-256 of the certificate's DER."""


class IdentitySettings(Section, frozen=True):
    """Who stands behind this trainer's runs, without a key of its own."""

    sigstore: bool = False
    """The shipper signs each run by Sigstore; or ``PROVENANCE_IDENTITY_SIGSTORE=1``."""
    token_file: Path | None = None
    """File of an OpenID Connect token; else ``SIGSTORE_ID_TOKEN`` or the platform's own."""


class WeightSettings(Section, frozen=True):
    """How the weights of epochs are hashed."""

    reuse_frozen: bool = False
    """A torch module's frozen parameters are not read again while nothing shows a write to them."""
    recheck_share: Annotated[float, _bounds(0, 1, "a share")] = 0.05
    """Share of them, drawn at random, that each epoch hashes all the same; at least one."""
    ranks: Literal["auto", "each", "first", "rotating"] = "auto"
    """Which of several ranks with a copy hashes it (:mod:`provenance.fingerprint.shards`)."""
    trainable_only: bool = False
    """Epochs record a torch module's trainable parameters and buffers alone."""


class CommitmentSettings(Section, frozen=True):
    """Numbers that records commit to, so that a statement about them can be proved later."""

    metrics: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
        Meta(min_length=1, description="a list of names of up to 200 characters"),
    ]
    """Of metrics, of a privacy budget and of results, nested ones joined by dots;
    ``data.train.count`` and ``data.test.count``: how many samples the data has."""
    scale: Annotated[int, _bounds(0, 12, "a whole number")] = 6
    """Decimals that are kept."""
    hide: bool = True
    """The numbers themselves are left out of the records."""


class TeamSettings(Section, frozen=True):
    """What a deployment lets a team send, by UTC days; None: as much as comes."""

    runs_per_day: Annotated[int, _bounds(0, 10**9, "a whole number")] | None = None
    bytes_per_day: Bytes | None = None
    """Of records; read as a number."""
    trainers: Annotated[tuple[Text, ...], Meta(description="a list of trainers' names")] = ()
    """Names of ``trust.trainers``: one of them must have signed a run that names this team."""
    verify_every_s: Annotated[float, _bounds(60, 3.2e7, "seconds")] | None = field(
        default=None, name="verify_every"
    )
    """Of its runs, once they were verified again, instead of ``verification.every``."""


class WebhookSettings(Section, frozen=True):
    """Who is told of it, by a POST that is signed."""

    url: Annotated[str, Meta(pattern=r"\S", description="a URL")]
    """``https://``, or plain HTTP on loopback."""
    secret_file: Path
    """Mode 0600; what HMAC-SHA256 signs with."""


class OnChainSettings(Section, frozen=True):
    """The ``MLProvenanceAttestations`` contract on the chain of ``blockchain.ethereum``."""

    contract: Address
    registrar: Address
    """Whose registrations count. Where it is the key's account, the workers register each root."""
    private_key_file: Path | None = None
    """Mode 0600: 64 hex digits, a verifier's, not the one that anchors. The workers attest with it
    each outcome; None: nothing is sent, and ``verify`` reads."""


class VerificationSettings(Section, frozen=True):
    """Sealed runs that are verified again."""

    every_s: Annotated[float, _bounds(60, 3.2e7, "seconds")] | None = field(
        default=None, name="every"
    )
    webhook: WebhookSettings | None = None
    on_chain: OnChainSettings | None = None


class ArchiveSettings(Section, frozen=True):
    """Where the records of runs go that are done."""

    folder: Path
    after_s: Annotated[float, _bounds(60, 3.2e9, "seconds")] | None = field(
        default=None, name="after"
    )
    """Behind a run's seal the workers move it; None: ``provenance archive`` alone does."""


class Settings(Section, frozen=True):
    """Everything, resolved: relative paths are below ``base_dir``."""

    base_dir: Path
    hash_algorithm: Literal["blake3", "sha256", "sha512", "sha3-256", "blake2b"] = "blake3"
    redis_url: Annotated[str, Meta(description="a Redis URL such as redis://host/0")] | None = None
    """None: no Redis is configured; ``provenance up`` brings an embedded one. Its spellings:
    :mod:`provenance.settings.redis_urls`."""
    broker_url: Annotated[str, Meta(description="a Redis URL such as redis://host/0")] | None = None
    """Celery's broker, where it is another Redis than that of the streams: beside a Cluster."""
    database_url: Annotated[
        str, Meta(pattern="://", description="an SQLAlchemy URL such as sqlite:///ledger.db")
    ] = ""
    """``sqlite:///<base_dir>/ledger.db`` where JSON has none."""
    origin: Annotated[
        str, Meta(pattern=r"^[^\s+]+$", description="a name with no space and no plus sign")
    ] = "ml-provenance.local/ledger"
    """Name of this deployment's ledger, the origin line of its heads (C2SP tlog-checkpoint)."""
    ledger_key_file: Path | None = None
    """32-byte Ed25519 seed in hex, mode 0600; ``<base_dir>/ledger.key`` where JSON has none."""
    team: TeamName | None = None
    """Whose runs this trainer makes, or ``PROVENANCE_TEAM``."""
    identity_key_file: Path | None = None
    """32-byte Ed25519 seed in hex, mode 0600, of the person or team that stands behind this
    trainer's runs; or ``PROVENANCE_IDENTITY_KEY_FILE``."""
    identity: IdentitySettings = IdentitySettings()
    weight_digests: WeightSettings = WeightSettings()
    commitments: CommitmentSettings | None = None
    host: HostSettings | None = None
    """None: nothing attests where a run ran."""
    blockchain: BlockchainSettings = BlockchainSettings()
    trust: TrustSettings = TrustSettings()
    verification: VerificationSettings = VerificationSettings()
    approvals: ApprovalSettings | None = None
    """None: nobody has to approve anything."""
    archive: ArchiveSettings | None = None
    """None: every run's records stay in the database."""
    teams: Mapping[str, TeamSettings] = field(default_factory=dict)
    """What the deployment says of its teams, by name."""
    training: Mapping[str, object] = field(default_factory=dict)
    """The trainer's part of the configuration: every key that is not one of these."""
    training_notes: Mapping[str, str] = field(default_factory=dict)
    """How those of its values were recorded that have no plain form, by their paths."""
    sweep_interval_s: Annotated[float, _bounds(0.2, 3600, "seconds")] = field(
        default=5.0, name="sweep_interval"
    )
    lease_s: Annotated[float, _bounds(5, 3600, "seconds")] = field(default=60.0, name="lease")
    seal_grace_s: Annotated[float, _bounds(0, 86400, "seconds")] = field(
        default=60.0, name="seal_grace"
    )
    lost_after_s: Annotated[float, _bounds(1, 3.2e7, "seconds")] = field(
        default=21600.0, name="lost_after"
    )
    """A run that gave no sign of life for so long is lost: what is here of it is sealed."""
    keep_reports: Annotated[int, _bounds(1, 10**6, "a whole number")] | None = None
    """How many of the newest runs' reports stay below ``base_dir``; all where None."""
    signal_handlers: bool = True
    """A tracker ends its run at SIGTERM, SIGINT and SIGHUP where their handlers are the default."""
    announce_run: bool = True
    """The first rank prints the run's id, a line on stderr."""
    source: str | None = None
    """The file all this was read from."""

    @property
    def archive_folder(self) -> Path | None:
        """Where archive files lie; None where there is no archive."""
        return None if self.archive is None else self.archive.folder

    @property
    def key_file(self) -> Path:
        """Where the ledger's key lies."""
        return self.ledger_key_file or self.base_dir / "ledger.key"
