"""``provenance run`` and ``provenance identity``: keys of runs and of who stands behind them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.capture.keys import RunKeys, make_key_file, new_run_keys
from provenance.capture.membership import RUN_ID, RUN_KEY_FILE, RUN_SEED
from provenance.cli.output import err, out, print_json
from provenance.errors import InputError, UsageError
from provenance.settings.key_files import IDENTITY, read_or_create_seed, read_seed


def run(arguments: argparse.Namespace) -> int:
    """Start a command, all of whose processes write one run.

    The run's id and seed go into its environment, or, with ``--key-file``, the path of a file
    with both. This process becomes the command: its signals and its exit code are the command's.
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if arguments.make is not None:
        if command:
            raise UsageError(f"run: found --make and {command[0]}, expected one of the two")
        keys = new_run_keys()
        if not make_key_file(arguments.make, keys):
            raise InputError(f"{arguments.make}: is there already, expected a new file")
        return _tell(arguments, keys)
    if not command:
        raise UsageError("run: found no command, expected `provenance run -- COMMAND [ARGS]`")
    environment = dict(os.environ)
    if arguments.key_file is not None:
        make_key_file(arguments.key_file, new_run_keys())
        environment[RUN_KEY_FILE] = str(arguments.key_file.absolute())
    elif not (RUN_SEED in environment or RUN_KEY_FILE in environment):
        keys = new_run_keys()
        environment |= {RUN_ID: str(keys.run), RUN_SEED: keys.seed.hex()}
        err.print(f"run {keys.run}", markup=False)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be started: {error.strerror}") from error


def identity(arguments: argparse.Namespace) -> int:
    """Make or show a key that stands behind runs: its public half, for ``trust.trainers``."""
    path: Path = arguments.file
    if arguments.new and path.exists():
        raise InputError(f"{path}: is there already, expected a new file")
    seed = read_or_create_seed(path, IDENTITY) if arguments.new else read_seed(path, IDENTITY)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
    if arguments.json:
        print_json({"file": str(path), "public_key": public})
    else:
        out.print(public, markup=False)
        err.print(f'trust.trainers of a deployment: {{"NAME": "{public}"}}', markup=False)
    return 0


def _tell(arguments: argparse.Namespace, keys: RunKeys) -> int:
    if arguments.json:
        print_json({"run": str(keys.run), "key_file": str(arguments.make)})
    else:
        out.print(str(keys.run), markup=False)
    return 0
