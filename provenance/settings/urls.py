"""URLs of nodes and servers."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from provenance.settings.objects import JsonObject


def check_url(o: JsonObject, url: str) -> None:
    """Refuse a node's URL that is none, that carries a password, or that is plain HTTP to
    another machine.

    Raises:
        ConfigError
    """
    key = next(name for name in ("url", "rpc_url", "api_url") if o.raw.get(name) is not None)
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed at this access
    except ValueError as error:
        raise o.fail(key, "found no URL, expected http:// or https://") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise o.fail(key, "found no such URL, expected http:// or https://")
    if parts.username or parts.password:
        raise o.fail(key, "found a user or password in the URL, expected them apart")
    if parts.scheme == "http" and not is_loopback(url):
        raise o.fail(key, f"found plain HTTP to {parts.hostname}, expected https or loopback")


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
