"""The command line: its grammar, its exit codes, and errors of one line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provenance import __version__, cli
from provenance import errors as e
from provenance.cli import status as status_command
from provenance.formats.record import END_STATES

COMMANDS = (
    "demo", "up", "ship", "devnet install", "devnet up", "devnet down", "devnet status",
    "devnet mine 3", "status",
    "verify latest", "report latest", "path file", "contract deploy", "doctor",
    "fsck", "networks resume local", "migrate",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json_and_names_code_that_is_there(command: str) -> None:
    arguments = cli.parser().parse_args([*command.split(), "--json"])
    assert arguments.json is True
    module, function = arguments.run.split(":")
    found = __import__(f"provenance.cli.{module}", fromlist=[function])
    assert callable(getattr(found, function))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[:4] not in ("devn", "demo")])
def test_every_command_takes_a_folder_and_a_configuration(command: str) -> None:
    words = [*command.split(), "--base-dir", "b", "--config", "c.json"]
    arguments = cli.parser().parse_args(words)
    assert (arguments.base_dir, arguments.config) == (Path("b"), Path("c.json"))


def test_the_environment_gives_folder_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.parser().parse_args(["status"]).base_dir == Path("artifacts")
    assert cli.parser().parse_args(["status"]).config is None
    monkeypatch.setenv("PROVENANCE_BASE_DIR", "elsewhere")
    monkeypatch.setenv("PROVENANCE_CONFIG", "their.json")
    arguments = cli.parser().parse_args(["status"])
    assert (arguments.base_dir, arguments.config) == (Path("elsewhere"), Path("their.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "COMMAND"),
        ("frobnicate", "frobnicate"),
        ("devnet", "ACTION"),
        ("devnet sideways", "sideways"),
        ("contract", "ACTION"),
        ("report", "RUN"),
        ("path", "FILE"),
        ("demo --epochs 0", "found '0', expected a whole number from 1"),
        ("demo --epochs many", "found 'many', expected a whole number from 1"),
        ("demo --timeout -3", "--timeout"),
        ("up --flower-port 70000", "found '70000', expected a port, 1 to 65535"),
        ("up --flower-port 0", "expected a port"),
        ("status --frob", "--frob"),
        ("verify latest --offlin", "unrecognized arguments: --offlin"),
        ("log monitor x --stat s", "unrecognized arguments: --stat"),
        ("fsck --settle nan", "found 'nan', expected seconds, 0 or more"),
        ("fsck --settle=-1", "found '-1', expected seconds, 0 or more"),
        ("status --sort colour", "'colour' (choose from"),
        ("status --state bogus", "'bogus' (choose from"),
        ("networks resume dogecoin", "'dogecoin' (choose from"),
        ("devnet url dogecoin", "'dogecoin' (choose from"),
        ("verify one two", "two"),
        ("demo --config c.json", "--config"),  # it writes one for the servers it starts
    ],
)
def test_wrong_usage_is_2(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["--help"], ["verify", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"ml-provenance {__version__}" in shown
    assert shown.count("exit codes: 0 fine, 1 verification failed") == 2


@pytest.mark.slow
def test_a_path_of_the_home_directory_is_expanded_in_every_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shell leaves the ``~`` of ``--output=~/x.zip`` as it is."""
    monkeypatch.setenv("HOME", "/home/ann")
    for words, name in (
        ("bundle latest --output=~/x", "output"),
        ("report latest --output=~/x", "output"),
        ("verify ~/x", "subject"),
        ("path x --ots=~/x", "ots"),
        ("data prove 1 --in=~/x -o y", "run_in"),
        ("gate --model=~/x --policy y", "model"),
        ("compliance latest --key=~/x", "key"),
        ("compliance --check=~/x", "check"),
        ("log monitor x --state=~/x", "state"),
        ("devnet up --root=~/x", "root"),
    ):
        assert getattr(cli.parser().parse_args(words.split()), name) == "/home/ann/x"
    repeated = "gate --model m --policy p --approval=~/x --parent=~/x --headers=~/x"
    told = cli.parser().parse_args(repeated.split())
    assert [told.approval, told.parent, told.headers] == [["/home/ann/x"]] * 3
    asked = ["verify", "latest", "--proof=~/x", "--base-dir=~/b"]
    proof, base = (cli.parser().parse_args(asked).proof[0], cli.parser().parse_args(asked).base_dir)
    assert (str(proof), str(base)) == ("/home/ann/x", "/home/ann/b")


@pytest.mark.slow
def test_status_takes_every_state_that_a_run_can_be_in() -> None:
    for state in (*END_STATES, "running", "lost", "unknown"):
        assert cli.parser().parse_args(["status", "--state", state]).state == state
    assert cli.parser().parse_args(["log", "monitor", "x", "--state", "a file"]).state == "a file"


def fails_with(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def command(_: argparse.Namespace) -> int:
        raise error

    return command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (e.ConfigError("blockchain.networks", "found 3, expected a list", "c.json"), 2),
        (e.InputError("bad"), 2),
        (e.UnknownRunError("no run"), 2),
        (e.MissingExtraError("celery", "workers"), 2),
        (e.WrongNetworkError("chain id 1, expected 2"), 2),
        (e.NetworkUnavailable("refused"), 3),
        (e.StoreUnavailable("locked"), 3),
        (e.TransportUnavailable("refused"), 3),
        (e.ServerMissingError("none"), 3),
        (e.IntegrityError("broken"), 1),
        (PermissionError(13, "Permission denied", "/root/x"), 2),
        (OSError("odd"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status_command, "status", fails_with(error))
    assert cli.main(["status"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    if isinstance(error, KeyboardInterrupt):
        assert shown.err == ""
    else:
        assert shown.err.startswith("provenance: ")
        assert shown.err.count("\n") == 1
        assert str(error.args[-1]) in shown.err
        assert cli.main(["status", "--json"]) == code
        again = capsys.readouterr()
        (said,) = json.loads(again.out).items()
        assert (said[0], again.err) == ("error", shown.err)
        assert shown.err == f"provenance: {said[1]}\n"


def test_wrong_usage_is_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status", "--page", "x\x1b[2J"], ["report"], ["nothing"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--json"])
        assert ended.value.code == 2
        assert json.loads(capsys.readouterr().out).keys() == {"error"}
    with pytest.raises(SystemExit):
        cli.main(["report"])
    assert capsys.readouterr().out == ""


def test_an_unexpected_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_command, "status", fails_with(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["status"])


def program(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "provenance.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = program("verify", "--explain")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """By file name: what is in it, and what its error names."""
    chain = {"networks": ["local"]}
    return {
        "broken.json": ('{"epochs": 3,', "not JSON: "),
        "binary.json": ("\udcff\udcfe", "not UTF-8 text"),
        "list.json": ("[]", "expected an object"),
        "key.json": (
            json.dumps({"blockchain": {**chain, "color": 1}}),
            "blockchain.color: unknown",
        ),
        "type.json": (json.dumps({"lease": "three"}), 'lease: found "three", expected'),
        "network.json": (json.dumps({"blockchain": {"networks": ["dogecoin"]}}), "dogecoin"),
        "placeholder.json": (
            json.dumps(
                {
                    "blockchain": {
                        "networks": ["ethereum"],
                        "ethereum": {
                            "url": "http://127.0.0.1:1",
                            "private_key": "your_private_key",
                        },
                    }
                }
            ),
            "blockchain.ethereum.private_key: found the placeholder",
        ),
    }


@pytest.mark.parametrize("command", ["status", "verify latest", "doctor", "up", "ship"])
def test_a_configuration_that_is_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--config", "gone.json"]) == 2
    said = "gone.json: cannot read: No such file or directory"
    assert capsys.readouterr().err == f"provenance: {said}\n"


@pytest.mark.parametrize("name", sorted(bad_files(Path())))
def test_a_malformed_configuration_is_named_with_its_key(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text, said = bad_files(tmp_path)[name]
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert cli.main(["doctor", "--config", name]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"provenance: {name}: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("verify", "expected one of the two"),
        ("verify latest", "there is no database yet"),
        ("verify 0192f0c1", "there is no database yet"),
        ("report latest", "there is no database yet"),
        ("status latest", "--base-dir artifacts: no such folder"),
        ("verify .", "not a bundle, there is no manifest.json"),
        ("path gone.json", "gone.json: no such record file"),
        ("demo --networks local,dogecoin", "--networks: found 'dogecoin', expected ethereum"),
        ("demo --networks ,", "--networks: found ''"),
        ("devnet status --only dogecoin", "dogecoin"),
        ("contract deploy", "blockchain.ethereum: missing"),
        ("ship", "--base-dir artifacts: no such folder"),
    ],
)
def test_wrong_input_is_2_in_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert not (tmp_path / "artifacts" / "ledger.db").exists()


def test_a_folder_that_cannot_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["up", "--base-dir", "file/artifacts"]) == 2
    shown = capsys.readouterr().err
    assert "file" in shown
    assert "Not a directory" in shown
    assert shown.count("\n") == 1
