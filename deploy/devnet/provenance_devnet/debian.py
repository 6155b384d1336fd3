"""bitcoind from Debian's archive, without touching the system.

Debian has bitcoind in sid only, as ``bitcoin-knots``. apt fetches it into a folder of ours with
lists, cache and package status of its own, from the mirror that the machine already uses and
under the signatures of the machine's Debian keyring. dpkg-deb then only unpacks: the program with
all its libraries, their C library and loader included, so it runs on an older Debian as well.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from provenance.errors import ServerMissingError
from provenance_devnet.processes import run_tool

PACKAGE = "bitcoin-knots"
_SUITE = "sid"
_OS_RELEASE = Path("/etc/os-release")
_KEYRINGS = tuple(
    Path("/usr/share/keyrings") / f"debian-archive-keyring.{suffix}" for suffix in ("gpg", "pgp")
)
_ENV = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}

# What only a system-wide installation of the package needs; claimed as present.
_STATUS = """\
Package: provenance-devnet
Status: install ok installed
Priority: optional
Section: misc
Maintainer: devnet <devnet@localhost>
Architecture: all
Version: 1
Provides: debconf, debconf-2.0, systemd, systemd-sysusers
Description: stands in for what unpacked programs do without

"""

# The hooks are the system's own business (some delete files of the system's cache).
_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::Etc::sourcelist "{private}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{private}/state";
Dir::State::lists "{private}/lists";
Dir::State::status "{private}/state/status";
Dir::Cache "{private}/cache";
Dir::Cache::archives "{private}/cache/archives";
Dir::Log "{private}/log";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
APT::Install-Recommends "false";
"""


def fetch(private: Path, into: Path, cancel: threading.Event) -> str:
    """Downloads and unpacks bitcoind with its libraries; returns the package's version.

    Args:
        private: A scratch folder for lists and packages.
        into: The folder that gets the file tree.
        cancel: Set to stop early.

    Raises:
        ServerMissingError: This machine is no Debian, or lacks its tools or keyring.
        UnavailableError: apt or dpkg-deb failed; the message ends with their last lines.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ServerMissingError(f"{tool} is not on PATH")
    mirror = _mirror(cancel)
    conf = _lay_out(private, mirror, _keyring())
    run_tool(["apt-get", "-c", str(conf), "-q", "update"], deadline=240, cancel=cancel, env=_ENV)
    download = ["apt-get", "-c", str(conf), "-q", "-y", "--download-only", "install", PACKAGE]
    run_tool(download, deadline=300, cancel=cancel, env=_ENV)
    into.mkdir(parents=True)
    packages = sorted((private / "cache" / "archives").glob("*.deb"))
    for package in packages:
        run_tool(["dpkg-deb", "-x", str(package), str(into)], deadline=60, cancel=cancel)
    return next(
        (each.name.split("_")[1] for each in packages if each.name.startswith(PACKAGE)), "unknown"
    )


def wrapper(program: str) -> str:
    """A script for ``bin/`` that runs an unpacked program with its own loader and libraries."""
    return f"""\
#!/bin/sh
# Runs {program} with the libraries it was built for; see deploy/devnet/README.md.
here=$(cd "$(dirname "$0")/../opt/bitcoin" && pwd) || exit 1
for loader in "$here"/usr/lib/*/ld-linux*.so.*; do
  exec "$loader" --library-path "${{loader%/*}}" "$here/usr/bin/{program}" "$@"
done
"""


def _os_release() -> dict[str, str]:
    try:
        lines = _OS_RELEASE.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def _mirror(cancel: threading.Event) -> str:
    """The archive that the system takes its own release from, whatever the file's format."""
    release = _os_release()
    if release.get("ID") != "debian":
        raise ServerMissingError("this is not Debian")
    suites = {release.get("VERSION_CODENAME", "stable"), "stable", "testing", "unstable", _SUITE}
    listed = run_tool(
        [
            *("apt-get", "indextargets", "--no-release-info"),
            *("--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages"),
        ],
        deadline=30,
        cancel=cancel,
        env=_ENV,
    )
    found = []
    for line in listed.splitlines():
        uri, _, rest = line.partition(" ")
        suite, _, component = rest.partition(" ")
        if suite in suites and component == "main":
            found.append(uri)
    if not found:
        raise ServerMissingError("apt has no Debian archive configured")
    # Other archives use Debian's suite names too. A wrong guess is no danger: what apt fetches
    # must be signed by the Debian keyring.
    return min(
        found, key=lambda uri: (not uri.rstrip("/").endswith("/debian"), "debian" not in uri)
    )


def _keyring() -> Path:
    for path in _KEYRINGS:
        if path.exists():
            return path
    raise ServerMissingError("the package debian-archive-keyring is not installed")


def _lay_out(private: Path, mirror: str, keyring: Path) -> Path:
    for folder in ("lists/partial", "cache/archives/partial", "state", "log"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    (private / "state" / "status").write_text(_STATUS)
    (private / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {_SUITE} main\n")
    conf = private / "apt.conf"
    conf.write_text(_CONF.format(private=private))
    return conf
