"""Every bad configuration is refused in one line that names the file and the key.

Over 400 lines: case by case, one file: `provenance/settings/reading.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from provenance.errors import ConfigError
from provenance.settings import Settings, TrustedIdentity, is_loopback, load

DEV_KEY = "0x" + "ac" * 32
ETHEREUM: dict[str, Any] = {"url": "http://127.0.0.1:8545"}


def chain(**sections: Any) -> dict[str, Any]:
    return {"blockchain": sections}


def reuse(**options: Any) -> dict[str, Any]:
    return {"weight_digests": options}


def test_frozen_weights_are_reused_where_it_is_asked_for() -> None:
    default = load().weight_digests
    assert (default.reuse_frozen, default.recheck_share) == (False, 0.05)
    chosen = load(reuse(reuse_frozen=True, recheck_share=1)).weight_digests
    assert (chosen.reuse_frozen, chosen.recheck_share) == (True, 1.0)


def test_defaults_need_no_file(tmp_path: Path) -> None:
    settings = load(None, tmp_path)
    assert settings.blockchain.networks == ("local",)
    assert settings.redis_url is None
    assert settings.database_url == f"sqlite:///{tmp_path / 'ledger.db'}"
    assert settings.blockchain.local is not None
    assert settings.blockchain.local.path == tmp_path / "anchors.jsonl"


@pytest.mark.parametrize("name", sorted(p.name for p in Path("configs").glob("*.json")))
def test_shipped_configurations_load(name: str) -> None:
    settings = load(f"configs/{name}", secrets=False)
    assert settings.source == f"configs/{name}"


def test_training_shape_keeps_the_hyperparameters() -> None:
    settings = load(
        {"epochs": 3, "batch_size": 8, "learning_rate": 0.1, "hash_algorithm": "sha256"}
    )
    assert settings.hash_algorithm == "sha256"
    assert settings.training == {"epochs": 3, "batch_size": 8, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("key", "value", "recorded"),
    [
        ("epochs", 0, 0),
        ("epochs", "3", "3"),
        ("epochs", True, True),
        ("learning_rate", "fast", "fast"),
        ("warmup_steps", 500, 500),
        ("num_workers", 4, 4),
        ("betas", (0.9, 0.999), [0.9, 0.999]),
        ("lr_scheduler", {"name": "cosine", "T_max": 10}, {"name": "cosine", "T_max": 10}),
        ("resume", None, None),
        ("gradient_clip", float("inf"), "Infinity"),
        ("seed", 2**63 + 5, str(2**63 + 5)),
        ("dataset_url", "s3://x", "s3://x"),
        ("bitcoin", {"window": 30}, {"window": 30}),
        ("networks", ["a"], ["a"]),
        ("release", "your_model", "your_model"),
        ("original", "", ""),
        ("timeout", 30, 30),
        ("weights", "imagenet", "imagenet"),
        ("weight_decay", 0.1, 0.1),
        ("training", {"_comment": 1}, {"_comment": 1}),
        ("source", "x", "x"),
        ("base_dir", "x", "x"),
    ],
)
def test_any_hyperparameter_is_the_trainers(key: str, value: object, recorded: object) -> None:
    settings = load({key: value, "blockchain": {"networks": ["local"]}})
    assert settings.training == {key: recorded}
    assert settings.source is None


def test_a_hyperparameter_without_a_plain_form_is_recorded_by_its_type_and_noted() -> None:
    settings = load({"lr": {"b": [1, object()]}})
    assert settings.training == {"lr": {"b": [1, "builtins.object"]}}
    assert settings.training_notes == {"lr.b[1]": "recorded by its type alone"}


@pytest.mark.parametrize("name", ["blockchain_config.json", "training_config.json"])
def test_the_reference_designs_configurations_load_as_they_stand(name: str) -> None:
    settings = load(f"tests/vectors/settings/{name}")
    chain = settings.blockchain
    assert chain.networks == ("ipfs", "ethereum")
    assert chain.ethereum is not None
    assert chain.ipfs is not None
    assert chain.ethereum.url == "http://127.0.0.1:8545"
    assert chain.ethereum.private_key is not None
    assert chain.ethereum.contract_address is None
    assert chain.ethereum.max_fee_gwei == 200.0
    assert chain.ipfs.retry.attempts == (3 if name.startswith("blockchain") else 0)
    if name.startswith("training"):
        assert settings.training == {"epochs": 5, "batch_size": 64, "learning_rate": 0.001}


def test_a_number_as_gas_price_is_the_cap_in_gwei() -> None:
    settings = load(chain(ethereum={**ETHEREUM, "gas_price": 30}))
    assert settings.blockchain.ethereum is not None
    assert settings.blockchain.ethereum.max_fee_gwei == 30.0
    beside = load(chain(ethereum={**ETHEREUM, "gas_price": "auto", "max_fee_gwei": 40}))
    assert beside.blockchain.ethereum is not None
    assert beside.blockchain.ethereum.max_fee_gwei == 40.0


def test_null_reads_as_absent(tmp_path: Path) -> None:
    settings = load(chain(networks=None, local={"path": None}, ipfs=None), tmp_path)
    assert settings.blockchain.networks == ("local",)
    assert settings.blockchain.local is not None
    assert settings.blockchain.local.path == tmp_path / "anchors.jsonl"


def test_a_disabled_network_is_not_used_and_needs_no_secret() -> None:
    off = {**ETHEREUM, "enabled": False, "private_key_env": "PROV_TEST_NOT_SET"}
    ipfs = {"url": "http://localhost:5001"}
    settings = load(chain(networks=["ethereum", "ipfs"], ethereum=off, ipfs=ipfs))
    assert settings.blockchain.networks == ("ipfs",)
    assert load(chain(ethereum=off)).blockchain.networks == ("local",)


def test_networks_default_to_the_sections_that_are_there() -> None:
    settings = load(chain(ipfs={"url": "http://localhost:5001/api/v0"}, ethereum=ETHEREUM))
    assert settings.blockchain.networks == ("ethereum", "ipfs")
    assert settings.blockchain.ipfs is not None
    assert settings.blockchain.ipfs.url == "http://localhost:5001"


def test_both_names_of_the_url_are_read() -> None:
    settings = load(chain(bitcoin={"rpc_url": "http://127.0.0.1:1", "network": "mainnet"}))
    assert settings.blockchain.bitcoin is not None
    assert settings.blockchain.bitcoin.url == "http://127.0.0.1:1"
    assert settings.blockchain.bitcoin.network == "main"


def test_who_signs_by_sigstore_is_asked_for_in_json_or_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not load().identity.sigstore
    asked = load({"identity": {"sigstore": True, "token_file": "/run/token"}}).identity
    assert (asked.sigstore, asked.token_file) == (True, Path("/run/token"))
    monkeypatch.setenv("PROVENANCE_IDENTITY_SIGSTORE", "1")
    assert load().identity.sigstore
    assert load({"identity": {"token_file": "/run/token"}}).identity == asked


def test_trainers_are_pinned_by_key_or_by_name_and_issuer() -> None:
    pin = {"identity": "ci@example.org", "issuer": "https://accounts.google.com"}
    section = {"trainers": {"team": "AB" * 32, "ci": pin}, "sigstore_root": "root.json"}
    trust = load({"trust": section}).trust
    assert trust.trainers == {"team": "ab" * 32, "ci": TrustedIdentity(**pin)}
    assert (trust.require_trainers, trust.sigstore_root) == (True, Path("root.json").absolute())


def trainers(pin: object) -> dict[str, object]:
    return {"trust": {"trainers": {"ci": pin}}}


@pytest.mark.parametrize(
    ("config", "key", "problem"),
    [
        ({"blokchain": {}}, "blokchain", "unknown key"),
        ({"hash_algorithm": "md5"}, "hash_algorithm", "expected one of blake3"),
        ({"block_chain": {}}, "block_chain", "did you mean 'blockchain'?"),
        ({"redis_uri": "redis://x"}, "redis_uri", "did you mean 'redis_url'?"),
        ({"Redis-URL": "redis://x"}, "Redis-URL", "did you mean 'redis_url'?"),
        ({"ethereum": {"url": "http://x"}}, "ethereum", "inside 'blockchain.ethereum'"),
        ({"lr": {"a": 1, "b": {"1": 2}}, "origin": " "}, "origin", "no space"),
        ({"sweep_interval": 0}, "sweep_interval", "found 0, expected seconds from 0.2 to 3600"),
        ({"lease": True}, "lease", "found true, expected seconds"),
        ({"redis_url": "http://x"}, "redis_url", "expected redis://"),
        ({"database_url": "ledger.db"}, "database_url", "expected an SQLAlchemy URL"),
        ({"origin": "my ledger"}, "origin", "no space"),
        ({"origin": "ledger\n"}, "origin", "do not print"),
        ({"hash_algorithm": "\ud800"}, "hash_algorithm", "do not print"),
        (chain(**{"a\nb": 1}), r"blockchain.'a\nb'", "unknown key"),
        (chain(**{"\ud800": 1}), r"blockchain.'\ud800'", "unknown key"),
        (chain(ethereum={"url": "http://[x"}), "blockchain.ethereum.url", "found no URL"),
        (chain(ethereum={"url": "http://h:99999"}), "blockchain.ethereum.url", "found no URL"),
        (
            chain(ethereum={**ETHEREUM, "confirmations": 10**30}),
            "blockchain.ethereum.confirmations",
            "expected a whole number from 1",
        ),
        (trainers("aa"), "trust.trainers.ci", "64 hex digits (Ed25519) or an object"),
        (trainers({"identity": "ci@example.org"}), "trust.trainers.ci.issuer", "missing"),
        (trainers({"identity": "", "issuer": "i"}), "trust.trainers.ci.identity", "non-empty"),
        (trainers({"identity": "a", "issuer": "i", "x": 1}), "trust.trainers.ci.x", "unknown key"),
        ({"trust": {"sigstore_root": 1}}, "trust.sigstore_root", "expected the path of a file"),
        ({"identity": True}, "identity", "expected an object"),
        ({"weight_digests": True}, "weight_digests", "expected an object"),
        ({"weight_digest": {}}, "weight_digest", "did you mean 'weight_digests'?"),
        (reuse(reuse_frozen="yes"), "weight_digests.reuse_frozen", "expected true or false"),
        (reuse(recheck_share=1.5), "weight_digests.recheck_share", "expected a share from 0 to 1"),
        (
            reuse(share=1),
            "weight_digests.share",
            "expected one of ranks, recheck_share, reuse_frozen",
        ),
        ({"identity": {"sigstor": True}}, "identity.sigstor", "expected one of sigstore, token"),
        (
            {"identity": {"sigstore": True}, "identity_key_file": "k"},
            "identity.sigstore",
            "found beside 'identity_key_file'",
        ),
        ({"blockchain": []}, "blockchain", "expected an object"),
        (chain(enabled="false"), "blockchain.enabled", "expected true or false"),
        (chain(networks="local"), "blockchain.networks", "expected a list"),
        (chain(networks=[]), "blockchain.networks", "expected a list"),
        (chain(networks=["dogecoin"]), "blockchain.networks", 'found "dogecoin"'),
        (chain(networks=["local", "local"]), "blockchain.networks", "twice"),
        (chain(networks=["ethereum"]), "blockchain.ethereum", "missing"),
        (chain(ethereum={}), "blockchain.ethereum.url", "missing"),
        (chain(ethereum={"url": "ftp://x"}), "blockchain.ethereum.url", "expected http"),
        (chain(ethereum={"url": "http://10.1.2.3"}), "blockchain.ethereum.url", "plain HTTP"),
        (chain(ethereum={"url": "https://me:pw@x"}), "blockchain.ethereum.url", "user or password"),
        (
            chain(ethereum={"url": "http://localhost", "rpc_url": "http://localhost"}),
            "blockchain.ethereum.rpc_url",
            "expected one of the two",
        ),
        (chain(ethereum={**ETHEREUM, "gas": 1}), "blockchain.ethereum.gas", "unknown key"),
        (chain(ethereum={**ETHEREUM, "gas": None}), "blockchain.ethereum.gas", "unknown key"),
        (
            chain(ethereum={**ETHEREUM, "gas_price": "fast"}),
            "blockchain.ethereum.gas_price",
            'found "fast", expected "auto" or gwei from',
        ),
        (
            chain(ethereum={**ETHEREUM, "gas_price": 20_000_000_000}),  # wei
            "blockchain.ethereum.gas_price",
            'found 20000000000, expected "auto" or gwei from',
        ),
        (
            chain(ethereum={**ETHEREUM, "gas_price": 5, "max_fee_gwei": 6}),
            "blockchain.ethereum.gas_price",
            "expected one of the two",
        ),
        (
            chain(ethereum={**ETHEREUM, "confirmations": 1.5}),
            "blockchain.ethereum.confirmations",
            "found 1.5, expected a whole number from 1 to 10000",
        ),
        (
            chain(ethereum={**ETHEREUM, "timeout": float("nan")}),
            "blockchain.ethereum.timeout",
            "expected seconds from 0.1",
        ),
        (
            chain(ethereum={**ETHEREUM, "private_key": 5}),
            "blockchain.ethereum.private_key",
            "expected a non-empty string",
        ),
        (
            chain(bitcoin={"url": "http://localhost", "cookie_file": " "}),
            "blockchain.bitcoin.cookie_file",
            "expected the path of a file",
        ),
        (
            chain(ipfs={"url": "https://i.example", "auth": "hunter2"}),
            "blockchain.ipfs.auth",
            "found in the file",
        ),
        (
            chain(bitcoin={"url": "http://b", "rpc_password_env": "A", "rpc_password_file": "b"}),
            "blockchain.bitcoin.url",
            "plain HTTP",
        ),
        (
            chain(ipfs={"url": "http://localhost", "auth_env": "A", "auth_file": "b"}),
            "blockchain.ipfs.auth_file",
            "found beside 'auth_env', expected one of the two",
        ),
        (
            chain(ethereum={**ETHEREUM, "private_key": "your_private_key"}),
            "blockchain.ethereum.private_key",
            "placeholder",
        ),
        (
            chain(ethereum={**ETHEREUM, "private_key": "0x12"}),
            "blockchain.ethereum.private_key",
            "expected 64 hex digits",
        ),
        (
            chain(ethereum={"url": "https://node.example", "private_key": DEV_KEY}),
            "blockchain.ethereum.private_key",
            "loopback node only",
        ),
        (
            chain(ethereum={**ETHEREUM, "contract_address": "0x1"}),
            "blockchain.ethereum.contract_address",
            "40 hex digits",
        ),
        (
            chain(ethereum={**ETHEREUM, "private_key_env": "PROV_TEST_NOT_SET"}),
            "blockchain.ethereum.private_key_env",
            "no PROV_TEST_NOT_SET",
        ),
        (
            chain(bitcoin={"url": "http://localhost", "network": "regtst"}),
            "blockchain.bitcoin.network",
            "expected one of",
        ),
        (
            chain(bitcoin={"url": "http://localhost", "cookie_file": "a", "rpc_user": "b"}),
            "blockchain.bitcoin.cookie_file",
            "expected one of the two",
        ),
        (
            chain(bitcoin={"url": "https://b.example", "rpc_password": "hunter2"}),
            "blockchain.bitcoin.rpc_password",
            "found in the file",
        ),
        (
            chain(storage_options={"store_before": True}),
            "blockchain.storage_options.store_before",
            "unknown key",
        ),
    ],
)
def test_refused(config: dict[str, Any], key: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, tmp_path)
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: {key}: ")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_malformed_and_missing_files_name_themselves(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 3,}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json: not JSON: .* at line 1"):
        load(path, tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, tmp_path)
    path.write_text('{"epochs": 3, "epochs": 4}', encoding="utf-8")
    with pytest.raises(ConfigError, match="not JSON: key 'epochs' stands twice"):
        load(path, tmp_path)
    with pytest.raises(ConfigError, match=r"absent\.json: cannot read: No such file"):
        load(tmp_path / "absent.json", tmp_path)


def test_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "eth.key"
    key.write_text(DEV_KEY, encoding="utf-8")
    config = chain(ethereum={"url": "https://node.example", "private_key_file": str(key)})
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644, expected 0600: chmod 600"):
        load(config, tmp_path)
    key.chmod(0o600)
    settings = load(config, tmp_path)
    assert settings.blockchain.ethereum is not None
    assert settings.blockchain.ethereum.private_key == DEV_KEY


def test_keystore_opens_with_the_environments_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provenance.chains.ethereum.libs import Account

    keystore = tmp_path / "keystore.json"
    encrypted = Account.encrypt(DEV_KEY, "correct horse", kdf="pbkdf2", iterations=2)
    keystore.write_text(json.dumps(encrypted), encoding="utf-8")
    keystore.chmod(0o600)
    config = chain(ethereum={**ETHEREUM, "keystore_file": str(keystore)})
    with pytest.raises(ConfigError, match="no PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD"):
        load(config, tmp_path)
    monkeypatch.setenv("PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD", "wrong")
    with pytest.raises(ConfigError, match="does not open with that password"):
        load(config, tmp_path)
    monkeypatch.setenv("PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD", "correct horse")
    settings = load(config, tmp_path)
    assert settings.blockchain.ethereum is not None
    assert settings.blockchain.ethereum.private_key == DEV_KEY.removeprefix("0x")


def test_trainers_read_no_secrets(tmp_path: Path) -> None:
    config = chain(ethereum={**ETHEREUM, "private_key_env": "PROV_TEST_NOT_SET"})
    settings = load(config, tmp_path, secrets=False)
    assert settings.blockchain.ethereum is not None
    assert settings.blockchain.ethereum.private_key is None


def test_environment_wins_and_repr_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://:secret1@localhost/0")
    monkeypatch.setenv("PROVENANCE_DATABASE_URL", "postgresql+psycopg://u:secret2@localhost/x")
    monkeypatch.setenv("PROVENANCE_ETHEREUM_PRIVATE_KEY", DEV_KEY)
    settings: Settings = load(chain(ethereum=ETHEREUM), tmp_path)
    assert settings.redis_url == "redis://:secret1@localhost/0"
    assert settings.database_url.startswith("postgresql")
    shown = repr(settings)
    assert not any(secret in shown for secret in ("secret1", "secret2", DEV_KEY))


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:5", True),
        ("http://localhost.example", False),
        ("http://128.0.0.1", False),
        ("http://localhost@evil.example", False),
        ("http://127.0.0.1:80@evil.example", False),
        ("http://evil.example\\@127.0.0.1.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://[::ffff:203.0.113.9]", False),
        ("http://\N{CYRILLIC SMALL LETTER ES}localhost", False),
        ("http://evil.example#@127.0.0.1", False),
        ("http://evil.example?@localhost", False),
    ],
)
def test_loopback(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


FOLDERS = ["feature%2Fx", "a%41b", "what?", "run?x=1", "sp ace#1", "a@b", "two\nlines",
           "no\xa0break", "\u540d\u3000\u524d", "\udcff not UTF-8"]  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_the_database_lies_in_its_folder_whatever_that_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who writes, who reads, the checker, and a process that has the URL by environment."""
    from provenance.bootstrap import reading, sending
    from provenance.fsck import database

    settings = load(None, tmp_path / name)
    sending.open_store(settings).close()
    found = {path for path in tmp_path.rglob("ledger.db*") if path.suffix == ".db"}
    assert found == {tmp_path / name / "ledger.db"}
    assert reading.sqlite_path(settings.database_url) == tmp_path / name / "ledger.db"
    store = reading.open_store(settings)
    assert store is not None
    store.close()
    with database.snapshot(settings.database_url):
        pass
    monkeypatch.setenv("PROVENANCE_DATABASE_URL", settings.database_url)
    assert load(None, tmp_path / name).database_url == settings.database_url


@pytest.mark.parametrize(
    ("base", "found"),
    [(None, "null"), (3, "3"), (b"x", '"b.*"'), ("a\0b", r'"a.*b"'), ({}, "{}")],
)
def test_a_base_directory_that_is_no_path_is_refused(base: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"^base_dir: found {found}, expected the path of a"):
        load(None, base)


class Somewhere:
    """A path as other libraries have it."""

    def __fspath__(self) -> bytes:
        return b"~/runs"


def test_paths_are_absolute_and_know_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = {"database_url": "sqlite:///my.db", "identity_key_file": "~/keys/team"}
    settings = load(config, Somewhere())  # type: ignore[arg-type]  # one of bytes
    assert settings.base_dir == tmp_path / "runs"
    assert settings.database_url == f"sqlite:///{tmp_path}/my.db"
    secret = tmp_path / "eth.key"
    secret.write_text(DEV_KEY)
    secret.chmod(0o600)
    assert load({"database_url": "sqlite:///~/a.db"}).database_url == f"sqlite:///{tmp_path}/a.db"
    ethereum = {"url": "https://node.example", "private_key_file": "~/eth.key"}
    read = load(chain(ethereum=ethereum), tmp_path).blockchain.ethereum
    assert read is not None
    assert read.private_key == DEV_KEY
    assert settings.identity_key_file == tmp_path / "keys/team"
    local = load({"blockchain": {"local": {"path": "heads"}}}, "runs").blockchain.local
    assert local is not None
    assert local.path == tmp_path / "runs/heads"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="^base_dir: the working directory: No such file"):
        load(None, "artifacts")
    assert load(None, tmp_path).base_dir == tmp_path


@pytest.mark.parametrize(
    ("section", "secret"),
    [
        ({"url": "admin:hunter2@127.0.0.1:8332"}, "hunter2"),
        ({"url": "wss://node.example/v3/APIKEY"}, "APIKEY"),
        ({"url": "http://localhost", "rpc_password": "your_hunter2"}, "hunter2"),
    ],
)
def test_no_message_shows_what_may_be_secret(
    section: dict[str, Any], secret: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"blockchain": {"bitcoin": section}}, tmp_path)
    assert secret not in str(caught.value)


def test_a_password_that_begins_like_a_placeholder_is_one(tmp_path: Path) -> None:
    bitcoin = {"url": "http://localhost", "rpc_user": "me", "rpc_password": "Todorov-1987"}
    settings = load({"blockchain": {"bitcoin": bitcoin}}, tmp_path)
    assert settings.blockchain.bitcoin is not None
    assert settings.blockchain.bitcoin.password == "Todorov-1987"


def test_where_there_is_a_table_of_settings_all_else_is_the_trainers() -> None:
    own = {"hash_algorithm": "sha256", "origin": "mine.org/ledger"}
    mine = {"origin": [0, 0], "trust": 0.5, "lease": True, "lr": 0.1, 3: "three"}
    settings = load({"provenance": own, **mine})
    assert (settings.hash_algorithm, settings.origin) == ("sha256", "mine.org/ledger")
    assert settings.training == {"origin": [0, 0], "trust": 0.5, "lease": True, "lr": 0.1,
                                 "3": "three"}  # fmt: skip
    assert load({"provenance": "a text"}).training == {"provenance": "a text"}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"sweep_intervall": 3}, "sweep_intervall: unknown key, did you mean 'sweep_interval'"),
        ({"databse_url": "x"}, "databse_url: unknown key, did you mean 'database_url'"),
        ({"provenance": {"sweep_intervall": 3}}, "provenance.sweep_intervall: unknown key"),
        ({"provenance": {"lr": 3}}, "provenance.lr: unknown key"),
        ({"provenance": {"lease": "x"}}, 'provenance.lease: found "x", expected seconds'),
        (
            {"provenance": {}, "blockchain": {}},
            "blockchain: found beside 'provenance', expected it inside as 'blockchain'",
        ),
        (3, "found 3, expected an object"),
        ([1], r"found \[1\], expected an object"),
    ],
)
def test_a_slip_of_the_pen_is_refused_by_name(config: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}"):
        load(config)


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff{"lr": 0.1, "betas": [0.9, 1], "sweep_interval": 7}',
        "\ufefflr: 0.1\nbetas: [0.9, 1]\nsweep_interval: 7\n",
    ],
)
def test_a_file_may_be_yaml_and_begin_with_a_mark(tmp_path: Path, text: str) -> None:
    path = tmp_path / ("c.json" if "{" in text else "c.yaml")
    path.write_text(text, encoding="utf-8")
    settings = load(path)
    assert settings.training == {"lr": 0.1, "betas": [0.9, 1]}
    assert settings.sweep_interval_s == 7.0


def test_anchors_and_merges_of_yaml_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text("base: &b {lr: 1, wd: 0}\nmine:\n  <<: *b\n  lr: 2\nwhen: 2020-01-02\n")
    assert load(path).training == {
        "base": {"lr": 1, "wd": 0}, "mine": {"lr": 2, "wd": 0}, "when": "2020-01-02",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("c.json", '{"a": {"lr": 1, "lr": 2}}', "not JSON: key 'lr' stands twice in one object"),
        ("c.yaml", "a: {lr: 1, lr: 2}", "not YAML: key 'lr' stands twice in one object"),
        ("c.yaml", "a: [1", "not YAML: .* at line 1 column"),
        ("c.yaml", "a: !!python/name:os.system", "not YAML: could not determine a constructor"),
        ("c.yaml", "just text", 'found "just text", expected an object'),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{path}: {problem}") as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_yaml_without_its_package_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yaml").write_text("a: 1")
    with pytest.raises(
        ConfigError, match=r"PyYAML is not installed: pip install 'ml-provenance\[yaml\]'"
    ):
        load(tmp_path / "c.yaml")


def test_a_team_is_a_name_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({"epochs": 3}).team is None
    for name in ("vision", "allied", "a  b"):
        assert load({"team": name, "epochs": 3}).team == name
    for found in ("", " ", "y" * 101, "all", 7, ["vision"]):
        with pytest.raises(ConfigError, match="^team: found .*expected a name of up to 100"):
            load({"team": found})
    monkeypatch.setenv("PROVENANCE_TEAM", "speech")
    assert load({"team": "vision"}).team == "speech"


def test_what_teams_may_send_is_read_by_name_and_refused_by_name() -> None:
    trust = {"trainers": {"ann": "a" * 64}}
    read = load(
        {
            "trust": trust,
            "verification": {"every": 86400},
            "teams": {
                "vision": {"runs_per_day": 500, "bytes_per_day": "2.5GB", "trainers": ["ann"]},
                "speech": {"bytes_per_day": 7, "verify_every": 3600},
            },
        }
    ).teams
    assert (read["vision"].verify_every_s, read["speech"].verify_every_s) == (None, 3600.0)
    assert (read["vision"].runs_per_day, read["vision"].trainers) == (500, ("ann",))
    assert (read["vision"].bytes_per_day, read["speech"].bytes_per_day) == (2_500_000_000, 7)
    for teams, problem in (
        ({"vision": 7}, "teams.vision: found 7, expected an object"),
        ({"vision": {"runs": 7}}, "teams.vision.runs: unknown key"),
        ({"vision": {"runs_per_day": -1}}, "teams.vision.runs_per_day: found -1, expected a whole"),
        (
            {"vision": {"verify_every": 600}},
            "vision.verify_every: expected verification.every, too",
        ),
        ({"vision": {"bytes_per_day": "20G"}}, 'found "20G", expected a number of bytes or such'),
        ({"vision": {"trainers": ["bob"]}}, 'trainers: found "bob", expected names of trust'),
        ({" ": {}}, "expected a name"),
        ({"all": {}}, "expected a name of up to 100 characters, not all"),
    ):
        with pytest.raises(ConfigError) as refused:
            load({"trust": trust, "teams": teams})
        assert problem in str(refused.value)
