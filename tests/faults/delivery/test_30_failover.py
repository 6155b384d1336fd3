"""Scenario 30: Redis's master is killed mid-run, and Sentinels make its replica the master."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from provenance.app.processes import free_ports
from tests.faults.support.harness import World, rounds, scenario
from tests.faults.support.processes import RedisServer, die_with_parent, until

SERVICE = "the-master"


@contextmanager
def sentinels(master: RedisServer, folder: Path, number: int = 3) -> Iterator[str]:
    """Sentinels of a master of which the most decide; the URL of what they name."""
    ports, password = free_ports(number), "p;w@d:sentinel/"
    with ExitStack() as stack:
        for port in ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"bind 127.0.0.1\nport {port}\nrequirepass {password}\n"
                f"sentinel sentinel-pass {password}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {number // 2 + 1}\n"
                f"sentinel auth-pass {SERVICE} {master.password}\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            command = [str(master.path), str(config), "--sentinel"]
            with (folder / f"sentinel-{port}.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, preexec_fn=die_with_parent)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        quoted = password.replace(";", "%3B").replace("@", "%40").replace("/", "%2F")
        login = f":{master.password}@"
        yield f"redis+sentinel://{login}{hosts}/{SERVICE}/0?sentinel_password={quoted}"


@contextmanager
def replica(master: RedisServer, folder: Path) -> Iterator[RedisServer]:
    """Another server that follows the master, and may take its place."""
    made = RedisServer(folder)
    made.password = master.password
    made.url = made.url.replace(made.url.split(":")[2].split("@")[0], master.password)
    made.start(f"replicaof 127.0.0.1 {master.port}", f"masterauth {master.password}")

    def follows() -> bool:
        with made.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    try:
        assert until(follows, 20)
        yield made
    finally:
        made.kill()


def test_a_failover_loses_nothing_and_doubles_nothing(world: World, tmp_path: Path) -> None:
    with ExitStack() as stack, scenario(30, "Sentinel failover mid-run") as tally:
        master = world.redis
        with master.client() as client:
            client.config_set("masterauth", master.password)
        other = stack.enter_context(replica(master, tmp_path / "other"))
        url = stack.enter_context(sentinels(master, tmp_path))
        world.env["PROVENANCE_REDIS_URL"] = url
        world.settings = replace(world.settings, redis_url=url)
        world.start()
        world.wait_ready("hashing", "anchor-local", "confirm")
        trainers = [world.trainer(epochs=rounds(6, 40), metrics_per_epoch=20, pace_s=0.02)]
        assert until(lambda: world.events(trainers[0].run), 30)
        master.kill()
        tally.kills += 1

        def promoted() -> bool:
            with other.client() as client:
                return bool(client.info("replication")["role"] == "master")

        assert until(promoted, 30), "the Sentinels made no other master"
        trainers.append(world.trainer(seed=1))
        for trainer in trainers:
            trainer.finish()
            world.wait_final(trainer.run, 150)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        world.judge(tally, trainers)
    for name in ("shipper", "hashing", "confirm", "beat"):
        assert master.password not in world.log(name).read_text(), name
