"""Private keys and passwords: from the environment, a file with mode 0600 or a keystore.

One in the JSON itself is taken for a loopback node only.
"""

from __future__ import annotations

import os
import re
import sys

from provenance import files
from provenance.errors import MissingExtraError
from provenance.settings.objects import JsonObject, absolute
from provenance.settings.urls import is_loopback
from provenance.settings.values import EthereumSettings, NodeSettings

_MAX_FILE_BYTES = 1 << 20


def secret(
    o: JsonObject, node: NodeSettings, name: str, default_env: str, wanted: bool
) -> str | None:
    """A secret from JSON (on loopback), the named or the default variable, or a 0600 file.

    Args:
        name: Its key in JSON; ``<name>_env`` and ``<name>_file`` stand beside it.
        wanted: False reads nothing, and None is returned.

    Raises:
        ConfigError: Given in two ways, in JSON for a node elsewhere, or not to be read.
    """
    given = [key for key in (name, f"{name}_env", f"{name}_file") if o.raw.get(key) is not None]
    if len(given) > 1:
        raise o.fail(given[1], f"found beside {given[0]!r}, expected one of the two")
    if given == [name] and not is_loopback(node.url):
        raise o.fail(
            name,
            f"found in the file, expected {name}_env or {name}_file "
            "(a secret in JSON is taken for a loopback node only)",
        )
    if not wanted:
        return None
    if given == [f"{name}_file"]:
        return _private_file(o, f"{name}_file").strip()
    if given == [name]:
        return str(o.raw[name])
    variable = o.raw.get(f"{name}_env")
    value = os.environ.get(variable or default_env)
    if variable and value is None:
        raise o.fail(f"{name}_env", f"the environment has no {variable}")
    return value


def ethereum_key(o: JsonObject, node: EthereumSettings, wanted: bool) -> str | None:
    """The hex key that signs on Ethereum: :func:`secret`, or an encrypted keystore's.

    Raises:
        ConfigError: As :func:`secret`; two keys, or none of 64 hex digits.
        MissingExtraError: A keystore, and eth_account is not installed.
    """
    key = secret(o, node, "private_key", "PROVENANCE_ETHEREUM_PRIVATE_KEY", wanted)
    if node.keystore_file is not None and (key or node.private_key):
        raise o.fail("keystore_file", "found beside another key, expected one of the two")
    if node.keystore_file is not None and wanted:
        key = _open_keystore(o, node.keystore_password_env)
    if key is not None and not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", key.strip()):
        raise o.fail("private_key", "found something else, expected 64 hex digits")
    return None if key is None else key.strip()


def _open_keystore(o: JsonObject, password_env: str) -> str:
    text = _private_file(o, "keystore_file")
    password = os.environ.get(password_env)
    if password is None:
        raise o.fail("keystore_password_env", f"the environment has no {password_env}")
    limit = sys.getrecursionlimit()
    try:
        from eth_account import Account
    except ImportError as error:
        raise MissingExtraError("eth_account", "ethereum") from error
    finally:
        sys.setrecursionlimit(limit)  # its py_ecc raises it past what the C stack holds
    try:
        return str(Account.decrypt(text, password).hex())
    except (ValueError, KeyError, TypeError) as error:
        path = o.raw["keystore_file"]
        raise o.fail("keystore_file", f"{path} does not open with that password") from error


def _private_file(o: JsonObject, key: str) -> str:
    path = absolute(o.raw[key], o.key(key), "the path of a file")
    try:
        return files.read_private(path, _MAX_FILE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise o.fail(key, f"cannot read {path}: {reason}") from error
