"""deploy/: what the files say is what the code runs, reads and accepts.

Over 400 lines: the files of one folder, one after the other.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provenance import settings
from provenance.app import up
from provenance.cli import parser
from provenance.settings import NETWORKS
from tests.support.deployment.files import BASE, DEPLOY, Doc, compose_file, containers, fleet_argv
from tests.support.paths import ROOT

MINE = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and not {"devnet", "secrets"} & set(path.relative_to(DEPLOY).parts)
]


FLEET = {"workers", "dashboard", "ethereum", "bitcoin", "ipfs", "postgres", "sigstore"}
ONE_SHOT = {"migrate", "backup", "backup-database"}


@pytest.fixture(scope="module")
def compose() -> Doc:
    return compose_file()


# --- compose ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def specification() -> Doc:
    """The schema of the Compose Specification, as check-jsonschema brings it."""
    vendored = resources.files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json"
    schema: Doc = json.loads(vendored.read_text())
    return schema


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compose.yaml", "compose.trainers.yaml"])
def test_compose_fits_its_specification(name: str, specification: Doc) -> None:
    jsonschema.validate(yaml.safe_load((DEPLOY / name).read_text()), specification)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("restarts",), "always"),
        (("stop_grace_period",), 40),
        (("configs",), "provenance"),
        (("depends_on", "redis", "condition"), "healthy"),
    ],
)
def test_the_schema_refuses(
    compose: Doc, specification: Doc, place: tuple[str, ...], value: object
) -> None:
    broken = copy.deepcopy(compose)
    target = broken["services"]["hashing"]
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, specification)


def test_compose_runs_the_commands_of_the_fleet(compose: Doc) -> None:
    wanted = fleet_argv()
    # A container's loopback is its own: the host's side of the port is what binds it.
    wanted["flower"] = [
        "--address=0.0.0.0" if word == "--address=127.0.0.1" else word for word in wanted["flower"]
    ]
    dashboard = ["python", *up.dashboard(8484).argv[1:], "--name", "${DASHBOARD_NAME:-localhost}"]
    for name, argv in (("metrics", wanted["metrics"]), ("dashboard", dashboard)):
        wanted[name] = [word.replace("127.0.0.1", "0.0.0.0") for word in argv]
    services = compose["services"]
    assert {name: services[name]["command"] for name in wanted} == wanted
    servers = {"redis", "postgres", "prometheus", "grafana"}
    assert services.keys() - wanted.keys() == {*servers, *ONE_SHOT}


@pytest.mark.slow
def test_compose_runs_commands_that_there_are(compose: Doc) -> None:
    checked = 0
    for service in compose["services"].values():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])):
            match [word for word in words if word != "CMD"]:
                case ["provenance", *arguments] | ["python", "-m", "provenance.cli", *arguments]:
                    parser().parse_args(arguments)
                    checked += 1
    assert checked > len(NETWORKS) + 4


def test_compose_serves_every_queue_once(compose: Doc) -> None:
    from workers.app import QUEUES

    queues: list[str] = []
    for service in compose["services"].values():
        words = service.get("command", [])
        if "--queues" in words:
            queues += words[words.index("--queues") + 1].split(",")
    assert sorted(queues) == sorted(QUEUES)


def test_compose_names_nothing_that_it_does_not_define(compose: Doc) -> None:
    used: dict[str, set[str]] = {"secrets": set(), "volumes": set(), "networks": set()}
    for name, service in compose["services"].items():
        secrets = set(service.get("secrets", []))
        used["secrets"] |= secrets
        used["networks"] |= set(service["networks"])
        volumes = service.get("volumes", [])
        used["volumes"] |= {name.split(":")[0] for name in volumes if not name.startswith("$")}
        assert {config["source"] for config in service.get("configs", [])} <= set(
            compose["configs"]
        )
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        files = {
            Path(value).name
            for key, value in service.get("environment", {}).items()
            if key.endswith("_FILE")
        }
        files |= set(
            re.findall(
                r"/run/secrets/(\w+)", f"{service.get('command')}{service.get('healthcheck')}"
            )
        )
        assert files == secrets, f"{name}: secrets that are given are those that are read"
    for kind, names in used.items():
        assert names == set(compose[kind])


def test_a_dependency_that_must_be_healthy_has_a_healthcheck(compose: Doc) -> None:
    services = compose["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert services[name]["restart"] == "no"


def test_every_service_has_limits(compose: Doc) -> None:
    for name, service in compose["services"].items():
        assert {"mem_limit", "cpus", "pids_limit", "restart", "networks"} <= service.keys(), name
        assert "no-new-privileges:true" in service["security_opt"]
        assert ("healthcheck" in service) == (service["restart"] != "no"), name
        assert service["image"].startswith("${"), f"{name}: the operator names it, by digest"


def test_workers_are_confined(compose: Doc) -> None:
    for name in fleet_argv():
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["mem_limit"] == "256m"
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace >= up.GRACE_S


def test_the_ethereum_key_reaches_its_worker_alone(compose: Doc) -> None:
    holders = [
        name
        for name, service in compose["services"].items()
        if "ethereum_private_key" in service.get("secrets", [])
    ]
    assert holders == ["anchor-ethereum"]


def test_pages_alone_are_published_and_on_loopback(compose: Doc) -> None:
    ports = {name: s["ports"] for name, s in compose["services"].items() if "ports" in s}
    assert sorted(ports) == ["dashboard", "flower", "grafana", "metrics", "prometheus"]
    assert all(port.startswith("127.0.0.1:") for (port,) in ports.values())
    assert "FLOWER_BASIC_AUTH_FILE" in compose["services"]["flower"]["environment"]
    inner_only = [n for n, s in compose["services"].items() if s["networks"] == ["inner"]]
    assert {"redis", "postgres", "hashing", "beat"} <= set(inner_only)
    assert compose["networks"]["inner"] == {"internal": True}


def probed(words: list[str]) -> list[str]:
    """The queues that a container's command serves."""
    if "beat" in words:
        return ["beat"]
    return words[words.index("--queues") + 1].split(",") if "--queues" in words else []


def test_probes_ask_for_the_queues_of_the_worker_they_stand_in(compose: Doc) -> None:
    checked = 0
    for service in compose["services"].values():
        if queues := probed(service.get("command", [])):
            assert service["healthcheck"]["test"] == ["CMD", "provenance", "health", *queues]
            assert service["environment"]["PROVENANCE_ALIVE_DIR"] == "/tmp"
            checked += 1
    for container in containers():
        if queues := probed(container["args"]):
            command = container["livenessProbe"]["exec"]["command"]
            assert command == ["provenance", "health", *queues]
            assert container["readinessProbe"]["exec"]["command"] == command
            assert {"name": "PROVENANCE_ALIVE_DIR", "value": "/tmp"} in container["env"]
            checked += 1
    assert checked == 2 * (len(NETWORKS) + 3)


def test_each_service_has_its_own_user_of_redis(compose: Doc) -> None:
    users = {
        name: re.findall(r"redis_(\w+)_url", str(service.get("environment")))
        for name, service in compose["services"].items()
    }
    given = {name: user for name, user in users.items() if user}
    workers = {name: ["worker"] for name in (*fleet_argv(), "migrate", "backup")}
    others = {"shipper": ["shipper"], "flower": ["operator"], "dashboard": ["operator"]}
    assert given == {**workers, **others}


def test_trainers_elsewhere_reach_redis_by_tls_alone(compose: Doc) -> None:
    more = yaml.safe_load((DEPLOY / "compose.trainers.yaml").read_text())
    assert more["services"].keys() == {"redis"}
    redis = more["services"]["redis"]
    assert redis["ports"] == ["${REDIS_TLS_PORT:-6380}:6380"]
    assert "tls-port 6380" in redis["environment"]["REDIS_MORE"]
    own = compose["services"]["redis"]["secrets"]
    assert set(redis["secrets"]) - set(own) == more["secrets"].keys()


# --- environment --------------------------------------------------------------------------

ELSEWHERE = {
    "redis, in its command": {"REDIS_MORE"},
    "grafana image": {"GF_SECURITY_ADMIN_PASSWORD_", "GF_ANALYTICS_REPORTING_ENABLED"},
    "postgres image": {
        "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS",
    },
    "system and Python": {"PATH", "HOME", "PYTHONUNBUFFERED"},
    "pip": {"PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"},
}  # fmt: skip


def dockerfile_env() -> set[str]:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return {word.split("=")[0] for line in lines for word in line.split()}


def unit_env() -> set[str]:
    names: set[str] = set()
    for unit in (DEPLOY / "systemd").glob("*.service"):
        for line in re.findall(r"^Environment=(.*)$", unit.read_text(), re.MULTILINE):
            names |= {word.split("=")[0] for word in line.split()}
    example = (DEPLOY / "systemd/provenance.env.example").read_text()
    return names | set(re.findall(r"\b(PROVENANCE_\w+)", example))


def entrypoint_env() -> set[str]:
    return set(re.findall(r"\b((?:PROVENANCE|FLOWER)_\w+)", (DEPLOY / "entrypoint.sh").read_text()))


def test_every_variable_is_read_somewhere(compose: Doc) -> None:
    from flower.options import default_options

    given = {key for s in compose["services"].values() for key in s.get("environment", {})}
    by_file = {key.removesuffix("_FILE") for key in given if key.endswith("_FILE")}
    assert by_file <= entrypoint_env() | {"POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD_"}
    names = {key for key in given if not key.endswith("_FILE")} | by_file
    names |= dockerfile_env() | unit_env() | entrypoint_env()
    names |= {i["name"].removesuffix("_FILE") for c in containers() for i in c["env"]}
    folders = [ROOT / "provenance", ROOT / "workers"]
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    unknown = {
        name
        for name in names
        if f'"{name}"' not in source
        and not any(name in known for known in ELSEWHERE.values())
        and name.removeprefix("FLOWER_").lower() not in default_options
    }
    assert unknown == set()
    assert "PROVENANCE_DATABASE_URL" in names


def test_the_readme_names_every_variable(compose: Doc) -> None:
    readme = (DEPLOY / "README.md").read_text()
    chosen = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    for name in chosen | entrypoint_env():
        assert name in readme, name


def test_the_shipped_configurations_load(tmp_path: Path) -> None:
    loaded = settings.load(DEPLOY / "config.json", tmp_path)
    assert loaded.blockchain.networks == ("local",)
    in_pod = settings.load(DEPLOY / "k8s/base/config.json", tmp_path)
    assert in_pod.blockchain == loaded.blockchain
    assert in_pod.ledger_key_file == Path("/run/provenance/ledger.key")


# --- secrets ------------------------------------------------------------------------------

SECRET = re.compile(
    r"""-----BEGIN|
        \b(?:0x)?[0-9a-fA-F]{64}\b|
        ://[^/\s:@]*:(?!\$|\[|<)[^@/\s]+@|
        (?i:pass(?:word)?|secret|token|auth|key)["']?\s*[:=]\s*["']?[A-Za-z0-9+/_-]{12,}""",
    re.VERBOSE,
)
NOT_SECRET = re.compile(r"/run/secrets/|--hash=sha256:|key: [\w.-]+, path: |ledger_key_file", re.I)


def secrets_in(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if SECRET.search(line) and not NOT_SECRET.search(line)
    ]


@pytest.mark.parametrize("path", MINE, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_no_secret_stands_in_the_files(path: Path) -> None:
    text = path.read_text().replace("$(random)", "$").replace('$(cat "', "$")
    assert secrets_in(text) == []


@pytest.mark.parametrize(
    "planted",
    [
        "redis_url: redis://:hunter2@redis:6379/0",
        "PROVENANCE_DATABASE_URL=postgresql://me:pw@db/x",
        "POSTGRES_PASSWORD: correct-horse-battery",
        f"ledger.key: {'ab' * 32}",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_planted_secret_is_seen(planted: str) -> None:
    assert secrets_in(f"a: b\n{planted}\n") == [planted]


@pytest.mark.slow
def test_made_secrets_fit_together_and_are_kept(tmp_path: Path, compose: Doc) -> None:
    folder = tmp_path / "secrets"
    make = ["sh", str(DEPLOY / "make-secrets.sh"), str(folder)]
    subprocess.run(make, check=True, capture_output=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert made.keys() == compose["secrets"].keys()
    assert {Path(entry["file"]).parent.as_posix() for entry in compose["secrets"].values()} == {
        "secrets"
    }
    assert f":{made['postgres_password']}@postgres:5432/" in made["database_url"]
    assert len(made["postgres_password"]) == 48
    passwords = {made["postgres_password"]}
    for user in ("shipper", "worker", "operator"):
        url = urlsplit(made[f"redis_{user}_url"])
        assert url.username == user
        assert url.password
        digest = hashlib.sha256(url.password.encode()).hexdigest()
        assert f"user {user} reset on #{digest} " in made["redis_users"]
        passwords.add(url.password)
    assert len(passwords) == 4
    assert "PASSWORD" not in made["redis_users"]
    assert made["ethereum_private_key"] == ""
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in folder.iterdir())
    subprocess.run(make, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made
    ignored = (DEPLOY / ".gitignore").read_text().split()
    assert "secrets/" in ignored


def entrypoint(env: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(DEPLOY / "entrypoint.sh"), *argv]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=path | env, capture_output=True, text=True, check=False)


def test_entrypoint_turns_files_into_variables(tmp_path: Path) -> None:
    odd = "redis://:p$(id)`\"'\\ &@h/0"
    (tmp_path / "url").write_text(odd + "\n")
    (tmp_path / "none").touch()
    done = entrypoint(
        {
            "PROVENANCE_REDIS_URL_FILE": str(tmp_path / "url"),
            "PROVENANCE_IPFS_AUTH_FILE": str(tmp_path / "none"),
            "PROVENANCE_DATABASE_URL": "as it was",
        },
        sys.executable,
        "-c",
        "import os; print(os.environ['PROVENANCE_REDIS_URL']);"
        "print(os.environ['PROVENANCE_DATABASE_URL']);"
        "print('PROVENANCE_IPFS_AUTH' in os.environ); raise SystemExit(7)",
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines() == [odd, "as it was", "False"]


@pytest.mark.parametrize(
    ("content", "argv", "said"),
    [(None, ["true"], "cannot read"), ("", ["true"], "is empty"), ("x", [], "no command")],
)
def test_entrypoint_refuses(
    tmp_path: Path, content: str | None, argv: list[str], said: str
) -> None:
    if content is not None:
        (tmp_path / "auth").write_text(content)
    done = entrypoint({"FLOWER_BASIC_AUTH_FILE": str(tmp_path / "auth")}, *argv)
    assert done.returncode == 2
    assert said in done.stderr


# --- image --------------------------------------------------------------------------------


def copied() -> Iterator[str]:
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        words = [word for word in line.split() if not word.startswith("--chmod")]
        if not words[0].startswith("--from"):
            yield from words[:-1]


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = list(copied())
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in rules, source
    assert {rule for rule in rules if rule.startswith("!")} == {f"!{s}" for s in sources}


def test_the_image_installs_by_hash_what_the_lock_has() -> None:
    lock = (DEPLOY / "requirements.lock").read_text()
    pins = re.findall(r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", lock, re.MULTILINE))
    of_ci = (ROOT / "requirements.lock").read_text().splitlines()
    versions = dict(line.split("==") for line in of_ci if "==" in line)
    known = {canonicalize_name(name): version for name, version in versions.items()}
    got = {canonicalize_name(name): version for name, version in pins}
    assert got.keys() - known.keys() <= {"setuptools"}
    assert {name: v for name, v in got.items() if known.get(name, v) != v} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (DEPLOY / "requirements.in").read_text().splitlines()[0]
    extras = Requirement(f"ml-provenance{wanted.removeprefix('.')}").extras
    assert extras == {*FLEET, "otel"}
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    assert names - got.keys() == {"ml-provenance"}


def test_the_image_runs_as_no_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    user = text.rindex("\nUSER 10001:10001")
    assert user < text.index("\nENTRYPOINT")
    assert f"PROVENANCE_BASE_DIR={BASE}" in text
