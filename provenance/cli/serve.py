"""``provenance serve`` and ``token``: the dashboard, and who reads it from other machines."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from provenance.app.base_directory import TOKENS_FILE, known_base
from provenance.cli.output import answer, err, print_json, print_table, settings_of, when
from provenance.dashboard.tokens import Scope, TokenFile
from provenance.errors import MissingExtraError
from provenance.settings import READERS


def serve(arguments: argparse.Namespace) -> int:
    """Serve the dashboard and the API until Ctrl-C."""
    settings = known_base(settings_of(arguments, secrets=READERS))
    try:
        from provenance.dashboard import server
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "dashboard") from error
    tokens = _tokens(arguments)
    listening = server.listening(arguments.host, arguments.port, tokens)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    if arguments.json:
        print_json({"url": url, "base_dir": str(settings.base_dir)})
    else:
        err.print(f"{settings.base_dir} at {url}; Ctrl-C stops")
    server.serve(server.application(settings, tokens, arguments.name or ()), listening)
    return 0


def new_token(arguments: argparse.Namespace) -> int:
    """Make a team's token and print it: the file keeps its hash alone."""
    text = _tokens(arguments).new(arguments.team, Scope(arguments.scope), time.time())
    if not arguments.json:
        err.print(f"the token of {arguments.team}, told this once:")
    return answer(arguments, {"team": arguments.team, "token": text}, text)


def list_tokens(arguments: argparse.Namespace) -> int:
    """Whose tokens are good for what."""
    tokens = _tokens(arguments).read()
    rows = [(token.team, token.scope.value, when(token.created_at)) for token in tokens]
    if arguments.json:
        print_json([dict(zip(("team", "scope", "created"), row, strict=True)) for row in rows])
    else:
        print_table(("team", "scope", "created"), rows)
    return 0


def revoke_token(arguments: argparse.Namespace) -> int:
    """Make a team's token worth nothing, at once."""
    _tokens(arguments).revoke(arguments.team)
    return answer(arguments, {"revoked": arguments.team}, f"{arguments.team}: revoked")


def _tokens(arguments: argparse.Namespace) -> TokenFile:
    named = arguments.tokens is not None
    path = Path(arguments.tokens) if named else arguments.base_dir / TOKENS_FILE
    return TokenFile(path, named=named)
