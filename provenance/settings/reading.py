"""The JSON configuration's grammar: which keys there are and what each may hold.

Unknown keys, wrong types and placeholders are refused with the path of the key. Secrets
come from the environment, a file with mode 0600 or an encrypted keystore; a private key
in the JSON itself is taken for a loopback node only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from provenance.errors import ConfigError, MissingExtraError
from provenance.settings.values import (
    NETWORKS,
    BitcoinSettings,
    BlockchainSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
    RetrySettings,
    Settings,
)

_PLACEHOLDER = re.compile(r"^(your[_\- ]|<.*>$|change_?me|xxx+$|0x?\.\.\.|todo)", re.IGNORECASE)
_BITCOIN_NETWORKS = ("main", "test", "testnet4", "signet", "regtest")
_BITCOIN_ALIASES = {"mainnet": "main", "testnet": "test"}
_ALGORITHMS = ("blake3", "sha256", "sha512", "sha3-256", "blake2b")
_TRAINING_KEYS = frozenset(
    [
        "epochs",
        "batch_size",
        "learning_rate",
        "optimizer",
        "momentum",
        "weight_decay",
        "scheduler",
        "dropout",
        "seed",
        "model",
        "dataset",
        "loss",
        "hidden_units",
        "layers",
        "device",
        "precision",
        "name",
        "description",
        "training",
        "privacy",
        "validation_split",
        "early_stopping",
        "max_grad_norm",
        "noise_multiplier",
        "target_epsilon",
        "target_delta",
        "parent_model",
    ]
)


class _Object:
    """A JSON object being read: every key is taken once, the rest is refused."""

    def __init__(self, raw: object, path: str, source: str | None) -> None:
        self.path, self.source = path, source
        if not isinstance(raw, Mapping):
            raise ConfigError(path, f"found {_show(raw)}, expected an object", source)
        self.raw: dict[str, Any] = {}
        for key, value in raw.items():
            if not isinstance(key, str):
                raise ConfigError(path, f"found the key {key!r}, expected a string", source)
            if not key.startswith(("_comment", "$schema")):
                self.raw[key] = value
        self.known: set[str] = set()

    def fail(self, key: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.path}.{key}" if self.path else key, problem, self.source)

    def take(self, *names: str) -> tuple[str, Any]:
        """The value under one of several names for the same thing; None where absent."""
        self.known.update(names)
        present = [name for name in names if self.raw.get(name) is not None]
        if len(present) > 1:
            raise self.fail(present[1], f"found beside {present[0]!r}, expected one of the two")
        return (present[0], self.raw[present[0]]) if present else (names[0], None)

    def text(self, *names: str) -> str | None:
        name, value = self.take(*names)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.fail(name, f"found {_show(value)}, expected a non-empty string")
        if _PLACEHOLDER.match(value.strip()):
            raise self.fail(name, f"found the placeholder {value!r}, expected a real value")
        return value

    def flag(self, name: str, default: bool) -> bool:
        _, value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(name, f"found {_show(value)}, expected true or false")
        return value

    def number(self, *names: str, low: float = 0, high: float = 1e18) -> float | None:
        name, value = self.take(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, f"found {_show(value)}, expected a number")
        if not low <= value <= high:
            raise self.fail(name, f"found {value}, expected {low:g} to {high:g}")
        return float(value)

    def integer(self, *names: str, low: int = 0, high: int = 10**12) -> int | None:
        name, value = self.take(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(name, f"found {_show(value)}, expected a whole number")
        if not low <= value <= high:
            raise self.fail(name, f"found {value}, expected {low} to {high}")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        if value not in choices:
            raise self.fail(name, f"found {value!r}, expected one of {', '.join(choices)}")
        return value

    def object(self, name: str) -> _Object | None:
        _, value = self.take(name)
        path = f"{self.path}.{name}" if self.path else name
        return None if value is None else _Object(value, path, self.source)

    def done(self) -> None:
        extra = sorted(self.raw.keys() - self.known)
        if extra:
            raise self.fail(
                extra[0], f"unknown key, expected one of {', '.join(sorted(self.known))}"
            )


def load(
    config: Mapping[str, object] | str | Path | None = None,
    base_dir: str | Path = "artifacts",
    *,
    secrets: bool | Collection[str] = True,
) -> Settings:
    """Read a configuration: a mapping, a JSON file, or None for the defaults.

    Both shapes are read: ``{"blockchain": {...}}`` alone, and a training configuration
    (``epochs``, ``batch_size``, ...) with a ``blockchain`` object in it. The environment
    variables ``PROVENANCE_REDIS_URL`` and ``PROVENANCE_DATABASE_URL`` win over the file.

    Args:
        config: What to read.
        base_dir: Where the spool, the SQLite database and the local anchors lie.
        secrets: Whose keys and passwords are read: every network's, those of the named ones,
            or nobody's. A trainer needs none, a worker those of its own network.

    Raises:
        ConfigError: Names the file and the key, what was found and what is expected.
    """
    base = Path(base_dir)
    source: str | None = None
    raw: object = {} if config is None else config
    if isinstance(config, str | Path):
        source = str(config)
        raw = _read_json(Path(config), source)
    top = _Object(raw, "", source)
    env = os.environ
    redis_url = env.get("PROVENANCE_REDIS_URL") or top.text("redis_url")
    top.known.add("redis_url")
    if redis_url and urlsplit(redis_url).scheme not in ("redis", "rediss", "unix"):
        raise top.fail("redis_url", "expected redis://, rediss:// or unix://")
    database_url = env.get("PROVENANCE_DATABASE_URL") or top.text("database_url")
    top.known.add("database_url")
    if database_url and "://" not in database_url:
        raise top.fail("database_url", "expected an SQLAlchemy URL such as sqlite:///ledger.db")
    key_file = top.text("ledger_key_file")
    chain = top.object("blockchain")
    training = {k: v for k, v in top.raw.items() if k in _TRAINING_KEYS}
    top.known.update(_TRAINING_KEYS)
    _check_training(top)
    settings = Settings(
        base_dir=base,
        hash_algorithm=top.choice("hash_algorithm", _ALGORITHMS, "blake3"),
        redis_url=redis_url,
        database_url=database_url or f"sqlite:///{base.absolute() / 'ledger.db'}",
        origin=top.text("origin") or "ml-provenance.local/ledger",
        ledger_key_file=Path(key_file) if key_file else base / "ledger.key",
        blockchain=_blockchain(chain or _Object({}, "blockchain", source), base, secrets),
        training=training,
        sweep_interval_s=top.number("sweep_interval", low=0.2, high=3600) or 5.0,
        lease_s=top.number("lease", low=5, high=3600) or 60.0,
        seal_grace_s=_or(top.number("seal_grace", high=86400), 60.0),
        source=source,
    )
    if "\n" in settings.origin or " " in settings.origin or "+" in settings.origin:
        raise top.fail("origin", f"found {settings.origin!r}, expected no space and no plus sign")
    top.done()
    return settings


def _check_training(top: _Object) -> None:
    top.integer("epochs", low=1)
    top.integer("batch_size", low=1)
    top.number("learning_rate", low=1e-12, high=1e6)


def _blockchain(chain: _Object, base: Path, secrets: bool | Collection[str]) -> BlockchainSettings:
    def read(network: str) -> bool:
        return secrets if isinstance(secrets, bool) else network in secrets

    builders: dict[str, Callable[[_Object], object]] = {
        "ethereum": lambda o: _ethereum(o, read("ethereum")),
        "bitcoin": lambda o: _bitcoin(o, read("bitcoin")),
        "ipfs": lambda o: _ipfs(o, read("ipfs")),
        "local": lambda o: _local(o, base),
    }
    enabled = chain.flag("enabled", True)
    name, listed = chain.take("networks")
    if listed is None:
        listed = [n for n in NETWORKS if n in chain.raw] or ["local"]
    if not isinstance(listed, list) or not listed:
        raise chain.fail(name, f"found {_show(listed)}, expected a list of {', '.join(NETWORKS)}")
    built: dict[str, object] = {}
    for network in NETWORKS:
        section = chain.object(network)
        if section is not None:
            built[network] = builders[network](section)
    for network in listed:
        if network not in NETWORKS:
            raise chain.fail("networks", f"found {_show(network)}, expected {', '.join(NETWORKS)}")
        if listed.count(network) > 1:
            raise chain.fail("networks", f"found {network!r} twice")
        if network != "local" and network not in built:
            raise chain.fail(network, f"missing, expected an object: networks names {network!r}")
    built.setdefault("local", LocalSettings(base / "anchors.jsonl"))
    options = chain.object("storage_options") or _Object({}, chain.path, chain.source)
    every = options.integer("checkpoint_every", low=1)
    settings = BlockchainSettings(
        enabled=enabled,
        networks=tuple(listed),
        ethereum=cast(EthereumSettings | None, built.get("ethereum")),
        bitcoin=cast(BitcoinSettings | None, built.get("bitcoin")),
        ipfs=cast(IPFSSettings | None, built.get("ipfs")),
        local=cast(LocalSettings, built["local"]),
        store_before_training=options.flag("store_before_training", True),
        store_after_training=options.flag("store_after_training", True),
        store_epoch_checkpoints=options.flag("store_epoch_checkpoints", False),
        checkpoint_every=every or 10,
    )
    options.done()
    chain.done()
    return settings


def _ethereum(o: _Object, secrets: bool) -> EthereumSettings:
    url = _url(o, "url", "rpc_url")
    address = o.text("contract_address")
    if address is not None and not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
        raise o.fail("contract_address", f"found {address!r}, expected 0x and 40 hex digits")
    settings = EthereumSettings(
        url=url,
        chain_id=o.integer("chain_id", low=1),
        contract_address=address,
        private_key=_ethereum_key(o, url, secrets),
        confirmations=o.integer("confirmations", low=1, high=10000) or 12,
        use_finalized=o.flag("use_finalized", False),
        gas_limit=o.integer("gas_limit", low=21000, high=30_000_000),
        max_fee_gwei=o.number("max_fee_gwei", "gas_price", low=1e-9) or 200.0,
        priority_fee_gwei=o.number("priority_fee_gwei"),
        timeout_s=o.number("timeout", low=0.1, high=600) or 30.0,
        retry=_retry(o),
    )
    o.done()
    return settings


def _ethereum_key(o: _Object, url: str, secrets: bool) -> str | None:
    inline = o.text("private_key")
    if inline is not None and not is_loopback(url):
        raise o.fail(
            "private_key",
            "found in the file, expected private_key_env, private_key_file or keystore_file "
            "(a key in JSON is taken for a loopback node only)",
        )
    key = inline or _secret(o, "private_key", "PROVENANCE_ETHEREUM_PRIVATE_KEY", secrets)
    keystore = o.text("keystore_file")
    password_env = o.text("keystore_password_env") or "PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD"
    if keystore and key:
        raise o.fail("keystore_file", "found beside another key, expected one of the two")
    if keystore and secrets:
        key = _open_keystore(o, Path(keystore), password_env)
    if key is not None:
        key = key.strip()
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", key):
            raise o.fail("private_key", "found something else, expected 64 hex digits")
    return key


def _open_keystore(o: _Object, path: Path, password_env: str) -> str:
    text = _private_file(o, "keystore_file", path)
    password = os.environ.get(password_env)
    if password is None:
        raise o.fail("keystore_password_env", f"the environment has no {password_env}")
    limit = sys.getrecursionlimit()
    try:
        from eth_account import Account
    except ImportError as error:
        raise MissingExtraError("eth_account", "ethereum") from error
    finally:
        sys.setrecursionlimit(limit)  # its py_ecc raises it past what the C stack holds
    try:
        return str(Account.decrypt(text, password).hex())
    except (ValueError, KeyError, TypeError) as error:
        raise o.fail("keystore_file", f"{path} does not open with that password") from error


def _bitcoin(o: _Object, secrets: bool) -> BitcoinSettings:
    network = o.choice("network", _BITCOIN_NETWORKS + tuple(_BITCOIN_ALIASES), "regtest")
    cookie = o.text("cookie_file")
    url = _url(o, "url", "rpc_url")
    inline = o.text("rpc_password")
    if inline is not None and not is_loopback(url):
        raise o.fail("rpc_password", "found in the file, expected rpc_password_env or cookie_file")
    settings = BitcoinSettings(
        url=url,
        network=_BITCOIN_ALIASES.get(network, network),
        user=o.text("rpc_user", "user"),
        password=inline or _secret(o, "rpc_password", "PROVENANCE_BITCOIN_PASSWORD", secrets),
        cookie_file=Path(cookie) if cookie else None,
        wallet=o.text("wallet"),
        confirmations=o.integer("confirmations", low=1, high=10000) or 6,
        max_fee_rate=o.number("max_fee_rate", low=0.1, high=100000) or 200.0,
        timeout_s=o.number("timeout", low=0.1, high=600) or 30.0,
        retry=_retry(o),
    )
    if settings.cookie_file and settings.user:
        raise o.fail("cookie_file", "found beside rpc_user, expected one of the two")
    o.done()
    return settings


def _ipfs(o: _Object, secrets: bool) -> IPFSSettings:
    settings = IPFSSettings(
        url=_url(o, "url", "rpc_url", "api_url").removesuffix("/api/v0"),
        pin=o.flag("pin", True),
        timeout_s=o.number("timeout", low=0.1, high=600) or 30.0,
        retry=_retry(o),
        auth=_secret(o, "auth", "PROVENANCE_IPFS_AUTH", secrets),
    )
    o.done()
    return settings


def _local(o: _Object, base: Path) -> LocalSettings:
    path = o.text("path")
    o.done()
    return LocalSettings(base / path if path else base / "anchors.jsonl")


def _retry(o: _Object) -> RetrySettings:
    return RetrySettings(
        base_s=o.number("retry_base", low=0.01, high=3600) or 2.0,
        cap_s=o.number("retry_cap", low=0.1, high=86400) or 300.0,
        attempts=o.integer("retry_attempts", high=1_000_000) or 0,
    )


def _url(o: _Object, *names: str) -> str:
    name, _ = o.take(*names)
    value = o.text(*names)
    if value is None:
        raise o.fail(name, "missing, expected a URL")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise o.fail(name, f"found {_without_userinfo(value)!r}, expected http:// or https://")
    if parts.username or parts.password:
        raise o.fail(name, "found a user or password in the URL, expected them apart")
    if parts.scheme == "http" and not is_loopback(value):
        raise o.fail(name, f"found plain HTTP to {parts.hostname}, expected https or loopback")
    return value.rstrip("/")


def is_loopback(url: str) -> bool:
    """True where the URL's host is localhost or a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def broker_url(url: str | None) -> str | None:
    """The Redis URL for Celery, which checks no certificate where the URL does not ask for it."""
    if url is None or urlsplit(url).scheme != "rediss" or "ssl_cert_reqs=" in urlsplit(url).query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}ssl_cert_reqs=required"


def _secret(o: _Object, name: str, default_env: str, secrets: bool) -> str | None:
    variable, path = o.text(f"{name}_env"), o.text(f"{name}_file")
    if variable and path:
        raise o.fail(f"{name}_file", f"found beside {name}_env, expected one of the two")
    if not secrets:
        return None
    if path:
        return _private_file(o, f"{name}_file", Path(path)).strip()
    value = os.environ.get(variable or default_env)
    if variable and value is None:
        raise o.fail(f"{name}_env", f"the environment has no {variable}")
    return value


def _private_file(o: _Object, key: str, path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise o.fail(key, f"{path} has mode {mode:04o}, expected 0600: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise o.fail(key, f"cannot read {path}: {reason}") from error


def _read_json(path: Path, source: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise ConfigError("", problem, source) from error
    except OSError as error:
        raise ConfigError("", f"cannot read: {error.strerror}", source) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("", "not JSON: not UTF-8 text or nested too deep", source) from error


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _without_userinfo(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _show(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else text[:37] + "..."
