"""deploy/systemd and deploy/k8s: hardened, and the same commands as the fleet's."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from provenance.app import up
from provenance.cli import parser
from provenance.stores.redis_streams import SHARDS
from tests.support.deployment.files import (
    DEPLOY,
    containers,
    deployments,
    fleet_argv,
    kubernetes_files,
    pods,
)

# --- systemd ------------------------------------------------------------------------------

HEALTH = DEPLOY / "systemd/provenance-health@.service"
UNITS = sorted({*(DEPLOY / "systemd").glob("*.service")} - {HEALTH})
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "KillMode": "mixed",
    "EnvironmentFile": "/etc/provenance/provenance.env",
    "User": "provenance",
}


class Unit(configparser.RawConfigParser):
    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",))
        text = re.sub(r"^EnvironmentFile=-.*$", "", path.read_text(), flags=re.MULTILINE)
        self.read_string(text)

    def optionxform(self, optionstr: str) -> str:
        return optionstr

    def argv(self, instance: str = "") -> list[str]:
        line = self["Service"]["ExecStart"].replace("%i", instance).replace("%%", "%")
        program, *rest = shlex.split(line)
        assert program == "/opt/provenance/bin/python"
        return ["python", *rest]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_hardened(path: Path) -> None:
    service = Unit(path)["Service"]
    assert HARDENED.items() <= dict(service).items()
    assert "provenance" in service["StateDirectory"].split()
    assert int(service["TimeoutStopSec"]) >= up.GRACE_S
    # Units share a user: it would take the semaphores of the others with it.
    assert "RemoveIPC" not in service


def test_units_run_the_commands_of_the_fleet() -> None:
    from workers.app import QUEUES

    template = Unit(DEPLOY / "systemd/provenance-worker@.service")
    for queue in QUEUES:
        assert template.argv(queue) == ["python", *up.worker(queue, queue).argv[1:]]
    wanted = fleet_argv()
    for name in ("beat", "shipper", "metrics"):
        assert Unit(DEPLOY / f"systemd/provenance-{name}.service").argv() == wanted[name]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    timers = (DEPLOY / "systemd").glob("*.timer")
    for path in (*UNITS, HEALTH, *timers, DEPLOY / "systemd/provenance.target"):
        instance = "worker@anchor.local" if "health" in path.name else "anchor.local"
        name = path.name.replace("@.", f"@{instance}.")
        text = path.read_text().replace("/opt/provenance/bin", str(Path(sys.executable).parent))
        (tmp_path / name).write_text(text)
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    done = subprocess.run([*verify, *units], capture_output=True, text=True, check=False)
    # Of this machine's own units, which may have faults, nothing is asked.
    assert [line for line in done.stderr.splitlines() if "provenance" in line] == []


def test_the_units_of_timers_run_commands_that_there_are() -> None:
    module, name, *words = Unit(DEPLOY / "systemd/provenance-fsck.service").argv()[1:]
    assert (module, name) == ("-m", "provenance.cli")
    assert parser().parse_args(words).settle == 300
    for timer in (DEPLOY / "systemd").glob("*[!@].timer"):
        assert timer.with_suffix(".service").exists()


@pytest.mark.parametrize("database", ["", "postgresql://me@db/ledger"])
def test_the_backup_unit_dumps_the_database_first(tmp_path: Path, database: str) -> None:
    log = fake_programs(tmp_path, "provenance", "pg_dump")
    line = Unit(DEPLOY / "systemd/provenance-backup.service")["Service"]["ExecStart"]
    line = line.replace("\\\n", "").replace("$$", "$").replace("%%", "%")
    line = line.replace("/opt/provenance/bin", str(tmp_path))
    line = line.replace("/var/lib/provenance-backup", str(tmp_path))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PROVENANCE_DATABASE_URL": database}
    subprocess.run(shlex.split(line), env=env, check=True)
    (folder,) = tmp_path.glob("20*Z")
    *dumped, files = log.read_text().splitlines()
    assert files == f"provenance backup {folder}/files"
    dump = f"pg_dump --format=custom --no-owner --file={folder}/ledger.dump {database}"
    assert dumped == ([dump] if database else [])


def fake_programs(folder: Path, *names: str) -> Path:
    """Programs that write how they were called; the file that they write to."""
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/called\n')
        (folder / name).chmod(0o755)
    (folder / "called").touch()
    return folder / "called"


@pytest.mark.parametrize(
    ("instance", "queue", "result"),
    [("worker@hashing", "hashing", "exit-code"), ("beat", "beat", "success")],
)
def test_the_health_unit_restarts_the_unit_that_is_stale(
    tmp_path: Path, instance: str, queue: str, result: str
) -> None:
    service = Unit(HEALTH)["Service"]
    log = fake_programs(tmp_path, "provenance", "systemctl")

    def run(line: str) -> str:
        command = line.lstrip("+").replace("%i", instance).replace("$$", "$")
        command = command.replace("/opt/provenance/bin", str(tmp_path))
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SERVICE_RESULT": result}
        log.write_text("")
        subprocess.run(shlex.split(command), env=env, check=False)
        return log.read_text().strip()

    assert run(service["ExecStart"]) == f"provenance health {queue}"
    restart = f"systemctl try-restart provenance-{instance}.service"
    assert run(service["ExecStopPost"]) == ("" if result == "success" else restart)


# --- Kubernetes ---------------------------------------------------------------------------


VERSIONS = {
    "Namespace": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Service": "v1",
    "Secret": "v1",
    "PersistentVolumeClaim": "v1",
}


@pytest.mark.slow
def test_manifests_have_the_shape_of_their_kind() -> None:
    assert {document["kind"] for document in kubernetes_files()} == VERSIONS.keys()
    names = [(document["kind"], document["metadata"]["name"]) for document in kubernetes_files()]
    assert len(names) == len(set(names))
    for document in kubernetes_files():
        assert document["apiVersion"] == VERSIONS[document["kind"]]
    for deployment in deployments():
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["terminationGracePeriodSeconds"] >= up.GRACE_S
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in (*pod["containers"], *pod["initContainers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"] == {"cpu": "1", "memory": "256Mi"}
            assert container["image"] in {"ml-provenance", "postgres"}, "kustomize sets the digest"
    for container in containers():
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


@pytest.mark.slow
def test_manifests_run_the_commands_of_the_fleet() -> None:
    wanted = fleet_argv()
    elsewhere = {"flower", "shipper"}
    wanted["metrics"] = [word.replace("127.0.0.1", "0.0.0.0") for word in wanted["metrics"]]
    got = {container["name"]: container["args"] for container in containers()}
    assert got == {name: argv for name, argv in wanted.items() if name not in elsewhere}
    for name in ("migrate", "backup"):
        (container,) = pods()[f"provenance-{name}"]["containers"]
        program, *arguments = container["args"]
        assert program == "provenance"
        assert arguments[0] == name
        parser().parse_args(arguments)
    (keeper,) = [doc for doc in kubernetes_files("dashboard") if doc["kind"] == "Deployment"]
    (dashboard,) = keeper["spec"]["template"]["spec"]["containers"]
    argv = [word.replace("127.0.0.1", "0.0.0.0") for word in up.dashboard(8484).argv[1:]]
    assert dashboard["args"] == ["python", *argv, "--name", "provenance-dashboard"]


def test_manifests_refer_to_what_there_is() -> None:
    keys = {
        (document["kind"], document["metadata"]["name"]): set(document.get("stringData", ()))
        for document in kubernetes_files()
    }
    used: set[str] = set()
    for name, pod in pods().items():
        files: dict[str, set[str]] = {}
        for volume in pod["volumes"]:
            assert volume.get("configMap", {"name": "provenance"}) == {"name": "provenance"}
            if "secret" in volume:
                items = {item["key"] for item in volume["secret"]["items"]}
                assert items <= keys["Secret", volume["secret"]["secretName"]]
                used |= items
                files[volume["name"]] = {item["path"] for item in volume["secret"]["items"]}
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in keys
        for container in pod["containers"]:
            there = {
                f"{mount['mountPath']}/{file}"
                for mount in container["volumeMounts"]
                for file in files.get(mount["name"], ())
            }
            assert "seed" not in {mount["name"] for mount in container["volumeMounts"]}
            read = {item["value"] for item in container["env"] if item["name"].endswith("_FILE")}
            assert read == there, f"{name}: files of secrets that are given are those that are read"
    assert used == keys["Secret", "provenance"], "no key is offered that nobody reads"
    redis = {("Secret", f"provenance-{user}"): user for user in ("shipper", "operator")}
    assert {k: keys[k] for k in redis} == {k: {f"redis-{user}-url"} for k, user in redis.items()}
    secrets = [document for document in kubernetes_files() if document["kind"] == "Secret"]
    assert {value for secret in secrets for value in secret["stringData"].values()} == {""}


def test_nobody_talks_to_anybody_but_as_policies_say() -> None:
    policies = {
        document["metadata"]["name"]: document["spec"]
        for document in kubernetes_files("base", "dashboard")
        if document["kind"] == "NetworkPolicy"
    }
    deny = policies.pop("provenance-default-deny")
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {d["spec"]["selector"]["matchLabels"]["app"] for d in deployments()}
    for name, policy in policies.items():
        selector = policy["podSelector"]
        named = set(selector.get("matchLabels", {}).values())
        for expression in selector.get("matchExpressions", ()):
            named |= set(expression["values"])
        assert named <= apps | {"provenance-jobs"}, name
    entered = {name for name, policy in policies.items() if "Ingress" in policy["policyTypes"]}
    assert entered == {"provenance-metrics", "provenance-dashboard"}


def test_keda_looks_at_every_stream() -> None:
    auth, scaled = kubernetes_files("keda")
    spec = scaled["spec"]
    streams = [trigger["metadata"]["stream"] for trigger in spec["triggers"]]
    assert streams == [f"prov:events:{shard}" for shard in range(SHARDS)]
    assert {t["authenticationRef"]["name"] for t in spec["triggers"]} == {auth["metadata"]["name"]}
    assert spec["scaleTargetRef"]["name"] in pods()
    assert spec["maxReplicaCount"] <= SHARDS


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_builds_the_overlay_with_all_components(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlay/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("# Optional: ", ""))
    build = ["kubectl", "kustomize", str(overlay.parent)]
    done = subprocess.run(build, capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {"registry.example/ml-provenance@sha256:yours", "postgres@sha256:yours"}
    spaces = {d["metadata"].get("namespace") for d in built if d["kind"] != "Namespace"}
    assert spaces == {"provenance"}
    specs = {(d["kind"], d["metadata"]["name"]): d.get("spec", {}) for d in built}
    keeper = specs["Deployment", "provenance-keeper"]["template"]["spec"]
    assert [c["name"] for c in keeper["containers"]].count("dashboard") == 1
    assert "replicas" not in specs["Deployment", "provenance-hashing"], "KEDA's to say"
    (config,) = [name for kind, name in specs if kind == "ConfigMap"]
    assert {"name": "config", "configMap": {"name": config}} in keeper["volumes"]
