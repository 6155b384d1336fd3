"""URLs of nodes and servers."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

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
    text = str(path)
    for character, code in (("%", "%25"), ("?", "%3F"), ("#", "%23")):
        text = text.replace(character, code)
    return f"sqlite:///{text}"


def sqlite_path(url: str) -> Path | None:
    """The file behind an SQLite URL; None for any other database."""
    if urlsplit(url).scheme.split("+")[0] != "sqlite":
        return None
    name = unquote(url.split("///", 1)[-1].split("?", 1)[0]) if "///" in url else ""
    return Path(name) if name and name != ":memory:" else None


def broker_url(url: str | None) -> str | None:
    """The Redis URL as Celery's transport (kombu) spells it: the number of the database is a
    path, or ``virtual_host`` of a socket; no certificate is checked where the URL does not ask."""
    if url is None:
        return None
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    number = query.pop("db", None)
    if parts.scheme == "unix":
        who = parts.netloc.rpartition("@")[0] or query.pop("username", "")
        if "password" in query:
            who = f"{who}:{quote(query.pop('password'), safe='')}"
        query |= {"virtual_host": number} if number else {}
        netloc = f"{who}@" if who else ""
        return f"redis+socket://{netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    if number is not None:
        parts = parts._replace(path=f"/{number}", query=urlencode(query))
        url = urlunsplit(parts)
    if parts.scheme != "rediss" or "ssl_cert_reqs=" in parts.query:
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
