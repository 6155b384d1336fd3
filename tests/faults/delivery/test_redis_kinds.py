"""A run comes home by a Unix socket, by TLS with client certificates, through a Redis Cluster, and
through Valkey."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from provenance.app.processes import free_ports
from provenance.bootstrap import reading, sending
from provenance.errors import ConfigError, TransportUnavailable
from provenance.settings import Settings, redis_address
from tests.faults.support.harness import World
from tests.faults.support.processes import die_with_parent, until
from tests.faults.support.tls_proxy import make_certificates
from tests.support.nodes.redis_users import redis_7

SERVICES = ("shipper", "hashing", "anchor-local", "confirm", "beat")


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(more={"redis_url": None})


def bring_home(world: World) -> None:
    """A run from its trainer to the local file, by whatever the environment names."""
    world.start(*SERVICES)
    trainer = world.trainer()
    trainer.finish()
    world.wait_final(trainer.run)
    assert not world.missing(trainer)


def test_a_socket_for_the_workers_and_certificates_for_the_shipper(
    world: World, tmp_path: Path
) -> None:
    ca, pem, socket = make_certificates(tmp_path), tmp_path / "server.pem", tmp_path / "r.sock"
    (port,), server = free_ports(1), world.redis
    server.stop()
    server.path = Path(redis_7())
    server.start(
        f"unixsocket {socket}", f"tls-port {port}", f"tls-ca-cert-file {ca}",
        f"tls-cert-file {pem}", f"tls-key-file {pem}",
    )  # fmt: skip
    secret = f"rediss://:{server.password}@127.0.0.1:{port}/3?ssl_ca_certs={ca}"
    url = f"{secret}&ssl_certfile={pem}&ssl_keyfile={pem}"
    with pytest.raises(TransportUnavailable):
        sending.open_transport(Settings(world.base, redis_url=secret)).ping()
    world.env["PROVENANCE_REDIS_URL"] = url
    world.start("shipper", "beat", "confirm", "anchor-local")
    world.env["PROVENANCE_REDIS_URL"] = f"unix://:{server.password}@{socket}?db=3"
    world.settings = replace(world.settings, redis_url=url)
    bring_home(world)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Three nodes that share the slots; the URL of two of them."""
    password, ports = "pw-of-the-cluster", free_ports(3)
    options = ["--bind", "127.0.0.1", "--save", "", "--requirepass", password, "--dir"]
    with ExitStack() as stack:
        for port in ports:
            command = [redis_7(), "--port", str(port), "--cluster-enabled", "yes", *options]
            command += [str(tmp_path), "--cluster-config-file", f"{port}.conf"]
            with (tmp_path / f"{port}.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, preexec_fn=die_with_parent)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        nodes = [f"127.0.0.1:{port}" for port in ports]
        make = ["redis-cli", "-a", password, "--cluster", "create", *nodes, "--cluster-yes"]
        assert until(lambda: not subprocess.run(make, capture_output=True).returncode, 30, 0.2)

        states = [["redis-cli", "-a", password, "-p", str(p), "cluster", "info"] for p in ports]

        def whole() -> bool:
            told = [subprocess.run(s, capture_output=True, text=True).stdout for s in states]
            return all("cluster_state:ok" in text for text in told)

        assert until(whole, 30, 0.2)
        yield f"redis+cluster://:{password}@{nodes[0]},{nodes[2]}"


def test_the_stream_on_a_cluster_and_the_queues_on_a_server(world: World, cluster: str) -> None:
    world.env |= {"PROVENANCE_REDIS_URL": cluster, "PROVENANCE_BROKER_URL": world.redis_url}
    world.settings = replace(world.settings, redis_url=cluster)
    bring_home(world)
    assert reading.stream_backlog(world.settings) == 0
    there = replace(world.settings, broker_url=world.redis_url)
    assert reading.ping_broker(there) == f"127.0.0.1:{world.redis.port}/0"
    assert world.fsck()["findings"] == []
    wrong = Settings(world.base, redis_url=cluster.replace("pw-of-", "wrong-"))
    with pytest.raises(ConfigError, match="refuses the user or password"):
        sending.open_transport(wrong).ping()
    address = redis_address(cluster)
    for _, port in address.hosts:
        plain = f"redis://:{address.login['password']}@127.0.0.1:{port}"
        with pytest.raises(ConfigError, match="is a node of a Cluster, expected redis.cluster://"):
            sending.open_transport(Settings(world.base, redis_url=plain)).read("a", 1)


def test_valkey(world: World) -> None:
    program = shutil.which("valkey-server")
    if program is None:
        pytest.skip("valkey-server is not on PATH, and Debian 12 has no package of it")
    world.redis.stop()
    world.redis.path = Path(program)
    world.redis.start()
    url = world.redis_url.replace("redis://", "valkey://")
    world.env["PROVENANCE_REDIS_URL"] = url
    world.settings = replace(world.settings, redis_url=url)
    bring_home(world)
