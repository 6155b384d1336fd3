"""URLs of nodes and servers."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

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


def broker_url(url: str | None) -> str | None:
    """The Redis URL for Celery, which checks no certificate where the URL does not ask for it."""
    if url is None or urlsplit(url).scheme != "rediss" or "ssl_cert_reqs=" in urlsplit(url).query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}ssl_cert_reqs=required"
