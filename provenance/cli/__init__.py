"""The ``provenance`` command.

Exit codes: 0 fine, 1 verification failed, a claim is false or something is not as it should be
(``health``: a queue is stale; ``status``: a network is paused or does not get on; ``migrate
--check``: another schema), 2 wrong usage or input, 3 could not be checked (a node, Redis or the
database cannot be reached).
Every command takes ``--json`` and then prints one JSON object on stdout, ``{"error": ...}`` where
it fails; what is for people alone goes to stderr.

Over 400 lines: the grammar of all commands stands together.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from provenance import __version__
from provenance.errors import MissingExtraError, ProvenanceError, UsageError
from provenance.log import shown

Command = Callable[[argparse.Namespace], int]

DEVNET_INSTALL = "pip install ml-provenance-devnet, or in a checkout: pip install -e deploy/devnet"
EXIT_CODES = "exit codes: 0 fine, 1 verification failed, 2 wrong usage or input, 3 not checkable"

# A command's words, its MODULE:FUNCTION (ACTION: other commands follow) and its help. Below it
# its options as NAMES METAVAR (repeatable with "...", required with "!",
# a switch without; "| " excludes others) and its arguments as NAME METAVAR with argparse's ? * +.
# A METAVAR in braces is all that may stand there.
_GRAMMAR = """
demo  demo:demo  train, anchor, verify and tamper, all real
  --epochs EPOCHS  epochs to train (5)
  --networks NETWORKS  comma-separated: ethereum,bitcoin,ipfs,local (all that run)
  --timeout TIMEOUT  seconds to wait (120)
  --beyond  then walk each capability of docs/guides
up  up:up  run Redis, workers, beat and shipper until Ctrl-C
  --flower  run Flower on loopback too
  --flower-port FLOWER_PORT  port of Flower (a free one)
  --metrics HOST:PORT  serve /metrics, /healthz and /readyz there (loopback without HOST:)
  --dashboard  serve the dashboard on loopback too
  --dashboard-port DASHBOARD_PORT  port of the dashboard (a free one)
serve  serve:serve  the dashboard and its HTTP API, until Ctrl-C
  --host HOST  address to listen at (127.0.0.1); others than loopback need a token
  --port PORT  port (8484)
  --name NAME...  a name that browsers may call it by, beside its address; repeatable
  --tokens FILE  tokens (<base>/tokens.json)
token  ACTION  who may read the dashboard and its API
token new  serve:new_token  make one and print it
  team TEAM  whose runs it shows; all: those of every team
  --scope {read,write,admin}  what it is good for (read)
  --tokens FILE  tokens (<base>/tokens.json)
token list  serve:list_tokens  whose there are
  --tokens FILE  tokens (<base>/tokens.json)
token revoke  serve:revoke_token  forget one
  team TEAM  whose
  --tokens FILE  tokens (<base>/tokens.json)
ship  up:ship  run a shipper alone, as a sidecar of a trainer
  --once  ship what is there and end
  --ledger-key VKEY...  believe acknowledgements of this key (name+id+base64, as doctor prints it)
run  run:run  start a training, all of whose processes write one run
  --key-file FILE  the run's key, on storage of all hosts
  | --make FILE  make such a file and end
  | --make-env FILE  make a file of its two variables and end, for containers
  command COMMAND  to start
identity  run:identity  a key that stands behind runs: make it, or show its public half
  file FILE  64 hex digits, mode 0600
  --new  make it
devnet  ACTION  real servers on loopback, for trying out
devnet install  devnet:install  bring the servers' programs into .devnet/
  --only ONLY  comma-separated: redis,ethereum,bitcoin,ipfs
devnet up  devnet:up  start them; writes .devnet/blockchain_config.json
  --only ONLY  comma-separated: redis,ethereum,bitcoin,ipfs
  --block-time SECONDS  a block that often on Ethereum and Bitcoin (5); 0: none by itself
devnet mine  devnet:mine  add blocks to Ethereum and Bitcoin at once
  blocks N  how many
devnet down  devnet:down  stop them
  --only ONLY  comma-separated: redis,ethereum,bitcoin,ipfs
devnet status  devnet:status  ask each of them
  --only ONLY  comma-separated: redis,ethereum,bitcoin,ipfs
devnet url  devnet:url  print the URL of one, to pass on
  server {redis,ethereum,bitcoin,ipfs}
status  status:status  runs, or one run, and the backlog
  run_id RUN?  run id, its first or last 8, or latest
  --name TEXT  runs whose name or id has this in it
  --state {running,finished,pruned,failed,interrupted,closed,lost,unknown}  runs that stand so
  --team TEAM  runs of this team
  --group GROUP  runs of this group
  --tag TAG...  runs with this tag; repeatable: with all of them
  --since WHEN  runs that something came of since then: 90min, 36h, 7d, 2026-05-31
  --network {ethereum,bitcoin,ipfs,local}  runs with a root that is not final there
  --sort {created,seen,name,state,team,group}  what decides the order (created)
  --page PAGE  of the list (1)
  --limit RUNS  on a page (as many as the screen has room for, 50 where there is none)
  --watch SECONDS?  again and again (2)
verify  auditor.verify:verify  check a run or a bundle again
  subject RUN|PATH|CID?  run id, latest, bundle folder or .zip, or ipfs:CID
  --all  every run of the database
  --offline  ask no node
  --headers FILE|URL...  Bitcoin block headers that you trust, one in hex per line, or an Esplora
    explorer
  --quorum K  how many explorers must agree (all)
  --block-hash HASH...  an Ethereum block that you trust; repeatable
  --trust-chain CHAIN...  ethereum:ID[:0xCONTRACT] or bitcoin:NETWORK that you trust; repeatable
  --witness VKEY...  a witness that you trust; repeatable
  --require WHAT...  what verified takes: key, anchor, ethereum, witnesses, ...; repeatable
  --trust --ledger-key VKEY...  a ledger's key that you trust; repeatable
  --witness-quorum K  how many witnesses (all)
  --parent RUN|PATH|CID  the run that it says it continues: verified too, then held against it
  --cross  what the networks together say of each seal, and when it existed at the latest
  --proof FILE...  a proof of 'provenance prove' about it; repeatable
  --explain  list the checks and end
lineage  beyond.lineage:lineage  what a run comes from, and what came of it
  subject RUN|PATH|CID  run id, its first or last 8, latest, bundle folder or .zip, or ipfs:CID
  --parent RUN|PATH...  what it comes from, where it is not in the database: a bundle, or with
    --model a model's file or folder; repeatable
  --model FILE  its model's file or folder: held against its records, and against the parents
  --format {text,html,prov,openlineage}  text for people, a page, PROV-JSON, OpenLineage events
  -o --output FILE  where the page or the document is written
fsck  auditor.fsck:fsck  check spool, database and chains: nothing lost
  --offline  ask no node
  --since-block [NETWORK=]HEIGHT...  search from there for transactions that no row knows
  --settle SECONDS  leave out events that are younger: they may be on their way (0)
report  auditor.verify:report  write report.html and the evidence
  run_id RUN  run id, its first or last 8, or latest
  -o --output OUTPUT  folder (<base>/reports/<run>)
bundle  auditor.bundle:bundle  write a run's evidence for an auditor
  run_id RUN  run id, its first or last 8, or latest
  -o --output OUTPUT!  folder, or file ending in .zip
  --ipfs  add and pin it, and print its CID
  --ots  also an OpenTimestamps proof of each record, and a tlog-proof of each seal
  --runs  also all runs of the ledger, with their seeds and results
  --disclose KIND|PATH...  keep back all other records; repeatable, such as metrics or
    training/epoch/3
  --proof FILE...  a proof of 'provenance prove' that goes with it; repeatable
prove  beyond.zk:prove  prove a statement about a hidden number, without showing it
  run_id RUN  run id, its first or last 8, or latest
  --metric NAME!  as 'commitments' in the run's configuration names it
  --epoch EPOCH  a number, final or results (final)
  --record PATH  where several records of the epoch have the name
  --seal SEAL  before, checkpoint-<epoch> or after: a root that has the record (the newest)
  | --at-least X  the number is at least X
  | --at-most X  the number is at most X
  | --between LOW HIGH  the number is one of these, or between them
  | --equals-run OTHER  the number is that of this run, at the same epoch
  -o --output FILE!  where the proof goes
upgrade  auditor.bundle:upgrade  complete pending OpenTimestamps proofs
  paths PATH+  bundle, or .ots files
migrate  up:migrate  bring the database to this release's schema
  --check  change nothing; 1 where the schema is another one
  --to REVISION  to this one instead
backup  up:backup  copy database, keys and anchors file, while workers run
  folder FOLDER  a new one
archive  archive:archive  move records of runs that are done out of the database
  runs RUN*  run ids, their first or last 8; all that were sealed before archive.after where none
  --older-than AGE  of all, those sealed before that: 36h, 180d, 2026-05-31
  --restore  bring the records of these runs back
  --vacuum  give the space that they took back to the file system
path  auditor.verify:path  print a record's path up to the run root
  record FILE  a record file of a bundle or report
  --ots OUT  write its OpenTimestamps proof there
events  ACTION  what became of events
events parked  events:parked  list what ingest would not take, and why
  run_id RUN?  run id, its first or last 8, or latest
  | --retry  put batches into the stream again
  | --forget  delete them
  --all  with one of them and no run: of every run
verify-model  auditor.model:verify_model  which epoch has exactly these weights
  model FILE|FOLDER  .safetensors, .pt, .npz, .keras, a booster's, or a folder
  --bundle PATH  the run's bundle
  --run RUN  where the deployment is: run id, its first or last 8, or latest
gate  auditor.gate:gate  whether a pipeline may take a model: a policy's rules, a line each
  --model FILE|FOLDER!  as for verify-model
  --policy FILE!  YAML or JSON, see docs/gate.md
  | --bundle PATH  the run's bundle
  | --run RUN  where the deployment is; without either, each run there that has these weights
  --parent PATH...  bundle of a run that it continues; repeatable
  --approval FILE...  signatures of persons, as 'provenance approve' writes them, or Sigstore
    bundles; repeatable
  --headers FILE|URL...  Bitcoin block headers that you trust, or an Esplora explorer
  --quorum K  how many explorers must agree (all)
  --sarif FILE  write the refusals there as SARIF 2.1.0
  --junit FILE  write the rules there as JUnit XML
  --card FILE  write a section for a model card (Markdown) there
  --annotations FILE  write annotations of an OCI manifest there
approve  auditor.gate:approve  sign that a run may be promoted, for a gate's policy to count
  subject RUN|PATH|CID  run id, its first or last 8, latest, bundle folder or .zip, or ipfs:CID
  --key FILE  yours, as 'provenance identity' makes it
  --sigstore  instead, the account of your token: SIGSTORE_ID_TOKEN, or the platform's own
  --until DAY  the last day that it holds for, such as 2027-01-31 (for ever)
  -o --output FILE!  signatures that are there stay, and yours comes to them
compliance  beyond.compliance:compliance  what a run's records say to a framework, and what is left
  subject RUN|BUNDLE?  run id, latest, bundle folder or .zip, or ipfs:CID
  --framework {eu-ai-act,nist-ai-rmf,iso-42001}  whose requirements
  -o --output FOLDER  a new folder, or that of an earlier report
  --key FILE  sign with it: yours, as 'provenance identity' makes it
  --placed-on DAY  when the system is placed on the market, such as 2027-01-31: counts retention
  --check FOLDER  instead of writing, hold a report against its signed statement
  --signer KEY  with --check: the key that must have signed, 64 hex digits
host  beyond.host:host  what this machine can attest, or what the hosts of a run attested
  run_id RUN?  run id, its first or last 8, or latest
approvals  ACTION  anchors that wait for signatures of persons
approvals list  beyond.approvals:waiting  which do, and who signed
approvals show  beyond.approvals:show  write what is to be signed; it keeps its place from then on
  anchor ANCHOR|trust  as 'approvals list' numbers them; or of --config the section trust
  --until DAY  the last day that it holds for, such as 2027-01-31 (for ever)
  -o --output FILE!  the statement, with the signatures that it has
approvals sign  beyond.approvals:sign  sign such a file, on whatever machine
  file FILE  of 'approvals show'; your signature comes to those that are there
  --key FILE  yours, as 'provenance identity' makes it
  --sigstore  instead, the account of your token: SIGSTORE_ID_TOKEN, or the platform's own
approvals add  beyond.approvals:add  take signatures into the deployment
  file FILE  of 'approvals sign', or a Sigstore bundle around its statement
sign  auditor.model:sign  sign a model's files (OpenSSF Model Signing)
  model FOLDER  the model's files
  --run RUN!  where it is from
  --key FILE!  EC private key, PEM, mode 0600
  -o --output FILE  signature (FOLDER/model.sig)
statement  auditor.model:statement  in-toto statement of a run (SLSA provenance)
  run_id RUN  run id, its first or last 8, or latest
  -o --output FILE  file (stdout)
data  ACTION  whether items were among a run's data
data prove  beyond.items:prove  that they all were, or none of them was; for the owner of the data
  items ITEM+  file of one, .npy .npz .csv .jsonl .parquet of many, FILE:ROW, JSON, - for stdin
  | --in RUN|PATH  all were: run id, its first or last 8, latest, or its bundle
  | --not-in RUN|PATH  none was
  --split {train,test}  of which data (train)
  -o --output FILE!  the proof; it has the item key, so whoever gets it can try other items
data check  beyond.items:check  hold items against such a proof
  proof FILE  as 'provenance data prove' writes it
  items ITEM+  as for data prove
  | --bundle PATH  the run's bundle
  | --run RUN  where the deployment is: run id, its first or last 8, or latest
export  ACTION  a run in the forms of other systems
export c2pa  beyond.export:c2pa  C2PA manifest of a run's model, in a file beside it
  run_id RUN  run id, its first or last 8, or latest
  --model FILE!  the model's file
  --key FILE!  EC private key, PEM, mode 0600
  --cert FILE!  its certificate, and those above it, PEM
  -o --output FILE!  the manifest, such as model.c2pa
export rekor  beyond.export:rekor  entry of a run for Rekor, the log of Sigstore
  run_id RUN  run id, its first or last 8, or latest
  --key FILE!  EC private key, PEM, mode 0600
  -o --output FILE!  the entry
ledger  ACTION  what keeps it one history: after a restore, a lost key, an end
ledger head  ledger:head  compare the database with the heads that its key signed; 1 where refused
ledger recover  ledger:recover  bring back what a restored database lacks
  bundles PATH+  bundles, or folders of reports, of the runs that are missing
ledger confirm  ledger:confirm  say that nothing is missing in a restored copy
ledger succeed  ledger:succeed  begin a new ledger whose first entry commits to an old head
  note FILE  the old ledger's last signed head
  --ledger-key VKEY!  the old ledger's key
log  ACTION  the ledger as a transparency log
log export  auditor.log:export  write it as tlog-tiles for static hosting
  folder FOLDER
log runs  beyond.runs:runs  every run ever begun, its end or silence; 1 where an entry is of none
  source SOURCE?  folder or URL of tiles, or bundle (the deployment's database)
  --before RUN  only how many began before it, how they ended, with which seeds and results
  --ledger-key VKEY  the ledger's key, as you know it
  --page PAGE  of the list (1)
  --limit RUNS  on a page (as many as the screen has room for, 50 where there is none)
log prove  auditor.log:prove  tlog-proof of a run's newest root
  run_id RUN  run id, its first or last 8, or latest
log consistency  auditor.log:consistency  proof that one head extends another
  old OLD  size
  new NEW  size
log cosign  auditor.log:cosign  take in a head that witnesses cosigned
  note FILE  signed note
  --witness VKEY...!  a witness you trust
log compare  auditor.log:compare  whether two sources tell one story
  a A  bundle, note, base folder, configuration, database URL, or folder or URL of tiles
  b B  another; or ethereum[:CONTRACT], bitcoin, local
  -o --output FILE  where a fork's proof is stored
  --ledger-key VKEY  the ledger's key, as you know it
log monitor  auditor.log:monitor  whether it continues what was seen last
  source SOURCE  bundle, note, base folder, configuration, database URL, or folder or URL of tiles
  --state FILE  the last head (<base>/log-monitor/...)
  -o --output FILE  proof (beside the state)
  --ledger-key VKEY  the ledger's key, as you know it
multisig  ACTION  heads that several owners sign on the chain itself
multisig list  beyond.multisig:waiting  which wait, and who signed
multisig wallet  beyond.multisig:wallet  make the wallet that watches Bitcoin's owners' coins
multisig request  beyond.multisig:request  write what the owners of the head that waits sign
  network {ethereum,bitcoin}
  --again  another, without signatures: they expired, or its fee is too low
  -o --output FILE!  signing request
multisig sign  beyond.multisig:sign  check such a file and sign it, with an owner's configuration
  file FILE  of 'multisig request'; the signature comes to those that are there
multisig add  beyond.multisig:add  take signatures into the deployment
  files FILE+  of 'multisig sign'
contract  ACTION  the Ethereum contracts
contract deploy  up:deploy  deploy the register of roots with the configured key
  | --bitcoin-view  the contract that checks Bitcoin's proofs, instead
  | --attestations  the contract that tells whether roots are verified on time, instead
  | --owners ADDRESS...  one that stores a root only with signatures of these; repeatable
  --threshold K  how many of them must sign
contract confirm  beyond.cross:confirm  have Ethereum check a run's Bitcoin anchors
  subject RUN|PATH|CID  run id, latest, bundle folder or .zip, or ipfs:CID
  --view ADDRESS!  the contract that checks Bitcoin's proofs
  --least-work BITS  log2 of the hashes that the headers took together (64 on main, else 0)
contract register  beyond.attest:register  have a run's root watched on Ethereum, once and for all
  run_id RUN  run id, its first or last 8, or latest
  --contract ADDRESS!  of 'contract deploy --attestations'
  --every SECONDS!  within which each attestation must follow the one before
  --verifier ADDRESS...!  an account that may attest; repeatable
attest  beyond.attest:attest  verify a run and say on Ethereum how it comes out
  run_id RUN  run id, its first or last 8, or latest
  --contract ADDRESS!  of 'contract deploy --attestations'
  --registrar ADDRESS!  the account that registered the run's root
attestations  beyond.attest:attestations  what Ethereum says of a run's root; 1 where overdue
  run_id RUN  run id, its first or last 8, or latest
  --contract ADDRESS!  of 'contract deploy --attestations'
  --registrar ADDRESS!  the account that registered it
timelock  ACTION  records that stay shut until a block height
timelock key  beyond.timelock:key  print the public key that an approver states
  file FILE  of 'provenance identity'
timelock seal  beyond.timelock:seal  write a run's bundle with some records locked
  run_id RUN  run id, its first or last 8, or latest
  --lock KIND|PATH...!  which: such as metrics or training/epoch/3; repeatable
  --after NETWORK:HEIGHT!  bitcoin or ethereum, and the block that must have come
  --approvers FILE!  JSON: their names and keys, as 'timelock key' prints them
  -k --threshold K!  how many of them open it
  -o --output OUTPUT!  new folder, or file ending in .zip
timelock release  beyond.timelock:release  an approver's share, once the height has passed
  bundle PATH  of 'timelock seal'
  --key FILE!  yours, as 'provenance identity' makes it
  -o --output FILE!  where the share goes
  --headers FILE|URL...  Bitcoin block headers from the first on, or an Esplora explorer; repeatable
timelock open  beyond.timelock:unlock  write the bundle with its locked records open
  bundle PATH  of 'timelock seal'
  shares FILE+  of 'timelock release'
  -o --output OUTPUT!  new folder, or file ending in .zip
networks  ACTION  the networks heads are anchored on
networks resume  up:resume  lift the pause of a network
  network {ethereum,bitcoin,ipfs,local}
health  health:health  whether work gets on; 1 where a queue is stale or cannot do its work
  queues QUEUE*  hashing, anchor.NETWORK, ..., beat (all, and Redis and the database); shipper
  --serve HOST:PORT  serve /metrics, /healthz and /readyz there (loopback without HOST:)
doctor  doctor:doctor  say what works here, and what would mend it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Users' mistakes end in one line, not a traceback."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who started this
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of few letters, as stderr has it
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(takewhile(lambda word: word != "--", sys.argv[1:] if argv is None else argv))
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as ended:
        if isinstance(ended.__cause__, UsageError) and "--json" in words:
            _print_error(str(ended.__cause__))
        raise
    try:
        return _command_function(*arguments.run.split(":"))(arguments)
    except ProvenanceError as error:
        _complain(str(error), arguments.json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        from provenance.cli.output import reader_left

        reader_left(sys.stdout)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}", arguments.json)
        return UsageError.exit_code


def _complain(message: str, as_json: bool) -> None:
    print(f"provenance: {shown(message)}", file=sys.stderr)  # noqa: T201  what the command says
    if as_json:
        _print_error(message)


def _print_error(message: str) -> None:
    from provenance.cli.output import print_json

    print_json({"error": message})


class _Parser(argparse.ArgumentParser):
    """Its messages repeat arguments, which scripts take from data; an option is written out."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        try:
            super().error(shown(message))
        except SystemExit as ended:
            raise SystemExit(ended.code) from UsageError(message)


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
    groups = {"": top.add_subparsers(metavar="COMMAND", required=True)}
    for block in re.split(r"\n(?! )", _GRAMMAR.strip().replace("\n    ", " ")):
        line, *options = block.split("\n  ")
        name, code, text = line.split("  ")
        group, _, last = name.rpartition(" ")
        if code == "ACTION":
            actions = groups[group].add_parser(name, help=text)
            groups[name] = actions.add_subparsers(metavar=code, required=True)
            continue
        command = groups[group].add_parser(last, help=text, description=text, epilog=EXIT_CODES)
        command.set_defaults(run=code)
        _add_common(command, code.partition(":")[0])
        one_of = command.add_mutually_exclusive_group() if "\n  | " in block else command
        for option in options:
            _add(one_of if option.startswith("| ") else command, option.removeprefix("| "))
    return top


def _add_common(command: argparse.ArgumentParser, module: str) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    if module == "devnet":
        root = os.path.expanduser
        command.add_argument(
            "--root", type=root, default=".", help="folder that holds .devnet/ (.)"
        )
    if module not in ("run", "devnet"):
        base = os.environ.get("PROVENANCE_BASE_DIR", "artifacts")
        text = "spool, database and reports (artifacts)"
        command.add_argument("--base-dir", type=_path, default=base, help=text)
    if module not in ("run", "devnet", "demo"):
        config = os.environ.get("PROVENANCE_CONFIG") or None
        command.add_argument("--config", type=_path, default=config, help="JSON configuration")


_PATHS = frozenset(("FILE", "FOLDER", "PATH", "BUNDLE", "OUTPUT", "OUT"))
"""Metavars of paths."""


def _path(text: str) -> Path:
    """A shell leaves the ``~`` of ``--base-dir=~/runs`` as it is, and that of a variable."""
    return Path(os.path.expanduser(text))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port, 1 to 65535")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", _port(port)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < inf:
            return seconds
    raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0 or more")


def _interval(text: str) -> float:
    if (seconds := _seconds(text)) >= 0.1:
        return seconds
    raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0.1 or more")


_KEYWORDS: dict[str, dict[str, Any]] = {
    "--epochs": {"type": _positive, "default": 5},
    "--timeout": {"type": _positive, "default": 120},
    "--block-time": {"type": _seconds, "default": 5.0},
    "blocks": {"type": _positive},
    "--flower-port": {"type": _port},
    "--metrics": {"type": _address},
    "--serve": {"type": _address},
    "--dashboard-port": {"type": _port},
    "--host": {"default": "127.0.0.1"},
    "--port": {"type": _port, "default": 8484},
    "--scope": {"default": "read"},
    "--page": {"type": _positive, "default": 1},
    "--limit": {"type": _positive},
    "--watch": {"type": _interval, "const": 2.0},
    "--sort": {"default": "created"},
    "--format": {"default": "text"},
    "--quorum": {"type": _positive},
    "--threshold": {"type": _positive},
    "-k": {"type": _positive},
    "--every": {"type": _positive},
    "--least-work": {"type": float},
    "--witness-quorum": {"type": _positive},
    "--settle": {"type": _seconds, "default": 0.0},
    "--run": {"dest": "run_id"},
    "--in": {"dest": "run_in"},
    "--not-in": {"dest": "run_not_in"},
    "--split": {"default": "train"},
    "--proof": {"type": _path},
    "--epoch": {"default": "final"},
    "--between": {"nargs": 2, "metavar": ("LOW", "HIGH")},
    "folder": {"type": _path},
    "proof": {"type": _path},
    "command": {"nargs": argparse.REMAINDER, "metavar": "-- COMMAND"},
    "old": {"type": int},
    "new": {"type": int},
}


def _add(command: argparse._ActionsContainer, line: str) -> None:
    """An option or argument by its line of the grammar."""
    spec, _, text = line.partition("  ")
    words = spec.split(" ")
    names = [word for word in words if word.startswith("-")] or words[:1]
    keywords: dict[str, Any] = {"help": text or None}
    if len(words) > len(names):
        metavar = words[-1].removesuffix("!")
        if words[-1] != metavar:
            keywords["required"] = True
        if metavar.endswith("..."):
            keywords["action"] = "append"
        elif metavar[-1] in "?*+":
            keywords["nargs"] = metavar[-1]
        metavar = metavar.rstrip(".?*+")
        if _PATHS.intersection(metavar.split("|")):
            keywords["type"] = os.path.expanduser  # which a shell leaves in --output=~/runs
        if metavar.startswith("{"):
            keywords["choices"] = metavar.strip("{}").split(",")
        else:
            keywords["metavar"] = metavar
    else:
        keywords["action"] = "store_true"
    command.add_argument(*names, **keywords | _KEYWORDS.get(names[0], {}))
