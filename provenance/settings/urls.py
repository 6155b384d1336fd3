"""URLs of nodes and servers."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from provenance.errors import ConfigError


def node_url(
    url: str, key: str, source: str | None = None, *, credentials: bool = False
) -> SplitResult:
    """The parts of a node's URL: ``https://...``, or ``http://`` to a loopback address.

    Args:
        key: The configuration key that the URL came from.
        source: The file that it came from.
        credentials: True takes a URL that carries a user or password.

    Raises:
        ConfigError: Not such a URL.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed at this access
    except ValueError as error:
        raise ConfigError(key, "found no URL, expected http:// or https://", source) from error
    problem = None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "found no URL, expected http:// or https://"
    elif not credentials and "@" in parts.netloc:
        problem = "found a user or password in the URL, expected them apart"
    elif parts.scheme == "http" and not is_loopback(url):
        problem = f"found plain HTTP to {parts.hostname}, expected https or loopback"
    elif not re.fullmatch("[!-~]*", parts.path + parts.query):
        problem = "found a space or letter in path or query that a URL has as %XX"
    if problem is not None:
        raise ConfigError(key, problem, source)
    return parts


def is_loopback(url: str) -> bool:
    """True where the URL's host is localhost or a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    printed = (
        c if c.isprintable() and c not in "%?#" else quote(os.fsencode(c)) for c in str(path)
    )
    return f"sqlite:///{''.join(printed)}"


def sqlite_path(url: str) -> Path | None:
    """The file behind an SQLite URL; None for any other database."""
    if urlsplit(url).scheme.split("+")[0] != "sqlite":
        return None
    name = unquote(url.split("///", 1)[-1].split("?", 1)[0], errors="surrogateescape")
    name = name if "///" in url else ""
    return Path(name) if name and name != ":memory:" else None


def fixed_url(url: str) -> str:
    """An SQLite file's URL with an absolute path; any other as it is."""
    path = sqlite_path(url)
    if path is None or "?" in url or str(path).startswith("file:"):
        return url
    return sqlite_url(Path(os.path.expanduser(path)).absolute())


def psycopg_options(url: str) -> dict[str, int | None]:
    """``prepare_threshold`` of a PostgreSQL URL, which psycopg takes as no text: a number, or
    ``None``, as behind a pgbouncer that keeps no prepared statements.

    Raises:
        ConfigError: It is neither, or the URL has another option of psycopg's own.
    """
    options = dict(parse_qsl(urlsplit(url).query))
    odd = {"autocommit", "context", "cursor_factory", "row_factory"} & options.keys()
    if odd:
        raise ConfigError("database_url", f"found the option {min(odd)!r}, expected none such")
    text = options.get("prepare_threshold")
    if text not in (None, "None") and not text.isdecimal():
        raise ConfigError("database_url", "prepare_threshold: expected a whole number, or None")
    number = None if text in (None, "None") else int(text)
    return {} if text is None else {"prepare_threshold": number}
