"""Schema revisions: bring a database up to date, once, however many processes start."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from provenance.errors import ConfigError
from provenance.stores.sql.errors import KEY
from provenance.stores.sql.schema import REVISIONS, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = text("SELECT version_num FROM alembic_version")


def is_current(connection: Connection, label: str) -> bool:
    """Whether the database is at the revision this release needs. Raises ConfigError: it is newer
    than this release."""
    return known_revision(connection, label) == REVISIONS[-1]


def require_current(connection: Connection, label: str) -> None:
    """Of a writer: a newer release may have migrated the database since it was opened. Raises
    ConfigError: it is newer than this release, or older."""
    if _revision(connection, label) != REVISIONS[-1]:
        raise stale(label)


def stale(label: str) -> ConfigError:
    """What to raise where a database must not be migrated, but would have to be."""
    return ConfigError(
        KEY,
        f"{label} is not at schema revision {REVISIONS[-1]}: migrate it first (provenance migrate)",
    )


def bring_up_to_date(connection: Connection, label: str, to: str = REVISIONS[-1]) -> None:
    """Upgrade inside the caller's exclusive transaction; alembic is loaded only if needed. Raises
    ConfigError: the database is newer than this release or than ``to``, or holds tables of others
    under our names."""
    revision = known_revision(connection, label)
    if revision == to:
        return
    if revision is not None and REVISIONS.index(revision) > REVISIONS.index(to):
        problem = f"{label} is at schema revision {revision}, behind {to}: no way leads back"
        raise ConfigError(KEY, f"{problem}; restore the backup from before the upgrade")
    if revision is None:
        foreign = metadata.tables.keys() & set(inspect(connection).get_table_names())
        if foreign:
            raise ConfigError(
                KEY, f"{label} has a table {min(foreign)} that is not ours; use an empty database"
            )
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, to)


def known_revision(connection: Connection, label: str) -> str | None:
    """The revision a database is at; None where it was never migrated."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return _revision(connection, label)


def _revision(connection: Connection, label: str) -> str | None:
    revision: str | None = connection.execute(_REVISION).scalar()
    if revision is not None and revision not in REVISIONS:
        raise ConfigError(
            KEY,
            f"{label} has schema revision {revision}, newer than this release knows "
            f"({REVISIONS[-1]}): upgrade ml-provenance",
        )
    return revision
