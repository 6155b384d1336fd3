"""The checker reads PostgreSQL as it reads SQLite, and writes to neither."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from provenance.fsck.findings import FindingKind as F
from tests.support.fsck_world import FIRST, FIRST_PRODUCER, World


@pytest.mark.nodes
def test_a_deployment_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    world = World(tmp_path / "base", database_url=postgres_url)
    world.build()
    report = world.fsck()
    assert (report.findings, report.unchecked) == ((), ())
    assert report.checked["records"] == 27
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE records SET digest = %s WHERE run = %s AND seq = 7", (b"\1" * 32, FIRST)
        )
    (finding,) = world.fsck().findings
    assert finding.kind is F.RECORD_DIGEST
    assert finding.subject == f"{FIRST}/{FIRST_PRODUCER.hex()}/7"


@pytest.mark.nodes
def test_a_database_without_tables_or_server_stays_open(postgres_url: str, tmp_path: Path) -> None:
    report = World(tmp_path, database_url=postgres_url).fsck()
    assert report.exit_code == 3
    assert "does not exist" in report.unchecked[0]
    gone = World(tmp_path, database_url="postgresql://user:hunter2@127.0.0.1:1/db").fsck()
    assert gone.exit_code == 3
    assert "hunter2" not in str(gone)


@pytest.mark.parametrize("url", ["mysql://user:hunter2@host/db", "no url", "sqlite:///"])
def test_a_url_of_no_database_is_said_without_its_password(url: str, tmp_path: Path) -> None:
    report = World(tmp_path, database_url=url).fsck()
    assert report.exit_code == 3
    assert "hunter2" not in str(report)


@pytest.mark.nodes
@pytest.mark.parametrize("threshold", ["0", "None"])
def test_statements_are_prepared_as_the_url_says(
    postgres_url: str, tmp_path: Path, threshold: str
) -> None:
    """Behind a pgbouncer that keeps no prepared statements, never."""
    beside = "&" if "?" in postgres_url else "?"
    world = World(tmp_path, database_url=f"{postgres_url}{beside}prepare_threshold={threshold}")
    world.build()
    assert world.fsck().findings == ()
