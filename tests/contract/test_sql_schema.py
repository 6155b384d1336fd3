"""Migrations: they give the schema that the code describes, once, and never halfway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from provenance.errors import ConfigError, StoreUnavailable
from provenance.stores.sql import SqlStore, migrate
from provenance.stores.sql import revisions as migrations
from provenance.stores.sql.schema import REVISIONS, metadata
from tests.support.paths import ROOT


def constraints(connection: Connection) -> dict[str, Any]:
    """What compare_metadata does not look at."""
    seen = inspect(connection)
    return {
        table: (
            sorted(
                (each["name"] or "", each["sqltext"]) for each in seen.get_check_constraints(table)
            ),
            seen.get_pk_constraint(table),
            sorted(each["name"] or "" for each in seen.get_unique_constraints(table)),
        )
        for table in metadata.tables
    }


def test_the_migrated_schema_is_the_described_one(durable_url: str) -> None:
    described = SqlStore(durable_url)
    with described.exclusive() as connection:
        metadata.create_all(connection)
    with described.exclusive() as connection:
        expected = constraints(connection)
        metadata.drop_all(connection)
    described.close()
    migrated = SqlStore.open(durable_url)
    with migrated.exclusive() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert constraints(connection) == expected
    migrated.close()


def test_the_comparison_would_see_a_difference(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    with store.exclusive() as connection:
        connection.execute(text("ALTER TABLE parked ADD COLUMN extra VARCHAR"))
        connection.execute(text("DROP INDEX ix_records_run_kind"))
    with store.exclusive() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert sorted(str(each[0]) for each in found) == ["add_index", "remove_column"]
    store.close()


def test_the_code_knows_every_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == REVISIONS


def test_a_database_of_a_newer_release_is_refused(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    with store.exclusive() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    for allowed in (True, False):
        with pytest.raises(ConfigError, match=r"9999, newer than .* upgrade ml-provenance"):
            SqlStore.open(durable_url, migrate=allowed)


def test_a_store_that_is_open_writes_nothing_once_a_newer_release_migrated(
    durable_url: str,
) -> None:
    store = SqlStore.open(durable_url)
    with store.transaction() as tx:
        tx.note_commit("one", 1.0)
    with store.exclusive() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for run in (None, UUID(int=1)):
        with pytest.raises(ConfigError, match="9999, newer than"), store.transaction(run) as tx:
            pytest.fail("the block began")
    store.close()


def test_a_migration_waits_for_writers_and_they_for_it(durable_url: str) -> None:
    """Who began before it ends on the old schema; who waited for it is refused."""
    store, other = SqlStore.open(durable_url), SqlStore(durable_url, wait_s=0.3)
    with (
        store.transaction(UUID(int=1)),
        pytest.raises(StoreUnavailable),
        other.exclusive(),
    ):
        pytest.fail("a migration beside a writer")
    with (
        other.exclusive(),
        pytest.raises(StoreUnavailable),
        SqlStore(durable_url, wait_s=0.3).transaction(UUID(int=1)),
    ):
        pytest.fail("a writer beside a migration")
    store.close()
    other.close()


def test_a_database_of_somebody_else_is_refused(durable_url: str) -> None:
    store = SqlStore(durable_url)
    with store.exclusive() as connection:
        connection.execute(text("CREATE TABLE runs (id INTEGER)"))
    store.close()
    with pytest.raises(ConfigError, match="a table runs that is not ours"):
        migrate(durable_url)


def test_without_permission_to_migrate_an_empty_database_is_refused(durable_url: str) -> None:
    with pytest.raises(ConfigError, match="migrate it first"):
        SqlStore.open(durable_url, migrate=False)
    migrate(durable_url)
    SqlStore.open(durable_url, migrate=False).close()


def test_a_migration_that_fails_leaves_nothing(
    durable_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "100% broken"
    (broken / "versions").mkdir(parents=True)
    (broken / "env.py").write_text((migrations.MIGRATIONS / "env.py").read_text())
    (broken / "versions" / "one.py").write_text(
        "from alembic import op\nrevision, down_revision = '0001', None\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (id INTEGER)')\n"
        "    op.execute('INSERT INTO nowhere VALUES (1)')\n"
    )
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises((ConfigError, StoreUnavailable)):
        migrate(durable_url)
    store = SqlStore(durable_url)
    with store.exclusive() as connection:
        assert not inspect(connection).has_table("half")
    store.close()
    monkeypatch.undo()
    migrate(durable_url)


def test_who_came_second_finds_nothing_to_do(durable_url: str) -> None:
    store = SqlStore(durable_url)
    for _ in range(2):
        with store.exclusive() as connection:
            migrations.bring_up_to_date(connection, store.label)
    with store.exclusive() as connection:
        assert migrations.is_current(connection, store.label)
    store.close()


def _start(url: str, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, cwd=ROOT,
    )  # fmt: skip


def test_many_processes_may_start_at_once(durable_url: str) -> None:
    code = "import sys; from provenance.stores.sql import migrate; migrate(sys.argv[1])"
    started = [_start(durable_url, code) for _ in range(5)]
    said = [each.communicate(timeout=120)[0] for each in started]
    assert [each.returncode for each in started] == [0] * 5, said
    store = SqlStore.open(durable_url, migrate=False)
    with store.exclusive() as connection:
        rows = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
        assert list(rows) == [REVISIONS[-1]]
    store.close()


def test_alembic_is_loaded_only_to_migrate(durable_url: str) -> None:
    code = (
        "import sys; from provenance.stores.sql import migrate; migrate(sys.argv[1]);"
        "print('alembic' in sys.modules)"
    )
    assert _start(durable_url, code).communicate(timeout=120)[0] == "True\n"
    assert _start(durable_url, code).communicate(timeout=120)[0] == "False\n"
