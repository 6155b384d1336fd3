"""What of a configuration is a secret: by the name of its key, or by its place in a text."""

from __future__ import annotations

import functools
import re
from typing import Final

REDACTED: Final = "<redacted>"
_SECRET: Final = re.compile(
    r"passw(or)?d|passphrase|(^|_)pwd(_|$)|secret|credential|authorization|bearer"
    r"|(^|_)(auth|cookies?)$|(^|_)(api|access|private|account|signing|encryption|auth|ssh|storage"
    r"|subscription|license|master|shared|openai|azure)_?key"
)
_TOKEN: Final = re.compile(r"(^|_)tokens?$")
_NO_TOKEN: Final = re.compile(
    r"(^|_)(pad|padding|bos|eos|unk|unknown|cls|sep|mask|image|audio|video|start|stop|end|begin|"
    r"special|added|additional|prefix|suffix|middle|max|min|num|n|total|per|new|forced|decoder|"
    r"class|blank|label|delimiter|oov|target|prompt|vocab|of|by|tokenizer|context|system|user|"
    r"assistant|first|last|next|text|word|sep|trigger|instance|placeholder|initializer)"
    r"_(special_)?tokens?$"
)
_CREDENTIALS: Final = re.compile(r"(?<=://)(?:[^/\s@?#]*:[^/\s]*|[^/\s@?#:]{20,})@")
"""In a URL: a user with a password, which may have an ``@`` in it, or a token instead of both."""
_PARAMETER: Final = re.compile(r"(?<![\w.-])([\w.-]{1,64})=([^\s&;,'\"]+)")
_OPTION: Final = re.compile(r"(?<!\S)(--?[A-Za-z][\w.-]{0,63})(\s+)(?!-)(\"[^\"]*\"|'[^']*'|\S+)")
"""Of a command: an option, and its value behind a space."""
_BEARER: Final = re.compile(r"(?<=\bBearer )\S+", re.IGNORECASE)


def redacted(text: str) -> tuple[str, str]:
    """A text without the passwords and named secrets in it, and what was left out: nothing where
    that is empty."""
    shown = _CREDENTIALS.sub(f"{REDACTED}@", text)
    plain = _OPTION.sub(_without_value, _PARAMETER.sub(_without_secret, shown))
    plain = _BEARER.sub(REDACTED, plain)
    found = ("the password in a URL", shown != text), ("a parameter, by its name", plain != shown)
    return plain, " and ".join(what for what, there in found if there)


def _without_secret(found: re.Match[str]) -> str:
    """A parameter of a URL, a command or a connection, without a secret or a URL's signature."""
    name, value = found.groups()
    signed = name.lower().endswith(("sig", "signature"))
    hidden = signed or is_secret(name, text=not value.isdecimal())
    return f"{name}={REDACTED}" if hidden else found[0]


def _without_value(found: re.Match[str]) -> str:
    """An option of a command, without a secret."""
    name, space, value = found.groups()
    return f"{name}{space}{REDACTED}" if is_secret(name, not value.isdecimal()) else found[0]


@functools.lru_cache(4096)
def is_secret(name: str, text: bool = True) -> bool:
    """Whether a key's name says that its value, a text or a number, is a secret. A number of
    tokens is none."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if _SECRET.search(plain):
        return True
    return text and bool(_TOKEN.search(plain)) and not _NO_TOKEN.search(plain)
