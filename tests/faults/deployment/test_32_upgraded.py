"""32. A new release with a new schema takes over, while trainers write and old workers run.

The schema has one revision, so the drill brings the second: a copy of this tree, the new release,
that knows one more. Trainers, and what is in the spools and streams, stay the old release's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
from msgspec.structs import replace

from provenance.bootstrap import sending
from provenance.settings import load
from provenance.stores.sql.schema import REVISIONS
from tests.faults.support import by_hand
from tests.faults.support.harness import World, rounds, scenario
from tests.faults.support.processes import Trainer, die_with_parent, signal_group, until
from tests.support.paths import ROOT

OLD, NEW = REVISIONS[-1], "9001"
REVISION = f'''
import os, time
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{NEW}", "{OLD}"


def upgrade():
    op.add_column("runs", sa.Column("drill", sa.Text, nullable=True))
    op.create_index("ix_runs_drill", "runs", ["drill"])
    op.create_table("drills", sa.Column("id", sa.Integer, primary_key=True))
    if "HALF_WAY" in os.environ:
        open(os.environ["HALF_WAY"], "w").close()
        time.sleep(600)
'''
SERVICES = ("hashing", "anchor-local", "confirm", "beat", "shipper")


def new_release(folder: Path) -> Path:
    """This tree, and one revision more."""
    for name in ("provenance", "workers"):
        shutil.copytree(ROOT / name, folder / name)
    sql = folder / "provenance" / "stores" / "sql"
    (sql / "migrations" / "versions" / f"{NEW}_drill.py").write_text(REVISION)
    schema = (sql / "schema.py").read_text()
    known = f"REVISIONS: Final = {REVISIONS!r}"
    assert known.replace("'", '"') in schema
    more = f"REVISIONS: Final = {(*REVISIONS, NEW)!r}"
    (sql / "schema.py").write_text(schema.replace(known.replace("'", '"'), more))
    return folder


def killed_half_way(world: World, release: Path, mark: Path) -> None:
    """The new release's migration, killed when all of it is done but the commit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "provenance.cli", "migrate"],
        env={**world.env, "HALF_WAY": str(mark)}, cwd=release,
        start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    assert until(mark.exists, 60), "the migration did not begin"
    signal_group(process.pid, 9)
    process.wait(10)


def waiting(world: World) -> int:
    """Entries in the stream."""
    with closing(sending.open_transport(world.settings)) as transport:
        return transport.backlog()


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        return {name for (name,) in connection.execute(query)}


def test_an_upgrade_under_load_loses_nothing(
    tmp_path: Path, make_world: Callable[..., World], postgres_url: str
) -> None:
    world = make_world(more={"database_url": postgres_url})
    release, backup = new_release(tmp_path / "release"), tmp_path / "backup"
    newer = f"has schema revision {NEW}, newer than this release knows ({OLD})"

    trainers: list[Trainer] = []

    def train() -> UUID:
        """Another training begins; its run."""
        seed, epochs = len(trainers), rounds(10, 60)
        trainers.append(world.trainer(seed=seed, epochs=epochs, pace_s=0.02))
        return trainers[-1].run

    def arrives(run: UUID) -> object:
        return until(lambda: world.events(run), 60)

    def refuses(name: str) -> bool:
        return newer in world.log(name).read_text()

    with scenario(32, "release upgraded under load") as tally:
        world.start(*SERVICES)
        assert arrives(train())
        dump = ["pg_dump", "--format=custom", f"--file={tmp_path / 'ledger.dump'}", postgres_url]
        subprocess.run(dump, check=True)
        assert world.command("backup", str(backup))[0] == 0

        world.release = release
        code, said = world.command("migrate", "--check")
        assert (code, said) == (1, f"the database is at schema revision {OLD}, expected {NEW}\n")
        killed_half_way(world, release, tmp_path / "half")
        tally.kills += 1
        assert "drills" not in tables(postgres_url)
        assert arrives(train()), "the old workers do not go on"

        code, said = world.command("migrate")
        assert (code, said) == (0, f"the database is at schema revision {NEW}\n")
        run = train()
        for name in ("hashing", "confirm"):
            assert until(partial(refuses, name), 30), f"{name} refuses nothing"
        assert until(lambda: waiting(world), 30), "nothing of the old release is in flight"
        world.release = ROOT
        world.second("hashing", "late")
        assert world.processes["late"].wait(60) != 0
        assert newer in world.log("late").read_text().splitlines()[-1]
        del world.processes["late"]
        assert world.events(run) == 0, "an old worker wrote into the new schema"

        world.release = release
        for name in SERVICES:
            world.stop(name)
            tally.kills += 1
            world.start(name)
        for trainer in trainers:
            trainer.finish()
            world.wait_final(trainer.run, 120)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        world.judge(tally, trainers)
        assert "drills" in tables(postgres_url)
        for at, trainer in enumerate(trainers):
            bundle = str(tmp_path / "bundles" / str(at))
            assert world.command("bundle", str(trainer.run), "-o", bundle)[0] == 0
        world.stop()
        world.release = ROOT
        go_back(world, tmp_path, postgres_url)


def go_back(world: World, folder: Path, url: str) -> None:
    """The old release on what was backed up before, as docs/backup.md has it: what was signed
    since is missed, and comes back from bundles that the new release made."""
    restored, home = f"{url}_restored", folder / "home"
    bundles = sorted((folder / "bundles").iterdir())
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {restored.rpartition('/')[2]}".encode())
    words = ("--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={restored}")
    subprocess.run(["pg_restore", *words, folder / "ledger.dump"], check=True)
    shutil.copytree(folder / "backup", home)
    for kept in ("ledger.key.head", "anchors.jsonl"):
        shutil.copy(world.base / kept, home)
    env = {
        "PROVENANCE_DATABASE_URL": restored,
        "PROVENANCE_BASE_DIR": str(home),
        "PROVENANCE_CONFIG": str(home / "config.json"),
    }
    assert world.command("migrate", "--check", **env)[0] == 0
    code, said = world.command("ledger", "head", **env)
    assert (code, "the database is behind" in said) == (1, True), said
    code, said = world.command("ledger", "recover", *map(str, bundles), **env)
    assert code == 0, said
    assert world.command("ledger", "head", **env)[0] == 0
    by_hand.anchor(replace(load(home / "config.json", home), database_url=restored))
    code, said = world.command("fsck", "--offline", **env)
    assert code == 0, said
