"""``provenance devnet install|up|down|status|url|mine``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import provenance_devnet as devnet
from provenance.cli.output import answer, err, print_json, print_table
from provenance.errors import ServerMissingError
from provenance_devnet.config import write_config
from provenance_devnet.servers import CHAINS


def install(arguments: argparse.Namespace) -> int:
    """Bring the programs; 3 where one is missing for good."""
    results = devnet.install(*_which(arguments), _progress(arguments))
    if arguments.json:
        print_json({r.name: {"how": r.how, "kind": r.kind, "problem": r.problem} for r in results})
    else:
        print_table(
            ("server", "program", "how", "seconds", "problem"),
            [(r.name, r.kind, r.how, f"{r.seconds:.1f}", r.problem) for r in results],
        )
    return 0 if all(r.ok for r in results) else ServerMissingError.exit_code


def up(arguments: argparse.Namespace) -> int:
    """Start them and write a configuration that names them."""
    states = devnet.up(*_which(arguments), _progress(arguments))
    devnet.Devnet(Path(arguments.root)).mine_every(arguments.block_time)
    if any(state.running for state in states):
        path = write_config(Path(arguments.root), states)
        if not arguments.json:
            err.print(f"configuration for --config: {path}")
    return _show(arguments, states)


def down(arguments: argparse.Namespace) -> int:
    """Stop them."""
    states = devnet.down(*_which(arguments), _progress(arguments))
    _print(arguments, states)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Ask each of them; 3 where one does not answer."""
    return _show(arguments, devnet.status(*_which(arguments)))


def url(arguments: argparse.Namespace) -> int:
    """Print a running server's URL, for other programs; bitcoind's with the name and password
    of its cookie, which open nothing but a dev chain on loopback."""
    (state,) = devnet.status(Path(arguments.root), [arguments.server])
    if not state.running:
        raise ServerMissingError(f"{state.name}: {state.problem or 'does not run'}")
    address = state.url
    if cookie := state.detail.get("cookie_file"):
        login = Path(cookie).read_text(encoding="ascii").strip()
        address = address.replace("://", f"://{login}@", 1)
    return answer(arguments, {state.name: address}, address)


def mine(arguments: argparse.Namespace) -> int:
    """Add blocks to the chains that run, and print their heights."""
    heights = devnet.Devnet(Path(arguments.root)).mine(arguments.blocks)
    return answer(arguments, heights, *(f"{name}: block {at}" for name, at in heights.items()))


def _which(arguments: argparse.Namespace) -> tuple[Path, list[str] | None]:
    return Path(arguments.root), arguments.only.split(",") if arguments.only else None


def _progress(arguments: argparse.Namespace) -> devnet.Progress:
    if arguments.json:
        return devnet.silent
    return lambda name, line: err.print(f"{name:<10} {line}")


def _show(arguments: argparse.Namespace, states: Sequence[devnet.ServerState]) -> int:
    _print(arguments, states)
    if not arguments.json and any(state.running for state in states if state.name in CHAINS):
        seconds = devnet.Devnet(Path(arguments.root)).mines_every()
        how = f"every {seconds:g} s" if seconds else "on demand alone, by: provenance devnet mine N"
        err.print(f"blocks come {how}")
    return 0 if all(s.running for s in states) else ServerMissingError.exit_code


def _print(arguments: argparse.Namespace, states: Sequence[devnet.ServerState]) -> None:
    if arguments.json:
        print_json({s.name: asdict(s) | {"url": s.url or None} for s in states})
    else:
        rows = [
            (s.name, s.kind, ("no", "yes")[s.running], s.url or None, s.problem) for s in states
        ]
        if rows:
            print_table(("server", "program", "running", "url", "problem"), rows)
        else:
            err.print("nothing runs here")
