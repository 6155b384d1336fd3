"""The ``provenance`` command.

Exit codes: 0 fine, 1 verification failed, 2 wrong usage or input, 3 could not be checked
(a node, Redis or the database cannot be reached). Every command takes ``--json`` and then
prints one JSON object on stdout; what is for people alone goes to stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from provenance import __version__
from provenance.errors import MissingExtraError, ProvenanceError, UsageError
from provenance.log import shown

Command = Callable[[argparse.Namespace], int]

DEVNET_INSTALL = "pip install ml-provenance-devnet, or in a checkout: pip install -e deploy/devnet"
LOG_SOURCE = "bundle, note, base folder, configuration, database URL, or folder or URL of tiles"
EXIT_CODES = "exit codes: 0 fine, 1 verification failed, 2 wrong usage or input, 3 not checkable"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Users' mistakes end in one line, not a traceback."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who started this
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of few letters, as stderr has it
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    module, function = arguments.run.split(":")
    try:
        return _command_function(module, function)(arguments)
    except ProvenanceError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        from provenance.cli.output import reader_left

        reader_left(sys.stdout)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        return UsageError.exit_code


def _complain(message: str) -> None:
    print(f"provenance: {shown(message)}", file=sys.stderr)  # noqa: T201  what the command says


class _Parser(argparse.ArgumentParser):
    """Its messages repeat arguments, which scripts take from data."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))


def _command_function(module: str, function: str) -> Command:
    """A command's code, which is imported when it runs; the dev servers are a package apart."""
    try:
        command: Command = getattr(import_module(f"provenance.cli.{module}"), function)
    except ModuleNotFoundError as error:
        if error.name != "provenance_devnet":
            raise
        raise MissingExtraError("provenance_devnet", "", DEVNET_INSTALL) from error
    return command


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top: argparse.ArgumentParser = _Parser(
        prog="provenance",
        description="Tamper-evident provenance for machine-learning training.",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"ml-provenance {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    text = "train, anchor, verify and tamper, all real"
    demo = _command(commands, "demo", "demo:demo", text, config=False)
    demo.add_argument("--epochs", type=_positive, default=5, help="epochs to train (5)")
    demo.add_argument(
        "--networks", help="comma-separated: ethereum,bitcoin,ipfs,local (all that run)"
    )
    demo.add_argument("--timeout", type=_positive, default=120, help="seconds to wait (120)")

    up = _command(commands, "up", "up:up", "run Redis, workers, beat and shipper until Ctrl-C")
    up.add_argument("--flower", action="store_true", help="run Flower on loopback too")
    up.add_argument("--flower-port", type=_port, help="port of Flower (a free one)")

    ship = _command(commands, "ship", "up:ship", "run a shipper alone, as a sidecar of a trainer")
    ship.add_argument("--once", action="store_true", help="ship what is there and end")
    ship.add_argument(
        "--ledger-key", action="append", metavar="VKEY", default=[],
        help="believe acknowledgements of this key (name+id+base64, as doctor prints it)",
    )  # fmt: skip

    text = "start a training, all of whose processes write one run"
    start = _command(commands, "run", "run:run", text, base=False)
    start.add_argument(
        "--key-file", type=Path, metavar="FILE", help="the run's key, on storage of all hosts"
    )
    make = start.add_mutually_exclusive_group()
    make.add_argument("--make", type=Path, metavar="FILE", help="make such a file and end")
    make.add_argument(
        "--make-env",
        type=Path,
        metavar="FILE",
        help="make a file of its two variables and end, for containers",
    )
    start.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="to start")

    text = "a key that stands behind runs: make it, or show its public half"
    known = _command(commands, "identity", "run:identity", text, base=False)
    known.add_argument("file", type=Path, metavar="FILE", help="64 hex digits, mode 0600")
    known.add_argument("--new", action="store_true", help="make it")

    devnet = commands.add_parser("devnet", help="real servers on loopback, for trying out")
    actions = devnet.add_subparsers(metavar="ACTION", required=True)
    for action, text in (
        ("install", "bring the servers' programs into .devnet/"),
        ("up", "start them; writes .devnet/blockchain_config.json"),
        ("down", "stop them"),
        ("status", "ask each of them"),
    ):
        sub = _command(actions, action, f"devnet:{action}", text, base=False)
        sub.add_argument("--only", help="comma-separated: redis,ethereum,bitcoin,ipfs")
        sub.add_argument("--root", default=".", help="folder that holds .devnet/ (.)")
    url = _command(actions, "url", "devnet:url", "print the URL of one, to pass on", base=False)
    url.add_argument("name", choices=("redis", "ethereum", "bitcoin", "ipfs"), metavar="SERVER")
    url.add_argument("--root", default=".", help="folder that holds .devnet/ (.)")

    status = _command(commands, "status", "status:status", "runs, or one run, and the backlog")
    status.add_argument("run_id", nargs="?", metavar="RUN", help="run id, its first 8, or latest")

    verify = _command(commands, "verify", "verify:verify", "check a run or a bundle again")
    verify.add_argument(
        "subject",
        nargs="?",
        metavar="RUN|PATH|CID",
        help="run id, latest, bundle folder or .zip, or ipfs:CID",
    )
    verify.add_argument("--all", action="store_true", help="every run of the database")
    verify.add_argument("--no-cache", action="store_true", help="no effect: nothing is cached")
    verify.add_argument("--offline", action="store_true", help="ask no node")
    verify.add_argument(
        "--headers",
        action="append",
        metavar="FILE|URL",
        help="Bitcoin block headers that you trust, one in hex per line, or an Esplora explorer",
    )
    verify.add_argument(
        "--quorum", type=_positive, metavar="K", help="how many explorers must agree (all)"
    )
    for option, value, text in (
        ("--block-hash", "HASH", "an Ethereum block that you trust"),
        ("--trust-chain", "CHAIN", "ethereum:ID[:0xCONTRACT] or bitcoin:NETWORK that you trust"),
        ("--witness", "VKEY", "a witness that you trust"),
        ("--require", "WHAT", "what verified takes: key, anchor, ethereum, witnesses, ..."),
    ):
        verify.add_argument(option, action="append", metavar=value, help=f"{text}; repeatable")
    verify.add_argument(
        *("--trust", "--ledger-key"),
        action="append",
        metavar="VKEY",
        help="a ledger's key that you trust; repeatable",
    )
    verify.add_argument(
        "--witness-quorum", type=_positive, metavar="K", help="how many witnesses (all)"
    )
    verify.add_argument("--explain", action="store_true", help="list the checks and end")

    fsck = _command(commands, "fsck", "fsck:fsck", "check spool, database and chains: nothing lost")
    fsck.add_argument("--offline", action="store_true", help="ask no node")
    fsck.add_argument(
        "--since-block",
        action="append",
        default=[],
        metavar="[NETWORK=]HEIGHT",
        help="search from there for transactions that no row knows",
    )
    fsck.add_argument(
        "--settle",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="leave out events that are younger: they may be on their way (0)",
    )

    report = _command(commands, "report", "verify:report", "write report.html and the evidence")
    report.add_argument("run_id", metavar="RUN", help="run id, its first 8, or latest")
    report.add_argument("-o", "--output", help="folder (<base>/reports/<run>)")

    bundle = _command(commands, "bundle", "bundle:bundle", "write a run's evidence for an auditor")
    bundle.add_argument("run_id", metavar="RUN", help="run id, its first 8, or latest")
    bundle.add_argument("-o", "--output", required=True, help="folder, or file ending in .zip")
    bundle.add_argument("--ipfs", action="store_true", help="add and pin it, and print its CID")
    bundle.add_argument(
        "--ots",
        action="store_true",
        help="also an OpenTimestamps proof of each record, and a tlog-proof of each seal",
    )
    bundle.add_argument(
        "--disclose",
        action="append",
        metavar="KIND|PATH",
        help="keep back all other records; repeatable, such as metrics or training/epoch/3",
    )

    upgrade = _command(
        commands, "upgrade", "bundle:upgrade", "complete pending OpenTimestamps proofs"
    )
    upgrade.add_argument("paths", nargs="+", metavar="PATH", help="bundle, or .ots files")

    _command(commands, "migrate", "up:migrate", "bring the database to this release's schema")

    path = _command(commands, "path", "verify:path", "print a record's path up to the run root")
    path.add_argument("record", metavar="FILE", help="a record file of a bundle or report")
    path.add_argument("--ots", metavar="OUT", help="write its OpenTimestamps proof there")

    events = commands.add_parser("events", help="what became of events")
    kinds = events.add_subparsers(metavar="ACTION", required=True)
    parked = _command(kinds, "parked", "events:parked", "list what ingest would not take, and why")
    parked.add_argument("run_id", nargs="?", metavar="RUN", help="run id, its first 8, or latest")
    parked.add_argument("--forget", action="store_true", help="delete them instead")
    parked.add_argument("--all", action="store_true", help="with --forget and no run: of every run")

    model = _command(
        commands, "verify-model", "model:verify_model", "which epoch has exactly these weights"
    )
    model.add_argument("model", metavar="FILE|FOLDER", help=".safetensors, .pt, .npz, or a folder")
    model.add_argument("--bundle", required=True, metavar="PATH", help="the run's bundle")

    sign = _command(commands, "sign", "model:sign", "sign a model's files (OpenSSF Model Signing)")
    sign.add_argument("model", metavar="FOLDER", help="the model's files")
    sign.add_argument("--run", required=True, metavar="RUN", dest="run_id", help="where it is from")
    sign.add_argument("--key", required=True, metavar="FILE", help="EC private key, PEM, mode 0600")
    sign.add_argument("-o", "--output", metavar="FILE", help="signature (FOLDER/model.sig)")

    statement = _command(
        commands, "statement", "model:statement", "in-toto statement of a run (SLSA provenance)"
    )
    statement.add_argument("run_id", metavar="RUN", help="run id, its first 8, or latest")
    statement.add_argument("-o", "--output", metavar="FILE", help="file (stdout)")

    log = commands.add_parser("log", help="the ledger as a transparency log")
    parts = log.add_subparsers(metavar="ACTION", required=True)
    export = _command(parts, "export", "log:export", "write it as tlog-tiles for static hosting")
    export.add_argument("folder", metavar="FOLDER")
    prove = _command(parts, "prove", "log:prove", "tlog-proof of a run's newest root")
    prove.add_argument("run_id", metavar="RUN", help="run id, its first 8, or latest")
    consistency = _command(
        parts, "consistency", "log:consistency", "proof that one head extends another"
    )
    consistency.add_argument("old", type=int, metavar="OLD", help="size")
    consistency.add_argument("new", type=int, metavar="NEW", help="size")
    cosign = _command(parts, "cosign", "log:cosign", "take in a head that witnesses cosigned")
    cosign.add_argument("note", metavar="FILE", help="signed note")
    cosign.add_argument(
        "--witness", action="append", required=True, metavar="VKEY", help="a witness you trust"
    )

    compare = _command(parts, "compare", "log:compare", "whether two sources tell one story")
    compare.add_argument("a", metavar="A", help=LOG_SOURCE)
    compare.add_argument("b", metavar="B", help="another; or ethereum[:CONTRACT], bitcoin, local")
    compare.add_argument("-o", "--output", metavar="FILE", help="where a fork's proof is stored")
    monitor = _command(parts, "monitor", "log:monitor", "whether it continues what was seen last")
    monitor.add_argument("source", metavar="SOURCE", help=LOG_SOURCE)
    monitor.add_argument("--state", metavar="FILE", help="the last head (<base>/log-monitor/...)")
    monitor.add_argument("-o", "--output", metavar="FILE", help="proof (beside the state)")
    for sub in (compare, monitor):
        sub.add_argument("--ledger-key", metavar="VKEY", help="the ledger's key, as you know it")

    contract = commands.add_parser("contract", help="the Ethereum contract")
    deploys = contract.add_subparsers(metavar="ACTION", required=True)
    _command(deploys, "deploy", "up:deploy", "deploy it with the configured key")

    networks = commands.add_parser("networks", help="the networks heads are anchored on")
    acts = networks.add_subparsers(metavar="ACTION", required=True)
    resume = _command(acts, "resume", "up:resume", "lift the pause of a network")
    resume.add_argument("network", metavar="NETWORK", help="ethereum, bitcoin, ipfs or local")

    text = "whether a task of each queue ended not long ago; 1 where one is stale"
    health = _command(commands, "health", "doctor:health", text)
    health.add_argument(
        "queues", nargs="*", metavar="QUEUE", help="hashing, anchor.NETWORK, ..., beat (all)"
    )

    _command(commands, "doctor", "doctor:doctor", "say what works here, and what would mend it")
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: str,
    text: str,
    base: bool = True,
    config: bool = True,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    if base:
        command.add_argument(
            "--base-dir",
            type=Path,
            default=Path(os.environ.get("PROVENANCE_BASE_DIR", "artifacts")),
            help="spool, database and reports (artifacts)",
        )
    if base and config:
        command.add_argument(
            "--config", type=Path, default=_env_path("PROVENANCE_CONFIG"), help="JSON configuration"
        )
    command.set_defaults(run=run)
    return command


def _env_path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port, 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
