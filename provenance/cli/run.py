"""``provenance run`` and ``provenance identity``: keys of runs and of who stands behind them."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.capture.keys import RunKeys, make_key_file, new_run_keys, signed_by_identity
from provenance.capture.membership import RUN_ID, RUN_KEY_FILE, RUN_SEED
from provenance.capture.ranks.launchers import launched, own_ranks
from provenance.cli.output import answer, err
from provenance.errors import InputError, UsageError
from provenance.settings import SIGSTORE_ENV
from provenance.settings.key_files import IDENTITY, read_or_create_seed, read_seed


def run(arguments: argparse.Namespace) -> int:
    """Start a command, all of whose processes write one run.

    The run's id and seed go into its environment, or, with ``--key-file``, the path of a file
    with both. What the environment names already stays. This process becomes the command: its
    signals and its exit code are the command's.
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    made: str | None = arguments.make or arguments.make_env
    if made is not None:
        if command:
            raise UsageError(f"run: found a file to make and {command[0]}, expected one of the two")
        return _make(arguments, Path(made))
    if not command:
        raise UsageError("run: found no command, expected `provenance run -- COMMAND [ARGS]`")
    environment = dict(os.environ)
    if arguments.key_file is not None:
        if environment.get(RUN_SEED):
            raise UsageError(f"run: found --key-file and {RUN_SEED}, expected one of the two")
        make_key_file(Path(arguments.key_file), _new_keys())
        environment[RUN_KEY_FILE] = os.path.abspath(arguments.key_file)
    elif not any(environment.get(name) for name in (RUN_ID, RUN_SEED, RUN_KEY_FILE)):
        launch = None if own_ranks(environment) == (0, 1) else launched(environment)
        if launch is not None and launch.world_size != 1:
            raise UsageError(
                f"run: this is {launch} ({launch.by}), each of which would start a run of its "
                "own: put `provenance run --` before their launcher, or give all of them the same "
                "--key-file on shared storage"
            )
        keys = new_run_keys()
        environment |= {RUN_ID: str(keys.run), RUN_SEED: keys.seed.hex()}
        err.print(f"run {keys.run}")
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  no shell is wanted
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be started: {error.strerror}") from error


def identity(arguments: argparse.Namespace) -> int:
    """Make or show a key that stands behind runs: its public half, for ``trust.trainers``."""
    path = Path(arguments.file)
    if arguments.new and path.exists():
        raise InputError(f"{path}: is there already, expected a new file")
    seed = read_or_create_seed(path, IDENTITY) if arguments.new else read_seed(path, IDENTITY)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
    if not arguments.json:
        err.print(f'trust.trainers of a deployment: {{"NAME": "{public}"}}')
    return answer(arguments, {"file": str(path), "public_key": public}, public)


def _make(arguments: argparse.Namespace, path: Path) -> int:
    """A new run's key file, or its two variables as Kubernetes and Docker read them."""
    keys = _new_keys()
    if arguments.make is not None:
        made = make_key_file(path, keys)
    else:
        lines = f"{RUN_ID}={keys.run}\n{RUN_SEED}={keys.seed.hex()}\n"
        with files.errors_of(path, "written"):
            made = files.create(path, lines.encode())
    if not made:
        raise InputError(f"{path}: is there already, expected a new file")
    return answer(arguments, {"run": str(keys.run), "file": str(path)}, str(keys.run))


def _new_keys() -> RunKeys:
    """Of a run behind which this host's identity stands, where it has one."""
    keys, path = new_run_keys(), os.environ.get("PROVENANCE_IDENTITY_KEY_FILE")
    if os.environ.get(SIGSTORE_ENV) == "1":  # the shippers sign
        keys = replace(keys, sigstore="")
    return signed_by_identity(keys, Path(path)) if path else keys
