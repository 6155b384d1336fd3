"""Redis with TLS and a password: tracker's shipper, transport and Celery workers through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kombu
import pytest
from kombu.exceptions import OperationalError

from provenance.bootstrap.sending import open_transport
from provenance.errors import ProvenanceError, TransportUnavailable
from provenance.settings import Settings, redis_address
from tests.faults.support.harness import World
from tests.faults.support.tls_proxy import make_certificates, tls_proxy


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(more={"redis_url": None})


@pytest.fixture
def proxy(world: World, tmp_path: Path) -> Iterator[tuple[str, str, list[int]]]:
    """URL through TLS without and with the CA, and the connections that were made."""
    ca = make_certificates(tmp_path)
    with tls_proxy(tmp_path / "server.pem", world.redis.port) as (port, connections):
        plain = f"rediss://:{world.redis.password}@127.0.0.1:{port}/0"
        yield plain, f"{plain}?ssl_cert_reqs=required&ssl_ca_certs={ca}", connections


def test_a_run_comes_home_through_tls(world: World, proxy: tuple[str, str, list[int]]) -> None:
    _, url, connections = proxy
    world.env["PROVENANCE_REDIS_URL"] = url
    world.start("shipper", "hashing", "anchor-local", "confirm", "beat")
    trainer = world.trainer()
    trainer.finish()
    world.wait_final(trainer.run)
    assert not world.missing(trainer)
    assert len(connections) >= 5, "every process came through TLS"
    world.stop()
    for name in ("shipper", "hashing", "anchor-local", "confirm", "beat"):
        assert world.redis.password not in world.log(name).read_text(), name


def test_a_certificate_that_nobody_vouches_for_is_refused(
    world: World, proxy: tuple[str, str, list[int]]
) -> None:
    unknown, known, _ = proxy
    open_transport(Settings(world.base, redis_url=known)).ping()
    with pytest.raises(TransportUnavailable) as caught:
        open_transport(Settings(world.base, redis_url=unknown)).ping()
    assert "certificate" in str(caught.value).lower()
    assert world.redis.password not in str(caught.value)


def test_a_certificate_for_another_host_is_refused(
    world: World, proxy: tuple[str, str, list[int]]
) -> None:
    other = proxy[1].replace("@127.0.0.1:", "@localhost:")
    with pytest.raises(TransportUnavailable) as caught:
        open_transport(Settings(world.base, redis_url=other)).ping()
    assert "certificate" in str(caught.value).lower()


def test_the_password_counts_behind_tls_too(
    world: World, proxy: tuple[str, str, list[int]]
) -> None:
    wrong = proxy[1].replace(world.redis.password, "wrong-word")
    with pytest.raises(ProvenanceError, match="refuses the user or password") as caught:
        open_transport(Settings(world.base, redis_url=wrong)).ping()
    assert "wrong-word" not in str(caught.value)


def test_a_server_that_speaks_no_tls_is_unavailable_in_time(world: World) -> None:
    url = world.redis_url.replace("redis://", "rediss://")
    start = time.monotonic()
    with pytest.raises(TransportUnavailable):
        open_transport(Settings(world.base, redis_url=url)).ping()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("vouched_for", [True, False])
def test_celery_checks_the_certificate_too(
    vouched_for: bool, world: World, proxy: tuple[str, str, list[int]]
) -> None:
    """Left alone, kombu takes any certificate for a URL that does not ask to have it checked."""
    url = proxy[1].replace("ssl_cert_reqs=required&", "") if vouched_for else proxy[0]
    told = redis_address(url).broker()
    with kombu.Connection(told["broker_url"], ssl=told["broker_use_ssl"]) as connection:
        if vouched_for:
            connection.ensure_connection(max_retries=1)
        else:
            with pytest.raises(OperationalError, match="certificate"):
                connection.ensure_connection(max_retries=1)
